// One session key at work. Two forms, both in place: AES-GCM, which encrypts and authenticates in one pass (RFC 7714), and AES in
// counter mode followed by HMAC-SHA1 (RFC 3711 §4.1.1, §4.2.1). The caller has checked that all ranges lie inside the buffer.

import COpenSSL
import Crypto
import Primitives

/// The key of one direction for RTP or for RTCP.
@safe struct PacketCipher: ~Copyable {
    private let context: OpaquePointer
    private let authenticator: PacketAuthenticator
    /// The salt's bytes from the most significant down; what is missing to sixteen is zero.
    private let salt: UInt128
    /// See `WholeIV`.
    private let takesWholeIV: Bool

    init(profile: SRTPProfile, key: [UInt8], salt: [UInt8], authenticationKey: [UInt8], encrypts: Bool) {
        precondition(key.count == profile.keyLength && salt.count == profile.saltLength)
        let cipher =
            switch profile {
            case .aes128CMHMACSHA1_80: Ciphers.counter128
            case .aeadAES128GCM: Ciphers.gcm128
            case .aeadAES256GCM: Ciphers.gcm256
            }
        guard let context = EVP_CIPHER_CTX_new() else { fatalError("no memory for a cipher context") }
        require(EVP_CipherInit_ex2(context, cipher, key, nil, encrypts ? 1 : 0, nil), "EVP_CipherInit_ex2")
        self.context = context
        authenticator = PacketAuthenticator(key: authenticationKey)
        var value: UInt128 = 0
        for index in 0..<16 { value = value << 8 | (index < salt.count ? UInt128(salt[index]) : 0) }
        self.salt = value
        takesWholeIV = profile.isAEAD && WholeIV.isTaken
    }
    deinit { EVP_CIPHER_CTX_free(context) }
}

// AES-GCM.
extension PacketCipher {
    static let aeadTagLength = 16

    /// Encrypts `text` in place and writes the tag right behind it. `header` and `word` are authenticated only.
    func seal(_ buffer: inout MutableRawSpan, ssrc: UInt32, index: UInt64, header: Range<Int>, word: Range<Int>, text: Range<Int>) {
        precondition(text.upperBound + Self.aeadTagLength <= buffer.byteCount && word.upperBound <= buffer.byteCount)
        buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return }
            let tag = base + text.upperBound
            if takesWholeIV {
                begin(ssrc: ssrc, index: index, tag: nil)
            } else {
                setNonce(ssrc: ssrc, index: index)
            }
            authenticate(base, header)
            authenticate(base, word)
            transform(base, text)
            var written: CInt = 0
            // Writes no text: nothing of a counter mode is left over.
            require(EVP_EncryptFinal_ex(context, tag, &written), "EVP_EncryptFinal_ex")
            require(copenssl_gcm_tag(context, tag), "EVP_CIPHER_CTX_get_params")
        }
    }

    /// Decrypts `text` in place if the tag behind it is right. If not, what is in `text` is worth nothing.
    func open(
        _ buffer: inout MutableRawSpan, ssrc: UInt32, index: UInt64, header: Range<Int>, word: Range<Int>, text: Range<Int>
    ) -> Bool {
        precondition(text.upperBound + Self.aeadTagLength <= buffer.byteCount && word.upperBound <= buffer.byteCount)
        return buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return false }
            let tag = base + text.upperBound
            if takesWholeIV {
                begin(ssrc: ssrc, index: index, tag: tag)
            } else {
                setNonce(ssrc: ssrc, index: index)
                require(
                    EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, CInt(Self.aeadTagLength), tag), "EVP_CTRL_AEAD_SET_TAG")
            }
            authenticate(base, header)
            authenticate(base, word)
            transform(base, text)
            var written: CInt = 0
            guard EVP_DecryptFinal_ex(context, tag, &written) == 1 else {
                // OpenSSL 3.0 leaves nothing in the thread's error queue here, but no document promises it, and TLS calls on
                // this thread would take an entry for theirs.
                ERR_clear_error()
                return false
            }
            return true
        }
    }

    /// Salt, SSRC and index in one block: RFC 7714 §8.1 for RTP and §9.1 for RTCP, which differ in the length of the index only.
    private func setNonce(ssrc: UInt32, index: UInt64) {
        setStart(nonce(ssrc: ssrc, index: index))
    }

    @inline(__always) private func nonce(ssrc: UInt32, index: UInt64) -> UInt128 {
        salt ^ UInt128(ssrc) << 80 ^ UInt128(index) << 32
    }

    /// The same as `setNonce` in one call, with the tag that is to be found.
    @inline(__always) private func begin(ssrc: UInt32, index: UInt64, tag: UnsafePointer<UInt8>?) {
        withUnsafeBytes(of: nonce(ssrc: ssrc, index: index).bigEndian) { bytes in
            require(
                copenssl_gcm_begin(context, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), tag), "EVP_CIPHER_CTX_set_params")
        }
    }

    private func authenticate(_ base: UnsafeMutablePointer<UInt8>, _ range: Range<Int>) {
        guard !range.isEmpty else { return }
        var written: CInt = 0
        require(EVP_CipherUpdate(context, nil, &written, base + range.lowerBound, CInt(range.count)), "EVP_CipherUpdate")
    }
}

