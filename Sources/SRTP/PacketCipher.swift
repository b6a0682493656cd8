// One session key at work. Two forms, both in place: AES-GCM, which encrypts and authenticates in one pass (RFC 7714), and AES in
// counter mode followed by HMAC-SHA1 (RFC 3711 §4.1.1, §4.2.1). The caller has checked that all ranges lie inside the buffer.

import COpenSSL
import Crypto
import Primitives

/// The key of one direction for RTP or for RTCP.
@safe struct PacketCipher: ~Copyable {
    private let cipher: UnsafePointer<copenssl_cipher>
    /// The provider's: key schedule, tables and what else a message needs, some 900 bytes.
    private let context: UnsafeMutableRawPointer
    /// The salt's bytes from the most significant down; what is missing to sixteen is zero.
    private let salt: UInt128
    /// One, or with AES-GCM none.
    private let authenticator: Slab<PacketAuthenticator>

    init(profile: SRTPProfile, key: [UInt8], salt: [UInt8], authenticationKey: [UInt8], encrypts: Bool) {
        precondition(key.count == profile.keyLength && salt.count == profile.saltLength)
        cipher =
            switch profile {
            case .aes128CMHMACSHA1_80: Ciphers.counter128
            case .aeadAES128GCM: Ciphers.gcm128
            case .aeadAES256GCM: Ciphers.gcm256
            }
        context = Ciphers.context(of: cipher, key: key, encrypts: encrypts)
        authenticator = Slab(count: profile.isAEAD ? 0 : 1) { _ in PacketAuthenticator(key: authenticationKey) }
        var value: UInt128 = 0
        for index in 0..<16 { value = value << 8 | (index < salt.count ? UInt128(salt[index]) : 0) }
        self.salt = value
    }
    deinit { copenssl_cipher_free(cipher, context) }
}

// AES-GCM.
extension PacketCipher {
    static let aeadTagLength = 16

    /// Encrypts `text` in place and writes the tag right behind it. `header` and `word` are authenticated only.
    func seal(_ buffer: inout MutableRawSpan, ssrc: UInt32, index: UInt64, header: Range<Int>, word: Range<Int>, text: Range<Int>) {
        precondition(text.upperBound + Self.aeadTagLength <= buffer.byteCount && word.upperBound <= buffer.byteCount)
        buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return }
            begin(nonce(ssrc: ssrc, index: index), Self.nonceLength)
            authenticate(base, header)
            authenticate(base, word)
            transform(base, text)
            require(copenssl_cipher_final(cipher, context), "final")
            require(copenssl_cipher_tag(cipher, context, base + text.upperBound, Self.aeadTagLength), "get_ctx_params")
        }
    }

    /// Decrypts `text` in place if the tag behind it is right. If not, what is in `text` is worth nothing.
    func open(
        _ buffer: inout MutableRawSpan, ssrc: UInt32, index: UInt64, header: Range<Int>, word: Range<Int>, text: Range<Int>
    ) -> Bool {
        precondition(text.upperBound + Self.aeadTagLength <= buffer.byteCount && word.upperBound <= buffer.byteCount)
        return buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return false }
            withUnsafeBytes(of: nonce(ssrc: ssrc, index: index).bigEndian) { nonce in
                let start = nonce.baseAddress?.assumingMemoryBound(to: UInt8.self)
                require(
                    copenssl_cipher_decrypt(cipher, context, start, Self.nonceLength, base + text.upperBound, Self.aeadTagLength),
                    "decrypt_init")
            }
            authenticate(base, header)
            authenticate(base, word)
            transform(base, text)
            guard copenssl_cipher_final(cipher, context) == 1 else {
                // OpenSSL 3.0 leaves nothing in the thread's error queue here, but no document promises it, and TLS calls on
                // this thread would take an entry for theirs.
                ERR_clear_error()
                return false
            }
            return true
        }
    }

    private static let nonceLength = 12

    /// Salt, SSRC and index in one block: RFC 7714 §8.1 for RTP and §9.1 for RTCP, which differ in the length of the index only.
    private func nonce(ssrc: UInt32, index: UInt64) -> UInt128 { salt ^ UInt128(ssrc) << 80 ^ UInt128(index) << 32 }

    private func authenticate(_ base: UnsafeMutablePointer<UInt8>, _ range: Range<Int>) {
        guard !range.isEmpty else { return }
        require(copenssl_cipher_update(cipher, context, nil, base + range.lowerBound, range.count), "update")
    }
}

