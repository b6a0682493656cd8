// SRTP: secures one call's RTP and RTCP packets in place. One `SRTPContext` holds both directions of one call; it is made when the
// DTLS handshake has exported the keys and used by the worker that owns the call.
//
// Framing is ours, after RFC 3711 (AES-CM with HMAC-SHA1) and RFC 7714 (AES-GCM); libcrypto does AES and SHA-1. The second
// engine, libsrtp2, does the same on the wire: it is the oracle of the tests, and may be chosen by configuration, at a price.
//
//     KeyDerivation   master key -> session keys (RFC 3711 §4.3)
//     PacketLayout    where a packet's header ends; every length is checked here, before anything else reads the packet
//     ReplayWindow    48-bit packet index from 16 bits of sequence number, and which indices were seen
//     StreamTable     the sources (SSRCs) of one direction, a fixed number
//     PacketCipher    one key at work: the only file that touches libcrypto per packet
//     OwnEngine, LibSRTPEngine   the two that an `SRTPContext` chooses from
//
// Nothing is allocated per packet: cipher contexts are made with the call and keep their key schedule.

/// A protection profile of DTLS-SRTP; the raw value is its number in the `use_srtp` extension (RFC 5764 §4.1.2, RFC 7714 §14.2).
public enum SRTPProfile: UInt16, Sendable, CaseIterable {
    /// AES-128 in counter mode with an 80-bit HMAC-SHA1 tag: every WebRTC endpoint has it (RFC 8827 §6.5).
    case aes128CMHMACSHA1_80 = 1
    case aeadAES128GCM = 7
    case aeadAES256GCM = 8

    /// Length of a master key in bytes.
    public var keyLength: Int { self == .aeadAES256GCM ? 32 : 16 }
    /// Length of a master salt in bytes.
    public var saltLength: Int { isAEAD ? 12 : 14 }
    /// How many bytes a protected RTP packet is longer than the plain one: the tag.
    public var rtpOverhead: Int { tagLength }
    /// How many bytes a protected RTCP packet is longer than the plain one: the tag, and the word with the index.
    public var rtcpOverhead: Int { tagLength + 4 }

    var isAEAD: Bool { self != .aes128CMHMACSHA1_80 }
    var tagLength: Int { isAEAD ? 16 : 10 }
}

/// Which code secures the packets. What is on the wire is the same.
public enum SRTPEngine: String, Sendable, CaseIterable {
    /// Our framing over libcrypto.
    case own
    /// libsrtp2, as the distribution builds it.
    case libsrtp
}

/// The key and salt of one direction, as DTLS exports them (RFC 5764 §4.2).
public struct SRTPMasterKey: Sendable {
    public var key: [UInt8]
    public var salt: [UInt8]

    public init(key: [UInt8], salt: [UInt8]) {
        self.key = key
        self.salt = salt
    }
}

/// Why a packet was not protected or not accepted. A context stays as it was: it is a drop, and the raw value its counter.
public enum SRTPError: UInt8, Error, CaseIterable, Sendable {
    /// Not RTP (RTCP) version 2, or the header, its CSRCs or its extension are longer than the packet.
    case malformed
    /// The packet would not fit a datagram.
    case tooLong
    /// The buffer has no room for the tag behind the packet.
    case noRoom
    /// A packet with this index was already accepted (was already sent).
    case replayed
    /// The index lies further back than the replay window of 128 packets.
    case tooOld
    /// The tag is not the packet's: forged, damaged, or under other keys.
    case authentication
    /// One more source than a direction has places.
    case tooManyStreams
    /// Every index of this source was used under this key (2^48 RTP or 2^31 RTCP packets).
    case keyExhausted
    /// The master key or salt is not as long as the profile wants it.
    case rejectedKey
}

/// How many sources one call has places for. A browser sends one audio source, one video source each with retransmission, and
/// may replace them in a renegotiation; we send one audio source and RTCP.
enum StreamLimit {
    static let inbound = 8
    static let outbound = 4
}

/// Longest packet on the wire: what the length of a UDP datagram leaves.
let longestPacket = 65_507
