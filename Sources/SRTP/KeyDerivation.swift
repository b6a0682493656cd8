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
        rtpKey = deriveKey(master, label: 0, count: profile.keyLength)
        rtpAuthenticationKey = deriveKey(master, label: 1, count: authenticationKeyLength)
        rtpSalt = deriveKey(master, label: 2, count: profile.saltLength)
        rtcpKey = deriveKey(master, label: 3, count: profile.keyLength)
        rtcpAuthenticationKey = deriveKey(master, label: 4, count: authenticationKeyLength)
        rtcpSalt = deriveKey(master, label: 5, count: profile.saltLength)
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

/// The first `count` bytes of the key stream for `label`. The key is 16 or 32 bytes, the salt 14 or 12: a shorter salt counts as
/// if zeros followed.
package func deriveKey(_ master: SRTPMasterKey, label: UInt8, count: Int) -> [UInt8] {
    var counter = [UInt8](repeating: 0, count: 16)
    for index in 0..<min(master.salt.count, 14) { counter[index] = master.salt[index] }
    counter[7] ^= label
    guard let context = EVP_CIPHER_CTX_new() else { fatalError("no memory for a cipher context") }
    defer { EVP_CIPHER_CTX_free(context) }
    let cipher = master.key.count == 32 ? Ciphers.counter256 : Ciphers.counter128
    require(EVP_EncryptInit_ex2(context, cipher, master.key, counter, nil), "EVP_EncryptInit_ex2")
    var stream = [UInt8](repeating: 0, count: count)
    guard count > 0 else { return stream }
    let zeros = [UInt8](repeating: 0, count: count)
    var written: CInt = 0
    require(EVP_EncryptUpdate(context, &stream, &written, zeros, CInt(count)), "EVP_EncryptUpdate")
    return stream
}

/// Fetched once: fetching an algorithm by name costs more than securing a packet.
enum Ciphers {
    nonisolated(unsafe) static let counter128 = fetch("AES-128-CTR")
    nonisolated(unsafe) static let counter256 = fetch("AES-256-CTR")
    nonisolated(unsafe) static let gcm128 = fetch("AES-128-GCM")
    nonisolated(unsafe) static let gcm256 = fetch("AES-256-GCM")

    private static func fetch(_ name: String) -> OpaquePointer {
        guard let cipher = EVP_CIPHER_fetch(nil, name, nil) else { fatalError("this libcrypto has no \(name)") }
        return cipher
    }
}

/// Stops when libcrypto reports an error that only a broken process can cause.
@inline(__always) func require(_ result: CInt, _ call: StaticString) {
    if result != 1 { refuse(call) }
}

@inline(never) private func refuse(_ call: StaticString) -> Never {
    fatalError("libcrypto refused \(call): error \(ERR_peek_last_error())")
}
