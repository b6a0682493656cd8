import HTTP
import Primitives
import Testing

private let start = Instant.zero

private func receive(_ text: String, into connection: inout HTTPServerConnection) {
    connection.receive(Array(text.utf8).span.bytes, at: start)
}

/// What the connection has to say, taken as a socket would take it.
private func takeOutput(_ connection: inout HTTPServerConnection) -> String {
    let text = String(decoding: connection.output.array, as: UTF8.self)
    connection.outputSent(connection.outputCount, at: start)
    return text
}

@Suite struct EndingConnections {
    private let get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"

    @Test func `a refused peer is heard out, so that a reset does not overtake its answer`() {
        var connection = HTTPServerConnection(at: start)
        receive("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n", into: &connection)
        let before = connection.wantsHalfClose
        #expect(!before)
        let output = takeOutput(&connection)
        #expect(output.hasPrefix("HTTP/1.1 413 "))
        let state = (connection.wantsInput, connection.wantsHalfClose, connection.isFinished)
        #expect(state == (true, true, false))
        receive(String(repeating: "x", count: 100_000), into: &connection)
        let count = connection.outputCount
        #expect(count == 0)
        connection.receiveEnd(at: start)
        let isFinished = connection.isFinished
        #expect(isFinished)
    }

    @Test func `a refused peer that never ends is closed after a while`() {
        var connection = HTTPServerConnection(at: start)
        receive("nonsense\r\n\r\n", into: &connection)
        _ = takeOutput(&connection)
        let deadline = connection.nextDeadline.instant
        #expect(deadline == start + .seconds(5))
        connection.advance(to: deadline)
        let isFinished = connection.isFinished
        #expect(isFinished)
    }

    @Test func `a peer that takes nothing is closed after a while`() {
        var connection = HTTPServerConnection(at: start)
        receive(get.replacing("\r\n\r\n", with: "\r\nConnection: close\r\n\r\n"), into: &connection)
        _ = connection.nextEvent()
        connection.send(.text(200, "x"), at: start)
        let before = connection.isFinished
        connection.advance(to: connection.nextDeadline.instant)
        let after = connection.isFinished
        #expect(!before && after)
    }

    @Test func `an idle connection is closed`() {
        var connection = HTTPServerConnection(at: start)
        let deadline = connection.nextDeadline.instant
        connection.advance(to: deadline)
        let isFinished = connection.isFinished
        #expect(isFinished)
        #expect(deadline == start + .seconds(60))
    }

    @Test func `requests sent before the peer closed its side are answered, then the connection is closed`() {
        var connection = HTTPServerConnection(at: start)
        receive(get + get.replacing("/a", with: "/b") + "GET /c", into: &connection)
        connection.receiveEnd(at: start)
        var paths: [String] = []
        while let event = connection.nextEvent() {
            guard case .request(let request) = event else { continue }
            paths.append(request.path)
            connection.send(HTTPResponse(status: 204), at: start)
        }
        #expect(paths == ["/a", "/b"])
        _ = takeOutput(&connection)
        let isFinished = connection.isFinished
        #expect(isFinished)
    }

    @Test func `a connection does not live for ever`() {
        var limits = HTTPLimits()
        limits.requests = 2
        var connection = HTTPServerConnection(limits: limits, at: start)
        var outputs: [String] = []
        for _ in 0..<2 {
            receive(get, into: &connection)
            _ = connection.nextEvent()
            connection.send(HTTPResponse(status: 204), at: start)
            outputs.append(takeOutput(&connection))
        }
        #expect(outputs == ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"])
    }

    @Test func `a client of HTTP 1.0 that asks to keep the connection is told that it may`() {
        var connection = HTTPServerConnection(at: start)
        receive("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", into: &connection)
        _ = connection.nextEvent()
        connection.send(.text(200, "x"), at: start)
        let output = takeOutput(&connection)
        #expect(output.contains("\r\nConnection: keep-alive\r\n"))
        let isFinished = connection.isFinished
        #expect(!isFinished)
    }

    @Test func `a drain lets the request that is out have its answer`() {
        var connection = HTTPServerConnection(at: start)
        receive(get, into: &connection)
        _ = connection.nextEvent()
        connection.finish(at: start)
        connection.send(.text(200, "x"), at: start)
        let output = takeOutput(&connection)
        #expect(output.contains("Connection: close\r\n"))
        let isFinished = connection.isFinished
        #expect(isFinished)
    }
}

@Suite struct StreamingResponses {
    private func stream(_ request: String) -> String {
        var connection = HTTPServerConnection(at: start)
        receive(request, into: &connection)
        _ = connection.nextEvent()
        connection.beginStream(HTTPResponse(status: 200), at: start)
        connection.stream(Array("hello, ".utf8))
        connection.stream([])
        connection.stream(Array("world".utf8))
        connection.endStream(at: start)
        return takeOutput(&connection)
    }

