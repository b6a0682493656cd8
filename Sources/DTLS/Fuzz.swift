// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import Primitives

/// A server in each of its states takes anything without a trap, sends no datagram above the limit, and establishes nothing.
/// `bytes` is one datagram, or two of equal length when it is long: fragments of one hello.
public func fuzzDTLS(_ bytes: RawSpan) {
    let now = Instant.zero + .seconds(1)
    var server = DTLSAssociation(role: .server, fingerprints: FuzzFixture.fingerprints)
    precondition(server.receive(bytes, at: now) == .notStarted)
    server.start(context: FuzzFixture.shared.context, at: now)
    _ = server.receive(bytes, at: now)
    let half = bytes.byteCount / 2
    _ = server.receive(bytes.bytes(0..<half), at: now)
    _ = server.receive(bytes.bytes(half..<bytes.byteCount), at: now)
    server.advance(to: now + .seconds(1))
    precondition(!server.isEstablished, "a handshake without a client")
    drain(&server)
}

/// A client that sent its hello takes anything, too.
public func fuzzDTLSClient(_ bytes: RawSpan) {
    let now = Instant.zero + .seconds(1)
    var client = DTLSAssociation(role: .client, fingerprints: FuzzFixture.fingerprints)
    client.start(context: FuzzFixture.shared.context, at: now)
    _ = client.receive(bytes, at: now)
    precondition(!client.isEstablished, "a handshake without a server")
    drain(&client)
}

/// What is left of a released association takes anything for no goodbye: nobody has its keys.
public func fuzzDTLSGoodbye(_ bytes: RawSpan) {
    precondition(FuzzFixture.goodbyeKey != nil, "no key to hear goodbyes with")
    precondition(FuzzFixture.goodbyeKey?.opensEnd(in: bytes) == false, "a goodbye without a key")
    // With a header that leads on to the cipher.
    let forged = [
        21, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 1, UInt8(truncatingIfNeeded: bytes.byteCount >> 8), UInt8(truncatingIfNeeded: bytes.byteCount),
    ]
    precondition(FuzzFixture.goodbyeKey?.opensEnd(in: (forged + bytes.array).span.bytes) == false, "a goodbye without a key")
}

private func drain(_ association: inout DTLSAssociation) {
    withUnsafeTemporaryAllocation(byteCount: DTLSAssociation.datagramSizeMax, alignment: 8) { buffer in
        var more = true
        while more {
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            more = association.nextTransmit(into: &output)
            let count = output.finalize(for: buffer)
            precondition(count <= DTLSAssociation.transmitSizeMax, "a datagram above the limit")
        }
        var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
        let hasData = association.nextApplicationData(into: &output)
        _ = output.finalize(for: buffer)
        precondition(!hasData, "data without a handshake")
    }
    while let event = association.nextEvent() {
        if case .established = event { preconditionFailure("keys without a handshake") }
    }
}

/// One context for all inputs: making one costs more than taking a datagram.
private final class FuzzFixture: Sendable {
    static let shared = FuzzFixture()
    static let fingerprints = [DTLSFingerprint(algorithm: .sha256, bytes: [UInt8](repeating: 7, count: 32))]
    let context: DTLSContext
    let fingerprint: DTLSFingerprint
    /// Of an association that was established with itself.
    static let goodbyeKey = shared.establishedKey()

    private init() {
        do {
            let certificate = try DTLSCertificate.generate(at: WallClock(secondsSince1970: 1_790_000_000))
            fingerprint = certificate.fingerprint
            context = try DTLSContext(certificate: certificate)
        } catch {
            fatalError("no DTLS context for the fuzzer: \(error)")
        }
    }

    private func establishedKey() -> GoodbyeKey? {
        let now = Instant.zero + .seconds(1)
        var client = DTLSAssociation(role: .client, fingerprints: [fingerprint])
        var server = DTLSAssociation(role: .server, fingerprints: [fingerprint])
        server.start(context: context, at: now)
        client.start(context: context, at: now)
        for _ in 0..<8 {
            Self.move(from: &client, to: &server, at: now)
            Self.move(from: &server, to: &client, at: now)
        }
        return server.ssl.flatMap { GoodbyeKey(of: $0, .server) }
    }

    private static func move(from sender: inout DTLSAssociation, to receiver: inout DTLSAssociation, at now: Instant) {
        withUnsafeTemporaryAllocation(byteCount: DTLSAssociation.datagramSizeMax, alignment: 8) { buffer in
            while true {
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                let isThere = sender.nextTransmit(into: &output)
                let count = output.finalize(for: buffer)
                guard isThere else { return }
                _ = receiver.receive(UnsafeRawBufferPointer(rebasing: buffer[..<count]).bytes, at: now)
            }
        }
    }
}
