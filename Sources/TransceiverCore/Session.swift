import DTLS
import ICE
import Primitives
import Realtime
import RTP
import STUN

/// What a session tells its worker.
enum SessionEvent {
    /// Keys are there: the call is up, on this path.
    case connected(NetworkPath)
    /// The downlink goes elsewhere from now on.
    case moved(NetworkPath)
    case ended(SessionEndReason)
}

/// One call: wires ICE, DTLS, media and backend, and keeps no protocol of its own.
///
/// A datagram goes down one branch: STUN to `ice`, DTLS to `dtls`, the rest through `media` to `backend`. What the machines have to say
/// comes out in one order: ICE first, because it keeps the path alive, then DTLS, then reports, then audio.
struct Session: ~Copyable {
    /// The longest datagram in either direction.
    static let datagramMax = 2048

    let id: UInt32
    private let settings: SessionSettings
    private let audio: AudioParameters?
    private let seed: UInt64
    private let created: Instant
    private var ice: ICELiteAgent
    private var dtls: DTLSAssociation
    private var media: MediaTransport?
    private var backend: CallBackend
    private let dataChannel: DataChannelParameters?
    private var channel: EventChannel?
    private var conversation: Conversation
    /// Where handshake datagrams go: before the first nomination, to whoever was validated last.
    private var handshakePath: NetworkPath?
    private let isDTLSClient: Bool
    private var events: [SessionEvent] = []
    private var isEnding = false

    init(_ parameters: SessionParameters, settings: SessionSettings, at now: Instant) {
        id = parameters.id
        self.settings = settings
        audio = parameters.audio
        seed = parameters.seed
        created = now
        var random = SeededGenerator(seed: parameters.seed)
        ice = ICELiteAgent(
            local: parameters.local, remote: parameters.remote, tieBreaker: random.next(), entropy: random.next(), at: now)
        isDTLSClient = parameters.dtlsRole == .client
        dtls = DTLSAssociation(role: parameters.dtlsRole, fingerprints: parameters.fingerprints)
        backend = CallBackend(settings.backend)
        dataChannel = parameters.dataChannel
        conversation = Conversation(
            session: parameters.session, abilities: SessionObject.Abilities(semanticVAD: false), seed: random.next())
    }

    /// Where the client is reached now.
    var path: NetworkPath? { ice.selectedPath ?? handshakePath }
}

// MARK: - In

extension Session {
    /// Takes one datagram of the client; it is decrypted in place.
    mutating func receive(
        _ datagram: inout MutableRawSpan, on path: NetworkPath, context: borrowing DTLSContext, at now: Instant,
        counters: inout WorkerCounters
    ) {
        guard !isEnding, datagram.byteCount > 0 else { return }
        if let reason = dispatch(&datagram, on: path, at: now, counters: &counters) { counters.note(reason) }
        react(context, at: now)
    }

    private mutating func dispatch(
        _ datagram: inout MutableRawSpan, on path: NetworkPath, at now: Instant, counters: inout WorkerCounters
    ) -> SessionDropReason? {
        switch PacketClass(firstByte: datagram.byte(0)) {
        case .stun:
            guard let reason = ice.receive(datagram.bytes, on: path, at: now) else { return nil }
            counters.note(reason)
            return .stunRefused
        case .dtls:
            // Before ICE has proved the address there is no association that a forged ClientHello could disturb.
            guard ice.isValidated(path) else { return .dtlsFromUnvalidatedPath }
            handshakePath = path
            guard dtls.receive(datagram.bytes, at: now) == nil else { return .dtlsRefused }
            Self.receiveEvents(&channel, from: &dtls, at: now, counters: &counters)
            return nil
        case .srtp: return receiveMedia(&datagram, on: path, at: now, counters: &counters)
        case nil: return .unknownClass
        }
    }

    /// Only what is fresh and authentic moves the downlink: a STUN check can be replayed by whoever saw one.
    private mutating func receiveMedia(
        _ datagram: inout MutableRawSpan, on path: NetworkPath, at now: Instant, counters: inout WorkerCounters
    ) -> SessionDropReason? {
        guard media != nil else { return .mediaBeforeKeys }
        switch media!.receive(&datagram, at: now) {
        case .refused(let reason): return reason
        case .ignored(let reason):
            ice.noteAuthenticated(on: path, at: now)
            return reason
        case .control(let goodbye):
            ice.noteAuthenticated(on: path, at: now)
            counters.reportsReceived += 1
            if goodbye { end(.closedByPeer, at: now) }
        case .audio(let header):
            ice.noteAuthenticated(on: path, at: now)
            counters.audioPacketsReceived += 1
            let frame = datagram.bytes.bytes(header.payload)
            guard backend.receive(frame, timestamp: header.timestamp, startsTalkspurt: header.marker, at: now) else { return .backendFull }
        }
        return nil
    }

    /// The client's offer of an ICE restart: its new credentials, and ours.
    mutating func restartICE(local: ICECredentials, remote: ICECredentials, context: borrowing DTLSContext, at now: Instant) {
        ice.restart(local: local, remote: remote, at: now)
        react(context, at: now)
    }

