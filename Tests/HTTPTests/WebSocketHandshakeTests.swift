import HTTP
import Primitives
import TestSupport
import Testing

private let start = Instant.zero

private let asked =
    "GET /v1/realtime?model=m HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

private func request(_ text: String) throws -> HTTPRequest {
    var connection = HTTPServerConnection(at: start)
    connection.receive(Array((text + "\r\n").utf8).span.bytes, at: start)
    guard case .request(let request)? = connection.nextEvent() else { throw Unread() }
    return request
}

private struct Unread: Error {}

private func refusal(_ text: String) throws -> WebSocketRefusal? {
    do {
        _ = try WebSocketUpgrade(try request(text))
        return nil
    } catch let refusal as WebSocketRefusal {
        return refusal
    }
}

private func handshake(_ subprotocols: [String] = []) -> WebSocketClientHandshake {
    var random = SeededGenerator(seed: 1)
    return WebSocketClientHandshake(
        host: "h", target: "/v1/realtime?model=m", headers: HTTPHeaders([("Authorization", "Bearer k")]), subprotocols: subprotocols,
        random: &random, at: start)
}

/// A server's connection that has a handshake's request.
private func upgrade(_ handshake: inout WebSocketClientHandshake) throws -> (HTTPServerConnection, HTTPRequest) {
    var connection = HTTPServerConnection(at: start)
    connection.receive(handshake.output, at: start)
    handshake.outputSent(handshake.outputCount)
    guard case .request(let request)? = connection.nextEvent() else { throw Unread() }
    return (connection, request)
}

@Suite struct WebSocketHandshakes {
    /// RFC 6455 §1.3.
    @Test func `the RFC's key gets the RFC's answer`() throws {
        let upgrade = try WebSocketUpgrade(try request(asked))
        #expect(upgrade.headers(choosing: nil).fields.map(\.value) == ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="])
    }

    @Test func `a browser's key is found among its subprotocols`() throws {
        let offered = "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.ek_1-2.3,openai-beta.realtime-v1\r\n"
        let upgrade = try WebSocketUpgrade(try request(asked + offered))
        #expect(upgrade.value(behind: "openai-insecure-api-key.") == "ek_1-2.3")
        #expect(upgrade.offers("realtime") && !upgrade.offers("real"))
        #expect(upgrade.headers(choosing: "realtime")["Sec-WebSocket-Protocol"] == "realtime")
        #expect(upgrade.headers(choosing: "other")["Sec-WebSocket-Protocol"] == nil)
    }

    @Test func `what is no request for a WebSocket is refused with a reason`() throws {
        #expect(try refusal("GET / HTTP/1.1\r\nHost: h\r\n") == .notUpgrade)
        #expect(try refusal(asked.replacing("GET", with: "POST") + "Content-Length: 0\r\n") == .notGET)
        #expect(try refusal(asked.replacing("13", with: "8")) == .badVersion)
        #expect(try refusal(asked + "Sec-WebSocket-Version: 13\r\n") == .badVersion)
        #expect(try refusal(asked.replacing("dGhlIHNhbXBsZSBub25jZQ==", with: "dGhlIHNhbXBsZQ==")) == .badKey)
        #expect(try refusal(asked + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n") == .badKey)
        #expect(try refusal(asked + "Sec-WebSocket-Protocol: a,,b\r\n") == .badSubprotocols)
        #expect(try refusal(asked + "Sec-WebSocket-Protocol: a, a\r\n") == .badSubprotocols)
        let many = (0..<17).map { "p\($0)" }.joined(separator: ",")
        #expect(try refusal(asked + "Sec-WebSocket-Protocol: \(many)\r\n") == .badSubprotocols)
        #expect(WebSocketRefusal.badVersion.response.status == 426)
        #expect(WebSocketRefusal.badVersion.response.headers["Sec-WebSocket-Version"] == "13")
    }

    @Test func `both ends agree, and a message that came with the answer is not lost`() throws {
        var client = handshake(["realtime"])
        var (connection, request) = try upgrade(&client)
        #expect(request.bearerToken == "k" && request.queryValue("model") == "m")
        let granted = try WebSocketUpgrade(request)
        let nothing = connection.upgrade(to: "websocket", headers: granted.headers(choosing: "realtime"))
        #expect(nothing == [])
        client.receive((connection.output.array + [0x81, 2, 0x68, 0x69]).span.bytes, at: start)
        let outcome = client.nextEvent()
        #expect(outcome == .accepted(subprotocol: "realtime", early: [0x81, 2, 0x68, 0x69]))
    }

