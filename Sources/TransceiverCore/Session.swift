import Audio
import Backend
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
    /// What the client reports of this path.
    case measured(NetworkPath, roundTrip: Interval?, lost: UInt8)
    case ended(SessionEndReason)
    /// For whoever listens in.
    case said([UInt8])
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
    let created: Instant
    /// The ingress relay that was told last.
    var ingressRelay: UInt16?
    private var ice: ICELiteAgent
    private var dtls: DTLSAssociation
    private var media = Box<MediaTransport>()
    /// Takes the caller's packets as they are; then `dialogue` has no ears.
    private var echo = Box<EchoBackend>()
    private var dialogue: Dialogue
    private let dataChannel: DataChannelParameters?
    private var channel = Box<EventChannel>()
    /// Where handshake datagrams go: before the first nomination, to whoever was validated last.
    private var handshakePath: NetworkPath?
    private let isDTLSClient: Bool
    private var events: [SessionEvent] = []
    private var isEnding = false
    /// When a report of the client is told next: some send many.
    private var nextMeasure = Instant(nanoseconds: 0)
    private static let measureInterval = Interval.seconds(5)
    /// Somebody listens in: every event of the dialogue goes there too.
    private var isWatched = false
    /// When all but media wants to act, as far as is known: datagrams of media only put it off, and are not worth asking everybody.
    private var restDeadline = Instant.zero
    private var restIsKnown = false

    init(_ parameters: SessionParameters, settings: SessionSettings, at now: Instant) {
        id = parameters.id
        self.settings = settings
        audio = parameters.audio
        seed = parameters.seed
        created = now
        var random = SeededGenerator(seed: parameters.seed)
        ice = ICELiteAgent(
            local: parameters.local, remote: parameters.remote, tieBreaker: random.next(), entropy: random.next(),
            silence: settings.keptSilent, at: now)
        isDTLSClient = parameters.dtlsRole == .client
        dtls = DTLSAssociation(role: parameters.dtlsRole, fingerprints: parameters.fingerprints)
        var path = parameters.audio == nil ? Dialogue.AudioPath.none : .packets
        if case .echo(let delay) = settings.backend {
            echo = Box(EchoBackend(delay: delay))
            path = .none
        }
        dialogue = Dialogue(
            session: parameters.session, backend: settings.backend, audio: path, opus: parameters.audio?.opus ?? OpusWishes(),
            callID: parameters.callID, seed: random.next(), at: now)
        dataChannel = parameters.dataChannel
    }

    /// Where the client is reached now.
    var path: NetworkPath? { mutating get { ice.pathInUse ?? handshakePath } }
}

// MARK: - In

