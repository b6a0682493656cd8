// Reading: one bounded walk at `init`, then places are known.

import Crypto
import Primitives

/// A STUN message whose lengths are right. Whether it is authentic is another question: ask `verifiesIntegrity(key:)`.
@frozen public struct STUNMessage: ~Escapable {
    /// The whole datagram.
    public let bytes: RawSpan
    public let messageClass: STUNClass
    /// 0…0xFFF; 1 is Binding.
    public let method: UInt16
    @usableFromInline var places = STUNPlaces()

    /// One datagram, exactly (RFC 8489 §6.3). Of attributes that come twice the first counts; those behind the integrity attribute are
    /// passed over, except FINGERPRINT.
    @_lifetime(copy bytes)
    public init(parsing bytes: RawSpan) throws(STUNParseError) {
        guard bytes.byteCount >= STUN.headerSize else { throw .truncated(need: STUN.headerSize, have: bytes.byteCount) }
        let type = bytes.u16(0)
        guard type < 0x4000 else { throw .notSTUN }
        guard bytes.u32(4) == STUN.magicCookie else { throw .wrongCookie }
        let length = Int(bytes.u16(2))
        guard length & 3 == 0, length == bytes.byteCount &- STUN.headerSize else { throw .lengthMismatch }
        self.bytes = bytes
        switch type & 0x0110 {
        case 0x0000: messageClass = .request
        case 0x0010: messageClass = .indication
        case 0x0100: messageClass = .success
        default: messageClass = .error
        }
        // The class bits sit at 4 and 8, the method's bits around them (RFC 8489 §5, figure 3).
        method = (type & 0x3E00) >> 2 | (type & 0x00E0) >> 1 | type & 0x000F
        try places.walk(bytes)
    }

    public var transactionID: STUNTransactionID { STUNTransactionID(high: bytes.u32(8), low: bytes.u64(12)) }
    public var isBindingRequest: Bool { method == STUN.bindingMethod && messageClass == .request }
}

/// Where the first attribute of each kind begins, as an offset into the message; 0 where there is none.
@frozen @usableFromInline struct STUNPlaces: Sendable {
    var username: UInt16 = 0
    var integrity: UInt16 = 0
    var integritySHA256: UInt16 = 0
    var fingerprint: UInt16 = 0
    var errorCode: UInt16 = 0
    var mappedAddress: UInt16 = 0
    var priority: UInt16 = 0
    var useCandidate: UInt16 = 0
    var controlling: UInt16 = 0
    var controlled: UInt16 = 0
    var networkInfo: UInt16 = 0
    var dtls: UInt16 = 0
    var dtlsAcknowledgement: UInt16 = 0
    var unknownCount: UInt16 = 0
    var unknown = InlineArray<8, UInt16>(repeating: 0)

    @usableFromInline init() {}

    mutating func walk(_ bytes: RawSpan) throws(STUNParseError) {
        var offset = STUN.headerSize
        var count = 0
        while offset < bytes.byteCount {
            if fingerprint != 0 { throw .fingerprintNotLast }
            count &+= 1
            guard count <= STUN.attributesMax else { throw .tooManyAttributes }
            // The length is a multiple of four and so is every step: four bytes are always there.
            let type = bytes.u16(offset)
            let length = Int(bytes.u16(offset &+ 2))
            let end = offset &+ 4 &+ (length &+ 3) & ~3
            guard end <= bytes.byteCount else { throw .attributeOverrun(type: type) }
            try note(type, length, UInt16(truncatingIfNeeded: offset))
            offset = end
        }
    }

