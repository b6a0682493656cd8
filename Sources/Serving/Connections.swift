// HTTP connections of a control thread: sockets on one side, requests and answers on the other. Never on a media worker.

public import EventLoop
public import HTTP
public import Primitives

/// What a program says to a request.
public enum Answer: Sendable {
    case response(HTTPResponse)
    /// Server-sent events: everything that `broadcast` sends from now on, until the client goes.
    case events
}

/// One HTTP connection of the control thread. A class: it is looked up by tag, lives for many turns and is never on a packet's way.
final class ClientConnection {
    let socket: StreamSocket
    let token: ReactorToken
    var http: HTTPServerConnection
    var isListening = false
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
            guard http.wantsInput else { return true }
            var span = chunk.mutableSpan
            var bytes = span.mutableBytes
            switch socket.read(into: &bytes) {
            case .transferred(let count): http.receive(chunk.span.bytes.bytes(0..<count), at: now)
            case .wouldBlock: return true
            case .closed:
                http.receiveEnd(at: now)
                return !http.isFinished
            case .failed: return false
            }
        }
        return true
    }

    /// Writes what is ready; false when the socket is done for.
    func write(_ reactor: inout Reactor, at now: Instant) -> Bool {
        while http.outputCount > 0 {
            switch socket.write(http.output) {
            case .transferred(let count): http.outputSent(count, at: now)
            case .wouldBlock:
                want([.readable, .writable], &reactor, true)
                return true
            case .closed, .failed: return false
            }
        }
        want(.readable, &reactor, false)
        if http.wantsHalfClose { socket.finishWriting() }
        return !http.isFinished
    }

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
    private var nextTag = Connections.firstTag
    private let capacity: Int
    private let limits: HTTPLimits
    public private(set) var counters = ConnectionCounters()

    public static let listenerTag: UInt64 = 1
    /// Tags from here on are connections.
    public static let firstTag: UInt64 = 16
    /// How many may listen to events at once.
    public static let listenersMax = 16
    /// A listener with more than this still to read is given up.
    private static let unreadMax = 256 * 1024

    public init(_ listener: consuming StreamListener, capacity: Int, limits: HTTPLimits, reactor: inout Reactor) throws(Errno) {
        _ = try reactor.register(listener.descriptor, for: .readable, tag: Self.listenerTag)
        self.listener = listener
        self.capacity = capacity
        self.limits = limits
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
    public mutating func serve(_ tag: UInt64, _ reactor: inout Reactor, at now: Instant, _ answer: (HTTPRequest) -> Answer) {
        guard let client = clients[tag] else { return }
        var stands = client.read(at: now)
        while let event = client.http.nextEvent() {
            switch event {
            case .request(let request):
                counters.requests += 1
                switch answer(request) {
                case .response(let response): client.http.send(response, at: now)
                case .events: listen(client, request, at: now)
                }
            case .refused(let failure): counters.refused[Int(failure.rawValue)] += 1
            case .peerClosed: stands = false
            }
        }
        if client.http.outputCount > 0 || client.http.isFinished { stands = client.write(&reactor, at: now) && stands }
        if !stands { close(tag, &reactor) }
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
    public mutating func advance(to now: Instant, _ reactor: inout Reactor) {
        for (tag, client) in clients where client.http.nextDeadline.instant <= now {
            client.http.advance(to: now)
            while let event = client.http.nextEvent() {
                if case .refused(let failure) = event { counters.refused[Int(failure.rawValue)] += 1 }
            }
            if !client.write(&reactor, at: now) { close(tag, &reactor) }
        }
    }

    private mutating func close(_ tag: UInt64, _ reactor: inout Reactor) {
        guard let client = clients.removeValue(forKey: tag) else { return }
        reactor.deregister(client.token)
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
