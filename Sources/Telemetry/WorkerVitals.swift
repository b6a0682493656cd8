// How a worker is: what is too much to publish every turn, and good enough ten times a second.

import Primitives

/// Written by the worker alone. Recording is an increment; publishing costs a few microseconds, ten times a second at most.
public struct WorkerVitals: Sendable {
    /// Datagrams of one receive.
    public var batches = Histogram()
    /// From the kernel's receive to the return of our send, in nanoseconds: a sample, not every datagram.
    public var latency = Histogram()
    private var published = Instant.zero
    private var sampled = Instant.zero
    private var looks: UInt64 = 0
    private var samples: UInt64 = 0
    private let measures: Bool

    private static let interval = Interval.milliseconds(100)
    private static let samplePause = Interval.milliseconds(10)
    /// A page for `publish` has this many words.
    public static let wordCount = ThreadUsage.wordCount + 2 * Histogram.wordCount

    /// `measures`: whether latency is to be measured at all.
    public init(measures: Bool) { self.measures = measures }

    /// Whether the receive that comes next shall be measured. A hundred times a second at most, so that the cost does not grow with the
    /// traffic; by turns the first to fourth receive after the pause, because the first of a turn has waited longest.
    public mutating func wantsSample(at now: Instant) -> Bool {
        guard measures, now - sampled >= Self.samplePause else { return false }
        looks &+= 1
        guard looks > samples % 4 else { return false }
        looks = 0
        samples &+= 1
        sampled = now
        return true
    }

    /// Which datagram of a batch stands for it: any, by turns.
    public func place(in count: Int) -> Int? { count > 0 ? Int(samples / 4 % UInt64(count)) : nil }

    /// Adds a latency between two readings of the wall clock. A clock that was set in between gives none.
    public mutating func record(from arrival: WallClock, to departure: WallClock) {
        guard arrival < departure, departure.secondsSince1970 - arrival.secondsSince1970 < 60 else { return }
        let seconds = departure.secondsSince1970 - arrival.secondsSince1970
        latency.record(seconds * 1_000_000_000 + UInt64(departure.nanoseconds) - UInt64(arrival.nanoseconds))
    }

    /// Publishes when a tenth of a second has passed since the last time.
    public mutating func publish(on page: CounterPage, at now: Instant) {
        guard now - published >= Self.interval else { return }
        published = now
        publish(on: page, ThreadUsage.current())
    }

    @inline(never)
    private func publish(on page: CounterPage, _ usage: ThreadUsage) {
        var words = InlineArray<299, UInt64>(repeating: 0)
        var span = words.mutableSpan
        usage.store(into: &span, at: 0)
        batches.store(into: &span, at: ThreadUsage.wordCount)
        latency.store(into: &span, at: ThreadUsage.wordCount + Histogram.wordCount)
        page.publish(words.span)
    }
}

/// What a reader finds on a worker's page.
public struct PublishedVitals: Sendable {
    public let usage: ThreadUsage
    public let batches: Histogram
    public let latency: Histogram

    public init(_ page: CounterPage) {
        let words = page.snapshot()
        usage = ThreadUsage(words: words.span, at: 0)
        batches = Histogram(words: words.span, at: ThreadUsage.wordCount)
        latency = Histogram(words: words.span, at: ThreadUsage.wordCount + Histogram.wordCount)
    }
}
