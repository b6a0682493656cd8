// HMAC (RFC 2104) with SHA-1 for STUN's MESSAGE-INTEGRITY and with SHA-256 for our own formats.
//
// libcrypto has the compression functions, two of whose states, behind the inner and the outer pad, are an object. EVP's HMAC would be the
// same four compressions, but makes and frees several objects a message (OpenSSL 3.0): five allocations for every datagram of a flood.

import COpenSSL
import Primitives

/// HMAC-SHA-1: 20-byte tags.
public struct HMACSHA1: ~Copyable {
    private var inner = SHA_CTX()
    private var outer = SHA_CTX()

    public init(key: RawSpan) { setKey(key) }

    /// The tag of the pieces, as if they were one message, under the key of this object.
    public mutating func tag(_ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest20 {
        var state = inner
        Self.update(&state, a)
        Self.update(&state, b)
        Self.update(&state, c)
        let digest = Self.finish(&state)
        state = outer
        Self.update(&state, digest.span.bytes)
        return Self.finish(&state)
    }

    /// The same under `key`, which becomes the key of this object.
    public mutating func tag(key: RawSpan, _ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest20 {
        setKey(key)
        return tag(a, b, c)
    }

    /// One-shot: for callers that hold no context.
    public static func tag(key: RawSpan, _ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest20 {
        var context = HMACSHA1(key: key)
        return context.tag(a, b, c)
    }

    private mutating func setKey(_ key: RawSpan) {
        guard key.byteCount > 64 else { return setPads(key) }
        var state = SHA_CTX()
        copenssl_sha1_start(&state)
        Self.update(&state, key)
        let digest = Self.finish(&state)
        setPads(digest.span.bytes)
    }

    private mutating func setPads(_ key: RawSpan) {
        var pad = InlineArray<64, UInt8>(repeating: 0x36)
        for index in 0..<key.byteCount { pad[index] ^= key.byte(index) }
        copenssl_sha1_start(&inner)
        Self.update(&inner, pad.span.bytes)
        for index in 0..<64 { pad[index] ^= 0x36 ^ 0x5C }
        copenssl_sha1_start(&outer)
        Self.update(&outer, pad.span.bytes)
    }

    private static func update(_ state: inout SHA_CTX, _ piece: RawSpan) {
        piece.withUnsafeBytes { bytes in
            if bytes.count > 0 { copenssl_sha1_update(&state, bytes.baseAddress, bytes.count) }
        }
    }

    private static func finish(_ state: inout SHA_CTX) -> Digest20 {
        var result = Digest20(repeating: 0)
        var span = result.mutableSpan
        span.withUnsafeMutableBufferPointer { copenssl_sha1_finish(&state, $0.baseAddress) }
        return result
    }
}

/// HMAC-SHA-256: 32-byte tags.
public struct HMACSHA256: ~Copyable {
    private var inner = SHA256_CTX()
    private var outer = SHA256_CTX()

    public init(key: RawSpan) { setKey(key) }

    /// The tag of the pieces, as if they were one message, under the key of this object.
    public mutating func tag(_ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest32 {
        var state = inner
        Self.update(&state, a)
        Self.update(&state, b)
        Self.update(&state, c)
        let digest = Self.finish(&state)
        state = outer
        Self.update(&state, digest.span.bytes)
        return Self.finish(&state)
    }

    /// The same under `key`, which becomes the key of this object.
    public mutating func tag(key: RawSpan, _ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest32 {
        setKey(key)
        return tag(a, b, c)
    }

    /// One-shot: for callers that hold no context.
    public static func tag(key: RawSpan, _ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest32 {
        var context = HMACSHA256(key: key)
        return context.tag(a, b, c)
    }

    private mutating func setKey(_ key: RawSpan) {
        guard key.byteCount > 64 else { return setPads(key) }
        var state = SHA256_CTX()
        copenssl_sha256_start(&state)
        Self.update(&state, key)
        let digest = Self.finish(&state)
        setPads(digest.span.bytes)
    }

    private mutating func setPads(_ key: RawSpan) {
        var pad = InlineArray<64, UInt8>(repeating: 0x36)
        for index in 0..<key.byteCount { pad[index] ^= key.byte(index) }
        copenssl_sha256_start(&inner)
        Self.update(&inner, pad.span.bytes)
        for index in 0..<64 { pad[index] ^= 0x36 ^ 0x5C }
        copenssl_sha256_start(&outer)
        Self.update(&outer, pad.span.bytes)
    }

    private static func update(_ state: inout SHA256_CTX, _ piece: RawSpan) {
        piece.withUnsafeBytes { bytes in
            if bytes.count > 0 { copenssl_sha256_update(&state, bytes.baseAddress, bytes.count) }
        }
    }

    private static func finish(_ state: inout SHA256_CTX) -> Digest32 {
        var result = Digest32(repeating: 0)
        var span = result.mutableSpan
        span.withUnsafeMutableBufferPointer { copenssl_sha256_finish(&state, $0.baseAddress) }
        return result
    }
}

// An object is used by one thread at a time; moving it moves its states, which are plain values.
extension HMACSHA1: @unchecked Sendable {}
extension HMACSHA256: @unchecked Sendable {}
