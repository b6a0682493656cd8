import Primitives

/// The end of this process, in order: no new calls, those that run go on, and who is still there near the end is told.
struct Draining {
    /// How long calls may go on.
    let time: Interval
    /// Whether a SIGTERM has come: a second one ends at once.
    var wasTerminated = false
    private(set) var isDraining = false
    private var ends: Instant?
    private var announces = Instant.never

    /// So long before the end calls are told of it.
    private static let notice = Interval.seconds(30)

    init(time: Interval) { self.time = time }

    /// False when it has begun before: asking twice changes nothing.
    mutating func begin(at now: Instant) -> Bool {
        guard !isDraining else { return false }
        isDraining = true
        ends = now + time
        announces = now + max(time - Self.notice, .zero)
        return true
    }

    /// Seconds until the end, when it is time to tell them; once.
    mutating func announcement(at now: Instant) -> Int? {
        guard now >= announces else { return nil }
        announces = .never
        return secondsLeft(at: now)
    }

    func secondsLeft(at now: Instant) -> Int? {
        guard let ends else { return nil }
        return Int(max(ends - now, .zero).milliseconds + 999) / 1000
    }

    func isOver(calls: Int, at now: Instant) -> Bool {
        guard let ends else { return false }
        return calls == 0 || now >= ends
    }

    /// Nothing is waited for any more.
    mutating func finish() {
        ends = nil
        announces = .never
    }

    var nextDeadline: Instant { min(announces, ends ?? .never) }
}
