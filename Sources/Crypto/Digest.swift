// SHA-1 and SHA-2 (FIPS 180-4), one-shot over up to three pieces.

import COpenSSL
import Primitives

/// Fetched once: fetching an algorithm by name costs more than hashing a packet.
enum Algorithms {
    nonisolated(unsafe) static let sha1 = fetch("SHA1")
    nonisolated(unsafe) static let sha256 = fetch("SHA256")
    nonisolated(unsafe) static let sha384 = fetch("SHA384")
    nonisolated(unsafe) static let sha512 = fetch("SHA512")

    private static func fetch(_ name: String) -> OpaquePointer {
        guard let algorithm = EVP_MD_fetch(nil, name, nil) else { fatalError("this libcrypto has no \(name)") }
        return algorithm
    }
}

/// Hashes the pieces one after the other, as if they were one message.
private func digest(_ algorithm: OpaquePointer, _ a: RawSpan, _ b: RawSpan, _ c: RawSpan, _ result: inout MutableSpan<UInt8>) {
    guard let context = EVP_MD_CTX_new() else { fatalError("no memory for a digest context") }
    defer { EVP_MD_CTX_free(context) }
    require(EVP_DigestInit_ex2(context, algorithm, nil), "EVP_DigestInit_ex2")
    a.withUnsafeBytes { require(EVP_DigestUpdate(context, $0.baseAddress, $0.count), "EVP_DigestUpdate") }
    b.withUnsafeBytes { require(EVP_DigestUpdate(context, $0.baseAddress, $0.count), "EVP_DigestUpdate") }
    c.withUnsafeBytes { require(EVP_DigestUpdate(context, $0.baseAddress, $0.count), "EVP_DigestUpdate") }
    result.withUnsafeMutableBufferPointer { require(EVP_DigestFinal_ex(context, $0.baseAddress, nil), "EVP_DigestFinal_ex") }
}

public enum SHA1 {
    public static func digest(_ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest20 {
        var result = Digest20(repeating: 0)
        var span = result.mutableSpan
        Crypto.digest(Algorithms.sha1, a, b, c, &span)
        return result
    }
}

public enum SHA256 {
    public static func digest(_ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest32 {
        var result = Digest32(repeating: 0)
        var span = result.mutableSpan
        Crypto.digest(Algorithms.sha256, a, b, c, &span)
        return result
    }
}

public enum SHA384 {
    public static func digest(_ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest48 {
        var result = Digest48(repeating: 0)
        var span = result.mutableSpan
        Crypto.digest(Algorithms.sha384, a, b, c, &span)
        return result
    }
}

public enum SHA512 {
    public static func digest(_ a: RawSpan, _ b: RawSpan = RawSpan(), _ c: RawSpan = RawSpan()) -> Digest64 {
        var result = Digest64(repeating: 0)
        var span = result.mutableSpan
        Crypto.digest(Algorithms.sha512, a, b, c, &span)
        return result
    }
}
