// How long a worker lets datagrams come: a function of what came, and when. Time is virtual.
import EventLoop
import Primitives
import Testing

/// A worker as `RelayWorker` is one, in virtual time: it sleeps until the first datagram, pauses as it is told, and takes what has come.
private struct Worker {
    var gather: AdaptiveGather
    /// What waking up takes, and what a turn takes for itself and for each datagram.
    var wakeUp = Interval.microseconds(6)
    var turn = Interval.microseconds(5)
    var each = Interval.nanoseconds(600)
    private var now = Instant(nanoseconds: 1_000_000_000_000)
    private(set) var turns = 0
    private(set) var sleeps = 0
    private(set) var delays: [Interval] = []
    private(set) var traffic: [AdaptiveGather.Traffic] = []

    init(_ longest: Interval) { gather = AdaptiveGather(longest: longest) }

    var datagramsPerTurn: Double { Double(delays.count) / Double(max(1, turns)) }
    var sleepsPerDatagram: Double { Double(sleeps) / Double(max(1, delays.count)) }
    func delay(_ share: Double) -> Interval { delays.sorted()[Int(share * Double(delays.count - 1))] }
    /// How often it thought so, of all turns.
    func share(_ traffic: AdaptiveGather.Traffic) -> Double {
        Double(self.traffic.count { $0 == traffic }) / Double(max(1, self.traffic.count))
    }
    var time: Instant { now }
    mutating func forget() {
        turns = 0
        sleeps = 0
        delays = []
        traffic = []
    }

    /// Takes datagrams that come at `arrivals`, in order. With `trains` as many of the trunk come as turns are made.
    mutating func run(_ arrivals: [Instant], trains: Int = 0) {
        var next = 0
        var paused = false
        while next < arrivals.count {
            let start = now
            if !paused && arrivals[next] > now {
                now = arrivals[next] + wakeUp
                sleeps += 1
            }
            if !paused, let until = gather.awoke(at: now, from: start) {
                now = max(now, until) + wakeUp
                sleeps += 1
            }
            let began = now
            var count = 0
            while next < arrivals.count, arrivals[next] <= began, count < 64 {
                now = now + each
                delays.append(now - arrivals[next])
                count += 1
                next += 1
            }
            now = now + turn
            turns += 1
            traffic.append(gather.traffic)
            let until = gather.pause(after: count + trains, fromClients: count, at: began)
            paused = until != nil && count > 0
            if let until, count > 0 {
                now = max(now, until) + wakeUp
                sleeps += 1
            }
        }
    }

    /// `size` datagrams `apart` from each other, every `period`, for `time`.
    mutating func bursts(of size: Int, apart: Interval = .microseconds(2), every period: Interval, for time: Interval = .milliseconds(400))
    {
        let start = now + period
        let count = Int(time.nanoseconds / period.nanoseconds)
        run((0..<count).flatMap { burst in (0..<size).map { start + period * Int64(burst) + apart * Int64($0) } })
    }

    /// Datagrams that know nothing of each other, so many a second.
    mutating func independent(_ rate: Double, for time: Interval = .milliseconds(400)) {
        var random = SeededGenerator(seed: 7)
        var arrivals: [Instant] = []
        var place = now
        let end = now + time
        while place < end {
            // The sum of many small chances, without logarithms: a step is a two-hundredth of the mean distance.
            var steps: Int64 = 1
            while random.next() % 200 != 0 { steps += 1 }
            place = place + Interval(nanoseconds: Int64(1e9 / rate / 200) * steps)
            arrivals.append(place)
        }
        run(arrivals)
    }
}

@Suite("Adaptive gather") struct GatherTests {
    private let longest = Interval.microseconds(500)

    @Test func `a worker with few calls does not pause`() {
        var worker = Worker(longest)
        worker.bursts(of: 1, every: .milliseconds(1))
        #expect(worker.share(.unknown) == 1)
        #expect(worker.delay(1) < .microseconds(20))
    }

    /// 400 calls, one by one: ten datagrams in a turn, and nobody waits for longer than a pause.
    @Test func `datagrams that come one by one are gathered after each turn`() {
        var worker = Worker(longest)
        worker.bursts(of: 1, every: .microseconds(50))
        #expect(worker.share(.lumps) == 0)
        #expect(worker.datagramsPerTurn > 7)
        #expect(worker.sleepsPerDatagram < 0.15)
        #expect(worker.delay(0.5) < .microseconds(300))
        #expect(worker.delay(0.98) < .microseconds(540))
    }

    @Test(arguments: [15_000.0, 50_000, 150_000]) func `so are those that know nothing of each other`(rate: Double) {
        var worker = Worker(longest)
        worker.independent(rate)
        worker.forget()
        worker.independent(rate)
        #expect(worker.share(.lumps) < 0.1)
        #expect(worker.datagramsPerTurn > min(40, rate * 0.0005) * 0.6)
    }

