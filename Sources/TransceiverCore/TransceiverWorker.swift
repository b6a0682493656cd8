import DTLS
import Primitives
import Realtime
import Trunk

/// One media worker without its thread: trunk frames and commands in, trunk trains and events out.
///
/// A frame is taken apart into records; each record belongs to one session, which may answer at once. Whatever sessions have to say is
/// gathered into trains by ingress, so that a turn's answers to one relay worker leave in one trip through the kernel.
public struct TransceiverWorker: ~Copyable {
    /// Who this worker is, in the words of the trunk header.
    public struct Identity: Sendable {
        public var cluster: UInt16
        public var transceiver: UInt32
        public var worker: UInt8
        public init(cluster: UInt16, transceiver: UInt32, worker: UInt8) {
            self.cluster = cluster
            self.transceiver = transceiver
            self.worker = worker
        }
    }

    /// Due sessions looked at in one turn: a long stall must not make one turn of everything.
    public static let timersPerTurn = 512

    private let identity: Identity
    private let settings: SessionSettings
    let hasRemoteBackend: Bool
    private var keys: TrunkKeys
    private var sessions: SessionTable
    private var timers: TimerWheel
    private var wires: WireSessions
    /// What sessions want of their backends' streams, in order.
    var streamRequests: [AddressedStreamRequest] = []
    private var trains: TrunkTrains
    /// Slot 0: the datagram being received, which SRTP decrypts in place. Slot 1: the one being sent.
    private var scratch: ByteSlab
    private let dtls: DTLSContext
    private var events: [WorkerEvent] = []
    private var draining = false
    private var pongs: Slab<PendingPong>
    private var pongCount = 0
    /// Where answers to pings lie until they have left.
    private var pongBytes = ByteSlab(count: TransceiverWorker.pongsPerTurn, slotSize: 64, isAligned: false)
    public private(set) var counters = WorkerCounters()

    /// The counters as words, one behind the other in the order of `WorkerCounters`, where they lie.
    public mutating func withCounterWords(_ body: (Span<UInt64>) -> Void) {
        withUnsafeBytes(of: &counters) { body($0.assumingMemoryBound(to: UInt64.self).span) }
    }

    /// Pings answered in one turn; the rest of a flood of them is not.
    public static let pongsPerTurn = 16

    // Not private: the compiler (6.3.1) breaks on `Slab` of a private type in a public struct.
    struct PendingPong {
        var probe = TrunkProbe(sentAt: 0, sequence: 0, state: .serving)
        var header = TrunkHeader(kind: .pong, worker: 0, cluster: 0, transceiver: 0, ingressRelay: 0, ingressWorker: 0)
        var hop = SocketAddress(.v4Any, port: 0)
    }

    /// - Parameters:
    ///   - acceptedKey: frames under this trunk key are taken too.
    ///   - capacity: sessions at most; one more is refused with `tableFull`.
    ///   - trainsMax: trains open at once, at 64 KiB each: ingress workers that talk to us in one turn.
    public init(
        identity: Identity, settings: SessionSettings, key: SipKey, acceptedKey: SipKey? = nil, dtls: consuming DTLSContext, capacity: Int,
        trainsMax: Int = 64, mtu: Int = TrunkFormat.defaultMTU, now: Instant
    ) {
        self.dtls = dtls
        self.identity = identity
        self.settings = settings
        hasRemoteBackend = settings.backend.isRemote
        keys = TrunkKeys(key, accepted: acceptedKey)
        sessions = SessionTable(capacity: capacity)
        timers = TimerWheel(capacity: capacity, now: now)
        wires = WireSessions(backend: settings.backend, capacity: capacity)
        trains = TrunkTrains(capacity: trainsMax, mtu: mtu, key: key)
        scratch = ByteSlab(count: 2, slotSize: Session.datagramMax)
        pongs = Slab(count: Self.pongsPerTurn) { _ in PendingPong() }
    }

    public var sessionCount: Int { sessions.count + wires.count }
}

// MARK: - In

