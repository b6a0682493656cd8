import DTLS
import Primitives
import TestSupport
import Testing

/// First flights as real clients sent them (Tests/Corpus/dtls), and what our server answers.
struct CapturedHello: Sendable, CustomStringConvertible {
    let client: String
    let profile: UInt16
    let description: String

    init(_ client: String, _ profile: DTLSProtectionProfile) {
        self.client = client
        self.profile = profile.rawValue
        description = client
    }

    var datagrams: [[UInt8]] {
        Corpus.files(in: "dtls").filter { $0.name.hasPrefix(client + "-") && !$0.name.contains("warp") }.map(\.bytes)
    }

    static let all = [
        CapturedHello("chromium-156", .aeadAES128GCM), CapturedHello("firefox-153", .aeadAES128GCM),
        CapturedHello("aiortc-1.16", .aeadAES128GCM), CapturedHello("libwebrtc-m152", .aeadAES128GCM),
        CapturedHello("gstreamer-1.22", .aes128CMHMACSHA1_80), CapturedHello("libdatachannel-0.22", .aes128CMHMACSHA1_80),
    ]
}

/// What a ServerHello chose.
struct Choice: Equatable {
    var version: UInt16
    var cipherSuite: UInt16
    var profile: UInt16?
}

@Suite struct ClientHellos {
    private func server() -> DTLSAssociation {
        var server = DTLSAssociation(role: .server, fingerprints: [Fixture.clientCertificate.fingerprint])
        server.start(context: Fixture.context(Fixture.serverCertificate), at: .zero)
        return server
    }

    /// Reads the ServerHello that begins a flight.
    private func choice(_ flight: [[UInt8]]) -> Choice? {
        guard let first = flight.first, first.count > 80, first[0] == 22, first[13] == 2 else { return nil }
        let bytes = first.span.bytes
        // Record header 13, message header 12, version 2, random 32, then the session id.
        var offset = 25 + 34
        offset += 1 + Int(bytes.byte(offset))
        var choice = Choice(version: bytes.u16(25), cipherSuite: bytes.u16(offset), profile: nil)
        offset += 3
        let end = offset + 2 + Int(bytes.u16(offset))
        offset += 2
        while offset + 4 <= min(end, bytes.byteCount) {
            let (type, length) = (bytes.u16(offset), Int(bytes.u16(offset + 2)))
            if type == 14, length == 5 { choice.profile = bytes.u16(offset + 6) }
            offset += 4 + length
        }
        return choice
    }

    @Test(arguments: CapturedHello.all)
    func `every client's hello is answered with DTLS 1.2, ECDSA with AES-128-GCM, and the profile we like best`(hello: CapturedHello) {
        var server = server()
        let drops = hello.datagrams.map { server.receive($0, at: .zero) }
        #expect(!drops.isEmpty && drops.allSatisfy { $0 == nil })
        let flight = server.flight()
        #expect(choice(flight) == Choice(version: 0xFEFD, cipherSuite: 0xC02B, profile: hello.profile))
        #expect(flight.allSatisfy { $0.count <= DTLSAssociation.transmitSizeMax })
        let (events, deadline) = (server.events(), server.nextDeadline)
        #expect(events.isEmpty)
        #expect(deadline == .zero + .milliseconds(400))
    }

    @Test(arguments: CapturedHello.all)
    func `fragments of a hello may come in any order, and twice, and are answered once`(hello: CapturedHello) {
        var server = server()
        let datagrams = hello.datagrams
        for datagram in datagrams.reversed() + datagrams + datagrams { _ = server.receive(datagram, at: .zero) }
        let flight = server.flight()
        #expect(choice(flight) == Choice(version: 0xFEFD, cipherSuite: 0xC02B, profile: hello.profile))
        #expect(flight.count <= 2)
        let events = server.events()
        #expect(events.isEmpty)
    }

    @Test func `half a hello is not answered`() {
        var server = server()
        let drop = server.receive(CapturedHello.all[0].datagrams[0], at: .zero)
        let flight = server.flight()
        #expect(drop == nil)
        #expect(flight.isEmpty)
    }

    @Test func `hellos and their mutations trap neither a server nor a client`() {
        var models = Corpus.files(in: "dtls").map(\.bytes)
        for model in models {
            fuzzDTLS(model.span.bytes)
            fuzzDTLSClient(model.span.bytes)
        }
        for hello in CapturedHello.all {
            var server = server()
            for datagram in hello.datagrams { _ = server.receive(datagram, at: .zero) }
            models += server.flight()
        }
        mutate(models, count: mutationCount / 4) { fuzzDTLS($0) }
        mutate(models, seed: 2, count: mutationCount / 4) { fuzzDTLSClient($0) }
        mutate(models + [[21, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 1, 0, 26] + [UInt8](repeating: 7, count: 26)], count: mutationCount / 4) {
            fuzzDTLSGoodbye($0)
        }
    }
}
