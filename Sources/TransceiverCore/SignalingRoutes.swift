import HTTP
import Primitives
import Realtime

/// The paths of signaling.
enum Route: Equatable {
    case calls, whip
    case hangup(String)
    case resource(String)

    init?(_ path: String) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: true)
        switch parts.count {
        case 1 where parts[0] == "whip": self = .whip
        case 2 where parts[0] == "whip": self = .resource(String(parts[1]))
        case 3 where parts[0] == "v1" && parts[1] == "realtime" && parts[2] == "calls": self = .calls
        case 5 where parts[0] == "v1" && parts[1] == "realtime" && parts[2] == "calls" && parts[4] == "hangup":
            self = .hangup(String(parts[3]))
        default: return nil
        }
    }

    var methods: [String] {
        switch self {
        case .calls, .whip, .hangup: ["POST"]
        case .resource: ["DELETE", "PATCH"]
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

    init(_ request: HTTPRequest, allowsMultipart: Bool) throws(Refusal) {
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
            if let part = form["session"] { try take(session: part.body) }
        default:
            let allowed = allowsMultipart ? "application/sdp or multipart/form-data" : "application/sdp"
            throw Refusal(415, "Content-Type must be \(allowed), not \(type ?? "missing").", code: "unsupported_media_type")
        }
        guard !sdp.isEmpty else { throw Refusal(400, "The body has no offer.", code: "invalid_offer", param: "sdp") }
    }

    private mutating func take(session json: [UInt8]) throws(Refusal) {
        let value: JSONValue
        do {
            value = try JSONValue(parsing: json.span.bytes)
        } catch {
            throw Refusal(400, "The field 'session' is not JSON: \(error)", code: "invalid_json", param: "session")
        }
        do {
            try session.apply(value, abilities: SessionObject.Abilities(semanticVAD: false))
        } catch {
            throw Refusal(400, error)
        }
    }
}
