import Audio
import Backend
import Primitives
import RTP
import Realtime

/// One conversation and what stands behind it: the caller's packets and events in, the answer's packets and events out. It knows no network.
///
/// Audio goes one way through it: packets → `ear` (PCM and turns) → `agent` → `mouth` (one packet every 20 ms). For a client without WebRTC
/// `wire` is ear and mouth, and audio travels inside events. What is said *about* the audio goes through `conversation`, which decides; after
/// everything that happens, `settle` carries its decisions out before time goes on.
struct Dialogue: ~Copyable {
    /// How much of an answer waits to be spoken: enough that no turn of the event loop is missed, and no more than a caller's change of mind
    /// should throw away.
    private static let leadMax = 1_000
    private static let framesPerTurn = 50
    /// Per cent of an answer's packets lost, from which on each carries a copy of the one before, and below which it ends.
    private static let lossToRepeat = 5
    private static let lossToStop = 2
    /// Events that may wait before an answer that is said inside events does.
    private static let eventsBeforePause = 64

    private var conversation: Conversation
    private var agent: Agent
    /// Made for the first packet: a client that says nothing costs no decoder.
    private var ear: AudioPipe?
    private let hearsPackets: Bool
    private var mouth: PlayoutQueue?
    private var wire: EventAudio?
    /// The client does not read as fast as the answer is said.
    var isPaused = false
    /// Packets carry copies: they are RED, not Opus.
    private(set) var saysTwice = false
    /// The answer that is being appended to `mouth`.
    private var item: UInt32 = 0
    /// How often a caller's speech was let in over an answer.
    private(set) var interruptions = 0
    private var idle: IdleWatch?
    /// Of the answer that is said inside events: its client plays it for so long.
    private var saidMilliseconds = 0
    /// At 48 kHz: less than a millisecond of what was passed on.
    private var packetSamples = 0

    /// Since when nobody has said anything.
    private struct IdleWatch {
        var since: Instant
        var milliseconds: Int
    }

    /// How a client speaks and hears.
    enum AudioPath {
        case packets
        /// Inside its events.
        case events
        /// Not at all, or past the dialogue.
        case none
    }

    /// - Parameters:
    ///   - opus: how the client likes what it hears.
    ///   - callID: `rtc_…`; without one the backend knows the call by its session's name.
    init(
        session: SessionObject, backend: BackendChoice, audio: AudioPath, opus: OpusWishes = OpusWishes(), callID: String? = nil,
        seed: UInt64, at now: Instant
    ) {
        var random = SeededGenerator(seed: seed)
        hearsPackets = audio == .packets
        agent = Agent(backend, seed: random.next(), at: now)
        conversation = Conversation(
            session: session, abilities: agent.abilities, audio: audio == .events ? .inEvents : .onTrack, seed: random.next())
        agent.setCallID(callID ?? conversation.id)
        if audio == .events { wire = EventAudio(session) }
        agent.perform(.sessionChanged, session: session, at: now)
        guard audio == .packets else { return }
        mouth = PlayoutQueue(encoder: OpusEncoder.Settings(opus), timestamp: UInt32(truncatingIfNeeded: random.next()))
    }
}

extension VoiceActivity.Settings {
    /// nil: turns end when the client says so.
    init?(_ detection: TurnDetection) {
        guard case .server(let vad) = detection else { return nil }
        self.init()
        threshold = vad.threshold
        prefixPaddingMilliseconds = vad.prefixPaddingMilliseconds
        silenceDurationMilliseconds = vad.silenceDurationMilliseconds
    }
}

// MARK: - In

extension Dialogue {
    /// The client can take events now.
    mutating func begin() { conversation.begin() }

    mutating func receive(clientEvent text: RawSpan) { conversation.receive(clientEvent: text) }

    /// Something that the client should know and that nobody has asked for.
    mutating func report(_ error: APIError) { conversation.report(error) }