extension TransceiverWorker {
    /// Takes one trunk frame as it came from `hop`. A frame that is not authentic is dropped whole.
    public mutating func receive(_ bytes: RawSpan, from hop: SocketAddress, at now: Instant) {
        counters.framesReceived += 1
        var frame: TrunkFrame
        do {
            frame = try TrunkFrame(parsing: bytes, key: keys.own)
        } catch {
            guard let other = openAccepted(bytes, after: error) else { return }
            frame = other
        }
        let header = frame.header
        guard header.cluster == identity.cluster, header.transceiver == identity.transceiver, header.worker == identity.worker else {
            counters.framesForOthers += 1
            return
        }
        switch header.kind {
        case .clientData:
            while let record = frame.nextRecord() {
                let path = NetworkPath(
                    client: record.client, hop: hop, ingressRelay: header.ingressRelay, ingressWorker: header.ingressWorker)
                receive(record.payload, session: record.session, on: path, at: now)
            }
        case .ping:
            guard let asked = frame.probe, pongCount < pongs.count else { return }
            pongs[pongCount] = PendingPong(probe: asked, header: header, hop: hop)
            pongCount += 1
        case .transceiverData, .confirm, .gone, .pong:
            counters.framesForOthers += 1
        }
    }

    /// A frame that was refused under the key that we send under.
    @_lifetime(copy bytes)
    @inline(never)
    private mutating func openAccepted(_ bytes: RawSpan, after error: TrunkError) -> TrunkFrame? {
        do {
            let frame = try keys.readAccepted(bytes, after: error)
            counters.framesAcceptedKey += 1
            return frame
        } catch {
            counters.framesRefused[Int(error.rawValue)] += 1
            return nil
        }
    }

    private mutating func receive(_ payload: RawSpan, session: UInt32, on path: NetworkPath, at now: Instant) {
        counters.recordsReceived += 1
        guard let place = sessions.place(of: session) else {
            counters.recordsWithoutSession += 1
            tellGone(session, path)
            return
        }
        guard payload.byteCount > 0, payload.byteCount <= Session.datagramMax else {
            counters.recordsOversized += 1
            return
        }
        Self.hand(payload, to: &sessions[place], on: path, through: &scratch, dtls, at: now, &counters)
        drain(place, at: now)
    }

    /// SRTP is decrypted in place, and the frame is not ours to change: the session gets a copy.
    private static func hand(
        _ payload: RawSpan, to session: inout Session, on path: NetworkPath, through scratch: inout ByteSlab,
        _ dtls: borrowing DTLSContext,
        at now: Instant, _ counters: inout WorkerCounters
    ) {
        var datagram = scratch.mutableBytes(0, 0..<payload.byteCount)
        datagram.copy(payload, to: 0)
        session.receive(&datagram, on: path, context: dtls, at: now, counters: &counters)
    }

    public mutating func perform(_ command: WorkerCommand, at now: Instant) {
        switch command {
        case .create(let parameters):
            let id = parameters.id
            let session = Session(parameters, settings: settings, at: now)
            guard let place = sessions.insert(session) else {
                events.append(.ended(session: id, reason: .tableFull))
                return
            }
            counters.sessionsCreated += 1
            drain(place, at: now)
        case .restartICE(let id, let local, let remote):
            guard let place = sessions.place(of: id) else { return }
            sessions[place].restartICE(local: local, remote: remote, context: dtls, at: now)
            drain(place, at: now)
        case .createWire(let id, let object, let seed):
            guard wires.insert(id, object, seed: seed, at: now) else {
                events.append(.ended(session: id, reason: .tableFull))
                return
            }
            counters.sessionsCreated += 1
            counters.sessionsConnected += 1
            drainWire(id, at: now)
        case .clientEvent(let id, let text):
            guard let place = sessions.place(of: id) else {
                wires.receive(text, session: id)
                return drainWire(id, at: now)
            }
            sessions[place].receive(clientEvent: text.span.bytes, context: dtls, at: now)
            drain(place, at: now)
        case .watch(let id, let isWatched):
            guard let place = sessions.place(of: id) else { return }
            sessions[place].watch(isWatched)
            drain(place, at: now)
        case .pause(let id, let isPaused):
            wires.pause(isPaused, session: id)
            drainWire(id, at: now)
        case .end(let id, let reason):
            guard let place = sessions.place(of: id) else {
                guard wires.remove(id) else { return }
                counters.sessionsEnded[Int(reason.rawValue)] += 1
                closeStream(of: id)
                return events.append(.ended(session: id, reason: reason))
            }
            sessions[place].end(reason, at: now)
            drain(place, at: now)
        case .endAll(let reason):
            for place in 0..<sessions.capacity where sessions.isTaken(place) {
                sessions[place].end(reason, at: now)
                drain(place, at: now)
            }
            for id in wires.ids { perform(.end(session: id, reason: reason), at: now) }
        case .drain: draining = true
        case .replaceTrunkKeys(let key, let accepted):
            keys = TrunkKeys(key, accepted: accepted)
            trains.replaceKey(key)
        case .announceEnd(let seconds): announceEnd(seconds, at: now)
        }
    }