/// Whether this libcrypto takes all of an IV as a fixed part of unknown length, which it does in every 3.x and promises nowhere. Half of what EVP
/// adds to a packet's AES is saved by it.
private enum WholeIV {
    static let isTaken: Bool = {
        let iv: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
        // Under another IV first, as a context has it that is used again.
        guard let expected = sealed(iv, iv, restored: false), let found = sealed(iv.reversed(), iv, restored: true) else { return false }
        return expected == found
    }()

    /// Text and tag of something short under `iv`, by a context that has begun with `first`.
    private static func sealed(_ first: [UInt8], _ iv: [UInt8], restored: Bool) -> [UInt8]? {
        guard let context = EVP_CIPHER_CTX_new() else { return nil }
        defer { EVP_CIPHER_CTX_free(context) }
        let key = [UInt8](repeating: 7, count: 16)
        var text = [UInt8](repeating: 0x5A, count: 33)
        var tag = [UInt8](repeating: 0, count: 16)
        var written: CInt = 0
        guard EVP_CipherInit_ex2(context, Ciphers.gcm128, key, first, 1, nil) == 1,
            EVP_CipherUpdate(context, nil, &written, key, 16) == 1,
            restored ? copenssl_gcm_begin(context, iv, nil) == 1 : EVP_CipherInit_ex2(context, nil, nil, iv, -1, nil) == 1,
            EVP_CipherUpdate(context, nil, &written, iv, 12) == 1
        else { return nil }
        let isSealed = text.withUnsafeMutableBufferPointer { bytes in
            EVP_CipherUpdate(context, bytes.baseAddress, &written, bytes.baseAddress, 33) == 1
                && EVP_CipherFinal_ex(context, bytes.baseAddress, &written) == 1
        }
        guard isSealed, copenssl_gcm_tag(context, &tag) == 1 else { return nil }
        return text + tag
    }
}

// Counter mode and HMAC.
extension PacketCipher {
    static let hmacTagLength = 10

    /// Encrypts or decrypts `text` in place: both are the same.
    func apply(_ buffer: inout MutableRawSpan, ssrc: UInt32, index: UInt64, text: Range<Int>) {
        precondition(text.upperBound <= buffer.byteCount)
        // RFC 3711 §4.1.1.
        setStart(salt ^ UInt128(ssrc) << 64 ^ UInt128(index) << 16)
        buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return }
            transform(base, text)
        }
    }

    /// Writes the tag of everything before `end` to `end`. `rollovers` is authenticated with an RTP packet, but not sent.
    func sign(_ buffer: inout MutableRawSpan, end: Int, rollovers: UInt32?) {
        let tag = authenticator.tag(buffer.bytes.bytes(0..<end), rollovers: rollovers)
        buffer.copy(tag.bytes.bytes(0..<Self.hmacTagLength), to: end)
    }

    /// Whether the tag at `end` is that of everything before.
    func verifies(_ buffer: borrowing MutableRawSpan, end: Int, rollovers: UInt32?) -> Bool {
        let tag = authenticator.tag(buffer.bytes.bytes(0..<end), rollovers: rollovers)
        return buffer.bytes.bytes(end..<end + Self.hmacTagLength)
            .matchesInConstantTime(tag.bytes.bytes(0..<Self.hmacTagLength))
    }
}

extension PacketCipher {
    /// Starts a packet. The key schedule stays.
    @inline(__always) private func setStart(_ block: UInt128) {
        withUnsafeBytes(of: block.bigEndian) { bytes in
            require(
                EVP_CipherInit_ex2(context, nil, nil, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), -1, nil),
                "EVP_CipherInit_ex2")
        }
    }

    @inline(__always) private func transform(_ base: UnsafeMutablePointer<UInt8>, _ text: Range<Int>) {
        guard !text.isEmpty else { return }
        var written: CInt = 0
        let start = base + text.lowerBound
        require(EVP_CipherUpdate(context, start, &written, start, CInt(text.count)), "EVP_CipherUpdate")
    }
}

/// HMAC-SHA1 (RFC 2104) as two hash states that have already taken in the key: a message costs two copies of 96 bytes and no
/// allocation. `Crypto.HMACSHA1` goes through EVP_MAC: 475 ns for a packet of 174 bytes where this takes 179 (OpenSSL 3.0).
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
