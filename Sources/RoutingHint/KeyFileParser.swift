// The part of JSON (RFC 8259) that a key file needs: objects, arrays, strings without escapes, whole numbers. Anything else is
// refused with its line, because a key file that surprises its reader must not be guessed at.

import Crypto
import Primitives

struct KeyFileValue {
    indirect enum Content {
        case object([(name: String, value: KeyFileValue)])
        case array([KeyFileValue])
        case string(String)
        case number(Int)
    }
    /// Where it begins.
    let line: Int
    let content: Content
}

struct KeyFileParser: ~Escapable {
    private let text: RawSpan
    private var offset = 0
    private var line = 1

    @_lifetime(copy text)
    private init(_ text: RawSpan) { self.text = text }

    static func parse(_ text: RawSpan) throws(KeyFileError) -> KeyFileValue {
        var parser = KeyFileParser(text)
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        guard parser.offset == text.byteCount else { throw KeyFileError("line \(parser.line): something follows the closing brace") }
        return value
    }

    private mutating func value(depth: Int) throws(KeyFileError) -> KeyFileValue {
        guard depth < 4 else { throw KeyFileError("line \(line): nested deeper than a key file is") }
        skipSpace()
        return KeyFileValue(line: line, content: try content(depth: depth))
    }

    private mutating func content(depth: Int) throws(KeyFileError) -> KeyFileValue.Content {
        switch peek {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "0")...UInt8(ascii: "9"): return .number(try number())
        case 0: throw KeyFileError("line \(line): the file ends too early")
        default: throw KeyFileError("line \(line): want an object, an array, a string or a whole number")
        }
    }

    private mutating func object(depth: Int) throws(KeyFileError) -> KeyFileValue.Content {
        var members: [(name: String, value: KeyFileValue)] = []
        offset += 1
        skipSpace()
        if peek == UInt8(ascii: "}") {
            offset += 1
            return .object(members)
        }
        while true {
            skipSpace()
            let name = try string()
            guard !members.contains(where: { $0.name == name }) else { throw KeyFileError("line \(line): \"\(name)\" is given twice") }
            skipSpace()
            try expect(UInt8(ascii: ":"), "a colon after \"\(name)\"")
            members.append((name, try value(depth: depth + 1)))
            skipSpace()
            if peek == UInt8(ascii: ",") {
                offset += 1
            } else {
                try expect(UInt8(ascii: "}"), "a comma or a closing brace")
                return .object(members)
            }
        }
    }

    private mutating func array(depth: Int) throws(KeyFileError) -> KeyFileValue.Content {
        var elements: [KeyFileValue] = []
        offset += 1
        skipSpace()
        if peek == UInt8(ascii: "]") {
            offset += 1
            return .array(elements)
        }
        while true {
            elements.append(try value(depth: depth + 1))
            skipSpace()
            if peek == UInt8(ascii: ",") {
                offset += 1
            } else {
                try expect(UInt8(ascii: "]"), "a comma or a closing bracket")
                return .array(elements)
            }
        }
    }

    private mutating func string() throws(KeyFileError) -> String {
        try expect(UInt8(ascii: "\""), "a string")
        let start = offset
        while offset < text.byteCount, peek != UInt8(ascii: "\"") {
            guard (0x20...0x7E).contains(peek), peek != UInt8(ascii: "\\") else {
                throw KeyFileError("line \(line): a string here has neither escapes nor characters outside ASCII")
            }
            offset += 1
        }
        let characters = text.bytes(start..<offset).array
        try expect(UInt8(ascii: "\""), "the end of a string")
        return String(decoding: characters, as: UTF8.self)
    }

    private mutating func number() throws(KeyFileError) -> Int {
        let start = offset
        var number = 0
        while (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(peek) {
            guard offset - start < 12 else { throw KeyFileError("line \(line): a number of more than twelve digits") }
            number = number * 10 + Int(peek - UInt8(ascii: "0"))
            offset += 1
        }
        guard offset - start == 1 || text.byte(start) != UInt8(ascii: "0") else {
            throw KeyFileError("line \(line): a number that begins with 0")
        }
        return number
    }

    private mutating func expect(_ character: UInt8, _ what: String) throws(KeyFileError) {
        guard offset < text.byteCount, peek == character else { throw KeyFileError("line \(line): want \(what)") }
        offset += 1
    }

    private mutating func skipSpace() {
        while offset < text.byteCount {
            switch text.byte(offset) {
            case 0x0A: line += 1
            case 0x20, 0x09, 0x0D: break
            default: return
            }
            offset += 1
        }
    }

    /// The next byte, 0 at the end.
    private var peek: UInt8 { offset < text.byteCount ? text.byte(offset) : 0 }
}

extension KeyFileValue {
    /// Its members, if this is an object with all of `names`, perhaps some of `optional`, and no others.
    func object(_ place: String, exactly names: [String], optional: [String] = []) throws(KeyFileError) -> KeyFileMembers {
        guard case .object(let members) = content else { throw KeyFileError("line \(line): \(place): want an object") }
        for member in members where !names.contains(member.name) && !optional.contains(member.name) {
            throw KeyFileError("line \(member.value.line): \(place): \"\(member.name)\" is unknown")
        }
        for name in names where !members.contains(where: { $0.name == name }) {
            throw KeyFileError("line \(line): \(place): \"\(name)\" is missing")
        }
        return KeyFileMembers(line: line, members: members)
    }
}

struct KeyFileMembers {
    let line: Int
    let members: [(name: String, value: KeyFileValue)]

    func number(_ name: String, _ place: String, upTo limit: Int) throws(KeyFileError) -> Int {
        guard case .number(let number) = value(name)?.content, number <= limit else {
            throw KeyFileError("line \(line(name)): \(place): want a whole number, at most \(limit)")
        }
        return number
    }

    func array(_ name: String, _ place: String) throws(KeyFileError) -> [KeyFileValue] {
        guard case .array(let elements) = value(name)?.content else { throw KeyFileError("line \(line(name)): \(place): want an array") }
        return elements
    }

    /// A key in hexadecimal. The error counts digits and never shows them.
    func key(_ name: String, _ place: String, byteCount: Int) throws(KeyFileError) -> [UInt8] {
        let place = "line \(line(name)): \(place)"
        guard case .string(let text) = value(name)?.content else {
            throw KeyFileError("\(place): want a string of \(2 * byteCount) hexadecimal digits")
        }
        guard text.utf8.count == 2 * byteCount, let bytes = bytes(hex: text), bytes.count == byteCount else {
            throw KeyFileError("\(place): \(text.utf8.count) characters, want \(2 * byteCount) hexadecimal digits")
        }
        guard bytes.contains(where: { $0 != 0 }) else { throw KeyFileError("\(place): all zero is no key") }
        return bytes
    }

    func contains(_ name: String) -> Bool { value(name) != nil }
    func line(_ name: String) -> Int { value(name)?.line ?? line }
    private func value(_ name: String) -> KeyFileValue? { members.first { $0.name == name }?.value }
}
