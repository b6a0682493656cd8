// Requests about calls that live elsewhere, on their way to the owner and back. One connection each: they are rare, and an owner that has died
// must not leave anything behind.

import EventLoop
import HTTP
import Primitives
import Serving
import TransceiverCore

/// What came of requests for other transceivers.
struct ForwardCounters: Sendable {
    var answered: UInt64 = 0
    var redirected: UInt64 = 0
    /// Nobody knows where the owner is.
    var ownerUnknown: UInt64 = 0
    /// It does not answer.
    var ownerDead: UInt64 = 0
    /// More at once than are kept.
    var turnedAway: UInt64 = 0
    /// New calls that had no place here.
    var spilled: UInt64 = 0
    /// WebSockets that are carried through.
    var sockets: UInt64 = 0
}

/// What happened to a client's request, or to its WebSocket.
enum ForwardOutcome {
    case response(client: UInt64, HTTPResponse)
    case opened(client: UInt64, HTTPHeaders)
    case text(client: UInt64, [UInt8])
    case closed(client: UInt64, code: UInt16, reason: String)
}

struct OwnerCalls: ~Copyable {
    /// Tags from here on are connections to owners.
    static let firstTag: UInt64 = 1 << 62
    /// Requests and WebSockets under way at once.
    static let capacity = 512
    /// From the request to the owner's answer: then the owner counts as dead.
    static let patience = Interval.milliseconds(900)

    /// A class: looked up by tag, lives for many turns, and is never on a packet's way.
    private final class Exchange {
        let client: UInt64
        let tag: UInt64
        let socket: StreamSocket
        var token: ReactorToken?
        var http: HTTPClientConnection?
        var handshake: WebSocketClientHandshake?
        var web: WebSocketConnection?
        let upgrade: WebSocketUpgrade?
        var isConnected = false
        /// The client reads too slowly: the owner has to wait.
        var isPaused = false
        var interest: Interest = [.readable, .writable]

        init(_ client: UInt64, _ tag: UInt64, _ socket: consuming StreamSocket, _ upgrade: WebSocketUpgrade?) {
            self.client = client
            self.tag = tag
            self.socket = socket
            self.upgrade = upgrade
        }

        var nextDeadline: Instant { http?.nextDeadline.instant ?? handshake?.nextDeadline.instant ?? web?.nextDeadline.instant ?? .never }
        var outputCount: Int { http?.outputCount ?? handshake?.outputCount ?? web?.outputCount ?? 0 }
    }

    private struct Waiting {
        var client: UInt64
        var request: HTTPRequest
        var address: SocketAddress
    }

    private var waiting: [Waiting] = []
    private var exchanges: [UInt64: Exchange] = [:]
    private var tags: [UInt64: UInt64] = [:]
    /// For clients whose request is not about a call of an owner.
    private var refusals: [UInt64: HTTPResponse] = [:]
    private var nextTag = OwnerCalls.firstTag
    private var outcomes: [ForwardOutcome] = []
    /// Whom a client has said something to in this turn.
    private var heard: [UInt64] = []
    private var random = SystemEntropy()
    var counters = ForwardCounters()

    /// Sends `request` on to `address` at the next turn; false when too many are under way.
    ///
    /// - Parameters:
    ///   - request: its headers are what the owner shall believe.
    ///   - refusal: what its client is told when nobody answers; nil: that the owner is dead.
    mutating func forward(
        _ request: HTTPRequest, of client: UInt64, to address: SocketAddress, orElse refusal: HTTPResponse? = nil
    ) -> Bool {
        guard exchanges.count + waiting.count < Self.capacity else {
            counters.turnedAway += 1
            return false
        }
        waiting.append(Waiting(client: client, request: request, address: address))
        refusals[client] = refusal
        return true
    }

    func carries(_ client: UInt64) -> Bool { tags[client] != nil }

    mutating func nextOutcome() -> ForwardOutcome? { outcomes.isEmpty ? nil : outcomes.removeFirst() }

    var nextDeadline: Instant {
        guard waiting.isEmpty, outcomes.isEmpty else { return Instant(nanoseconds: 0) }
        return exchanges.values.map(\.nextDeadline).min() ?? .never
    }
}

// MARK: - Beginning

extension OwnerCalls {
    mutating func advance(to now: Instant, _ reactor: inout Reactor) {
        let asked = waiting
        waiting = []
        for one in asked { open(one, &reactor, at: now) }
        for (tag, exchange) in exchanges where exchange.nextDeadline <= now {
            exchange.http?.advance(to: now)
            exchange.handshake?.advance(to: now)
            exchange.web?.advance(to: now)
            if let exchange = exchanges[tag] { proceed(exchange, &reactor, at: now) }
        }
    }