    /// Takes one packet of the caller's; tells why it was of no use.
    /// - Parameter redundantType: the payload type of the Opus inside, for redundant audio (RFC 2198); nil for plain Opus.
    mutating func receive(_ packet: RawSpan, header: RTPHeader, sequence: Int64, redundantType: UInt8?, at now: Instant)
        -> SessionDropReason?
    {
        if ear == nil, hearsPackets { ear = makeEar() }
        let (timestamp, source) = (header.timestamp, header.ssrc)
        let arrival: JitterArrival?
        if let type = redundantType {
            arrival = ear?.receive(red: packet, opusType: type, sequence: sequence, timestamp: timestamp, source: source, at: now)
        } else {
            arrival = ear?.receive(packet, sequence: sequence, timestamp: timestamp, source: source, at: now)
        }
        switch arrival {
        case .accepted, .restarted, nil: return nil
        case .duplicate, .late: return .audioLate
        case .malformed: return .audioMalformed
        case .overflow: return .backendFull
        }
    }

    private func makeEar() -> AudioPipe {
        var settings = AudioPipe.Settings()
        settings.rate = Agent.rate
        settings.voiceActivity = VoiceActivity.Settings(conversation.session.turnDetection)
        return AudioPipe(settings)
    }

    /// What the client's reports say of what it hears.
    /// - Parameter redundancy: the payload type of Opus, where packets may carry copies of those before; nil where they may not.
    mutating func adapt(percentLost: Int, redundancy: UInt8?) {
        guard mouth != nil else { return }
        mouth?.setExpectedLoss(percentLost)
        // In-band FEC repairs single losses; copies also what it cannot, at twice the rate.
        let wants = redundancy != nil && percentLost >= (saysTwice ? Self.lossToStop : Self.lossToRepeat)
        guard wants != saysTwice else { return }
        saysTwice = wants
        mouth?.setRedundancy(opusType: wants ? redundancy : nil)
    }

    /// How long a lost packet takes to come again; nil where the client does not send any again.
    mutating func setRoundTrip(_ interval: Interval?) { ear?.setRoundTrip(interval) }

    mutating func nextRequest() -> RetransmissionRequest? { ear?.nextRequest() }

    /// Lets everything happen that is due.
    mutating func advance(to now: Instant) {
        ear?.advance(to: now)
        agent.advance(to: now)
        settle(at: now)
        if ear != nil, agent.wantsPackets { passOnPackets(at: now) } else { hearFrames(at: now) }
        settle(at: now)
        watchIdleness(at: now)
    }

    private mutating func hearFrames(at now: Instant) {
        var frame = InlineArray<480, Int16>(repeating: 0)
        // Bounded: a client may send a minute of audio in one event, and others wait for this thread.
        for _ in 0..<Self.framesPerTurn {
            var room = frame.mutableSpan
            guard let isConcealed = nextFrame(into: &room) else { break }
            conversation.noteInput(milliseconds: 20)
            agent.hear(frame.span, isConcealed: isConcealed)
            hearTurns(at: now)
        }
    }

    /// For a backend that decodes by itself.
    private mutating func passOnPackets(at now: Instant) {
        for _ in 0..<Self.framesPerTurn {
            guard let samples = Self.passOnPacket(from: &ear, to: &agent) else { return }
            packetSamples += samples
            conversation.noteInput(milliseconds: packetSamples / 48)
            packetSamples %= 48
            hearTurns(at: now)
        }
    }

    /// The samples of it at 48 kHz, nil when none is due.
    private static func passOnPacket(from ear: inout AudioPipe?, to agent: inout Agent) -> Int? {
        withUnsafeTemporaryAllocation(byteCount: 1_500, alignment: 8) { buffer in
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            let packet = ear?.nextPacket(into: &output)
            let count = output.finalize(for: buffer)
            guard let packet else { return nil }
            agent.hear(packet: UnsafeRawBufferPointer(rebasing: buffer[..<count]).bytes, packet)
            return packet.samples
        }
    }

    /// The next 20 ms of the caller, from wherever they come: whether some of it is concealed loss; nil when there are none.
    private mutating func nextFrame(into frame: inout MutableSpan<Int16>) -> Bool? {
        if ear != nil { return ear?.nextFrame(into: &frame)?.isConcealed }
        return wire?.nextFrame(into: &frame) == true ? false : nil
    }

