// A histogram that costs one increment: log-linear buckets, four to an octave, so that any value is known within a quarter.

/// What a histogram's values are, and how many of them make the base unit that Prometheus wants in a name.
public enum HistogramUnit: Sendable {
    /// Base unit: seconds.
    case nanoseconds, microseconds, milliseconds
    /// Bytes, packets, or whatever has no smaller part.
    case ones

    var perBase: Double {
        switch self {
        case .nanoseconds: 1e9
        case .microseconds: 1e6
        case .milliseconds: 1e3
        case .ones: 1
        }
    }
}

/// Counts values from 0 to 2³⁷ (in nanoseconds 137 seconds); larger ones share the last bucket. A bucket holds what is
/// over its lower bound and at most its upper one, so powers of two are exact bounds. A value of 1.2 kB to copy, merge and publish.
@frozen public struct Histogram: Sendable {
    public static let bucketCount = 145
    /// The exponent of the largest bound.
    public static let octaveMax = 37
    /// How many words `words` writes.
    public static let wordCount = bucketCount + 2

    @usableFromInline var buckets = InlineArray<145, UInt64>(repeating: 0)
    /// The sum of all values; wraps.
    public private(set) var sum: UInt64 = 0
    /// The largest value.
    public private(set) var maximum: UInt64 = 0

    public init() {}

    /// Adds one value.
    public mutating func record(_ value: UInt64) { record(value, times: 1) }

    /// Adds the same value `times` times: a batch that was measured as a whole.
    public mutating func record(_ value: UInt64, times: UInt64) {
        guard times > 0 else { return }
        buckets[Self.bucket(of: value)] &+= times
        sum &+= value &* times
        maximum = max(maximum, value)
    }

    /// Adds all values of `other`.
    public mutating func merge(_ other: borrowing Histogram) {
        for index in 0..<Self.bucketCount { buckets[index] &+= other.buckets[index] }
        sum &+= other.sum
        maximum = max(maximum, other.maximum)
    }

    /// How many values there are.
    public var count: UInt64 { count(below: Self.bucketCount) }

    /// How many values are at most 2^`octave`.
    public func count(upToOctave octave: Int) -> UInt64 {
        // 1 ends bucket 0, 2 bucket 1; from 4 on there are four to an octave.
        count(below: octave < 2 ? octave + 1 : 4 * (min(octave, Self.octaveMax) - 1))
    }

    /// How many values are in one bucket of `0..<bucketCount`.
    public func count(inBucket index: Int) -> UInt64 { buckets[index] }

    /// The value that a share of `q` (0…1) of all values does not exceed, up to a bucket's width too large but never beyond the
    /// maximum; nil when there are none.
    public func quantile(_ q: Double) -> UInt64? {
        let total = count
        guard total > 0 else { return nil }
        let share = min(1, max(0, q.isNaN ? 1 : q))
        let rank = max(1, UInt64((share * Double(total)).rounded(.up)))
        var seen: UInt64 = 0
        for index in 0..<Self.bucketCount - 1 {
            seen &+= buckets[index]
            if seen >= rank { return min(maximum, Self.upperBound(of: index)) }
        }
        return maximum
    }
}

extension Histogram {
    /// Writes all of it as words, to publish it on a `CounterPage`. `words` needs room for `wordCount` from `offset` on.
    public func store(into words: inout MutableSpan<UInt64>, at offset: Int) {
        let buckets = buckets
        let values = buckets.span
        for index in 0..<Self.bucketCount { words[offset + index] = values[index] }
        words[offset + Self.bucketCount] = sum
        words[offset + Self.bucketCount + 1] = maximum
    }

    /// Reads what `store` wrote.
    public init(words: Span<UInt64>, at offset: Int) {
        for index in 0..<Self.bucketCount { buckets[index] = words[offset + index] }
        sum = words[offset + Self.bucketCount]
        maximum = words[offset + Self.bucketCount + 1]
    }
}

extension Histogram {
    private func count(below end: Int) -> UInt64 {
        var total: UInt64 = 0
        for index in 0..<end { total &+= buckets[index] }
        return total
    }

    /// Values 0 and 1 in bucket 0, 2 in 1, 3 in 2, 4 in 3; then 5, 6, 7, 8 in 4…7; 9–10, 11–12, … in 8….
    static func bucket(of value: UInt64) -> Int {
        let below = value == 0 ? 0 : value - 1
        guard below >= 4 else { return Int(below) }
        let octave = 63 - below.leadingZeroBitCount
        return min(bucketCount - 1, 4 * (octave - 1) + Int(below >> UInt64(octave - 2) & 3))
    }

    /// The largest value of a bucket; the last one has no bound and gives what would be next.
    public static func upperBound(of bucket: Int) -> UInt64 {
        guard bucket >= 4 else { return UInt64(bucket) + 1 }
        let octave = UInt64(bucket / 4 + 1)
        return (UInt64(bucket % 4) + 5) << (octave - 2)
    }
}
