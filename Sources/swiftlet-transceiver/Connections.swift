import EventLoop
import HTTP
import Primitives

/// One HTTP connection of the control thread. A class: it is looked up by tag, lives for many turns and is never on a packet's way.
final class ClientConnection {
    let socket: StreamSocket
    let token: ReactorToken
    var http: HTTPServerConnection
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
struct ConnectionCounters {
    var accepted: UInt64 = 0
    /// No place, or no descriptor.
    var turnedAway: UInt64 = 0
    var requests: UInt64 = 0
    /// By `HTTPFailure`.
    var refused = InlineArray<32, UInt64>(repeating: 0)
}

/// All connections of a listener, at most `capacity`.
struct Connections: ~Copyable {
    private var listener: StreamListener
    private var clients: [UInt64: ClientConnection] = [:]
    private var nextTag = Connections.firstTag
    private let capacity: Int
    private let limits: HTTPLimits
    private(set) var counters = ConnectionCounters()

    static let listenerTag: UInt64 = 1
    /// Tags from here on are connections.
    static let firstTag: UInt64 = 16

    init(_ listener: consuming StreamListener, capacity: Int, limits: HTTPLimits, reactor: inout Reactor) throws(Errno) {
        _ = try reactor.register(listener.descriptor, for: .readable, tag: Self.listenerTag)
        self.listener = listener
        self.capacity = capacity
        self.limits = limits
    }

    var count: Int { clients.count }

    mutating func accept(_ reactor: inout Reactor, at now: Instant) {
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
    mutating func serve(_ tag: UInt64, _ reactor: inout Reactor, at now: Instant, _ answer: (HTTPRequest) -> HTTPResponse) {
        guard let client = clients[tag] else { return }
        var stands = client.read(at: now)
        while let event = client.http.nextEvent() {
            switch event {
            case .request(let request):
                counters.requests += 1
                client.http.send(answer(request), at: now)
            case .refused(let failure): counters.refused[Int(failure.rawValue)] += 1
            case .peerClosed: stands = false
            }
        }
        if client.http.outputCount > 0 || client.http.isFinished { stands = client.write(&reactor, at: now) && stands }
        if !stands { close(tag, &reactor) }
    }

    /// Closes what has waited too long.
    mutating func advance(to now: Instant, _ reactor: inout Reactor) {
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
