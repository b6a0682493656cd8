import Primitives

/// One item of a conversation: a message, a function call or a function's output.
struct ConversationItem: Sendable, Equatable {
    let id: String
    var status: String
    private var body: JSONObject
    /// About what it takes in memory, in bytes.
    private(set) var size = 0
    /// How long its audio is; nil where it has none that was made here.
    var audioMilliseconds: Int?

    var json: JSONValue {
        var object = JSONObject()
        object["id"] = .string(id)
        object["object"] = "realtime.item"
        object["status"] = .string(status)
        for member in body.members { object[member.name] = member.value }
        return .object(object)
    }

    var isAssistantMessage: Bool { body["role"]?.string == "assistant" }

    /// The caller's spoken turn.
    init(userAudio id: String) {
        self.init(
            id: id, status: "completed", ["type": "message", "role": "user", "content": [["type": "input_audio", "transcript": nil]]])
    }

    /// An answer that has just begun.
    init(assistant id: String) {
        self.init(id: id, status: "in_progress", ["type": "message", "role": "assistant", "content": []])
    }

    /// A call that has just begun.
    init(functionCall id: String, name: String, callID: String) {
        self.init(
            id: id, status: "in_progress",
            ["type": "function_call", "name": .string(name), "call_id": .string(callID), "arguments": ""])
    }

    /// An item that a client sends, in `conversation.item.create` or as the input of a response.
    init(client value: JSONValue, fallbackID: String, path: String = "item") throws(APIError) {
        var fields = try FieldReader(value, path: path)
        let id = try fields.string("id", maximum: 64) ?? fallbackID
        guard let type = try fields.choice("type", ["message", "function_call", "function_call_output", "mcp_approval_response"]) else {
            throw .missing("\(path).type")
        }
        var body = JSONObject()
        body["type"] = .string(type)
        switch type {
        case "message":
            guard let role = try fields.choice("role", ["user", "assistant", "system"]) else { throw .missing("\(path).role") }
            body["role"] = .string(role)
            body["content"] = try Self.content(fields.value("content"), of: role, "\(path).content")
        case "mcp_approval_response":
            try Self.take(["approval_request_id"], from: &fields, to: &body)
            guard let approve = try fields.bool("approve") else { throw .missing("\(path).approve") }
            body["approve"] = .bool(approve)
            if let reason = try fields.string("reason") { body["reason"] = .string(reason) }
        case "function_call": try Self.take(["name", "call_id", "arguments"], from: &fields, to: &body)
        default: try Self.take(["call_id", "output"], from: &fields, to: &body)
        }
        _ = try fields.choice("status", ["completed", "incomplete", "in_progress"])
        _ = try fields.choice("object", ["realtime.item"])
        try fields.finish()
        self.init(id: id, status: "completed", .object(body))
    }

    private static func take(_ names: [String], from fields: inout FieldReader, to body: inout JSONObject) throws(APIError) {
        for name in names {
            guard let text = try fields.string(name) else { throw .missing(fields.name(name)) }
            body[name] = .string(text)
        }
    }

    private init(id: String, status: String, _ body: JSONValue) {
        self.id = id
        self.status = status
        self.body = body.object ?? JSONObject()
        measure()
    }

    private mutating func measure() { size = id.utf8.count + JSONValue.object(body).utf8.count }

    private static func content(_ value: JSONValue?, of role: String, _ name: String) throws(APIError) -> JSONValue {
        guard let parts = value?.array else { throw .wrongType(name, expected: "an array") }
        guard parts.count <= 32 else {
            throw APIError(code: "array_above_max_length", message: "'\(name)' has more than 32 parts.", param: name)
        }
        // `text` is what the API called an assistant's before it was final.
        let allowed =
            switch role {
            case "user": ["input_text", "input_audio", "input_image"]
            case "assistant": ["output_text", "output_audio", "text"]
            default: ["input_text"]
            }
        for (index, part) in parts.enumerated() {
            let path = "\(name)[\(index)]"
            var fields = try FieldReader(part, path: path)
            guard let type = try fields.choice("type", allowed) else { throw .missing("\(path).type") }
            if type.hasSuffix("text"), try fields.string("text") == nil { throw .missing("\(path).text") }
            if type == "input_image", try fields.string("image_url", maximum: ClientEvent.maximumBytes) == nil {
                throw .missing("\(path).image_url")
            }
            if type.hasSuffix("audio") {
                _ = try fields.string("transcript")
                if let audio = try fields.string("audio", maximum: ClientEvent.maximumBytes), Base64.decode(audio) == nil {
                    throw APIError(code: "invalid_value", message: "'\(path).audio' is not valid base64.", param: "\(path).audio")
                }
            }
        }
        return .array(parts)
    }

