import Audio
import Backend
import Primitives
import Realtime

/// What answers a conversation: it hears PCM and what the conversation asks for, and says PCM and events.
///
/// A switch over a closed set instead of an existential: a frame's way through it is a jump, not an allocation.
struct Agent: ~Copyable {
    /// Samples a second, in and out.
    static let rate = ParrotBackend.rate
    /// Samples of a frame: 20 ms.
    static let frameSamples = rate / 50

    private var parrot: ParrotBackend?
    private var remote: RealtimeBackend?
    private var grpc: GRPCBackend?
    /// What a request for a response is told, where nobody answers.
    private var excuse = ""
    private var events: [BackendEvent] = []
    let abilities: SessionObject.Abilities

    init(_ choice: BackendChoice, seed: UInt64, at now: Instant) {
        abilities = choice.abilities
        switch choice {
        case .echo: excuse = "The backend embedded:echo only sends audio back; it makes no responses."
        case .parrot: parrot = ParrotBackend()
        case .realtime(let settings): remote = RealtimeBackend(settings, random: SeededGenerator(seed: seed), at: now)
        case .grpc(let settings): grpc = GRPCBackend(settings, random: SeededGenerator(seed: seed), at: now)
        }
    }
}

extension Agent {
    /// Takes 20 ms of the caller, gapless.
    /// - Parameter isConcealed: part of it was made up in place of lost packets.
    mutating func hear(_ frame: Span<Int16>, isConcealed: Bool) {
        parrot?.hear(frame)
        remote?.hear(frame)
        grpc?.hear(frame, isConcealed: isConcealed)
    }

    /// Whether the caller's Opus is wanted as it comes, in place of frames.
    var wantsPackets: Bool {
        switch grpc {
        case .some(let grpc): grpc.wantsPackets
        case .none: false
        }
    }

    /// Takes a stretch of the caller's Opus; without bytes nothing came.
    mutating func hear(packet: RawSpan, _ facts: AudioPacket) {
        grpc?.hear(packet: packet, samples: facts.samples, isLost: facts.content == .lost)
    }

    /// The caller's turn has begun, so many milliseconds after the first frame.
    mutating func speechStarted(milliseconds: Int) {
        parrot?.speechStarted()
        grpc?.speechStarted(milliseconds: milliseconds)
    }

    /// What the call is called, for a backend that wants to know.
    mutating func setCallID(_ id: String) { grpc?.setCallID(id) }

    mutating func perform(_ action: ConversationAction, session: borrowing SessionObject, at now: Instant) {
        if case .sessionChanged = action { parrot?.keepsEverything = session.turnDetection == .none }
        if parrot != nil { return parrot!.perform(action) }
        if remote != nil { return remote!.perform(action, session: session, at: now) }
        if grpc != nil { return grpc!.perform(action, session: session, at: now) }
        if case .startResponse = action { events.append(.failed(message: excuse)) }
    }

    /// Overwrites `frame` with the next 20 ms of the answer; false when there is nothing to say now. Take the events after each.
    mutating func nextFrame(into frame: inout MutableSpan<Int16>) -> Bool {
        if parrot != nil { return parrot!.nextFrame(into: &frame) }
        if grpc != nil { return grpc!.nextFrame(into: &frame) }
        return remote?.nextFrame(into: &frame) ?? false
    }

    mutating func nextEvent() -> BackendEvent? {
        if !events.isEmpty { return events.removeFirst() }
        return parrot?.nextEvent() ?? remote?.nextEvent() ?? grpc?.nextEvent()
    }

    /// What the backend's own turn detection has heard.
    mutating func nextHeard() -> HeardEvent? { remote?.nextHeard() }

    mutating func advance(to now: Instant) {
        remote?.advance(to: now)
        grpc?.advance(to: now)
    }

    var nextDeadline: Deadline {
        switch remote {
        case .some(let remote): return remote.nextDeadline
        case .none: break
        }
        switch grpc {
        case .some(let grpc): return grpc.nextDeadline
        case .none: return .none
        }
    }
}

// MARK: - The stream of a backend elsewhere

extension Agent {
    mutating func nextStreamAction() -> BackendStreamAction? { remote?.nextStreamAction() ?? grpc?.nextStreamAction() }

    mutating func receive(_ event: BackendStreamEvent, at now: Instant) {
        switch event {
        case .opened:
            remote?.streamOpened(at: now)
            grpc?.streamOpened(at: now)
        case .failed(let reason):
            remote?.streamFailed(reason, at: now)
            grpc?.streamFailed(reason, at: now)
        case .ended:
            remote?.receiveEnd(at: now)
            grpc?.receiveEnd(at: now)
        }
    }

    mutating func receive(stream bytes: RawSpan, at now: Instant) {
        remote?.receive(bytes, at: now)
        grpc?.receive(bytes, at: now)
    }

    var wantsStreamInput: Bool {
        switch remote {
        case .some(let remote): return remote.wantsInput
        case .none: break
        }
        switch grpc {
        case .some(let grpc): return grpc.wantsInput
        case .none: return false
        }
    }

    var hasStreamOutput: Bool {
        switch remote {
        case .some(let remote): return remote.outputCount > 0
        case .none: break
        }
        switch grpc {
        case .some(let grpc): return grpc.outputCount > 0
        case .none: return false
        }
    }

    /// Offers what waits to be written to `write`, which tells how much it took.
    mutating func writeStream(_ write: (RawSpan) -> Int) {
        if remote != nil {
            let count = Self.offer(remote, to: write)
            if count > 0 { remote?.outputSent(count) }
        } else {
            let count = Self.offer(grpc, to: write)
            if count > 0 { grpc?.outputSent(count) }
        }
    }

    private static func offer(_ remote: borrowing RealtimeBackend?, to write: (RawSpan) -> Int) -> Int {
        switch remote {
        case .some(let remote): remote.withOutput(write)
        case .none: 0
        }
    }

    private static func offer(_ grpc: borrowing GRPCBackend?, to write: (RawSpan) -> Int) -> Int {
        switch grpc {
        case .some(let grpc): grpc.withOutput(write)
        case .none: 0
        }
    }
}

/// What has become of a backend's stream.
public enum BackendStreamEvent: Sendable {
    case opened
    /// It could not be opened, or has broken; a few words that may be shown to a client.
    case failed(String)
    /// The backend will send no more.
    case ended
}
