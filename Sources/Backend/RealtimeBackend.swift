// `realtime:wss://…`: any server that speaks the Realtime WebSocket, as a machine without I/O over the stream's bytes. TLS, resolver and
// socket are its owner's.
//
// Turns are found here, not there: the backend is told `turn_detection: null`, gets the caller's audio and a commit and `response.create`
// when a turn has ended. Only `semantic_vad` is left to it; then it says when the caller speaks (`nextHeard`), and still asks nobody to
// answer. Identifiers of its responses and items never reach the client, which knows those of our own conversation.
//
//     RealtimeBackend.swift        the stream: opening, losing and opening it again
//     RealtimeBackendSpeech.swift  what goes to the backend: audio and requests
//     RealtimeBackendEvents.swift  what it says

import HTTP
import Primitives
import Realtime

/// What a backend's owner has to do with its stream.
public enum BackendStreamAction: Sendable, Equatable {
    /// Connect to the endpoint, with TLS where it is secure; then say `streamOpened` or `streamFailed`.
    case open
    /// Close the stream, whatever state it is in. Nothing that it still brings may be handed in.
    case close
}

/// What a backend's stream has been through.
public struct RealtimeBackendCounters: Sendable, Equatable {
    public var connections: UInt64 = 0
    public var failures: UInt64 = 0
    public var messagesReceived: UInt64 = 0
    /// Messages that are no event of the API.
    public var malformed: UInt64 = 0
    /// Frames of the caller that were not sent: no stream, or a backend that does not read.
    public var framesDropped: UInt64 = 0
    /// Responses given up because nothing came.
    public var timeouts: UInt64 = 0
    public init() {}
}

public struct RealtimeBackend: ~Copyable {
    /// Samples a second, both ways.
    public static let rate = 24_000

    enum Phase {
        /// No stream; the next attempt is at `retry`.
        case waiting
        /// The owner opens one.
        case opening
        /// `handshake` is there.
        case handshake
        /// `socket` is there.
        case open
        /// The call is over.
        case over
    }

    let settings: RealtimeBackendSettings
    var random: any RandomNumberGenerator & Sendable
    var phase = Phase.waiting
    var handshake: WebSocketClientHandshake?
    var socket: WebSocketConnection?
    var actions: [BackendStreamAction] = []
    var reconnection: Reconnection
    /// When the next attempt is made, or the one under way is given up.
    var patience: Instant
    var openedAt = Instant.zero
    /// The call is over; only the closing handshake is left.
    var isFinishing = false
    /// The last time that anybody told; for verbs that are not about time.
    var now: Instant
    /// The client has been told of the present outage.
    var hasToldOutage = false

    /// Messages for a stream that is being opened.
    var pending: [[UInt8]] = []
    var pendingBytes = 0
    var sessionUpdate: [UInt8]?
    /// Of the end user, for the server behind us.
    var safetyIdentifier: String?
    /// The backend finds turns itself.
    var leavesTurns = false

    var answer: RealtimeAnswer?
    /// Requests that were cancelled before the backend has named their response.
    var unwanted: [String] = []
    /// The backend's name of the item that was spoken last.
    var spokenItem: String?
    /// Items that the backend knows by our name.
    var sharedItems: [String] = []
    var samples = SampleQueue()
    /// Half a sample, between two deltas.
    var oddByte: UInt8?
    var events: [BackendEvent] = []
    var heard: [HeardEvent] = []
    /// Milliseconds of the call at which the backend's own count of audio began.
    var heardOffset = 0
    var heardSamples = 0
    /// Audio on its way into an append.
    var scratch: [UInt8] = []
    var batch: [UInt8] = []
    var eventNumber = 0
    public internal(set) var counters = RealtimeBackendCounters()

    /// - Parameter random: for masks, the handshake's key and the jitter of reconnecting.
    public init(_ settings: RealtimeBackendSettings, random: any RandomNumberGenerator & Sendable, at now: Instant) {
        self.settings = settings
        self.random = random
        self.now = now
        patience = now
        reconnection = Reconnection(
            first: settings.backoff.first, last: settings.backoff.last, breakerFailures: settings.breakerFailures)
    }

    /// `semantic_vad` is the backend's to offer.
    public static let abilities = SessionObject.Abilities(semanticVAD: true)
}

/// A response between the request for it and its last sample.
struct RealtimeAnswer {
    /// Of our `response.create`.
    var eventID: String
    /// The backend's name, once it has one.
    var id: String?
    /// When it was asked for, or last gave a sign of life.
    var sign: Instant
    var hasToldSlow = false
    var hasAudio = false
    /// Everything has come; its end is told when everything has been taken.
    var isComplete = false
}

// MARK: - The stream

extension RealtimeBackend {
    public mutating func nextStreamAction() -> BackendStreamAction? { actions.isEmpty ? nil : actions.removeFirst() }

    public mutating func streamOpened(at now: Instant) {
        self.now = now
        guard case .opening = phase else { return }
        phase = .handshake
        var source = SeededGenerator(seed: random.next())
        var headers = settings.headers
        if let safetyIdentifier { headers.set("OpenAI-Safety-Identifier", safetyIdentifier) }
        handshake = WebSocketClientHandshake(
            host: settings.endpoint.hostField, target: settings.endpoint.target, headers: headers, random: &source,
            patience: settings.connectTime, at: now)
    }

    /// The stream could not be opened, or has broken. `reason` ends up in what the client is told: no secrets, no addresses.
    public mutating func streamFailed(_ reason: String, at now: Instant) {
        self.now = now
        lose(reason, closes: false)
    }

