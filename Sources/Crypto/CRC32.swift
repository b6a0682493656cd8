// CRC-32 (ISO 3309, ITU-T V.42; polynomial 0x04C11DB7 reflected), as STUN's FINGERPRINT uses it (RFC 8489 §14.7).
// Slicing by eight: eight bytes a step from eight tables of 1 kB each.

import Primitives

public enum CRC32 {
    /// The checksum of the pieces, as if they were one message. "123456789" gives 0xCBF43926.
    public static func checksum(_ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> UInt32 {
        var state: UInt32 = 0xFFFF_FFFF
        update(&state, a)
        update(&state, b)
        update(&state, c)
        return ~state
    }

    private static func update(_ state: inout UInt32, _ bytes: RawSpan) {
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
        state = crc
    }

    /// Table `k`, entry `b`, is at `k << 8 | b`: the checksum state after byte `b` and `k` zero bytes.
    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 2048)
        for byte in 0..<256 {
            var crc = UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
            tables[byte] = crc
        }
        for index in 256..<2048 {
            let previous = tables[index - 256]
            tables[index] = previous >> 8 ^ tables[Int(previous & 0xFF)]
        }
        return tables
    }()
}
