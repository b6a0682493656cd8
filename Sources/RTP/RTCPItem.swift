// What reports say, as values that reader and writer share (RFC 3550 §6.4).

import Primitives

/// The second part of a sender report.
@frozen public struct RTCPSenderInfo: Hashable, Sendable {
    public var ntp: NTPTime
    /// The same moment on the stream's media clock.
    public var rtpTimestamp: UInt32
    /// Packets and payload bytes sent so far; both wrap.
    public var packetCount: UInt32
    public var octetCount: UInt32

    public init(ntp: NTPTime, rtpTimestamp: UInt32, packetCount: UInt32, octetCount: UInt32) {
        self.ntp = ntp
        self.rtpTimestamp = rtpTimestamp
        self.packetCount = packetCount
        self.octetCount = octetCount
    }
}

/// What a receiver says about one SSRC that it hears.
@frozen public struct RTCPReportBlock: Hashable, Sendable {
    public static let size = 24

    public var ssrc: UInt32
    /// Lost since the report before, in 1/256.
    public var fractionLost: UInt8
    /// −8,388,608…8,388,607: 24 bits on the wire.
    public var cumulativeLost: Int32
    public var extendedHighest: UInt32
    /// In ticks of the stream's media clock.
    public var jitter: UInt32
    /// The middle bits of the latest sender report's time; 0 when none came.
    public var lastSenderReport: UInt32
    /// How long that report has been here, in 2⁻¹⁶ seconds.
    public var delaySinceLastSenderReport: UInt32

    public init(
        ssrc: UInt32, fractionLost: UInt8, cumulativeLost: Int32, extendedHighest: UInt32, jitter: UInt32, lastSenderReport: UInt32,
        delaySinceLastSenderReport: UInt32
    ) {
        self.ssrc = ssrc
        self.fractionLost = fractionLost
        self.cumulativeLost = cumulativeLost
        self.extendedHighest = extendedHighest
        self.jitter = jitter
        self.lastSenderReport = lastSenderReport
        self.delaySinceLastSenderReport = delaySinceLastSenderReport
    }
}

/// One thing a compound packet says. Ranges are offsets into the compound packet.
@frozen public enum RTCPItem: Hashable, Sendable {
    /// Its report blocks follow as items of their own.
    case senderReport(ssrc: UInt32, RTCPSenderInfo)
    /// Its report blocks follow as items of their own.
    case receiverReport(ssrc: UInt32)
    case reportBlock(reporter: UInt32, RTCPReportBlock)
    /// The canonical name of `ssrc`; other source descriptions are passed over.
    case canonicalName(ssrc: UInt32, Range<Int>)
    case bye(ssrc: UInt32)
    /// Missing: `packet` and, for bit n of `following`, packet + n + 1 (RFC 4585 §6.2.1).
    case nack(sender: UInt32, media: UInt32, packet: UInt16, following: UInt16)
    /// Transport-wide congestion control feedback; `body` begins at its base sequence number.
    case transportFeedback(sender: UInt32, media: UInt32, body: Range<Int>)
    /// A packet we do not act on: APP, XR, payload-specific feedback such as picture loss, and whatever may be invented.
    case ignored(packetType: UInt8, format: UInt8)
}

/// Why a datagram is not RTCP. Raw values are indices of counters.
@frozen public enum RTCPError: UInt8, Error, CaseIterable, Sendable {
    /// Shorter than one header, or bytes left over that are none.
    case truncated
    /// Not version 2.
    case version
    /// A packet type outside 192–223.
    case packetType
    /// A packet longer than the datagram.
    case overrun
    /// A packet too short for the blocks it announces.
    case content
    case padding
}

/// Packet types.
enum RTCPType {
    static let senderReport: UInt8 = 200
    static let receiverReport: UInt8 = 201
    static let sourceDescription: UInt8 = 202
    static let bye: UInt8 = 203
    static let transportFeedback: UInt8 = 205
}
