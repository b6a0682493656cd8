import COpenSSL
import DTLS
import Primitives

/// Peers unlike ourselves: OpenSSL with other settings, over memory BIOs.
final class ForeignPeer {
    struct Settings: Sendable, CustomStringConvertible {
        var description: String
        /// A curve, or OpenSSL's name of another type of key.
        var key = "P-256"
        var certificate = true
        var ciphers = "DEFAULT"
        var groups = "X25519:P-256"
        var profiles: String? = "SRTP_AES128_CM_SHA1_80"
        var version = DTLS1_2_VERSION
        var helloVerify = false
        var mtu = 1200
    }

    private let context: OpaquePointer
    private let ssl: OpaquePointer
    private let input = BIO_new(BIO_s_mem())
    private let output = BIO_new(BIO_s_mem())
    private var certificate: OpaquePointer?
    private(set) var isEstablished = false
    private(set) var hasFailed = false

    init(_ role: DTLSRole, _ settings: Settings) {
        context = SSL_CTX_new(DTLS_method())
        _ = SSL_CTX_set_options(context, 1 << 12)
        _ = SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, Int(settings.version), nil)
        _ = SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(DTLS1_VERSION), nil)
        var groups = Array(settings.groups.utf8CString)
        precondition(SSL_CTX_ctrl(context, SSL_CTRL_SET_GROUPS_LIST, 0, &groups) == 1)
        // Level 0, so that this peer may also offer what we must refuse.
        precondition(SSL_CTX_set_cipher_list(context, settings.ciphers + ":@SECLEVEL=0") == 1)
        if let profiles = settings.profiles { precondition(SSL_CTX_set_tlsext_use_srtp(context, profiles) == 0) }
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, { _, _ in 1 })
        if settings.certificate {
            let (key, certificate) = Self.makeCertificate(settings.key)
            SSL_CTX_use_certificate(context, certificate)
            SSL_CTX_use_PrivateKey(context, key)
            EVP_PKEY_free(key)
            self.certificate = certificate
        }
        if settings.helloVerify {
            _ = SSL_CTX_set_options(context, 1 << 13)
            SSL_CTX_set_cookie_generate_cb(context) { _, cookie, length in
                for index in 0..<16 { cookie?[index] = UInt8(index) }
                length?.pointee = 16
                return 1
            }
            SSL_CTX_set_cookie_verify_cb(context) { _, cookie, length in length == 16 && cookie?[5] == 5 ? 1 : 0 }
        }
        ssl = SSL_new(context)
        SSL_set_bio(ssl, input, output)
        _ = BIO_ctrl(input, BIO_C_SET_BUF_MEM_EOF_RETURN, -1, nil)
        _ = BIO_ctrl(output, BIO_C_SET_BUF_MEM_EOF_RETURN, -1, nil)
        _ = SSL_ctrl(ssl, SSL_CTRL_SET_MTU, settings.mtu, nil)
        if role == .client { SSL_set_connect_state(ssl) } else { SSL_set_accept_state(ssl) }
        if role == .client { step() }
    }

    deinit {
        SSL_free(ssl)
        SSL_CTX_free(context)
        X509_free(certificate)
    }

    /// The fingerprint under any hash; all zero for a peer without a certificate.
    func fingerprint(_ algorithm: DTLSHash) -> DTLSFingerprint {
        var digest = [UInt8](repeating: 0, count: algorithm.byteCount)
        let name = algorithm.name.filter { $0 != "-" }
        if let certificate { X509_digest(certificate, EVP_get_digestbyname(name), &digest, nil) }
        return DTLSFingerprint(algorithm: algorithm, bytes: digest)
    }

    func receive(_ datagram: [UInt8]) {
        BIO_write(input, datagram, Int32(datagram.count))
        step()
    }

    /// What it has to send, a record a datagram (a memory BIO glues datagrams together).
    func flight() -> [[UInt8]] {
        var bytes = [UInt8](repeating: 0, count: 32_768)
        bytes.removeLast(bytes.count - max(0, Int(BIO_read(output, &bytes, Int32(bytes.count)))))
        var datagrams: [[UInt8]] = []
        while bytes.count >= 13 {
            let length = 13 + Int(bytes[11]) << 8 + Int(bytes[12])
            datagrams.append(Array(bytes.prefix(length)))
            bytes.removeFirst(min(length, bytes.count))
        }
        return datagrams
    }

    func send(_ message: [UInt8]) -> Bool { SSL_write(ssl, message, Int32(message.count)) == message.count }

    /// Queues its close_notify.
    func close() { SSL_shutdown(ssl) }

    func message() -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 2048)
        let count = SSL_read(ssl, &bytes, Int32(bytes.count))
        return count > 0 ? Array(bytes.prefix(Int(count))) : nil
    }

    /// The exporter's output for a profile with keys of 16 and salts of 14 bytes.
    func keyBlock() -> [UInt8] {
        var block = [UInt8](repeating: 0, count: 60)
        SSL_export_keying_material(ssl, &block, 60, "EXTRACTOR-dtls_srtp", 19, nil, 0, 0)
        return block
    }

    var cipher: String { String(cString: SSL_CIPHER_get_name(SSL_get_current_cipher(ssl))) }

    private func step() {
        guard !isEstablished, !hasFailed else { return }
        ERR_clear_error()
        let result = SSL_do_handshake(ssl)
        if result == 1 {
            isEstablished = true
        } else if SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ {
            hasFailed = true
        }
    }

    private static func makeCertificate(_ type: String) -> (key: OpaquePointer?, certificate: OpaquePointer?) {
        let isCurve = type.hasPrefix("P-")
        let generator = EVP_PKEY_CTX_new_from_name(nil, isCurve ? "EC" : type, nil)
        defer { EVP_PKEY_CTX_free(generator) }
        EVP_PKEY_keygen_init(generator)
        if isCurve { EVP_PKEY_CTX_set_group_name(generator, type) }
        var key: OpaquePointer?
        precondition(EVP_PKEY_generate(generator, &key) == 1)
        let certificate = X509_new()
        X509_set_version(certificate, 2)
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1)
        ASN1_TIME_set(X509_getm_notBefore(certificate), 0)
        // Long out of date: that must not matter.
        ASN1_TIME_set(X509_getm_notAfter(certificate), 1_000_000)
        X509_set_pubkey(certificate, key)
        precondition(X509_sign(certificate, key, type == "ED25519" ? nil : EVP_sha256()) > 0)
        return (key, certificate)
    }
}
