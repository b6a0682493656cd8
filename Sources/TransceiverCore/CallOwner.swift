import HTTP
import Primitives
import RoutingHint

// Any transceiver may be asked about any call: the id seals, like a ufrag, where the call lives.

/// A transceiver, as call ids and routing hints name it.
public struct CallOwner: Hashable, Sendable {
    public var cluster: UInt16
    public var transceiver: UInt32

    public init(cluster: UInt16, transceiver: UInt32) {
        self.cluster = cluster
        self.transceiver = transceiver
    }
}

extension SignalingDesk {
    /// Marks a request that another transceiver has sent on, and the target of a redirect: it is answered where it has come to, so that two
    /// who take each other for the owner cannot play ball with it.
    public static let forwardedHeader = "Swiftlet-Forwarded"
    public static let forwardedQueryItem = "swiftlet-forwarded"

    /// Who owns the call that `request` is about; nil when it is answered here: it is about no call, about one of ours, has come from another
    /// transceiver already, or its sender may not ask.
    public mutating func owner(of request: HTTPRequest, at wall: WallClock) -> CallOwner? {
        guard let (id, needsTrust) = Self.callID(in: request), !holdsCall(id) else { return nil }
        guard request.headers[Self.forwardedHeader] == nil, request.queryValue(Self.forwardedQueryItem) == nil else { return nil }
        guard let owner = owner(ofCall: id, at: wall), owner != me else { return nil }
        // A refusal is said, and counted, by whoever answers.
        guard let caller = mayAsk(request, at: wall), caller.isTrusted || !needsTrust else { return nil }
        return owner
    }

    /// Whether `request` asks for a call that has no place here, and could have one at another transceiver.
    public mutating func wantsPlaceElsewhere(_ request: HTTPRequest, at wall: WallClock) -> Bool {
        guard !acceptsCalls, request.method == "POST", Self.tellsCandidates(request) else { return false }
        guard request.headers[Self.forwardedHeader] == nil, request.queryValue(Self.forwardedQueryItem) == nil else { return false }
        return mayAsk(request, at: wall) != nil
    }

    private static func callID(in request: HTTPRequest) -> (id: String, needsTrust: Bool)? {
        if request.path == "/v1/realtime" { return request.queryValue("call_id").map { ($0, true) } }
        guard let route = Route(request.path), route.methods.contains(request.method) else { return nil }
        switch route {
        case .hangup(let id), .telephony(let id), .resource(let id): return (id, route.needsTrust)
        case .calls, .olderCalls, .whip, .clientSecrets, .olderSessions: return nil
        }
    }

    private var me: CallOwner { CallOwner(cluster: settings.cluster, transceiver: settings.transceiver) }
}

extension HTTPResponse {
    /// Nobody answers for a call any more.
    public static func ownerIsGone(_ message: String, code: String) -> HTTPResponse {
        var response = HTTPResponse.error(404, message, code: code)
        response.headers.set("Access-Control-Allow-Origin", "*")
        return response
    }

    /// No place for a new call here, and whoever had one does not answer.
    public static var noPlace: HTTPResponse {
        var response = HTTPResponse.error(503, "All places are taken. Try again later.", code: "at_capacity")
        response.headers.set("Retry-After", "1")
        response.headers.set("Access-Control-Allow-Origin", "*")
        return response
    }

    /// The owner answers, elsewhere: the same request goes there (RFC 9110 §15.4.8).
    public static func ownerIsElsewhere(_ address: SocketAddress, _ request: HTTPRequest) -> HTTPResponse {
        var response = HTTPResponse(status: 307)
        let mark = (request.target.contains("?") ? "&" : "?") + SignalingDesk.forwardedQueryItem + "=1"
        response.headers.set("Location", "http://\(address)\(request.target)\(mark)")
        response.headers.set("Access-Control-Allow-Origin", "*")
        response.headers.set("Access-Control-Expose-Headers", "Location")
        return response
    }
}