    private mutating func note(_ type: UInt16, _ length: Int, _ offset: UInt16) throws(STUNParseError) {
        if type == STUNAttribute.fingerprint {
            guard length == 4 else { throw .attributeSize(type: type) }
            fingerprint = offset
            return
        }
        // RFC 8489 §14.5: what follows is not protected. Only the second integrity attribute has its place there.
        if integritySHA256 != 0 || (integrity != 0 && type != STUNAttribute.messageIntegritySHA256) { return }
        let fits: Bool
        switch type {
        case STUNAttribute.username: fits = length <= STUN.usernameMax && Self.first(&username, offset)
        case STUNAttribute.messageIntegrity: fits = length == 20 && Self.first(&integrity, offset)
        case STUNAttribute.messageIntegritySHA256:
            fits = length >= 16 && length <= 32 && length & 3 == 0 && Self.first(&integritySHA256, offset)
        case STUNAttribute.errorCode: fits = length >= 4 && length <= 4 + 763 && Self.first(&errorCode, offset)
        case STUNAttribute.xorMappedAddress: fits = (length == 8 || length == 20) && Self.first(&mappedAddress, offset)
        case STUNAttribute.priority: fits = length == 4 && Self.first(&priority, offset)
        case STUNAttribute.useCandidate: fits = length == 0 && Self.first(&useCandidate, offset)
        case STUNAttribute.iceControlling: fits = length == 8 && Self.first(&controlling, offset)
        case STUNAttribute.iceControlled: fits = length == 8 && Self.first(&controlled, offset)
        case STUNAttribute.networkInfo: fits = length == 4 && Self.first(&networkInfo, offset)
        case STUNAttribute.dtls: fits = Self.first(&dtls, offset)
        case STUNAttribute.dtlsAcknowledgement: fits = length & 3 == 0 && Self.first(&dtlsAcknowledgement, offset)
        // Understood, in the sense that we know that ICE has no use for them.
        case STUNAttribute.unknownAttributes, STUNAttribute.realm, STUNAttribute.nonce, STUNAttribute.mappedAddress: fits = true
        default:
            fits = true
            if type < 0x8000 { noteUnknown(type) }
        }
        guard fits else { throw .attributeSize(type: type) }
    }

    private static func first(_ place: inout UInt16, _ offset: UInt16) -> Bool {
        if place == 0 { place = offset }
        return true
    }

    private mutating func noteUnknown(_ type: UInt16) {
        guard Int(unknownCount) < unknown.count else { return }
        unknown[Int(unknownCount)] = type
        unknownCount &+= 1
    }
}

extension STUNMessage {
    /// The value of the attribute at `place`; nil for 0.
    @_lifetime(copy self)
    private func value(_ place: UInt16) -> RawSpan? {
        guard place != 0 else { return nil }
        let start = Int(place) &+ 4
        return bytes.bytes(start..<start &+ Int(bytes.u16(start &- 2)))
    }

    /// In a request "receiver's ufrag:sender's ufrag" (RFC 8445 §7.2.2); 513 bytes at most.
    public var username: RawSpan? {
        @_lifetime(copy self)
        get { value(places.username) }
    }

    /// The part of USERNAME before the first colon: the ufrag of whoever the request is for. nil without USERNAME or without a colon.
    public var receiverUfrag: RawSpan? {
        @_lifetime(copy self)
        get {
            guard let name = username, let colon = Self.colon(in: name) else { return nil }
            return name.bytes(0..<colon)
        }
    }

    /// The part of USERNAME behind the first colon.
    public var senderUfrag: RawSpan? {
        @_lifetime(copy self)
        get {
            guard let name = username, let colon = Self.colon(in: name) else { return nil }
            return name.bytes(colon &+ 1..<name.byteCount)
        }
    }

    private static func colon(in name: RawSpan) -> Int? {
        for index in 0..<name.byteCount where name.byte(index) == UInt8(ascii: ":") { return index }
        return nil
    }

    public var useCandidate: Bool { places.useCandidate != 0 }
    public var priority: UInt32? { places.priority == 0 ? nil : bytes.u32(Int(places.priority) &+ 4) }
    /// The tie-breaker of a controlling agent.
    public var iceControlling: UInt64? { places.controlling == 0 ? nil : bytes.u64(Int(places.controlling) &+ 4) }
    /// The tie-breaker of a controlled agent.
    public var iceControlled: UInt64? { places.controlled == 0 ? nil : bytes.u64(Int(places.controlled) &+ 4) }
    /// libwebrtc's GOOG-NETWORK-INFO.
    public var networkInfo: (id: UInt16, cost: UInt16)? {
        guard places.networkInfo != 0 else { return nil }
        let start = Int(places.networkInfo) &+ 4
        return (bytes.u16(start), bytes.u16(start &+ 2))
    }

    /// 300…699 (RFC 8489 §14.8); nil without the attribute or with a class outside 3…6 or a number above 99.
    public var errorCode: Int? {
        guard places.errorCode != 0 else { return nil }
        let start = Int(places.errorCode) &+ 4
        let hundreds = Int(bytes.byte(start &+ 2) & 7)
        let rest = Int(bytes.byte(start &+ 3))
        return (3...6).contains(hundreds) && rest < 100 ? hundreds * 100 + rest : nil
    }

