import Primitives
import SDP
import Testing

@Suite struct Bounds {
    @Test func `too much of anything is refused before it is understood`() {
        // Not SDP after the first line: the bound is what is seen first.
        let rubbish = "v=0\r\n" + String(repeating: "?", count: 65_536)
        #expect(refusal(rubbish)?.reason == .tooLong(limit: 65_536))
        #expect(refusal("v=0\r\n?" + String(repeating: "x", count: 2_048)) == SDPError(.lineTooLong(limit: 2_048), line: 2))
        #expect(refusal("v=0\r\n" + String(repeating: "\n", count: 5_000)) == SDPError(.tooManyLines(limit: 4_096), line: 4_097))
        #expect(refusal("v=0\r\n" + String(repeating: "m=\r\n", count: 17)) == SDPError(.tooManyMediaSections(limit: 16), line: 18))
        let candidates = String(repeating: "a=candidate:\r\n", count: 101)
        #expect(refusal("v=0\r\n" + candidates) == SDPError(.tooManyCandidates(limit: 100), line: 102))
    }

    @Test func `as much as the limits say is read`() throws {
        let long = "a=x:" + String(repeating: "y", count: 2_044)
        let candidate = "a=candidate:1 1 udp 1 192.0.2.9 9 typ host"
        let text = audioOffer(extra: [long] + Array(repeating: candidate, count: 100))
        #expect(try offer(text).media[0].candidates.count == 100)
        #expect(refusal(audioOffer(extra: [long + "y"]))?.reason == .lineTooLong(limit: 2_048))

        let videos = (1...15).flatMap { ["m=video 9 UDP/TLS/RTP/SAVPF 96", "a=mid:v\($0)"] }
        #expect(try offer(audioOffer(then: videos)).media.count == 16)
        let formats = (0..<128).map(String.init).joined(separator: " ")
        #expect(try offer(audioOffer(formats: formats)).media[0].formats.count == 128)
        #expect(refusal(audioOffer(formats: formats + " 128"))?.reason == .tooManyFormats(limit: 128))
        let prints = (0..<16).map { "a=fingerprint:sha-256 \(hashOf($0))" }
        #expect(refusal(audioOffer(extra: prints))?.reason == .tooManyFingerprints(limit: 16))
        #expect(refusal(audioOffer(extra: Array(prints.dropFirst()))) == nil)

        let small = SDPLimits(bytes: 10)
        #expect(refusal(audioOffer(), limits: small)?.reason == .tooLong(limit: 10))
    }

    private func hashOf(_ number: Int) -> String {
        (["\(10 + number)"] + Array(repeating: "00", count: 31)).joined(separator: ":")
    }
}

@Suite struct Refusals {
    @Test(arguments: [
        ("", SDPErrorReason.empty, 0), ("{\"type\":\"offer\",\"sdp\":\"v=0\\r\\n\"}", .json, 1),
        ("v=0\\r\\no=- 1 2 IN IP4 0.0.0.0", .notSDP, 1),
        ("v=1\r\n", .notSDP, 1), ("hello", .notSDP, 1), ("v=0", .noMediaSection, 0), ("v=0\r\ns=-\r\n", .noMediaSection, 0),
        ("v=0\r\nnonsense\r\n", .badLine, 2), ("v=0\r\n=x\r\n", .badLine, 2), ("v=0\r\na=x\ry\r\n", .badByte, 2),
        ("v=0\r\na=\0\r\n", .badByte, 2), ("v=0\r\nm=audio\r\n", .badMedia, 2), ("v=0\r\nm=audio 9 RTP/SAVPF\r\n", .badMedia, 2),
        ("v=0\r\nm=audio 65536 RTP/SAVPF 0\r\n", .badMedia, 2), ("v=0\r\nm=audio -1 RTP/SAVPF 0\r\n", .badMedia, 2),
        ("v=0\r\nm=audio 9 RTP//SAVPF 0\r\n", .badMedia, 2), ("v=0\r\nm=au\"dio 9 RTP/SAVPF 0\r\n", .badMedia, 2),
    ])
    func `what is no offer is refused with its line`(text: String, reason: SDPErrorReason, line: Int) {
        #expect(refusal(text) == SDPError(reason, line: line))
    }