    /// An `error` event, which clients of the API know how to show.
    private mutating func announceEnd(_ seconds: Int, at now: Instant) {
        let error = APIError(
            type: "server_error", code: "server_draining",
            message: "This server is about to stop: this call ends in \(seconds) s. Make a new one to go on.")
        for place in 0..<sessions.capacity where sessions.isTaken(place) {
            sessions[place].tell(error, context: dtls, at: now)
            drain(place, at: now)
        }
        for id in wires.ids {
            wires.withDialogue(of: id) { $0.report(error) }
            drainWire(id, at: now)
        }
    }

    private mutating func drainWire(_ id: UInt32, at now: Instant) {
        for _ in 0..<WireSessions.eventsPerTurn {
            guard let text = wires.nextEvent(of: id, at: now) else { return collectStreamRequests(of: id) }
            events.append(.serverEvent(session: id, text: text))
        }
        wires.yield(id, at: now)
        collectStreamRequests(of: id)
    }

    /// Lets due sessions act, `timersPerTurn` at most.
    public mutating func advance(to now: Instant) {
        while let id = wires.nextDue(at: now) { drainWire(id, at: now) }
        var budget = Self.timersPerTurn
        while budget > 0, let place = timers.nextDue(at: now) {
            budget -= 1
            sessions[place].advance(to: now, context: dtls)
            drain(place, at: now)
        }
    }

    /// When `advance` has something to do.
    public mutating func nextDeadline(at now: Instant) -> Instant { min(timers.nextDeadline(at: now), wires.nextDeadline) }
}

// MARK: - Out

extension TransceiverWorker {
    /// What `nextTransmit` will give, for a caller who must know before it writes.
    public func peekTransmit() -> TrunkTransmit? {
        guard pongCount > 0 else { return trains.peek() }
        return TrunkTransmit(destination: pongs[pongCount - 1].hop, segmentSize: 0, frames: 1, records: 1)
    }

    /// Takes the next train for a relay; call after every turn until nil.
    public mutating func nextTransmit(into packet: inout OutputRawSpan) -> TrunkTransmit? {
        guard let departure = nextDeparture() else { return nil }
        packet.append(contentsOf: departure.bytes)
        return departure.transmit
    }

    /// Takes the next train where it lies, or the answer to a ping; call after every turn until nil. Its bytes stay as they are until the
    /// worker is handed something again.
    @_lifetime(&self)
    public mutating func nextDeparture() -> TrunkDeparture? {
        guard pongCount > 0 else { return trains.nextDeparture() }
        pongCount -= 1
        let length = writePong(pongCount)
        let transmit = TrunkTransmit(destination: pongs[pongCount].hop, segmentSize: 0, frames: 1, records: 1)
        return TrunkDeparture(transmit, pongBytes.bytes(pongCount, length))
    }

    /// Does `body` with the dialogue of a session, wherever it is kept; nil when there is none.
    mutating func withDialogue<Result>(of id: UInt32, _ body: (inout Dialogue) -> Result) -> Result? {
        guard let place = sessions.place(of: id) else { return wires.withDialogue(of: id, body) }
        return sessions[place].withDialogue(body)
    }

    /// Lets a session act on what its backend's stream has brought.
    mutating func wake(_ id: UInt32, at now: Instant) {
        guard let place = sessions.place(of: id) else { return drainWire(id, at: now) }
        sessions[place].advance(to: now, context: dtls)
        drain(place, at: now)
    }

    public mutating func nextEvent() -> WorkerEvent? { events.isEmpty ? nil : events.removeFirst() }

    /// Everything that session `place` has to say, then its next deadline.
    private mutating func drain(_ place: Int, at now: Instant) {
        guard sessions.isTaken(place) else { return }
        let id = sessions[place].id
        while let (length, path) = Self.write(&sessions[place], into: &scratch, at: now, &counters) { send(length, session: id, on: path) }
        if sessions[place].hasEvents, !tellEvents(of: place, session: id, at: now) { return }
        collectStreamRequests(of: id)
        timers.arm(place, at: sessions[place].nextDeadline())
    }

