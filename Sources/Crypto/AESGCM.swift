// AES-256-GCM (NIST SP 800-38D) over whole messages: what we hand out to be brought back, such as client secrets. For set-up paths;
// media has its own contexts.

import COpenSSL
import Primitives

public enum AES256GCM {
    public typealias Nonce = InlineArray<12, UInt8>
    /// Bytes that sealing adds.
    public static let tagLength = 16

    /// The ciphertext and its tag behind it.
    ///
    /// - Parameters:
    ///   - nonce: never twice under one key. Random ones are good for 2^32 messages.
    ///   - context: is authenticated with the message and not part of it.
    public static func seal(_ plaintext: RawSpan, key: Digest32, nonce: Nonce, context: RawSpan = RawSpan()) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: plaintext.byteCount + tagLength)
        let cipher = begin(key, nonce, context, encrypts: 1)
        defer { EVP_CIPHER_CTX_free(cipher) }
        result.withUnsafeMutableBufferPointer { output in
            var written: CInt = 0
            plaintext.withUnsafeBytes { input in
                guard input.count > 0 else { return }
                let bytes = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
                require(EVP_CipherUpdate(cipher, output.baseAddress, &written, bytes, CInt(input.count)), "EVP_CipherUpdate")
            }
            guard let end = output.baseAddress.map({ $0 + plaintext.byteCount }) else { return }
            require(EVP_CipherFinal_ex(cipher, end, &written), "EVP_CipherFinal_ex")
            require(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, CInt(tagLength), end), "EVP_CTRL_AEAD_GET_TAG")
        }
        return result
    }

    /// The message, if key, nonce and context are those of `seal` and nothing has been changed.
    public static func open(_ sealed: RawSpan, key: Digest32, nonce: Nonce, context: RawSpan = RawSpan()) -> [UInt8]? {
        guard sealed.byteCount >= tagLength, sealed.byteCount <= 1 << 24 else { return nil }
        let length = sealed.byteCount - tagLength
        // One byte more than needed, so that an empty message has an address too.
        var result = [UInt8](repeating: 0, count: length + 1)
        var tag = sealed.bytes(length..<sealed.byteCount).array
        let cipher = begin(key, nonce, context, encrypts: 0)
        defer { EVP_CIPHER_CTX_free(cipher) }
        let isAuthentic = result.withUnsafeMutableBufferPointer { output in
            var written: CInt = 0
            sealed.bytes(0..<length).withUnsafeBytes { input in
                guard input.count > 0 else { return }
                let bytes = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
                require(EVP_CipherUpdate(cipher, output.baseAddress, &written, bytes, CInt(input.count)), "EVP_CipherUpdate")
            }
            require(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, CInt(tagLength), &tag), "EVP_CTRL_AEAD_SET_TAG")
            return EVP_CipherFinal_ex(cipher, output.baseAddress.map { $0 + length }, &written) == 1
        }
        guard isAuthentic else { return nil }
        result.removeLast()
        return result
    }

    private static func begin(_ key: Digest32, _ nonce: Nonce, _ context: RawSpan, encrypts: CInt) -> OpaquePointer {
        guard let algorithm = EVP_CIPHER_fetch(nil, "AES-256-GCM", nil) else { fatalError("this libcrypto has no AES-256-GCM") }
        defer { EVP_CIPHER_free(algorithm) }
        guard let cipher = EVP_CIPHER_CTX_new() else { fatalError("no memory for a cipher context") }
        key.span.withUnsafeBufferPointer { key in
            nonce.span.withUnsafeBufferPointer { nonce in
                require(EVP_CipherInit_ex2(cipher, algorithm, key.baseAddress, nonce.baseAddress, encrypts, nil), "EVP_CipherInit_ex2")
            }
        }
        var written: CInt = 0
        context.withUnsafeBytes { bytes in
            guard bytes.count > 0 else { return }
            let start = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            require(EVP_CipherUpdate(cipher, nil, &written, start, CInt(bytes.count)), "EVP_CipherUpdate")
        }
        return cipher
    }
}
