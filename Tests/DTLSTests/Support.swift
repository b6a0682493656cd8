import DTLS
import Primitives
import Testing

/// Certificates and contexts are made once: a key costs more than a handshake.
enum Fixture {
    static let clientCertificate = makeCertificate()
    static let serverCertificate = makeCertificate()
    static let strangerCertificate = makeCertificate()

    private static func makeCertificate() -> DTLSCertificate {
        do { return try DTLSCertificate.generate(at: WallClock(secondsSince1970: 1_790_000_000)) } catch {
            fatalError("no certificate: \(error)")
        }
    }

    static func context(
        _ certificate: DTLSCertificate, profiles: [DTLSProtectionProfile] = DTLSProtectionProfile.preferenceOrder
    ) -> DTLSContext {
        do { return try DTLSContext(certificate: certificate, profiles: profiles) } catch { fatalError("no context: \(error)") }
    }
}

extension DTLSAssociation {
    mutating func transmit() -> [UInt8]? {
        take { association, output in association.nextTransmit(into: &output) }
    }

    mutating func message() -> [UInt8]? {
        take { association, output in association.nextApplicationData(into: &output) }
    }

    private mutating func take(_ body: (inout DTLSAssociation, inout OutputRawSpan) -> Bool) -> [UInt8]? {
        var taken = false
        let bytes = withUnsafeTemporaryAllocation(byteCount: 2048, alignment: 8) { buffer in
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            taken = body(&self, &output)
            let count = output.finalize(for: buffer)
            return Array(buffer.prefix(count))
        }
        return taken ? bytes : nil
    }

    mutating func flight() -> [[UInt8]] {
        var datagrams: [[UInt8]] = []
        while let datagram = transmit() { datagrams.append(datagram) }
        return datagrams
    }

    mutating func events() -> [DTLSEvent] {
        var events: [DTLSEvent] = []
        while let event = nextEvent() { events.append(event) }
        return events
    }

    mutating func receive(_ datagram: [UInt8], at now: Instant) -> DTLSDropReason? { receive(datagram.span.bytes, at: now) }
    mutating func send(_ data: [UInt8]) -> Bool { send(data.span.bytes) }
}

/// What the network does to datagrams, in percent.
struct Weather: Sendable {
    var loss: UInt64 = 0
    var duplicates: UInt64 = 0
    /// A datagram takes 5 ms to this long.
    var delayMax = Interval.milliseconds(20)

    static let calm = Weather()
    static let storm = Weather(loss: 20, duplicates: 20, delayMax: .milliseconds(300))
}

/// A client and a server over a network in virtual time.
struct Call: ~Copyable {
    struct Flying {
        var arrival: Instant
        var toServer: Bool
        var bytes: [UInt8]
    }

    var client: DTLSAssociation
    var server: DTLSAssociation
    var clientEvents: [DTLSEvent] = []
    var serverEvents: [DTLSEvent] = []
    var toClient: [[UInt8]] = []
    var toServer: [[UInt8]] = []
    static let start = Instant.zero + .seconds(100)
    var now = Call.start
    var flying: [Flying] = []
    var sent = 0
    var longest = 0
    var weather: Weather
    var random: SeededGenerator

    init(
        seed: UInt64 = 1, weather: Weather = .calm,
        clientTrusts: [DTLSFingerprint] = [Fixture.serverCertificate.fingerprint],
        serverTrusts: [DTLSFingerprint] = [Fixture.clientCertificate.fingerprint],
        clientProfiles: [DTLSProtectionProfile] = DTLSProtectionProfile.preferenceOrder,
        serverProfiles: [DTLSProtectionProfile] = DTLSProtectionProfile.preferenceOrder
    ) {
        random = SeededGenerator(seed: seed)
        self.weather = weather
        client = DTLSAssociation(role: .client, fingerprints: clientTrusts)
        server = DTLSAssociation(role: .server, fingerprints: serverTrusts)
        server.start(context: Fixture.context(Fixture.serverCertificate, profiles: serverProfiles), at: now)
        client.start(context: Fixture.context(Fixture.clientCertificate, profiles: clientProfiles), at: now)
    }

    /// Runs until both sides have nothing to wait for and nothing flies, or for `limit`.
    mutating func run(for limit: Interval = .seconds(60), until done: (borrowing Call) -> Bool = { _ in false }) {
        let end = now + limit
        collect()
        while !done(self) {
            let arrival = flying.map(\.arrival).min() ?? .never
            let next = min(arrival, min(client.nextDeadline, server.nextDeadline))
            guard next < end else { break }
            now = max(now, next)
            deliver()
            client.advance(to: now)
            server.advance(to: now)
            collect()
        }
    }

    private mutating func deliver() {
        let due = flying.filter { $0.arrival <= now }.sorted { $0.arrival < $1.arrival }
        flying.removeAll { $0.arrival <= now }
        for datagram in due {
            if datagram.toServer { _ = server.receive(datagram.bytes, at: now) } else { _ = client.receive(datagram.bytes, at: now) }
            collect()
        }
    }

    mutating func collect() {
        while let datagram = client.transmit() { launch(datagram, toServer: true) }
        while let datagram = server.transmit() { launch(datagram, toServer: false) }
        clientEvents += client.events()
        serverEvents += server.events()
        while let message = client.message() { toClient.append(message) }
        while let message = server.message() { toServer.append(message) }
    }

    private mutating func launch(_ bytes: [UInt8], toServer: Bool) {
        sent += 1
        longest = max(longest, bytes.count)
        let copies = random.chance(weather.duplicates, in: 100) ? 2 : 1
        for _ in 0..<copies where !random.chance(weather.loss, in: 100) {
            let delay = Interval(nanoseconds: Int64.random(in: 5_000_000...weather.delayMax.nanoseconds, using: &random))
            flying.append(Flying(arrival: now + delay, toServer: toServer, bytes: bytes))
        }
    }

    var clientKeys: DTLSKeyingMaterial? { keys(clientEvents) }
    var serverKeys: DTLSKeyingMaterial? { keys(serverEvents) }

    private func keys(_ events: [DTLSEvent]) -> DTLSKeyingMaterial? {
        for case .established(let keys) in events { return keys }
        return nil
    }
}

/// The same keys seen from the other side.
func mirrored(_ keys: DTLSKeyingMaterial?) -> DTLSKeyingMaterial? {
    keys.map {
        DTLSKeyingMaterial(
            profile: $0.profile, localKey: $0.remoteKey, localSalt: $0.remoteSalt, remoteKey: $0.localKey, remoteSalt: $0.localSalt)
    }
}
