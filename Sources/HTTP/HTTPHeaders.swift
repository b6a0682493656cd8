// Header fields: an ordered list whose names compare without regard to case (RFC 9110 §5.1).

import Primitives

/// Fields in the order in which they came. At most a hundred, so a linear search is the right index.
public struct HTTPHeaders: Sendable, Equatable {
    public struct Field: Sendable, Equatable {
        public var name: String
        public var value: String
    }

    public private(set) var fields: [Field] = []

    public init() {}
    public init(_ pairs: [(String, String)]) { for (name, value) in pairs { add(name, value) } }

    /// The first value of `name`.
    public subscript(_ name: String) -> String? { fields.first { equalIgnoringCase($0.name, name) }?.value }

    /// Every value of `name`, in order.
    public func all(_ name: String) -> [String] { fields.filter { equalIgnoringCase($0.name, name) }.map(\.value) }

    public mutating func add(_ name: String, _ value: String) { fields.append(Field(name: name, value: value)) }

    /// Replaces every value of `name` by one.
    public mutating func set(_ name: String, _ value: String) {
        remove(name)
        add(name, value)
    }

    public mutating func remove(_ name: String) { fields.removeAll { equalIgnoringCase($0.name, name) } }

    /// Whether the comma-separated list in `name`, over all its lines, has `token` (RFC 9110 §5.6.1), without regard to case.
    public func contains(_ token: String, in name: String) -> Bool {
        for field in fields where equalIgnoringCase(field.name, name) {
            for part in field.value.utf8.split(separator: UInt8(ascii: ",")) where equalIgnoringCase(trimmed(Substring(part)), token) {
                return true
            }
        }
        return false
    }

    /// Appends the fields as lines. A value comes from a program or from a peer's echo: a character that could end the line
    /// becomes a space, so that no value can make a second field.
    func write(to output: inout [UInt8]) {
        for field in fields {
            Self.write(field.name, to: &output) { isTokenCharacter($0) ? $0 : UInt8(ascii: "-") }
            output += ": ".utf8
            Self.write(field.value, to: &output) { $0 < 0x20 || $0 == 0x7F ? 0x20 : $0 }
            output += "\r\n".utf8
        }
    }

    /// As a whole where no byte is changed.
    private static func write(_ text: String, to output: inout [UInt8], _ replacement: (UInt8) -> UInt8) {
        guard text.utf8.allSatisfy({ replacement($0) == $0 }) else { return output += text.utf8.map(replacement) }
        output += text.utf8
    }
}

/// ASCII case folding only: field names and tokens are ASCII.
public func equalIgnoringCase(_ a: some StringProtocol, _ b: some StringProtocol) -> Bool {
    a.utf8.count == b.utf8.count && zip(a.utf8, b.utf8).allSatisfy { lowercased($0) == lowercased($1) }
}

func lowercased(_ byte: UInt8) -> UInt8 {
    byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") ? byte | 0x20 : byte
}

/// Without optional white space at both ends (RFC 9110 §5.6.3).
func trimmed(_ text: some StringProtocol) -> String {
    func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
    var bytes = Array(text.utf8.drop(while: isBlank))
    while let last = bytes.last, isBlank(last) { bytes.removeLast() }
    return String(decoding: bytes, as: UTF8.self)
}

/// RFC 9110 §5.6.2.
func isTokenCharacter(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
    case UInt8(ascii: "!"), UInt8(ascii: "#")...UInt8(ascii: "'"), UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "-"),
        UInt8(ascii: "."), UInt8(ascii: "^"), UInt8(ascii: "_"), UInt8(ascii: "`"), UInt8(ascii: "|"), UInt8(ascii: "~"):
        true
    default: false
    }
}
