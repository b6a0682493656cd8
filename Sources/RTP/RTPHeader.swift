// The RTP header (RFC 3550 §5.1), read once per packet.

import Primitives

/// What a packet's header says, and where its payload lies. Ranges are offsets into the packet that was parsed.
@frozen public struct RTPHeader: Hashable, Sendable {
    /// The size of a header without contributors and extensions.
    public static let fixedSize = 12

    /// 0…127.
    public var payloadType: UInt8
    public var marker: Bool
    public var sequenceNumber: UInt16
    public var timestamp: UInt32
    public var ssrc: UInt32
    /// 0…15; they lie from byte 12 on.
    public var contributorCount: Int
    /// Where the header extension lies; empty when there is none.
    public var extensions: RTPExtensions
    /// The payload without its padding. May be empty.
    public var payload: Range<Int>

    /// Reads an RTP packet that is in the clear: the padding's length is its last byte.
    public init(parsing bytes: RawSpan) throws(RTPError) {
        guard bytes.byteCount >= Self.fixedSize else { throw .truncated }
        let first = bytes.byte(0)
        guard first >> 6 == 2 else { throw .version }
        let second = bytes.byte(1)
        payloadType = second & 0x7F
        marker = second & 0x80 != 0
        sequenceNumber = bytes.u16(2)
        timestamp = bytes.u32(4)
        ssrc = bytes.u32(8)
        contributorCount = Int(first & 0x0F)

        var start = Self.fixedSize + 4 * contributorCount
        guard start <= bytes.byteCount else { throw .contributors }
        extensions = .none
        if first & 0x10 != 0 {
            guard start + 4 <= bytes.byteCount else { throw .headerExtension }
            let body = start + 4
            let end = body + 4 * Int(bytes.u16(start + 2))
            guard end <= bytes.byteCount else { throw .headerExtension }
            extensions = RTPExtensions(profile: bytes.u16(start), range: body..<end)
            start = end
        }
        var end = bytes.byteCount
        if first & 0x20 != 0 {
            guard end > start else { throw .padding }
            let padding = Int(bytes.byte(end - 1))
            guard padding > 0, padding <= end - start else { throw .padding }
            end -= padding
        }
        payload = start..<end
    }
}

/// Writes the 12-byte header: no contributors, no extension, no padding. `output` needs 12 free bytes; the payload type's top
/// bit is ignored.
@_lifetime(output: copy output)
public func writeRTPHeader(
    payloadType: UInt8, marker: Bool, sequenceNumber: UInt16, timestamp: UInt32, ssrc: UInt32, to output: inout OutputRawSpan
) {
    output.append(UInt8(0x80))
    output.append((marker ? 0x80 : 0) | payloadType & 0x7F)
    output.append(sequenceNumber)
    output.append(timestamp)
    output.append(ssrc)
}
