// One client's connection as the server sees it. One request is out at a time: the next one is read only after the response to
// this one, so pipelining costs a bounded buffer and no bookkeeping. When the connection has refused something it answers, closes
// its ears and waits for its output to be taken.
//
//     connection.receive(bytes, at: now)
//     while let event = connection.nextEvent() { … connection.send(response, at: now) … }
//     write connection.output to the socket; connection.outputSent(count, at: now); close the socket when isFinished.

import Primitives

public enum HTTPServerEvent: Sendable, Equatable {
    /// Answer it with `send`, `beginStream` or `upgrade`, now or later.
    case request(HTTPRequest)
    /// The peer was refused and has its answer; for counters.
    case refused(HTTPFailure)
    /// The peer has closed its side while a request was out or a stream was running.
    case peerClosed
}

public struct HTTPServerConnection: Sendable {
    private enum State {
        case idle
        case head
        case body(RequestHead)
        case chunks(RequestHead, ChunkedDecoder)
        case responding(isHead: Bool, keepsAlive: Bool, isHTTP10: Bool)
        case streaming(isChunked: Bool, isHead: Bool, keepsAlive: Bool)
        case upgraded
        case closing
    }

    private let limits: HTTPLimits
    private var state = State.idle
    private var input = InputBuffer()
    private var headSearch = HeadSearch()
    /// An empty line was passed over before the request that comes.
    private var hasPassedEmptyLine = false
    private var events: [HTTPServerEvent] = []
    private var outgoing = OutputBuffer()
    private var timeout: Deadline
    private var requests = 0
    private var peerHasClosed = false
    /// The peer was refused and may still be sending: it must be heard out, see `close`.
    private var lingers = false

    public init(limits: HTTPLimits = HTTPLimits(), at now: Instant) {
        self.limits = limits
        timeout = Deadline(now + limits.idleTime, "HTTP idle")
    }
}

// MARK: - In

extension HTTPServerConnection {
    /// Takes what the socket gave. Bytes after a refusal are ignored; after an upgrade they belong to the new protocol and must
    /// not come here.
    public mutating func receive(_ bytes: RawSpan, at now: Instant) {
        switch state {
        case .closing, .upgraded: return
        default: break
        }
        guard input.count + bytes.byteCount <= limits.inputBytes else { return refuse(.tooMuchInput, at: now) }
        input.append(bytes)
        proceed(at: now)
    }

    /// The peer will send nothing more.
    public mutating func receiveEnd(at now: Instant) {
        peerHasClosed = true
        lingers = false
        switch state {
        case .responding, .streaming: events.append(.peerClosed)
        case .upgraded: break
        default: close(at: now)
        }
    }

    public mutating func nextEvent() -> HTTPServerEvent? { events.isEmpty ? nil : events.removeFirst() }

    public mutating func advance(to now: Instant) {
        guard timeout.instant <= now else { return }
        switch state {
        case .head: refuse(.headTimeout, at: now)
        case .body, .chunks: refuse(.bodyTimeout, at: now)
        case .idle: close(at: now)
        case .closing:
            outgoing.removeAll()
            lingers = false
            timeout = .none
        case .responding, .streaming, .upgraded: break
        }
    }

    public var nextDeadline: Deadline { timeout }

    /// False while a request is out and enough of the next one waits: do not read the socket then, TCP will hold the peer back.
    public var wantsInput: Bool {
        switch state {
        case .closing: lingers
        case .upgraded: false
        case .responding, .streaming: input.count < 4_096
        default: true
        }
    }

    private mutating func proceed(at now: Instant) {
        while true {
            switch state {
            case .idle:
                // RFC 9112 §2.2: an empty line before a request is passed over; one, not a flood of them.
                if !hasPassedEmptyLine, input.starts(with: [0x0D, 0x0A]) {
                    input.removeFirst(2)
                    hasPassedEmptyLine = true
                }
                guard !input.isEmpty, !(!hasPassedEmptyLine && input.count == 1 && input[0] == 0x0D) else { return }
                state = .head
                headSearch = HeadSearch()
                timeout = Deadline(now + limits.headTime, "HTTP head")
            case .head:
                guard readHead(at: now) else { return }
            case .body(var head):
                guard case .length(let length) = head.framing, input.count >= length else { return }
                head.request.body = input.take(length)
                deliver(head.request)
            case .chunks(var head, var decoder):
                // So that `decoder` is the body's only owner and adds to it in place.
                state = .idle
                let isComplete: Bool
                do { isComplete = try decoder.consume(input.bytes, from: &input.start) } catch { return refuse(error, at: now) }
                state = .chunks(head, decoder)
                guard isComplete else { return }
                head.request.body = decoder.body
                deliver(head.request)
            case .responding, .streaming, .upgraded, .closing: return
            }
        }
    }

