// What all associations of a worker share: version, ciphers, groups, SRTP profiles, and the rule for certificates.

import COpenSSL

/// Our DTLS settings with our certificate. The corresponding C type is `SSL_CTX`. One a worker thread: it may move
/// between threads (nothing changes it after `init`), but its reference count is then contended.
public struct DTLSContext: ~Copyable, @unchecked Sendable {
    let pointer: OpaquePointer

    /// - Parameter profiles: the SRTP profiles to offer and accept, best first.
    public init(
        certificate: DTLSCertificate, profiles: [DTLSProtectionProfile] = DTLSProtectionProfile.preferenceOrder
    ) throws(DTLSError) {
        guard let context = SSL_CTX_new_ex(HandshakeLibrary.context, nil, DTLS_method()) else { throw .contextCreation }
        guard Self.configure(context, certificate, profiles) else {
            SSL_CTX_free(context)
            throw .settingRefused
        }
        pointer = context
    }

    deinit {
        SSL_CTX_free(pointer)
    }

    private static func configure(_ context: OpaquePointer, _ certificate: DTLSCertificate, _ profiles: [DTLSProtectionProfile]) -> Bool {
        let options = Bit.noQueryMTU | Bit.noTicket | Bit.noRenegotiation | Bit.cipherServerPreference | Bit.noCompression
        _ = SSL_CTX_set_options(context, options)
        // Sessions are never resumed: a call has one handshake.
        _ = SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, Int(SSL_SESS_CACHE_OFF), nil)
        // Bounds what a peer makes us buffer: a handshake message is at most this long.
        _ = SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_CERT_LIST, 16_384, nil)
        // A record leaves in a datagram. OpenSSL sets aside a buffer for the longest it may write, 17 kB if nobody tells it.
        _ = SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_SEND_FRAGMENT, DTLSLink.mtu, nil)
        // RFC 8122: the certificate is judged by its fingerprint alone. The callback replaces OpenSSL's chain building.
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
        SSL_CTX_set_cert_verify_callback(context, { store, _ in DTLSLink.verifyCertificate(store) }, nil)

        let profileNames = profiles.map(\.name).joined(separator: ":")
        return SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(DTLS1_2_VERSION), nil) == 1
            && SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, Int(DTLS1_2_VERSION), nil) == 1
            && SSL_CTX_set_cipher_list(context, cipherSuites) == 1
            && groups.withCString { SSL_CTX_ctrl(context, SSL_CTRL_SET_GROUPS_LIST, 0, UnsafeMutableRawPointer(mutating: $0)) } == 1
            && SSL_CTX_set_tlsext_use_srtp(context, profileNames) == 0  // this one function gives 0 for success
            && SSL_CTX_use_certificate(context, certificate.certificate) == 1
            && SSL_CTX_use_PrivateKey(context, certificate.privateKey) == 1
    }

    /// Forward secrecy and AEAD only; our own certificate is ECDSA, a peer's may be RSA.
    private static let cipherSuites =
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
        + "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
    /// libdatachannel knows P-256 alone.
    private static let groups = "X25519:P-256:P-384"

    /// Option bits whose C macros are beyond the importer.
    private enum Bit {
        /// `SSL_OP_NO_QUERY_MTU`
        static let noQueryMTU: UInt64 = 1 << 12
        /// `SSL_OP_NO_TICKET`
        static let noTicket: UInt64 = 1 << 14
        /// `SSL_OP_NO_COMPRESSION`
        static let noCompression: UInt64 = 1 << 17
        /// `SSL_OP_CIPHER_SERVER_PREFERENCE`
        static let cipherServerPreference: UInt64 = 1 << 22
        /// `SSL_OP_NO_RENEGOTIATION`
        static let noRenegotiation: UInt64 = 1 << 30
    }
}
