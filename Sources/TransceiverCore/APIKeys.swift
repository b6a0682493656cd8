import Crypto
import Primitives

/// What is wrong with a file of API keys: its line and what is wanted, never a key.
public struct APIKeyFileError: Error, Equatable, Sendable, CustomStringConvertible {
    public let description: String
}

/// The project keys that open this server. Only their hashes are kept.
public struct APIKeys: Sendable {
    public static let keysMax = 10_000
    /// Shorter ones could be guessed.
    public static let keyBytes = 16...512

    private struct Key: Sendable {
        var digest: [UInt8]
        var name: String
    }
    private var keys: [Key] = []

    /// Reads a file: one key a line, then white space and a name if it has one. `#` begins a comment, alone or behind white space.
    public init(parsing content: [UInt8]) throws(APIKeyFileError) {
        guard let text = String(validating: content, as: UTF8.self) else { throw APIKeyFileError(description: "the file is not UTF-8") }
        for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            let words = line.split { $0 == " " || $0 == "\t" }
            guard let key = words.first, !key.hasPrefix("#") else { continue }
            let place = "line \(index + 1)"
            guard Self.keyBytes.contains(key.utf8.count), key.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
                throw APIKeyFileError(
                    description: "\(place): a key is \(Self.keyBytes.lowerBound) to \(Self.keyBytes.upperBound) visible ASCII characters")
            }
            guard !key.hasPrefix(ClientSecrets.prefix) else {
                throw APIKeyFileError(description: "\(place): '\(ClientSecrets.prefix)' is how client secrets begin; take another key")
            }
            guard keys.count < Self.keysMax else { throw APIKeyFileError(description: "more than \(Self.keysMax) keys") }
            let name = words.dropFirst().prefix { !$0.hasPrefix("#") }.joined(separator: " ")
            let digest = Self.digest(key)
            guard !keys.contains(where: { $0.digest == digest }) else {
                throw APIKeyFileError(description: "\(place): this key is there twice")
            }
            keys.append(Key(digest: digest, name: name.isEmpty ? "key of line \(index + 1)" : name))
        }
        guard !keys.isEmpty else { throw APIKeyFileError(description: "the file has no key; one a line, then a name if you like") }
    }

    public var count: Int { keys.count }

    /// The name of `token`, if it is one of the keys. Hashes of one length are compared, and always all of them, so that the time tells
    /// nothing about any key.
    public func name(of token: String) -> String? {
        guard Self.keyBytes.contains(token.utf8.count) else { return nil }
        let digest = Self.digest(token)
        var found: Int?
        for (index, key) in keys.enumerated() where key.digest.bytes.matchesInConstantTime(digest.bytes) { found = index }
        return found.map { keys[$0].name }
    }

    private static func digest(_ key: some StringProtocol) -> [UInt8] { SHA256.digest(Array(key.utf8).bytes).array }
}
