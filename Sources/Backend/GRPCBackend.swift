// `grpc://…` and `grpcs://…`: a backend that offers `swiftlet.v1.VoiceBackend` (Examples/backend/swiftlet.proto), as a machine without I/O
// over the connection's bytes. TLS, resolver and socket are its owner's.
//
// One connection and one `Converse` per call. Turns are found here, not there. Responses have names of ours, so that what a backend still
// says about one that nobody waits for is told apart from the next one.
//
//     HTTP2Stream.swift        the connection, by nghttp2
//     GRPCMessages.swift       the schema's messages, over Protobuf.swift
//     GRPCBackend.swift        the stream: opening, losing and opening it again
//     GRPCBackendSpeech.swift  what goes to the backend: audio and requests
//     GRPCBackendEvents.swift  what it says

import Audio
import Primitives
import Realtime

public struct GRPCBackend: ~Copyable {
    /// Samples a second, both ways. Backends may have another rate; then it is turned into theirs here.
    public static let rate = 24_000
    /// The longest message of a backend. The window is larger, so that each of them can arrive whole.
    public static let messageMax = 1 << 20

    enum Phase {
        /// No stream; the next attempt is at `patience`.
        case waiting
        /// The owner opens one.
        case opening
        /// `http` is there, and the backend has not said that it is ready.
        case greeting
        case open
    }

    let settings: GRPCBackendSettings
    var random: any RandomNumberGenerator & Sendable
    var phase = Phase.waiting
    var http: HTTP2Stream?
    var actions: [BackendStreamAction] = []
    var reconnection: Reconnection
    /// When the next attempt is made, or the one under way is given up.
    var patience: Instant
    var openedAt = Instant.zero
    /// The last time that anybody told; for verbs that are not about time.
    var now: Instant
    /// The client has been told of the present outage.
    var hasToldOutage = false
    /// A stream of this call has been open before.
    var isResumed = false

    var callID = ""
    var session = GRPCSession()
    /// What is said before the backend is ready.
    var pending: [GRPCClientMessage] = []
    var pendingBytes = 0
    var toBackend: Resampler?
    var fromBackend: Resampler?
    /// Of the open stream.
    var inputRate = GRPCBackend.rate
    /// The backend decodes by itself.
    var takesOpus = false
    var outputRate = GRPCBackend.rate
    /// Samples of the stream at the backend's rate, and those of them at the end that were thrown away and not yet told.
    var position: UInt64 = 0
    var lost: UInt64 = 0
    /// Samples of the call, and those before the present stream.
    var heardSamples = 0
    var heardBefore = 0

    var answer: GRPCAnswer?
    var responses = 0
    /// The response whose audio was said last.
    var spokenResponse = ""
    var samples = SampleQueue()
    var events: [BackendEvent] = []
    var eventNumber = 0

    var lastInput = Instant.zero
    /// The server has sent messages since our last ping: another one is no nuisance.
    var mayPing = true
    var pingedAt: Instant?
    var pongs = 0
    public internal(set) var counters = GRPCBackendCounters()

    /// - Parameter random: for the jitter of reconnecting.
    public init(_ settings: GRPCBackendSettings, random: any RandomNumberGenerator & Sendable, at now: Instant) {
        self.settings = settings
        self.random = random
        self.now = now
        patience = now
        reconnection = Reconnection(
            first: settings.backoff.first, last: settings.backoff.last, breakerFailures: settings.breakerFailures)
    }

    /// Turns are found here.
    public static let abilities = SessionObject.Abilities(semanticVAD: false)

    /// How the backend is told which call this is. Before the first `advance`.
    public mutating func setCallID(_ id: String) { callID = id }
}

/// A response between the request for it and its last sample.
struct GRPCAnswer {
    /// Ours.
    var id: String
    /// When it was asked for, or last gave a sign of life.
    var sign: Instant
    var isAcknowledged = false
    var hasToldSlow = false
    var hasAudio = false
    /// Everything has come; its end is told when everything has been taken.
    var isComplete = false
}

// MARK: - The stream

extension GRPCBackend {
    public mutating func nextStreamAction() -> BackendStreamAction? { actions.isEmpty ? nil : actions.removeFirst() }

    /// The stream is open; with TLS, it is HTTP/2 that was agreed on.
    public mutating func streamOpened(at now: Instant) {
        self.now = now
        guard case .opening = phase else { return }
        phase = .greeting
        lastInput = now
        mayPing = true
        pingedAt = nil
        pongs = 0
        http = HTTP2Stream(headers: settings.headers)
        transmit(.sessionStart(callID: callID, session, isResumed: isResumed))
    }

    /// The stream could not be opened, or has broken. `reason` ends up in what the client is told: no secrets, no addresses.
    public mutating func streamFailed(_ reason: String, at now: Instant) {
        self.now = now
        lose(reason, closes: false)
    }

