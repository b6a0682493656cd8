// One SSRC that we receive: extended sequence numbers, loss and jitter (RFC 3550 §6.4.1, §A.1, §A.3, §A.8).

import Primitives

/// What a packet's sequence number means. Raw values are indices of counters.
@frozen public enum RTPVerdict: UInt8, CaseIterable, Sendable {
    /// The first packet of the stream.
    case first
    /// Newer than all before it; packets between may be missing.
    case newer
    /// Out of order, and not seen before as far as the last 128 packets tell.
    case late
    /// Already received.
    case duplicate
    /// Far away from where the stream is: held to be stray until its successor arrives. Do not play it.
    case stray
    /// The second packet in a row at the far place: the sender began anew, and so did this state.
    case restarted
}

@frozen public struct RTPReceiveStream: Sendable {
    /// A gap this long is still loss and not a restart (RFC 3550 §A.1).
    public static let dropoutMax: UInt16 = 3000
    /// How far a packet may come behind the newest one (RFC 3550 §A.1).
    public static let misorderMax: UInt16 = 100

    public let ssrc: UInt32
    public let clockRate: UInt32
    /// Packets since the stream began or restarted, with late ones and duplicates, as RFC 3550 counts.
    public private(set) var packetsReceived: UInt32 = 0

    /// The newest sequence number, extended by the number of wraps.
    private var highest: UInt32 = 0
    private var base: UInt32 = 0
    /// Bit n: packet `highest − n` has come.
    private var seen: UInt128 = 0
    /// The place at which a stray packet would be followed by the next one; over 65,535 when there was none.
    private var probation: UInt32 = .max
    private var expectedBefore: UInt32 = 0
    private var receivedBefore: UInt32 = 0
    private var lastTransit: UInt32 = 0
    /// Sixteen times the jitter.
    private var scaledJitter: UInt64 = 0
    private var lastReport: UInt32 = 0
    private var lastReportInstant = Instant.zero

    /// `clockRate` in ticks a second.
    public init(ssrc: UInt32, clockRate: UInt32 = 48_000) {
        self.ssrc = ssrc
        self.clockRate = clockRate
    }

    /// The highest sequence number received, with the number of wraps in the upper half.
    public var extendedHighest: UInt32 { highest }
    /// Interarrival jitter in media ticks (RFC 3550 §A.8).
    public var jitter: UInt32 { UInt32(truncatingIfNeeded: scaledJitter >> 4) }
    /// Packets that should have come since the stream began.
    public var packetsExpected: UInt32 { packetsReceived == 0 ? 0 : highest &- base &+ 1 }
    /// Expected minus received; negative when duplicates outnumber losses.
    public var cumulativeLost: Int32 { Int32(bitPattern: packetsExpected &- packetsReceived) }
    public var hasReceived: Bool { packetsReceived > 0 }
}

extension RTPReceiveStream {
    /// Takes a packet of this SSRC that arrived at `now`. The first packet is accepted at once: SRTP has proven who sent it.
    @discardableResult
    public mutating func note(_ header: RTPHeader, at now: Instant) -> RTPVerdict {
        let verdict = place(header.sequenceNumber)
        guard verdict != .stray else { return verdict }
        packetsReceived &+= 1
        let transit = now.ticks(rate: clockRate) &- header.timestamp
        switch verdict {
        case .first, .restarted: scaledJitter = 0
        default:
            // RFC 3550 §A.8: J += (|D| − J) / 16, kept at 16 J with rounding.
            let difference = UInt64(Int32(bitPattern: transit &- lastTransit).magnitude)
            scaledJitter = scaledJitter &+ difference &- (scaledJitter &+ 8) >> 4
        }
        lastTransit = transit
        return verdict
    }

    /// Takes the other side's sender report, whose time and arrival our reports quote.
    public mutating func noteSenderReport(_ info: RTCPSenderInfo, at now: Instant) {
        lastReport = info.ntp.middle
        lastReportInstant = now
    }

    /// The block for our next report. Begins a new interval for the fraction lost.
    public mutating func reportBlock(at now: Instant) -> RTCPReportBlock {
        let expected = packetsExpected
        let expectedInterval = expected &- expectedBefore
        let lostInterval = Int64(expectedInterval) - Int64(packetsReceived &- receivedBefore)
        expectedBefore = expected
        receivedBefore = packetsReceived
        // RFC 3550 §A.3. Everything lost would be 256/256, which eight bits do not hold.
        let fraction = expectedInterval == 0 || lostInterval <= 0 ? 0 : min(255, (lostInterval << 8) / Int64(expectedInterval))
        return RTCPReportBlock(
            ssrc: ssrc, fractionLost: UInt8(truncatingIfNeeded: fraction),
            cumulativeLost: min(0x7F_FFFF, max(-0x80_0000, cumulativeLost)), extendedHighest: highest, jitter: jitter,
            lastSenderReport: lastReport,
            delaySinceLastSenderReport: lastReport == 0 ? 0 : (now - lastReportInstant).reportUnits)
    }

    /// The extended number of a packet near the newest one: for ordering packets across wraps. Negative for packets from before
    /// the first wrap.
    public func extended(_ sequenceNumber: UInt16) -> Int64 {
        Int64(highest) + Int64(sequenceNumber.distance(from: UInt16(truncatingIfNeeded: highest)))
    }
}

extension RTPReceiveStream {
    /// RFC 3550 §A.1 without probation at the start.
    private mutating func place(_ sequenceNumber: UInt16) -> RTPVerdict {
        guard packetsReceived > 0 else {
            begin(at: sequenceNumber)
            return .first
        }
        let ahead = sequenceNumber &- UInt16(truncatingIfNeeded: highest)
        if ahead == 0 {
            probation = .max
            return .duplicate
        }
        if ahead < Self.dropoutMax {
            probation = .max
            highest &+= UInt32(ahead)
            seen = ahead < 128 ? seen << UInt128(ahead) | 1 : 1
            return .newer
        }
        let behind = 0 &- ahead
        if behind < Self.misorderMax {
            probation = .max
            let bit: UInt128 = 1 << UInt128(behind)
            guard seen & bit == 0 else { return .duplicate }
            seen |= bit
            return .late
        }
        guard UInt32(sequenceNumber) == probation else {
            probation = UInt32(sequenceNumber &+ 1)
            return .stray
        }
        begin(at: sequenceNumber)
        return .restarted
    }

    private mutating func begin(at sequenceNumber: UInt16) {
        base = UInt32(sequenceNumber)
        highest = base
        seen = 1
        probation = .max
        packetsReceived = 0
        expectedBefore = 0
        receivedBefore = 0
    }
}
