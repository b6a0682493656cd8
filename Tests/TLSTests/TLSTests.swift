import Backend
import Glibc
import HTTP
import Primitives
import Realtime
import TLS
import TestSupport
import Testing

private let start = Instant.zero

/// A stream to `tls_peer.py`, over a socket pair.
private final class Link {
    let peer: ForeignPeer
    var stream: TLSClientStream
    var events: [TLSEvent] = []
    var plaintext: [UInt8] = []

    /// - Parameter trusts: the authority that the peer has made, instead of the machine's.
    init(_ name: String, host: String = "backend.example", trusts: Bool = true, protocols: [String] = []) throws {
        let file = "/tmp/swiftlet-tls-\(getpid())-\(UInt64.random(in: 0 ... .max)).pem"
        defer { unlink(file) }
        peer = ForeignPeer("tls_peer.py", [name, file])
        var ready: [UInt8] = []
        while ready.isEmpty { ready = peer.read() ?? [] }
        let context = try TLSClientContext(authorities: trusts ? .file(path: file) : .system)
        stream = try TLSClientStream(context, host: host, protocols: protocols, at: start)
    }

    /// Moves bytes both ways once; false at the end of the socket.
    func turn() -> Bool {
        var isAlive = !stream.isOver
        flush()
        if stream.wantsInput, let bytes = peer.read() {
            if bytes.isEmpty {
                stream.receiveEnd()
                isAlive = false
            } else {
                stream.receive(bytes.span.bytes)
            }
        }
        while true {
            let count = withUnsafeTemporaryAllocation(byteCount: 16_384, alignment: 1) { buffer in
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                let count = stream.nextPlaintext(into: &output)
                plaintext += output.bytes.array
                return count
            }
            if count == 0 { break }
        }
        while let event = stream.nextEvent() { events.append(event) }
        flush()
        return isAlive
    }

    private func flush() {
        while stream.outputCount > 0 {
            let count = stream.withOutput { peer.write($0) }
            guard count > 0 else { break }
            stream.outputSent(count)
        }
    }

    /// Runs until the stream is established, has failed or has ended.
    func open() -> TLSEvent? {
        while events.isEmpty, turn() {}
        return events.first
    }

    func send(_ bytes: [UInt8]) -> Int { stream.send(bytes.span.bytes) }
}

