// Whether a worker lets more come before it looks again. Every wake-up, every receive and every trunk send costs the same for one datagram
// as for sixty; a few hundred microseconds make the difference between the two. Someone who is idle, or who is late already, does not wait.
//
// A pause pays by the datagrams that it adds to those that would have come together anyway, and that depends on how they come:
//
// * One by one. Nothing comes together by itself, so that a pause after each turn divides the price of a turn by what comes in it. It is as
//   long as may be, or until one receive is full.
// * In lumps with silence between (many clients on one clock, a sender that paces in bursts). A lump that is worth a turn comes together by
//   itself. A pause after the turn would only make the next one late; what pays is one pause by whoever the lump wakes up, as long as
//   the lump takes to come. How long that is, is learnt: as long as much of a lump comes behind the pause it grows, otherwise it shrinks.
//
// Pauses hide which of the two it is. So they are left out for a few milliseconds now and then, and the silences are looked at: datagrams
// that come independently leave silences of the mean distance between two of them, lumps leave longer ones.
public import Primitives

/// Knows how fast datagrams have come lately, and in what lumps, and therefore what a pause would bring.
public struct AdaptiveGather: Sendable {
    /// How datagrams have come lately.
    @frozen public enum Traffic: Sendable {
        /// Few, or not known yet: no pauses, and silences are looked at.
        case unknown
        /// One by one: a pause after each turn.
        case steady
        /// In lumps: a pause after each silence.
        case lumps
    }

    /// The longest pause; zero for none ever.
    public let longest: Interval
    public private(set) var traffic = Traffic.unknown
    /// Whether trains from the trunk are so few that each may end a pause: it was gathered by whoever sent it, and need not wait again.
    public private(set) var trainsAreFew = false
    /// How long the next lump is waited for.
    public private(set) var lumpPause = Self.firstLumpPause

    private var windowStart = Instant.zero
    private var steadySince = Instant.zero
    /// Datagrams since the window began: of both sides, and of clients.
    private var arrived = 0
    private var single = 0
    /// Datagrams that come in the longest pause at the last window's rate.
    private var expected = 0
    /// Silences of clients that this window has seen the end of.
    private var silences = 0
    private var silence = Interval.zero
    /// Windows in a row that have seen no lumps.
    private var doubts = 0
    /// When the turn ended that last had datagrams of clients; whether the turn at hand has.
    private var heard = Instant.zero
    private var hasHeard = false
    /// Datagrams of the last lump that the pause brought, and those behind it.
    private var caught = 0
    private var late = 0
    private var isPaused = false
    /// Until when datagrams belong to the lump at hand: half a silence later they may be of the next.
    private var lumpEnd = Instant.zero
    /// Silences and lumps of the last window that had some.
    private var usualSilence = Interval.zero
    private var usualLump = 0

    /// The rate is taken over this long at least.
    static let window = Interval.milliseconds(2)
    /// Silences are looked at for this long.
    static let watch = Interval.milliseconds(4)
    /// A steady worker leaves out its pauses this often, for one watch.
    static let rest = Interval.milliseconds(500)
    /// Fewer in the longest pause are not worth it.
    static let fewest = 3
    /// A pause brings about this many at most, so that a receive of 64 takes them all and no buffer fills meanwhile.
    static let most = 48
    /// Windows without lumps that somebody who knows lumps lets pass: something else has taken the processor.
    static let patience = 3
    /// A shorter silence is none; after a longer one nothing is known any more.
    static let silent = Interval.microseconds(32)...Interval.milliseconds(20)
    /// Waking up takes about this long, and looks like silence.
    static let wakeUp = Interval.microseconds(10)
    /// Fewer datagrams are no lump: they do not pay for a turn of their own.
    static let leastLump = 6
    /// Fewer do not pay for the second sleep that waiting for the rest of them takes: a turn or two is cheaper.
    static let leastAwaited = 12
    /// Who has waited for less has not slept.
    static let leastSleep = Interval.microseconds(3)
    static let firstLumpPause = Interval.microseconds(25)
    /// One as short is none: it would cost a sleep.
    static let shortestLumpPause = Interval.microseconds(6)

    public init(longest: Interval) { self.longest = longest }