extension Session {
    /// Takes one datagram of the client; it is decrypted in place.
    mutating func receive(
        _ datagram: inout MutableRawSpan, on path: NetworkPath, context: borrowing DTLSContext, at now: Instant,
        counters: inout WorkerCounters
    ) {
        guard !isEnding, datagram.byteCount > 0 else { return }
        let isMedia = PacketClass(firstByte: datagram.byte(0)) == .srtp
        if let reason = dispatch(&datagram, on: path, at: now, counters: &counters) { counters.note(reason) }
        // What is echoed is no news for the dialogue; it may be for ICE. Whatever ICE has no event for only puts its deadlines off.
        if isMedia, !echo.isEmpty, !media.isEmpty, !ice.hasEvents, !isEnding { return }
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
            ice.noteReceived(datagram.byteCount, on: path)
            let newer = dtls.newerDatagrams
            guard dtls.receive(datagram.bytes, at: now) == nil else { return .dtlsRefused }
            if dtls.newerDatagrams != newer { ice.noteAuthenticated(on: path, at: now) }
            if !channel.isEmpty { channel.value.receive(from: &dtls, at: now, counters: &counters) }
            return nil
        case .srtp: return receiveMedia(&datagram, on: path, at: now, counters: &counters)
        case nil: return .unknownClass
        }
    }

    /// Only what is fresh and authentic moves the downlink: a STUN check can be replayed by whoever saw one.
    private mutating func receiveMedia(
        _ datagram: inout MutableRawSpan, on path: NetworkPath, at now: Instant, counters: inout WorkerCounters
    ) -> SessionDropReason? {
        guard !media.isEmpty else {
            // The client has its keys, so the last message of its handshake is lost or late. All it says until we have it is lost, too.
            if ice.isValidated(path) { dtls.hurry(at: now) }
            return .mediaBeforeKeys
        }
        ice.noteReceived(datagram.byteCount, on: path)
        let heard = media.value.receive(&datagram, at: now)
        if case .refused(let reason) = heard { return reason }
        // Authentic media: the client has its keys. Where there are no channels, DTLS has nothing left to do.
        if dataChannel == nil { dtls.release() }
        switch heard {
        case .refused(let reason): return reason
        case .ignored(let reason):
            ice.noteAuthenticated(on: path, isNewest: false, at: now)
            return reason
        case .control(let goodbye, let isNewest):
            ice.noteAuthenticated(on: path, isNewest: isNewest, at: now)
            counters.reportsReceived += 1
            hearReport(on: path, goodbye: goodbye, at: now)
        case .audio(let header, let sequence, let isRedundant, let isNewest):
            ice.noteAuthenticated(on: path, isNewest: isNewest, at: now)
            counters.audioPacketsReceived += 1
            let packet = datagram.bytes.bytes(header.payload)
            let redundantType = isRedundant ? audio?.opusPayloadType : nil
            guard !echo.isEmpty else {
                return dialogue.receive(packet, header: header, sequence: sequence, redundantType: redundantType, at: now)
            }
            guard let frame = Self.primary(of: packet, isRedundant: isRedundant) else { return .audioMalformed }
            let taken = echo.value.receive(packet.bytes(frame), timestamp: header.timestamp, startsTalkspurt: header.marker, at: now)
            return taken ? nil : .backendFull
        }
        return nil
    }

    @inline(never)
    private mutating func hearReport(on path: NetworkPath, goodbye: Bool, at now: Instant) {
        dialogue.adapt(percentLost: media.value.percentLost, redundancy: audio?.redPayloadType == nil ? nil : audio?.opusPayloadType)
        if audio?.retransmits == true { dialogue.setRoundTrip(media.value.roundTrip) }
        if now >= nextMeasure, let lost = media.value.lastLoss {
            nextMeasure = now + Self.measureInterval
            events.append(.measured(path, roundTrip: media.value.roundTrip, lost: lost))
        }
        if goodbye { end(.closedByPeer, at: now) }
    }

    /// The newest Opus packet in a payload.
    private static func primary(of payload: RawSpan, isRedundant: Bool) -> Range<Int>? {
        guard isRedundant else { return 0..<payload.byteCount }
        return (try? REDPacket(parsing: payload))?.primary.bytes
    }

    /// The client's offer of an ICE restart: its new credentials, and ours.
    mutating func restartICE(local: ICECredentials, remote: ICECredentials, context: borrowing DTLSContext, at now: Instant) {
        ice.restart(local: local, remote: remote, at: now)
        react(context, at: now)
    }

    /// Somebody listens in from now on, or no longer.
    mutating func watch(_ isWatched: Bool) {
        self.isWatched = isWatched
        if isWatched { events.append(.said(dialogue.greeting())) }
    }

    /// An event of somebody who listens in, as if it were the client's.
    mutating func receive(clientEvent text: RawSpan, context: borrowing DTLSContext, at now: Instant) {
        guard !isEnding else { return }
        dialogue.receive(clientEvent: text)
        react(context, at: now)
    }

    /// Tells the client, and whoever listens in, by an event.
    mutating func tell(_ error: APIError, context: borrowing DTLSContext, at now: Instant) {
        guard !isEnding else { return }
        dialogue.report(error)
        react(context, at: now)
    }

    /// Says goodbye and ends: RTCP BYE, then close_notify. They leave in the very drain that reports the end.
    mutating func end(_ reason: SessionEndReason, at now: Instant) {
        guard !isEnding else { return }
        isEnding = true
        if !media.isEmpty { media.value.sayGoodbye() }
        dtls.close()
        events.append(.ended(reason))
    }

    mutating func advance(to now: Instant, context: borrowing DTLSContext) {
        // An echo is due fifty times a second, and everybody else hardly ever.
        if restIsKnown, now < restDeadline, !echo.isEmpty { return }
        ice.advance(to: now)
        dtls.advance(to: now)
        if !channel.isEmpty { channel.value.advance(to: now) }
        react(context, at: now)
        if media.isEmpty, now >= created + settings.connectTimeout { end(.neverConnected, at: now) }
    }
}

// MARK: - Wiring