    /// Takes bytes of the stream. Respect `wantsInput`: it is how a backend that talks too much is slowed down.
    public mutating func receive(_ bytes: RawSpan, at now: Instant) {
        self.now = now
        handshake?.receive(bytes, at: now)
        socket?.receive(bytes, at: now)
        proceed()
    }

    /// The stream has ended.
    public mutating func receiveEnd(at now: Instant) {
        self.now = now
        handshake?.receiveEnd(at: now)
        socket?.receiveEnd(at: now)
        proceed()
    }

    /// False while answers wait to be taken: do not read the stream then.
    public var wantsInput: Bool {
        if let socket { return socket.wantsInput && hasRoom }
        return handshake != nil
    }

    var hasRoom: Bool { samples.count < settings.answerSeconds * Self.rate && events.count < 256 && heard.count < 64 }

    /// Whether the backend can be talked to now.
    public var isOpen: Bool {
        socket?.isOpen ?? false
    }

    /// How many bytes wait to be written to the stream.
    public var outputCount: Int {
        socket?.outputCount ?? handshake?.outputCount ?? 0
    }

    /// Bytes to write to the stream.
    public func withOutput<Result>(_ body: (RawSpan) -> Result) -> Result {
        if let socket { return body(socket.output) }
        if let handshake { return body(handshake.output) }
        return body(RawSpan())
    }

    /// The stream took `count` bytes of the output.
    public mutating func outputSent(_ count: Int) {
        handshake?.outputSent(count)
        socket?.outputSent(count)
    }

    /// The call is over: a last word to the backend. The stream can be closed when `outputCount` is 0.
    public mutating func finish(at now: Instant) {
        self.now = now
        switch phase {
        case .open: socket?.close(code: 1000, at: now)
        case .opening, .handshake: actions.append(.close)
        case .waiting, .over: break
        }
        if socket == nil { handshake = nil }
        isFinishing = true
        phase = socket == nil ? .over : .open
        pending = []
        samples.removeAll()
        answer = nil
    }

    public mutating func advance(to now: Instant) {
        self.now = now
        switch phase {
        case .waiting:
            if patience <= now { begin() }
        case .opening:
            if patience <= now { lose("it cannot be reached", closes: true) }
        case .handshake, .open:
            handshake?.advance(to: now)
            socket?.advance(to: now)
            proceed()
        case .over: break
        }
        watchAnswer()
    }

    public var nextDeadline: Deadline {
        let stream: Deadline =
            switch phase {
            case .waiting: Deadline(patience, "backend retry")
            case .opening: Deadline(patience, "backend connect")
            case .handshake: handshake?.nextDeadline ?? .none
            case .open: socket?.nextDeadline ?? .none
            case .over: .none
            }
        return .soonest(stream, answerDeadline)
    }

    private mutating func begin() {
        phase = .opening
        patience = now + settings.connectTime
        actions.append(.open)
    }

    /// Takes what handshake and WebSocket have to say, as far as there is room.
    mutating func proceed() {
        if let event = handshake?.nextEvent() {
            handshake = nil
            switch event {
            case .accepted(_, let early): accept(early)
            case .failed(let failure, _): return lose(Self.words(failure), closes: true)
            }
        }
        takeMessages()
    }

    private mutating func accept(_ early: [UInt8]) {
        var limits = WebSocketLimits()
        limits.outputBytes = settings.outputBytes
        // Masks only have to be unknown to whoever chooses what is sent, which travels inside TLS.
        socket = WebSocketConnection(role: .client, limits: limits, random: SeededGenerator(seed: random.next()), at: now)
        socket?.receive(early.span.bytes, at: now)
        phase = .open
        counters.connections += 1
        openedAt = now
        hasToldOutage = false
        if let sessionUpdate { send(sessionUpdate) }
        let waiting = pending
        pending = []
        pendingBytes = 0
        for message in waiting { send(message) }
    }

    private mutating func takeMessages() {
        while hasRoom, let event = socket?.nextEvent(at: now) {
            switch event {
            case .text(let text): hear(text)
            case .binary: counters.malformed += 1
            case .ended(let end): return lose(Self.words(end), closes: true)
            }
        }
    }

    /// No stream any more: the open response has failed, the client is told once, and another attempt comes later.
    mutating func lose(_ reason: String, closes: Bool) {
        if case .over = phase { return }
        handshake = nil
        socket = nil
        if closes { actions.append(.close) }
        guard !isFinishing else {
            phase = .over
            return
        }
        // A stream that has served well has used up nobody's patience.
        if case .open = phase, now - openedAt >= .seconds(10) { reconnection.succeed() }
        phase = .waiting
        counters.failures += 1
        patience = now + reconnection.fail(random: &random)
        if answer != nil || !hasToldOutage { fail("The backend is not there: \(reason).") }
        hasToldOutage = true
        pending = []
        pendingBytes = 0
        batch.removeAll(keepingCapacity: true)
        unwanted = []
        spokenItem = nil
        sharedItems = []
        heardOffset = heardSamples / (Self.rate / 1000)
    }

    private static func words(_ failure: WebSocketHandshakeFailure) -> String {
        switch failure {
        case .refused(401), .refused(403): "it refuses our key"
        case .refused(let status): "it answers with HTTP status \(status)"
        case .http(.timeout): "it does not answer"
        default: "it speaks no WebSocket"
        }
    }

    private static func words(_ end: WebSocketEnd) -> String {
        guard let failure = end.failure else { return "it has ended the connection with code \(end.code)" }
        switch failure {
        case .lost: return "the connection was lost"
        case .silent, .closeTimeout: return "it does not answer"
        default: return "it breaks the WebSocket protocol (\(failure))"
        }
    }
}