    @Test func `an answer that proves nothing is not believed`() throws {
        func outcome(_ change: (inout HTTPHeaders) -> Void) throws -> WebSocketClientHandshake.Event? {
            var client = handshake()
            var (connection, request) = try upgrade(&client)
            var headers = try WebSocketUpgrade(request).headers(choosing: nil)
            change(&headers)
            _ = connection.upgrade(to: "websocket", headers: headers)
            client.receive(connection.output, at: start)
            return client.nextEvent()
        }
        func failed(_ event: WebSocketClientHandshake.Event?) -> WebSocketHandshakeFailure? {
            guard case .failed(let failure, _)? = event else { return nil }
            return failure
        }
        #expect(try failed(outcome { _ in }) == nil)
        #expect(try failed(outcome { $0.set("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") }) == .wrongAccept)
        #expect(try failed(outcome { $0.remove("Sec-WebSocket-Accept") }) == .wrongAccept)
        #expect(try failed(outcome { $0.add("Sec-WebSocket-Protocol", "realtime") }) == .notOffered)
        #expect(try failed(outcome { $0.add("Sec-WebSocket-Extensions", "permessage-deflate") }) == .notOffered)
    }

    @Test func `a refusal is told with its status, and silence by the clock`() throws {
        var client = handshake()
        var (connection, _) = try upgrade(&client)
        connection.send(.error(401, "Wrong key.", code: "invalid_api_key"), at: start)
        client.receive(connection.output, at: start)
        guard case .failed(.refused(status: 401), let response?)? = client.nextEvent() else {
            Issue.record("not refused")
            return
        }
        #expect(!response.body.isEmpty)
        var waiting = handshake()
        waiting.advance(to: start + .seconds(10))
        let outcome = waiting.nextEvent()
        #expect(outcome == .failed(.http(.timeout), nil))
    }
}

/// The Python package `websockets` at the other end of a socket pair.
@Suite(.enabled(if: ForeignPeer.python != nil, "no Python environment of the end-to-end tests")) struct ForeignWebSockets {
    @Test(.timeLimit(.minutes(1))) func `its client gets back everything that it sends, in every length`() throws {
        let peer = ForeignPeer("websocket_peer.py", ["client"])
        var connection = HTTPServerConnection(at: start)
        var socket = WebSocketConnection(role: .server, random: SeededGenerator(seed: 1), at: start)
        var end: WebSocketEnd?
        while end == nil || !socket.isFinished {
            guard let bytes = peer.read() else { continue }
            if connection.isUpgraded {
                socket.receive(bytes.span.bytes, at: start)
            } else {
                connection.receive(bytes.span.bytes, at: start)
            }
            if bytes.isEmpty { socket.receiveEnd(at: start) }
            if case .request(let request)? = connection.nextEvent() {
                let upgrade = try WebSocketUpgrade(request)
                let early = connection.upgrade(to: "websocket", headers: upgrade.headers(choosing: "realtime")) ?? []
                socket.receive(early.span.bytes, at: start)
                while connection.outputCount > 0 { connection.outputSent(peer.write(connection.output), at: start) }
            }
            while let event = socket.nextEvent(at: start) {
                switch event {
                case .text(let text): _ = socket.send(text: text)
                case .binary(let bytes): _ = socket.send(binary: bytes)
                case .ended(let reached): end = reached
                }
                while socket.outputCount > 0 { socket.outputSent(peer.write(socket.output)) }
            }
            while socket.outputCount > 0 { socket.outputSent(peer.write(socket.output)) }
        }
        #expect(end == WebSocketEnd(code: 1000, reason: "all came back"))
    }

    @Test(.timeLimit(.minutes(1))) func `its server answers our client, with fragments and pings in between`() throws {
        let peer = ForeignPeer("websocket_peer.py", ["server"])
        var client = handshake(["realtime"])
        while client.outputCount > 0 { client.outputSent(peer.write(client.output)) }
        var outcome: WebSocketClientHandshake.Event?
        while outcome == nil {
            guard let bytes = peer.read() else { continue }
            client.receive(bytes.span.bytes, at: start)
            outcome = client.nextEvent()
        }
        guard case .accepted("realtime", let early)? = outcome else {
            Issue.record("\(String(describing: outcome))")
            return
        }
        var socket = WebSocketConnection(role: .client, random: SeededGenerator(seed: 1), at: start)
        socket.receive(early.span.bytes, at: start)
        let lengths = [0, 1, 125, 126, 65_535, 65_536, 300_000]
        var left = lengths
        var sent: WebSocketEvent?
        var end: WebSocketEnd?
        while end == nil {
            while let event = socket.nextEvent(at: start) {
                if case .ended(let reached) = event { end = reached } else { #expect(event == sent) }
                sent = nil
            }
            if sent == nil, end == nil {
                if let length = left.popLast() {
                    let text = Array(String(repeating: "ü", count: length / 2).utf8)
                    sent = length % 2 == 0 ? .text(text) : .binary(text)
                    _ = length % 2 == 0 ? socket.send(text: text) : socket.send(binary: text)
                } else {
                    socket.close(at: start)
                }
            }
            while socket.outputCount > 0 {
                let count = peer.write(socket.output)
                socket.outputSent(count)
                if count == 0 { break }
            }
            guard let bytes = peer.read() else { continue }
            if bytes.isEmpty { socket.receiveEnd(at: start) } else { socket.receive(bytes.span.bytes, at: start) }
        }
        #expect(end == WebSocketEnd(code: 1000) && left.isEmpty)
    }
}
