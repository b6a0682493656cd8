// JSON (RFC 8259), strict and bounded: for signaling bodies, key files, configuration files and Realtime events. A value that
// was parsed is well-formed, has no member twice, and is no deeper and no larger than its reader allowed; whatever does not
// fit is an error with the offset at which it was seen. Integers stay exact: `9007199254740993` is not rounded through Double.

/// A JSON value. Objects keep the order of their members.
public enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    /// A number without fraction and exponent that fits in 64 bits.
    case integer(Int64)
    /// Any other number; always finite.
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)
}

/// The members of a JSON object in the order in which they were written.
public struct JSONObject: Sendable, Equatable {
    public struct Member: Sendable, Equatable {
        public var name: String
        public var value: JSONValue
    }

    public private(set) var members: [Member] = []

    public init() {}

    /// Reads, replaces or (with nil) removes the member called `name`.
    public subscript(_ name: String) -> JSONValue? {
        get { members.first { $0.name == name }?.value }
        set {
            guard let place = members.firstIndex(where: { $0.name == name }) else {
                if let newValue { members.append(Member(name: name, value: newValue)) }
                return
            }
            if let newValue { members[place].value = newValue } else { members.remove(at: place) }
        }
    }

    /// Adds a member that is known not to be there yet.
    mutating func append(_ name: String, _ value: JSONValue) { members.append(Member(name: name, value: value)) }
}

/// What a reader accepts. The defaults fit a signaling body.
public struct JSONLimits: Sendable {
    /// Bytes of the whole text.
    public var bytes: Int
    /// Arrays and objects inside each other.
    public var depth: Int
    /// Values of every kind together: memory per value is bounded, so this bounds memory.
    public var values: Int

    public init(bytes: Int = 65_536, depth: Int = 32, values: Int = 10_000) {
        self.bytes = bytes
        self.depth = depth
        self.values = values
    }
}

/// Why a text was refused; every offset counts bytes from its start.
public enum JSONError: Error, Equatable, Sendable {
    case tooLarge(bytes: Int)
    case tooDeep(at: Int)
    case tooManyValues(at: Int)
    case truncated(at: Int)
    case unexpected(at: Int)
    case badString(at: Int)
    case badNumber(at: Int)
    case duplicateMember(at: Int)
}

// MARK: - Reading and writing

extension JSONValue {
    /// Reads one value that fills all of `bytes` but for white space around it.
    public init(parsing bytes: RawSpan, limits: JSONLimits = JSONLimits()) throws(JSONError) {
        guard bytes.byteCount <= limits.bytes else { throw .tooLarge(bytes: bytes.byteCount) }
        var reader = JSONReader(bytes, limits)
        self = try reader.document()
    }

    /// Reads one value from text in memory.
    public init(parsing text: String, limits: JSONLimits = JSONLimits()) throws(JSONError) {
        let bytes = Array(text.utf8)
        try unsafe self.init(parsing: bytes.span.bytes, limits: limits)
    }

    /// Compact text, as UTF-8.
    public var utf8: [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(512)
        write(to: &output)
        return output
    }

    /// Compact text.
    public var text: String { String(decoding: utf8, as: UTF8.self) }

    /// Appends compact text. What is written parses to an equal value; a number that is not finite becomes null.
    public func write(to output: inout [UInt8]) {
        switch self {
        case .null: output += "null".utf8
        case .bool(let value): output += (value ? "true" : "false").utf8
        case .integer(let value): output += String(value).utf8
        case .number(let value): output += (value.isFinite ? value.description : "null").utf8
        case .string(let value): JSONValue.writeString(value, to: &output)
        case .array(let values):
            output.append(UInt8(ascii: "["))
            for (index, value) in values.enumerated() {
                if index > 0 { output.append(UInt8(ascii: ",")) }
                value.write(to: &output)
            }
            output.append(UInt8(ascii: "]"))
        case .object(let object):
            output.append(UInt8(ascii: "{"))
            for (index, member) in object.members.enumerated() {
                if index > 0 { output.append(UInt8(ascii: ",")) }
                JSONValue.writeString(member.name, to: &output)
                output.append(UInt8(ascii: ":"))
                member.value.write(to: &output)
            }
            output.append(UInt8(ascii: "}"))
        }
    }

    /// Appends `text` in quotes. `<` is escaped too, so that JSON inside a page cannot end its script element.
    public static func writeString(_ text: String, to output: inout [UInt8]) {
        func digit(_ value: UInt8) -> UInt8 { value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10 }
        output.append(UInt8(ascii: "\""))
        defer { output.append(UInt8(ascii: "\"")) }
        // Nearly every string, long ones of base64 among them, stays as it is.
        guard text.utf8.contains(where: { isEscaped($0) }) else { return output += text.utf8 }
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                output.append(UInt8(ascii: "\\"))
                output.append(byte)
            case 0x0A: output += "\\n".utf8
            case 0x0D: output += "\\r".utf8
            case 0x09: output += "\\t".utf8
            case 0..<0x20, UInt8(ascii: "<"), 0x7F:
                output += "\\u00".utf8
                output.append(digit(byte >> 4))
                output.append(digit(byte & 15))
            default: output.append(byte)
            }
        }
    }

    private static func isEscaped(_ byte: UInt8) -> Bool {
        byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") || byte == UInt8(ascii: "<") || byte == 0x7F
    }
}

// MARK: - Looking inside

extension JSONValue {
    /// The member called `name`, if this is an object that has it.
    public subscript(_ name: String) -> JSONValue? {
        guard case .object(let object) = self else { return nil }
        return object[name]
    }
    public var string: String? {
        guard case .string(let value) = self else { return nil }
        return value
    }
    public var bool: Bool? {
        guard case .bool(let value) = self else { return nil }
        return value
    }
    /// An exact integer; a number with a fraction gives nil, `2.0` and `1e3` give 2 and 1000.
    public var integer: Int64? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int64(exactly: value)
        default: nil
        }
    }
    /// Any number.
    public var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }
    public var array: [JSONValue]? {
        guard case .array(let values) = self else { return nil }
        return values
    }
    public var object: JSONObject? {
        guard case .object(let object) = self else { return nil }
        return object
    }
    public var isNull: Bool { self == .null }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
    public init(stringLiteral value: String) { self = .string(value) }
    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .number(value) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(nilLiteral: ()) { self = .null }
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        var object = JSONObject()
        for (name, value) in elements { object[name] = value }
        self = .object(object)
    }
}
