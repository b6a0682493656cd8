// An authentic ufrag is base64 of 24 bytes. A flow keeps those instead of 32 characters, which pays for its check word.

import Primitives
import RoutingHint

/// The 192 bits of a ufrag.
struct PackedUfrag: Hashable, Sendable {
    private(set) var words: InlineArray<3, UInt64> = [0, 0, 0]

    init() {}

    /// Of one that was found authentic, so it has ice-chars only.
    init(_ ufrag: Ufrag) {
        let characters = ufrag.characters
        self = unsafe PackedUfrag(characters.span.bytes) ?? PackedUfrag()
    }

    /// nil unless `characters` are 32 ice-chars. Two texts are the same exactly if this is.
    init?(_ characters: RawSpan) {
        guard characters.byteCount == Ufrag.length else { return nil }
        for index in 0..<Ufrag.length {
            guard let bits = Self.bits(of: characters.byte(index)) else { return nil }
            let place = 6 &* index
            words[place >> 6] |= bits &<< (place & 63)
            if place & 63 > 58 { words[(place >> 6) &+ 1] |= bits &>> (64 &- (place & 63)) }
        }
    }

    private static func bits(of character: UInt8) -> UInt64? {
        switch character {
        case 0x41...0x5A: UInt64(character &- 0x41)  // A…Z
        case 0x61...0x7A: UInt64(character &- 0x61 &+ 26)  // a…z
        case 0x30...0x39: UInt64(character &- 0x30 &+ 52)  // 0…9
        case 0x2B: 62  // +
        case 0x2F: 63  // /
        default: nil
        }
    }

    /// The characters again.
    var ufrag: Ufrag {
        let words = words
        let characters = InlineArray<32, UInt8> { index in
            let place = 6 &* index
            var bits = words[place >> 6] &>> (place & 63)
            if place & 63 > 58 { bits |= words[(place >> 6) &+ 1] &<< (64 &- (place & 63)) }
            return Self.character(of: UInt8(truncatingIfNeeded: bits & 63))
        }
        guard let ufrag = unsafe Ufrag(characters.span.bytes) else { preconditionFailure("32 characters are a ufrag") }
        return ufrag
    }

    private static func character(of bits: UInt8) -> UInt8 {
        switch bits {
        case 0..<26: 0x41 &+ bits
        case 26..<52: 0x61 &+ bits &- 26
        case 52..<62: 0x30 &+ bits &- 52
        case 62: 0x2B
        default: 0x2F
        }
    }

    static func == (one: PackedUfrag, other: PackedUfrag) -> Bool {
        one.words[0] == other.words[0] && one.words[1] == other.words[1] && one.words[2] == other.words[2]
    }

    func hash(into hasher: inout Hasher) {
        hasher.combine(words[0])
        hasher.combine(words[1])
        hasher.combine(words[2])
    }

    /// A well-mixed number for tables whose keys an attacker cannot choose (only authentic ufrags get into them).
    var mixed: UInt64 {
        var z = words[0] ^ (words[1] &* 0x9E37_79B9_7F4A_7C15) ^ (words[2] << 21 | words[2] >> 43)
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        return z ^ (z >> 31)
    }
}
