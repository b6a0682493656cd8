// The keys that signaling, transceivers and relays of one deployment share, and the file that carries them.

import Crypto
import Primitives

/// One hint key. Its id travels in the clear in every hint made with it.
public struct HintKey: Hashable, Sendable {
    /// 0…31.
    public let id: UInt8
    /// AES-128: 16 bytes.
    public let cipherKey: [UInt8]
    /// HMAC-SHA-256: 32 bytes.
    public let tagKey: [UInt8]
    /// When it retires, in seconds since 1970: from then on it neither mints nor opens. Nil for never.
    public var until: UInt64?

    /// Nil unless the id is below 32 and the keys have their lengths.
    public init?(id: UInt8, cipherKey: [UInt8], tagKey: [UInt8], until: UInt64? = nil) {
        guard id < 32, cipherKey.count == 16, tagKey.count == 32 else { return nil }
        self.id = id
        self.cipherKey = cipherKey
        self.tagKey = tagKey
        self.until = until
    }
}

/// All keys. Never printed: it has no description of its own, and `json` is for the key file alone.
public struct KeyRing: Hashable, Sendable {
    /// 1…32 keys with different ids. The first one that has not retired mints, all that have not retired open.
    public private(set) var hintKeys: [HintKey]
    /// HMAC-SHA-256 key of the ice-pwd: 32 bytes.
    public let passwordKey: [UInt8]
    /// Key of the trunk's frame tag: frames are sent under it.
    public private(set) var trunkKey: SipKey
    /// While the trunk key is rotated: frames under this one are taken too, and none is sent. Never the same as `trunkKey`.
    public private(set) var acceptedTrunkKey: SipKey?

    /// Nil for no hint key, two hint keys with one id, a password key that is not 32 bytes long, or one trunk key twice.
    public init?(hintKeys: [HintKey], passwordKey: [UInt8], trunkKey: SipKey, acceptedTrunkKey: SipKey? = nil) {
        guard !hintKeys.isEmpty, Set(hintKeys.map(\.id)).count == hintKeys.count, passwordKey.count == 32,
            acceptedTrunkKey != trunkKey
        else { return nil }
        self.hintKeys = hintKeys
        self.passwordKey = passwordKey
        self.trunkKey = trunkKey
        self.acceptedTrunkKey = acceptedTrunkKey
    }

    /// A new ring with one hint key.
    public static func generate(random: inout some RandomNumberGenerator) -> KeyRing {
        KeyRing(
            first: makeHintKey(id: 0, random: &random), passwordKey: makeBytes(32, random: &random),
            trunkKey: SipKey(k0: random.next(), k1: random.next()))
    }

    private init(first: HintKey, passwordKey: [UInt8], trunkKey: SipKey) {
        hintKeys = [first]
        self.passwordKey = passwordKey
        self.trunkKey = trunkKey
    }

    /// Puts a fresh key first, which mints from now on, and keeps the newest `keeping` in all (1…32).
    ///
    /// A key may only be dropped when its last hint has expired; and every relay must know a key before signaling mints with it.
    public mutating func rotate(keeping count: Int, random: inout some RandomNumberGenerator) {
        let kept = Array(hintKeys.prefix(max(min(count, 32), 1) - 1))
        var id = (hintKeys[0].id + 1) % 32
        while kept.contains(where: { $0.id == id }) { id = (id + 1) % 32 }
        hintKeys = [Self.makeHintKey(id: id, random: &random)] + kept
    }

    /// The first step of a rotation: a fresh key, last, which opens and does not mint yet. False when there are 32 already.
    public mutating func add(random: inout some RandomNumberGenerator) -> Bool {
        guard hintKeys.count < 32 else { return false }
        var id = (hintKeys[0].id + 1) % 32
        while hintKeys.contains(where: { $0.id == id }) { id = (id + 1) % 32 }
        hintKeys.append(Self.makeHintKey(id: id, random: &random))
        return true
    }

    /// The second step, when every relay has the last key: it mints from now on, and the one that minted until now retires at `until`.
    /// Keys that have retired before `now` (both in seconds since 1970) are dropped. False when the last key is no fresh one.
    public mutating func promote(at now: UInt64, retiringTheOldAt until: UInt64) -> Bool {
        guard hintKeys.count > 1, let key = hintKeys.last, key.until == nil else { return false }
        hintKeys.removeLast()
        hintKeys[0].until = min(hintKeys[0].until ?? .max, until)
        hintKeys = [key] + hintKeys.filter { $0.until ?? .max > now }
        return true
    }

    /// The first step of a rotation of the trunk key: a fresh one, which is accepted and not sent under. False when one is accepted already.
    public mutating func addTrunkKey(random: inout some RandomNumberGenerator) -> Bool {
        guard acceptedTrunkKey == nil else { return false }
        acceptedTrunkKey = SipKey(k0: random.next(), k1: random.next())
        return true
    }

    /// The second step, when everybody has the accepted key: frames are sent under it from now on, and the one of before is accepted. Once
    /// more, and it is as it was. False when no key is accepted.
    public mutating func promoteTrunkKey() -> Bool {
        guard let accepted = acceptedTrunkKey else { return false }
        acceptedTrunkKey = trunkKey
        trunkKey = accepted
        return true
    }

    /// The last step, when nobody sends under the accepted key any more. False when none is accepted.
    public mutating func retireTrunkKey() -> Bool {
        guard acceptedTrunkKey != nil else { return false }
        acceptedTrunkKey = nil
        return true
    }

