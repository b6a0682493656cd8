// One connection to a server as its client sees it: a request, its response, the next request.
//
//     connection.send("GET", "/metrics", at: now)
//     write connection.output to the socket; connection.receive(bytes, at: now) …
//     while let event = connection.nextEvent() { … }

import Primitives

public enum HTTPClientEvent: Sendable, Equatable {
    /// The whole response to the request that was sent.
    case response(HTTPResponse)
    /// The server has answered 101 and the connection now speaks another protocol; `early` are bytes of that protocol.
    case upgraded(HTTPResponse, early: [UInt8])
    /// No response will come; close the socket.
    case failed(HTTPClientFailure)
}

/// Why there is no response.
public enum HTTPClientFailure: Error, Sendable, Equatable {
    case badStatusLine
    /// Malformed as a request of this kind would be.
    case malformed(HTTPFailure)
    /// The server said something that nobody has asked for.
    case unexpected
    case timeout
    /// The server closed its side before the response was complete.
    case closedEarly
}

public struct HTTPClientConnection: Sendable {
    private enum State {
        case ready
        case head
        case body(HTTPResponse, length: Int, keepsAlive: Bool)
        case chunks(HTTPResponse, ChunkedDecoder, keepsAlive: Bool)
        case untilClose(HTTPResponse)
        case over
    }

    private let limits: HTTPLimits
    private let host: String
    /// From sending a request to the end of its response.
    private let patience: Interval
    private var state = State.ready
    private var isHead = false
    private var input = InputBuffer()
    private var headSearch = HeadSearch()
    private var interimResponses = 0
    private var events: [HTTPClientEvent] = []
    private var outgoing = OutputBuffer()
    private var timeout = Deadline.none

    /// - Parameters:
    ///   - host: the name or address of the server, with its port where it is not 80: the `Host` field of every request.
    ///   - limits: of the response's head and body.
    public init(host: String, limits: HTTPLimits = HTTPLimits(), patience: Interval = .seconds(10)) {
        self.host = host
        self.limits = limits
        self.patience = patience
    }
}

extension HTTPClientConnection {
    /// True when no request is out and the server lets the connection live.
    public var canSend: Bool {
        guard case .ready = state else { return false }
        return true
    }

    /// Sends a request; `Host` and `Content-Length` are added here. False when one is out already, when the connection is over, or
    /// when method or target have characters that would break the request line.
    @discardableResult public mutating func send(
        _ method: String, _ target: String, headers: HTTPHeaders = HTTPHeaders(), body: [UInt8] = [], at now: Instant
    ) -> Bool {
        guard canSend, !method.isEmpty, method.utf8.allSatisfy(isTokenCharacter), target.hasPrefix("/") || target == "*",
            target.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else { return false }
        var fields = HTTPHeaders([("Host", host)])
        for field in headers.fields where !Self.isOurs(field.name) { fields.add(field.name, field.value) }
        if !body.isEmpty || method == "POST" || method == "PUT" || method == "PATCH" { fields.add("Content-Length", String(body.count)) }
        outgoing.append("\(method) \(target) HTTP/1.1\r\n".utf8)
        outgoing.append(fields)
        outgoing.append(body)
        isHead = method == "HEAD"
        interimResponses = 0
        headSearch = HeadSearch()
        state = .head
        timeout = Deadline(now + patience, "HTTP response")
        return true
    }

    private static func isOurs(_ name: String) -> Bool {
        ["Host", "Content-Length", "Transfer-Encoding"].contains { equalIgnoringCase($0, name) }
    }

    public mutating func receive(_ bytes: RawSpan, at now: Instant) {
        guard bytes.byteCount > 0 else { return }
        switch state {
        case .over: return
        case .ready: return fail(.unexpected)
        case .head, .body, .chunks, .untilClose: break
        }
        input.append(bytes)
        proceed()
    }

    /// The server has closed its side.
    public mutating func receiveEnd(at now: Instant) {
        switch state {
        case .ready: state = .over
        case .untilClose(let response): complete(response, keepsAlive: false)
        case .head, .body, .chunks: fail(.closedEarly)
        case .over: break
        }
    }

    public mutating func nextEvent() -> HTTPClientEvent? { events.isEmpty ? nil : events.removeFirst() }

    public mutating func advance(to now: Instant) {
        guard timeout.instant <= now else { return }
        fail(.timeout)
    }

    public var nextDeadline: Deadline { timeout }

    /// Bytes to write to the socket.
    public var output: RawSpan {
        @_lifetime(borrow self)
        borrowing get { outgoing.unsent }
    }
    public var outputCount: Int { outgoing.count }

    /// The socket took `count` bytes of `output`.
    public mutating func outputSent(_ count: Int) { outgoing.discard(count) }

