// When to report, and what the other side's reports tell about the path.

import Primitives

/// The report timer of a session of two. RFC 3550 §6.2 divides bandwidth among members; with two the result is its fixed least
/// interval, spread by half so that sessions which began together do not report together (§6.3.1).
@frozen public struct RTCPScheduler: Sendable {
    public let interval: Interval
    /// When the next report is due.
    public private(set) var due: Instant
    /// The latest round trip; nil before the first.
    public private(set) var roundTrip: Interval?

    /// The first report comes after half an interval.
    public init(startingAt now: Instant, interval: Interval = .seconds(5), random: inout some RandomNumberGenerator) {
        self.interval = interval
        due = now + Self.spread(interval / 2, &random)
    }

    public var nextDeadline: Deadline { Deadline(due, "rtcp report") }

    /// Whether a report is due at `now`; if so the next one is scheduled. Reports missed meanwhile are not made up for.
    public mutating func takeDue(at now: Instant, random: inout some RandomNumberGenerator) -> Bool {
        guard now >= due else { return false }
        due = now + Self.spread(interval, &random)
        return true
    }

    /// Takes a report block about a stream of ours. `wall` is the arrival, on the clock that wrote our sender reports.
    /// Returns the round trip it proves (RFC 3550 §6.4.1); nil when it quotes no report of ours, or one that cannot be.
    @discardableResult
    public mutating func note(_ block: RTCPReportBlock, at wall: NTPTime) -> Interval? {
        guard block.lastSenderReport != 0 else { return nil }
        // Both numbers wrap after 18 hours; the delay is the peer's word.
        let trip = Int64(wall.middle &- block.lastSenderReport) - Int64(block.delaySinceLastSenderReport)
        // Rounding on both sides may take a fraction of a millisecond from a short trip.
        guard (-Self.roundingMax...Self.roundTripMax).contains(trip) else { return nil }
        let measured = Interval(reportUnits: UInt32(max(0, trip)))
        roundTrip = measured
        return measured
    }

    /// One minute: no path has more, so the peer quotes something else.
    private static let roundTripMax: Int64 = 60 << 16
    private static let roundingMax: Int64 = 16

    /// 0.5…1.5 times `interval`.
    private static func spread(_ interval: Interval, _ random: inout some RandomNumberGenerator) -> Interval {
        let half = max(0, interval.nanoseconds / 2)
        return .nanoseconds(half + Int64.random(in: 0...max(1, interval.nanoseconds), using: &random))
    }
}