    @Test func `a pause brings no more than a receive takes`() {
        var worker = Worker(longest)
        worker.bursts(of: 1, every: .microseconds(4))
        worker.forget()
        worker.bursts(of: 1, every: .microseconds(4))
        #expect(worker.datagramsPerTurn > 30 && worker.datagramsPerTurn <= 64)
        #expect(worker.delay(0.95) < .microseconds(260))
    }

    /// Lumps, two microseconds from datagram to datagram: whoever the first of them wakes up waits for the rest, and goes on without a pause.
    @Test(arguments: [(16, 1000), (32, 640), (64, 427)], [6, 15])
    func `a lump is taken at once and makes nobody else wait`(shape: (size: Int, period: Int64), wakeUp: Int64) {
        let (size, period) = shape
        var worker = Worker(longest)
        worker.wakeUp = .microseconds(wakeUp)
        worker.bursts(of: size, every: .microseconds(period))
        worker.forget()
        worker.bursts(of: size, every: .microseconds(period))
        #expect(worker.share(.lumps) > 0.95)
        #expect(worker.sleepsPerDatagram * Double(size) < 2.2)
        #expect(worker.datagramsPerTurn > Double(size) / 3)
        // As long as a lump takes to come, and what it takes to work on it.
        let whole = (Interval.microseconds(2) + worker.each) * Int64(size) + worker.wakeUp * 2 + worker.turn * 2
        #expect(worker.delay(1) < whole)
    }

    /// Eight are worth a turn, not a second sleep.
    @Test(arguments: [6, 15]) func `a small lump is not waited for`(wakeUp: Int64) {
        var worker = Worker(longest)
        worker.wakeUp = .microseconds(wakeUp)
        worker.bursts(of: 8, every: .microseconds(160))
        worker.forget()
        worker.bursts(of: 8, every: .microseconds(160))
        #expect(worker.share(.lumps) > 0.95)
        #expect(worker.sleepsPerDatagram * 8 < 1.6)
        #expect(worker.delay(1) < .microseconds(45))
    }

    @Test func `the pause before a lump is as long as lumps are`() {
        var short = Worker(longest)
        short.bursts(of: 16, every: .microseconds(400))
        #expect(short.gather.lumpPause < .microseconds(25))
        var long = Worker(longest)
        long.bursts(of: 64, apart: .microseconds(3), every: .microseconds(427))
        #expect(long.gather.lumpPause > .microseconds(120))
        #expect(long.gather.lumpPause <= longest / 2)
    }

    @Test func `traffic that changes is noticed within a second`() {
        var worker = Worker(longest)
        worker.bursts(of: 1, every: .microseconds(50))
        #expect(worker.gather.traffic == .steady)
        worker.bursts(of: 8, every: .microseconds(160), for: .milliseconds(600))
        #expect(worker.gather.traffic == .lumps)
        worker.bursts(of: 1, every: .microseconds(50), for: .milliseconds(100))
        #expect(worker.gather.traffic == .steady)
        worker.bursts(of: 1, every: .milliseconds(5))
        #expect(worker.gather.traffic == .unknown)
    }

    @Test func `the first burst after silence finds no pause`() {
        var worker = Worker(longest)
        worker.bursts(of: 1, every: .microseconds(20))
        var gather = worker.gather
        #expect(gather.traffic == .steady)
        let until = gather.pause(after: 32, fromClients: 32, at: worker.time + .seconds(1))
        #expect(until == nil)
    }

    /// Trains that come from one transceiver each pause may end it; those of many are gathered like everything else.
    @Test func `few trains do not wait, many do`() {
        var few = Worker(longest)
        few.run((0..<4000).map { few.time + .microseconds(50) * Int64($0) }, trains: 1)
        #expect(few.gather.traffic == .steady && few.gather.trainsAreFew)
        var many = Worker(longest)
        many.run((0..<4000).map { many.time + .microseconds(50) * Int64($0) }, trains: 8)
        #expect(many.gather.traffic == .steady && !many.gather.trainsAreFew)
    }

    @Test func `zero is never, for lumps too`() {
        var worker = Worker(.zero)
        worker.bursts(of: 32, every: .microseconds(640))
        worker.bursts(of: 1, every: .microseconds(20))
        #expect(worker.share(.unknown) == 1)
        #expect(!worker.gather.watchesSleep)
        #expect(worker.delay(0.99) < .microseconds(70))
    }

    @Test func `no clock and no count breaks it`() {
        var gather = AdaptiveGather(longest: .microseconds(500))
        for (count, time) in [(0, 0), (Int.max, 1), (Int.max, UInt64.max), (-5, 7), (3, 0), (Int.min, 1 << 63)] as [(Int, UInt64)] {
            _ = gather.awoke(at: Instant(nanoseconds: time), from: .zero)
            _ = gather.pause(after: count, fromClients: count, at: Instant(nanoseconds: time))
            _ = gather.awoke(at: .zero, from: Instant(nanoseconds: time))
        }
    }

    @Test func `a sleep ends no earlier than asked, and at once for the past`() {
        let start = MonotonicClock.now()
        MonotonicClock.sleep(until: .zero)
        MonotonicClock.sleep(until: start + .milliseconds(2))
        #expect(MonotonicClock.now() - start >= .milliseconds(2))
    }
}
