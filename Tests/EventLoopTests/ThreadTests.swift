import EventLoop
import Glibc
import Primitives
import Synchronization
import Testing

/// Something that only one thread may hold, and that says when it went away.
private struct Parcel: ~Copyable, Sendable {
    let number: Int
    let account: Account
    init(_ number: Int, _ account: Account) {
        self.number = number
        self.account = account
        account.alive.wrappingAdd(1, ordering: .relaxed)
    }
    deinit { account.alive.wrappingSubtract(1, ordering: .relaxed) }
}

private final class Account: Sendable {
    let alive = Atomic<Int>(0)
    let sum = Atomic<Int>(0)
    let outOfOrder = Atomic<Int>(0)
}

@Suite struct MailboxTests {
    @Test func `a full mailbox gives the message back and an empty one gives nothing`() {
        var pair = Mailbox.make(of: Int.self, capacity: 4)
        expectEqual(pair.receiver.next(), nil)
        for number in 0..<4 { expectEqual(pair.sender.send(number), nil) }
        expectEqual(pair.sender.send(99), 99)
        expectEqual(pair.receiver.next(), 0)
        expectEqual(pair.sender.send(4), nil)
        for number in 1...4 { expectEqual(pair.receiver.next(), number) }
        expectEqual(pair.receiver.next(), nil)
    }

    @Test func `messages nobody took go away with the mailbox`() {
        let account = Account()
        do {
            var pair = Mailbox.make(of: Parcel.self, capacity: 8)
            for number in 0..<5 {
                if pair.sender.send(Parcel(number, account)) != nil { Issue.record("a mailbox of 8 refused parcel \(number)") }
            }
            if let first = pair.receiver.next() { expectEqual(first.number, 0) }
            #expect(account.alive.load(ordering: .relaxed) == 4)
        }
        #expect(account.alive.load(ordering: .relaxed) == 0)
    }

    /// One thread sends 200,000 parcels through a mailbox of 64 to another that sleeps in its reactor whenever it finds nothing.
    /// A lost wake-up would leave it asleep for ever.
    @Test(arguments: engines)
    func `nothing is lost, doubled or reordered between two threads`(engine: EngineKind) throws {
        let total = 200_000
        let account = Account()
        let waker = try Waker()
        let pair = Mailbox.make(of: Parcel.self, capacity: 64, waking: waker)
        let sender = pair.sender
        let receiver = pair.receiver
        let reader = try WorkerThread.start(name: "reader", with: receiver) { receiver in
            var receiver = receiver
            guard var loop = try? DatagramEngine(engine, descriptorCapacity: 4) else { return }
            guard (try? loop.reactor.register(waker.descriptor, for: .readable, tag: 7)) != nil else { return }
            var expected = 0
            while expected < total {
                loop.wait(until: .never)
                while let event = loop.nextEvent() { if event.tag == 7 { waker.acknowledge() } }
                while let parcel = receiver.next() {
                    if parcel.number != expected { parcel.account.outOfOrder.wrappingAdd(1, ordering: .relaxed) }
                    parcel.account.sum.wrappingAdd(parcel.number, ordering: .relaxed)
                    expected += 1
                }
            }
        }
        let writer = try WorkerThread.start(name: "writer", with: sender) { sender in
            var sender = sender
            for number in 0..<total {
                var refused = sender.send(Parcel(number, account))
                while let parcel = refused.take() {
                    sched_yield()
                    refused = sender.send(parcel)
                }
            }
        }
        writer.join()
        reader.join()
        #expect(account.sum.load(ordering: .relaxed) == total * (total - 1) / 2)
        #expect(account.outOfOrder.load(ordering: .relaxed) == 0)
        #expect(account.alive.load(ordering: .relaxed) == 0)
    }
}

private final class Findings: Sendable {
    let lines = Mutex<[String]>([])
}

@Suite struct ThreadTests {
    @Test func `a worker thread has its name and its processor`() throws {
        let findings = Findings()
        let processor = Machine.processors[0]
        let thread = try WorkerThread.start(name: "relay-0", processor: processor) {
            var name = [CChar](repeating: 0, count: 16)
            pthread_getname_np(pthread_self(), &name, name.count)
            let text = String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            findings.lines.withLock { $0 = [text, "\(Machine.processors)", "\(threadProcessorTime() > .zero)"] }
        }
        thread.join()
        #expect(findings.lines.withLock { $0 } == ["relay-0", "[\(processor)]", "true"])
    }

    @Test func `entropy differs from call to call`() {
        var entropy = SystemEntropy()
        #expect(entropy.next() != entropy.next())
        var zeros = [UInt8](repeating: 0, count: 64)
        var span = zeros.mutableSpan
        var bytes = span.mutableBytes
        entropy.fill(&bytes)
        #expect(!bytes.bytes.array.allSatisfy { $0 == 0 })
    }

    @Test func `operator signals are read, not handled`() async throws {
        await #expect(processExitsWith: .success) {
            let signals = try SignalSource()
            if signals.next() != nil { exit(1) }
            raise(SIGHUP)  // to this thread: the test runner has others that do not block it
            raise(SIGTERM)
            var reactor = try Reactor(capacity: 2)
            _ = try reactor.register(signals.descriptor, for: .readable, tag: 1)
            reactor.wait(until: MonotonicClock.now() + .seconds(5))
            guard reactor.nextEvent()?.tag == 1 else { exit(2) }
            guard signals.next() == .hangup, signals.next() == .terminate, signals.next() == nil else { exit(3) }
            exit(0)
        }
    }
}