    /// Whether `awoke` wants to know how long a worker has slept.
    public var watchesSleep: Bool { longest > .zero && traffic != .steady }

    /// A worker that has waited since `start` finds datagrams of clients at `now`: until when to let more come, or nil for not at all.
    public mutating func awoke(at now: Instant, from start: Instant) -> Instant? {
        guard watchesSleep else { return nil }
        if hasHeard { heard = start }
        hasHeard = false
        guard now - start >= Self.leastSleep, Self.silent.contains(now - heard) else { return nil }
        silences &+= 1
        silence = silence + (now - heard)
        guard traffic == .lumps, usualLump >= Self.leastAwaited else { return nil }
        learn()
        isPaused = true
        lumpEnd = now + lumpPause + usualSilence / 2
        return lumpPause > Self.shortestLumpPause ? now + lumpPause : nil
    }

    /// What to do after a turn that began at `now` and left nothing: until when to pause, or nil for not at all.
    ///
    /// - Parameters:
    ///   - count: datagrams that it received, of both sides. A train from the trunk is one: it was gathered by whoever sent it.
    ///   - clients: those of them that came from clients.
    public mutating func pause(after count: Int, fromClients clients: Int, at now: Instant) -> Instant? {
        guard longest > .zero else { return nil }
        let clients = min(max(clients, 0), 1 << 12)
        arrived = min(arrived &+ min(max(count, 0), 1 << 12), 1 << 24)
        single = min(single &+ clients, 1 << 24)
        if clients > 0 {
            hasHeard = true
            if isPaused { caught = clients } else if now <= lumpEnd { late = min(late &+ clients, 1 << 24) }
            isPaused = false
        }
        let elapsed = now - windowStart
        if elapsed >= (traffic == .steady ? Self.window : traffic == .lumps ? Self.watch * 2 : Self.watch) { judge(elapsed, now) }
        guard traffic == .steady else { return nil }
        guard expected > Self.most else { return now + longest }
        return now + Interval(nanoseconds: longest.nanoseconds * Int64(Self.most) / Int64(expected))
    }

    /// The end of a window.
    private mutating func judge(_ elapsed: Interval, _ now: Instant) {
        expected = Int(clamping: Int64(arrived) &* longest.nanoseconds / elapsed.nanoseconds)
        trainsAreFew = Int64(arrived &- single) &* longest.nanoseconds <= elapsed.nanoseconds &* 2
        if expected < Self.fewest || elapsed > Self.watch * 8 {
            traffic = .unknown
        } else if traffic == .steady {
            if now - steadySince >= Self.rest { traffic = .unknown }
        } else if comesInLumps(elapsed) {
            usualSilence = silence / Int64(silences)
            usualLump = single / silences
            if traffic != .lumps {
                lumpPause = Self.firstLumpPause
                caught = 0
                late = 0
            }
            traffic = .lumps
            doubts = 0
        } else if traffic == .lumps && doubts < Self.patience {
            doubts &+= 1
        } else {
            traffic = .steady
            steadySince = now
            doubts = 0
        }
        windowStart = now
        arrived = 0
        single = 0
        silences = 0
        silence = .zero
    }

    /// Whether the silences are too long for datagrams that come independently: of those, a silence has seen its shortest already and lasts
    /// for another mean distance. Half as much again is given to chance, and nothing to whoever knows lumps already.
    private func comesInLumps(_ elapsed: Interval) -> Bool {
        guard silences > 0, single >= silences &* Self.leastLump else { return false }
        let distance = Interval(nanoseconds: elapsed.nanoseconds / Int64(single))
        let usual = Self.silent.lowerBound + Self.wakeUp + (traffic == .lumps ? distance : distance + distance / 2)
        return silence > usual * Int64(silences)
    }

    /// From the last lump, how long to wait for the next: a sixteenth may come behind the pause.
    private mutating func learn() {
        if late &* 16 > caught &+ late {
            lumpPause = lumpPause + lumpPause / 8
        } else {
            lumpPause = lumpPause - lumpPause / 16
        }
        lumpPause = min(max(lumpPause, Self.shortestLumpPause), longest / 2, usualSilence)
        caught = 0
        late = 0
    }
}
