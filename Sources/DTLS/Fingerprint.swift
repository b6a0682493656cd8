// Certificate fingerprints as the SDP attribute `fingerprint` carries them (RFC 8122 §5).

import COpenSSL
import Primitives

/// The hash functions a fingerprint may name, weakest first. MD5 and MD2 are not here: RFC 8122 forbids them.
public enum DTLSHash: UInt8, Sendable, CaseIterable, Comparable {
    case sha1, sha224, sha256, sha384, sha512

    /// From the SDP name, in any letter case; nil for a name we do not know.
    public init?(name: some StringProtocol) {
        let lower = name.lowercased()
        guard let found = Self.allCases.first(where: { $0.name == lower }) else { return nil }
        self = found
    }

    /// The SDP name, such as `sha-256`.
    public var name: String {
        switch self {
        case .sha1: "sha-1"
        case .sha224: "sha-224"
        case .sha256: "sha-256"
        case .sha384: "sha-384"
        case .sha512: "sha-512"
        }
    }

    /// Length of the hash in bytes.
    public var byteCount: Int {
        switch self {
        case .sha1: 20
        case .sha224: 28
        case .sha256: 32
        case .sha384: 48
        case .sha512: 64
        }
    }

    public static func < (a: DTLSHash, b: DTLSHash) -> Bool { a.rawValue < b.rawValue }

    fileprivate var algorithm: OpaquePointer? { Self.algorithms[Int(rawValue)] }

    /// Fetched once: by name is how OpenSSL 3 finds one each time it is not told.
    private nonisolated(unsafe) static let algorithms: [OpaquePointer?] = {
        let names = ["SHA1", "SHA2-224", "SHA2-256", "SHA2-384", "SHA2-512"]
        return names.map { EVP_MD_fetch(nil, $0, nil) }
    }()
}

/// The hash of a certificate in DER form.
public struct DTLSFingerprint: Sendable, Equatable {
    public var algorithm: DTLSHash
    /// As many bytes as the hash function gives; a fingerprint of any other length matches no certificate.
    public var bytes: [UInt8]

    public init(algorithm: DTLSHash, bytes: [UInt8]) {
        self.algorithm = algorithm
        self.bytes = bytes
    }

    /// Reads the value of an SDP `fingerprint` attribute, such as `sha-256 AA:BB:…`; nil when it is not one, or its length is wrong.
    public init?(sdpText: some StringProtocol) {
        let parts = sdpText.split(separator: " ")
        guard parts.count == 2, let algorithm = DTLSHash(name: parts[0]) else { return nil }
        let pairs = parts[1].utf8.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        guard pairs.count == algorithm.byteCount, pairs.allSatisfy({ $0.count == 2 }) else { return nil }
        guard let bytes = Primitives.bytes(hex: String(parts[1]).filter { $0 != ":" }), bytes.count == pairs.count else { return nil }
        self.init(algorithm: algorithm, bytes: bytes)
    }

    /// The value of an SDP `fingerprint` attribute: `sha-256 AA:BB:…`.
    public var sdpText: String {
        let digits = Array("0123456789ABCDEF".utf8)
        var text = Array(algorithm.name.utf8)
        for (index, byte) in bytes.enumerated() {
            text.append(UInt8(ascii: index == 0 ? " " : ":"))
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    init?(of certificate: OpaquePointer, algorithm: DTLSHash) {
        guard let function = algorithm.algorithm else { return nil }
        var digest = [UInt8](repeating: 0, count: 64)
        var count: UInt32 = 0
        guard X509_digest(certificate, function, &digest, &count) == 1 else { return nil }
        self.init(algorithm: algorithm, bytes: Array(digest.prefix(Int(count))))
    }
}

extension Array where Element == DTLSFingerprint {
    /// Whether the certificate is one of those announced. The rule of RFC 8122 §5: of all fingerprints take those with the
    /// strongest hash function offered; one of them has to match. A SHA-1 match beside a SHA-256 mismatch therefore counts for
    /// nothing, several certificates (several fingerprints of one hash) are fine, and no fingerprint at all is a refusal.
    func accept(_ certificate: OpaquePointer) -> Bool {
        guard let strongest = self.map(\.algorithm).max(), let actual = DTLSFingerprint(of: certificate, algorithm: strongest) else {
            return false
        }
        return contains(actual)
    }
}