@Suite(.enabled(if: ForeignPeer.python != nil, "no Python environment of the end-to-end tests")) struct ForeignTLS {
    @Test(.timeLimit(.minutes(1)), arguments: ["echo", "tls12", "wildcard"]) func `a megabyte goes there and comes back`(name: String)
        throws
    {
        let link = try Link(name, host: name == "wildcard" ? "backend.voice.example" : "backend.example", protocols: ["http/1.1"])
        #expect(link.send([1]) == 0)
        #expect(link.open() == .established(protocolName: name == "echo" ? "http/1.1" : nil))
        let message = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
        var sent = 0
        while link.plaintext.count < message.count {
            while sent < message.count {
                let count = link.send(Array(message[sent...].prefix(50_000)))
                if count == 0 { break }
                sent += count
            }
            guard link.turn() else { break }
        }
        // Not inside the macro, which would look for the difference of two long arrays.
        let isSame = link.plaintext == message
        #expect(isSame)
        link.stream.close()
        while link.turn() {}
        #expect(link.events.count == 1)
    }

    @Test(.timeLimit(.minutes(1))) func `a server's goodbye is answered`() throws {
        let link = try Link("goodbye")
        while link.turn() {}
        #expect(link.plaintext == Array("bye".utf8))
        #expect(link.events == [.established(protocolName: nil), .ended(isClean: true)])
        // The server has our goodbye, and speaks plainly again.
        var rest: [UInt8]?
        while rest == nil { rest = link.peer.read() }
        #expect(rest == Array("done".utf8))
    }

    @Test(
        .timeLimit(.minutes(1)),
        arguments: [
            ("wrong-name", "hostname mismatch"), ("expired", "certificate has expired"), ("not-yet", "certificate is not yet valid"),
            ("unknown-authority", "unable to get local issuer certificate"), ("self-signed", "self-signed certificate"),
            ("partial-wildcard", "hostname mismatch"), ("address", "hostname mismatch"), ("not-a-server", "unsuitable certificate purpose"),
        ]) func `a certificate that is not good is refused, with the reason`(name: String, reason: String) throws
    {
        guard case .failed(.certificate(let words))? = try Link(name).open() else {
            Issue.record("not refused")
            return
        }
        #expect(
            words.lowercased().contains(reason) || words.replacing(" ", with: "-").contains(reason.replacing(" ", with: "-")), "\(words)")
    }

    @Test(.timeLimit(.minutes(1))) func `only the named authorities count`() throws {
        guard case .failed(.certificate)? = try Link("echo", trusts: false).open() else {
            Issue.record("the machine trusts the test's authority")
            return
        }
    }

    @Test(.timeLimit(.minutes(1))) func `an address is looked for among the certificate's addresses`() throws {
        #expect(try Link("address", host: "192.0.2.7").open() == .established(protocolName: nil))
        guard case .failed(.certificate)? = try Link("address", host: "192.0.2.8").open() else {
            Issue.record("not refused")
            return
        }
    }

    @Test(.timeLimit(.minutes(1)), arguments: ["old", "plain", "client-certificate"]) func `what is no TLS of today fails`(name: String)
        throws
    {
        switch try Link(name).open() {
        case .failed(.peerAlert)?, .failed(.handshake)?: break
        case let other: Issue.record("\(String(describing: other))")
        }
    }

    @Test(.timeLimit(.minutes(1))) func `an end without a goodbye is told apart from one with it`() throws {
        let link = try Link("abrupt")
        while link.turn() {}
        _ = link.turn()
        #expect(link.plaintext == Array("half".utf8))
        #expect(link.events == [.established(protocolName: nil), .ended(isClean: false)])
    }

    @Test(.timeLimit(.minutes(1))) func `a byte that was changed on the way ends the stream`() throws {
        let link = try Link("echo")
        _ = link.open()
        _ = link.send(Array("hello".utf8))
        while link.stream.outputCount > 0 { link.stream.outputSent(link.stream.withOutput { link.peer.write($0) }) }
        var bytes: [UInt8] = []
        while bytes.isEmpty { bytes = link.peer.read() ?? [] }
        bytes[bytes.count - 1] ^= 1
        link.stream.receive(bytes.span.bytes)
        _ = link.turn()
        #expect(link.plaintext.isEmpty)
        guard case .failed(.broken)? = link.events.last else {
            Issue.record("\(link.events)")
            return
        }
    }

    /// The whole way to a backend: the machine of `realtime:wss://…`, TLS, and a server that is not ours.
    @Test(.timeLimit(.minutes(1))) func `a turn is answered through TLS and WebSocket`() throws {
        let link = try Link("realtime")
        let endpoint = try #require(RealtimeEndpoint("wss://backend.example/v1/realtime?model=m"))
        var backend = RealtimeBackend(
            RealtimeBackendSettings(endpoint: endpoint, key: "sk-1"), random: SeededGenerator(seed: 1), at: start)
        let session = SessionObject()
        backend.perform(.sessionChanged, session: session, at: start)
        backend.advance(to: start)
        let action = backend.nextStreamAction()
        #expect(action == .open && link.open() == .established(protocolName: nil))
        backend.streamOpened(at: start)
        let spoken = (0..<24_000).map { Int16(truncatingIfNeeded: $0 &* 7) }
        for place in stride(from: 0, to: spoken.count, by: 480) { backend.hear(Array(spoken[place..<(place + 480)]).span) }
        backend.perform(.turnCommitted(item: "a"), session: session, at: start)
        backend.perform(.startResponse(id: "b", parameters: [:]), session: session, at: start)
        var events: [BackendEvent] = []
        var answer: [Int16] = []
        while events.last != .responseDone {
            let taken = backend.withOutput { link.stream.send($0) }
            backend.outputSent(taken)
            guard link.turn() else { break }
            if !link.plaintext.isEmpty {
                backend.receive(link.plaintext.span.bytes, at: start)
                link.plaintext = []
            }
            var frame = [Int16](repeating: 0, count: 480)
            while true {
                var span = frame.mutableSpan
                guard backend.nextFrame(into: &span) else { break }
                answer += frame
            }
            while let event = backend.nextEvent() { events.append(event) }
        }
        let isSame = answer == spoken
        #expect(isSame)
        #expect(events == [.audioStarted, .transcriptDelta("Grüß Gott"), .responseDone])
    }
}

@Suite struct StreamsWithoutServers {
    @Test func `a server that says nothing is given up`() throws {
        let context = try TLSClientContext()
        var stream = try TLSClientStream(context, host: "backend.example", at: start)
        stream.advance(to: start + .seconds(9))
        let early = stream.nextEvent()
        stream.advance(to: start + .seconds(10))
        let late = stream.nextEvent()
        let wants = stream.wantsInput
        #expect(early == nil && late == .failed(.timeout) && !wants)
    }

    @Test func `the first flight names the server, and an address names nobody`() throws {
        let context = try TLSClientContext()
        func hello(_ host: String) throws -> [UInt8] {
            let stream = try TLSClientStream(context, host: host, at: start)
            return stream.withOutput { $0.array }
        }
        #expect(String(decoding: try hello("backend.example"), as: UTF8.self).contains("backend.example"))
        #expect(try !String(decoding: hello("192.0.2.7"), as: UTF8.self).contains("192.0.2.7"))
        for host in ["", "a b", "a\u{0}b", String(repeating: "a", count: 300)] {
            #expect(throws: TLSError.badHost) { _ = try hello(host) }
        }
    }

    @Test func `authorities that cannot be read are an error`() {
        #expect(throws: TLSError.authorities) { _ = try TLSClientContext(authorities: .file(path: "/nonexistent")) }
    }

    @Test func `mutated answers are not believed`() throws {
        let context = try TLSClientContext()
        // A ServerHello of TLS 1.2, an alert, a record of TLS 1.3 with a ServerHello, and no TLS at all.
        let corpus = [
            "160303003d0200003903030000000000000000000000000000000000000000000000000000000000000000000000c02f000011ff01000100000b000403000102",
            "15030300020228",
            "160303005a0200005603030000000000000000000000000000000000000000000000000000000000000000000000130100002e002b0002030400330024001d0020"
                + "0900000000000000000000000000000000000000000000000000000000000000",
            "485454502f312e312034303020426164205265717565737420200d0a0d0a",
        ].compactMap { bytes(hex: $0) }
        #expect(corpus.count == 4)
        mutate(corpus, count: min(mutationCount, 3_000)) { fuzzTLSClient($0, context) }
    }
}
