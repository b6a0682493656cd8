// Time as the cores see it: an instant that somebody else read, and spans between two of them. No core reads a clock.

/// A point on the monotonic clock, in nanoseconds since an arbitrary origin. Only the worker makes one, once a turn.
@frozen public struct Instant: Comparable, Hashable, Sendable {
    public var nanoseconds: UInt64

    @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    @inlinable public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }

    /// Saturates at both ends of the clock instead of trapping: a span may come from a peer's field.
    @inlinable public static func + (instant: Instant, span: Interval) -> Instant {
        if span.nanoseconds >= 0 {
            let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(UInt64(span.nanoseconds))
            return Instant(nanoseconds: overflow ? .max : sum)
        }
        let (difference, overflow) = instant.nanoseconds.subtractingReportingOverflow(span.nanoseconds.magnitude)
        return Instant(nanoseconds: overflow ? 0 : difference)
    }

    @inlinable public static func - (instant: Instant, span: Interval) -> Instant {
        instant + Interval(nanoseconds: 0 &- span.nanoseconds)
    }

    /// The span from `b` to `a`; negative when `a` is the earlier one.
    @inlinable public static func - (a: Instant, b: Instant) -> Interval {
        Interval(nanoseconds: Int64(truncatingIfNeeded: a.nanoseconds &- b.nanoseconds))
    }

    /// The start of the clock. A virtual clock begins a little later, so that "a minute ago" exists.
    public static let zero = Instant(nanoseconds: 0)
    /// Later than everything: the deadline of a machine that waits for nothing.
    public static let never = Instant(nanoseconds: .max)
}

/// A span of time in nanoseconds; 64 bits, so that arithmetic on it is one instruction (the standard `Duration` has 128).
@frozen public struct Interval: Comparable, Hashable, Sendable {
    public var nanoseconds: Int64

    @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    @inlinable public static func nanoseconds(_ n: Int64) -> Interval { Interval(nanoseconds: n) }
    @inlinable public static func microseconds(_ n: Int64) -> Interval { Interval(nanoseconds: saturating(n, 1_000)) }
    @inlinable public static func milliseconds(_ n: Int64) -> Interval { Interval(nanoseconds: saturating(n, 1_000_000)) }
    @inlinable public static func seconds(_ n: Int64) -> Interval { Interval(nanoseconds: saturating(n, 1_000_000_000)) }
    public static let zero = Interval(nanoseconds: 0)

    /// Whole milliseconds, rounded toward zero.
    @inlinable public var milliseconds: Int64 { nanoseconds / 1_000_000 }
    @inlinable public var microseconds: Int64 { nanoseconds / 1_000 }
    @inlinable public var seconds: Double { Double(nanoseconds) / 1e9 }

    @inlinable public static func < (a: Interval, b: Interval) -> Bool { a.nanoseconds < b.nanoseconds }
    @inlinable public static func + (a: Interval, b: Interval) -> Interval { Interval(nanoseconds: a.nanoseconds &+ b.nanoseconds) }
    @inlinable public static func - (a: Interval, b: Interval) -> Interval { Interval(nanoseconds: a.nanoseconds &- b.nanoseconds) }
    @inlinable public static func * (a: Interval, n: Int64) -> Interval { Interval(nanoseconds: saturating(a.nanoseconds, n)) }
    @inlinable public static func / (a: Interval, n: Int64) -> Interval { Interval(nanoseconds: a.nanoseconds / n) }

    @usableFromInline static func saturating(_ a: Int64, _ b: Int64) -> Int64 {
        let (product, overflow) = a.multipliedReportingOverflow(by: b)
        if !overflow { return product }
        return (a < 0) == (b < 0) ? .max : .min
    }
}

/// Seconds since 1970 as the wall clock told them; used only where a wire format asks for it (hint, NTP, certificates).
@frozen public struct WallClock: Comparable, Hashable, Sendable {
    public var secondsSince1970: UInt64
    public var nanoseconds: UInt32

    @inlinable public init(secondsSince1970: UInt64, nanoseconds: UInt32 = 0) {
        self.secondsSince1970 = secondsSince1970
        self.nanoseconds = nanoseconds
    }
    @inlinable public static func < (a: WallClock, b: WallClock) -> Bool {
        (a.secondsSince1970, a.nanoseconds) < (b.secondsSince1970, b.nanoseconds)
    }
}

/// When a machine wants to be advanced, and why: the reason is for logs and for the simulator's trace.
@frozen public struct Deadline: Sendable {
    public var instant: Instant
    public var reason: StaticString

    @inlinable public init(_ instant: Instant, _ reason: StaticString) {
        self.instant = instant
        self.reason = reason
    }
    @inlinable public static var none: Deadline { Deadline(.never, "nothing") }
    @inlinable public static func soonest(_ a: Deadline, _ b: Deadline) -> Deadline { b.instant < a.instant ? b : a }
}
