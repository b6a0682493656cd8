import HTTP
import Primitives
import TestSupport
import Testing

private let start = Instant.zero

private func client(_ method: String = "GET") -> HTTPClientConnection {
    var connection = HTTPClientConnection(host: "h:80")
    connection.send(method, "/metrics", at: start)
    return connection
}

/// What a client that has sent one request makes of `text` and the end of the connection behind it.
private func events(_ text: String, to method: String = "GET", ends: Bool = true) -> [HTTPClientEvent] {
    var connection = client(method)
    connection.receive(Array(text.utf8).span.bytes, at: start)
    if ends { connection.receiveEnd(at: start) }
    var events: [HTTPClientEvent] = []
    while let event = connection.nextEvent() { events.append(event) }
    return events
}

private func response(_ text: String, to method: String = "GET") -> HTTPResponse? {
    guard case .response(let response)? = events(text, to: method).first else { return nil }
    return response
}

@Suite struct AskingServers {
    @Test func `a request names its host and the length of its body`() {
        var connection = HTTPClientConnection(host: "h:80")
        let sent = connection.send(
            "POST", "/a?b", headers: HTTPHeaders([("Content-Type", "x/y"), ("content-length", "99"), ("A", "b\r\nC: d")]), body: [0x61],
            at: start)
        let output = String(decoding: connection.output.array, as: UTF8.self)
        #expect(sent)
        #expect(output == "POST /a?b HTTP/1.1\r\nHost: h:80\r\nContent-Type: x/y\r\nA: b  C: d\r\nContent-Length: 1\r\n\r\na")
    }

    @Test(arguments: [("GET", "a"), ("GET", "/a b"), ("GET", "/\r\n"), ("G T", "/"), ("", "/")])
    func `what would break the request line is not sent`(method: String, target: String) {
        var connection = HTTPClientConnection(host: "h")
        let sent = connection.send(method, target, at: start)
        let count = connection.outputCount
        #expect(!sent && count == 0)
    }

    @Test func `one request is out at a time, and the connection serves the next one`() {
        var connection = client()
        let second = connection.send("GET", "/b", at: start)
        #expect(!second)
        connection.receive(Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".utf8).span.bytes, at: start)
        let event = connection.nextEvent()
        let third = connection.send("GET", "/c", at: start)
        #expect(third)
        guard case .response? = event else { Issue.record("no response"); return }
    }

    @Test func `a server that does not answer in time is given up`() {
        var connection = client()
        connection.advance(to: start + .seconds(9))
        let early = connection.nextEvent()
        connection.advance(to: connection.nextDeadline.instant)
        let late = connection.nextEvent()
        #expect(early == nil && late == .failed(.timeout))
        let isFinished = connection.isFinished
        #expect(isFinished)
    }
}

@Suite struct ReadingResponses {
    @Test func `the body is as long as the length says`() {
        let response = response("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
        #expect(response?.status == 200 && response?.body == Array("abc".utf8) && response?.headers["content-type"] == "a/b")
    }

    @Test func `the body is put together from chunks`() {
        #expect(response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")?.body == Array("abc".utf8))
    }

    @Test func `without a length the body goes to the end of the connection`() {
        #expect(response("HTTP/1.1 200\r\n\r\nabc")?.body == Array("abc".utf8))
        #expect(events("HTTP/1.1 200 OK\r\n\r\nabc", ends: false).isEmpty)
    }

    @Test func `HEAD, 204 and 304 have no body`() {
        #expect(response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", to: "HEAD")?.body == [])
        #expect(response("HTTP/1.1 204 No Content\r\n\r\n")?.status == 204)
        #expect(response("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n")?.status == 304)
    }

    @Test func `interim responses are passed over, but not for ever`() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\n"
        #expect(response(interim + "HTTP/1.1 204 No Content\r\n\r\n")?.status == 204)
        #expect(events(String(repeating: interim, count: 9)) == [.failed(.unexpected)])
    }

    @Test func `an upgrade hands over what came early`() {
        guard case .upgraded(let response, let early)? = events("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhi").first
        else { Issue.record("no upgrade"); return }
        #expect(response.headers["Upgrade"] == "websocket" && early == Array("hi".utf8))
    }

    @Test(arguments: [
        ("HTTP/2 200 OK\r\n\r\n", HTTPClientFailure.badStatusLine), ("HTTP/1.1 20 OK\r\n\r\n", .badStatusLine),
        ("HTTP/1.1 2000\r\n\r\n", .badStatusLine), ("HTTP/1.1 999 A\r\n\r\n", .badStatusLine), ("\r\n\r\n", .badStatusLine),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", .malformed(.badHeaderField)),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", .malformed(.badContentLength)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", .malformed(.ambiguousLength)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", .malformed(.bodyTooLarge)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ng\r\n", .malformed(.badChunk)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", .closedEarly), ("HTTP/1.1 200", .closedEarly), ("", .closedEarly),
        ("HTTP/1.1 200 OK\r\n\r\n" + String(repeating: "a", count: 65_537), .malformed(.bodyTooLarge)),
        ("HTTP/1.1 200 OK\r\nA: " + String(repeating: "a", count: 20_000), .malformed(.headTooLarge)),
    ])
    func `what is no response is named`(text: String, failure: HTTPClientFailure) { #expect(events(text) == [.failed(failure)]) }

    @Test func `what nobody has asked for ends the connection`() {
        let both = events("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
        #expect(both.last == .failed(.unexpected) && both.count == 2)
    }

    @Test(arguments: Corpus.files(in: "http-client")) func `the corpus is read alike however it is cut`(file: CorpusFile) {
        fuzzHTTPClient(file.bytes.span.bytes)
    }

    @Test func `mutations of responses never trap and are read alike however they are cut`() {
        mutate(Corpus.files(in: "http-client").map(\.bytes)) { fuzzHTTPClient($0) }
    }
}
