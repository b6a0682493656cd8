import HTTP
import Primitives
import Realtime

/// Who a request comes from.
public enum Caller: Sendable, Equatable {
    /// Nobody has to say who they are here.
    case anonymous
    /// A project key, by its name in the key file.
    case project(name: String)
    /// A client secret: a browser, with the session that its own server has chosen for it.
    case ephemeral(session: SessionObject)

    /// Whether it may do what only a product's own server does: mint secrets, end others' calls, attach to them.
    public var isTrusted: Bool {
        guard case .ephemeral = self else { return true }
        return false
    }
}

/// Decides who may come in: by project keys, by client secrets, or everybody.
public struct AccessControl: Sendable {
    /// nil: open to everybody. Only for a server that nobody else can reach.
    public var keys: APIKeys?
    let secrets: ClientSecrets

    public init(keys: APIKeys?, secrets: ClientSecrets) {
        self.keys = keys
        self.secrets = secrets
    }

    /// What a browser, which cannot set headers, puts before its key in a WebSocket's subprotocols.
    public static let subprotocolPrefix = "openai-insecure-api-key."

    public enum Verdict: Sendable, Equatable {
        case granted(Caller)
        /// The answer: 401 with a reason.
        case refused(HTTPResponse)
    }

    /// Who sends `request`, by `Authorization: Bearer …` or by a WebSocket's subprotocol.
    public func judge(_ request: HTTPRequest, at wall: WallClock) -> Verdict {
        do { return .granted(try caller(request, at: wall)) } catch { return .refused(.refusal(error)) }
    }

    func caller(_ request: HTTPRequest, at wall: WallClock) throws(Refusal) -> Caller {
        guard let token = Self.token(request) else {
            guard keys == nil else {
                throw Refusal(
                    401, "Missing bearer authentication in header: send Authorization: Bearer KEY.", code: "missing_api_key")
            }
            return .anonymous
        }
        if token.hasPrefix(ClientSecrets.prefix) {
            switch secrets.open(token, at: wall) {
            case .valid(let session, _): return .ephemeral(session: session)
            case .expired: throw Refusal(401, "This client secret has expired; get a new one.", code: "client_secret_expired")
            case .unknown: break
            }
        }
        guard let keys else { return .anonymous }
        guard let name = keys.name(of: token) else {
            throw Refusal(401, "Incorrect API key provided: \(Self.shortened(token)).", code: "invalid_api_key")
        }
        return .project(name: name)
    }

    private static func token(_ request: HTTPRequest) -> String? {
        if let token = request.bearerToken { return token }
        guard WebSocketUpgrade.isAsked(by: request), let upgrade = try? WebSocketUpgrade(request) else { return nil }
        return upgrade.value(behind: subprotocolPrefix)
    }

    /// Enough of a key to tell which one it was, and no more.
    private static func shortened(_ token: String) -> String {
        guard token.utf8.count >= 24, token.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return "***" }
        return "\(token.prefix(6))***\(token.suffix(4))"
    }
}
