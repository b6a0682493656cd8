import COpenSSL

/// What all our streams share: versions, and whom we trust. The corresponding C type is `SSL_CTX`. Nothing changes it after `init`, so that
/// threads may share it.
public struct TLSClientContext: ~Copyable, @unchecked Sendable {
    let pointer: OpaquePointer

    public init(authorities: TLSAuthorities = .system) throws(TLSError) {
        guard let context = SSL_CTX_new(TLS_client_method()) else { throw .contextCreation }
        guard Self.configure(context) else {
            SSL_CTX_free(context)
            throw .settingRefused
        }
        let isLoaded =
            switch authorities {
            case .system: SSL_CTX_set_default_verify_paths(context) == 1
            case .file(let path): SSL_CTX_load_verify_locations(context, path, nil) == 1
            case .pem(let bytes): Self.load(bytes, context)
            }
        ERR_clear_error()
        guard isLoaded else {
            SSL_CTX_free(context)
            throw .authorities
        }
        pointer = context
    }

    deinit { SSL_CTX_free(pointer) }

    /// As `SSL_CTX_load_verify_locations`: all certificates up to what is none, and at least one.
    private static func load(_ pem: [UInt8], _ context: OpaquePointer) -> Bool {
        guard let store = SSL_CTX_get_cert_store(context) else { return false }
        return pem.withUnsafeBytes { bytes in
            guard let text = BIO_new_mem_buf(bytes.baseAddress, CInt(clamping: bytes.count)) else { return false }
            defer { BIO_free(text) }
            var count = 0
            while let certificate = PEM_read_bio_X509(text, nil, nil, nil) {
                let isTaken = X509_STORE_add_cert(store, certificate) == 1
                X509_free(certificate)
                guard isTaken else { return false }
                count += 1
            }
            return count > 0
        }
    }

    private static func configure(_ context: OpaquePointer) -> Bool {
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
        _ = SSL_CTX_set_options(context, Bit.noTicket | Bit.noRenegotiation | Bit.noCompression)
        _ = SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, Int(SSL_SESS_CACHE_OFF), nil)
        // Bounds what a server makes us buffer before it has proven anything.
        _ = SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_CERT_LIST, 65_536, nil)
        _ = SSL_CTX_ctrl(context, SSL_CTRL_MODE, Mode.partialWrite | Mode.movingBuffer | Mode.releaseBuffers, nil)
        return SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(TLS1_2_VERSION), nil) == 1
            && SSL_CTX_set_cipher_list(context, cipherSuites) == 1
    }

    /// For TLS 1.2: forward secrecy and AEAD only. All suites of TLS 1.3 have both.
    private static let cipherSuites = "ECDHE+AESGCM:ECDHE+CHACHA20"

    /// Option bits whose C macros are beyond the importer.
    private enum Bit {
        /// `SSL_OP_NO_TICKET`
        static let noTicket: UInt64 = 1 << 14
        /// `SSL_OP_NO_COMPRESSION`
        static let noCompression: UInt64 = 1 << 17
        /// `SSL_OP_NO_RENEGOTIATION`
        static let noRenegotiation: UInt64 = 1 << 30
    }

    private enum Mode {
        /// `SSL_MODE_ENABLE_PARTIAL_WRITE`
        static let partialWrite = 1
        /// `SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER`
        static let movingBuffer = 2
        /// `SSL_MODE_RELEASE_BUFFERS`: an idle stream gives back 34 kB.
        static let releaseBuffers = 16
    }
}