    /// The address as the other side saw it, unmasked (RFC 8489 §14.2); nil if its family does not fit its length.
    public var xorMappedAddress: SocketAddress? {
        guard places.mappedAddress != 0 else { return nil }
        let start = Int(places.mappedAddress) &+ 4
        let port = bytes.u16(start &+ 2) ^ UInt16(truncatingIfNeeded: STUN.magicCookie >> 16)
        switch (bytes.byte(start &+ 1), bytes.u16(start &- 2)) {
        case (1, 8): return SocketAddress(IPAddress(v4: bytes.u32(start &+ 4) ^ STUN.magicCookie), port: port)
        case (2, 20):
            // The mask is the cookie and the transaction id, as they stand in the header.
            let ip = IPAddress(high: bytes.u64(start &+ 4) ^ bytes.u64(4), low: bytes.u64(start &+ 12) ^ bytes.u64(12))
            return SocketAddress(ip, port: port)
        default: return nil
        }
    }

    /// META-DTLS-IN-STUN: one DTLS datagram, or empty.
    public var dtls: RawSpan? {
        @_lifetime(copy self)
        get { value(places.dtls) }
    }

    /// META-DTLS-IN-STUN-ACKNOWLEDGEMENT: a multiple of four bytes, each a CRC-32; may be empty.
    public var dtlsAcknowledgement: RawSpan? {
        @_lifetime(copy self)
        get { value(places.dtlsAcknowledgement) }
    }

    /// Comprehension-required attributes that we do not know, the first eight: more than none means a 420 answer (RFC 8489 §6.3.1).
    public var unknownAttributeCount: Int { Int(places.unknownCount) }
    /// The type of unknown attribute `index`, which is below `unknownAttributeCount`.
    public func unknownAttribute(_ index: Int) -> UInt16 { places.unknown[index] }
    /// All of them.
    public var unknownAttributes: STUNUnknownAttributes { STUNUnknownAttributes(count: places.unknownCount, types: places.unknown) }
}

/// The attribute types for UNKNOWN-ATTRIBUTES of a 420 answer.
@frozen public struct STUNUnknownAttributes: Sendable {
    var count: UInt16
    var types: InlineArray<8, UInt16>

    init(count: UInt16, types: InlineArray<8, UInt16>) {
        self.count = count
        self.types = types
    }

    public static let none = STUNUnknownAttributes(count: 0, types: InlineArray(repeating: 0))
    public var isEmpty: Bool { count == 0 }
}

extension STUNMessage {
    public var hasIntegrity: Bool { places.integrity != 0 }
    public var hasFingerprint: Bool { places.fingerprint != 0 }

    /// Whether MESSAGE-INTEGRITY is there and is the HMAC-SHA-1 under `key`, which for ICE is the password itself (RFC 8489 §9.1.1:
    /// its bytes after OpaqueString, and ice-chars are their own). The tag is compared in constant time. Allocates nothing.
    public func verifiesIntegrity(key: RawSpan) -> Bool {
        guard places.integrity != 0 else { return false }
        let offset = Int(places.integrity)
        // As if the attribute were the last: the length field counts to its end (RFC 8489 §14.5).
        let length = Self.lengthField(endingAt: offset &+ 24)
        let tag = HMACSHA1.tag(key: key, bytes.bytes(0..<2), length.bytes, bytes.bytes(4..<offset))
        return tag.bytes.matchesInConstantTime(bytes.bytes(offset &+ 4..<offset &+ 24))
    }

    /// Whether FINGERPRINT is there and right.
    public func verifiesFingerprint() -> Bool {
        guard places.fingerprint != 0 else { return false }
        // It is the last attribute, so the length field is already as it must be.
        let offset = Int(places.fingerprint)
        return CRC32.checksum(bytes.bytes(0..<offset)) ^ STUN.fingerprintMask == bytes.u32(offset &+ 4)
    }

    static func lengthField(endingAt end: Int) -> InlineArray<2, UInt8> {
        let length = UInt16(truncatingIfNeeded: end &- STUN.headerSize)
        return [UInt8(truncatingIfNeeded: length >> 8), UInt8(truncatingIfNeeded: length)]
    }
}
