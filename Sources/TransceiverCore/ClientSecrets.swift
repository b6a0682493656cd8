// Client secrets without a memory: what a secret allows is sealed inside it, so every transceiver of a cluster opens what any other has
// minted, also after a restart.
//
//     ek_ base64url( version 1 byte, nonce 12, AES-256-GCM( expiry u64 seconds since 1970, session JSON ), tag 16 )
//
// In version 2 the length of the end user's safety identifier, 2 bytes, and itself come before the session.
//
// The key is HMAC-SHA-256(the key file's passwordKey, "swiftlet client secret"). Nobody can take a secret back before it expires, which
// is why none lives longer than two hours.

import Crypto
import Primitives
import Realtime
import RoutingHint

public struct ClientSecrets: Sendable {
    /// How every secret begins.
    public static let prefix = "ek_"
    /// A secret travels in a header field, which proxies and servers bound: larger sessions are sent with `session.update`.
    public static let sessionBytesMax = 24_576

    private static let version: UInt8 = 1
    private static let versionWithUser: UInt8 = 2
    private static let label = Array("swiftlet client secret".utf8)
    private let key: Digest32

    public init(_ ring: KeyRing) { key = HMACSHA256.tag(key: ring.passwordKey.bytes, Self.label.bytes) }

    /// What a token is.
    public enum Opened: Sendable, Equatable {
        /// Sessions begin with `session`.
        case valid(session: SessionObject, expiresAt: UInt64)
        case expired
        /// Not made with our key, or changed.
        case unknown
    }

    /// A new secret.
    ///
    /// - Parameters:
    ///   - session: what sessions begin with, as the client wrote it; nil for the defaults.
    ///   - safetyIdentifier: of the end user; its first 512 bytes count.
    ///   - expiresAt: seconds since 1970.
    public func mint(
        session: JSONValue?, safetyIdentifier: String? = nil, expiresAt: UInt64, random: inout some RandomNumberGenerator
    ) throws(APIError) -> String {
        var plaintext: [UInt8] = []
        for shift in stride(from: 56, through: 0, by: -8) { plaintext.append(UInt8(truncatingIfNeeded: expiresAt >> UInt64(shift))) }
        if let user = safetyIdentifier?.utf8.prefix(512) {
            plaintext += [UInt8(truncatingIfNeeded: user.count >> 8), UInt8(truncatingIfNeeded: user.count)] + user
        }
        let version = safetyIdentifier == nil ? Self.version : Self.versionWithUser
        let before = plaintext.count
        session?.write(to: &plaintext)
        guard plaintext.count - before <= Self.sessionBytesMax else {
            throw APIError(
                code: "session_too_large",
                message: "The session is larger than \(Self.sessionBytesMax) bytes. Send long instructions and tools with session.update.",
                param: "session")
        }
        let (a, b) = (random.next(), random.next())
        let nonce = AES256GCM.Nonce { UInt8(truncatingIfNeeded: ($0 < 8 ? a : b) >> UInt64(8 * ($0 & 7))) }
        let sealed = AES256GCM.seal(plaintext.bytes, key: key, nonce: nonce, context: [version].bytes)
        let text = Base64.encode([version] + nonce.array + sealed, padding: false)
        return Self.prefix + String(text.map { $0 == "+" ? "-" : $0 == "/" ? "_" : $0 })
    }

    public func open(_ token: String, at wall: WallClock) -> Opened {
        guard token.hasPrefix(Self.prefix), token.utf8.count <= 2 * Self.sessionBytesMax else { return .unknown }
        let text = token.dropFirst(Self.prefix.count)
        guard !text.utf8.contains(where: { "+/=".utf8.contains($0) }),
            let raw = Base64.decode(String(text.map { $0 == "-" ? "+" : $0 == "_" ? "/" : $0 })),
            raw.count >= 13 + 8 + AES256GCM.tagLength, raw[0] == Self.version || raw[0] == Self.versionWithUser
        else { return .unknown }
        let nonce = AES256GCM.Nonce { raw[1 + $0] }
        guard let plaintext = AES256GCM.open(raw.bytes.bytes(13..<raw.count), key: key, nonce: nonce, context: [raw[0]].bytes) else {
            return .unknown
        }
        let expiresAt = plaintext.bytes.u64(0)
        guard wall.secondsSince1970 < expiresAt else { return .expired }
        var session = SessionObject()
        var start = 8
        if raw[0] == Self.versionWithUser {
            guard plaintext.count >= 10 else { return .unknown }
            start = 10 + Int(plaintext.bytes.u16(8))
            guard start <= plaintext.count else { return .unknown }
            session.safetyIdentifier = String(validating: plaintext[10..<start], as: UTF8.self)
        }
        guard plaintext.count > start else { return .valid(session: session, expiresAt: expiresAt) }
        do {
            let json = try JSONValue(parsing: plaintext.bytes.bytes(start..<plaintext.count))
            try session.apply(json, abilities: SessionObject.Abilities(semanticVAD: true))
        } catch {
            // Minted by another release, which accepted what this one does not.
            return .unknown
        }
        return .valid(session: session, expiresAt: expiresAt)
    }
}

/// No text opens that was not minted, and nothing traps.
public func fuzzClientSecret(_ bytes: RawSpan, minted: String, _ secrets: ClientSecrets) {
    guard let token = String(validating: bytes.array, as: UTF8.self), token != minted else { return }
    let opened = secrets.open(token, at: WallClock(secondsSince1970: 0))
    precondition(opened == .unknown, "a secret opens that was never minted")
}
