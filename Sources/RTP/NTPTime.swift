// The clock of sender reports: seconds since 1900 with 32 bits of fraction (RFC 3550 §4).

import Primitives

@frozen public struct NTPTime: Hashable, Sendable {
    /// Seconds in the upper half, 2⁻³² seconds in the lower one. Wraps in 2036; all arithmetic here wraps with it.
    public var rawValue: UInt64

    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

    public init(_ wall: WallClock) {
        // 70 years with 17 leap days lie between both epochs.
        let seconds = wall.secondsSince1970 &+ 2_208_988_800
        let nanoseconds = UInt64(min(wall.nanoseconds, 999_999_999))
        rawValue = seconds << 32 | (nanoseconds << 32) / 1_000_000_000
    }

    /// The middle 32 bits, which reports quote: 2⁻¹⁶ seconds, wrapping after 18 hours.
    @inlinable public var middle: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 16) }
}

/// Gives NTP times that never step: the wall clock is looked at once, the monotonic clock carries it on. Round trips are
/// differences of these times, and a clock that is set must not show up in them.
@frozen public struct NTPClock: Sendable {
    private let wall: WallClock
    private let start: Instant

    /// `wall` and `start` are the same moment.
    public init(wall: WallClock, at start: Instant) {
        self.wall = wall
        self.start = start
    }

    public func time(at now: Instant) -> NTPTime {
        let total = UInt64(max(0, (now - start).nanoseconds)) &+ UInt64(wall.nanoseconds)
        return NTPTime(
            WallClock(secondsSince1970: wall.secondsSince1970 &+ total / 1_000_000_000, nanoseconds: UInt32(total % 1_000_000_000)))
    }
}

extension Interval {
    /// A span in 2⁻¹⁶ seconds, as reports carry it.
    init(reportUnits: UInt32) { self.init(nanoseconds: (Int64(reportUnits) * 1_000_000_000) >> 16) }

    /// 2⁻¹⁶ seconds; 0 for negative spans, the largest number for spans over 18 hours.
    var reportUnits: UInt32 {
        guard nanoseconds > 0 else { return 0 }
        let seconds = nanoseconds / 1_000_000_000
        guard seconds < 65_536 else { return .max }
        return UInt32(seconds << 16 | (nanoseconds % 1_000_000_000) << 16 / 1_000_000_000)
    }
}

extension Instant {
    /// This instant on a media clock of `rate` ticks a second; wraps.
    func ticks(rate: UInt32) -> UInt32 { ticksOf(nanoseconds, rate) }
}

/// `nanoseconds` in ticks of a clock of `rate` a second; wraps.
func ticksOf(_ nanoseconds: UInt64, _ rate: UInt32) -> UInt32 {
    let seconds = nanoseconds / 1_000_000_000
    let rest = nanoseconds % 1_000_000_000
    return UInt32(truncatingIfNeeded: seconds &* UInt64(rate) &+ rest * UInt64(rate) / 1_000_000_000)
}
