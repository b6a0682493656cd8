// The little of STUN (RFC 8489) that a relay reads: one walk over the attributes for USERNAME and MESSAGE-INTEGRITY. The first of
// each counts, as it does for the transceiver: two readers that pick differently would route one session and authenticate another.

import Crypto
import Primitives
import RoutingHint

/// A well-formed STUN message, seen as far as routing needs.
struct STUNView: ~Escapable {
    private let bytes: RawSpan
    let isBindingRequest: Bool
    private var usernameRange: Range<Int>?
    /// Where the MESSAGE-INTEGRITY attribute begins.
    private var integrityOffset: Int?

    /// A client's check has a dozen; a message that is nothing but attributes shall cost no more than any other.
    static var attributesMax: Int { 32 }

    /// Nil unless length, cookie, type and every attribute are right, and there are no more than `attributesMax`.
    @_lifetime(copy bytes)
    init?(_ bytes: RawSpan) {
        guard bytes.byteCount >= 20, bytes.u32(4) == 0x2112_A442, bytes.u16(0) >> 14 == 0 else { return nil }
        let length = Int(bytes.u16(2))
        guard length & 3 == 0, length == bytes.byteCount &- 20 else { return nil }
        self.bytes = bytes
        isBindingRequest = bytes.u16(0) == 0x0001
        var offset = 20
        var left = Self.attributesMax
        while offset < bytes.byteCount {
            guard left > 0, bytes.byteCount &- offset >= 4 else { return nil }
            left &-= 1
            let head = bytes.u32(offset)
            let (type, size) = (head >> 16, Int(head & 0xFFFF))
            guard bytes.byteCount &- offset &- 4 >= size else { return nil }
            // RFC 8489 §14.5: what follows MESSAGE-INTEGRITY is not authenticated, so it is not looked at.
            if integrityOffset == nil {
                if type == 0x0006, usernameRange == nil { usernameRange = offset &+ 4..<offset &+ 4 &+ size }
                if type == 0x0008 {
                    guard size == 20 else { return nil }
                    integrityOffset = offset
                }
            }
            offset &+= 4 &+ (size &+ 3) & ~3
        }
    }

    var hasUsername: Bool { usernameRange != nil }
    var hasIntegrity: Bool { integrityOffset != nil }

    /// The part of USERNAME before the colon, the ufrag of whoever is asked (RFC 8445 §7.2.2), where it is as long as ours; empty otherwise. One
    /// with an earlier colon is none either: no ice-char is a colon.
    var serverUfrag: RawSpan {
        @_lifetime(copy self)
        get {
            guard let range = usernameRange, range.count > Ufrag.length,
                bytes.byte(range.lowerBound &+ Ufrag.length) == UInt8(ascii: ":")
            else { return bytes.bytes(0..<0) }
            return bytes.bytes(range.lowerBound..<range.lowerBound &+ Ufrag.length)
        }
    }

    /// Whether MESSAGE-INTEGRITY is there and right under `key`: HMAC-SHA-1 over what precedes it, the length field counting up to
    /// its own end (RFC 8489 §14.5). Compared in constant time.
    func verifiesIntegrity(key: RawSpan, with hmac: inout HMACSHA1) -> Bool {
        guard let offset = integrityOffset else { return false }
        let length = UInt16(truncatingIfNeeded: offset &- 20 &+ 24)
        let lengthField: InlineArray<2, UInt8> = [UInt8(length >> 8), UInt8(truncatingIfNeeded: length)]
        let tag = hmac.tag(key: key, bytes.bytes(0..<2), lengthField.bytes, bytes.bytes(4..<offset))
        return tag.bytes.matchesInConstantTime(bytes.bytes(offset &+ 4..<offset &+ 24))
    }
}
