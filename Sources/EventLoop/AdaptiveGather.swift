// Whether a worker that has dealt with everything lets more come before it looks again. Every wake-up, every receive and every trunk send
// costs the same for one datagram as for sixty; a few hundred microseconds make the difference between the two. Someone who is idle, or
// who is late already, does not wait.
public import Primitives

/// Knows how fast datagrams have come lately, and therefore what a pause would bring.
public struct AdaptiveGather: Sendable {
    /// The longest pause; zero for none ever.
    public let longest: Interval
    private var windowStart = Instant.zero
    private var arrived = 0
    /// Datagrams that come in the longest pause at the last window's rate.
    private var expected = 0

    /// The rate is taken over this long at least.
    static let window = Interval.milliseconds(2)
    /// Fewer are not worth waiting for.
    static let fewest = 2
    /// A pause brings about this many at most, so that a receive of 64 takes them all and no buffer fills meanwhile.
    static let most = 48

    public init(longest: Interval) { self.longest = longest }

    /// What to do after a turn that began at `now`, moved `count` datagrams and left nothing: until when to pause, or nil for not at all.
    public mutating func pause(after count: Int, at now: Instant) -> Instant? {
        guard longest > .zero else { return nil }
        arrived &+= max(count, 0)
        let elapsed = now - windowStart
        if elapsed >= Self.window {
            expected = Int(clamping: Int64(min(arrived, 1 << 24)) &* longest.nanoseconds / elapsed.nanoseconds)
            windowStart = now
            arrived = 0
        }
        guard expected >= Self.fewest else { return nil }
        guard expected > Self.most else { return now + longest }
        return now + Interval(nanoseconds: longest.nanoseconds * Int64(Self.most) / Int64(expected))
    }
}