    /// Why a program that runs with `old` cannot go on with these keys, for the operator; nil when it can. Hint keys may be any. The trunk
    /// keys must have one in common: a program that has missed a step of a rotation catches up.
    public func problem(following old: KeyRing) -> String? {
        guard passwordKey == old.passwordKey else { return "another passwordKey is another deployment; restart for that" }
        let known = [old.trunkKey, old.acceptedTrunkKey].compactMap(\.self)
        guard known.contains(trunkKey) || acceptedTrunkKey.map(known.contains) == true else {
            return "no trunk key of before is in it; rotate it with 'swiftlet keys trunk', or restart for another deployment"
        }
        return nil
    }

    private static func makeHintKey(id: UInt8, random: inout some RandomNumberGenerator) -> HintKey {
        guard let key = HintKey(id: id, cipherKey: makeBytes(16, random: &random), tagKey: makeBytes(32, random: &random))
        else { preconditionFailure("the lengths are constants") }
        return key
    }

    private static func makeBytes(_ count: Int, random: inout some RandomNumberGenerator) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count { withEachByte(of: random.next()) { if bytes.count < count { bytes.append($0) } } }
        return bytes
    }

    private static func withEachByte(of word: UInt64, _ body: (UInt8) -> Void) {
        for index in 0..<8 { body(UInt8(truncatingIfNeeded: word >> UInt64(8 * index))) }
    }
}

extension KeyRing {
    /// The content of the key file (SPEC.md): hexadecimal values, ends with a line feed.
    public var json: String {
        let keys = hintKeys.map { key in
            let until = key.until.map { ", \"until\": \($0)" } ?? ""
            return "    { \"id\": \(key.id), \"cipher\": \"\(hex(key.cipherKey))\", \"tag\": \"\(hex(key.tagKey))\"\(until) }"
        }
        let accepted = acceptedTrunkKey.map { ",\n  \"acceptedTrunkKey\": \"\(hex(Self.bytes(of: $0)))\"" } ?? ""
        return """
            {
              "version": 1,
              "hintKeys": [
            \(keys.joined(separator: ",\n"))
              ],
              "passwordKey": "\(hex(passwordKey))",
              "trunkKey": "\(hex(Self.bytes(of: trunkKey)))"\(accepted)
            }

            """
    }

    /// The 16 bytes of a SipHash key, little-endian as in the paper.
    private static func bytes(of key: SipKey) -> [UInt8] {
        var bytes: [UInt8] = []
        withEachByte(of: key.k0) { bytes.append($0) }
        withEachByte(of: key.k1) { bytes.append($0) }
        return bytes
    }
}

/// Why a key file is refused: one sentence that names the line, the place and what is wanted, never a key.
public struct KeyFileError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

extension KeyRing {
    /// Reads a key file's content. Strict: a member that is unknown, missing or given twice is refused, and so is anything after the end.
    public init(parsingJSON bytes: RawSpan) throws(KeyFileError) {
        guard bytes.byteCount <= 65_536 else { throw KeyFileError("the key file is larger than 64 KiB") }
        let root = try KeyFileParser.parse(bytes)
        let members = try root.object(
            "the key file", exactly: ["version", "hintKeys", "passwordKey", "trunkKey"], optional: ["acceptedTrunkKey"])
        let version = try members.number("version", "version", upTo: 1_000_000)
        guard version == 1 else {
            throw KeyFileError("line \(members.line("version")): version: \(version) is unknown, this program reads 1")
        }

        let elements = try members.array("hintKeys", "hintKeys")
        guard (1...32).contains(elements.count) else {
            throw KeyFileError("line \(members.line("hintKeys")): hintKeys: \(elements.count) keys, want 1 to 32")
        }
        var keys: [HintKey] = []
        for (index, element) in elements.enumerated() {
            let place = "hintKeys[\(index)]"
            let fields = try element.object(place, exactly: ["id", "cipher", "tag"], optional: ["until"])
            let id = UInt8(try fields.number("id", "\(place).id", upTo: 31))
            guard !keys.contains(where: { $0.id == id }) else {
                throw KeyFileError("line \(fields.line("id")): \(place).id: \(id) is used twice")
            }
            let cipher = try fields.key("cipher", "\(place).cipher", byteCount: 16)
            let tag = try fields.key("tag", "\(place).tag", byteCount: 32)
            let until = fields.contains("until") ? UInt64(try fields.number("until", "\(place).until", upTo: 100_000_000_000)) : nil
            guard let key = HintKey(id: id, cipherKey: cipher, tagKey: tag, until: until) else {
                throw KeyFileError("\(place) is not a hint key")
            }
            keys.append(key)
        }
        let password = try members.key("passwordKey", "passwordKey", byteCount: 32)
        let trunk = try members.key("trunkKey", "trunkKey", byteCount: 16)
        var acceptedKey: SipKey?
        if members.contains("acceptedTrunkKey") {
            let accepted = try members.key("acceptedTrunkKey", "acceptedTrunkKey", byteCount: 16)
            guard accepted != trunk else {
                throw KeyFileError("line \(members.line("acceptedTrunkKey")): acceptedTrunkKey: is the trunkKey; leave it out")
            }
            acceptedKey = SipKey(accepted.bytes)
        }
        guard let trunkKey = SipKey(trunk.bytes),
            let ring = KeyRing(hintKeys: keys, passwordKey: password, trunkKey: trunkKey, acceptedTrunkKey: acceptedKey)
        else { throw KeyFileError("the keys do not make a ring") }
        self = ring
    }

    public init(parsingJSON text: String) throws(KeyFileError) {
        let bytes = Array(text.utf8)
        try self.init(parsingJSON: bytes.bytes)
    }
}
