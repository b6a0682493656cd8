// RoutingHint: the server's ICE username fragment, minted by signaling so that it says where a session lives. A relay that has
// never seen a client reads it from the first STUN check and needs no registry. SPEC.md is the format; three words on the why:
//
// - Opaque: AES hides the transceiver's address, so a ufrag on the wire tells nothing about the inside.
// - Authentic: the tag is checked before anything else is looked at, so what follows runs on bytes that we made.
// - Rotating: several keys are valid at once, told apart by the key id in the first byte.
//
// `KeyRing` is what the key file holds. `HintCodec` is a worker's own set of cipher contexts made from it.

import Crypto
import Primitives

/// What a hint says. On the wire: 16 bytes, big-endian, in this order, encrypted.
@frozen public struct RoutingHint: Hashable, Sendable {
    /// The cluster whose relay knows the transceiver.
    public var cluster: UInt16
    /// An IPv4 address in host order (`direct`) or a number of the table (`table`), as the relay is configured.
    public var transceiver: UInt32
    /// The worker of that transceiver that owns the session.
    public var worker: UInt8
    /// Bit 7: names a call, is no ufrag. Bits 0–6: the ICE generation modulo 128. Relays pass over all of them.
    public var flags: UInt8
    /// Seconds since 1970, modulo 2^32.
    public var mintedAt: UInt32
    /// Random; tells two sessions of one worker apart.
    public var session: UInt32

    @inlinable public init(cluster: UInt16, transceiver: UInt32, worker: UInt8, flags: UInt8 = 0, mintedAt: UInt32, session: UInt32) {
        self.cluster = cluster
        self.transceiver = transceiver
        self.worker = worker
        self.flags = flags
        self.mintedAt = mintedAt
        self.session = session
    }
}

/// A hint that came out of a ufrag of ours, of whatever time: `HintLifetime.refusal` says whether it is honoured.
@frozen public struct AuthenticHint: Hashable, Sendable {
    public let hint: RoutingHint
    /// When its key retires, in seconds since 1970; `.max` for one that does not.
    public let until: UInt64

    @inlinable public init(_ hint: RoutingHint, until: UInt64) {
        self.hint = hint
        self.until = until
    }
}

/// Why a username fragment is not a hint that we honour now.
public enum HintError: UInt8, Error, CaseIterable, Sendable {
    /// Not exactly 32 ice-chars: another system's ufrag, or noise.
    case notAHint
    /// The key id is not in the ring: minted by somebody else, or before the last rotation but one.
    case unknownKey
    /// The tag is wrong: forged or damaged.
    case wrongTag
    /// Authentic, but of a format version that this build does not read.
    case unknownVersion
    /// Authentic, but older than the longest session, or its key has retired.
    case expired
    /// Authentic, but minted later than now: a clock is wrong.
    case mintedInFuture
}

/// Exactly 32 ice-chars, as four words: small enough to store in a flow, compared in four steps.
@frozen public struct Ufrag: Hashable, Sendable {
    @usableFromInline let word0: UInt64
    @usableFromInline let word1: UInt64
    @usableFromInline let word2: UInt64
    @usableFromInline let word3: UInt64

    /// The length in bytes, which is also the longest ufrag that RFC 8839 §5.4 lets us send.
    public static let length = 32

    /// Nil unless `bytes` is 32 bytes long. Does not look at the characters: whoever compares needs no alphabet.
    @inlinable public init?(_ bytes: RawSpan) {
        guard bytes.byteCount == 32 else { return nil }
        word0 = bytes.u64(0)
        word1 = bytes.u64(8)
        word2 = bytes.u64(16)
        word3 = bytes.u64(24)
    }

    @inlinable public init?(_ text: some StringProtocol) {
        let characters = Array(text.utf8)
        self.init(characters.bytes)
    }

    @usableFromInline init(words word0: UInt64, _ word1: UInt64, _ word2: UInt64, _ word3: UInt64) {
        self.word0 = word0
        self.word1 = word1
        self.word2 = word2
        self.word3 = word3
    }

    /// 32 zero bytes: no ice-char, so nobody's ufrag.
    @inlinable public static var none: Ufrag { Ufrag(words: 0, 0, 0, 0) }

    /// Whether `bytes` are these 32 characters.
    @inlinable public func matches(_ bytes: RawSpan) -> Bool {
        bytes.byteCount == 32 && bytes.u64(0) == word0 && bytes.u64(8) == word1 && bytes.u64(16) == word2 && bytes.u64(24) == word3
    }

    /// The characters.
    public var characters: InlineArray<32, UInt8> {
        InlineArray { index in
            let word =
                switch index >> 3 {
                case 0: word0
                case 1: word1
                case 2: word2
                default: word3
                }
            return UInt8(truncatingIfNeeded: word >> UInt64(56 - 8 * (index & 7)))
        }
    }

    /// A well-mixed number for tables whose keys an attacker cannot choose (only authentic ufrags get into them).
    @inlinable public var mixed: UInt64 {
        var z = word0 ^ (word1 &* 0x9E37_79B9_7F4A_7C15) ^ (word2 << 21 | word2 >> 43) ^ (word3 &* 0xBF58_476D_1CE4_E5B9)
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        return z ^ (z >> 31)
    }
}

extension Ufrag: CustomStringConvertible {
    public var description: String {
        var text: [UInt8] = []
        let characters = characters
        for index in characters.indices { text.append(characters[index]) }
        return String(decoding: text, as: UTF8.self)
    }
}

/// The ice-pwd that belongs to a hint: 24 ice-chars (RFC 8839 §5.4 asks for 22 or more), 144 bits.
public typealias ICEPassword = InlineArray<24, UInt8>

extension InlineArray where Element == UInt8, count == 24 {
    /// The characters as text, for SDP.
    public var text: String {
        var characters: [UInt8] = []
        for index in indices { characters.append(self[index]) }
        return String(decoding: characters, as: UTF8.self)
    }
}
