import HTTP
import Primitives
import Realtime

/// The paths of signaling.
enum Route: Equatable {
    case calls, whip, clientSecrets
    /// Offers, as clients sent them before the API was final; a GET is for a WebSocket.
    case olderCalls
    /// Ephemeral keys of that time.
    case olderSessions(isTranscription: Bool)
    case hangup(String)
    /// `accept`, `reject` and `refer`: what only calls by SIP know.
    case telephony(String)
    case resource(String)

    init?(_ path: String) {
        // As nearly every request has it.
        switch path {
        case "/v1/realtime/calls": self = .calls
        case "/whip": self = .whip
        default: self.init(parts: path)
        }
    }

    private init?(parts path: String) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: true)
        guard parts.count < 2 || parts[0] != "v1" else {
            guard parts[1] == "realtime", let route = Route(realtime: parts.dropFirst(2).map(String.init)) else { return nil }
            self = route
            return
        }
        switch parts.count {
        case 1 where parts[0] == "whip": self = .whip
        case 2 where parts[0] == "whip": self = .resource(String(parts[1]))
        default: return nil
        }
    }

    /// Behind `/v1/realtime`.
    private init?(realtime parts: [String]) {
        switch (parts.count, parts.first) {
        case (0, _): self = .olderCalls
        case (1, "calls"): self = .calls
        case (1, "client_secrets"): self = .clientSecrets
        case (1, "sessions"): self = .olderSessions(isTranscription: false)
        case (1, "transcription_sessions"): self = .olderSessions(isTranscription: true)
        case (2, "calls"): self = .resource(parts[1])
        case (3, "calls") where parts[2] == "hangup": self = .hangup(parts[1])
        case (3, "calls") where ["accept", "reject", "refer"].contains(parts[2]): self = .telephony(parts[1])
        default: return nil
        }
    }

    var methods: [String] {
        switch self {
        case .calls, .olderCalls, .whip, .hangup, .telephony, .clientSecrets, .olderSessions: ["POST"]
        case .resource: ["DELETE", "PATCH"]
        }
    }
}

extension Route {
    /// Whether a browser's client secret is not enough. WHIP's resources are the client's own (RFC 9725 §4.2).
    var needsTrust: Bool {
        switch self {
        case .clientSecrets, .olderSessions, .hangup, .telephony: true
        case .calls, .olderCalls, .whip, .resource: false
        }
    }
}

/// Why a request gets no answer but an error: status, and a message that says what to change.
struct Refusal: Error {
    var status: Int
    var error: APIError
    /// Seconds after which another try makes sense.
    var retryAfter: Int?

    init(_ status: Int, _ message: String, code: String, param: String? = nil, retryAfter: Int? = nil) {
        self.status = status
        error = APIError(type: status >= 500 ? "server_error" : "invalid_request_error", code: code, message: message, param: param)
        self.retryAfter = retryAfter
    }

    init(_ status: Int, _ error: APIError) {
        self.status = status
        self.error = error
    }
}

extension HTTPResponse {
    static func refusal(_ refusal: Refusal) -> HTTPResponse {
        var response = HTTPResponse.json(refusal.status, ["error": refusal.error.json()])
        // RFC 9110 §11.6.1: a 401 says how to do better.
        if refusal.status == 401 { response.headers.set("WWW-Authenticate", "Bearer") }
        if let seconds = refusal.retryAfter { response.headers.set("Retry-After", String(seconds)) }
        return response
    }

    static func methodNotAllowed(_ method: String, _ route: Route) -> HTTPResponse {
        let allowed = route.methods.joined(separator: ", ")
        var response = refusal(Refusal(405, "\(method) is not for this path; use \(allowed).", code: "method_not_allowed"))
        response.headers.set("Allow", allowed + ", OPTIONS")
        response.headers.set("Access-Control-Allow-Origin", "*")
        return response
    }

    /// The answer to a browser that asks whether it may ask.
    static func preflight(_ route: Route) -> HTTPResponse {
        var response = HTTPResponse(status: 204)
        let methods = route.methods.joined(separator: ", ") + ", OPTIONS"
        response.headers.set("Access-Control-Allow-Origin", "*")
        response.headers.set("Access-Control-Allow-Methods", methods)
        response.headers.set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, OpenAI-Beta, OpenAI-Safety-Identifier")
        response.headers.set("Access-Control-Max-Age", "86400")
        response.headers.set("Allow", methods)
        if route == .whip { response.headers.set("Accept-Post", "application/sdp") }
        return response
    }
}