    /// The session's next datagram in slot 1: how long it is, and where it goes.
    private static func write(
        _ session: inout Session, into scratch: inout ByteSlab, at now: Instant, _ counters: inout WorkerCounters
    ) -> (Int, NetworkPath)? {
        var destination: NetworkPath?
        let length = scratch.write(1, 0..<Session.datagramMax) { packet in
            destination = session.nextTransmit(into: &packet, at: now, counters: &counters)
        }
        guard let destination else { return nil }
        return (length, destination)
    }

    /// False when the session is no more.
    @inline(never)
    private mutating func tellEvents(of place: Int, session id: UInt32, at now: Instant) -> Bool {
        while let event = sessions[place].nextEvent() {
            guard tellOf(event, of: place, session: id, at: now) else { return false }
        }
        return true
    }

    private mutating func tellOf(_ event: SessionEvent, of place: Int, session id: UInt32, at now: Instant) -> Bool {
        switch event {
        case .connected(let path):
            counters.sessionsConnected += 1
            events.append(.connected(session: id))
            noteIngress(path, of: place, session: id, at: now)
            tell(.confirm, session: id, path)
        case .moved(let path):
            noteIngress(path, of: place, session: id, at: now)
            tell(.confirm, session: id, path)
        case .measured(let path, let roundTrip, let lost):
            let news = PathReport.News.measured(roundTrip: roundTrip, lost: lost)
            events.append(.path(PathReport(session: id, ingressRelay: path.ingressRelay, news: news)))
        case .said(let text): events.append(.serverEvent(session: id, text: text))
        case .ended(let reason):
            counters.sessionsEnded[Int(reason.rawValue)] += 1
            if let path = sessions[place].path { tell(.gone, session: id, path) }
            closeStream(of: id)
            events.append(.ended(session: id, reason: reason))
            sessions.remove(at: place)
            timers.disarm(place)
            return false
        }
        return true
    }

    /// Tells over which relay the client comes, when that is another one than before.
    private mutating func noteIngress(_ path: NetworkPath, of place: Int, session: UInt32, at now: Instant) {
        guard sessions[place].ingressRelay != path.ingressRelay else { return }
        let created = sessions[place].created
        let news = sessions[place].ingressRelay == nil ? PathReport.News.connected(after: now - created) : .moved
        sessions[place].ingressRelay = path.ingressRelay
        events.append(.path(PathReport(session: session, ingressRelay: path.ingressRelay, news: news)))
    }

    private func header(_ kind: TrunkKind, to path: NetworkPath) -> TrunkHeader {
        TrunkHeader(
            kind: kind, worker: path.ingressWorker, cluster: identity.cluster, transceiver: identity.transceiver,
            ingressRelay: path.ingressRelay, ingressWorker: path.ingressWorker)
    }

    private mutating func send(_ length: Int, session: UInt32, on path: NetworkPath) {
        let taken = Self.append(scratch, length, session, header(.transceiverData, to: path), path, &trains)
        if taken { counters.recordsSent += 1 } else { counters.recordsWithoutTrain += 1 }
    }

    private static func append(
        _ scratch: borrowing ByteSlab, _ length: Int, _ session: UInt32, _ header: TrunkHeader, _ path: NetworkPath,
        _ trains: inout TrunkTrains
    ) -> Bool { trains.append(scratch.bytes(1, length), client: path.client, session: session, header: header, to: path.hop) }

    /// Flow feedback: a record without payload.
    private mutating func tell(_ kind: TrunkKind, session: UInt32, _ path: NetworkPath) {
        _ = trains.append(RawSpan(), client: path.client, session: session, header: header(kind, to: path), to: path.hop)
    }

    /// A datagram for a session that is not here: its relay may forget the flow.
    private mutating func tellGone(_ session: UInt32, _ path: NetworkPath) { tell(.gone, session: session, path) }

    /// Writes the answer to ping `number` into its own slot; its length.
    @inline(never)
    private mutating func writePong(_ number: Int) -> Int {
        var answer = pongs[number].probe
        answer.state = draining ? .draining : .serving
        var header = pongs[number].header
        header.kind = .pong
        header.worker = header.ingressWorker
        header.hops = 0
        return Self.write(answer, header, keys, into: &pongBytes, number)
    }

    private static func write(
        _ pong: TrunkProbe, _ header: TrunkHeader, _ keys: borrowing TrunkKeys, into slots: inout ByteSlab, _ number: Int
    ) -> Int {
        var buffer = slots.mutableBytes(number, 0..<slots.slotSize)
        return TrunkWriter.write(pong, header, key: keys.own, to: &buffer)
    }
}