    private mutating func open(_ asked: Waiting, _ reactor: inout Reactor, at now: Instant) {
        let request = asked.request
        let upgrade = WebSocketUpgrade.isAsked(by: request) ? try? WebSocketUpgrade(request) : nil
        guard let socket = try? StreamSocket.connect(to: asked.address) else { return fail(asked.client) }
        let exchange = Exchange(asked.client, nextTag, socket, upgrade)
        nextTag += 1
        let host = asked.address.description
        let headers = Self.headers(of: request)
        if let upgrade {
            exchange.handshake = WebSocketClientHandshake(
                host: host, target: request.target, headers: headers, subprotocols: upgrade.subprotocols, random: &random,
                patience: Self.patience, at: now)
        } else {
            var http = HTTPClientConnection(host: host, patience: Self.patience)
            guard http.send(request.method, request.target, headers: headers, body: request.body, at: now) else {
                return fail(asked.client)
            }
            exchange.http = http
        }
        guard let token = try? reactor.register(exchange.socket.descriptor, for: exchange.interest, tag: exchange.tag) else {
            return fail(asked.client)
        }
        exchange.token = token
        exchanges[exchange.tag] = exchange
        tags[asked.client] = exchange.tag
    }

    /// Everything but what belongs to one connection (RFC 9110 §7.6.1), and the mark that this has been sent on once.
    private static func headers(of request: HTTPRequest) -> HTTPHeaders {
        var headers = HTTPHeaders()
        for field in request.headers.fields where !isOfConnection(field.name, request.headers) { headers.add(field.name, field.value) }
        if let peer = request.peer { headers.add("X-Forwarded-For", peer.description) }
        headers.set(SignalingDesk.forwardedHeader, "1")
        return headers
    }

    private static func isOfConnection(_ name: String, _ headers: HTTPHeaders) -> Bool {
        let ours = [
            "Connection", "Keep-Alive", "Upgrade", "Host", "Content-Length", "Transfer-Encoding", "TE", "Trailer", "Expect",
            "Proxy-Connection",
            "Proxy-Authorization", "Proxy-Authenticate", "Accept-Encoding",
        ]
        return ours.contains { equalIgnoringCase($0, name) } || equalIgnoringCase(name.prefix(14), "Sec-WebSocket-")
            || headers.contains(name, in: "Connection")
    }

    private mutating func fail(_ client: UInt64) {
        counters.ownerDead += 1
        if let refusal = refusals.removeValue(forKey: client) { return outcomes.append(.response(client: client, refusal)) }
        let message = "The transceiver that owns this call does not answer. The call is over, or will be soon; make a new one."
        outcomes.append(.response(client: client, .ownerIsGone(message, code: "call_owner_unreachable")))
    }
}

// MARK: - Sockets

extension OwnerCalls {
    mutating func serve(_ event: ReactorEvent, _ reactor: inout Reactor, at now: Instant) {
        guard let exchange = exchanges[event.tag] else { return }
        if !exchange.isConnected {
            if exchange.socket.connectionError() != nil {
                fail(exchange.client)
                return close(exchange, &reactor)
            }
            guard event.isWritable else { return }
            exchange.isConnected = true
        }
        let stands = read(exchange, at: now)
        proceed(exchange, &reactor, at: now)
        if !stands, exchanges[exchange.tag] != nil { lose(exchange, &reactor) }
    }

    /// False when the socket is done for.
    private func read(_ exchange: Exchange, at now: Instant) -> Bool {
        var chunk = InlineArray<4096, UInt8>(repeating: 0)
        // One read a turn: what comes behind a handshake belongs to the WebSocket, which takes its events out in between.
        guard !exchange.isPaused else { return true }
        var span = chunk.mutableSpan
        var bytes = span.mutableBytes
        switch exchange.socket.read(into: &bytes) {
        case .transferred(let count):
            let bytes = chunk.span.bytes.bytes(0..<count)
            exchange.http?.receive(bytes, at: now)
            exchange.handshake?.receive(bytes, at: now)
            exchange.web?.receive(bytes, at: now)
            return true
        case .wouldBlock: return true
        case .closed:
            exchange.http?.receiveEnd(at: now)
            exchange.handshake?.receiveEnd(at: now)
            exchange.web?.receiveEnd(at: now)
            return false
        case .failed: return false
        }
    }

