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
