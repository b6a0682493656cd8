import CBench
import EventLoop
import Glibc
import Primitives

/// What goes through a contestant, and when.
struct LoadPattern {
    enum Way: String, CaseIterable {
        /// From clients to the trunk.
        case up
        /// From the trunk to clients.
        case down
        /// Up, and each packet back down.
        case echo
    }
    enum Spacing {
        /// As fast as the generator can.
        case saturation
        /// So many packets at once, then nothing until the next are due. 1: evenly spaced.
        case bursts(Int)
    }

    var way: Way
    var spacing: Spacing
    /// Packets per second.
    var rate: Double
    /// Packets of one flow in one message of the generator's, which the kernel takes apart: only so is it fast enough to drown a contestant.
    var train: Int
    var duration: Interval
}

/// What one contestant did with one slice of a run.
struct LoadSlice {
    var sent = 0
    /// Packets that arrived at the end of a way; an echoed packet is two.
    var forwarded = 0
    var arrived = 0
    var wall = Interval.zero
    /// The contestant's CPU time, all threads, kernel included.
    var time: Int64 = 0
    var voluntarySwitches = 0
    var involuntarySwitches = 0
    var latencies: [UInt32] = []
    /// Packets that the generator did not send because it was held up itself.
    var skipped = 0
    /// Bad packets sent beside the others.
    var rubbish = 0
    /// What reached clients, or those who only pretend to be clients, and is none of this slice's packets.
    var strange = 0
    /// Processors' worth of work that was neither the contestant's nor the generator's.
    var others = 0.0
    /// What the generator took, as a share of a processor.
    var generator = 0.0
    /// Packets that the generator itself was too slow to take.
    var overflow = 0

    var timePerPacket: Double { forwarded > 0 ? Double(time) / Double(forwarded) : .nan }
    var packetsPerSecond: Double { Double(forwarded) / max(wall.seconds, 1e-9) }
    var loss: Double { sent > 0 ? 1 - Double(min(arrived, sent)) / Double(sent) : 0 }
    var share: Double { Double(time) / Double(max(1, wall.nanoseconds)) }
    /// In microseconds; latencies must be in order.
    func latency(_ q: Double) -> Double {
        latencies.isEmpty ? .nan : Double(latencies[min(latencies.count - 1, Int(q * Double(latencies.count)))]) / 1000
    }
}

extension LoadRig {
    /// A packet that is later than this is not sent at all, so that a pause of the generator does not become a burst.
    private static let patience = Interval.milliseconds(5)
    /// How long packets may be on their way after the last was sent.
    private static let drainTime = Interval.milliseconds(100)

    private static let rubbishBurst = 32

    mutating func run(_ pattern: LoadPattern) -> LoadSlice {
        var none = Rubbish([.noise], first: flows, sources: 1, maker: maker)
        return run(pattern, among: &none, rate: 0)
    }

    /// The same with bad packets beside the good ones, so many a second. A pattern with rate 0 has no good ones.
    mutating func run(_ pattern: LoadPattern, among rubbish: inout Rubbish, rate rubbishRate: Double) -> LoadSlice {
        echoes = pattern.way == .echo
        beginSlice(expecting: Int(min(pattern.rate, 2e6) * pattern.duration.seconds * 1.05) + 1024)
        var slice = LoadSlice()
        let before = ProcessUsage(target.worker)
        let machineBefore = ProcessUsage.machineTime
        let ownBefore = crowd_process_time(getpid())
        let overflowBefore = overflow
        let start = MonotonicClock.now()
        let end = start + pattern.duration
        let burst: Int
        switch pattern.spacing {
        case .saturation: burst = 64
        case .bursts(let count): burst = count
        }
        let interval = Interval.nanoseconds(pattern.rate > 0 ? Int64(Double(burst) * 1e9 / pattern.rate) : 1 << 40)
        var due = pattern.rate > 0 ? start : end + interval
        let rubbishInterval = Interval.nanoseconds(rubbishRate > 0 ? Int64(Double(Self.rubbishBurst) * 1e9 / rubbishRate) : 1 << 40)
        var rubbishDue = rubbishRate > 0 ? start : end + rubbishInterval
        while true {
            let now = MonotonicClock.now()
            if now >= end { break }
            if case .saturation = pattern.spacing { due = now }
            if now >= due {
                if now - due > Self.patience {
                    let missed = (now - due).nanoseconds / max(1, interval.nanoseconds)
                    slice.skipped += Int(missed) * burst
                    due = due + interval * missed
                }
                if pattern.way == .down { sendDown(burst) } else { sendUp(burst, train: pattern.train) }
                due = due + interval
            }
            if now >= rubbishDue {
                for _ in 0..<Self.rubbishBurst {
                    let (bytes, source) = rubbish.next()
                    putRaw(bytes, from: source)
                }
                flush()
                slice.rubbish += Self.rubbishBurst
                rubbishDue = max(rubbishDue + rubbishInterval, now - Self.patience)
            }
            if pattern.way != .down { pollTrunk() }
            if pattern.way != .up || rubbishRate > 0 { pollClients() }
        }
        slice.wall = MonotonicClock.now() - start
        let isUp = pattern.way == .up
        settle(Self.drainTime) { rig in (isUp ? rig.tally.up : rig.tally.down) >= rig.tally.sent }
        let after = ProcessUsage(target.worker)
        slice.time = after.time - before.time
        let own = crowd_process_time(getpid()) - ownBefore
        let span = MonotonicClock.now() - start
        slice.others = max(0, Double(ProcessUsage.machineTime - machineBefore - slice.time - own) / Double(max(1, span.nanoseconds)))
        slice.generator = Double(own) / Double(max(1, span.nanoseconds))
        slice.voluntarySwitches = after.voluntarySwitches - before.voluntarySwitches
        slice.involuntarySwitches = after.involuntarySwitches - before.involuntarySwitches
        slice.sent = tally.sent
        switch pattern.way {
        case .up: slice.arrived = tally.up
        case .down, .echo: slice.arrived = tally.down
        }
        slice.forwarded = pattern.way == .echo ? tally.up + tally.down : slice.arrived
        slice.overflow = overflow - overflowBefore
        slice.strange = tally.strange
        slice.latencies = tally.latencies.sorted()
        return slice
    }
}

extension Array where Element == Double {
    /// The middle one of those that are numbers.
    var median: Double {
        let numbers = filter { !$0.isNaN }.sorted()
        return numbers.isEmpty ? .nan : numbers[numbers.count / 2]
    }
}
