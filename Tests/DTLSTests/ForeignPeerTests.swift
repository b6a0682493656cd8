import COpenSSL
import DTLS
import Primitives
import Testing

@Suite struct ForeignPeers {
    /// Lets both talk until neither has anything to say; each datagram is handed over at once.
    private func talk(_ ours: inout DTLSAssociation, _ peer: ForeignPeer) {
        for _ in 0..<20 {
            let (fromUs, fromPeer) = (ours.flight(), peer.flight())
            if fromUs.isEmpty && fromPeer.isEmpty { return }
            for datagram in fromUs { peer.receive(datagram) }
            for datagram in fromPeer { _ = ours.receive(datagram, at: .zero) }
        }
    }

    private func meet(_ role: DTLSRole, _ settings: ForeignPeer.Settings, hash: DTLSHash = .sha256) -> ([DTLSEvent], ForeignPeer) {
        let peer = ForeignPeer(role == .client ? .server : .client, settings)
        var ours = DTLSAssociation(role: role, fingerprints: [peer.fingerprint(hash)])
        ours.start(context: Fixture.context(Fixture.serverCertificate), at: .zero)
        talk(&ours, peer)
        let events = ours.events()
        guard case .established(let keys)? = events.first else { return (events, peer) }
        let (client, server) = role == .client ? (keys.localKey, keys.remoteKey) : (keys.remoteKey, keys.localKey)
        let (clientSalt, serverSalt) = role == .client ? (keys.localSalt, keys.remoteSalt) : (keys.remoteSalt, keys.localSalt)
        #expect(client + server + clientSalt + serverSalt == peer.keyBlock())
        let sent = ours.send([1, 2, 3])
        for datagram in ours.flight() { peer.receive(datagram) }
        #expect(sent)
        #expect(peer.message() == [1, 2, 3])
        #expect(peer.send([4, 5]))
        for datagram in peer.flight() { _ = ours.receive(datagram, at: .zero) }
        let got = ours.message()
        #expect(got == [4, 5])
        return (events, peer)
    }

    private func isEstablished(_ events: [DTLSEvent]) -> Bool {
        if case .established? = events.first { events.count == 1 } else { false }
    }

    static let good = [
        ForeignPeer.Settings(description: "plain"),
        ForeignPeer.Settings(description: "RSA certificate", key: "RSA"),
        ForeignPeer.Settings(description: "RSA certificate, P-256 alone", key: "RSA", groups: "P-256"),
        ForeignPeer.Settings(description: "P-384 certificate", key: "P-384", groups: "X25519:P-256:P-384"),
        ForeignPeer.Settings(description: "P-256 alone", groups: "P-256"),
        ForeignPeer.Settings(description: "P-384 first", groups: "P-384:P-256"),
        ForeignPeer.Settings(description: "ChaCha20 alone", ciphers: "CHACHA20"),
        ForeignPeer.Settings(description: "AES-256 alone", ciphers: "ECDHE+AES256+AESGCM"),
        ForeignPeer.Settings(description: "asks for a cookie", helloVerify: true),
        ForeignPeer.Settings(description: "small datagrams", mtu: 300),
    ]

    @Test(arguments: good, [DTLSRole.client, .server])
    func `peers with other certificates, groups, ciphers and habits are understood`(settings: ForeignPeer.Settings, role: DTLSRole) {
        let (events, peer) = meet(role, settings)
        #expect(isEstablished(events))
        #expect(peer.isEstablished)
        #expect(peer.cipher.contains("GCM") || peer.cipher.contains("CHACHA20"))
    }

    @Test(arguments: good, [DTLSRole.client, .server])
    func `their goodbye is heard after all else was given back`(settings: ForeignPeer.Settings, role: DTLSRole) {
        let peer = ForeignPeer(role == .client ? .server : .client, settings)
        var ours = DTLSAssociation(role: role, fingerprints: [peer.fingerprint(.sha256)])
        ours.start(context: Fixture.context(Fixture.serverCertificate), at: .zero)
        talk(&ours, peer)
        ours.release()
        #expect(peer.send([4, 5]))
        var drops = peer.flight().map { ours.receive($0, at: .zero) }
        peer.close()
        drops += peer.flight().map { ours.receive($0, at: .zero) }
        let last = ours.events().last
        #expect(drops == [.closed, nil] && last == .closed)
    }

    /// As servers they find no cipher suite among ours.
    @Test(arguments: ["RSA-PSS", "ED25519"]) func `clients with rarer keys are understood`(key: String) {
        let (events, peer) = meet(.server, ForeignPeer.Settings(description: key, key: key))
        #expect(isEstablished(events))
        #expect(peer.isEstablished)
    }

    @Test func `handshakes have a library context of their own where OpenSSL would else search all of its algorithms`() {
        #expect(HandshakeLibrary.isLean == (OpenSSL_version_num() < 0x3020_0000))
    }

    @Test(arguments: DTLSHash.allCases)
    func `a fingerprint may use any hash`(hash: DTLSHash) {
        let (events, _) = meet(.server, ForeignPeer.Settings(description: "plain"), hash: hash)
        #expect(isEstablished(events))
    }

    @Test func `a client without a certificate is refused`() {
        let (events, peer) = meet(.server, ForeignPeer.Settings(description: "no certificate", certificate: false))
        #expect(events == [.failed(.noCertificate)])
        #expect(!peer.isEstablished)
    }

    @Test(arguments: [DTLSRole.client, .server])
    func `a peer that does not speak of SRTP is refused`(role: DTLSRole) {
        let (events, _) = meet(role, ForeignPeer.Settings(description: "no SRTP", profiles: nil))
        #expect(events == [.failed(.noProfile)])
    }

    @Test(arguments: [
        ForeignPeer.Settings(description: "CBC alone", ciphers: "ECDHE+AES128+SHA"),
        ForeignPeer.Settings(description: "no forward secrecy", key: "RSA", ciphers: "kRSA+AESGCM"),
        ForeignPeer.Settings(description: "P-521 alone", groups: "P-521"),
        ForeignPeer.Settings(description: "DTLS 1.0", version: DTLS1_VERSION),
    ])
    func `weak peers get a fatal alert`(settings: ForeignPeer.Settings) {
        let (events, peer) = meet(.server, settings)
        #expect(events == [.failed(.handshake)])
        #expect(peer.hasFailed)
        let (asClient, _) = meet(.client, settings)
        #expect(asClient == [.failed(.handshake)] || asClient == [.failed(.peerAlert)])
    }
}
