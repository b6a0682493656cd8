// Requests that get no answer but an error: the right status, one JSON shape, and a message that says what to change.
import HTTP
import Primitives
import Testing
import TransceiverCore

@Suite struct RefusalTests {
    struct Case: Sendable, CustomStringConvertible {
        let name: String
        let request: HTTPRequest
        let status: Int
        let code: String
        var param: String?
        /// What the message must speak of.
        var mentions: [String] = []
        var description: String { name }
    }

    static func form(session: String) -> HTTPRequest { .form([("sdp", Sample.offer()), ("session", Array(session.utf8))]) }

    static let cases = [
        Case(
            name: "JSON instead of SDP", request: .post(Sample.callsPath, Sample.offer(), type: "application/json"), status: 415,
            code: "unsupported_media_type", mentions: ["application/sdp", "multipart/form-data", "application/json"]),
        Case(
            name: "no content type", request: .post(Sample.callsPath, Sample.offer(), type: nil), status: 415,
            code: "unsupported_media_type", mentions: ["application/sdp"]),
        Case(
            name: "a form for WHIP",
            request: HTTPRequest(method: "POST", path: "/whip", headers: form(session: "{}").headers, body: form(session: "{}").body),
            status: 415, code: "unsupported_media_type", mentions: ["application/sdp"]),
        Case(
            name: "an empty body", request: .post(Sample.callsPath, []), status: 400, code: "invalid_offer", param: "sdp",
            mentions: ["offer"]),
        Case(
            name: "not SDP", request: .post(Sample.callsPath, Array("hello".utf8)), status: 400, code: "invalid_offer", param: "sdp"),
        Case(
            name: "no fingerprint", request: .post(Sample.callsPath, without("a=fingerprint")), status: 400, code: "invalid_offer",
            param: "sdp", mentions: ["fingerprint"]),
        Case(
            name: "no ufrag", request: .post(Sample.callsPath, without("a=ice-ufrag")), status: 400, code: "invalid_offer", param: "sdp",
            mentions: ["ice-ufrag"]),
        Case(
            name: "a hash that is too weak",
            request: .post(Sample.callsPath, replacing("a=fingerprint", with: "a=fingerprint:sha-1 " + hexPairs(20))), status: 400,
            code: "invalid_offer", param: "sdp", mentions: ["sha-256"]),
        Case(
            name: "a form without sdp", request: .form([("session", Array("{}".utf8))]), status: 400, code: "missing_required_parameter",
            param: "sdp", mentions: ["sdp"]),
        Case(
            name: "a form that is cut off",
            request: .post(Sample.callsPath, Array("--edge\r\nConte".utf8), type: "multipart/form-data; boundary=edge"), status: 400,
            code: "invalid_multipart"),
        Case(
            name: "a form without boundary", request: .post(Sample.callsPath, [], type: "multipart/form-data"), status: 400,
            code: "invalid_multipart"),
        Case(
            name: "a session that is not JSON", request: form(session: "{"), status: 400, code: "invalid_json", param: "session"),
        Case(
            name: "a session that is a list", request: form(session: "[]"), status: 400, code: "invalid_type", param: "session"),
        Case(
            name: "a session field out of range",
            request: form(session: #"{"audio":{"input":{"turn_detection":{"type":"server_vad","threshold":7}}}}"#), status: 400,
            code: "invalid_value", param: "session.audio.input.turn_detection.threshold", mentions: ["7"]),
        Case(
            name: "a session field that is unknown", request: form(session: #"{"colour":"red"}"#), status: 400,
            code: "unknown_parameter", param: "session.colour"),
        Case(
            name: "a session field of the wrong type", request: form(session: #"{"instructions":3}"#), status: 400,
            code: "invalid_type", param: "session.instructions"),
        Case(
            name: "semantic turn detection, which nobody here can do",
            request: form(session: #"{"audio":{"input":{"turn_detection":{"type":"semantic_vad"}}}}"#), status: 400,
            code: "unsupported_value", param: "session.audio.input.turn_detection.type"),
        Case(
            name: "a safety identifier that is none", request: saying(String(repeating: "u", count: 513)), status: 400,
            code: "invalid_value",
            param: "OpenAI-Safety-Identifier"),
        Case(
            name: "a model that is too long",
            request: HTTPRequest.asking(Sample.callsPath, [("model", String(repeating: "m", count: 257))]), status: 400,
            code: "string_above_max_length", param: "model"),
        Case(
            name: "an answer to a call by telephone that is not there", request: .post("/v1/realtime/calls/rtc_x/accept", [], type: nil),
            status: 404, code: "call_not_found"),
        Case(
            name: "a hangup of nobody", request: .post("/v1/realtime/calls/rtc_unknown/hangup", [], type: nil), status: 404,
            code: "call_not_found"),
        Case(
            name: "a deletion of nobody", request: HTTPRequest(method: "DELETE", path: "/whip/rtc_unknown"), status: 404,
            code: "call_not_found"),
        Case(
            name: "a patch of nobody", request: .patch("/whip/rtc_unknown", "a=end-of-candidates\r\n", match: "*"), status: 404,
            code: "call_not_found"),
    ]

    @Test(arguments: cases)
    func `a wrong request is refused with a status, a code and advice, and leaves nothing behind`(_ each: Case) throws {
        var desk = Sample.desk()
        let response = try desk.respond(each.request)
        #expect(response.status == each.status, "\(response.text)")
        let error = response.error()
        #expect(error.code == each.code)
        #expect(error.type == "invalid_request_error")
        #expect(error.param == each.param)
        let message = error.message ?? ""
        #expect(message.count > 10)
        for word in each.mentions { #expect(message.contains(word), "\(message)") }
        let calls = desk.callCount
        let hasCommand = desk.nextCommand() != nil
        let accepted = desk.counters.offersAccepted
        #expect(calls == 0 && !hasCommand && accepted == 0)
    }

    @Test(arguments: [
        ("GET", "/v1/realtime/calls", "POST, OPTIONS"), ("PUT", "/whip", "POST, OPTIONS"),
        ("DELETE", "/v1/realtime/calls/rtc_x/hangup", "POST, OPTIONS"), ("GET", "/whip/rtc_x", "DELETE, PATCH, OPTIONS"),
        ("GET", "/v1/realtime/sessions", "POST, OPTIONS"), ("PUT", "/v1/realtime", "POST, OPTIONS"),
        ("GET", "/v1/realtime/calls/rtc_x/accept", "POST, OPTIONS"), ("HEAD", "/whip", "POST, OPTIONS"),
        ("PUT", "/whip/rtc_x", "DELETE, PATCH, OPTIONS"),
        ("POST", "/whip/rtc_x", "DELETE, PATCH, OPTIONS"),
    ])
    func `a wrong method gets 405 and the right ones`(_ method: String, _ path: String, _ allowed: String) throws {
        var desk = Sample.desk()
        let response = try desk.respond(HTTPRequest(method: method, path: path))
        #expect(response.status == 405)
        #expect(response.headers["Allow"] == allowed)
        #expect(response.error().code == "method_not_allowed")
    }

    @Test(arguments: [
        "/", "/healthz", "/v1", "/v1/live", "/v1/realtime/call/rtc_x", "/v1/realtime/calls/rtc_x/accept/x", "/whip/a/b",
        "/v1/realtime/calls/rtc_x/hang", "",
    ])
    func `other paths are somebody else's`(_ path: String) {
        var desk = Sample.desk()
        let isOurs = desk.answer(.post(path, []), at: Sample.wall) != nil
        #expect(!isOurs)
    }

    @Test(arguments: [
        ("/v1/realtime/calls", "POST, OPTIONS"), ("/whip", "POST, OPTIONS"), ("/whip/rtc_x", "DELETE, PATCH, OPTIONS"),
        ("/v1/realtime/calls/rtc_x/hangup", "POST, OPTIONS"), ("/v1/realtime", "POST, OPTIONS"), ("/v1/realtime/sessions", "POST, OPTIONS"),
    ])
    func `a browser may ask before it asks`(_ path: String, _ methods: String) throws {
        var desk = Sample.desk()
        let response = try desk.respond(HTTPRequest(method: "OPTIONS", path: path))
        #expect(response.status == 204)
        #expect(response.body.isEmpty)
        #expect(response.headers["Access-Control-Allow-Origin"] == "*")
        #expect(response.headers["Access-Control-Allow-Methods"] == methods)
        for name in ["Content-Type", "If-Match", "Authorization", "OpenAI-Beta", "OpenAI-Safety-Identifier"] {
            #expect(response.headers["Access-Control-Allow-Headers"]?.contains(name) == true)
        }
        #expect(response.headers["Access-Control-Max-Age"] == "86400")
        #expect((response.headers["Accept-Post"] == "application/sdp") == (path == "/whip"))
    }

    @Test func `a full server says when to try again, and takes calls when one has ended`() throws {
        var desk = Sample.desk(callsMax: 2)
        for _ in 0..<2 { _ = desk.answer(.offer(), at: Sample.wall) }
        let creations = desk.creations()
        let response = try desk.respond(.offer())
        #expect(response.status == 503)
        #expect(response.headers["Retry-After"] == "1")
        #expect(response.headers["Access-Control-Expose-Headers"]?.contains("Retry-After") == true)
        let error = response.error()
        #expect(error.code == "at_capacity" && error.type == "server_error")
        let turnedAway = desk.counters.offersTurnedAway
        let mayCome = desk.acceptsCalls
        #expect(turnedAway == 1 && !mayCome)

        desk.receive(.ended(session: creations[0].id, reason: .hangup), from: 0)
        let status = desk.answer(.offer(), at: Sample.wall)?.status
        #expect(status == 201)
    }

    @Test func `a draining server takes no calls, but ends and patches those it has`() throws {
        var desk = Sample.desk()
        let location = try desk.open(at: "/whip")
        desk.drain()
        let response = try desk.respond(.offer(to: "/whip"))
        #expect(response.status == 503)
        #expect(response.headers["Retry-After"] == "1")
        #expect(response.error().code == "draining")
        let patched = desk.answer(.patch(location, "a=end-of-candidates\r\n", match: "*"), at: Sample.wall)?.status
        #expect(patched == 204)
        let deleted = desk.answer(HTTPRequest(method: "DELETE", path: location), at: Sample.wall)?.status
        #expect(deleted == 200)
    }

    @Test func `refused offers take no place of good ones`() throws {
        var desk = Sample.desk(callsMax: 1)
        for each in Self.cases { _ = desk.answer(each.request, at: Sample.wall) }
        let status = desk.answer(.offer(), at: Sample.wall)?.status
        #expect(status == 201)
    }

    private static func saying(_ user: String) -> HTTPRequest {
        var request = HTTPRequest.offer()
        request.headers.set("OpenAI-Safety-Identifier", user)
        return request
    }

    private static func without(_ prefix: String) -> [UInt8] { replacing(prefix, with: nil) }

    private static func replacing(_ prefix: String, with line: String?) -> [UInt8] {
        let lines = String(decoding: Sample.offer(), as: UTF8.self).split(whereSeparator: \.isNewline)
        return lines.compactMap { $0.hasPrefix(prefix) ? line : String($0) }.flatMap { Array(($0 + "\r\n").utf8) }
    }

    private static func hexPairs(_ count: Int) -> String { Array(repeating: "AB", count: count).joined(separator: ":") }
}
