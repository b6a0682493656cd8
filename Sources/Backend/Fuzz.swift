import HTTP
import Primitives
import Realtime

/// Whatever a server sends over a backend's connection, the call keeps its wits and its memory.
public func fuzzGRPCBackend(_ bytes: RawSpan) {
    guard bytes.byteCount <= 65_536, let endpoint = GRPCEndpoint("grpc://192.0.2.1") else { return }
    var backend = GRPCBackend(GRPCBackendSettings(endpoint: endpoint, key: nil), random: SeededGenerator(seed: 1), at: .zero)
    let session = SessionObject()
    var now = Instant.zero
    backend.advance(to: now)
    backend.perform(.sessionChanged, session: session, at: now)
    backend.streamOpened(at: now)
    backend.perform(.startResponse(id: "r", parameters: [:]), session: session, at: now)
    let silence = InlineArray<480, Int16>(repeating: 0)
    var frame = silence
    var position = 0
    while position < bytes.byteCount {
        // Pieces of different lengths, as a socket gives them.
        let end = min(bytes.byteCount, position + 1 + position * 7 % 61)
        backend.receive(bytes.bytes(position..<end), at: now)
        position = end
        backend.hear(silence.span, isConcealed: false)
        var room = frame.mutableSpan
        while backend.nextFrame(into: &room) {}
        while backend.nextEvent() != nil {}
        let waiting = backend.outputCount
        precondition(waiting <= 65_536, "a server makes us say too much")
        backend.outputSent(waiting / 2)
        now = now + .milliseconds(20)
        backend.advance(to: now)
    }
    var actions = 0
    while backend.nextStreamAction() != nil { actions += 1 }
    precondition(actions <= 2 * position + 1, "a stream was closed more often than it was opened")
    backend.receiveEnd(at: now)
    precondition(!backend.wantsInput, "a stream that ended is read")
}

/// Whatever a server says over the Realtime WebSocket, every request for a response ends at most once, and nobody is made to say much. A first byte
/// of `{` means events, one a line; anything else is what comes in place of frames.
public func fuzzRealtimeBackend(_ bytes: RawSpan) {
    guard bytes.byteCount <= 65_536, let endpoint = RealtimeEndpoint("ws://192.0.2.1/v1/realtime") else { return }
    var backend = RealtimeBackend(RealtimeBackendSettings(endpoint: endpoint, key: nil), random: SeededGenerator(seed: 1), at: .zero)
    let session = SessionObject()
    var now = Instant.zero
    backend.advance(to: now)
    while backend.nextStreamAction() != nil {}
    backend.perform(.sessionChanged, session: session, at: now)
    backend.streamOpened(at: now)
    // A server that is one, until the handshake is over.
    var server = HTTPServerConnection(at: now)
    backend.withOutput { server.receive($0, at: now) }
    backend.outputSent(backend.outputCount)
    guard case .request(let request)? = server.nextEvent(), let upgrade = try? WebSocketUpgrade(request) else {
        preconditionFailure("our handshake is none")
    }
    _ = server.upgrade(to: "websocket", headers: upgrade.headers(choosing: nil))
    backend.receive(server.output, at: now)
    precondition(backend.isOpen, "our own answer is refused")

    var asked = 1
    var ended = 0
    backend.perform(.startResponse(id: "r", parameters: [:]), session: session, at: now)
    var frame = InlineArray<480, Int16>(repeating: 0)
    for piece in pieces(bytes) {
        backend.receive(piece.span.bytes, at: now)
        var isMoving = true
        while isMoving {
            var room = frame.mutableSpan
            isMoving = backend.nextFrame(into: &room)
            while let event = backend.nextEvent() {
                isMoving = true
                if event == .responseDone { ended += 1 }
                if case .failed = event { ended += 1 }
            }
        }
        precondition(backend.outputCount <= 262_144, "a server makes us say too much")
        backend.outputSent(backend.outputCount / 2)
        backend.hear(frame.span)
        now = now + .milliseconds(20)
        backend.advance(to: now)
        if asked < 8, ended == asked {
            backend.perform(.startResponse(id: "r\(asked)", parameters: [:]), session: session, at: now)
            asked += 1
        }
    }
    // A stream that is lost, and each new attempt that fails, is told, too.
    precondition(ended <= asked + 2, "a response has ended more than once")
}

/// Events as a server's frames, or bytes as a socket gives them.
private func pieces(_ bytes: RawSpan) -> [[UInt8]] {
    let input = (0..<bytes.byteCount).map { bytes.byte($0) }
    guard input.first == UInt8(ascii: "{") else {
        return stride(from: 0, to: input.count, by: 61).map { Array(input[$0..<min($0 + 61, input.count)]) }
    }
    return input.split(separator: UInt8(ascii: "\n")).map { line in
        let length = line.count < 126 ? [UInt8(line.count)] : [126, UInt8(line.count >> 8 & 0xFF), UInt8(line.count & 0xFF)]
        return [0x81] + length + line
    }
}
