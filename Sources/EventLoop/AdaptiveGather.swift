// Whether a worker lets more come before it looks again. Every wake-up, every receive and every trunk send costs the same for one datagram
// as for sixty; a few hundred microseconds make the difference between the two. Someone who is idle, or who is late already, does not wait.
//
// Two kinds of traffic want two kinds of pause. Datagrams that come one by one are gathered after each turn, for as long as may be. Where
// clients' datagrams come in bursts with silence between, that would only make the answers late: there a worker that a burst wakes up waits
// for the rest of it, once and shortly, and then goes on without a pause.
public import Primitives

/// Knows how fast datagrams have come lately, and in what lumps, and therefore what a pause would bring.
public struct AdaptiveGather: Sendable {
    /// The longest pause; zero for none ever.
    public let longest: Interval
    /// Whether datagrams have come in bursts lately.
    public private(set) var isBursty = false
    private var windowStart = Instant.zero
    private var arrived = 0
    /// Datagrams that come in the longest pause at the last window's rate.
    private var expected = 0
    private var burstStart = Instant.zero
    /// Datagrams of clients since then, and the sum of the squares of how many each turn brought.
    private var single = 0
    private var squares = 0

    /// The rate is taken over this long at least.
    static let window = Interval.milliseconds(2)
    /// The lumps, which come less often.
    static let burstWindow = Interval.milliseconds(8)
    /// Fewer are not worth waiting for.
    static let fewest = 2
    /// A pause brings about this many at most, so that a receive of 64 takes them all and no buffer fills meanwhile.
    static let most = 48
    /// Whoever has slept for less was not woken by a new burst; whoever has slept for longer knows nothing of the traffic any more.
    static let sleeps = Interval.microseconds(40)...Interval.milliseconds(20)

    public init(longest: Interval) { self.longest = longest }

    /// What to do after a turn that began at `now` and left nothing: until when to pause, or nil for not at all.
    ///
    /// - Parameters:
    ///   - count: datagrams that it received, of both sides. A train from the trunk is one: it was gathered by whoever sent it.
    ///   - clients: those of them that came from clients.
    public mutating func pause(after count: Int, fromClients clients: Int, at now: Instant) -> Instant? {
        guard longest > .zero else { return nil }
        arrived &+= max(count, 0)
        let elapsed = now - windowStart
        if elapsed >= Self.window {
            expected = Int(clamping: Int64(min(arrived, 1 << 24)) &* longest.nanoseconds / elapsed.nanoseconds)
            windowStart = now
            arrived = 0
        }
        noteLump(max(clients, 0), now)
        guard expected >= Self.fewest, !isBursty else { return nil }
        guard expected > Self.most else { return now + longest }
        return now + Interval(nanoseconds: longest.nanoseconds * Int64(Self.most) / Int64(expected))
    }

    /// What to do in a turn that began at `now` with datagrams of clients, after a sleep of `asleep`: until when to let more come first.
    public func pause(afterSleep asleep: Interval, at now: Instant) -> Instant? {
        guard isBursty, expected >= Self.fewest, Self.sleeps.contains(asleep) else { return nil }
        return now + Interval(nanoseconds: longest.nanoseconds / 5)
    }

    /// A datagram sees on average `squares / single` others in its turn. Where datagrams come one by one, independently, that is as many as
    /// come in a pause, and one more.
    private mutating func noteLump(_ count: Int, _ now: Instant) {
        let count = min(count, 1 << 12)
        single = min(single &+ count, 1 << 24)
        squares = min(squares &+ count &* count, 1 << 40)
        let elapsed = now - burstStart
        guard elapsed >= Self.burstWindow else { return }
        let usual = Int(clamping: Int64(single) &* longest.nanoseconds / elapsed.nanoseconds)
        isBursty = elapsed < Self.burstWindow * 4 && single > 0 && squares / single > usual + usual * 3 / 4 + 4
        burstStart = now
        single = 0
        squares = 0
    }
}
