// How long a worker lets datagrams come: a function of what came.
import EventLoop
import Primitives
import Testing

@Suite("Adaptive gather") struct GatherTests {
    /// One datagram every `interval` for a while; the pauses that followed the last tenth of them.
    private func pauses(_ longest: Interval, every interval: Interval, count: Int = 2000, each: Int = 1) -> [Interval] {
        var gather = AdaptiveGather(longest: longest)
        var now = Instant(nanoseconds: 1_000_000_000_000)
        var result: [Interval] = []
        for number in 0..<count {
            now = now + interval
            let until = gather.pause(after: each, fromClients: each, at: now)
            if number >= count - count / 10 { result.append(until.map { $0 - now } ?? .zero) }
        }
        return result
    }

    @Test func `a worker with one call does not pause`() {
        #expect(pauses(.microseconds(250), every: .milliseconds(10)).allSatisfy { $0 == .zero })
    }

    @Test func `a busy worker pauses as long as it may`() {
        #expect(pauses(.microseconds(250), every: .microseconds(25)).allSatisfy { $0 == .microseconds(250) })
    }

    @Test func `a pause brings no more than a receive takes`() {
        for pause in pauses(.microseconds(500), every: .microseconds(100), each: 200) {
            #expect(pause > .zero && pause <= .microseconds(24))
        }
    }

    /// Bursts of `size` every `period`, each answered in a turn of its own; the gather after so many.
    private func gather(_ longest: Interval, bursts count: Int, of size: Int, every period: Interval) -> (AdaptiveGather, Instant) {
        var gather = AdaptiveGather(longest: longest)
        var now = Instant(nanoseconds: 1_000_000_000_000)
        for _ in 0..<count {
            now = now + period
            _ = gather.pause(after: size, fromClients: size, at: now)
            _ = gather.pause(after: size, fromClients: 0, at: now + .microseconds(90))
        }
        return (gather, now)
    }

    @Test func `whom a burst wakes up waits for the rest of it and answers without a pause`() {
        var (gather, now) = self.gather(.microseconds(250), bursts: 100, of: 32, every: .microseconds(640))
        #expect(gather.isBursty)
        #expect(gather.pause(afterSleep: .microseconds(500), at: now) == now + .microseconds(50))
        #expect(gather.pause(after: 32, fromClients: 32, at: now) == nil)
    }

    @Test func `who hardly slept, or slept for long, does not wait for a burst`() {
        let (gather, now) = self.gather(.microseconds(250), bursts: 100, of: 32, every: .microseconds(640))
        #expect(gather.pause(afterSleep: .microseconds(5), at: now) == nil)
        #expect(gather.pause(afterSleep: .seconds(1), at: now) == nil)
    }

    @Test func `datagrams that come one by one are no bursts`() {
        let (gather, now) = self.gather(.microseconds(250), bursts: 4000, of: 1, every: .microseconds(50))
        #expect(!gather.isBursty)
        #expect(gather.pause(afterSleep: .microseconds(45), at: now) == nil)
    }

    @Test func `bursts that have ended are forgotten`() {
        var (gather, now) = self.gather(.microseconds(250), bursts: 100, of: 32, every: .microseconds(640))
        now = now + .seconds(1)
        _ = gather.pause(after: 1, fromClients: 1, at: now)
        #expect(!gather.isBursty)
    }

    @Test func `zero is never, for bursts too`() {
        let (gather, _) = self.gather(.zero, bursts: 100, of: 32, every: .microseconds(640))
        #expect(!gather.isBursty)
    }

    @Test func `zero is never`() { #expect(pauses(.zero, every: .microseconds(5)).allSatisfy { $0 == .zero }) }

    @Test func `the first burst after silence finds no pause`() {
        var gather = AdaptiveGather(longest: .microseconds(500))
        var now = Instant(nanoseconds: 1_000_000_000_000)
        for _ in 0..<1000 {
            now = now + .microseconds(20)
            _ = gather.pause(after: 1, fromClients: 1, at: now)
        }
        now = now + .seconds(1)
        let until = gather.pause(after: 32, fromClients: 32, at: now)
        #expect(until == nil)
    }

    @Test func `no clock and no count breaks it`() {
        var gather = AdaptiveGather(longest: .microseconds(500))
        for (count, time) in [(0, 0), (Int.max, 1), (Int.max, UInt64.max), (-5, 7), (3, 0)] as [(Int, UInt64)] {
            _ = gather.pause(after: count, fromClients: count, at: Instant(nanoseconds: time))
        }
    }

    @Test func `a sleep ends no earlier than asked, and at once for the past`() {
        let start = MonotonicClock.now()
        MonotonicClock.sleep(until: .zero)
        MonotonicClock.sleep(until: start + .milliseconds(2))
        #expect(MonotonicClock.now() - start >= .milliseconds(2))
    }
}
