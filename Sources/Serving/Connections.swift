// HTTP connections of a control thread: sockets on one side, requests and answers on the other. Never on a media worker.

public import EventLoop
public import HTTP
public import Primitives

/// What a program says to a request.
public enum Answer: Sendable {
    case response(HTTPResponse)
    /// Server-sent events: everything that `broadcast` sends from now on, until the client goes.
    case events
    /// A WebSocket from now on, with these fields in the 101 response.
    case webSocket(HTTPHeaders)
    /// `reply` says it when it is known; the client's next request waits for it.
    case later
}

/// What a WebSocket tells its owner.
public enum SocketEvent: Sendable {
    case opened
    case text([UInt8])
    /// What waits to be read by the client has grown beyond, or shrunk below, what is good to wait.
    case isSlow(Bool)
    /// The last event.
    case closed
}

/// One HTTP connection of the control thread. A class: it is looked up by tag, lives for many turns and is never on a packet's way.
final class ClientConnection {
    let socket: StreamSocket
    let token: ReactorToken
    var http: HTTPServerConnection
    var isListening = false
    /// Set for good once the connection was upgraded.
    var web: WebSocketConnection?
    /// Whether the owner was told that the client is slow.
    var isSlow = false
    private var waitsForRoom = false

    init(_ socket: consuming StreamSocket, _ token: ReactorToken, limits: HTTPLimits, at now: Instant) {
        self.socket = socket
        self.token = token
        http = HTTPServerConnection(limits: limits, at: now)
    }

    /// Reads what is there, as long as the connection wants it; false when the socket is done for.
    func read(at now: Instant) -> Bool {
        var chunk = InlineArray<4096, UInt8>(repeating: 0)
        for _ in 0..<16 {
            guard web?.wantsInput ?? http.wantsInput else { return true }
            var span = chunk.mutableSpan
            var bytes = span.mutableBytes
            switch socket.read(into: &bytes) {
            case .transferred(let count):
                let bytes = chunk.span.bytes.bytes(0..<count)
                if web != nil { web?.receive(bytes, at: now) } else { http.receive(bytes, at: now) }
            case .wouldBlock: return true
            case .closed:
                if web != nil { web?.receiveEnd(at: now) } else { http.receiveEnd(at: now) }
                return web != nil || !http.isFinished
            case .failed: return false
            }
        }
        return true
    }

    /// Writes what is ready; false when the socket is done for.
    func write(_ reactor: inout Reactor, at now: Instant) -> Bool {
        while outputCount > 0 {
            // What HTTP still has to say, the 101 among it, comes before the first frame.
            let usesWeb = http.outputCount == 0
            switch usesWeb ? writeWeb() : socket.write(http.output) {
            case .transferred(let count): if usesWeb { web?.outputSent(count) } else { http.outputSent(count, at: now) }
            case .wouldBlock:
                want([.readable, .writable], &reactor, true)
                return true
            case .closed, .failed: return false
            }
        }
        want(.readable, &reactor, false)
        if web?.wantsHalfClose ?? http.wantsHalfClose { socket.finishWriting() }
        return !(web?.isFinished ?? http.isFinished)
    }

    private func writeWeb() -> StreamResult {
        guard let web else { return .transferred(0) }
        return socket.write(web.output)
    }

    var outputCount: Int { http.outputCount + (web?.outputCount ?? 0) }
    var nextDeadline: Instant { web?.nextDeadline.instant ?? http.nextDeadline.instant }

    private func want(_ interest: Interest, _ reactor: inout Reactor, _ waits: Bool) {
        guard waits != waitsForRoom else { return }
        waitsForRoom = waits
        try? reactor.update(token, for: interest)
    }
}

/// What became of TCP connections and of what came over them.
public struct ConnectionCounters: Sendable {
    public var accepted: UInt64 = 0
    /// No place, or no descriptor.
    public var turnedAway: UInt64 = 0
    public var requests: UInt64 = 0
    /// By `HTTPFailure`.
    public var refused = InlineArray<32, UInt64>(repeating: 0)
    /// Listeners to events that did not read what they asked for.
    public var slowListeners: UInt64 = 0
}

/// All connections of a listener, at most `capacity`.
public struct Connections: ~Copyable {
    private var listener: StreamListener
    private var clients: [UInt64: ClientConnection] = [:]
    private var nextTag: UInt64
    private let capacity: Int
    private let limits: HTTPLimits
    public private(set) var counters = ConnectionCounters()

    public static let listenerTag: UInt64 = 1
    /// Tags from here on are connections, unless `init` is given others.
    public static let firstTag: UInt64 = 16
    /// How many may listen to events at once.
    public static let listenersMax = 16
    /// A listener with more than this still to read is given up.
    private static let unreadMax = 256 * 1024
    /// A WebSocket with more than this to read is slow, and no longer when it has less than a quarter of it.
    private static let slowMark = 256 * 1024

