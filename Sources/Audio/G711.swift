// ITU-T G.711: 8-bit logarithmic PCM at 8 kHz, the Realtime API's `audio/pcmu` and `audio/pcma`.

/// µ-law, `audio/pcmu`: 14 bits of linear PCM in 8.
public enum MuLaw {
    /// The nearest code of a 16-bit sample.
    @inlinable public static func encode(_ sample: Int16) -> UInt8 {
        // G.711 table 2a: the bias of 33 (132 in 16 bits) makes all segments begin at powers of two; beyond the last is clipped.
        let magnitude = min(Int(sample.magnitude), 32_635) + 132
        let segment = UInt8(truncatingIfNeeded: magnitude.bitWidth - 1 - magnitude.leadingZeroBitCount - 7)
        let step = UInt8(truncatingIfNeeded: magnitude >> (Int(segment) + 3)) & 0x0F
        return ~((sample < 0 ? 0x80 : 0) | segment << 4 | step)
    }

    /// The 16-bit sample of a code: −32,124…32,124.
    @inlinable public static func decode(_ code: UInt8) -> Int16 {
        let bits = ~code
        let magnitude = (Int16(bits & 0x0F) << 3 + 132) << Int16(bits >> 4 & 7) - 132
        return bits & 0x80 != 0 ? -magnitude : magnitude
    }
}

/// A-law, `audio/pcma`: 13 bits of linear PCM in 8.
public enum ALaw {
    /// The code of a 16-bit sample.
    @inlinable public static func encode(_ sample: Int16) -> UInt8 {
        // Positive codes have the sign bit set; every other bit travels inverted (G.711 §3.2). −1…−8 in 16 bits are the first negative step.
        let magnitude = sample < 0 ? ~Int(sample) : Int(sample)
        let sign: UInt8 = sample < 0 ? 0 : 0x80
        let segment = magnitude < 256 ? 0 : magnitude.bitWidth - 1 - magnitude.leadingZeroBitCount - 7
        let step = UInt8(truncatingIfNeeded: magnitude >> (segment < 2 ? 4 : segment + 3)) & 0x0F
        return (sign | UInt8(truncatingIfNeeded: segment) << 4 | step) ^ 0x55
    }

    /// The 16-bit sample of a code: −32,256…32,256.
    @inlinable public static func decode(_ code: UInt8) -> Int16 {
        let bits = code ^ 0x55
        let segment = Int16(bits >> 4 & 7)
        let step = Int16(bits & 0x0F) << 4 + 8
        let magnitude = segment == 0 ? step : (step + 256) << (segment - 1)
        return bits & 0x80 != 0 ? magnitude : -magnitude
    }
}
