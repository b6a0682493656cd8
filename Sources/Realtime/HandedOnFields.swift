import Primitives

/// Fields that only a backend's model reads. They are kept as they came and handed on, but checked here: a client should hear of its mistakes from
/// us, by the name of the field, and not from a backend that may say nothing at all.
///
/// Each function takes the field's value, which is not null, and its name.
enum HandedOnFields {
    typealias Check = @Sendable (JSONValue, String) throws(APIError) -> Void

    /// Fields of the session itself, in the order in which they are shown.
    static let ofSession: [(name: String, check: Check)] = [
        ("tools", tools), ("tool_choice", toolChoice), ("parallel_tool_calls", bool), ("reasoning", reasoning), ("prompt", prompt),
        ("tracing", tracing), ("truncation", truncation), ("include", include),
    ]
    /// Fields of `audio.input`.
    static let ofInput: [(name: String, check: Check)] = [("noise_reduction", noiseReduction), ("transcription", transcription)]

    /// 128 is what the API's models take.
    private static let toolsMax = 128

    static func bool(_ value: JSONValue, _ name: String) throws(APIError) {
        guard value.bool != nil else { throw .wrongType(name, expected: "a boolean") }
    }

    static func tools(_ value: JSONValue, _ name: String) throws(APIError) {
        for (index, tool) in try array(value, name, atMost: toolsMax).enumerated() {
            let path = "\(name)[\(index)]"
            var fields = try FieldReader(tool, path: path)
            guard let type = try fields.choice("type", ["function", "mcp"]) else { throw .missing("\(path).type") }
            let key = type == "function" ? "name" : "server_label"
            guard let label = try fields.string(key, maximum: 128), !label.isEmpty else { throw .missing("\(path).\(key)") }
            // What else a remote tool server needs is between the client and its backend.
            guard type == "function" else { continue }
            _ = try fields.string("description")
            _ = try fields.object("parameters")
            _ = try fields.bool("strict")
            try fields.finish()
        }
    }

    static func toolChoice(_ value: JSONValue, _ name: String) throws(APIError) {
        if let text = value.string {
            guard ["none", "auto", "required"].contains(text) else {
                throw .wrongValue(name, given: value, allowed: "'none', 'auto', 'required', or an object that names a tool")
            }
            return
        }
        var fields = try FieldReader(value, path: name, otherwise: "a string or an object")
        guard let type = try fields.choice("type", ["function", "mcp"]) else { throw .missing("\(name).type") }
        let key = type == "function" ? "name" : "server_label"
        guard try fields.string(key, maximum: 128) != nil else { throw .missing("\(name).\(key)") }
        if type == "mcp" { _ = try fields.string("name", maximum: 128) }
        try fields.finish()
    }

    static func reasoning(_ value: JSONValue, _ name: String) throws(APIError) {
        var fields = try FieldReader(value, path: name)
        _ = try fields.choice("effort", ["none", "minimal", "low", "medium", "high", "xhigh"])
        try fields.finish()
    }

    static func prompt(_ value: JSONValue, _ name: String) throws(APIError) {
        var fields = try FieldReader(value, path: name)
        guard try fields.string("id", maximum: 256) != nil else { throw .missing("\(name).id") }
        _ = try fields.string("version", maximum: 256)
        _ = try fields.object("variables")
        try fields.finish()
    }

    static func tracing(_ value: JSONValue, _ name: String) throws(APIError) {
        if let text = value.string {
            guard text == "auto" else { throw .wrongValue(name, given: value, allowed: "'auto', an object, or null") }
            return
        }
        var fields = try FieldReader(value, path: name, otherwise: "a string or an object")
        _ = try fields.string("workflow_name")
        _ = try fields.string("group_id")
        _ = try fields.object("metadata")
        try fields.finish()
    }

    static func truncation(_ value: JSONValue, _ name: String) throws(APIError) {
        if let text = value.string {
            guard ["auto", "disabled"].contains(text) else {
                throw .wrongValue(name, given: value, allowed: "'auto', 'disabled', or an object of type 'retention_ratio'")
            }
            return
        }
        var fields = try FieldReader(value, path: name, otherwise: "a string or an object")
        guard try fields.choice("type", ["retention_ratio"]) != nil else { throw .missing("\(name).type") }
        guard try fields.number("retention_ratio", in: 0...1) != nil else { throw .missing("\(name).retention_ratio") }
        if var limits = try fields.object("token_limits") {
            _ = try limits.integer("post_instructions", in: 0...10_000_000)
            try limits.finish()
        }
        try fields.finish()
    }

