import DTLS
import Primitives
import Testing

@Suite struct Trust {
    static let client = Fixture.clientCertificate.fingerprint
    static let stranger = Fixture.strangerCertificate.fingerprint
    static let wrong512 = DTLSFingerprint(algorithm: .sha512, bytes: [UInt8](repeating: 1, count: 64))
    static let wrong1 = DTLSFingerprint(algorithm: .sha1, bytes: [UInt8](repeating: 1, count: 20))
    static let short = DTLSFingerprint(algorithm: .sha256, bytes: Array(client.bytes.prefix(16)))
    static let mislabelled = DTLSFingerprint(algorithm: .sha384, bytes: client.bytes)

    @Test(arguments: [[], [stranger], [wrong1], [client, wrong512], [wrong512], [short], [mislabelled, client], [stranger, wrong1]])
    func `a client whose certificate was not announced gets an alert and neither side gets keys`(announced: [DTLSFingerprint]) {
        var call = Call(serverTrusts: announced)
        call.run()
        let (client, server) = (call.clientEvents, call.serverEvents)
        #expect(server == [.failed(.fingerprintMismatch)])
        #expect(client == [.failed(.peerAlert)])
    }

    @Test(arguments: [[], [stranger], [wrong1]])
    func `a server whose certificate was not announced gets an alert and neither side gets keys`(announced: [DTLSFingerprint]) {
        var call = Call(clientTrusts: announced)
        call.run()
        let (client, server) = (call.clientEvents, call.serverEvents)
        #expect(client == [.failed(.fingerprintMismatch)])
        #expect(server == [.failed(.peerAlert)])
    }

    @Test(arguments: [[stranger, client], [client, stranger], [client, wrong1], [wrong1, client, client]])
    func `one match among the strongest hashes is enough`(announced: [DTLSFingerprint]) {
        var call = Call(serverTrusts: announced)
        call.run()
        let server = call.serverKeys
        #expect(server != nil)
    }

    @Test func `certificates differ, and each fingerprint reads back from its SDP text`() {
        #expect(Self.client != Self.stranger)
        for print in [Self.client, Self.stranger, Self.wrong1, Self.wrong512] {
            #expect(DTLSFingerprint(sdpText: print.sdpText) == print)
            #expect(DTLSFingerprint(sdpText: print.sdpText.lowercased()) == print)
        }
        #expect(Self.client.sdpText.hasPrefix("sha-256 "))
        #expect(Self.client.sdpText.utf8.count == 8 + 32 * 3 - 1)
    }

    @Test(arguments: [
        "", "sha-256", "sha-256 ", "md5 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF", "sha-1 00:11",
        "sha-1 00112233445566778899AABBCCDDEEFF00112233", "sha-1 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:3",
        "sha-1 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:GG",
        "sha-1 0:011:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33",
    ])
    func `what is not a fingerprint is not read`(text: String) {
        #expect(DTLSFingerprint(sdpText: text) == nil)
    }
}
