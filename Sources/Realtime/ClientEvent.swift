import Primitives

/// What a client may ask for, read and checked.
public enum ClientEvent: Sendable, Equatable {
    case sessionUpdate(JSONValue)
    /// Audio bytes in the session's input format.
    case inputAudioAppend([UInt8])
    case inputAudioCommit
    case inputAudioClear
    case outputAudioClear
    case itemCreate(item: JSONValue, after: String?)
    case itemRetrieve(id: String)
    case itemTruncate(id: String, contentIndex: Int, audioEndMilliseconds: Int)
    case itemDelete(id: String)
    case responseCreate(JSONValue?)
    case responseCancel(id: String?)
}

extension ClientEvent {
    /// The largest event text, in bytes: an `append` may carry 15 MiB by the API, of which a voice session needs far less.
    public static let maximumBytes = 1 << 20

    /// An event with the client's own `event_id`, or the error to send back with that id.
    public enum Parsed: Sendable {
        case event(ClientEvent, id: String?)
        case refused(APIError, id: String?)
    }

    public static func parse(_ text: RawSpan) -> Parsed {
        let value: JSONValue
        do {
            value = try JSONValue(parsing: text, limits: JSONLimits(bytes: maximumBytes, depth: 24, values: 8_192))
        } catch {
            return .refused(
                APIError(code: "invalid_json", message: "The event is not valid JSON within this server's limits (\(error))."), id: nil)
        }
        let id = value["event_id"]?.string.flatMap { $0.utf8.count <= 512 ? $0 : nil }
        do {
            return .event(try ClientEvent(value), id: id)
        } catch {
            return .refused(error, id: id)
        }
    }

    private init(_ value: JSONValue) throws(APIError) {
        var fields = try FieldReader(value, path: "")
        _ = fields.value("event_id")
        guard let type = try fields.string("type", maximum: 128) else { throw .missing("type") }
        switch type {
        case "session.update":
            guard let session = fields.value("session") else { throw .missing("session") }
            self = .sessionUpdate(session)
        case "input_audio_buffer.append":
            guard let audio = try fields.string("audio", maximum: Self.maximumBytes) else { throw .missing("audio") }
            guard let bytes = Base64.decode(audio) else {
                throw APIError(code: "invalid_value", message: "'audio' is not valid base64.", param: "audio")
            }
            self = .inputAudioAppend(bytes)
        case "input_audio_buffer.commit": self = .inputAudioCommit
        case "input_audio_buffer.clear": self = .inputAudioClear
        case "output_audio_buffer.clear": self = .outputAudioClear
        case "conversation.item.create":
            guard let item = fields.value("item") else { throw .missing("item") }
            self = .itemCreate(item: item, after: try fields.string("previous_item_id", maximum: 128))
        case "conversation.item.retrieve": self = .itemRetrieve(id: try Self.itemID(&fields))
        case "conversation.item.delete": self = .itemDelete(id: try Self.itemID(&fields))
        case "conversation.item.truncate":
            let id = try Self.itemID(&fields)
            guard let index = try fields.integer("content_index", in: 0...16) else { throw .missing("content_index") }
            guard let end = try fields.integer("audio_end_ms", in: 0...86_400_000) else { throw .missing("audio_end_ms") }
            self = .itemTruncate(id: id, contentIndex: index, audioEndMilliseconds: end)
        case "response.create":
            let response = fields.value("response")
            if let response, !response.isNull, response.object == nil { throw .wrongType("response", expected: "an object") }
            self = .responseCreate(response)
        case "response.cancel": self = .responseCancel(id: try fields.string("response_id", maximum: 128))
        default:
            throw APIError(
                code: "invalid_value", message: "Unknown event type '\(type)'.", param: "type")
        }
        try fields.finish()
    }

    private static func itemID(_ fields: inout FieldReader) throws(APIError) -> String {
        guard let id = try fields.string("item_id", maximum: 128) else { throw .missing("item_id") }
        return id
    }
}

/// No text makes the parser trap, and what parses is one of the vocabulary.
public func fuzzClientEvent(_ bytes: RawSpan) {
    var conversation = Conversation(session: SessionObject(), abilities: .init(semanticVAD: false), seed: 1)
    conversation.begin()
    conversation.receive(clientEvent: bytes)
    while let event = conversation.nextEvent() {
        let readable = unsafe (try? JSONValue(parsing: event.span.bytes, limits: JSONLimits(bytes: 4 << 20))) != nil
        precondition(readable, "we wrote JSON that we cannot read")
    }
}
