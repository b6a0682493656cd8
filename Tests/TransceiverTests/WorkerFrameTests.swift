// What comes over the trunk: frames that are refused whole, records that find nobody, pings.
import ICE
import Primitives
import Realtime
import TestSupport
import Testing
import TransceiverCore
import Trunk

@Suite struct WorkerFrameTests {
    static let record = Record(client: WorkerBench.client, session: 5, payload: check(5))

    @Test func `a frame with a wrong tag is counted and dropped whole`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        bench.receive(clientFrame([Self.record, Self.record], key: SipKey(k0: 1, k1: 2)))
        var flipped = clientFrame([Self.record])
        flipped[23] ^= 1
        bench.receive(flipped)
        var moved = clientFrame([Self.record])
        moved[24 + 17] ^= 1  // the client's port, in a record header: under the tag as well
        bench.receive(moved)
        bench.receive([1, 2, 3])
        let counters = bench.worker.counters
        #expect(counters.framesReceived == 4)
        #expect(counters.framesRefused[Int(TrunkError.wrongTag.rawValue)] == 3)
        #expect(counters.framesRefused[Int(TrunkError.truncated.rawValue)] == 1)
        #expect(counters.recordsReceived == 0)
        let sent = bench.sent()
        #expect(sent.isEmpty)
    }

    @Test func `during a rotation frames of both trunk keys are taken, and answers go out under the first`() throws {
        var bench = try WorkerBench.make()
        let new = SipKey(k0: 5, k1: 6)
        // Answered with gone: the session is not here.
        let record = Record(client: WorkerBench.client, session: 1, payload: [22, 1, 2])
        func answered(_ key: SipKey, under answer: SipKey) -> Bool {
            bench.receive(clientFrame([record], key: key))
            return bench.sent(key: answer).map(\.header.kind) == [.gone]
        }
        #expect(answered(wellKnownTrunkKey, under: wellKnownTrunkKey) && !answered(new, under: wellKnownTrunkKey))
        bench.worker.perform(.replaceTrunkKeys(wellKnownTrunkKey, accepted: new), at: bench.now)
        #expect(answered(wellKnownTrunkKey, under: wellKnownTrunkKey) && answered(new, under: wellKnownTrunkKey))
        #expect(!answered(SipKey(k0: 1, k1: 2), under: wellKnownTrunkKey))
        // What waits when the key changes leaves under the new one.
        bench.receive(clientFrame([record]))
        bench.worker.perform(.replaceTrunkKeys(new, accepted: wellKnownTrunkKey), at: bench.now)
        #expect(bench.sent(key: new).map(\.header.kind) == [.gone])
        #expect(answered(wellKnownTrunkKey, under: new) && answered(new, under: new))
        bench.receive(pingFrame(TrunkProbe(sentAt: 1, sequence: 2, state: .serving)))
        #expect(bench.sent(key: new).map(\.header.kind) == [.pong])
        bench.worker.perform(.replaceTrunkKeys(new, accepted: nil), at: bench.now)
        #expect(!answered(wellKnownTrunkKey, under: new) && answered(new, under: new))
        let counters = bench.worker.counters
        #expect(counters.framesAcceptedKey == 3)
        #expect(counters.framesRefused[Int(TrunkError.wrongTag.rawValue)] == 3)
    }

    @Test func `an authentic frame for somebody else is counted and dropped`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        var header = WorkerBench.header
        header.worker = 4
        bench.receive(clientFrame([Self.record], header: header))
        header = WorkerBench.header
        header.cluster = 8
        bench.receive(clientFrame([Self.record], header: header))
        header = WorkerBench.header
        header.transceiver = 1
        bench.receive(clientFrame([Self.record], header: header))
        for kind in [TrunkKind.transceiverData, .confirm, .gone] {
            header = WorkerBench.header
            header.kind = kind
            let record = Record(client: WorkerBench.client, session: 5, payload: kind == .transceiverData ? check(5) : [])
            bench.receive(clientFrame([record], header: header))
        }
        let counters = bench.worker.counters
        #expect(counters.framesReceived == 6)
        #expect(counters.framesForOthers == 6)
        #expect(counters.recordsReceived == 0)
        let sent = bench.sent()
        #expect(sent.isEmpty)
    }

    @Test func `a record of a session that is not here is answered with gone, by the way it came`() throws {
        var bench = try WorkerBench.make()
        let other = SocketAddress("[2001:db8::7]:5000")!
        bench.receive(
            clientFrame([
                Record(client: WorkerBench.client, session: 1, payload: [22, 1, 2]), Record(client: other, session: 2, payload: [128, 0]),
            ]))
        let sent = bench.sent()
        #expect(sent.count == 1)
        let frame = try #require(sent.first)
        #expect(frame.destination == WorkerBench.hop)
        #expect(
            frame.header
                == TrunkHeader(kind: .gone, worker: 5, cluster: 9, transceiver: 0x0A01_0203, ingressRelay: 77, ingressWorker: 5))
        #expect(
            frame.records == [
                Record(client: WorkerBench.client, session: 1, payload: []), Record(client: other, session: 2, payload: []),
            ])
        let lost = bench.worker.counters.recordsWithoutSession
        #expect(lost == 2)
    }

    @Test func `a record longer than a datagram, or empty, is counted and dropped`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        bench.receive([UInt8](repeating: 128, count: 2049), session: 5)
        bench.receive([], session: 5)
        bench.receive([UInt8](repeating: 128, count: 2048), session: 5)
        let counters = bench.worker.counters
        #expect(counters.recordsReceived == 3)
        #expect(counters.recordsOversized == 2)
        #expect(counters.dropped[Int(SessionDropReason.mediaBeforeKeys.rawValue)] == 1)
        let sent = bench.sent()
        #expect(sent.isEmpty)
    }

    @Test func `every ping is answered to whoever asked, with the state that the worker is in`() throws {
        var bench = try WorkerBench.make()
        let probe = TrunkProbe(sentAt: 0x1122_3344_5566_7788, sequence: 99, state: .serving)
        bench.receive(pingFrame(probe))
        let first = bench.sent()
        var header = WorkerBench.header
        header.kind = .pong
        header.worker = 5
        #expect(first == [SentFrame(destination: WorkerBench.hop, header: header, records: first.first?.records ?? [], probe: probe)])

        bench.worker.perform(.drain, at: bench.now)
        bench.receive(pingFrame(probe))
        let second = bench.sent()
        #expect(second.first?.probe == TrunkProbe(sentAt: 0x1122_3344_5566_7788, sequence: 99, state: .draining))
    }

    @Test func `pings of several relays in one turn are all answered`() throws {
        var bench = try WorkerBench.make()
        let relays = (1...4).map { SocketAddress("10.0.0.\($0):4000")! }
        for (number, relay) in relays.enumerated() {
            bench.receive(pingFrame(TrunkProbe(sentAt: 1, sequence: UInt32(number), state: .serving)), from: relay)
        }
        let pongs = bench.sent()
        #expect(Set(pongs.map(\.destination)) == Set(relays))
        for pong in pongs { #expect(pong.probe.map { relays[Int($0.sequence)] } == pong.destination) }
        // A flood of them costs a bounded number of answers.
        for number in 0..<1000 { bench.receive(pingFrame(TrunkProbe(sentAt: 1, sequence: UInt32(number), state: .serving))) }
        let flood = bench.sent().count
        #expect((1...64).contains(flood))
    }

    @Test func `whatever a relay hands on from the internet, nothing traps and every record is accounted for`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        let corpus = ["stun", "dtls", "rtp", "rtcp", "srtp"].flatMap { Corpus.files(in: $0).map(\.bytes) } + [check(5)]
        var sessions: UInt32 = 0
        mutate(corpus, count: min(mutationCount, 20_000), maximumLength: 2100) { payload in
            sessions += 1
            // One in a thousand is a good check in between: the session lives on, with a validated path. Handshake messages that anybody
            // could write end a handshake by design of DTLS, so those come from where nobody has proved to be.
            let datagram = sessions % 1000 == 0 ? check(5) : payload.array
            let isDTLS = datagram.first.map { (20...63).contains($0) } ?? false
            bench.receive(datagram, session: 5, from: isDTLS ? SocketAddress("192.0.2.66:6")! : WorkerBench.client)
            _ = bench.sent()
        }
        let counters = bench.worker.counters
        let count = bench.worker.sessionCount
        #expect(count == 1)
        #expect(counters.recordsReceived == UInt64(sessions))
        #expect(counters.recordsWithoutSession == 0)
        for reason in [SessionDropReason.unknownClass, .stunRefused, .mediaBeforeKeys, .dtlsFromUnvalidatedPath] {
            #expect(counters.dropped[Int(reason.rawValue)] > 0, "\(reason)")
        }
    }

    @Test func `a frame is read as a whole or not at all, whatever its bytes`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        let corpus = [clientFrame([Self.record, Self.record]), pingFrame(TrunkProbe(sentAt: 1, sequence: 2, state: .serving))]
        var frames: UInt64 = 0
        mutate(corpus, count: min(mutationCount, 20_000), maximumLength: 2100) { bytes in
            frames += 1
            bench.worker.receive(bytes, from: WorkerBench.hop, at: bench.now)
            _ = bench.sent()
        }
        let received = bench.worker.counters.framesReceived
        #expect(received == frames)
    }

    @Test func `an end that is near is told to everybody, and then everybody is ended`() throws {
        var bench = try WorkerBench.make()
        bench.worker.perform(.createWire(session: 5, object: SessionObject(), seed: 1), at: bench.now)
        bench.create(6)
        bench.worker.perform(.watch(session: 6, true), at: bench.now)
        _ = bench.events()
        bench.worker.perform(.announceEnd(seconds: 30), at: bench.now)
        var told: [UInt32: String] = [:]
        while let event = bench.worker.nextEvent() {
            if case .serverEvent(let session, let text) = event { told[session, default: ""] += String(decoding: text, as: UTF8.self) }
        }
        for session: UInt32 in [5, 6] {
            #expect(told[session]?.contains("server_draining") == true && told[session]?.contains("ends in 30 s") == true)
        }
        bench.worker.perform(.endAll(reason: .shutdown), at: bench.now)
        #expect(bench.events().sorted() == ["5 shutdown", "6 shutdown"])
        #expect(bench.worker.sessionCount == 0)
    }
}
