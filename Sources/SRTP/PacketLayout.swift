// What SRTP must know of a packet's header. Both engines read packets through these two types first: after them every offset is
// known to lie inside the packet.

import Primitives

/// An RTP header (RFC 3550 §5.1): twelve bytes, the CSRCs, the extension.
struct RTPLayout {
    let sequence: UInt16
    let ssrc: UInt32
    /// Where the payload starts; at most the length that was asked about.
    let headerLength: Int

    /// Reads `buffer[0..<length]`, of which the last `trailer` bytes are no part of the RTP packet.
    init(_ buffer: borrowing MutableRawSpan, length: Int, trailer: Int) throws(SRTPError) {
        guard length >= 0 else { throw .malformed }
        guard length <= longestPacket else { throw .tooLong }
        let end = length &- trailer
        guard end >= 12, length <= buffer.byteCount else { throw .malformed }
        let first = buffer.byte(0)
        guard first >> 6 == 2 else { throw .malformed }
        var header = 12 &+ 4 &* Int(first & 0x0F)
        if first & 0x10 != 0 {
            guard header &+ 4 <= end else { throw .malformed }
            header &+= 4 &+ 4 &* Int(buffer.u16(header &+ 2))
        }
        guard header <= end else { throw .malformed }
        sequence = buffer.u16(2)
        ssrc = buffer.u32(8)
        headerLength = header
    }
}

/// The first header of an RTCP packet (RFC 3550 §6.4): eight bytes, up to and with the sender's SSRC.
struct RTCPLayout {
    static let headerLength = 8
    let ssrc: UInt32

    /// Reads `buffer[0..<length]`, of which the last `trailer` bytes are no part of the RTCP packet.
    init(_ buffer: borrowing MutableRawSpan, length: Int, trailer: Int) throws(SRTPError) {
        guard length >= 0 else { throw .malformed }
        guard length <= longestPacket else { throw .tooLong }
        guard length &- trailer >= Self.headerLength, length <= buffer.byteCount else { throw .malformed }
        guard buffer.byte(0) >> 6 == 2 else { throw .malformed }
        ssrc = buffer.u32(4)
    }
}
