// DTLS: who the client is, and the keys. A DTLS 1.2 handshake (RFC 6347, RFC 5764) on OpenSSL, driven from outside: datagrams go
// in and come out through a BIO of our own, time is a parameter, and nothing here opens a socket.
//
//     DTLSCertificate   one a process: self-signed P-256, its SHA-256 goes into every answer
//     HandshakeLibrary  one a process: OpenSSL with only that in it which a handshake needs
//     DTLSContext       one a worker thread: the SSL_CTX with our ciphers, groups and SRTP profiles
//     DTLSAssociation   one a call: cheap until `start`, which the session calls when ICE has validated the address; that is also
//                       why there is no cookie exchange
//
// A peer may present any certificate: what counts is its fingerprint, compared with the signalled ones inside the handshake; no keys
// are exported unless that was done. OpenSSL's own retransmission timer reads the wall clock; DatagramBIO.swift tells how ours
// replaces it.

/// Which side speaks first. From the SDP attribute `setup` (RFC 4145, RFC 5763): the active side is the client.
public enum DTLSRole: Sendable {
    case client, server
}

/// The SRTP protection profiles we negotiate, by their number in the `use_srtp` extension (RFC 5764 §4.1.2, RFC 7714 §14.2).
public enum DTLSProtectionProfile: UInt16, Sendable, CaseIterable {
    case aes128CMHMACSHA1_80 = 1
    case aeadAES128GCM = 7
    case aeadAES256GCM = 8

    /// The order we offer and, as the server, choose in: cheapest per packet first, the profile every client has before the
    /// 256-bit one, which buys a call nothing.
    public static let preferenceOrder: [DTLSProtectionProfile] = [.aeadAES128GCM, .aes128CMHMACSHA1_80, .aeadAES256GCM]

    /// Length of a master key in bytes.
    public var keyLength: Int { self == .aeadAES256GCM ? 32 : 16 }
    /// Length of a master salt in bytes.
    public var saltLength: Int { self == .aes128CMHMACSHA1_80 ? 14 : 12 }

    /// OpenSSL's name for it.
    var name: String {
        switch self {
        case .aes128CMHMACSHA1_80: "SRTP_AES128_CM_SHA1_80"
        case .aeadAES128GCM: "SRTP_AEAD_AES_128_GCM"
        case .aeadAES256GCM: "SRTP_AEAD_AES_256_GCM"
        }
    }
}

/// What the handshake agreed on for SRTP (RFC 5764 §4.2). `local` protects what we send, `remote` what the peer sends.
public struct DTLSKeyingMaterial: Sendable, Equatable {
    public var profile: DTLSProtectionProfile
    public var localKey: [UInt8]
    public var localSalt: [UInt8]
    public var remoteKey: [UInt8]
    public var remoteSalt: [UInt8]

    public init(profile: DTLSProtectionProfile, localKey: [UInt8], localSalt: [UInt8], remoteKey: [UInt8], remoteSalt: [UInt8]) {
        self.profile = profile
        self.localKey = localKey
        self.localSalt = localSalt
        self.remoteKey = remoteKey
        self.remoteSalt = remoteSalt
    }
}

/// What an association has to tell its session, each at most once.
public enum DTLSEvent: Sendable, Equatable {
    /// The peer is who the signalling said; application data may flow.
    case established(DTLSKeyingMaterial)
    /// The peer said goodbye (close_notify).
    case closed
    /// The handshake, or later the association, ended badly. No keys were or will be exported.
    case failed(DTLSFailure)
}

/// Why an association ended badly.
public enum DTLSFailure: UInt8, Error, CaseIterable, Sendable {
    /// The peer sent a fatal alert.
    case peerAlert
    /// The certificate is none of those the signalling announced.
    case fingerprintMismatch
    /// The client sent no certificate.
    case noCertificate
    /// The peer negotiated no SRTP profile.
    case noProfile
    /// Nothing in common, or a message that breaks the protocol.
    case handshake
    /// The handshake was not over 30 s after its start.
    case timeout
    /// OpenSSL failed for a reason of its own, such as no memory.
    case internalError
}

/// Why a datagram had no effect.
public enum DTLSDropReason: UInt8, CaseIterable, Sendable {
    /// No complete DTLS 1.x record in it.
    case malformed
    /// It came before `start`.
    case notStarted
    /// Longer than `DTLSAssociation.datagramSizeMax`.
    case tooLarge
    /// The association is over.
    case closed
    /// Only records that nobody can open: plaintext after the handshake, ciphertext too short for its tag, or more early ciphertext than we keep.
    case wrongEpoch
}

/// Why a certificate or a context could not be made. Set-up time only.
public enum DTLSError: Error, Sendable {
    case keyGeneration, certificateSigning, contextCreation
    /// OpenSSL refused one of our settings: it was built without it.
    case settingRefused
}
