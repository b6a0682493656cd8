public import Primitives

/// Turns counters that somebody outside can drive into log lines at a bounded rate: each counter is told of at once when it begins to grow,
/// and then at most once in `interval`, with what has come since.
public struct GrowthLog: Sendable {
    private let interval: Interval
    private var known: [UInt64]
    private var nextLine: [Instant]

    /// - Parameter count: of counters, which all begin at zero.
    public init(count: Int, interval: Interval = .seconds(10)) {
        self.interval = interval
        known = [UInt64](repeating: 0, count: count)
        nextLine = [Instant](repeating: .zero, count: count)
    }

    /// What counter `index` (below `count`) has grown by since it was last told of; nil when there is nothing to tell now.
    public mutating func growth(of index: Int, total: UInt64, at now: Instant) -> UInt64? {
        guard known.indices.contains(index), total != known[index], nextLine[index] <= now else { return nil }
        // Less than before: workers of another process, which have begun at zero.
        let growth = total > known[index] ? total - known[index] : total
        known[index] = total
        guard growth > 0 else { return nil }
        nextLine[index] = now + interval
        return growth
    }
}
