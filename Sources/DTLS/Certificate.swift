// Our identity: one self-signed certificate a process, never stored, never checked against anything but its fingerprint.

import COpenSSL
import Primitives

/// A P-256 key and its self-signed certificate. Immutable after it is made; OpenSSL counts references atomically, so that workers
/// may share it.
public final class DTLSCertificate: @unchecked Sendable {
    let certificate: OpaquePointer
    let privateKey: OpaquePointer
    /// The SHA-256 fingerprint, for the SDP answer.
    public let fingerprint: DTLSFingerprint

    private init(certificate: OpaquePointer, privateKey: OpaquePointer, fingerprint: DTLSFingerprint) {
        self.certificate = certificate
        self.privateKey = privateKey
        self.fingerprint = fingerprint
    }

    deinit {
        X509_free(certificate)
        EVP_PKEY_free(privateKey)
    }

    /// Makes a key (ECDSA P-256) and a certificate for it: name `swiftlet`, random serial number, valid from one day before `now`
    /// to thirty days after it.
    public static func generate(at now: WallClock) throws(DTLSError) -> DTLSCertificate {
        guard let key = generateKey() else { throw .keyGeneration }
        guard let certificate = X509_new() else {
            EVP_PKEY_free(key)
            throw .certificateSigning
        }
        guard describe(certificate, now), X509_set_pubkey(certificate, key) == 1, X509_sign(certificate, key, EVP_sha256()) > 0,
            let fingerprint = DTLSFingerprint(of: certificate, algorithm: .sha256)
        else {
            X509_free(certificate)
            EVP_PKEY_free(key)
            throw .certificateSigning
        }
        return DTLSCertificate(certificate: certificate, privateKey: key, fingerprint: fingerprint)
    }

    private static func generateKey() -> OpaquePointer? {
        guard let context = EVP_PKEY_CTX_new_from_name(nil, "EC", nil) else { return nil }
        defer { EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        guard EVP_PKEY_keygen_init(context) == 1, EVP_PKEY_CTX_set_group_name(context, "P-256") == 1,
            EVP_PKEY_generate(context, &key) == 1
        else { return nil }
        return key
    }

    /// Everything but the key: version 3, serial number, validity, and one name for subject and issuer.
    private static func describe(_ certificate: OpaquePointer, _ now: WallClock) -> Bool {
        let day = 86_400
        let seconds = Int(clamping: now.secondsSince1970)
        var serial: UInt64 = 0
        guard RAND_bytes(&serial, 8) == 1 else { return false }
        let name = X509_get_subject_name(certificate)
        return X509_set_version(certificate, 2) == 1
            // Positive and never zero, as RFC 5280 §4.1.2.2 asks.
            && ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial >> 1 | 1) == 1
            && ASN1_TIME_set(X509_getm_notBefore(certificate), max(0, seconds - day)) != nil
            && ASN1_TIME_set(X509_getm_notAfter(certificate), seconds + 30 * day) != nil
            && X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_FLAG | 1, "swiftlet", -1, -1, 0) == 1
            && X509_set_issuer_name(certificate, name) == 1
    }
}
