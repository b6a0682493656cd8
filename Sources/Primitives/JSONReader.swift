// The reader behind `JSONValue(parsing:)`: recursive descent over a span, its recursion bounded by the depth limit.

struct JSONReader: ~Escapable {
    private let bytes: RawSpan
    private let limits: JSONLimits
    private var place = 0
    private var values = 0

    @_lifetime(copy bytes)
    init(_ bytes: RawSpan, _ limits: JSONLimits) {
        self.bytes = bytes
        self.limits = limits
    }

    mutating func document() throws(JSONError) -> JSONValue {
        skipWhiteSpace()
        let result = try value(depth: 0)
        skipWhiteSpace()
        guard place == bytes.byteCount else { throw .unexpected(at: place) }
        return result
    }

    private mutating func value(depth: Int) throws(JSONError) -> JSONValue {
        values += 1
        guard values <= limits.values else { throw .tooManyValues(at: place) }
        guard let first = peek else { throw .truncated(at: place) }
        switch first {
        case UInt8(ascii: "{"): return try object(depth: depth + 1)
        case UInt8(ascii: "["): return try array(depth: depth + 1)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try literal("true", .bool(true))
        case UInt8(ascii: "f"): return try literal("false", .bool(false))
        case UInt8(ascii: "n"): return try literal("null", .null)
        default: return try number()
        }
    }

    private mutating func object(depth: Int) throws(JSONError) -> JSONValue {
        guard depth <= limits.depth else { throw .tooDeep(at: place) }
        place += 1
        var object = JSONObject()
        var names: Set<String> = []
        skipWhiteSpace()
        if take(UInt8(ascii: "}")) { return .object(object) }
        while true {
            let start = place
            guard peek == UInt8(ascii: "\"") else { throw peek == nil ? .truncated(at: place) : .unexpected(at: place) }
            let name = try string()
            guard names.insert(name).inserted else { throw .duplicateMember(at: start) }
            skipWhiteSpace()
            try expect(UInt8(ascii: ":"))
            skipWhiteSpace()
            object.append(name, try value(depth: depth))
            skipWhiteSpace()
            if take(UInt8(ascii: "}")) { return .object(object) }
            try expect(UInt8(ascii: ","))
            skipWhiteSpace()
        }
    }

    private mutating func array(depth: Int) throws(JSONError) -> JSONValue {
        guard depth <= limits.depth else { throw .tooDeep(at: place) }
        place += 1
        var elements: [JSONValue] = []
        skipWhiteSpace()
        if take(UInt8(ascii: "]")) { return .array(elements) }
        while true {
            elements.append(try value(depth: depth))
            skipWhiteSpace()
            if take(UInt8(ascii: "]")) { return .array(elements) }
            try expect(UInt8(ascii: ","))
            skipWhiteSpace()
        }
    }

    private mutating func string() throws(JSONError) -> String {
        let start = place
        place += 1
        var text: [UInt8] = []
        while let byte = peek {
            switch byte {
            case UInt8(ascii: "\""):
                place += 1
                guard let valid = String(validating: text, as: UTF8.self) else { throw .badString(at: start) }
                return valid
            case UInt8(ascii: "\\"): try escape(into: &text)
            case 0..<0x20: throw .badString(at: place)
            default:
                text.append(byte)
                place += 1
            }
        }
        throw .truncated(at: place)
    }

    private mutating func escape(into text: inout [UInt8]) throws(JSONError) {
        let start = place
        place += 1
        guard let kind = peek else { throw .truncated(at: place) }
        place += 1
        switch kind {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(kind)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            var code = UInt32(try hexadecimal(start))
            if code & 0xFC00 == 0xD800 {
                // RFC 8259 §7: characters outside the basic plane come as a pair; half of one is no character.
                guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else { throw .badString(at: start) }
                let low = UInt32(try hexadecimal(start))
                guard low & 0xFC00 == 0xDC00 else { throw .badString(at: start) }
                code = 0x10000 + ((code & 0x3FF) << 10 | low & 0x3FF)
            }
            guard let scalar = Unicode.Scalar(code) else { throw .badString(at: start) }
            text += String(scalar).utf8
        default: throw .badString(at: start)
        }
    }

    private mutating func hexadecimal(_ start: Int) throws(JSONError) -> UInt16 {
        var value: UInt16 = 0
        for _ in 0..<4 {
            guard let byte = peek, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else { throw .badString(at: start) }
            value = value << 4 | UInt16(digit)
            place += 1
        }
        return value
    }

    private mutating func number() throws(JSONError) -> JSONValue {
        let start = place
        _ = take(UInt8(ascii: "-"))
        if take(UInt8(ascii: "0")) {
        } else {
            guard digits() > 0 else { throw start == bytes.byteCount ? .truncated(at: start) : .unexpected(at: start) }
        }
        var isInteger = true
        if take(UInt8(ascii: ".")) {
            isInteger = false
            guard digits() > 0 else { throw .badNumber(at: start) }
        }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            isInteger = false
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            guard digits() > 0 else { throw .badNumber(at: start) }
        }
        // Nobody needs more digits than a double can tell apart; a bound keeps the conversion's cost bounded.
        guard place - start <= 128 else { throw .badNumber(at: start) }
        let text = String(decoding: bytes.bytes(start..<place).array, as: UTF8.self)
        if isInteger, let exact = Int64(text) { return .integer(exact) }
        guard let value = Double(text), value.isFinite else { throw .badNumber(at: start) }
        return .number(value)
    }

    private mutating func digits() -> Int {
        let start = place
        while let byte = peek, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { place += 1 }
        return place - start
    }

    private mutating func literal(_ word: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        for byte in "\(word)".utf8 { try expect(byte) }
        return value
    }

    private var peek: UInt8? { place < bytes.byteCount ? bytes.byte(place) : nil }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard peek == byte else { return false }
        place += 1
        return true
    }

    private mutating func expect(_ byte: UInt8) throws(JSONError) {
        guard let next = peek else { throw .truncated(at: place) }
        guard next == byte else { throw .unexpected(at: place) }
        place += 1
    }

    private mutating func skipWhiteSpace() {
        while let byte = peek, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { place += 1 }
    }
}
