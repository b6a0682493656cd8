// The opening handshake of WebSocket (RFC 6455 §4): an HTTP request that asks to leave HTTP. Both ends, no extensions.

import Crypto
import Primitives

/// What a server answers to prove that it has read the key (RFC 6455 §4.2.2).
func webSocketAccept(_ key: String) -> String {
    Base64.encode(SHA1.digest(Array((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8).bytes).array)
}

/// Why a request that asks for a WebSocket cannot have one.
public enum WebSocketRefusal: UInt8, Error, CaseIterable, Sendable {
    case notGET, notUpgrade, badKey, badVersion, badSubprotocols

    /// The answer: 426 with the version that we speak, else 400.
    public var response: HTTPResponse {
        switch self {
        case .notGET: return .error(400, "A WebSocket begins with GET over HTTP/1.1, without a body.", code: "invalid_websocket")
        case .notUpgrade:
            var response = HTTPResponse.error(426, "This path is a WebSocket: send Upgrade: websocket.", code: "upgrade_required")
            response.headers.set("Upgrade", "websocket")
            return response
        case .badKey: return .error(400, "Sec-WebSocket-Key must be there once: 16 bytes in base64.", code: "invalid_websocket")
        case .badVersion:
            var response = HTTPResponse.error(426, "The only WebSocket version spoken here is 13.", code: "invalid_websocket")
            response.headers.set("Sec-WebSocket-Version", "13")
            return response
        case .badSubprotocols:
            return .error(400, "Sec-WebSocket-Protocol must be at most 16 different names.", code: "invalid_websocket")
        }
    }
}

/// A request that may become a WebSocket.
///
///     let upgrade = try WebSocketUpgrade(request)
///     let early = connection.upgrade(to: "websocket", headers: upgrade.headers(choosing: upgrade.offers("realtime") ? "realtime" : nil))
///     var socket = WebSocketConnection(role: .server, random: entropy, at: now); socket.receive(early.span.bytes, at: now)
public struct WebSocketUpgrade: Sendable, Equatable {
    private let key: String
    /// What the client offers, best first.
    public let subprotocols: [String]

    /// Whether `request` asks to become a WebSocket at all.
    public static func isAsked(by request: HTTPRequest) -> Bool {
        request.headers.contains("websocket", in: "Upgrade") && request.headers.contains("Upgrade", in: "Connection")
    }

    public init(_ request: HTTPRequest) throws(WebSocketRefusal) {
        guard Self.isAsked(by: request) else { throw .notUpgrade }
        guard request.method == "GET", !request.isHTTP10, request.body.isEmpty else { throw .notGET }
        guard request.headers.all("Sec-WebSocket-Version") == ["13"] else { throw .badVersion }
        let keys = request.headers.all("Sec-WebSocket-Key")
        guard keys.count == 1, keys[0].utf8.count == 24, Base64.decode(keys[0])?.count == 16 else { throw .badKey }
        key = keys[0]
        var names: [String] = []
        for line in request.headers.all("Sec-WebSocket-Protocol") {
            for part in line.split(separator: ",", omittingEmptySubsequences: false) {
                let name = trimmed(part)
                guard names.count < 16, !name.isEmpty, name.utf8.allSatisfy(isTokenCharacter), !names.contains(name) else {
                    throw .badSubprotocols
                }
                names.append(name)
            }
        }
        subprotocols = names
    }

    public func offers(_ subprotocol: String) -> Bool { subprotocols.contains(subprotocol) }

    /// What follows `prefix` in the first subprotocol that has it: browsers, which cannot set headers, put their key into
    /// `openai-insecure-api-key.KEY`.
    public func value(behind prefix: String) -> String? {
        subprotocols.first { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
    }

    /// The fields of the 101 response, for `HTTPServerConnection.upgrade(to: "websocket", …)`.
    ///
    /// - Parameter subprotocol: one of those offered, or nil for none. A browser that offered some fails without an answer to them.
    public func headers(choosing subprotocol: String?) -> HTTPHeaders {
        var headers = HTTPHeaders([("Sec-WebSocket-Accept", webSocketAccept(key))])
        if let subprotocol, offers(subprotocol) { headers.add("Sec-WebSocket-Protocol", subprotocol) }
        return headers
    }
}

/// Why a server did not give us a WebSocket.
public enum WebSocketHandshakeFailure: Error, Sendable, Equatable {
    /// It answered something else: 401 for a wrong key, 426, 503, …
    case refused(status: Int)
    case http(HTTPClientFailure)
    /// 101 without `Upgrade: websocket` and `Connection: Upgrade`.
    case notUpgraded
    /// Its proof does not belong to our key.
    case wrongAccept
    /// It chose an extension or a subprotocol that was not offered.
    case notOffered
}

/// The client's side: one request, one answer.
public struct WebSocketClientHandshake: Sendable {
    public enum Event: Sendable, Equatable {
        /// Make a `WebSocketConnection` of the same stream, and give it the bytes that came early.
        case accepted(subprotocol: String?, early: [UInt8])
        case failed(WebSocketHandshakeFailure, HTTPResponse?)
    }

    private var connection: HTTPClientConnection
    private let key: String
    private let subprotocols: [String]

    /// - Parameters:
    ///   - host: the `Host` field.
    ///   - target: path and query.
    ///   - headers: `Authorization` and the like.
    ///   - random: where the key comes from, which only has to be fresh.
    ///   - patience: for the whole handshake.
    public init(
        host: String, target: String, headers: HTTPHeaders = HTTPHeaders(), subprotocols: [String] = [],
        random: inout some RandomNumberGenerator, patience: Interval = .seconds(10), at now: Instant
    ) {
        connection = HTTPClientConnection(host: host, patience: patience)
        var bytes: [UInt8] = []
        for _ in 0..<16 { bytes.append(UInt8.random(in: 0...255, using: &random)) }
        key = Base64.encode(bytes)
        self.subprotocols = subprotocols
        var fields = headers
        fields.set("Upgrade", "websocket")
        fields.set("Connection", "Upgrade")
        fields.set("Sec-WebSocket-Version", "13")
        fields.set("Sec-WebSocket-Key", key)
        if !subprotocols.isEmpty { fields.set("Sec-WebSocket-Protocol", subprotocols.joined(separator: ", ")) }
        let isSent = connection.send("GET", target, headers: fields, at: now)
        precondition(isSent, "the target of a WebSocket must be a path of visible ASCII characters")
    }

    public mutating func receive(_ bytes: RawSpan, at now: Instant) { connection.receive(bytes, at: now) }
    public mutating func receiveEnd(at now: Instant) { connection.receiveEnd(at: now) }
    public mutating func advance(to now: Instant) { connection.advance(to: now) }
    public var nextDeadline: Deadline { connection.nextDeadline }

    /// Bytes to write to the stream.
    public var output: RawSpan {
        @_lifetime(borrow self)
        borrowing get { connection.output }
    }
    public var outputCount: Int { connection.outputCount }
    public mutating func outputSent(_ count: Int) { connection.outputSent(count) }

    /// The outcome, once.
    public mutating func nextEvent() -> Event? {
        switch connection.nextEvent() {
        case .upgraded(let response, let early): judge(response, early)
        case .response(let response): .failed(.refused(status: response.status), response)
        case .failed(let failure): .failed(.http(failure), nil)
        case nil: nil
        }
    }

    /// RFC 6455 §4.1, on the server's response.
    private func judge(_ response: HTTPResponse, _ early: [UInt8]) -> Event {
        let headers = response.headers
        guard headers.contains("websocket", in: "Upgrade"), headers.contains("Upgrade", in: "Connection") else {
            return .failed(.notUpgraded, response)
        }
        guard headers.all("Sec-WebSocket-Accept") == [webSocketAccept(key)] else { return .failed(.wrongAccept, response) }
        let chosen = headers.all("Sec-WebSocket-Protocol")
        guard headers["Sec-WebSocket-Extensions"] == nil, chosen.count <= 1, chosen.allSatisfy(subprotocols.contains) else {
            return .failed(.notOffered, response)
        }
        return .accepted(subprotocol: chosen.first, early: early)
    }
}