    static func include(_ value: JSONValue, _ name: String) throws(APIError) {
        let allowed = "item.input_audio_transcription.logprobs"
        for (index, wanted) in try array(value, name, atMost: 16).enumerated() where wanted.string != allowed {
            throw .wrongValue("\(name)[\(index)]", given: wanted, allowed: "'\(allowed)'")
        }
    }

    static func noiseReduction(_ value: JSONValue, _ name: String) throws(APIError) {
        var fields = try FieldReader(value, path: name, otherwise: "an object or null")
        guard try fields.choice("type", ["near_field", "far_field"]) != nil else { throw .missing("\(name).type") }
        _ = try fields.number("strength", in: 0...1)
        try fields.finish()
    }

    static func transcription(_ value: JSONValue, _ name: String) throws(APIError) {
        var fields = try FieldReader(value, path: name, otherwise: "an object or null")
        _ = try fields.string("model", maximum: 256)
        _ = try fields.string("language", maximum: 64)
        _ = try fields.string("prompt")
        _ = try fields.choice("delay", ["minimal", "low", "medium", "high", "xhigh"])
        for list in ["languages", "keywords"] {
            guard let given = fields.value(list), !given.isNull else { continue }
            for (index, word) in try array(given, "\(name).\(list)", atMost: 1_000).enumerated() where word.string == nil {
                throw .wrongType("\(name).\(list)[\(index)]", expected: "a string")
            }
        }
        try fields.finish()
    }

    static func array(_ value: JSONValue, _ name: String, atMost most: Int) throws(APIError) -> [JSONValue] {
        guard let list = value.array else { throw .wrongType(name, expected: "an array") }
        guard list.count <= most else {
            throw APIError(code: "array_above_max_length", message: "'\(name)' has more than \(most) members.", param: name)
        }
        return list
    }
}

/// Fields that a session and a response have in common.
enum SharedFields {
    static func outputModalities(_ value: JSONValue, _ name: String) throws(APIError) -> [String] {
        guard let list = value.array?.compactMap(\.string), list == ["audio"] || list == ["text"] else {
            throw .wrongValue(name, given: value, allowed: "['audio'] or ['text']")
        }
        return list
    }

    /// nil is `"inf"`.
    static func maxOutputTokens(_ value: JSONValue, _ name: String) throws(APIError) -> Int? {
        if value.string == "inf" { return nil }
        guard let count = value.integer, (1...4_096).contains(count) else {
            throw .wrongValue(name, given: value, allowed: "1 to 4096, or 'inf'")
        }
        return Int(count)
    }

    static func format(_ fields: inout FieldReader) throws(APIError) -> RealtimeAudioFormat? {
        guard var format = try fields.object("format") else { return nil }
        guard let type = try format.choice("type", ["audio/pcm", "audio/pcmu", "audio/pcma"]) else { throw .missing(format.name("type")) }
        if let rate = format.value("rate"), !rate.isNull, rate.integer != 24_000 || type != "audio/pcm" {
            throw .wrongValue(format.name("rate"), given: rate, allowed: "24000, with 'audio/pcm' only")
        }
        try format.finish()
        return RealtimeAudioFormat(rawValue: type)
    }

    /// A name, or an object with the `id` of a voice of one's own.
    static func voice(_ fields: inout FieldReader) throws(APIError) -> Voice? {
        guard let value = fields.value("voice"), !value.isNull else { return nil }
        guard let name = value.string ?? value["id"]?.string, !name.isEmpty, name.utf8.count <= 128 else {
            throw .wrongType(fields.name("voice"), expected: "a voice's name, or an object with its 'id'")
        }
        return Voice(name: name, isCustom: value.string == nil)
    }
}

/// Who speaks.
public struct Voice: Sendable, Equatable {
    public var name: String
    /// It is known by an id and not by one of the API's names.
    public var isCustom: Bool

    public init(name: String, isCustom: Bool = false) {
        self.name = name
        self.isCustom = isCustom
    }

    public var json: JSONValue { isCustom ? ["id": .string(name)] : .string(name) }
}
