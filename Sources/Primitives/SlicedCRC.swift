// The reflected 32-bit cyclic redundancy checks of STUN and SCTP, which differ in nothing but their polynomial.
// Slicing by eight: eight bytes a step from eight tables of 1 KiB each.

/// The tables of one polynomial.
public struct SlicedCRC: Sendable {
    /// Table `k`, entry `b`, is at `k << 8 | b`: the checksum state after byte `b` and `k` zero bytes.
    private let tables: [UInt32]

    /// What a checksum's state is before its first byte. The checksum is the last state's complement.
    public static let start: UInt32 = 0xFFFF_FFFF

    /// - Parameter reversed: the polynomial with its lowest bit first: 0xEDB88320 for the one that Ethernet has.
    public init(reversed polynomial: UInt32) {
        var tables = [UInt32](repeating: 0, count: 2048)
        for byte in 0..<256 {
            var crc = UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ polynomial : crc >> 1 }
            tables[byte] = crc
        }
        for index in 256..<2048 {
            let previous = tables[index - 256]
            tables[index] = previous >> 8 ^ tables[Int(previous & 0xFF)]
        }
        self.tables = tables
    }

    /// The state after `bytes`, if it was `state` before them.
    public func state(_ state: UInt32, after bytes: RawSpan) -> UInt32 {
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
}