    /// Takes bytes of the stream.
    public mutating func receive(_ bytes: RawSpan, at now: Instant) {
        self.now = now
        lastInput = now
        http?.receive(bytes)
        proceed()
    }

    /// The stream has ended.
    public mutating func receiveEnd(at now: Instant) {
        self.now = now
        proceed()
        lose("the connection was lost", closes: true)
    }

    /// True while there is a stream: HTTP/2's window is what slows down a backend that talks too much.
    public var wantsInput: Bool { isConnected }

    private var isConnected: Bool {
        switch phase {
        case .greeting, .open: true
        case .waiting, .opening: false
        }
    }

    var hasRoom: Bool { samples.count < settings.answerSeconds * Self.rate && events.count < 256 }

    /// Whether the backend can be talked to now.
    public var isOpen: Bool { if case .open = phase { true } else { false } }

    /// How many bytes wait to be written to the stream.
    public var outputCount: Int {
        switch http {
        case .some(let http): http.outputCount
        case .none: 0
        }
    }

    /// Bytes to write to the stream.
    public func withOutput<Result>(_ body: (RawSpan) -> Result) -> Result {
        switch http {
        case .some(let http): http.withOutput(body)
        case .none: body(RawSpan())
        }
    }

    /// The stream took `count` bytes of the output.
    public mutating func outputSent(_ count: Int) { http?.outputSent(count) }

    public mutating func advance(to now: Instant) {
        self.now = now
        switch phase {
        case .waiting: if patience <= now { begin() }
        case .opening: if patience <= now { lose("it cannot be reached", closes: true) }
        case .greeting:
            proceed()
            if case .greeting = phase, patience <= now { lose("it does not answer", closes: true) }
        case .open:
            proceed()
            watchConnection()
        }
        watchAnswer()
    }

    public var nextDeadline: Deadline {
        let stream: Deadline =
            switch phase {
            case .waiting: Deadline(patience, "backend retry")
            case .opening: Deadline(patience, "backend connect")
            case .greeting: Deadline(patience, "backend greeting")
            case .open: Deadline(pingTime, "backend ping")
            }
        return .soonest(stream, answerDeadline)
    }

    private mutating func begin() {
        phase = .opening
        patience = now + settings.connectTime
        actions.append(.open)
    }

    /// The backend is ready: what was said before it was goes out.
    mutating func greet(inputRate: Int, outputRate: Int, takesOpus: Bool) {
        guard case .greeting = phase else { return }
        phase = .open
        counters.connections += 1
        openedAt = now
        hasToldOutage = false
        isResumed = true
        self.inputRate = inputRate
        self.takesOpus = takesOpus
        self.outputRate = outputRate
        toBackend = inputRate == Self.rate ? nil : Resampler(from: Self.rate, to: inputRate)
        fromBackend = outputRate == Self.rate ? nil : Resampler(from: outputRate, to: Self.rate)
        sendPending()
    }

    /// No stream any more: the open response has failed, the client is told once, and another attempt comes later.
    mutating func lose(_ reason: String, closes: Bool) {
        if case .waiting = phase { return }
        // A stream that has served well has used up nobody's patience.
        if isOpen, now - openedAt >= .seconds(10) { reconnection.succeed() }
        leave(closes: closes)
        counters.failures += 1
        patience = now + reconnection.fail(random: &random)
        if answer != nil || !hasToldOutage { fail("The backend is not there: \(reason).") }
        hasToldOutage = true
    }

    /// The server wants to be left, and nothing keeps us: another stream at once, or nearly, for the server asks everybody.
    mutating func depart() {
        leave(closes: true)
        counters.departures += 1
        patience = now + Interval(nanoseconds: Int64.random(in: 0...settings.backoff.first.nanoseconds, using: &random))
    }

    private mutating func leave(closes: Bool) {
        if closes { actions.append(.close) }
        http = nil
        phase = .waiting
        pending = []
        pendingBytes = 0
        position = 0
        lost = 0
        takesOpus = false
        toBackend = nil
        fromBackend = nil
        spokenResponse = ""
        heardBefore = heardSamples
    }
}

// MARK: - Whether it lives

extension GRPCBackend {
    private var pingTime: Instant {
        if let pingedAt { return pingedAt + settings.pongTime }
        return lastInput + (mayPing ? settings.silenceTime : settings.idlePingTime)
    }

    private mutating func watchConnection() {
        guard case .open = phase, let answered = http?.pongs else { return }
        if answered > pongs || pingedAt.map({ lastInput > $0 }) == true { pingedAt = nil }
        pongs = answered
        guard pingTime <= now else { return }
        guard pingedAt == nil else { return lose("it does not answer", closes: true) }
        pingedAt = now
        mayPing = false
        http?.ping()
    }
}
