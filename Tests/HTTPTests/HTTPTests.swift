import HTTP
import Primitives
import TestSupport
import Testing

private let start = Instant.zero

/// Everything that a connection makes of `text`, with each request answered by 204.
private func read(_ text: String, limits: HTTPLimits = HTTPLimits()) -> [HTTPServerEvent] {
    var connection = HTTPServerConnection(limits: limits, at: start)
    connection.receive(Array(text.utf8).span.bytes, at: start)
    var events: [HTTPServerEvent] = []
    while let event = connection.nextEvent() {
        events.append(event)
        if case .request = event { connection.send(HTTPResponse(status: 204), at: start) }
    }
    return events
}

private func requests(_ text: String) -> [HTTPRequest] {
    read(text).compactMap { if case .request(let request) = $0 { request } else { nil } }
}

private func refusal(_ text: String, limits: HTTPLimits = HTTPLimits()) -> HTTPFailure? {
    guard case .refused(let failure)? = read(text, limits: limits).last else { return nil }
    return failure
}

/// All output of a connection that got `text` and answers with `response`.
private func answer(_ text: String, with response: HTTPResponse) -> String {
    var connection = HTTPServerConnection(at: start)
    connection.receive(Array(text.utf8).span.bytes, at: start)
    while let event = connection.nextEvent() { if case .request = event { connection.send(response, at: start) } }
    return String(decoding: connection.output.array, as: UTF8.self)
}

@Suite struct ReadingRequests {
    @Test func `a request with a body is read as a whole`() throws {
        let request = try #require(
            requests("POST /v1/x?model=a%20b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\ncontent-type: Application/SDP; a=b\r\n\r\nv=0")
                .first)
        #expect(request.method == "POST" && request.path == "/v1/x" && request.queryValue("model") == "a b")
        #expect(request.mediaType == "application/sdp")
        #expect(request.body == Array("v=0".utf8))
    }

    @Test func `a chunked body is put together`() throws {
        let request = try #require(
            requests("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").first)
        #expect(request.body == Array("abc".utf8))
    }

    @Test func `requests that were sent ahead come one after the other`() {
        let text = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
        #expect(requests(text + text.replacing("/a", with: "/b") + text.replacing("/a", with: "/c")).map(\.path) == ["/a", "/b", "/c"])
    }

    @Test func `a connection closes when it is asked to, or speaks HTTP 1.0`() {
        #expect(requests("GET / HTTP/1.1\r\nHost: h\r\n\r\n").first?.keepsAlive == true)
        #expect(requests("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").first?.keepsAlive == false)
        #expect(requests("GET / HTTP/1.0\r\n\r\n").first?.keepsAlive == false)
    }

    @Test func `a client that waits for 100 gets it`() {
        let text = answer(
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", with: HTTPResponse(status: 200))
        #expect(text == "HTTP/1.1 100 Continue\r\n\r\n")
    }

    @Test(arguments: [
        ("GET /\r\n\r\n", HTTPFailure.badRequestLine), ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", .unsupportedVersion),
        ("GET a HTTP/1.1\r\nHost: h\r\n\r\n", .badTarget), ("GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", .badTarget),
        ("GET / HTTP/1.1\r\n\r\n", .badHost), ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", .badHost),
        ("GET / HTTP/1.1\r\nHost : h\r\n\r\n", .badHeaderField), ("GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", .badHeaderField),
        ("GET / HTTP/1.1\nHost: h\n\n", .badRequestLine),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", .badContentLength),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", .badContentLength),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", .ambiguousLength),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", .unsupportedTransferEncoding),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", .badChunk),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n", .badChunk),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n", .bodyTooLarge),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n", .bodyTooLarge),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n", .bodyTooLarge),
        ("GET / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", .unsupportedExpectation),
    ])
    func `what is malformed, or could be read in two ways, is refused`(text: String, failure: HTTPFailure) {
        let found = refusal(text)
        #expect(found == failure)
    }

    @Test func `limits hold before the grammar is looked at`() {
        let long = String(repeating: "a", count: 2_049)
        #expect(refusal("GET /\(long) HTTP/1.1\r\nHost: h\r\n\r\n") == .targetTooLong)
        #expect(refusal("GET /" + String(repeating: "a", count: 20_000)) == .targetTooLong)
        #expect(refusal("GET / HTTP/1.1\r\nHost: h\r\nX: " + String(repeating: "a", count: 20_000)) == .headTooLarge)
        #expect(refusal("GET / HTTP/1.1\r\nHost: h\r\n" + String(repeating: "X: y\r\n", count: 101) + "\r\n") == .headTooLarge)
        #expect(requests("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n" + String(repeating: "a", count: 65_536)).count == 1)
    }

    @Test func `a refusal tells what to change, closes, and hears nothing more`() {
        var connection = HTTPServerConnection(at: start)
        connection.receive(Array("GET /\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n".utf8).span.bytes, at: start)
        let event = connection.nextEvent()
        #expect(event == .refused(.badRequestLine))
        let more = connection.nextEvent()
        #expect(more == nil)
        let output = String(decoding: connection.output.array, as: UTF8.self)
        #expect(output.hasPrefix("HTTP/1.1 400 Bad Request\r\n"))
        #expect(output.contains("Connection: close\r\n"))
        #expect(output.contains(#""type":"invalid_request_error""#))
    }

    @Test func `a head that does not end is given up`() {
        var connection = HTTPServerConnection(at: start)
        connection.receive(Array("GET / HT".utf8).span.bytes, at: start)
        let deadline = connection.nextDeadline.instant
        #expect(deadline == start + .seconds(10))
        connection.advance(to: deadline)
        let event = connection.nextEvent()
        #expect(event == .refused(.headTimeout))
    }
}

