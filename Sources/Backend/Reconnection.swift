import Primitives

/// When the next attempt may be made: waits that double, with jitter so that a thousand calls do not come back at once, and a breaker.
struct Reconnection: Sendable {
    private let first: Interval
    private let last: Interval
    private let breakerFailures: Int
    private(set) var failures = 0

    init(first: Interval, last: Interval, breakerFailures: Int) {
        self.first = first
        self.last = max(first, last)
        self.breakerFailures = breakerFailures
    }

    /// Too many failures in a row: nobody is made to wait for the next attempt.
    var isBroken: Bool { failures >= breakerFailures }

    mutating func succeed() { failures = 0 }

    /// Counts a failure and tells how long to wait: half to all of the doubled time.
    mutating func fail(random: inout some RandomNumberGenerator) -> Interval {
        failures += 1
        let doubled = isBroken ? last : min(last, first * (1 << Int64(min(failures - 1, 20))))
        let half = doubled.nanoseconds / 2
        return Interval(nanoseconds: half + Int64.random(in: 0...max(half, 0), using: &random))
    }
}

/// Samples that wait to be taken, in one growing block that is given back when it is empty.
struct SampleQueue: Sendable {
    private var samples: [Int16] = []
    private var start = 0

    var count: Int { samples.count - start }

    mutating func append(_ sample: Int16) { samples.append(sample) }

    mutating func append(_ more: some Collection<Int16>) { samples.append(contentsOf: more) }

    /// Fills `frame` as far as there are samples, and the rest with silence.
    mutating func take(into frame: inout MutableSpan<Int16>) {
        let count = min(frame.count, self.count)
        for index in 0..<count { frame[index] = samples[start + index] }
        for index in count..<frame.count { frame[index] = 0 }
        start += count
        if start == samples.count {
            removeAll()
        } else if start > 48_000, start > samples.count / 2 {
            samples.removeFirst(start)
            start = 0
        }
    }

    mutating func removeAll() {
        samples.removeAll(keepingCapacity: samples.capacity <= 48_000)
        start = 0
    }
}
