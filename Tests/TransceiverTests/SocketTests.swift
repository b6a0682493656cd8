// Requests for WebSockets: whom they reach, what their session begins with, and who is turned away.
import HTTP
import Primitives
import Realtime
import Testing
import TransceiverCore

private let projectKey = "sk-swiftlet-0123456789abcdef"

private func socket(_ query: [(String, String)], bearing token: String? = projectKey) -> HTTPRequest {
    var headers = HTTPHeaders([
        ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ])
    if let token { headers.set("Authorization", "Bearer \(token)") }
    var request = HTTPRequest(method: "GET", path: "/v1/realtime", headers: headers)
    request.query = query.map { HTTPQueryItem(name: $0.0, value: $0.1) }
    return request
}

private func desk(callsMax: Int = 8) throws -> SignalingDesk {
    Sample.desk(callsMax: callsMax, keys: try APIKeys(parsing: Array("\(projectKey) shop\n".utf8)))
}

private func secret(_ desk: inout SignalingDesk, _ session: String) throws -> String {
    var request = HTTPRequest.post("/v1/realtime/client_secrets", Array(#"{"session":\#(session)}"#.utf8), type: "application/json")
    request.headers.set("Authorization", "Bearer \(projectKey)")
    let response = try desk.respond(request)
    return try #require(try JSONValue(parsing: response.body.span.bytes)["value"]?.string)
}

private func refusal(_ desk: inout SignalingDesk, _ request: HTTPRequest) -> HTTPResponse? {
    guard case .refused(let response)? = desk.openSocket(request, at: Sample.wall) else { return nil }
    return response
}

/// The session of a socket that was opened.
private func opened(_ desk: inout SignalingDesk, _ request: HTTPRequest) -> SessionObject? {
    guard case .opened? = desk.openSocket(request, at: Sample.wall) else { return nil }
    for command in desk.commands() { if case .createWire(_, let object, _) = command.command { return object } }
    return nil
}

@Suite struct WebSocketsOfTheAPI {
    @Test func `a session begins as its query and its key say`() throws {
        var desk = try desk()
        #expect(opened(&desk, socket([("model", "gpt-realtime")]))?.model == "gpt-realtime")
        #expect(opened(&desk, socket([]))?.model == SessionObject().model)
        #expect(opened(&desk, socket([("intent", "transcription")]))?.kind == "transcription")
        var named = socket([("model", "m")])
        named.headers.set("OpenAI-Safety-Identifier", "hash")
        #expect(opened(&desk, named)?.safetyIdentifier == "hash")
        // What a product's own server has chosen, its browser cannot change.
        let key = try secret(&desk, #"{"model":"bound","instructions":"x"}"#)
        let session = opened(&desk, socket([("model", "other"), ("intent", "transcription")], bearing: key))
        #expect(session?.model == "bound" && session?.instructions == "x" && session?.kind == "realtime")
    }

    @Test func `a subprotocol is chosen that is no key`() throws {
        var desk = try desk()
        var request = socket([("model", "m")], bearing: nil)
        request.headers.set("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.\(projectKey), openai-beta.realtime-v1")
        guard case .opened(let headers, let target)? = desk.openSocket(request, at: Sample.wall) else {
            Issue.record("not opened")
            return
        }
        #expect(headers["Sec-WebSocket-Protocol"] == "realtime" && !target.isSideband)
    }

    @Test func `who listens in reaches the call, with a project key alone`() throws {
        var desk = try desk()
        var offer = HTTPRequest.offer()
        offer.headers.set("Authorization", "Bearer \(projectKey)")
        _ = try desk.respond(offer)
        let call = try desk.onlyCreation()
        guard case .opened(_, let target)? = desk.openSocket(socket([("call_id", call.callID)]), at: Sample.wall) else {
            Issue.record("not opened")
            return
        }
        #expect(target.worker == 0 && target.session == call.id && target.isSideband)
        let key = try secret(&desk, "{}")
        let browser = refusal(&desk, socket([("call_id", call.callID)], bearing: key))
        #expect(browser?.status == 403 && browser?.errorCode == "insufficient_permissions")
        let nobody = refusal(&desk, socket([("call_id", "rtc_nobody")]))
        #expect(nobody?.status == 404 && nobody?.errorCode == "call_not_found")
    }

    @Test func `who may not come in, or finds no place, is told why`() throws {
        var desk = try desk(callsMax: 1)
        #expect(refusal(&desk, socket([("model", "m")], bearing: nil))?.errorCode == "missing_api_key")
        #expect(refusal(&desk, socket([("model", "m")], bearing: "sk-wrong-0123456789abcdef"))?.status == 401)
        var plain = socket([("model", "m")])
        plain.headers.remove("Upgrade")
        #expect(refusal(&desk, plain)?.status == 426)
        #expect(refusal(&desk, socket([("model", String(repeating: "m", count: 257))]))?.errorCode == "string_above_max_length")
        #expect(opened(&desk, socket([("model", "m")])) != nil)
        let full = refusal(&desk, socket([("model", "m")]))
        #expect(full?.status == 503 && full?.errorCode == "at_capacity" && full?.headers["Retry-After"] == "1")
    }
}

extension HTTPResponse {
    /// Of `{"error": {"code"}}`.
    fileprivate var errorCode: String? { (try? JSONValue(parsing: body.span.bytes))?["error"]?["code"]?.string }
}
