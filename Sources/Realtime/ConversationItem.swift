import Primitives

/// One item of a conversation: a message, a function call or a function's output.
struct ConversationItem: Sendable, Equatable {
    let id: String
    var status: String
    private var body: JSONObject

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

    init(functionCall id: String, name: String, callID: String, arguments: String) {
        self.init(
            id: id, status: "completed",
            ["type": "function_call", "name": .string(name), "call_id": .string(callID), "arguments": .string(arguments)])
    }

    /// An item that a client sends in `conversation.item.create`.
    init(client value: JSONValue, fallbackID: String) throws(APIError) {
        var fields = try FieldReader(value, path: "item")
        let id = try fields.string("id", maximum: 64) ?? fallbackID
        guard let type = try fields.choice("type", ["message", "function_call", "function_call_output"]) else {
            throw .missing("item.type")
        }
        var body = JSONObject()
        body["type"] = .string(type)
        switch type {
        case "message":
            guard let role = try fields.choice("role", ["user", "assistant", "system"]) else { throw .missing("item.role") }
            body["role"] = .string(role)
            body["content"] = try Self.content(fields.value("content"))
        case "function_call":
            for name in ["name", "call_id", "arguments"] {
                guard let text = try fields.string(name) else { throw .missing("item.\(name)") }
                body[name] = .string(text)
            }
        default:
            for name in ["call_id", "output"] {
                guard let text = try fields.string(name) else { throw .missing("item.\(name)") }
                body[name] = .string(text)
            }
        }
        _ = fields.value("status")
        _ = fields.value("object")
        try fields.finish()
        self.init(id: id, status: "completed", .object(body))
    }

    private init(id: String, status: String, _ body: JSONValue) {
        self.id = id
        self.status = status
        self.body = body.object ?? JSONObject()
    }

    private static func content(_ value: JSONValue?) throws(APIError) -> JSONValue {
        guard let parts = value?.array else { throw .wrongType("item.content", expected: "an array") }
        guard parts.count <= 32 else {
            throw APIError(code: "array_above_max_length", message: "'item.content' has more than 32 parts.", param: "item.content")
        }
        for (index, part) in parts.enumerated() {
            let path = "item.content[\(index)]"
            var fields = try FieldReader(part, path: path)
            let allowed = ["input_text", "input_audio", "input_image", "output_text", "output_audio", "text"]
            guard let type = try fields.choice("type", allowed) else { throw .missing("\(path).type") }
            if type.hasSuffix("text"), try fields.string("text") == nil { throw .missing("\(path).text") }
        }
        return .array(parts)
    }

    mutating func complete(transcript: String?, text: String, status: String) {
        self.status = status == "completed" ? "completed" : "incomplete"
        let part: JSONValue =
            transcript.map { ["type": "output_audio", "transcript": .string($0)] } ?? ["type": "output_text", "text": .string(text)]
        body["content"] = [part]
    }

    mutating func setTranscript(_ text: String) {
        body["content"] = [["type": "input_audio", "transcript": .string(text)]]
    }
}

/// The items in their order; full, the oldest leaves.
struct ItemList: Sendable {
    private let capacity: Int
    private var items: [ConversationItem] = []

    init(capacity: Int) { self.capacity = capacity }

    subscript(_ id: String) -> ConversationItem? { items.last { $0.id == id } }

    /// Inserts behind `after` (`"root"` is the front, nil the end) and tells the item before it.
    mutating func insert(_ item: ConversationItem, after: String?) -> String? {
        if items.count >= capacity { items.removeFirst() }
        var place = items.count
        if after == "root" { place = 0 }
        if let after, let index = items.firstIndex(where: { $0.id == after }) { place = index + 1 }
        items.insert(item, at: place)
        return place == 0 ? nil : items[place - 1].id
    }

    mutating func remove(_ id: String) -> Bool {
        guard let index = items.firstIndex(where: { $0.id == id }) else { return false }
        items.remove(at: index)
        return true
    }

    func previous(of id: String) -> String? {
        guard let index = items.firstIndex(where: { $0.id == id }), index > 0 else { return nil }
        return items[index - 1].id
    }

    mutating func complete(_ id: String, transcript: String?, text: String, status: String) {
        guard let index = items.firstIndex(where: { $0.id == id }) else { return }
        items[index].complete(transcript: transcript, text: text, status: status)
    }

    mutating func setTranscript(_ text: String, of id: String) {
        guard let index = items.firstIndex(where: { $0.id == id }) else { return }
        items[index].setTranscript(text)
    }
}