    @Test func `a body that comes in pieces is chunked`() {
        let text = stream("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        #expect(text == "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nhello, \r\n5\r\nworld\r\n0\r\n\r\n")
    }

    @Test func `HTTP 1.0 gets it until the end of the connection`() {
        let text = stream("GET / HTTP/1.0\r\n\r\n")
        #expect(text == "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello, world")
    }

    @Test func `HEAD gets the head alone`() {
        let text = stream("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        #expect(text == "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    }
}

@Suite struct BoundingWork {
    @Test func `a long first line is refused before the head has ended`() {
        var connection = HTTPServerConnection(at: start)
        receive(String(repeating: "a", count: 2_200), into: &connection)
        let event = connection.nextEvent()
        #expect(event == .refused(.targetTooLong))
    }

    @Test func `one empty line before a request is passed over, two are not`() {
        for (text, accepted) in [("\r\n", true), ("\r\n\r\n", false), ("\r", false), ("\n", false)] {
            var connection = HTTPServerConnection(at: start)
            receive(text + "GET / HTTP/1.1\r\nHost: h\r\n\r\n", into: &connection)
            let event = connection.nextEvent()
            if case .request? = event { #expect(accepted) } else { #expect(event == .refused(.badRequestLine) && !accepted) }
        }
    }

    @Test func `more than a request ahead is refused`() {
        var connection = HTTPServerConnection(at: start)
        receive("GET / HTTP/1.1\r\nHost: h\r\n\r\n", into: &connection)
        _ = connection.nextEvent()
        let hungry = connection.wantsInput
        for _ in 0..<25 { receive(String(repeating: "x", count: 4_096), into: &connection) }
        let still = connection.wantsInput
        let event = connection.nextEvent()
        // The request that was out has no answer any more: the refusal is the last word.
        #expect(event == .refused(.tooMuchInput))
        #expect(hungry && still)
    }

    @Test func `many small requests sent at once are read one after the other`() {
        let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        var connection = HTTPServerConnection(
            limits: {
                var limits = HTTPLimits(); limits.requests = 10_000; return limits
            }(), at: start)
        receive(String(repeating: request, count: 3_000), into: &connection)
        var count = 0
        while case .request? = connection.nextEvent() {
            count += 1
            connection.send(HTTPResponse(status: 204), at: start)
        }
        #expect(count == 3_000)
    }

    @Test func `a value cannot make a second field`() {
        var connection = HTTPServerConnection(at: start)
        receive("GET / HTTP/1.1\r\nHost: h\r\n\r\n", into: &connection)
        _ = connection.nextEvent()
        connection.send(
            HTTPResponse(status: 204, headers: HTTPHeaders([("Location", "/a\r\nSet-Cookie: b"), ("A: b\r\nC", "d")])), at: start)
        let output = takeOutput(&connection)
        #expect(output == "HTTP/1.1 204 No Content\r\nLocation: /a  Set-Cookie: b\r\nA--b--C: d\r\n\r\n")
    }
}

@Suite struct ReadingHeaderValues {
    @Test func `parameters are found without regard to case, quoted or not`() {
        let value = HeaderParameters("text/html; Charset=utf-8 ;name = \"a; \\\"b\\\"\"; flag; =x; last=")
        #expect(value.value == "text/html")
        #expect(value["charset"] == "utf-8" && value["name"] == "a; \"b\"" && value["last"] == "" && value["flag"] == nil)
        #expect(!value.isAmbiguous("name"))
        #expect(HeaderParameters("a; b=1; B=2").isAmbiguous("b"))
        #expect(HeaderParameters("")["a"] == nil)
    }

    @Test func `a combining mark does not hide a quote`() {
        #expect(HeaderParameters("form-data; name=\"a\"\u{301}; filename=\"b\"")["filename"] == "b")
    }

    @Test(
        arguments: [
            (nil, 1000), ("*/*", 1000), ("application/json", 0), ("text/*;q=0.5, */*;q=0.1", 500), ("text/*;q=0.5, text/plain", 1000),
            ("text/plain;q=0, */*", 0), ("text/plain;q=0.25", 250), ("TEXT/PLAIN;q=1.000", 1000), ("text/plain;q=x", 0), ("", 0),
            ("a/b;x=\"text/plain, c\"", 0),
        ] as [(String?, Int)])
    func `Accept says how much a type is wanted`(accept: String?, quality: Int) {
        let headers = HTTPHeaders(accept.map { [("Accept", $0)] } ?? [])
        #expect(HTTPRequest(method: "GET", path: "/", headers: headers).quality(of: "text/plain") == quality)
    }

    @Test(arguments: [
        ("a%20b", "a b"), ("%e2%82%ac", "€"), ("a+b", "a+b"), ("%", nil), ("%4", nil), ("%00", nil), ("%ff", nil), ("%g0", nil),
    ])
    func `percent escapes are decoded, or refused`(text: String, decoded: String?) {
        #expect(percentDecoded(text) == decoded)
    }
}