    /// Looks for the end of the head; true when the state moved on.
    private mutating func readHead(at now: Instant) -> Bool {
        let end = headSearch.end(in: input)
        // The first line's limit holds before the rest of the head has come.
        guard input.count < limits.requestLineBytes || input.contains(0x0A, inFirst: limits.requestLineBytes) else {
            refuse(.targetTooLong, at: now)
            return false
        }
        guard (end ?? input.count) <= limits.headBytes else {
            refuse(.headTooLarge, at: now)
            return false
        }
        guard let end else { return false }
        let bytes = input.take(end)
        do {
            let head = try RequestHead(parsing: bytes, limits: limits)
            timeout = Deadline(now + limits.bodyTime, "HTTP body")
            switch head.framing {
            case .length: state = .body(head)
            case .chunked: state = .chunks(head, ChunkedDecoder(limit: limits.bodyBytes))
            }
            // RFC 9110 §10.1.1: no need to ask for a body that is already coming.
            if head.expectsContinue, head.framing != .length(0), input.isEmpty {
                outgoing.append("HTTP/1.1 100 Continue\r\n\r\n".utf8)
            }
            return true
        } catch {
            refuse(error, at: now)
            return false
        }
    }

    private mutating func deliver(_ request: HTTPRequest) {
        requests += 1
        hasPassedEmptyLine = false
        let keepsAlive = request.keepsAlive && requests < limits.requests
        state = .responding(isHead: request.method == "HEAD", keepsAlive: keepsAlive, isHTTP10: request.isHTTP10)
        timeout = .none
        events.append(.request(request))
    }

    private mutating func refuse(_ failure: HTTPFailure, at now: Instant) {
        let response = HTTPResponse.error(failure.status, failure.message(limits), code: failure.code)
        writeHead(response, length: response.body.count, keepsAlive: false)
        outgoing.append(response.body)
        events.append(.refused(failure))
        lingers = !peerHasClosed
        close(at: now)
    }

    /// RFC 9112 §9.6: a socket that is closed while bytes wait to be read resets the connection, and the reset can overtake the
    /// refusal that was just written. So a refused peer is heard out, for `closingTime` at most, and what it says is dropped.
    private mutating func close(at now: Instant) {
        state = .closing
        input = InputBuffer()
        timeout = Deadline(now + limits.closingTime, "HTTP closing")
    }
}

// MARK: - Out

extension HTTPServerConnection {
    /// Answers the request that is out. Ignored when none is (its connection was refused or lost meanwhile).
    public mutating func send(_ response: HTTPResponse, at now: Instant) {
        guard case .responding(let isHead, let keepsAlive, let isHTTP10) = state else { return }
        // RFC 9110 §8.6: no Content-Length in 1xx and 204.
        let hasBody = response.status >= 200 && response.status != 204 && response.status != 304
        let stays = keepsAlive && mayGoOn && !response.headers.contains("close", in: "Connection")
        writeHead(response, length: hasBody ? response.body.count : nil, keepsAlive: stays, isHTTP10: isHTTP10)
        if hasBody, !isHead { outgoing.append(response.body) }
        finishResponse(keepsAlive: stays, at: now)
    }

    /// Answers with a body that comes in pieces (server-sent events): chunked, or until the end of the connection for HTTP/1.0.
    public mutating func beginStream(_ response: HTTPResponse, at now: Instant) {
        guard case .responding(let isHead, let keepsAlive, let isHTTP10) = state else { return }
        var head = response
        let stays = keepsAlive && !isHTTP10
        if !isHTTP10 { head.headers.set("Transfer-Encoding", "chunked") }
        writeHead(head, length: nil, keepsAlive: stays)
        state = .streaming(isChunked: !isHTTP10, isHead: isHead, keepsAlive: stays)
        if !response.body.isEmpty { stream(response.body) }
    }

