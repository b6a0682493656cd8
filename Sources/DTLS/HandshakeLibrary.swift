// OpenSSL with only that in it which a handshake needs.
//
// To read the key in a peer's certificate, OpenSSL 3.0 and 3.1 walk through every algorithm that their library context has fetched, every key
// type, decoder and name, for each certificate anew: 1.5 million instructions, half of a handshake. (3.2 remembers what it found.) So the
// handshake gets a library context of its own, in which a provider of ours is active. It has no algorithm: it hands out those of the
// default provider that are on the list below, and OpenSSL has few to walk through.

import COpenSSL
import Primitives

/// The library context of handshakes. Made once a process and never given back.
public enum HandshakeLibrary {
    /// For `SSL_CTX_new_ex`; nil is the process's own context, with everything in it.
    static var context: OpaquePointer? { made }

    /// Handshakes have a context of their own. If not, this OpenSSL needs none, or is configured for other algorithms than its default
    /// ones, or misses one: then a handshake costs more, and nothing else changes.
    public static var isLean: Bool { made != nil }

    /// For the log: `OpenSSL 3.0.19 reduced for handshakes`.
    public static var name: String {
        "OpenSSL \(String(cString: OpenSSL_version(OPENSSL_VERSION_STRING)))\(isLean ? " reduced for handshakes" : "")"
    }

    /// An operation of OpenSSL, and the algorithms of it that our cipher suites, groups and peers' certificates can ask for.
    private static let wanted: [(operation: Int32, names: [String])] = [
        (OSSL_OP_DIGEST, ["SHA1", "SHA2-224", "SHA2-256", "SHA2-384", "SHA2-512"]),
        (OSSL_OP_CIPHER, ["AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305"]),
        (OSSL_OP_MAC, ["HMAC"]),
        (OSSL_OP_KDF, ["TLS1-PRF"]),
        (OSSL_OP_RAND, ["CTR-DRBG", "SEED-SRC"]),
        (OSSL_OP_KEYMGMT, ["EC", "RSA", "RSA-PSS", "ED25519", "X25519"]),
        (OSSL_OP_KEYEXCH, ["ECDH", "X25519"]),
        (OSSL_OP_SIGNATURE, ["ECDSA", "RSA", "ED25519"]),
        (OSSL_OP_DECODER, ["EC", "RSA", "RSA-PSS", "ED25519"]),
    ]

    /// The process's default provider, whose algorithms they are: they fetch what they need themselves from the process's own context.
    private nonisolated(unsafe) static let provider: OpaquePointer? = {
        guard OpenSSL_version_num() < 0x3020_0000, EVP_default_properties_is_fips_enabled(nil) == 0,
            OSSL_PROVIDER_available(nil, "default") == 1
        else { return nil }
        return OSSL_PROVIDER_load(nil, "default")
    }()

    /// By operation, each ends with an empty entry; nil when one is missing.
    private nonisolated(unsafe) static let algorithms: [Int32: UnsafeMutablePointer<OSSL_ALGORITHM>]? = {
        guard let provider else { return nil }
        var lists: [Int32: UnsafeMutablePointer<OSSL_ALGORITHM>] = [:]
        for (operation, names) in wanted {
            var found: [OSSL_ALGORITHM] = []
            var mustNotBeKept: Int32 = 0
            guard var next = OSSL_PROVIDER_query_operation(provider, operation, &mustNotBeKept), mustNotBeKept == 0 else { return nil }
            while let text = next.pointee.algorithm_names {
                let name = String(cString: text).prefix { $0 != ":" }
                // Certificates carry keys in this form only.
                let isOfUse = operation != OSSL_OP_DECODER || next.hasProperty("structure=SubjectPublicKeyInfo")
                if isOfUse, names.contains(where: { $0 == name }) { found.append(next.pointee) }
                next += 1
            }
            guard found.count == names.count else { return nil }
            let list = UnsafeMutablePointer<OSSL_ALGORITHM>.allocate(capacity: found.count + 1)
            for (index, algorithm) in found.enumerated() { (list + index).initialize(to: algorithm) }
            (list + found.count).initialize(to: OSSL_ALGORITHM())
            lists[operation] = list
        }
        return lists
    }()

    /// What the provider answers to OpenSSL's core.
    private nonisolated(unsafe) static let functions: UnsafeMutablePointer<OSSL_DISPATCH> = {
        typealias Query =
            @convention(c) (
                UnsafeMutableRawPointer?, Int32, UnsafeMutablePointer<Int32>?
            ) -> UnsafePointer<OSSL_ALGORITHM>?
        let query: Query = { _, operation, mustNotBeKept in
            mustNotBeKept?.pointee = 0
            return HandshakeLibrary.algorithms?[operation].map { UnsafePointer($0) }
        }
        // The groups of key shares are such a capability.
        typealias Capabilities =
            @convention(c) (
                UnsafeMutableRawPointer?, UnsafePointer<CChar>?,
                (@convention(c) (UnsafePointer<OSSL_PARAM>?, UnsafeMutableRawPointer?) -> Int32)?,
                UnsafeMutableRawPointer?
            ) -> Int32
        let capabilities: Capabilities = { _, name, callback, argument in
            OSSL_PROVIDER_get_capabilities(HandshakeLibrary.provider, name, callback, argument)
        }
        let functions = UnsafeMutablePointer<OSSL_DISPATCH>.allocate(capacity: 3)
        functions.initialize(
            to: OSSL_DISPATCH(function_id: OSSL_FUNC_PROVIDER_QUERY_OPERATION, function: unsafeBitCast(query, to: Function.self)))
        (functions + 1).initialize(
            to: OSSL_DISPATCH(function_id: OSSL_FUNC_PROVIDER_GET_CAPABILITIES, function: unsafeBitCast(capabilities, to: Function.self)))
        (functions + 2).initialize(to: OSSL_DISPATCH())
        return functions
    }()
    private typealias Function = @convention(c) () -> Void

    private nonisolated(unsafe) static let made: OpaquePointer? = {
        guard algorithms != nil, let library = OSSL_LIB_CTX_new() else { return nil }
        let added = OSSL_PROVIDER_add_builtin(library, "swiftlet") { _, _, functions, context in
            functions?.pointee = UnsafePointer(HandshakeLibrary.functions)
            // The algorithms are the default provider's, and so is what they are called with.
            context?.pointee = OSSL_PROVIDER_get0_provider_ctx(HandshakeLibrary.provider)
            return 1
        }
        guard added == 1, OSSL_PROVIDER_load(library, "swiftlet") != nil, worksOn(library) else {
            ERR_clear_error()
            OSSL_LIB_CTX_free(library)
            return nil
        }
        return library
    }()

    /// Reads a key as it is in a certificate, which is what this is for.
    private static func worksOn(_ library: OpaquePointer) -> Bool {
        guard let bytes = Primitives.bytes(hex: publicKey) else { return false }
        let key = bytes.withUnsafeBufferPointer { buffer in
            var start = buffer.baseAddress
            return d2i_PUBKEY_ex(nil, &start, buffer.count, library, nil)
        }
        defer { EVP_PKEY_free(key) }
        return key != nil
    }

    /// The base point of P-256 as a SubjectPublicKeyInfo (RFC 5480 §2).
    private static let publicKey =
        "3059301306072A8648CE3D020106082A8648CE3D030107034200"
        + "046B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296"
        + "4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5"
}

extension UnsafePointer where Pointee == OSSL_ALGORITHM {
    fileprivate func hasProperty(_ property: String) -> Bool {
        guard let text = pointee.property_definition else { return false }
        return String(cString: text).split(separator: ",").contains { $0 == property }
    }
}