    /// Says goodbye and ends: RTCP BYE, then close_notify. They leave in the very drain that reports the end.
    mutating func end(_ reason: SessionEndReason, at now: Instant) {
        guard !isEnding else { return }
        isEnding = true
        media?.sayGoodbye()
        dtls.close()
        events.append(.ended(reason))
    }

    mutating func advance(to now: Instant, context: borrowing DTLSContext) {
        ice.advance(to: now)
        dtls.advance(to: now)
        channel?.advance(to: now)
        react(context, at: now)
        if media == nil, now >= created + settings.connectTimeout { end(.neverConnected, at: now) }
    }
}

// MARK: - Wiring

extension Session {
    /// Carries the facts of each machine to the next one.
    private mutating func react(_ context: borrowing DTLSContext, at now: Instant) {
        while let event = ice.nextEvent() {
            switch event {
            case .pathValidated(let path):
                handshakePath = path
                if !dtls.isStarted { dtls.start(context: context, at: now) }
            case .selected(let path):
                handshakePath = path
                if media != nil { events.append(.moved(path)) }
            case .consentLost: media?.pause()
            case .consentRegained: media?.resume()
            case .silent: end(.consentLost, at: now)
            }
        }
        while let event = dtls.nextEvent() {
            switch event {
            case .established(let keys): startMedia(keys, at: now)
            case .closed: end(.closedByPeer, at: now)
            case .failed: end(.dtlsFailed, at: now)
            }
        }
        converse(at: now)
    }

    /// Events from the client to the conversation, its actions to the backend, and its events to the client.
    private mutating func converse(at now: Instant) {
        while let event = channel?.nextEvent() {
            switch event {
            case .opened: conversation.begin()
            case .text(let text): conversation.receive(clientEvent: text.span.bytes)
            case .ignored: break
            }
        }
        while let action = conversation.nextAction() { backend.perform(action, for: &conversation) }
        while channel?.takesText == true, let event = conversation.nextEvent() { _ = channel?.send(event) }
        Self.transmitEvents(&channel, through: &dtls, at: now)
    }

    private static func receiveEvents(
        _ channel: inout EventChannel?, from dtls: inout DTLSAssociation, at now: Instant, counters: inout WorkerCounters
    ) { channel?.receive(from: &dtls, at: now, counters: &counters) }

    private static func transmitEvents(_ channel: inout EventChannel?, through dtls: inout DTLSAssociation, at now: Instant) {
        channel?.transmit(through: &dtls, at: now)
    }

    private mutating func startMedia(_ keys: DTLSKeyingMaterial, at now: Instant) {
        do {
            media = try MediaTransport(
                keys: keys, engine: settings.srtpEngine, audio: audio, clock: settings.clock, seed: ~seed, at: now)
            if let dataChannel {
                channel = EventChannel(dataChannel, isClientOfDTLS: isDTLSClient, seed: seed &+ 1, at: now)
            }
            if let path { events.append(.connected(path)) }
        } catch {
            end(.dtlsFailed, at: now)
        }
    }
}

// MARK: - Out

extension Session {
    /// Appends the next datagram to `packet`, which is empty and holds `datagramMax`; tells where it goes, nil when there is none.
    mutating func nextTransmit(into packet: inout OutputRawSpan, at now: Instant, counters: inout WorkerCounters) -> NetworkPath? {
        if let path = ice.nextTransmit(into: &packet, at: now) { return path }
        guard let path else { return nil }
        if dtls.nextTransmit(into: &packet) { return path }
        guard media != nil else { return nil }
        if media!.nextReport(into: &packet, at: now) { return path }
        return nextAudio(into: &packet, at: now, counters: &counters) ? path : nil
    }

    private mutating func nextAudio(into packet: inout OutputRawSpan, at now: Instant, counters: inout WorkerCounters) -> Bool {
        while true {
            packet.append(zeros: RTPHeader.fixedSize)
            guard let frame = backend.nextFrame(into: &packet, at: now) else {
                packet.removeAll()
                return false
            }
            // A frame that may not leave is gone: what the client does not hear now, it must not hear later.
            if media!.protect(timestamp: frame.timestamp, startsTalkspurt: frame.startsTalkspurt, in: &packet, at: now) {
                counters.audioPacketsSent += 1
                return true
            }
        }
    }

    mutating func nextEvent() -> SessionEvent? { events.isEmpty ? nil : events.removeFirst() }

    var nextDeadline: Deadline {
        var soonest = Deadline.soonest(Deadline(ice.nextDeadline, "ICE"), Deadline(dtls.nextDeadline, "DTLS"))
        guard let mediaDeadline else { return .soonest(soonest, Deadline(created + settings.connectTimeout, "connect timeout")) }
        soonest = .soonest(soonest, backend.nextDeadline)
        if let channelDeadline { soonest = .soonest(soonest, Deadline(channelDeadline, "SCTP")) }
        return .soonest(soonest, mediaDeadline)
    }

    private var channelDeadline: Instant? {
        switch channel {
        case .some(let channel): channel.nextDeadline
        case .none: nil
        }
    }

    private var mediaDeadline: Deadline? {
        switch media {
        case .some(let media): media.nextDeadline
        case .none: nil
        }
    }
}
