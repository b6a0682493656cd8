// What is left of an association whose OpenSSL was given back: enough to know the peer's goodbye from anybody else's.

import COpenSSL
import Primitives

/// Opens alerts of epoch 1 and nothing else: some 100 bytes in place of 50 kB. The key is the peer's write key of RFC 5246 §6.3, derived once
/// more by OpenSSL's own PRF from the master secret, which is then forgotten; a record is opened by its AEAD (RFC 5288 §3, RFC 7905 §2).
struct GoodbyeKey {
    private enum Suite {
        case aes128, aes256, chacha20

        init?(_ cipher: OpaquePointer) {
            switch SSL_CIPHER_get_cipher_nid(cipher) {
            case NID_aes_128_gcm: self = .aes128
            case NID_aes_256_gcm: self = .aes256
            case NID_chacha20_poly1305: self = .chacha20
            default: return nil
            }
        }

        var name: String {
            switch self {
            case .aes128: "AES-128-GCM"
            case .aes256: "AES-256-GCM"
            case .chacha20: "ChaCha20-Poly1305"
            }
        }
        var keySize: Int { self == .aes128 ? 16 : 32 }
        /// What of the nonce is derived with the key.
        var fixedSize: Int { self == .chacha20 ? 12 : 4 }
        /// What of the nonce travels in the record.
        var explicitSize: Int { self == .chacha20 ? 0 : 8 }
    }

    private static let tagSize = 16
    /// Level and description.
    private static let alertSize = 2
    /// Alerts of one datagram that are looked at: a peer sends one.
    private static let recordsMax = 4

    private let suite: Suite
    private let key: [UInt8]
    private let fixed: [UInt8]

    /// nil for an association that has no keys, or others than ours ever have.
    ///
    /// - Parameter role: ours.
    init?(of ssl: OpaquePointer, _ role: DTLSRole) {
        guard let cipher = SSL_get_current_cipher(ssl), let suite = Suite(cipher), let session = SSL_get_session(ssl),
            let digest = SSL_CIPHER_get_handshake_digest(cipher).flatMap({ EVP_MD_get0_name($0) })
        else { return nil }
        var secret = [UInt8](repeating: 0, count: 48)
        defer { OPENSSL_cleanse(&secret, secret.count) }
        let length = SSL_SESSION_get_master_key(session, &secret, secret.count)
        var seed = Array("key expansion".utf8)
        var random = [UInt8](repeating: 0, count: 32)
        guard length == 48, SSL_get_server_random(ssl, &random, 32) == 32 else { return nil }
        seed += random
        guard SSL_get_client_random(ssl, &random, 32) == 32 else { return nil }
        seed += random
        var block = [UInt8](repeating: 0, count: 2 * (suite.keySize + suite.fixedSize))
        guard Self.derive(&block, String(cString: digest), &secret, &seed) else { return nil }
        defer { OPENSSL_cleanse(&block, block.count) }
        // Both write keys, then what of their nonces is fixed, the client's first.
        let place = role == .client ? 1 : 0
        self.suite = suite
        key = Array(block[(place * suite.keySize)...].prefix(suite.keySize))
        fixed = Array(block[(2 * suite.keySize + place * suite.fixedSize)...].prefix(suite.fixedSize))
    }

    private static func derive(_ block: inout [UInt8], _ digest: String, _ secret: inout [UInt8], _ seed: inout [UInt8]) -> Bool {
        guard let function = EVP_KDF_fetch(nil, "TLS1-PRF", nil) else { return false }
        defer { EVP_KDF_free(function) }
        guard let context = EVP_KDF_CTX_new(function) else { return false }
        defer { EVP_KDF_CTX_free(context) }
        var name = Array(digest.utf8CString)
        return name.withUnsafeMutableBufferPointer { name in
            secret.withUnsafeMutableBytes { secret in
                seed.withUnsafeMutableBytes { seed in
                    let parameters = [
                        OSSL_PARAM_construct_utf8_string(Self.text("digest"), name.baseAddress, 0),
                        OSSL_PARAM_construct_octet_string(Self.text("secret"), secret.baseAddress, secret.count),
                        OSSL_PARAM_construct_octet_string(Self.text("seed"), seed.baseAddress, seed.count),
                        OSSL_PARAM_construct_end(),
                    ]
                    return EVP_KDF_derive(context, &block, block.count, parameters) == 1
                }
            }
        }
    }

    /// A name of a parameter, at an address that stays: the macros for them are strings of a moment here.
    private static func text(_ name: StaticString) -> UnsafePointer<CChar> {
        UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    }

    /// Whether `datagram` has an alert of the peer that ends the association: close_notify, or anything fatal (RFC 5246 §7.2).
    func opensEnd(in datagram: RawSpan) -> Bool {
        var offset = 0
        for _ in 0..<Self.recordsMax {
            guard let record = DTLSRecord(in: datagram, at: offset) else { return false }
            offset = record.range.upperBound
            if record.contentType == 21, record.epoch == 1, let alert = open(datagram.bytes(record.range)), alert.0 == 2 || alert.1 == 0 {
                return true
            }
        }
        return false
    }

    /// Level and description of an authentic alert.
    private func open(_ record: RawSpan) -> (UInt8, UInt8)? {
        let body = DTLSRecord.headerSize + suite.explicitSize
        guard record.byteCount == body + Self.alertSize + Self.tagSize else { return nil }
        // Epoch and sequence number, type, version, and the length of what is inside.
        let header = record.bytes(3..<11).array + record.bytes(0..<3).array + [0, UInt8(Self.alertSize)]
        var nonce = fixed
        if suite == .chacha20 {
            for index in 0..<8 { nonce[4 + index] ^= record.byte(3 + index) }
        } else {
            nonce += record.bytes(DTLSRecord.headerSize..<body).array
        }
        let sealed = record.bytes(body..<(body + Self.alertSize)).array
        var tag = record.bytes((body + Self.alertSize)..<record.byteCount).array
        guard let algorithm = EVP_CIPHER_fetch(nil, suite.name, nil) else { return nil }
        defer { EVP_CIPHER_free(algorithm) }
        guard let cipher = EVP_CIPHER_CTX_new() else { return nil }
        defer { EVP_CIPHER_CTX_free(cipher) }
        var alert: [UInt8] = [0, 0]
        var rest: [UInt8] = [0]
        var written: CInt = 0
        guard EVP_DecryptInit_ex2(cipher, algorithm, key, nonce, nil) == 1,
            EVP_DecryptUpdate(cipher, nil, &written, header, CInt(header.count)) == 1,
            EVP_DecryptUpdate(cipher, &alert, &written, sealed, CInt(sealed.count)) == 1, written == CInt(sealed.count),
            EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, CInt(Self.tagSize), &tag) == 1,
            EVP_DecryptFinal_ex(cipher, &rest, &written) == 1
        else { return nil }
        return (alert[0], alert[1])
    }
}
