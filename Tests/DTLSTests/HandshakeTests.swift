import DTLS
import Primitives
import Testing

@Suite struct Handshakes {
    @Test func `over a calm network both sides hold the same keys after two round trips`() {
        var call = Call()
        call.run { $0.client.isEstablished && $0.server.isEstablished && $0.flying.isEmpty }
        let (client, server) = (call.clientKeys, call.serverKeys)
        #expect(client != nil)
        #expect(server == mirrored(client))
        #expect(client?.localKey != client?.remoteKey)
        #expect(client?.profile == .aeadAES128GCM)
        let (elapsed, sent, longest) = (call.now - Call.start, call.sent, call.longest)
        #expect(elapsed < .milliseconds(100))
        #expect(sent <= 6)
        #expect(longest <= DTLSAssociation.transmitSizeMax)
    }

    @Test(arguments: 1...200)
    func `over a network that loses, repeats and reorders both sides come to the same keys`(seed: UInt64) {
        var call = Call(seed: seed, weather: .storm)
        call.run(until: { $0.client.isEstablished && $0.server.isEstablished })
        let (client, server, longest) = (call.clientKeys, call.serverKeys, call.longest)
        #expect(client != nil)
        #expect(server == mirrored(client))
        #expect(longest <= DTLSAssociation.transmitSizeMax)
        let unexpected = call.clientEvents.count + call.serverEvents.count - 2
        #expect(unexpected == 0)
    }

    @Test(arguments: DTLSProtectionProfile.allCases)
    func `each profile is negotiated with keys and salts of its lengths`(profile: DTLSProtectionProfile) throws {
        var call = Call(serverProfiles: [profile])
        call.run()
        let (clientKeys, server) = (call.clientKeys, call.serverKeys)
        let client = try #require(clientKeys)
        #expect(server == mirrored(client))
        #expect(client.profile == profile)
        for key in [client.localKey, client.remoteKey] { #expect(key.count == profile.keyLength) }
        for salt in [client.localSalt, client.remoteSalt] { #expect(salt.count == profile.saltLength) }
    }

    @Test func `without a common profile there are no keys`() {
        var call = Call(clientProfiles: [.aeadAES256GCM], serverProfiles: [.aes128CMHMACSHA1_80])
        call.run()
        let (client, server) = (call.clientEvents, call.serverEvents)
        #expect(client == [.failed(.noProfile)])
        #expect(server == [.failed(.noProfile)])
    }

    @Test func `a flight is sent again after 400 ms, then twice as long up to 3 s, and the handshake fails after 30 s`() {
        var client = DTLSAssociation(role: .client, fingerprints: [Fixture.serverCertificate.fingerprint])
        let start = Instant.zero + .seconds(7)
        client.start(context: Fixture.context(Fixture.clientCertificate), at: start)
        var flights = [client.flight().count]
        var times: [Int64] = []
        var events: [DTLSEvent] = []
        while client.nextDeadline != .never {
            let due = client.nextDeadline
            client.advance(to: due - .nanoseconds(1))
            #expect(client.flight().isEmpty)
            client.advance(to: due)
            times.append((due - start).milliseconds)
            flights.append(client.flight().count)
            events += client.events()
        }
        #expect(times == [400, 1200, 2800, 5800, 8800, 11800, 14800, 17800, 20800, 23800, 26800, 29800, 30000])
        #expect(flights == [Int](repeating: 1, count: 13) + [0])
        #expect(events == [.failed(.timeout)])
    }

    @Test func `nothing happens before the start`() {
        var server = DTLSAssociation(role: .server, fingerprints: [])
        let drop = server.receive([22, 254, 255], at: .zero)
        let (started, deadline) = (server.isStarted, server.nextDeadline)
        #expect(drop == .notStarted)
        #expect(!started)
        #expect(deadline == .never)
        server.advance(to: .zero + .seconds(100))
        let events = server.events()
        #expect(events.isEmpty)
    }

    @Test func `a flood of forged ciphertext does not keep the handshake from ending`() {
        var call = Call()
        var drops: [DTLSDropReason?] = []
        for number in UInt8(0)..<200 {
            let forged: [UInt8] = [22, 254, 253, 0, 1, 0, 0, 0, 0, 1, number, 0, 40] + [UInt8](repeating: number, count: 40)
            drops.append(call.server.receive(forged, at: call.now))
            drops.append(call.client.receive(forged, at: call.now))
        }
        // What is kept costs 16 kB each.
        #expect(drops.count(where: { $0 == nil }) == 32)
        #expect(drops.count(where: { $0 == .wrongEpoch }) == 368)
        call.run()
        let (client, server) = (call.clientKeys, call.serverKeys)
        #expect(client != nil)
        #expect(server == mirrored(client))
    }

    @Test func `a client whose peer is done before it asks for the lost last message at once, and not more than four times`() {
        var call = Call()
        call.run(until: { $0.server.isEstablished })
        call.flying = []
        let lostAt = call.now
        call.now = lostAt + .milliseconds(150)
        call.client.hurry(at: call.now)
        call.run(for: .milliseconds(100))
        let keys = call.clientKeys
        #expect(keys != nil && call.serverKeys == mirrored(keys))

        var lonely = Call()
        lonely.run(until: { $0.server.isEstablished })
        lonely.flying = []
        var flights: [Int] = []
        for step in 1...200 {
            lonely.client.hurry(at: lonely.now + .milliseconds(Int64(step) * 10))
            if !lonely.client.flight().isEmpty { flights.append(step) }
        }
        #expect(flights.count == 4)
        #expect(zip(flights, flights.dropFirst()).allSatisfy { $1 - $0 >= 10 })
    }

    @Test func `hurrying does nothing before the start and after the end`() {
        var client = DTLSAssociation(role: .client, fingerprints: [])
        client.hurry(at: .zero + .seconds(1))
        let before = client.flight().count
        var call = Call()
        call.run()
        call.client.hurry(at: call.now + .seconds(1))
        call.server.hurry(at: call.now + .seconds(1))
        let after = call.client.flight().count + call.server.flight().count
        #expect(before == 0 && after == 0)
    }
}
