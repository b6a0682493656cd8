import HTTP
import Primitives
import Realtime

// WebSockets of the Realtime API. They carry the same events as a call's data channel:
//
//     GET /v1/realtime?model=…      a session without WebRTC: audio travels inside the events
//     GET /v1/realtime?call_id=…    listens in to a call, and speaks for its client ("sideband")

/// Which session a WebSocket speaks with.
public struct SocketTarget: Hashable, Sendable {
    public var worker: Int
    public var session: UInt32
    /// It listens in to a call that goes on without it.
    public var isSideband: Bool
}

/// What becomes of a request for a WebSocket.
public enum SocketAnswer: Sendable {
    case refused(HTTPResponse)
    /// Fields of the 101 response, and whom it speaks with; say `begin` when it stands.
    case opened(HTTPHeaders, SocketTarget)
}

extension SignalingDesk {
    /// The API's own subprotocol; browsers offer it beside their key.
    private static let subprotocol = "realtime"

    /// Answers a request for a WebSocket; nil when its path is not `/v1/realtime`.
    public mutating func openSocket(_ request: HTTPRequest, at wall: WallClock) -> SocketAnswer? {
        guard request.path == "/v1/realtime" else { return nil }
        do throws(Refusal) {
            return try open(request, at: wall)
        } catch {
            return .refused(.refusal(error))
        }
    }

    private mutating func open(_ request: HTTPRequest, at wall: WallClock) throws(Refusal) -> SocketAnswer {
        let upgrade: WebSocketUpgrade
        do { upgrade = try WebSocketUpgrade(request) } catch { return .refused(error.response) }
        let caller: Caller
        switch judge(request, at: wall) {
        case .refused(let response): return .refused(response)
        case .granted(let granted): caller = granted
        }
        let headers = upgrade.headers(choosing: upgrade.offers(Self.subprotocol) ? Self.subprotocol : nil)
        guard let id = request.queryValue("call_id") else { return .opened(headers, try openWire(request, caller, at: wall)) }
        guard caller.isTrusted else {
            throw Refusal(403, "A client secret opens calls and nothing else; use a project key.", code: "insufficient_permissions")
        }
        let call = try known(id)
        return .opened(headers, SocketTarget(worker: call.worker, session: call.session, isSideband: true))
    }

    private mutating func openWire(_ request: HTTPRequest, _ caller: Caller, at wall: WallClock) throws(Refusal) -> SocketTarget {
        try checkRoom()
        var object = try caller.session(for: request)
        // What a product's own server has chosen, its browser cannot change.
        if caller.isTrusted, request.queryValue("intent") == "transcription" { object.kind = "transcription" }
        let worker = calls.idlestWorker
        let call = newCall(worker: worker, at: wall)
        calls.insert(call)
        calls.noteConnected(session: call.session, worker: worker)
        command(worker, .createWire(session: call.session, object: object, seed: nextSeed()))
        return SocketTarget(worker: worker, session: call.session, isSideband: false)
    }

    /// The socket stands.
    public mutating func begin(_ target: SocketTarget) {
        if target.isSideband { command(target.worker, .watch(session: target.session, true)) }
    }

    /// The socket's client has sent an event.
    public mutating func receive(_ text: [UInt8], from target: SocketTarget) {
        command(target.worker, .clientEvent(session: target.session, text: text))
    }

    /// The socket's client reads more slowly than it is told, or reads again.
    public mutating func pause(_ target: SocketTarget, _ isPaused: Bool) {
        if !target.isSideband { command(target.worker, .pause(session: target.session, isPaused)) }
    }

    /// The socket is gone, and nobody else listens in to the same session.
    public mutating func end(_ target: SocketTarget) {
        guard calls.contains(session: target.session, worker: target.worker) else { return }
        if target.isSideband { return command(target.worker, .watch(session: target.session, false)) }
        command(target.worker, .end(session: target.session, reason: .closedByPeer))
        calls.remove(session: target.session, worker: target.worker)
    }
}
