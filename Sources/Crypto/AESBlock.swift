// AES-128 on exactly one block (FIPS 197): the routing hint encrypts sixteen bytes and nothing else. This is the bare block
// cipher; a message longer than a block has no business here.

import COpenSSL

/// A block of sixteen bytes.
public typealias AESBlockBytes = InlineArray<16, UInt8>

/// An AES-128 key with its two key schedules. Encrypting and decrypting allocate nothing.
@safe public struct AES128Block: ~Copyable, @unchecked Sendable {
    private let encryptor: OpaquePointer
    private let decryptor: OpaquePointer

    public init(key: AESBlockBytes) {
        encryptor = Self.makeContext(key, encrypts: 1)
        decryptor = Self.makeContext(key, encrypts: 0)
    }
    deinit {
        EVP_CIPHER_CTX_free(encryptor)
        EVP_CIPHER_CTX_free(decryptor)
    }

    public mutating func encrypt(_ block: AESBlockBytes) -> AESBlockBytes { Self.run(encryptor, block) }
    public mutating func decrypt(_ block: AESBlockBytes) -> AESBlockBytes { Self.run(decryptor, block) }

    private static func makeContext(_ key: AESBlockBytes, encrypts: CInt) -> OpaquePointer {
        guard let cipher = EVP_CIPHER_fetch(nil, "AES-128-ECB", nil) else { fatalError("this libcrypto has no AES-128-ECB") }
        defer { EVP_CIPHER_free(cipher) }
        guard let context = EVP_CIPHER_CTX_new() else { fatalError("no memory for a cipher context") }
        key.span.withUnsafeBufferPointer {
            require(EVP_CipherInit_ex2(context, cipher, $0.baseAddress, nil, encrypts, nil), "EVP_CipherInit_ex2")
        }
        require(EVP_CIPHER_CTX_set_padding(context, 0), "EVP_CIPHER_CTX_set_padding")
        return context
    }

    private static func run(_ context: OpaquePointer, _ block: AESBlockBytes) -> AESBlockBytes {
        var result = AESBlockBytes(repeating: 0)
        var written: CInt = 0
        var output = result.mutableSpan
        output.withUnsafeMutableBufferPointer { target in
            block.span.withUnsafeBufferPointer { source in
                require(EVP_CipherUpdate(context, target.baseAddress, &written, source.baseAddress, 16), "EVP_CipherUpdate")
            }
        }
        return result
    }
}