// Counter mode and HMAC.
extension PacketCipher {
    static let hmacTagLength = 10
    private static let blockLength = 16

    /// Encrypts or decrypts `text` in place: both are the same.
    func apply(_ buffer: inout MutableRawSpan, ssrc: UInt32, index: UInt64, text: Range<Int>) {
        precondition(text.upperBound <= buffer.byteCount)
        // RFC 3711 §4.1.1.
        begin(salt ^ UInt128(ssrc) << 64 ^ UInt128(index) << 16, Self.blockLength)
        buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return }
            transform(base, text)
        }
    }

    /// Writes the tag of everything before `end` to `end`. `rollovers` is authenticated with an RTP packet, but not sent.
    func sign(_ buffer: inout MutableRawSpan, end: Int, rollovers: UInt32?) {
        let tag = authenticator[0].tag(buffer.bytes.bytes(0..<end), rollovers: rollovers)
        buffer.copy(tag.bytes.bytes(0..<Self.hmacTagLength), to: end)
    }

    /// Whether the tag at `end` is that of everything before.
    func verifies(_ buffer: borrowing MutableRawSpan, end: Int, rollovers: UInt32?) -> Bool {
        let tag = authenticator[0].tag(buffer.bytes.bytes(0..<end), rollovers: rollovers)
        return buffer.bytes.bytes(end..<end + Self.hmacTagLength)
            .matchesInConstantTime(tag.bytes.bytes(0..<Self.hmacTagLength))
    }
}

extension PacketCipher {
    /// Begins a packet that is encrypted, or one in counter mode, with the first `count` bytes of `block`. The key schedule stays.
    @inline(__always) private func begin(_ block: UInt128, _ count: Int) {
        withUnsafeBytes(of: block.bigEndian) { bytes in
            let start = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            require(copenssl_cipher_encrypt(cipher, context, start, count), "encrypt_init")
        }
    }

    @inline(__always) private func transform(_ base: UnsafeMutablePointer<UInt8>, _ text: Range<Int>) {
        guard !text.isEmpty else { return }
        let start = base + text.lowerBound
        require(copenssl_cipher_update(cipher, context, start, start, text.count), "update")
    }
}

/// HMAC-SHA1 (RFC 2104) as two hash states that have already taken in the key: a message costs two copies of 96 bytes and no
/// allocation. `Crypto.HMACSHA1` is the same for keys that change: what signs packets is copied where it lies, and its key is wiped.
private struct PacketAuthenticator {
    private var inner = SHA_CTX()
    private var outer = SHA_CTX()

    init(key: [UInt8]) {
        precondition(key.count <= 64)
        var block = [UInt8](repeating: 0x36, count: 64)
        for index in key.indices { block[index] ^= key[index] }
        copenssl_sha1_start(&inner)
        copenssl_sha1_update(&inner, block, 64)
        for index in block.indices { block[index] ^= 0x36 ^ 0x5C }
        copenssl_sha1_start(&outer)
        copenssl_sha1_update(&outer, block, 64)
        wipe(&block)
    }

    func tag(_ message: RawSpan, rollovers: UInt32?) -> Digest20 {
        var state = inner
        message.withUnsafeBytes { copenssl_sha1_update(&state, $0.baseAddress, $0.count) }
        if let rollovers {
            withUnsafeBytes(of: rollovers.bigEndian) { copenssl_sha1_update(&state, $0.baseAddress, $0.count) }
        }
        var digest = Digest20(repeating: 0)
        var bytes = digest.mutableSpan
        bytes.withUnsafeMutableBufferPointer { digest in
            copenssl_sha1_finish(&state, digest.baseAddress)
            state = outer
            copenssl_sha1_update(&state, digest.baseAddress, 20)
            copenssl_sha1_finish(&state, digest.baseAddress)
        }
        return digest
    }
}
