import Primitives

/// The `response` object of `response.create`: what it may have, and of which kind. Nothing of it is acted on here but modalities; it is for the
/// backend's model, and a client should hear of its mistakes from us and not from silence.
enum ResponseParameters {
    static func check(_ value: JSONValue) throws(APIError) {
        if value.isNull { return }
        var fields = try FieldReader(value, path: "response")
        if let modalities = fields.value("output_modalities"), !modalities.isNull {
            guard let list = modalities.array?.compactMap(\.string), list == ["audio"] || list == ["text"] else {
                throw .wrongValue(fields.name("output_modalities"), given: modalities, allowed: "['audio'] or ['text']")
            }
        }
        _ = try fields.string("instructions")
        _ = try fields.choice("conversation", ["auto", "none"])
        if let tokens = fields.value("max_output_tokens"), !tokens.isNull, tokens.string != "inf" {
            guard let count = tokens.integer, (1...4096).contains(count) else {
                throw .wrongValue(fields.name("max_output_tokens"), given: tokens, allowed: "1 to 4096, or 'inf'")
            }
        }
        for name in ["audio", "metadata", "prompt", "reasoning"] { _ = try fields.object(name) }
        for name in ["tools", "input", "include"] {
            guard let given = fields.value(name), !given.isNull else { continue }
            guard given.array != nil else { throw .wrongType(fields.name(name), expected: "an array") }
        }
        if let choice = fields.value("tool_choice"), !choice.isNull, choice.string == nil, choice.object == nil {
            throw .wrongType(fields.name("tool_choice"), expected: "a string or an object")
        }
        _ = try fields.bool("parallel_tool_calls")
        try fields.finish()
    }
}
