import Primitives

/// Reads the members of one JSON object with errors that name the field, and refuses members that nobody asked for.
struct FieldReader {
    private let members: JSONObject
    private let path: String
    private var taken: Set<String> = []

    /// - Parameter otherwise: what the value may be, for who gave something else.
    init(_ value: JSONValue, path: String, otherwise: String = "an object") throws(APIError) {
        guard let members = value.object else { throw .wrongType(path, expected: otherwise) }
        self.members = members
        self.path = path
    }

    func name(_ field: String) -> String { path.isEmpty ? field : "\(path).\(field)" }

    /// The raw member; nil when absent.
    mutating func value(_ field: String) -> JSONValue? {
        taken.insert(field)
        return members[field]
    }

    /// - Parameter maximum: bytes; without one, as many as a data channel's message has at most.
    mutating func string(_ field: String, maximum: Int = 262_144) throws(APIError) -> String? {
        guard let value = value(field), !value.isNull else { return nil }
        guard let text = value.string else { throw .wrongType(name(field), expected: "a string") }
        guard text.utf8.count <= maximum else {
            throw APIError(
                code: "string_above_max_length", message: "'\(name(field))' is longer than \(maximum) bytes.", param: name(field))
        }
        return text
    }

    mutating func bool(_ field: String) throws(APIError) -> Bool? {
        guard let value = value(field), !value.isNull else { return nil }
        guard let flag = value.bool else { throw .wrongType(name(field), expected: "a boolean") }
        return flag
    }

    mutating func integer(_ field: String, in range: ClosedRange<Int64>) throws(APIError) -> Int? {
        guard let value = value(field), !value.isNull else { return nil }
        guard let number = value.integer else { throw .wrongType(name(field), expected: "an integer") }
        guard range.contains(number) else {
            throw .wrongValue(name(field), given: value, allowed: "\(range.lowerBound) to \(range.upperBound)")
        }
        return Int(number)
    }

    mutating func number(_ field: String, in range: ClosedRange<Double>) throws(APIError) -> Double? {
        guard let value = value(field), !value.isNull else { return nil }
        guard let number = value.double else { throw .wrongType(name(field), expected: "a number") }
        guard range.contains(number) else {
            throw .wrongValue(name(field), given: value, allowed: "\(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    mutating func choice(_ field: String, _ allowed: [String]) throws(APIError) -> String? {
        guard let value = value(field), !value.isNull else { return nil }
        guard let text = value.string else { throw .wrongType(name(field), expected: "a string") }
        guard allowed.contains(text) else {
            throw .wrongValue(name(field), given: value, allowed: allowed.map { "'\($0)'" }.joined(separator: ", "))
        }
        return text
    }

    mutating func object(_ field: String) throws(APIError) -> FieldReader? {
        guard let value = value(field), !value.isNull else { return nil }
        return try FieldReader(value, path: name(field))
    }

    /// Whether the member is there and null.
    mutating func isNull(_ field: String) -> Bool { value(field)?.isNull ?? false }

    /// Refuses the first member that no call above has asked for.
    func finish() throws(APIError) {
        for member in members.members where !taken.contains(member.name) { throw .unknown(name(String(member.name.prefix(64)))) }
    }
}

extension JSONValue {
    /// The body of a request; an error of the API when it is no JSON.
    init(requestBody body: RawSpan) throws(APIError) {
        do {
            self = try JSONValue(parsing: body)
        } catch {
            throw APIError(code: "invalid_json", message: "The body is not valid JSON within this server's limits (\(error)).")
        }
    }
}

extension FieldReader {
    /// How long a client secret lives, in seconds: 10…7200, from when it is made. nil where `name` does not say.
    mutating func secretLifetime(_ name: String) throws(APIError) -> Int? {
        guard var expiry = try object(name) else { return nil }
        _ = try expiry.choice("anchor", ["created_at"])
        let seconds = try expiry.integer("seconds", in: 10...7_200)
        try expiry.finish()
        return seconds
    }
}