extension Session {
    /// Carries the facts of each machine to the next one.
    private mutating func react(_ context: borrowing DTLSContext, at now: Instant) {
        restIsKnown = false
        while let event = ice.nextEvent() {
            switch event {
            case .pathValidated(let path):
                handshakePath = path
                if !dtls.isStarted { dtls.start(context: context, at: now) }
            case .selected(let path):
                handshakePath = path
                if !media.isEmpty { events.append(.moved(path)) }
            case .consentLost: if !media.isEmpty { media.value.pause() }
            case .consentRegained: if !media.isEmpty { media.value.resume() }
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

    /// Events from the client to the dialogue, and from the dialogue to the client.
    private mutating func converse(at now: Instant) {
        repeat {
            // What a client does not read the answers to stays in its channel, whose window then closes.
            while takesClientEvents, let event = channel.value.nextEvent() {
                switch event {
                case .opened: dialogue.begin()
                case .text(let text): dialogue.receive(clientEvent: text.span.bytes)
                case .ignored: break
                }
            }
            let wasFull = !takesClientEvents
            dialogue.advance(to: now)
            sendEvents(at: now)
            guard wasFull else { return }
        } while takesClientEvents
    }

    /// A channel that was closed is read in any case: it may be opened again, and only then can what waits leave.
    private var takesClientEvents: Bool {
        mutating get { !channel.isEmpty && (dialogue.takesClientEvents || !channel.value.isOpen) }
    }

    private mutating func sendEvents(at now: Instant) {
        restIsKnown = false
        while takesEvents, let event = dialogue.nextEvent() {
            if isWatched { events.append(.said(event)) }
            if !channel.isEmpty, !channel.value.send(event) { dialogue.noteUnsendable(byteCount: event.count) }
        }
        if !channel.isEmpty { channel.value.transmit(through: &dtls, at: now) }
    }

    /// Events wait for a channel that may still open, or has no room; without one they are for the watcher, or for nobody.
    private var takesEvents: Bool { mutating get { channel.isEmpty ? dataChannel == nil : channel.value.takesText } }

    private mutating func startMedia(_ keys: DTLSKeyingMaterial, at now: Instant) {
        do {
            media = Box(
                try MediaTransport(keys: keys, engine: settings.srtpEngine, audio: audio, clock: settings.clock, seed: ~seed, at: now))
            // The server's Finished is the last word of a handshake: a client needs nothing after it.
            if dataChannel == nil, isDTLSClient { dtls.release() }
            if let dataChannel {
                channel = Box(EventChannel(dataChannel, isClientOfDTLS: isDTLSClient, at: now))
            }
            if let path {
                ice.noteProved(path, at: now)
                events.append(.connected(path))
            }
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
        while let path = nextDatagram(into: &packet, at: now, counters: &counters) {
            // RFC 7675: without consent nothing but checks, not even DTLS.
            let mayLeave = media.isEmpty || ice.hasConsent || ice.pathInUse == nil
            if mayLeave, let taken = ice.admit(packet.byteCount, to: path) { return taken }
            packet.removeAll()
            counters.datagramsWithheld += 1
        }
        return nil
    }

    private mutating func nextDatagram(into packet: inout OutputRawSpan, at now: Instant, counters: inout WorkerCounters) -> NetworkPath? {
        guard let path else { return nil }
        if dtls.nextTransmit(into: &packet) { return path }
        guard !media.isEmpty else { return nil }
        if media.value.nextReport(into: &packet, at: now) || media.value.nextFeedback(into: &packet, at: now) { return path }
        while echo.isEmpty, let request = dialogue.nextRequest() {
            if media.value.ask(for: request, into: &packet, at: now) { return path }
        }
        if nextAudio(into: &packet, at: now, counters: &counters) { return path }
        // The first or last packet of an answer is news for the client.
        guard dialogue.hasEvents else { return nil }
        sendEvents(at: now)
        return dtls.nextTransmit(into: &packet) ? path : nil
    }

    private mutating func nextAudio(into packet: inout OutputRawSpan, at now: Instant, counters: inout WorkerCounters) -> Bool {
        while true {
            packet.append(zeros: RTPHeader.fixedSize)
            let isEcho = !echo.isEmpty
            guard let frame = isEcho ? echo.value.nextFrame(into: &packet, at: now) : dialogue.nextPacket(into: &packet, at: now) else {
                packet.removeAll()
                return false
            }
            // A frame that may not leave is gone: what the client does not hear now, it must not hear later.
            let isRedundant = !isEcho && dialogue.saysTwice
            if media.value.protect(
                timestamp: frame.timestamp, startsTalkspurt: frame.startsTalkspurt, isRedundant: isRedundant, in: &packet, at: now)
            {
                counters.audioPacketsSent += 1
                return true
            }
        }
    }

    /// Everything that a backend elsewhere needs of its owner.
    mutating func withDialogue<Result>(_ body: (inout Dialogue) -> Result) -> Result { body(&dialogue) }

    var hasEvents: Bool { mutating get { !events.isEmpty } }

    @inline(never)
    mutating func nextEvent() -> SessionEvent? { events.isEmpty ? nil : events.removeFirst() }

    /// When to call `advance`; also when something waits for `nextTransmit`.
    mutating func nextDeadline() -> Instant {
        if !restIsKnown {
            restDeadline = soonestOfRest.instant
            restIsKnown = true
        }
        guard !media.isEmpty else { return restDeadline }
        let soonest = min(restDeadline, media.value.nextDeadline)
        return echo.isEmpty ? soonest : min(soonest, echo.value.nextStamp)
    }

    /// Of everybody but media and echo.
    private var soonestOfRest: Deadline {
        mutating get {
            let soonest = Deadline.soonest(Deadline(ice.nextDeadline, "ICE"), Deadline(dtls.nextDeadline, "DTLS"))
            guard !media.isEmpty else { return .soonest(soonest, Deadline(created + settings.connectTimeout, "connect timeout")) }
            if channel.isEmpty { return .soonest(soonest, dialogue.nextDeadline) }
            return .soonest(.soonest(soonest, dialogue.nextDeadline), Deadline(channel.value.nextDeadline, "SCTP"))
        }
    }
}
