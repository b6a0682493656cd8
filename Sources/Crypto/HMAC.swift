// HMAC (RFC 2104) with SHA-1 for STUN's MESSAGE-INTEGRITY and with SHA-256 for our own formats.
//
// An object owns one EVP_MAC context, with its key schedule. `tag` starts over with the same key; `tag(key:)` takes a new one;
// neither allocates. The static functions borrow a context that was made once for this thread.

import COpenSSL
import Glibc
import Primitives

/// One EVP_MAC context for one digest; the two public types wrap it.
private func makeContext(_ digest: StaticString) -> OpaquePointer {
    guard let algorithm = EVP_MAC_fetch(nil, "HMAC", nil) else { fatalError("this libcrypto has no HMAC") }
    defer { EVP_MAC_free(algorithm) }
    guard let context = EVP_MAC_CTX_new(algorithm) else { fatalError("no memory for an HMAC context") }
    // libcrypto only reads the name.
    let name = UnsafeMutablePointer(mutating: UnsafeRawPointer(digest.utf8Start).assumingMemoryBound(to: CChar.self))
    var parameters = [OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0), OSSL_PARAM_construct_end()]
    require(EVP_MAC_CTX_set_params(context, &parameters), "EVP_MAC_CTX_set_params")
    return context
}

private func setKey(_ context: OpaquePointer, _ key: RawSpan) {
    key.withUnsafeBytes { bytes in
        // A null pointer would mean "keep the old key", so an empty key needs an address of its own.
        var nothing: UInt8 = 0
        if bytes.count == 0 {
            require(EVP_MAC_init(context, &nothing, 0, nil), "EVP_MAC_init")
        } else {
            require(EVP_MAC_init(context, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count, nil), "EVP_MAC_init")
        }
    }
}

@inline(__always) private func update(_ context: OpaquePointer, _ piece: RawSpan) {
    piece.withUnsafeBytes { bytes in
        guard bytes.count > 0 else { return }
        require(EVP_MAC_update(context, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count), "EVP_MAC_update")
    }
}

private func finish(_ context: OpaquePointer, _ a: RawSpan, _ b: RawSpan, _ c: RawSpan, _ result: inout MutableSpan<UInt8>) {
    update(context, a)
    update(context, b)
    update(context, c)
    result.withUnsafeMutableBufferPointer { buffer in
        var written = 0
        require(EVP_MAC_final(context, buffer.baseAddress, &written, buffer.count), "EVP_MAC_final")
    }
}

/// HMAC-SHA-1: 20-byte tags.
@safe public struct HMACSHA1: ~Copyable {
    private let context: OpaquePointer

    public init(key: RawSpan) {
        context = makeContext("SHA1")
        setKey(context, key)
    }
    deinit { EVP_MAC_CTX_free(context) }

    /// The tag of the pieces, as if they were one message, under the key of this object.
    public mutating func tag(_ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest20 {
        require(EVP_MAC_init(context, nil, 0, nil), "EVP_MAC_init")
        var result = Digest20(repeating: 0)
        var span = result.mutableSpan
        finish(context, a, b, c, &span)
        return result
    }

    /// The same under `key`, which becomes the key of this object.
    public mutating func tag(key: RawSpan, _ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest20 {
        setKey(context, key)
        var result = Digest20(repeating: 0)
        var span = result.mutableSpan
        finish(context, a, b, c, &span)
        return result
    }

    /// One-shot: for callers that hold no context. Allocates on the first call of a thread only.
    public static func tag(key: RawSpan, _ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest20 {
        let context = ThreadContexts.sha1.get()
        setKey(context, key)
        var result = Digest20(repeating: 0)
        var span = result.mutableSpan
        finish(context, a, b, c, &span)
        return result
    }
}

/// HMAC-SHA-256: 32-byte tags.
@safe public struct HMACSHA256: ~Copyable {
    private let context: OpaquePointer

    public init(key: RawSpan) {
        context = makeContext("SHA256")
        setKey(context, key)
    }
    deinit { EVP_MAC_CTX_free(context) }

    /// The tag of the pieces, as if they were one message, under the key of this object.
    public mutating func tag(_ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest32 {
        require(EVP_MAC_init(context, nil, 0, nil), "EVP_MAC_init")
        var result = Digest32(repeating: 0)
        var span = result.mutableSpan
        finish(context, a, b, c, &span)
        return result
    }

    /// The same under `key`, which becomes the key of this object.
    public mutating func tag(key: RawSpan, _ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest32 {
        setKey(context, key)
        var result = Digest32(repeating: 0)
        var span = result.mutableSpan
        finish(context, a, b, c, &span)
        return result
    }

    /// One-shot: for callers that hold no context. Allocates on the first call of a thread only.
    public static func tag(key: RawSpan, _ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest32 {
        let context = ThreadContexts.sha256.get()
        setKey(context, key)
        var result = Digest32(repeating: 0)
        var span = result.mutableSpan
        finish(context, a, b, c, &span)
        return result
    }
}

// An object is used by one thread at a time; moving it moves its context.
extension HMACSHA1: @unchecked Sendable {}
extension HMACSHA256: @unchecked Sendable {}

/// One context a thread and digest, made at the first one-shot call and freed when the thread ends. It is scratch, not state:
/// every call sets its key first.
private struct ThreadContexts: Sendable {
    static let sha1 = ThreadContexts("SHA1")
    static let sha256 = ThreadContexts("SHA256")

    private let digest: StaticString
    private let slot: pthread_key_t

    private init(_ digest: StaticString) {
        self.digest = digest
        var key = pthread_key_t()
        let result = pthread_key_create(&key) { pointer in EVP_MAC_CTX_free(OpaquePointer(pointer)) }
        guard result == 0 else { fatalError("no thread-specific slot is left: errno \(result)") }
        slot = key
    }

    func get() -> OpaquePointer {
        if let known = pthread_getspecific(slot) { return OpaquePointer(known) }
        let context = makeContext(digest)
        pthread_setspecific(slot, UnsafeRawPointer(context))
        return context
    }
}