    private mutating func hearTurns(at now: Instant) {
        while let event = ear?.nextEvent() ?? wire?.nextEvent() {
            idle = nil
            switch event {
            case .speechStarted(let milliseconds):
                agent.speechStarted(milliseconds: milliseconds)
                conversation.hear(.speechStarted(milliseconds: milliseconds))
            case .speechStopped(let milliseconds): conversation.hear(.speechStopped(milliseconds: milliseconds))
            }
            settle(at: now)
        }
    }

    /// `idle_timeout_ms`: the caller has said nothing since the last answer ended.
    private mutating func watchIdleness(at now: Instant) {
        guard let idle, let limit = idleLimit, now >= idle.since + limit else { return }
        self.idle = nil
        conversation.hear(.idleTimeout(startMilliseconds: idle.milliseconds, endMilliseconds: heardMilliseconds))
        settle(at: now)
    }

    private var heardMilliseconds: Int {
        switch ear {
        case .some(let ear): ear.milliseconds
        case .none: wireMilliseconds
        }
    }

    private var wireMilliseconds: Int {
        switch wire {
        case .some(let wire): wire.milliseconds
        case .none: 0
        }
    }

    private var idleLimit: Interval? {
        guard case .server(let vad) = conversation.session.turnDetection, let limit = vad.idleTimeoutMilliseconds else { return nil }
        return .milliseconds(Int64(limit))
    }
}

// MARK: - Wiring

extension Dialogue {
    /// Carries facts and decisions around until nobody has anything to add.
    private mutating func settle(at now: Instant) {
        repeat {
            while let heard = agent.nextHeard() { conversation.hear(heard) }
            while let action = conversation.nextAction() { perform(action, at: now) }
            while let event = agent.nextEvent() { hearAgent(event, at: now) }
            notePlayout(at: now)
        } while conversation.hasActions || speakFrame(at: now)
    }

    private mutating func perform(_ action: ConversationAction, at now: Instant) {
        switch action {
        case .sessionChanged:
            ear?.setVoiceActivity(VoiceActivity.Settings(conversation.session.turnDetection))
            wire?.apply(conversation.session)
        // The agent hears it in frames, as it hears everybody.
        case .appendInput(let bytes): return append(bytes)
        case .startResponse:
            idle = nil
            saidMilliseconds = 0
        case .clearInput: wire?.clear()
        case .clearOutput:
            guard let cleared = mouth?.clear() else { break }
            interruptions += 1
            conversation.playout(.cleared(playedMilliseconds: cleared.item == item ? cleared.playedMilliseconds : 0))
        // What was said until now may still be played, unless the client clears it.
        case .cancelResponse: mouth?.finish(item: item)
        default: break
        }
        agent.perform(action, session: conversation.session, at: now)
    }

    private mutating func append(_ bytes: [UInt8]) {
        guard wire != nil else {
            return conversation.report(
                APIError(
                    code: "invalid_value", message: "This session hears its audio track; 'input_audio_buffer.append' is for WebSockets."))
        }
        guard wire?.append(bytes) == false else { return }
        conversation.report(
            APIError(code: "input_audio_buffer_full", message: "More than 60 s of audio wait to be heard; this event's audio was dropped."))
    }

    private mutating func hearAgent(_ event: BackendEvent, at now: Instant) {
        switch event {
        case .audioStarted: item &+= 1
        case .responseDone, .failed:
            guard wire != nil else { break }
            if let rest = wire?.takeSaid() { conversation.say(audio: rest) }
            // Its client hears the answer in real time, from about now on.
            idle = IdleWatch(since: now + .milliseconds(Int64(saidMilliseconds)), milliseconds: heardMilliseconds)
        default: break
        }
        conversation.receive(event)
        // After the conversation has closed the response: what is left to play may then end as its last sample leaves.
        switch event {
        case .responseDone, .failed: mouth?.finish(item: item)
        default: break
        }
    }