    /// The next piece of a stream. Ignored when no stream is running. Look at `outputCount` before: a reader that does not read
    /// must be given up.
    public mutating func stream(_ bytes: [UInt8]) {
        guard case .streaming(let isChunked, let isHead, _) = state, !isHead, !bytes.isEmpty else { return }
        if isChunked { outgoing.append((String(bytes.count, radix: 16) + "\r\n").utf8) }
        outgoing.append(bytes)
        if isChunked { outgoing.append("\r\n".utf8) }
    }

    public mutating func endStream(at now: Instant) {
        guard case .streaming(let isChunked, let isHead, let keepsAlive) = state else { return }
        if isChunked, !isHead { outgoing.append("0\r\n\r\n".utf8) }
        finishResponse(keepsAlive: keepsAlive && mayGoOn, at: now)
    }

    /// Answers 101 and leaves HTTP (RFC 9110 §7.8). Returns the bytes that already came after the request: they belong to the
    /// new protocol. Nil when no request is out.
    public mutating func upgrade(to protocolName: String, headers: HTTPHeaders = HTTPHeaders()) -> [UInt8]? {
        guard case .responding = state else { return nil }
        outgoing.append("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n".utf8)
        var fields = HTTPHeaders([("Upgrade", protocolName)])
        for field in headers.fields { fields.add(field.name, field.value) }
        outgoing.append(fields)
        state = .upgraded
        return input.takeAll()
    }

    /// Begins to close: lets what is written go out, takes nothing more. For a drain.
    public mutating func finish(at now: Instant) {
        switch state {
        case .idle, .head, .body, .chunks, .streaming: close(at: now)
        case .responding(let isHead, _, let isHTTP10): state = .responding(isHead: isHead, keepsAlive: false, isHTTP10: isHTTP10)
        case .upgraded, .closing: break
        }
    }

    /// Bytes to write to the socket.
    public var output: RawSpan {
        @_lifetime(borrow self)
        borrowing get { outgoing.unsent }
    }
    public var outputCount: Int { outgoing.count }

    /// The socket took `count` bytes of `output`.
    public mutating func outputSent(_ count: Int, at now: Instant) { outgoing.discard(count) }

    /// Everything is said and the peer has been refused: close the socket's writing side, so that the peer sees the end, and go on
    /// reading until `isFinished`.
    public var wantsHalfClose: Bool { lingers && outgoing.count == 0 }

    /// The socket can be closed: everything is said, and a refused peer was heard out. Never true after an upgrade.
    public var isFinished: Bool {
        guard case .closing = state else { return false }
        return outgoing.count == 0 && !lingers
    }

    public var isUpgraded: Bool {
        guard case .upgraded = state else { return false }
        return true
    }

    private mutating func finishResponse(keepsAlive: Bool, at now: Instant) {
        guard keepsAlive else { return close(at: now) }
        state = .idle
        timeout = Deadline(now + limits.idleTime, "HTTP idle")
        proceed(at: now)
        guard peerHasClosed else { return }
        // What the peer sent before it closed its side was another request, or the beginning of one that will never end.
        switch state {
        case .idle, .head, .body, .chunks: close(at: now)
        case .responding, .streaming, .upgraded, .closing: break
        }
    }

    /// Another request can come, or has come already.
    private var mayGoOn: Bool { !peerHasClosed || !input.isEmpty }

    private mutating func writeHead(_ response: HTTPResponse, length: Int?, keepsAlive: Bool, isHTTP10: Bool = false) {
        outgoing.append("HTTP/1.1 \(response.status) \(reasonPhrase(response.status))\r\n".utf8)
        var headers = response.headers
        for name in ["Content-Length", "Connection"] { headers.remove(name) }
        if let length { headers.add("Content-Length", String(length)) }
        if !keepsAlive { headers.add("Connection", "close") }
        // RFC 9112 §C.2.2: who asked for it in HTTP/1.0 must be told.
        if keepsAlive, isHTTP10 { headers.add("Connection", "keep-alive") }
        outgoing.append(headers)
    }
}