/// The offer, out of either kind of body.
struct OfferBody {
    var sdp: [UInt8]
    var session = SessionObject()
    /// `?dcid=N`: the id of the data channel that the client has made as negotiated.
    var dataChannel: UInt16?

    /// - Parameter caller: a client secret brings its session along, and its holder cannot choose another one.
    init(_ request: HTTPRequest, allowsMultipart: Bool, from caller: Caller, _ abilities: SessionObject.Abilities) throws(Refusal) {
        session = try caller.session(for: request)
        let type = request.mediaType
        switch type {
        case "application/sdp": sdp = request.body
        case "multipart/form-data" where allowsMultipart:
            let form: MultipartForm
            do {
                form = try MultipartForm(parsing: request.body.span.bytes, contentType: request.headers["Content-Type"] ?? "")
            } catch {
                throw Refusal(400, "The multipart body cannot be read: \(error.message)", code: "invalid_multipart")
            }
            guard let part = form["sdp"] else {
                throw Refusal(400, "The form has no field 'sdp' with the offer.", code: "missing_required_parameter", param: "sdp")
            }
            sdp = part.body
            if let part = form["session"] {
                guard caller.isTrusted else {
                    throw Refusal(
                        403, "The session was set with the client secret; send the offer alone, and changes with session.update.",
                        code: "session_is_bound", param: "session")
                }
                try take(session: part.body, abilities)
            }
        default:
            let allowed = allowsMultipart ? "application/sdp or multipart/form-data" : "application/sdp"
            throw Refusal(415, "Content-Type must be \(allowed), not \(type ?? "missing").", code: "unsupported_media_type")
        }
        guard !sdp.isEmpty else { throw Refusal(400, "The body has no offer.", code: "invalid_offer", param: "sdp") }
        guard let text = request.queryValue("dcid") else { return }
        // RFC 8832 §6: 65535 is not an id.
        guard let id = UInt16(text), id < .max else {
            throw Refusal(
                400, "dcid must be the id of a negotiated data channel, 0 to 65534, not '\(text.prefix(20))'.", code: "invalid_value",
                param: "dcid")
        }
        dataChannel = id
    }

    private mutating func take(session json: [UInt8], _ abilities: SessionObject.Abilities) throws(Refusal) {
        let value: JSONValue
        do {
            value = try JSONValue(parsing: json.span.bytes)
        } catch {
            throw Refusal(400, "The field 'session' is not JSON: \(error)", code: "invalid_json", param: "session")
        }
        do {
            try session.apply(value, abilities: abilities)
        } catch {
            throw Refusal(400, error)
        }
    }
}

extension Caller {
    /// What a session of `request` begins with: that of the caller's client secret, or one with the model that the query names.
    func session(for request: HTTPRequest) throws(Refusal) -> SessionObject {
        if case .ephemeral(var bound) = self {
            if bound.safetyIdentifier == nil { bound.safetyIdentifier = try request.safetyIdentifier() }
            return bound
        }
        var session = SessionObject()
        session.safetyIdentifier = try request.safetyIdentifier()
        guard let model = request.queryValue("model"), !model.isEmpty else { return session }
        guard model.utf8.count <= 256 else {
            throw Refusal(400, "'model' is longer than 256 bytes.", code: "string_above_max_length", param: "model")
        }
        session.model = model
        return session
    }
}

extension HTTPRequest {
    static let safetyIdentifierHeader = "OpenAI-Safety-Identifier"
    static let safetyIdentifierMax = 512

    /// Who the end user is to the client's own server: a hash.
    func safetyIdentifier() throws(Refusal) -> String? {
        guard let text = headers[Self.safetyIdentifierHeader], !text.isEmpty else { return nil }
        guard text.utf8.count <= Self.safetyIdentifierMax, text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) else {
            throw Refusal(
                400, "\(Self.safetyIdentifierHeader) must be at most \(Self.safetyIdentifierMax) visible ASCII characters.",
                code: "invalid_value", param: Self.safetyIdentifierHeader)
        }
        return text
    }
}