    /// Takes one frame of the answer; false when there is none, or enough waits already.
    private mutating func speakFrame(at now: Instant) -> Bool {
        guard hasRoom else { return false }
        var frame = InlineArray<480, Int16>(repeating: 0)
        var room = frame.mutableSpan
        guard agent.nextFrame(into: &room) else { return false }
        // The events that announce a frame come first: they name the item that it belongs to.
        while let event = agent.nextEvent() { hearAgent(event, at: now) }
        _ = mouth?.append(frame.span, item: item)
        conversation.noteOutput(milliseconds: 20)
        saidMilliseconds += 20
        if let delta = wire?.say(frame.span) { conversation.say(audio: delta) }
        return true
    }

    /// Whether more of an answer may be taken. A text-only call takes all: there it is only events.
    private var hasRoom: Bool {
        switch mouth {
        case .some(let mouth): mouth.queuedMilliseconds < Self.leadMax
        case .none: !isPaused && conversation.eventCount < Self.eventsBeforePause
        }
    }

    private mutating func notePlayout(at now: Instant) {
        while let event = mouth?.nextEvent() {
            switch event {
            case .started(let item):
                idle = nil
                if item == self.item { conversation.playout(.started) }
            case .finished(let item, _):
                if item == self.item { conversation.playout(.drained) }
                idle = IdleWatch(since: now, milliseconds: heardMilliseconds)
            case .underrun: break
            }
        }
    }
}

// MARK: - Out

extension Dialogue {
    /// Appends the packet of the answer that is due.
    mutating func nextPacket(into packet: inout OutputRawSpan, at now: Instant) -> BackendFrame? {
        guard let frame = mouth?.nextFrame(into: &packet, at: now) else { return nil }
        settle(at: now)
        return BackendFrame(timestamp: frame.timestamp, startsTalkspurt: frame.startsTalkspurt)
    }

    var hasEvents: Bool { conversation.hasEvents }

    /// Whether another event of the client should be taken now: not while the answers to earlier ones wait.
    var takesClientEvents: Bool { conversation.eventCount < Self.eventsBeforePause }

    /// An event was longer than the client takes, and did not leave.
    mutating func noteUnsendable(byteCount: Int) {
        // The error itself always fits, unless the client takes next to nothing: then it is not told of that, too.
        guard byteCount > 1_024 else { return }
        conversation.report(
            APIError(
                type: "server_error", code: "event_too_large",
                message: "An event of \(byteCount) bytes was not sent: it is longer than the client's 'a=max-message-size' allows."))
    }

    /// `session.created`, for somebody who comes later than the client.
    mutating func greeting() -> [UInt8] { conversation.greeting() }

    /// The next event for the client, as JSON.
    mutating func nextEvent() -> [UInt8]? { conversation.nextEvent() }

    // The stream of a backend that is elsewhere.
    mutating func nextStreamAction() -> BackendStreamAction? { agent.nextStreamAction() }
    mutating func receive(_ event: BackendStreamEvent, at now: Instant) { agent.receive(event, at: now) }
    mutating func receive(stream bytes: RawSpan, at now: Instant) { agent.receive(stream: bytes, at: now) }
    mutating func writeStream(_ write: (RawSpan) -> Int) { agent.writeStream(write) }
    var wantsStreamInput: Bool { agent.wantsStreamInput }
    var hasStreamOutput: Bool { agent.hasStreamOutput }

    /// Something is left to do at once.
    var hasWork: Bool {
        switch wire {
        case .some(let wire): wire.hasFrame
        case .none: false
        }
    }

    var nextDeadline: Deadline {
        var soonest = agent.nextDeadline
        switch ear {
        case .some(let ear): soonest = ear.nextDeadline
        case .none: break
        }
        switch mouth {
        case .some(let mouth): soonest = .soonest(soonest, mouth.nextDeadline)
        case .none: break
        }
        guard let idle, let limit = idleLimit else { return soonest }
        return .soonest(soonest, Deadline(idle.since + limit, "idle timeout"))
    }
}
