// Realtime: the vocabulary of the OpenAI Realtime API and the state of one conversation, without any I/O.
//
// `Conversation` is the machine. In go the client's events (JSON text from a data channel or a WebSocket), what turn detection heard, what
// the backend said, and what playout did. Out come server events, in the order that the API documents, and actions for whoever owns audio
// and backend. It never sees a sample: it deals in milliseconds and identifiers.

import Primitives

/// An error as the API tells it: the `error` object of an `error` event or of an HTTP answer.
public struct APIError: Error, Sendable, Equatable {
    /// `invalid_request_error`, `server_error`, …
    public var type: String
    /// A stable name for programs, such as `invalid_value`.
    public var code: String?
    /// A sentence for people: what was given, what is allowed.
    public var message: String
    /// The path of the field at fault, such as `session.audio.input.turn_detection.threshold`.
    public var param: String?

    public init(type: String = "invalid_request_error", code: String?, message: String, param: String? = nil) {
        self.type = type
        self.code = code
        self.message = message
        self.param = param
    }

    static func missing(_ param: String) -> APIError {
        APIError(code: "missing_required_parameter", message: "Missing required parameter: '\(param)'.", param: param)
    }
    static func unknown(_ param: String) -> APIError {
        APIError(code: "unknown_parameter", message: "Unknown parameter: '\(param)'.", param: param)
    }
    static func wrongType(_ param: String, expected: String) -> APIError {
        APIError(code: "invalid_type", message: "Invalid type for '\(param)': expected \(expected).", param: param)
    }
    static func wrongValue(_ param: String, given: JSONValue, allowed: String) -> APIError {
        APIError(
            code: "invalid_value", message: "Invalid value for '\(param)': \(shortened(given)). Allowed: \(allowed).", param: param)
    }

    /// At most 60 characters of what a client sent: an error must not carry a whole body back.
    private static func shortened(_ value: JSONValue) -> String {
        let text = value.text
        return text.utf8.count <= 60 ? text : String(text.prefix(57)) + "…"
    }

    /// The `error` object; `event_id` names the client event that caused it.
    public func json(eventID: String? = nil) -> JSONValue {
        var object: JSONValue = [
            "type": .string(type), "code": code.map { .string($0) } ?? .null, "message": .string(message),
            "param": param.map { .string($0) } ?? .null,
        ]
        if case .object(var members) = object, let eventID {
            members["event_id"] = .string(eventID)
            object = .object(members)
        }
        return object
    }
}

/// Makes `event_…`, `item_…` and `resp_…` identifiers: random, so that nobody guesses another conversation's.
public struct IdentifierSource: Sendable {
    private var random: SeededGenerator
    /// - Parameter seed: from the system's entropy in a server, from the scenario in a simulation.
    public init(seed: UInt64) { random = SeededGenerator(seed: seed) }

    public mutating func make(_ prefix: String) -> String {
        var text = prefix + "_"
        for _ in 0..<2 {
            let digits = String(random.next(), radix: 36)
            text += String(repeating: "0", count: 13 - digits.utf8.count) + digits
        }
        return text
    }
}