    @Test(arguments: [
        ("a=mid:a b", SDPErrorReason.badMid), ("a=mid:", .badMid), ("a=ice-ufrag:abc", .badUfrag), ("a=ice-ufrag:ab:cd", .badUfrag),
        ("a=ice-pwd:tooshort", .badPassword), ("a=ice-pwd:abcdefghijklmnopqrstu!", .badPassword), ("a=setup:holdconn", .badSetup),
        ("a=fingerprint:sha-256 AB", .badFingerprint), ("a=fingerprint:sha-256", .badFingerprint), ("a=sctp-port:65536", .badSCTPPort),
        ("a=max-message-size:-1", .badMaxMessageSize), ("a=max-message-size:99999999999999999999", .badMaxMessageSize),
        ("a=fingerprint:sha-256 " + Array(repeating: "GG", count: 32).joined(separator: ":"), .badFingerprint),
        ("a=fingerprint:sha-256 " + Array(repeating: "A B", count: 32).joined(separator: ":"), .badFingerprint),
        ("a=ice-ufrag:" + String(repeating: "a", count: 257), .badUfrag),
    ])
    func `a malformed attribute that the call needs is refused with its line`(attribute: String, reason: SDPErrorReason) throws {
        let text = audioOffer(extra: [attribute])
        let lines = text.split(separator: "\r\n")
        let line = try #require(lines.firstIndex { $0 == attribute }) + 1
        #expect(refusal(text) == SDPError(reason, line: line))
    }

    @Test(arguments: [
        "a=rtpmap:", "a=rtpmap:999 x/1", "a=rtpmap:111", "a=rtpmap:111 opus", "a=fmtp:", "a=fmtp:1", "a=extmap:", "a=extmap:x y",
        "a=extmap:1",
        "a=candidate:", "a=candidate:1 1 udp 1 host.example 9 typ", "a=candidate:1 1 sctp 1 192.0.2.1 9 typ host", "a=ssrc:", "a=ssrc:x y",
        "a=ssrc:99999999999 cname:x", "a=msid", "a=", "a=:", "b=AS:64", "k=clear:x", "a=fingerprint:md5 AB", "a=candidate",
    ])
    func `a malformed attribute that no call needs is passed over`(attribute: String) throws {
        let plain = try negotiated(audioOffer())
        #expect(try negotiated(audioOffer(extra: [attribute])) == plain)
    }

    @Test func `an offer that cannot be connected says what is missing`() {
        let good = audioOffer()
        #expect(refusal(good) == nil)
        #expect(refusal(good.without("a=ice-ufrag")) == SDPError(.noUfrag, line: 6))
        #expect(refusal(good.without("a=ice-pwd")) == SDPError(.noPassword, line: 6))
        #expect(refusal(good.without("a=fingerprint")) == SDPError(.noFingerprint, line: 6))
        let sha1 = "a=fingerprint:sha-1 " + Array(repeating: "AB", count: 20).joined(separator: ":")
        #expect(refusal(audioOffer(extra: [sha1]).without("a=fingerprint:sha-256")) == SDPError(.noFingerprint, line: 6))
        #expect(refusal(audioOffer(session: ["a=ice-lite"]))?.reason == .peerIsLite)
        #expect(refusal(audioOffer(then: dataSection(mid: "0")))?.reason == .duplicateMid)
    }

    @Test func `an offer of which nothing can be accepted says why`() {
        let good = audioOffer()
        #expect(refusal(good.without("a=rtcp-mux")) == SDPError(.nothingAccepted(.noRTCPMux), line: 6))
        #expect(refusal(good.without("a=rtpmap")) == SDPError(.nothingAccepted(.noOpus), line: 6))
        #expect(refusal(good.replacing("m=audio 9 ", with: "m=audio 0 "))?.reason == .nothingAccepted(.disabledByOffer))
        #expect(refusal(good.replacing("UDP/TLS/RTP/SAVPF", with: "RTP/AVP"))?.reason == .nothingAccepted(.unsupportedProtocol))
        #expect(refusal(good.replacing("m=audio", with: "m=video"))?.reason == .nothingAccepted(.unsupportedKind))
        // The audio section's reason, wherever it stands.
        let late = audioOffer().replacing("m=audio", with: "m=video") + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=rtcp-mux\r\n"
        #expect(refusal(late)?.reason == .nothingAccepted(.noOpus))
        let message = refusal(good.without("a=rtpmap"))?.message ?? ""
        #expect(message.hasPrefix("SDP line 6: no section can be accepted; add Opus") && message.contains("opus/48000/2"))
    }
}
