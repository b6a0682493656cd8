import Backend
import HTTP
import Primitives
import Realtime
import TestSupport
import Testing

/// A backend and a server that speaks the Realtime WebSocket, both in virtual time, with a stream between them that can be cut.
final class BackendWorld {
    var backend: RealtimeBackend
    var now = Instant.zero + .seconds(1)
    /// What the server does with a stream that is opened.
    var isReachable = true
    /// The server's status for a handshake: 101 is a WebSocket.
    var status = 101
    /// The server takes what is sent and its messages go out.
    var isReading = true
    private var connection: HTTPServerConnection?
    private var socket: WebSocketConnection?
    private(set) var streams = 0
    private(set) var authorization: String?
    private(set) var user: String?
    private(set) var target: String?
    /// Everything that the server got, oldest first.
    var received: [JSONValue] = []
    /// What the backend has said to the conversation.
    var events: [BackendEvent] = []
    var session = SessionObject()

    init(seed: UInt64 = 1, _ change: (inout RealtimeBackendSettings) -> Void = { _ in }) {
        guard let endpoint = RealtimeEndpoint("wss://ai.example/v1/realtime?model=m") else { fatalError("the URL is good") }
        var settings = RealtimeBackendSettings(endpoint: endpoint, key: "sk-1")
        change(&settings)
        backend = RealtimeBackend(settings, random: SeededGenerator(seed: seed), at: now)
        backend.perform(.sessionChanged, session: session, at: now)
    }

    /// Lets bytes flow until nothing moves any more.
    func settle() {
        backend.advance(to: now)
        var isMoving = true
        while isMoving {
            isMoving = false
            while let action = backend.nextStreamAction() {
                isMoving = true
                connection = nil
                socket = nil
                guard action == .open else { continue }
                streams += 1
                if isReachable {
                    connection = HTTPServerConnection(at: now)
                    backend.streamOpened(at: now)
                } else {
                    backend.streamFailed("nobody listens", at: now)
                }
            }
            if isReading, backend.outputCount > 0, connection != nil {
                let bytes = backend.withOutput { $0.array }
                backend.outputSent(bytes.count)
                take(bytes)
                isMoving = true
            }
            if give() { isMoving = true }
            while let event = backend.nextEvent() {
                events.append(event)
                isMoving = true
            }
        }
    }

    private func take(_ bytes: [UInt8]) {
        if socket == nil {
            connection?.receive(bytes.span.bytes, at: now)
            guard case .request(let request)? = connection?.nextEvent() else { return }
            authorization = request.headers["Authorization"]
            user = request.headers["OpenAI-Safety-Identifier"]
            target = request.target
            guard status == 101, let upgrade = try? WebSocketUpgrade(request) else {
                connection?.send(.error(status, "no"), at: now)
                return
            }
            let early = connection?.upgrade(to: "websocket", headers: upgrade.headers(choosing: nil)) ?? []
            socket = WebSocketConnection(role: .server, random: SeededGenerator(seed: 1), at: now)
            socket?.receive(early.span.bytes, at: now)
        } else {
            socket?.receive(bytes.span.bytes, at: now)
        }
        while let event = socket?.nextEvent(at: now) {
            if case .text(let text) = event, let value = try? JSONValue(parsing: text.span.bytes, limits: JSONLimits(bytes: 2 << 20)) {
                received.append(value)
            }
        }
    }

    /// What waits at the server, as far as the backend wants it.
    private func give() -> Bool {
        guard backend.wantsInput else { return false }
        if let bytes = connection?.output.array, !bytes.isEmpty {
            connection?.outputSent(bytes.count, at: now)
            backend.receive(bytes.span.bytes, at: now)
            return true
        }
        // In reads of 16 KiB, as a socket gives them.
        if let bytes = socket?.output.array.prefix(16_384), !bytes.isEmpty {
            socket?.outputSent(bytes.count)
            backend.receive(Array(bytes).span.bytes, at: now)
            return true
        }
        return false
    }

    /// The server says this, and everything flows.
    func say(_ json: String) {
        _ = socket?.send(text: json.utf8)
        settle()
    }

    func say(audio samples: [Int16], response: String = "r1") {
        let bytes = samples.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
        say(#"{"type":"response.output_audio.delta","response_id":"\#(response)","item_id":"i1","delta":"\#(Base64.encode(bytes))"}"#)
    }

    func sayRaw(binary: [UInt8]) {
        _ = socket?.send(binary: binary)
        settle()
    }

    /// The server's end of the stream goes away.
    func cut() {
        connection = nil
        socket = nil
        backend.receiveEnd(at: now)
        settle()
    }

    func closeByServer(code: UInt16) {
        socket?.close(code: code, at: now)
        settle()
    }

    func perform(_ action: ConversationAction) {
        backend.perform(action, session: session, at: now)
        settle()
    }

    /// Lets time go on from deadline to deadline.
    func pass(_ interval: Interval) {
        let end = now + interval
        while true {
            let next = backend.nextDeadline.instant
            guard next <= end else { break }
            now = max(next, now)
            settle()
        }
        now = end
        settle()
    }

    func hear(_ samples: [Int16]) {
        backend.hear(samples.span)
        settle()
    }

    /// The next 20 ms, or nil.
    func frame() -> [Int16]? {
        var frame = [Int16](repeating: -1, count: 480)
        var span = frame.mutableSpan
        guard backend.nextFrame(into: &span) else {
            settle()
            return nil
        }
        settle()
        return frame
    }

    var isOpen: Bool { backend.isOpen }
    var wantsInput: Bool { backend.wantsInput }
    var outputCount: Int { backend.outputCount }
    var counters: RealtimeBackendCounters { backend.counters }

    func types() -> [String] { received.compactMap { $0["type"]?.string } }
    func takeEvents() -> [BackendEvent] {
        defer { events = [] }
        return events
    }
}