    /// - Parameters:
    ///   - listenerTag: of the listener's events, where a reactor has several.
    ///   - firstTag: of the first connection; they count up from there.
    public init(
        _ listener: consuming StreamListener, capacity: Int, limits: HTTPLimits, reactor: inout Reactor,
        listenerTag: UInt64 = Connections.listenerTag, firstTag: UInt64 = Connections.firstTag
    ) throws(Errno) {
        _ = try reactor.register(listener.descriptor, for: .readable, tag: listenerTag)
        self.listener = listener
        self.capacity = capacity
        self.limits = limits
        nextTag = firstTag
    }

    public var count: Int { clients.count }

    public mutating func accept(_ reactor: inout Reactor, at now: Instant) {
        for _ in 0..<64 {
            switch listener.accept() {
            case .accepted(let socket):
                guard clients.count < capacity, let token = try? reactor.register(socket.descriptor, for: .readable, tag: nextTag) else {
                    counters.turnedAway += 1
                    continue
                }
                clients[nextTag] = ClientConnection(socket, token, limits: limits, at: now)
                nextTag += 1
                counters.accepted += 1
            case .wouldBlock: return
            case .refusedForLackOfDescriptors: counters.turnedAway += 1
            case .failed: counters.turnedAway += 1
            }
        }
    }

    /// Serves a connection that is ready: each of its requests is answered by `answer`.
    ///
    /// - Parameter socket: hears what WebSockets say, each by the tag of its connection.
    public mutating func serve(
        _ tag: UInt64, _ reactor: inout Reactor, at now: Instant, _ answer: (HTTPRequest) -> Answer,
        socket: (UInt64, SocketEvent) -> Void = { _, _ in }
    ) {
        guard let client = clients[tag] else { return }
        let stands = client.read(at: now)
        proceed(tag, client, stands, &reactor, at: now, answer, socket)
    }

    /// Says what was said to be `later`; false when the client did not wait.
    @discardableResult public mutating func reply(
        to tag: UInt64, _ reply: Answer, _ reactor: inout Reactor, at now: Instant, _ answer: (HTTPRequest) -> Answer,
        socket: (UInt64, SocketEvent) -> Void = { _, _ in }
    ) -> Bool {
        guard let client = clients[tag], client.web == nil else { return false }
        say(reply, to: client, tag, nil, at: now, socket)
        proceed(tag, client, true, &reactor, at: now, answer, socket)
        return clients[tag] != nil
    }

    private mutating func proceed(
        _ tag: UInt64, _ client: ClientConnection, _ reads: Bool, _ reactor: inout Reactor, at now: Instant,
        _ answer: (HTTPRequest) -> Answer, _ socket: (UInt64, SocketEvent) -> Void
    ) {
        var stands = reads
        while client.web == nil, let event = client.http.nextEvent() {
            switch event {
            case .request(var request):
                counters.requests += 1
                request.peer = client.socket.remoteAddress?.ip
                say(answer(request), to: client, tag, request, at: now, socket)
            case .refused(let failure): counters.refused[Int(failure.rawValue)] += 1
            case .peerClosed: stands = false
            }
        }
        hear(tag, client, at: now, socket)
        if client.outputCount > 0 || client.http.isFinished || client.web != nil { stands = client.write(&reactor, at: now) && stands }
        judge(tag, client, socket)
        if !stands { close(tag, &reactor, socket) }
    }

    /// - Parameter request: nil for a late reply, which is no stream of events.
    private func say(
        _ answer: Answer, to client: ClientConnection, _ tag: UInt64, _ request: HTTPRequest?, at now: Instant,
        _ socket: (UInt64, SocketEvent) -> Void
    ) {
        switch answer {
        case .response(let response): client.http.send(response, at: now)
        case .events: if let request { listen(client, request, at: now) }
        case .webSocket(let headers):
            upgrade(client, headers, at: now)
            socket(tag, .opened)
        case .later: break
        }
    }

    private func upgrade(_ client: ClientConnection, _ headers: HTTPHeaders, at now: Instant) {
        guard let early = client.http.upgrade(to: "websocket", headers: headers) else { return }
        client.web = WebSocketConnection(role: .server, random: SystemRandomNumberGenerator(), at: now)
        client.web?.receive(early.span.bytes, at: now)
    }

