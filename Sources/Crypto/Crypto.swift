// Crypto: the few primitives that our own formats and STUN need, over libcrypto's EVP interface alone. Nothing here knows a
// protocol, and nothing here links libssl.
//
// Three kinds of call sites decide the shape. Set-up paths want one line: static functions (`SHA256.digest`, `HMACSHA1.tag`).
// Workers want no allocation per packet: `~Copyable` objects that own one EVP context and are reused (`HMACSHA256`, `AES128Block`).
// Results are `InlineArray`s, so that a tag lives on the stack and has its length in its type.
//
// libcrypto failing on these calls means no memory or a broken installation: a reason to stop, with a sentence that says so.

import COpenSSL
import Primitives

/// Tags and digests by length in bytes.
public typealias Digest20 = InlineArray<20, UInt8>
public typealias Digest32 = InlineArray<32, UInt8>
public typealias Digest48 = InlineArray<48, UInt8>
public typealias Digest64 = InlineArray<64, UInt8>

extension InlineArray where Element == UInt8 {
    /// The elements as raw bytes; valid while the array is.
    public var bytes: RawSpan {
        @_lifetime(borrow self)
        borrowing get { span.bytes }
    }
    /// A copy on the heap: for set-up paths and tests.
    public var array: [UInt8] {
        var copy: [UInt8] = []
        copy.reserveCapacity(count)
        for index in indices { copy.append(self[index]) }
        return copy
    }
}

extension Array where Element == UInt8 {
    /// The elements as raw bytes; valid while the array is.
    public var bytes: RawSpan {
        @_lifetime(borrow self)
        borrowing get { span.bytes }
    }
}

/// The version text of the libcrypto that is loaded, for the start-up line.
public var libcryptoVersion: String { String(cString: OpenSSL_version(OPENSSL_VERSION)) }

/// Stops when libcrypto reports an error that only a broken process can cause.
@inline(__always) func require(_ result: CInt, _ call: StaticString) {
    if result != 1 { fatalError("libcrypto refused \(call): error \(ERR_peek_last_error())") }
}
