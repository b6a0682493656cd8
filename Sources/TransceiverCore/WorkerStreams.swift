import Backend
import Primitives

// Streams to backends elsewhere, as a worker sees them: bytes and what became of the stream. Sockets, TLS and names are its owner's.

/// What a session wants of its backend's stream.
public enum StreamRequest: Sendable, Equatable {
    /// Open one; then say `streamOpened` or `streamFailed`.
    case open
    /// Close it. Nothing that it still brings may be handed in.
    case close
    /// Bytes wait to be written, or there is room again to read.
    case serve
}

public struct AddressedStreamRequest: Sendable {
    public var session: UInt32
    public var request: StreamRequest
}

extension TransceiverWorker {
    public mutating func nextStreamRequest() -> AddressedStreamRequest? { streamRequests.isEmpty ? nil : streamRequests.removeFirst() }

    /// What has become of a stream.
    public mutating func receive(_ event: BackendStreamEvent, session id: UInt32, at now: Instant) {
        withDialogue(of: id) { $0.receive(event, at: now) }
        wake(id, at: now)
    }

    /// Takes bytes of a session's stream; respect `wantsStreamInput`.
    public mutating func receive(stream bytes: RawSpan, session id: UInt32, at now: Instant) {
        withDialogue(of: id) { $0.receive(stream: bytes, at: now) }
        wake(id, at: now)
    }

    public mutating func wantsStreamInput(_ id: UInt32) -> Bool { withDialogue(of: id) { $0.wantsStreamInput } ?? false }

    /// Offers what a session has for its stream to `write`, which tells how much it took; until nothing is left or nothing is taken.
    public mutating func writeStream(_ id: UInt32, _ write: (RawSpan) -> Int) {
        var goesOn = true
        while goesOn {
            goesOn = false
            withDialogue(of: id) { dialogue in
                guard dialogue.hasStreamOutput else { return }
                dialogue.writeStream { bytes in
                    let count = write(bytes)
                    goesOn = count > 0
                    return count
                }
            }
        }
    }

    mutating func collectStreamRequests(of id: UInt32) {
        guard hasRemoteBackend else { return }
        while let action = withDialogue(of: id, { $0.nextStreamAction() }) ?? nil {
            streamRequests.append(AddressedStreamRequest(session: id, request: action == .open ? .open : .close))
        }
        guard streamRequests.last?.session != id || streamRequests.last?.request != .serve else { return }
        streamRequests.append(AddressedStreamRequest(session: id, request: .serve))
    }

    mutating func closeStream(of id: UInt32) {
        guard hasRemoteBackend else { return }
        streamRequests.append(AddressedStreamRequest(session: id, request: .close))
    }
}