@Suite struct WritingResponses {
    private let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

    @Test func `a response says how long it is`() {
        let text = answer(get, with: .text(200, "hello"))
        #expect(text == "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nhello")
    }

    @Test func `HEAD gets the head alone`() {
        let text = answer(get.replacing("GET", with: "HEAD"), with: .text(200, "hello"))
        #expect(text.hasSuffix("Content-Length: 5\r\n\r\n"))
    }

    @Test func `204 has neither body nor length`() {
        #expect(answer(get, with: HTTPResponse(status: 204)) == "HTTP/1.1 204 No Content\r\n\r\n")
    }

    @Test func `after an upgrade the bytes that came early are handed over`() {
        var connection = HTTPServerConnection(at: start)
        connection.receive(Array("GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\nearly".utf8).span.bytes, at: start)
        _ = connection.nextEvent()
        let rest = connection.upgrade(to: "websocket")
        #expect(rest == Array("early".utf8))
    }
}

@Suite struct MultipartForms {
    private func form(_ body: String, _ type: String = "multipart/form-data; boundary=\"x y\"") throws -> MultipartForm {
        try MultipartForm(parsing: Array(body.utf8).span.bytes, contentType: type)
    }

    @Test func `parts are found by name, with their bytes as they came`() throws {
        let body =
            "--x y\r\nContent-Disposition: form-data; name=\"sdp\"\r\n\r\nv=0\r\n--x\r\n\r\n--x y\r\ncontent-disposition: form-data; name=session; filename=a\r\nContent-Type: application/json\r\n\r\n{}\r\n--x y--\r\n"
        let form = try form(body)
        #expect(form["sdp"]?.body == Array("v=0\r\n--x\r\n".utf8))
        #expect(form["session"]?.type == "application/json")
        #expect(form["session"]?.filename == "a")
        #expect(form["other"] == nil)
    }

    @Test(arguments: [
        ("--b\r\n\r\nx\r\n--b--", MultipartError.unnamed), ("x", .notDelimited), ("--b\r\nA: b\r\n\r\nx", .notDelimited),
        ("--bA: b", .notDelimited), ("--b\r\nA b\r\n\r\nx\r\n--b--", .partHead),
        (String(repeating: "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n", count: 17) + "--b--", .tooManyParts),
    ])
    func `what is no form is named`(body: String, error: MultipartError) {
        #expect(throws: error) { try form(body, "multipart/form-data; boundary=b") }
    }

    @Test func `the boundary must be there and of a sane length`() {
        #expect(throws: MultipartError.boundary) { try form("--b--", "multipart/form-data") }
        #expect(throws: MultipartError.boundary) { try form("--b--", "multipart/form-data; boundary=" + String(repeating: "b", count: 71)) }
        #expect(throws: MultipartError.boundary) { try form("--b--", "multipart/mixed; boundary=b") }
    }
}

@Suite struct HTTPUnderMutation {
    @Test(arguments: Corpus.files(in: "http")) func `the corpus is read alike however it is cut`(file: CorpusFile) {
        fuzzHTTP(file.bytes.span.bytes)
    }
    @Test func `mutations of requests never trap and are read alike however they are cut`() {
        mutate(Corpus.files(in: "http").map(\.bytes)) { fuzzHTTP($0) }
    }
    @Test func `mutations of forms never trap`() { mutate(Corpus.files(in: "multipart").map(\.bytes)) { fuzzMultipart($0) } }
}