    /// Tells what the owner has said, and writes what there is for it.
    private mutating func proceed(_ exchange: Exchange, _ reactor: inout Reactor, at now: Instant) {
        if let event = exchange.http?.nextEvent() { return finish(exchange, event, &reactor) }
        if let event = exchange.handshake?.nextEvent() {
            guard upgrade(exchange, event, at: now) else { return close(exchange, &reactor) }
        }
        while let event = exchange.web?.nextEvent(at: now) {
            switch event {
            case .text(let text): outcomes.append(.text(client: exchange.client, text))
            case .binary: break
            case .ended(let end):
                // 1005 and 1006 say that nothing was said; they are never sent.
                let code = end.code == 1005 ? 1000 : end.code == 1006 ? 1001 : end.code
                outcomes.append(.closed(client: exchange.client, code: code, reason: end.reason))
                tags[exchange.client] = nil
            }
        }
        guard exchange.isConnected else { return }
        guard write(exchange) else { return lose(exchange, &reactor) }
        if exchange.web?.isFinished == true { return close(exchange, &reactor) }
        var interest: Interest = exchange.outputCount > 0 ? .writable : []
        if !exchange.isPaused { interest.insert(.readable) }
        guard interest != exchange.interest, let token = exchange.token else { return }
        exchange.interest = interest
        try? reactor.update(token, for: interest)
    }

    private mutating func finish(_ exchange: Exchange, _ event: HTTPClientEvent, _ reactor: inout Reactor) {
        switch event {
        case .response(let response): answer(exchange.client, response)
        case .upgraded, .failed: fail(exchange.client)
        }
        close(exchange, &reactor)
    }

    /// The owner's answer, without what belongs to its connection with us.
    private mutating func answer(_ client: UInt64, _ response: HTTPResponse) {
        counters.answered += 1
        refusals[client] = nil
        var headers = HTTPHeaders()
        for field in response.headers.fields where !Self.isOfConnection(field.name, response.headers) {
            headers.add(field.name, field.value)
        }
        outcomes.append(.response(client: client, HTTPResponse(status: response.status, headers: headers, body: response.body)))
    }

    /// False when there is no WebSocket.
    private mutating func upgrade(_ exchange: Exchange, _ event: WebSocketClientHandshake.Event, at now: Instant) -> Bool {
        switch event {
        case .accepted(let subprotocol, let early):
            exchange.handshake = nil
            exchange.web = WebSocketConnection(role: .client, random: SystemEntropy(), at: now)
            exchange.web?.receive(early.span.bytes, at: now)
            counters.answered += 1
            counters.sockets += 1
            outcomes.append(.opened(client: exchange.client, exchange.upgrade?.headers(choosing: subprotocol) ?? HTTPHeaders()))
            return true
        case .failed(.refused, let response?): answer(exchange.client, response)
        case .failed: fail(exchange.client)
        }
        return false
    }

    private func write(_ exchange: Exchange) -> Bool {
        while exchange.outputCount > 0 {
            switch Self.writeOnce(exchange) {
            case .transferred(let count):
                exchange.http?.outputSent(count)
                exchange.handshake?.outputSent(count)
                exchange.web?.outputSent(count)
            case .wouldBlock: return true
            case .closed, .failed: return false
            }
        }
        return true
    }

    private static func writeOnce(_ exchange: Exchange) -> StreamResult {
        if let http = exchange.http { return exchange.socket.write(http.output) }
        if let handshake = exchange.handshake { return exchange.socket.write(handshake.output) }
        if let web = exchange.web { return exchange.socket.write(web.output) }
        return .closed
    }

    /// The connection is gone before everything was said.
    private mutating func lose(_ exchange: Exchange, _ reactor: inout Reactor) {
        if exchange.web == nil {
            fail(exchange.client)
        } else if tags[exchange.client] != nil {
            outcomes.append(.closed(client: exchange.client, code: 1001, reason: "The transceiver that owns this call is gone."))
        }
        close(exchange, &reactor)
    }

    private mutating func close(_ exchange: Exchange, _ reactor: inout Reactor) {
        exchanges[exchange.tag] = nil
        if tags[exchange.client] == exchange.tag { tags[exchange.client] = nil }
        if let token = exchange.token { reactor.deregister(token) }
    }
}

// MARK: - From the client's WebSocket

extension OwnerCalls {
    mutating func hear(_ event: SocketEvent, of client: UInt64, at now: Instant) {
        guard let tag = tags[client], let exchange = exchanges[tag] else { return }
        switch event {
        case .opened: break
        case .text(let text):
            if exchange.web?.send(text: text) == false { exchange.web?.close(code: 1008, reason: "Too much at once.", at: now) }
        case .isSlow(let isSlow): exchange.isPaused = isSlow
        case .closed: exchange.web?.close(code: 1000, reason: "", at: now)
        }
        heard.append(tag)
    }

    /// Writes what `hear` has taken.
    mutating func flush(_ reactor: inout Reactor, at now: Instant) {
        let tags = heard
        heard = []
        for tag in tags { if let exchange = exchanges[tag] { proceed(exchange, &reactor, at: now) } }
    }
}