    /// What a WebSocket's client has said. Its end is told by `close`, whatever the reason.
    private func hear(_ tag: UInt64, _ client: ClientConnection, at now: Instant, _ socket: (UInt64, SocketEvent) -> Void) {
        while let event = client.web?.nextEvent(at: now) {
            if case .text(let text) = event { socket(tag, .text(text)) }
            // The API's events are text.
            if case .binary = event { client.web?.close(code: 1003, reason: "Events are text messages.", at: now) }
        }
    }

    /// Tells when a WebSocket's client begins to read too slowly, and when it has caught up.
    private func judge(_ tag: UInt64, _ client: ClientConnection, _ socket: (UInt64, SocketEvent) -> Void) {
        guard client.web != nil else { return }
        let isSlow = client.outputCount > (client.isSlow ? Self.slowMark / 4 : Self.slowMark)
        guard isSlow != client.isSlow else { return }
        client.isSlow = isSlow
        socket(tag, .isSlow(isSlow))
    }

    /// Sends a message to a WebSocket. One whose client has let megabytes wait is closed.
    public mutating func send(
        _ text: [UInt8], to tag: UInt64, _ reactor: inout Reactor, at now: Instant, socket: (UInt64, SocketEvent) -> Void
    ) {
        guard let client = clients[tag], client.web != nil else { return }
        if client.web?.send(text: text) == false, client.web?.isOpen == true {
            counters.slowListeners += 1
            return close(tag, &reactor, socket)
        }
        let stands = client.write(&reactor, at: now)
        judge(tag, client, socket)
        if !stands { close(tag, &reactor, socket) }
    }

    /// Begins to close a WebSocket: 1000 for an end in order, 1001 when the server goes.
    public mutating func endSocket(
        _ tag: UInt64, code: UInt16, reason: String, _ reactor: inout Reactor, at now: Instant, socket: (UInt64, SocketEvent) -> Void
    ) {
        guard let client = clients[tag], client.web != nil else { return }
        client.web?.close(code: code, reason: reason, at: now)
        if !client.write(&reactor, at: now) { close(tag, &reactor, socket) }
    }

    private func listen(_ client: ClientConnection, _ request: HTTPRequest, at now: Instant) {
        guard listenerCount < Self.listenersMax else {
            return client.http.send(.error(503, "\(Self.listenersMax) others listen already.", code: "too_many_listeners"), at: now)
        }
        var response = HTTPResponse(status: 200, type: "text/event-stream", body: Array("retry: 1000\n\n".utf8))
        response.headers.set("Cache-Control", "no-store")
        client.http.beginStream(response, at: now)
        if request.method == "HEAD" { return client.http.endStream(at: now) }
        client.isListening = true
    }

    public var listenerCount: Int { clients.values.reduce(0) { $0 + ($1.isListening ? 1 : 0) } }

    /// Sends one event, whose data must be one line, to everybody who listens. Who does not read is not waited for.
    public mutating func broadcast(_ data: [UInt8], _ reactor: inout Reactor, at now: Instant) {
        var event = Array("data: ".utf8)
        event += data
        event += [0x0A, 0x0A]
        for (tag, client) in clients where client.isListening {
            guard client.http.outputCount < Self.unreadMax else {
                counters.slowListeners += 1
                close(tag, &reactor)
                continue
            }
            client.http.stream(event)
            if !client.write(&reactor, at: now) { close(tag, &reactor) }
        }
    }

    /// Closes what has waited too long.
    public mutating func advance(
        to now: Instant, _ reactor: inout Reactor, socket: (UInt64, SocketEvent) -> Void = { _, _ in }
    ) {
        for (tag, client) in clients where client.nextDeadline <= now {
            if client.web != nil {
                client.web?.advance(to: now)
                hear(tag, client, at: now, socket)
            } else {
                client.http.advance(to: now)
            }
            while let event = client.http.nextEvent() {
                if case .refused(let failure) = event { counters.refused[Int(failure.rawValue)] += 1 }
            }
            if !client.write(&reactor, at: now) { close(tag, &reactor, socket) }
        }
    }

    private mutating func close(_ tag: UInt64, _ reactor: inout Reactor, _ socket: (UInt64, SocketEvent) -> Void = { _, _ in }) {
        guard let client = clients.removeValue(forKey: tag) else { return }
        reactor.deregister(client.token)
        if client.web != nil { socket(tag, .closed) }
    }
}

extension HTTPRequest {
    public var isRead: Bool { method == "GET" || method == "HEAD" }
}

extension HTTPResponse {
    /// 405, for what is only to be read.
    public static func onlyGet(_ request: HTTPRequest) -> HTTPResponse {
        var response = HTTPResponse.error(405, "\(request.method) is not for this path; use GET.", code: "method_not_allowed")
        response.headers.set("Allow", "GET, HEAD")
        return response
    }
}
