// Sessions of a worker: the first steps of a call, the table that holds them, and their ends.
import ICE
import Primitives
import STUN
import TestSupport
import Testing
import TransceiverCore
import Trunk

@Suite struct WorkerSessionTests {
    @Test func `a check is answered, and the first handshake flight follows where we are the client`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        bench.receive(check(5), session: 5)
        let frames = bench.sent()
        #expect(Set(frames.map(\.destination)) == [WorkerBench.hop])
        #expect(Set(frames.map(\.header.kind)) == [.transceiverData])
        #expect(Set(frames.map(\.header.worker)) == [5])
        let records = frames.flatMap(\.records)
        #expect(Set(records.map(\.client)) == [WorkerBench.client])
        #expect(Set(records.map(\.session)) == [5])
        #expect(records.count >= 2)
        let answer = try #require(records.first?.payload)
        let message = try STUNMessage(parsing: answer.span.bytes)
        let isSuccess = message.messageClass == .success
        let mapped = message.xorMappedAddress
        #expect(isSuccess && mapped == WorkerBench.client)
        #expect(records.dropFirst().allSatisfy { $0.payload.first == 22 })
        let events = bench.events()
        #expect(events.isEmpty)
    }

    @Test func `as DTLS server nothing but the answer is sent`() throws {
        var bench = try WorkerBench.make()
        bench.create(5, role: .server)
        bench.receive(check(5), session: 5)
        let records = bench.sent().flatMap(\.records)
        #expect(records.count == 1)
    }

    @Test func `a check with a wrong password is not answered`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        bench.receive(check(5, password: "not the password that we gave"), session: 5)
        let counters = bench.worker.counters
        #expect(counters.dropped[Int(SessionDropReason.stunRefused.rawValue)] == 1)
        #expect(counters.stunRefused[Int(ICEDropReason.badIntegrity.rawValue)] == 1)
        let sent = bench.sent()
        #expect(sent.isEmpty)
    }

    @Test func `before a check from there, DTLS and media are dropped for their own reasons`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        for file in Corpus.files(in: "dtls") { bench.receive(file.bytes, session: 5) }
        bench.receive([UInt8](repeating: 128, count: 100), session: 5)
        bench.receive([UInt8](repeating: 70, count: 100), session: 5)
        let counters = bench.worker.counters
        #expect(counters.dropped[Int(SessionDropReason.dtlsFromUnvalidatedPath.rawValue)] == UInt64(Corpus.files(in: "dtls").count))
        #expect(counters.dropped[Int(SessionDropReason.mediaBeforeKeys.rawValue)] == 1)
        #expect(counters.dropped[Int(SessionDropReason.unknownClass.rawValue)] == 1)
        let sent = bench.sent()
        #expect(sent.isEmpty)
    }

    @Test func `after an ICE restart checks of both generations are answered, until the new one is nominated`() throws {
        var bench = try WorkerBench.make()
        bench.create(5, role: .server)
        bench.receive(check(5, transaction: 1), session: 5)
        bench.worker.perform(.restartICE(session: 5, local: .local(5, generation: 2), remote: .remote(5, generation: 2)), at: bench.now)
        bench.receive(check(5, transaction: 2), session: 5)
        let before = bench.sent().flatMap(\.records).count
        #expect(before == 2)
        bench.receive(check(5, generation: 2, transaction: 3), session: 5)
        bench.receive(check(5, transaction: 4), session: 5)
        let after = bench.sent().flatMap(\.records).count
        let refused = bench.worker.counters.stunRefused[Int(ICEDropReason.wrongUfrag.rawValue)]
        #expect(after == 1 && refused == 1)
    }

    @Test func `a session that no client reaches ends after 30 seconds and not before`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        bench.wait(.milliseconds(29_990))
        let early = bench.events()
        #expect(early.isEmpty)
        bench.wait(.milliseconds(20))
        let events = bench.events()
        let count = bench.worker.sessionCount
        #expect(events == ["5 neverConnected"] && count == 0)
        let deadline = bench.worker.nextDeadline(at: bench.now)
        #expect(deadline == .never)
        // Nobody was ever there, so nobody is told.
        let sent = bench.sent()
        #expect(sent.isEmpty)
    }

    @Test func `a client whose handshake never finishes is told that it is over`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        bench.receive(check(5), session: 5)
        _ = bench.sent()
        bench.wait(.seconds(31))
        let events = bench.events()
        #expect(events.count == 1)
        #expect(events.first == "5 neverConnected" || events.first == "5 dtlsFailed")
        let gone = bench.sent().filter { $0.header.kind == .gone }.flatMap(\.records)
        #expect(gone == [Record(client: WorkerBench.client, session: 5, payload: [])])
    }

    @Test func `a hangup before the first check ends the session without a word to anybody`() throws {
        var bench = try WorkerBench.make()
        bench.create(5)
        bench.worker.perform(.end(session: 5, reason: .hangup), at: bench.now)
        bench.worker.perform(.end(session: 5, reason: .hangup), at: bench.now)
        bench.worker.perform(.restartICE(session: 5, local: .local(5), remote: .remote(5)), at: bench.now)
        let events = bench.events()
        let sent = bench.sent()
        #expect(events == ["5 hangup"] && sent.isEmpty)
        let ended = bench.worker.counters.sessionsEnded[Int(SessionEndReason.hangup.rawValue)]
        #expect(ended == 1)
    }

    @Test func `the shutdown of a worker ends everybody`() throws {
        var bench = try WorkerBench.make(capacity: 4)
        for session in [UInt32(11), 12, 13] { bench.create(session, role: .server) }
        bench.receive(check(12), session: 12)
        _ = bench.sent()
        bench.worker.perform(.endAll(reason: .shutdown), at: bench.now)
        let events = bench.events()
        #expect(Set(events) == ["11 shutdown", "12 shutdown", "13 shutdown"] && events.count == 3)
        let gone = bench.sent().filter { $0.header.kind == .gone }.flatMap(\.records)
        #expect(gone.map(\.session) == [12])
        let count = bench.worker.sessionCount
        #expect(count == 0)
    }

    @Test func `one session too many is refused, and so is a number that is taken`() throws {
        var bench = try WorkerBench.make(capacity: 2)
        bench.create(1)
        bench.create(1)
        bench.create(2)
        bench.create(3)
        let events = bench.events()
        #expect(events == ["1 tableFull", "3 tableFull"])
        let created = bench.worker.counters.sessionsCreated
        let count = bench.worker.sessionCount
        #expect(created == 2 && count == 2)
        bench.worker.perform(.end(session: 1, reason: .hangup), at: bench.now)
        bench.create(3)
        let later = bench.events()
        #expect(later == ["1 hangup"])
    }

    @Test func `more sessions are due than one turn may take: the rest is due at once`() throws {
        let count = TransceiverWorker.timersPerTurn + 100
        var bench = try WorkerBench.make(capacity: count)
        for session in 1...count { bench.create(UInt32(session)) }
        bench.now = bench.now + .seconds(31)
        bench.worker.advance(to: bench.now)
        let first = bench.events().count
        let next = bench.worker.nextDeadline(at: bench.now)
        #expect(first == TransceiverWorker.timersPerTurn && next <= bench.now)
        bench.worker.advance(to: bench.now)
        let second = bench.events().count
        #expect(second == 100)
    }

    @Test func `answers to more relays than there are trains are dropped and counted`() throws {
        var bench = try WorkerBench.make(trainsMax: 2)
        for worker in UInt8(0)..<3 {
            var header = WorkerBench.header
            header.ingressWorker = worker
            let session = UInt32(worker) + 1
            bench.create(session, role: .server)
            bench.receive(clientFrame([Record(client: WorkerBench.client, session: session, payload: check(session))], header: header))
        }
        let counters = bench.worker.counters
        #expect(counters.recordsSent == 2 && counters.recordsWithoutTrain == 1)
        let frames = bench.sent()
        #expect(Set(frames.map(\.header.ingressWorker)) == [0, 1])
        // The next turn has trains again.
        bench.receive(check(3, transaction: 2), session: 3)
        let again = bench.sent().count
        #expect(again == 1)
    }

    @Test(arguments: [UInt64(1), 2, 3])
    func `the table of sessions is a set, whatever comes and goes`(_ seed: UInt64) throws {
        let capacity = 24
        var bench = try WorkerBench.make(capacity: capacity)
        var random = SeededGenerator(seed: seed)
        var model: Set<UInt32> = []
        // Few numbers, so that they come again, and some that fall on one place of a small index.
        let numbers = (0..<64).map { _ in UInt32(truncatingIfNeeded: random.next()) } + (0..<16).map { UInt32($0) << 27 }
        for step in 0..<3000 {
            let session = numbers.randomElement(using: &random)!
            switch Int.random(in: 0..<4, using: &random) {
            case 0, 1:
                bench.create(session)
                let expected = model.count < capacity && !model.contains(session)
                let events = bench.events()
                #expect(events == (expected ? [] : ["\(session) tableFull"]), "step \(step)")
                if expected { model.insert(session) }
            case 2:
                bench.worker.perform(.end(session: session, reason: .hangup), at: bench.now)
                let events = bench.events()
                #expect(events == (model.contains(session) ? ["\(session) hangup"] : []), "step \(step)")
                model.remove(session)
            default:
                // Rubbish of an unknown class: only somebody who is not here is spoken of.
                bench.receive([70], session: session)
                let gone = bench.sent().flatMap(\.records)
                #expect(gone.isEmpty == model.contains(session), "step \(step)")
            }
            let count = bench.worker.sessionCount
            guard count == model.count else {
                Issue.record("step \(step): \(count) sessions, \(model.count) expected")
                return
            }
        }
        for session in numbers { bench.receive([70], session: session) }
        let gone = Set(bench.sent().flatMap(\.records).map(\.session))
        #expect(gone == Set(numbers).subtracting(model))
        bench.wait(.seconds(31))
        let events = bench.events()
        #expect(Set(events) == Set(model.map { "\($0) neverConnected" }))
    }
}
