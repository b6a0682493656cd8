import Primitives
import SDP
import Testing

@Suite struct Trickle {
    @Test func `a restart's fragment is read with all its candidates`() throws {
        let read = try fragment(corpus("written-fragment.txt"))
        #expect(read.ufrag == "ysXw" && read.password == "vw5LmwG4y/e6dPP/zAP9Gp5k" && read.endOfCandidates)
        #expect(read.candidates.map(\.kind) == [.host, .srflx, .host, .host])
        #expect(read.candidates.map(\.transport) == ["udp", "udp", "tcp", "udp"])
        #expect(read.candidates[1].address == SocketAddress("198.51.100.2:61765") && read.candidates[0].priority == 2_122_260_223)
        // A browser's name for its own address is never resolved.
        #expect(read.candidates[3].address == nil)
    }

    @Test func `credentials may stand at session level, or be missing`() throws {
        let session = try fragment("a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n")
        #expect(session.ufrag == "EsAw" && session.candidates.isEmpty && !session.endOfCandidates)
        #expect(try fragment("m=audio 9 RTP/AVP 0\na=end-of-candidates\n") == TrickleFragment(endOfCandidates: true))
    }

    @Test(arguments: [
        ("", SDPErrorReason.empty), ("a=ice-ufrag:EsAw\r\n", .halfCredentials),
        ("a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n", .halfCredentials),
        ("a=ice-ufrag:x\r\n", .badUfrag), ("a=ice-pwd:x\r\n", .badPassword), ("{}", .badLine), ("a=\0", .badByte),
        (String(repeating: "a=candidate:\n", count: 101), .tooManyCandidates(limit: 100)),
    ])
    func `a bad fragment is refused`(text: String, reason: SDPErrorReason) {
        let error = #expect(throws: SDPError.self) { try fragment(text) }
        #expect(error?.reason == reason)
    }

    @Test func `a candidate over TCP is passive and the last choice`() throws {
        let relay = try #require(SocketAddress("192.0.2.1:443"))
        let text = TrickleFragment.answer(
            ufrag: ourUfrag, password: ourPassword, candidates: [relayV4, relay.overTCP, relayV6.overTCP], mid: nil)
        let lines = text.split(separator: "\r\n").filter { $0.hasPrefix("a=candidate") }
        #expect(
            lines == [
                "a=candidate:1 1 udp 2130706431 192.0.2.1 3478 typ host",
                "a=candidate:2 1 tcp 1520434943 192.0.2.1 443 typ host tcptype passive",
                "a=candidate:3 1 tcp 1520434687 2001:db8::1 3478 typ host tcptype passive",
            ])
        let again = try fragment(text)
        #expect(again.candidates.map(\.transport) == ["udp", "tcp", "tcp"] && again.candidates[1].address == relay)
    }

    @Test func `the answer to a restart reads back`() throws {
        let text = TrickleFragment.answer(ufrag: ourUfrag, password: ourPassword, candidates: [relayV6, relayV4], mid: "audio0")
        #expect(text.hasSuffix("\r\na=end-of-candidates\r\n") && text.hasPrefix("a=ice-lite\r\n"))
        #expect(text.contains("\r\na=mid:audio0\r\n"))
        let read = try fragment(text)
        #expect(read.ufrag == ourUfrag && read.password == ourPassword && read.candidates.compactMap(\.address) == [relayV6, relayV4])
        #expect(!TrickleFragment.answer(ufrag: ourUfrag, password: ourPassword, candidates: [], mid: nil).contains("mid"))
    }
}
