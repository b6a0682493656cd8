import Primitives

/// The `response` object of `response.create`, checked. Most of it is for the backend's model, and a client should hear of its mistakes from us and
/// not from silence.
struct ResponseParameters {
    /// What the backend shall have: all of it but the audio format, which is between us and the client.
    let json: JSONValue
    private(set) var modalities: [String]?
    private(set) var voice: Voice?
    /// nil is what the session says; `.some(nil)` is `"inf"`.
    private(set) var maxOutputTokens: Int??
    /// `"conversation": "none"`: the response is no part of the conversation, and leaves no items in it.
    private(set) var isApart = false
    private(set) var metadata = JSONValue.null

    static let itemsMax = 256
    private static let metadataMax = 16

    /// As the session has it.
    static let none = ResponseParameters()

    private init() { json = [:] }

    init(_ value: JSONValue, session: borrowing SessionObject) throws(APIError) {
        guard !value.isNull else {
            json = [:]
            return
        }
        var fields = try FieldReader(value, path: "response")
        var kept = value.object ?? JSONObject()
        if let given = fields.value("output_modalities"), !given.isNull {
            modalities = try SharedFields.outputModalities(given, fields.name("output_modalities"))
        }
        _ = try fields.string("instructions")
        isApart = try fields.choice("conversation", ["auto", "none"]) == "none"
        if let tokens = fields.value("max_output_tokens"), !tokens.isNull {
            maxOutputTokens = .some(try SharedFields.maxOutputTokens(tokens, fields.name("max_output_tokens")))
        }
        if var audio = try fields.object("audio") {
            if var output = try audio.object("output") {
                if let format = try SharedFields.format(&output), format != session.outputFormat {
                    throw APIError(
                        code: "unsupported_value", message: "A response has its session's audio format; change that with session.update.",
                        param: output.name("format"))
                }
                voice = try SharedFields.voice(&output)
                try output.finish()
            }
            try audio.finish()
            kept["audio"] = voice.map { ["output": ["voice": $0.json]] }
        }
        if let given = fields.value("metadata"), !given.isNull { metadata = try Self.metadata(given, fields.name("metadata")) }
        for (name, check) in HandedOnFields.ofSession
        where ["tools", "tool_choice", "parallel_tool_calls", "reasoning", "prompt"].contains(name) {
            if let given = fields.value(name), !given.isNull { try check(given, fields.name(name)) }
        }
        if let given = fields.value("input"), !given.isNull { try Self.input(given, fields.name("input")) }
        try fields.finish()
        json = .object(kept)
    }

    /// Up to 16 texts, by names of up to 64 characters, of up to 512 each.
    private static func metadata(_ value: JSONValue, _ name: String) throws(APIError) -> JSONValue {
        guard let members = value.object?.members else { throw .wrongType(name, expected: "an object") }
        guard members.count <= metadataMax else {
            throw APIError(code: "object_above_max_properties", message: "'\(name)' has more than \(metadataMax) members.", param: name)
        }
        for member in members {
            let path = "\(name).\(member.name.prefix(64))"
            guard let text = member.value.string else { throw .wrongType(path, expected: "a string") }
            guard member.name.count <= 64, text.count <= 512 else {
                throw APIError(
                    code: "string_above_max_length", message: "Names in '\(name)' have at most 64 characters, and values 512.", param: path)
            }
        }
        return value
    }

    /// Items in place of the conversation's, or references to those that are there.
    private static func input(_ value: JSONValue, _ name: String) throws(APIError) {
        for (index, item) in try HandedOnFields.array(value, name, atMost: itemsMax).enumerated() {
            let path = "\(name)[\(index)]"
            guard item["type"] == "item_reference" else {
                _ = try ConversationItem(client: item, fallbackID: "", path: path)
                continue
            }
            var fields = try FieldReader(item, path: path)
            _ = fields.value("type")
            guard try fields.string("id", maximum: 64) != nil else { throw .missing("\(path).id") }
            try fields.finish()
        }
    }
}
