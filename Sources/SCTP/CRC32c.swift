// CRC-32C (Castagnoli; polynomial 0x1EDC6F41 reflected), the checksum of every SCTP packet (RFC 9260 appendix A).

import Primitives

public enum CRC32c {
    private static let tables = SlicedCRC(reversed: 0x82F6_3B78)

    /// The checksum of `bytes`. "123456789" gives 0xE3069283.
    public static func checksum(_ bytes: RawSpan) -> UInt32 { ~tables.state(SlicedCRC.start, after: bytes) }

    /// The checksum of an SCTP packet, as if its checksum field were zero; in the byte order in which it is written: read the field
    /// big-endian and compare. The packet must hold a common header.
    static func ofPacket(_ packet: RawSpan) -> UInt32 {
        let zeros = InlineArray<4, UInt8>(repeating: 0)
        var state = tables.state(SlicedCRC.start, after: packet.bytes(0..<8))
        state = unsafe tables.state(state, after: zeros.span.bytes)
        return (~tables.state(state, after: packet.bytes(commonHeaderSize..<packet.byteCount))).byteSwapped
    }
}
