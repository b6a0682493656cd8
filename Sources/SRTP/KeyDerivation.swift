// Session keys from a master key (RFC 3711 §4.3, RFC 7714 §11): each is the key stream of AES in counter mode under the master
// key, started at the master salt with the key's label mixed in. The key derivation rate is zero: session keys live as long as the call.

import COpenSSL

/// The keys of one direction.
package struct SRTPSessionKeys: Sendable {
    package var rtpKey: [UInt8]
    package var rtpSalt: [UInt8]
    /// For HMAC-SHA1; empty with AES-GCM.
    package var rtpAuthenticationKey: [UInt8] = []
    package var rtcpKey: [UInt8]
    package var rtcpSalt: [UInt8]
    package var rtcpAuthenticationKey: [UInt8] = []

    package init(rtpKey: [UInt8], rtpSalt: [UInt8], rtcpKey: [UInt8], rtcpSalt: [UInt8]) {
        self.rtpKey = rtpKey
        self.rtpSalt = rtpSalt
        self.rtcpKey = rtcpKey
        self.rtcpSalt = rtcpSalt
    }

    package init(profile: SRTPProfile, master: SRTPMasterKey) throws(SRTPError) {
        guard master.key.count == profile.keyLength, master.salt.count == profile.saltLength else { throw .rejectedKey }
        let authenticationKeyLength = profile.isAEAD ? 0 : 20
        var derivation = SRTPKeyDerivation(master)
        rtpKey = derivation.key(label: 0, count: profile.keyLength)
        rtpAuthenticationKey = derivation.key(label: 1, count: authenticationKeyLength)
        rtpSalt = derivation.key(label: 2, count: profile.saltLength)
        rtcpKey = derivation.key(label: 3, count: profile.keyLength)
        rtcpAuthenticationKey = derivation.key(label: 4, count: authenticationKeyLength)
        rtcpSalt = derivation.key(label: 5, count: profile.saltLength)
    }

    /// Overwrites every key; for the moment when the ciphers hold them.
    mutating func wipe() {
        SRTP.wipe(&rtpKey)
        SRTP.wipe(&rtpSalt)
        SRTP.wipe(&rtpAuthenticationKey)
        SRTP.wipe(&rtcpKey)
        SRTP.wipe(&rtcpSalt)
        SRTP.wipe(&rtcpAuthenticationKey)
    }
}

/// Overwrites secret bytes in a way that the compiler keeps.
func wipe(_ bytes: inout [UInt8]) {
    bytes.withUnsafeMutableBytes { if let base = $0.baseAddress { OPENSSL_cleanse(base, $0.count) } }
}

/// A master key at work. The key is 16 or 32 bytes, the salt 14 or 12: a shorter salt counts as if zeros followed.
@safe package struct SRTPKeyDerivation: ~Copyable {
    private let cipher: UnsafePointer<copenssl_cipher>
    private let context: UnsafeMutableRawPointer
    private var counter = [UInt8](repeating: 0, count: 16)

    package init(_ master: SRTPMasterKey) {
        cipher = master.key.count == 32 ? Ciphers.counter256 : Ciphers.counter128
        context = Ciphers.context(of: cipher, key: master.key, encrypts: true)
        for index in 0..<min(master.salt.count, 14) { counter[index] = master.salt[index] }
    }
    deinit { copenssl_cipher_free(cipher, context) }

    /// The first `count` bytes of the key stream for `label`.
    package mutating func key(label: UInt8, count: Int) -> [UInt8] {
        var stream = [UInt8](repeating: 0, count: count)
        guard count > 0 else { return stream }
        counter[7] ^= label
        require(copenssl_cipher_encrypt(cipher, context, counter, counter.count), "encrypt_init")
        counter[7] ^= label
        stream.withUnsafeMutableBufferPointer { bytes in
            require(copenssl_cipher_update(cipher, context, bytes.baseAddress, bytes.baseAddress, bytes.count), "update")
        }
        return stream
    }
}

/// Found once: finding an algorithm by name costs more than securing a packet.
enum Ciphers {
    nonisolated(unsafe) static let counter128 = find("AES-128-CTR")
    nonisolated(unsafe) static let counter256 = find("AES-256-CTR")
    nonisolated(unsafe) static let gcm128 = find("AES-128-GCM")
    nonisolated(unsafe) static let gcm256 = find("AES-256-GCM")

    private static func find(_ name: String) -> UnsafePointer<copenssl_cipher> {
        let found = UnsafeMutablePointer<copenssl_cipher>.allocate(capacity: 1)
        found.initialize(to: copenssl_cipher())
        // Never given back, and with it the provider.
        guard let cipher = EVP_CIPHER_fetch(nil, name, nil), copenssl_cipher_find(found, cipher) == 1 else {
            fatalError("this libcrypto has no \(name)")
        }
        return UnsafePointer(found)
    }

    /// A context of the provider's, for `copenssl_cipher_free`.
    static func context(of cipher: UnsafePointer<copenssl_cipher>, key: [UInt8], encrypts: Bool) -> UnsafeMutableRawPointer {
        guard let context = copenssl_cipher_new(cipher, encrypts ? 1 : 0, key, key.count) else {
            fatalError("no memory for a cipher context")
        }
        return context
    }
}

/// Stops when libcrypto reports an error that only a broken process can cause.
@inline(__always) func require(_ result: CInt, _ call: StaticString) {
    if result != 1 { refuse(call) }
}

@inline(never) private func refuse(_ call: StaticString) -> Never {
    fatalError("libcrypto refused \(call): error \(ERR_peek_last_error())")
}
