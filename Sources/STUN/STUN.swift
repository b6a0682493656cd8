// STUN (RFC 8489) as ICE uses it (RFC 8445): Binding requests, their answers and indications, over UDP only.
//
// `STUNMessage` is a view of a datagram. Its `init` walks the attributes once, checks every length, and notes where the first of
// each kind that we know lies; the accessors only read there. Nothing is copied and nothing is allocated. `STUNWriter` writes into
// the caller's buffer. `PacketClass` tells STUN from its neighbours on the same port by the first byte.
//
// The order of attributes means nothing, with two exceptions: what follows MESSAGE-INTEGRITY is not covered by it and therefore not
// looked at, and FINGERPRINT is last. libnice and libjuice put USERNAME third or fourth.

import Primitives

/// What a datagram is, by its first byte (RFC 7983 §7). nil: ZRTP, TURN channels and QUIC, none of which we speak.
@frozen public enum PacketClass: UInt8, Sendable, CaseIterable {
    case stun
    /// Also DTLS 1.3, whose unified header begins with 0x20…0x3f.
    case dtls
    /// SRTP and SRTCP; see `isRTCP(secondByte:)`.
    case srtp

    @inlinable public init?(firstByte: UInt8) {
        switch firstByte {
        case 0...3: self = .stun
        case 20...63: self = .dtls
        case 128...191: self = .srtp
        default: return nil
        }
    }

    /// Whether a packet of class `srtp` is SRTCP: payload types 64…95 are kept free for it (RFC 5761 §4).
    @inlinable public static func isRTCP(secondByte: UInt8) -> Bool { (192...223).contains(secondByte) }
}

/// The two bits that say what a message is to its method (RFC 8489 §5).
@frozen public enum STUNClass: UInt8, Sendable, CaseIterable {
    case request = 0
    case indication = 1
    case success = 2
    case error = 3
}

/// Twelve bytes that tie a response to its request.
@frozen public struct STUNTransactionID: Hashable, Sendable {
    /// The first four bytes, big-endian value.
    public var high: UInt32
    /// The last eight bytes, big-endian value.
    public var low: UInt64

    @inlinable public init(high: UInt32, low: UInt64) {
        self.high = high
        self.low = low
    }
}

/// Numbers of the format.
public enum STUN {
    public static let magicCookie: UInt32 = 0x2112_A442
    /// Type, length, cookie, transaction id.
    public static let headerSize = 20
    /// The only method we speak.
    public static let bindingMethod: UInt16 = 1
    /// A walk ends with an error after this many attributes; clients send 5 to 9.
    public static let attributesMax = 64
    /// The longest USERNAME (RFC 8489 §14.3: under 509 bytes of text, and RFC 8445's two ufrags of 256 with a colon).
    public static let usernameMax = 513
    /// As many comprehension-required attributes that we do not know are remembered for a 420 answer.
    public static let unknownAttributesMax = 8
    /// Added to the CRC-32 of FINGERPRINT, so that another protocol's CRC does not match ("STUN").
    public static let fingerprintMask: UInt32 = 0x5354_554e
}

/// Attribute types that we read or write. Types below 0x8000 must be understood by the receiver, the others may be passed over.
public enum STUNAttribute {
    public static let username: UInt16 = 0x0006
    public static let messageIntegrity: UInt16 = 0x0008
    public static let errorCode: UInt16 = 0x0009
    public static let unknownAttributes: UInt16 = 0x000A
    public static let realm: UInt16 = 0x0014
    public static let nonce: UInt16 = 0x0015
    public static let messageIntegritySHA256: UInt16 = 0x001C
    public static let xorMappedAddress: UInt16 = 0x0020
    public static let priority: UInt16 = 0x0024
    public static let useCandidate: UInt16 = 0x0025
    public static let mappedAddress: UInt16 = 0x0001
    public static let software: UInt16 = 0x8022
    public static let fingerprint: UInt16 = 0x8028
    public static let iceControlled: UInt16 = 0x8029
    public static let iceControlling: UInt16 = 0x802A
    /// libwebrtc: network id u16, network cost u16.
    public static let networkInfo: UInt16 = 0xC057
    /// META-DTLS-IN-STUN (draft-hancke-webrtc-sped): one DTLS datagram.
    public static let dtls: UInt16 = 0xC070
    /// META-DTLS-IN-STUN-ACKNOWLEDGEMENT: up to four CRC-32s of received DTLS datagrams.
    public static let dtlsAcknowledgement: UInt16 = 0xC071
}

/// Why a datagram is no STUN message.
public enum STUNParseError: Error, Hashable, Sendable {
    case truncated(need: Int, have: Int)
    /// The first two bits are not zero.
    case notSTUN
    case wrongCookie
    /// The length field is not a multiple of four or not the length of the datagram.
    case lengthMismatch
    /// An attribute's value reaches beyond the message.
    case attributeOverrun(type: UInt16)
    /// An attribute that we know has a length that it cannot have.
    case attributeSize(type: UInt16)
    case tooManyAttributes
    /// FINGERPRINT is not the last attribute (RFC 8489 §14.7).
    case fingerprintNotLast
}
