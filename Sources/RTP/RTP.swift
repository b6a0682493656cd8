// RTP: the packets that carry voice and the reports about them (RFC 3550, RFC 3551, RFC 5506, RFC 5761, RFC 8285).
//
// Reading: `RTPHeader` and `RTPExtensions` are copyable values with offsets into the packet they came from; `RTCPReader` walks a
// compound packet item by item. Writing: `RTPSendStream` and `RTCPWriter` write into the caller's buffer. State: `RTPReceiveStream`
// counts loss and jitter of one SSRC, `RTCPScheduler` says when the next report is due and what the round trip was.
//
// Everything here is plain text to it: SRTP lies below, the jitter buffer above. No clock, no randomness of its own. A peer's
// numbers wrap, and none of them traps.

/// Why a packet is not RTP. Raw values are indices of counters.
@frozen public enum RTPError: UInt8, Error, CaseIterable, Sendable {
    /// Shorter than its fixed header.
    case truncated
    /// Not version 2.
    case version
    /// The contributing sources run past the end.
    case contributors
    /// The header extension runs past the end.
    case headerExtension
    /// The padding is empty or longer than what follows the header.
    case padding
}

/// Whether a datagram of the RTP/RTCP range (first byte 128–191) is RTCP: its second byte is 192–223 (RFC 5761 §4). False for
/// a datagram shorter than two bytes.
public func isRTCP(_ datagram: RawSpan) -> Bool {
    datagram.byteCount >= 2 && (192...223).contains(datagram.byte(1))
}
