// CRC-32 (ISO 3309, ITU-T V.42; polynomial 0x04C11DB7 reflected), as STUN's FINGERPRINT uses it (RFC 8489 §14.7).

import Primitives

public enum CRC32 {
    private static let tables = SlicedCRC(reversed: 0xEDB8_8320)

    /// The checksum of the pieces, as if they were one message. "123456789" gives 0xCBF43926.
    public static func checksum(_ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> UInt32 {
        ~tables.state(tables.state(tables.state(SlicedCRC.start, after: a), after: b), after: c)
    }
}
