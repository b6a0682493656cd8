// CRC-32C (Castagnoli; polynomial 0x1EDC6F41 reflected), the checksum of every SCTP packet (RFC 9260 appendix A).
// Slicing by eight: eight bytes a step from eight tables of 1 KiB each.

import Primitives

public enum CRC32c {
    /// The checksum of `bytes`. "123456789" gives 0xE3069283.
    public static func checksum(_ bytes: RawSpan) -> UInt32 { ~update(0xFFFF_FFFF, bytes) }

    /// The checksum of an SCTP packet, as if its checksum field were zero; in the byte order in which it is written: read the field
    /// big-endian and compare. The packet must hold a common header.
    static func ofPacket(_ packet: RawSpan) -> UInt32 {
        var state = update(0xFFFF_FFFF, packet.bytes(0..<8))
        let zeros = InlineArray<4, UInt8>(repeating: 0)
        state = unsafe update(state, zeros.span.bytes)
        return (~update(state, packet.bytes(commonHeaderSize..<packet.byteCount))).byteSwapped
    }

    private static func update(_ state: UInt32, _ bytes: RawSpan) -> UInt32 {
        let tables = tables.span
        var crc = state
        var offset = 0
        while offset &+ 8 <= bytes.byteCount {
            let word = bytes.u64LittleEndian(offset) ^ UInt64(crc)
            crc =
                tables[0x700 | Int(word & 0xFF)] ^ tables[0x600 | Int(word >> 8 & 0xFF)]
                ^ tables[0x500 | Int(word >> 16 & 0xFF)] ^ tables[0x400 | Int(word >> 24 & 0xFF)]
                ^ tables[0x300 | Int(word >> 32 & 0xFF)] ^ tables[0x200 | Int(word >> 40 & 0xFF)]
                ^ tables[0x100 | Int(word >> 48 & 0xFF)] ^ tables[Int(word >> 56)]
            offset &+= 8
        }
        while offset < bytes.byteCount {
            crc = crc >> 8 ^ tables[Int((crc ^ UInt32(bytes.byte(offset))) & 0xFF)]
            offset &+= 1
        }
        return crc
    }

    /// Table `k`, entry `b`, is at `k << 8 | b`: the checksum state after byte `b` and `k` zero bytes.
    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 2048)
        for byte in 0..<256 {
            var crc = UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82F6_3B78 : crc >> 1 }
            tables[byte] = crc
        }
        for index in 256..<2048 {
            let previous = tables[index - 256]
            tables[index] = previous >> 8 ^ tables[Int(previous & 0xFF)]
        }
        return tables
    }()
}