    mutating func complete(transcript: String?, text: String, status: String) {
        self.status = status == "completed" ? "completed" : "incomplete"
        let part: JSONValue =
            transcript.map { ["type": "output_audio", "transcript": .string($0)] } ?? ["type": "output_text", "text": .string(text)]
        body["content"] = [part]
        measure()
    }

    mutating func complete(arguments: String) {
        status = "completed"
        body["arguments"] = .string(arguments)
        measure()
    }

    mutating func setTranscript(_ text: String) {
        body["content"] = [["type": "input_audio", "transcript": .string(text)]]
        measure()
    }

    /// Forgets what was said, and what is behind `milliseconds` of how.
    mutating func truncate(at milliseconds: Int) {
        audioMilliseconds = audioMilliseconds.map { min($0, milliseconds) }
        guard let parts = body["content"]?.array else { return }
        let kept = parts.map { part -> JSONValue in
            guard var members = part.object, members["type"] == "output_audio" else { return part }
            members["transcript"] = .null
            return .object(members)
        }
        body["content"] = .array(kept)
        measure()
    }
}

/// The items in their order; full, the oldest leave.
struct ItemList: Sendable {
    private let capacity: Int
    private let bytesMax: Int
    private var items: [ConversationItem] = []
    private(set) var bytes = 0

    /// - Parameter bytes: what all may take together; one is kept even if it is larger.
    init(capacity: Int, bytes: Int) {
        self.capacity = capacity
        bytesMax = bytes
    }

    subscript(_ id: String) -> ConversationItem? { items.last { $0.id == id } }

    /// Inserts behind `after` (`"root"` is the front, nil the end) and tells the item before it.
    mutating func insert(_ item: ConversationItem, after: String?) -> String? {
        while !items.isEmpty, items.count >= capacity || bytes + item.size > bytesMax { bytes -= items.removeFirst().size }
        bytes += item.size
        var place = items.count
        if after == "root" { place = 0 }
        if let after, let index = items.firstIndex(where: { $0.id == after }) { place = index + 1 }
        items.insert(item, at: place)
        return place == 0 ? nil : items[place - 1].id
    }

    mutating func remove(_ id: String) -> Bool {
        guard let index = items.firstIndex(where: { $0.id == id }) else { return false }
        bytes -= items.remove(at: index).size
        return true
    }

    func previous(of id: String) -> String? {
        guard let index = items.firstIndex(where: { $0.id == id }), index > 0 else { return nil }
        return items[index - 1].id
    }

    mutating func complete(_ id: String, transcript: String?, text: String, status: String) {
        change(id) { $0.complete(transcript: transcript, text: text, status: status) }
    }

    mutating func setTranscript(_ text: String, of id: String) { change(id) { $0.setTranscript(text) } }
    mutating func truncate(_ id: String, at milliseconds: Int) { change(id) { $0.truncate(at: milliseconds) } }
    mutating func replace(_ item: ConversationItem) { change(item.id) { $0 = item } }

    mutating func addAudio(_ milliseconds: Int, to id: String) {
        // It is said 50 times a second, of the newest item.
        guard let index = items.lastIndex(where: { $0.id == id }) else { return }
        items[index].audioMilliseconds = (items[index].audioMilliseconds ?? 0) + milliseconds
    }

    private mutating func change(_ id: String, _ body: (inout ConversationItem) -> Void) {
        guard let index = items.lastIndex(where: { $0.id == id }) else { return }
        bytes -= items[index].size
        body(&items[index])
        bytes += items[index].size
    }
}