    /// Nothing more will come or go over this connection: close its socket, unless an upgrade has handed it to another protocol.
    public var isFinished: Bool {
        guard case .over = state else { return false }
        return true
    }
}

extension HTTPClientConnection {
    private mutating func proceed() {
        while true {
            switch state {
            case .head:
                do throws(HTTPClientFailure) { guard try readHead() else { return } } catch { return fail(error) }
            case .body(var response, let length, let keepsAlive):
                guard input.count >= length else { return }
                response.body = input.take(length)
                complete(response, keepsAlive: keepsAlive)
            case .chunks(var response, var decoder, let keepsAlive):
                // So that `decoder` is the body's only owner and adds to it in place.
                state = .over
                let isComplete: Bool
                do { isComplete = try decoder.consume(input.bytes, from: &input.start) } catch { return fail(.malformed(error)) }
                state = .chunks(response, decoder, keepsAlive: keepsAlive)
                guard isComplete else { return }
                response.body = decoder.body
                complete(response, keepsAlive: keepsAlive)
            case .untilClose(var response):
                guard response.body.count + input.count <= limits.bodyBytes else { return fail(.malformed(.bodyTooLarge)) }
                state = .over
                response.body += input.take(input.count)
                state = .untilClose(response)
                return
            case .ready:
                return input.isEmpty ? () : fail(.unexpected)
            case .over: return
            }
        }
    }

    /// Looks for the end of the head; true when the state moved on.
    private mutating func readHead() throws(HTTPClientFailure) -> Bool {
        let end = headSearch.end(in: input)
        guard (end ?? input.count) <= limits.headBytes else { throw .malformed(.headTooLarge) }
        guard let end else { return false }
        headSearch = HeadSearch()
        let head = try ResponseHead(parsing: input.take(end), limits: limits)
        switch head.response.status {
        case 101:
            state = .over
            timeout = .none
            events.append(.upgraded(head.response, early: input.takeAll()))
        case 100..<200:
            // RFC 9110 §15.2: interim responses are passed over; a server that only ever sends those is not.
            interimResponses += 1
            guard interimResponses <= 8 else { throw .unexpected }
        default: try beginBody(head)
        }
        return true
    }

    private mutating func beginBody(_ head: ResponseHead) throws(HTTPClientFailure) {
        let response = head.response
        // RFC 9112 §6.3: these have no body, whatever their fields say.
        guard !isHead, response.status != 204, response.status != 304 else { return complete(response, keepsAlive: head.keepsAlive) }
        let framing: BodyFraming?
        do { framing = try declaredFraming(response.headers, isHTTP10: head.isHTTP10, limits) } catch { throw .malformed(error) }
        switch framing {
        case .length(let length): state = .body(response, length: length, keepsAlive: head.keepsAlive)
        case .chunked: state = .chunks(response, ChunkedDecoder(limit: limits.bodyBytes), keepsAlive: head.keepsAlive)
        case nil: state = .untilClose(response)
        }
    }

    private mutating func complete(_ response: HTTPResponse, keepsAlive: Bool) {
        state = keepsAlive ? .ready : .over
        timeout = .none
        events.append(.response(response))
    }

    private mutating func fail(_ failure: HTTPClientFailure) {
        state = .over
        timeout = .none
        input = InputBuffer()
        outgoing.removeAll()
        events.append(.failed(failure))
    }
}

/// The head of a response (RFC 9112 §4).
struct ResponseHead {
    var response: HTTPResponse
    var isHTTP10: Bool
    var keepsAlive: Bool

    init(parsing bytes: [UInt8], limits: HTTPLimits) throws(HTTPClientFailure) {
        var lines = LineReader(bytes)
        guard let line = lines.next(), line.count >= 12, line.starts(with: "HTTP/1.".utf8) else { throw .badStatusLine }
        let text = Array(line)
        guard text[7] == UInt8(ascii: "0") || text[7] == UInt8(ascii: "1"), text[8] == 0x20, text.count == 12 || text[12] == 0x20,
            let status = Self.status(text[9..<12])
        else { throw .badStatusLine }
        isHTTP10 = text[7] == UInt8(ascii: "0")
        let headers: HTTPHeaders
        do { headers = try headerFields(&lines, limits) } catch { throw .malformed(error) }
        response = HTTPResponse(status: status, headers: headers)
        keepsAlive = !headers.contains("close", in: "Connection") && (!isHTTP10 || headers.contains("keep-alive", in: "Connection"))
    }

    /// Three digits, 100…599.
    private static func status(_ digits: ArraySlice<UInt8>) -> Int? {
        var value = 0
        for digit in digits {
            guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9") else { return nil }
            value = value * 10 + Int(digit - UInt8(ascii: "0"))
        }
        return (100..<600).contains(value) ? value : nil
    }
}
