// The relay's worker: how the core meets the loop. One pinned thread, its own sockets, its own core; nothing is shared but the
// published counters and a slot for commands.

import Crypto
import EventLoop
import Primitives
import RelayCore
import Synchronization
import Telemetry
import Trunk

/// What the control thread tells a worker: rare, so a lock is fine, and it is only looked at after a wake-up.
final class WorkerCommands: Sendable {
    struct Pending: Sendable {
        var stop = false
        var settings: RelaySettings?
    }
    let waker: Waker
    let counters = PublishedCounters()
    private let pending = Mutex(Pending())
    private let started = Mutex<FlowAdoption?>(nil)

    init() throws(Errno) { waker = try Waker() }

    /// What the worker found in its memory; nil until it receives.
    var adoption: FlowAdoption? { started.withLock { $0 } }
    func tell(_ adoption: FlowAdoption) { started.withLock { $0 = adoption } }
    /// Has the worker take one turn.
    func poke() { waker.signal() }

    func stop() {
        pending.withLock { $0.stop = true }
        waker.signal()
    }
    func replace(_ settings: RelaySettings) {
        pending.withLock { $0.settings = settings }
        waker.signal()
    }
    func take() -> Pending {
        pending.withLock { pending in
            defer { pending.settings = nil }
            return pending
        }
    }
}

/// Sizes of a worker's buffers; `byteCount` is their sum.
enum WorkerLimits {
    /// Datagrams of one receive, and of one send towards clients.
    static let batch = 64
    /// Public datagrams are at most a network's MTU; longer ones are counted as truncated. No longer than that: the kernel copies as much of
    /// them as fits.
    static let publicSlot = 1536
    /// A receive on the trunk brings whole trains.
    static let trunkBatch = 16
    static let trunkSlot = 65_536
    static let uplinkBatch = 32
    /// Receives of one socket in one turn: a flood on one side must not keep the other waiting.
    static let receivesPerTurn = 4
    /// How long a worker may look at its datagram sockets only, without asking what else is ready, and keep its counters to itself.
    static let glance = Interval.milliseconds(1)
    /// Trains that are passed on during one pause.
    static let trainsPerPause = 8
    static let receiveBuffer = 4 << 20

    static func byteCount(_ configuration: RelayConfiguration, publicSockets: Int) -> Int {
        Relay.byteCount(configuration)
            + publicSockets * batch * publicSlot  // received from clients; everything is sent from where it lies
            + trunkBatch * trunkSlot  // received trains
    }
}

/// Everything a worker's thread starts with.
struct WorkerStart: ~Copyable, Sendable {
    var publicSockets: Slab<DatagramSocket?>
    var trunkSocket: DatagramSocket
    /// For clients over TCP, and how many of them.
    var listeners: Slab<StreamListener?>
    let streams: StreamLimits
    var flows: FlowMemory
    let engine: EngineKind
    let gather: Interval
    let configuration: RelayConfiguration
    let keys: KeyRingBox
    let commands: WorkerCommands
    /// nil without a flow cache.
    var cache: CacheAccess?
}

/// One public socket with what is received from it and what waits to leave through it.
struct PublicSide: ~Copyable {
    let handle: DatagramHandle
    let takesV4: Bool
    let takesV6: Bool
    var received: ReceiveBatch
    var outgoing: SendBatch
    var isReady = false
    /// The kernel's count of datagrams that did not fit into the socket's buffer.
    var queueDropped: UInt32 = 0
}

struct RelayWorker: ~Copyable {
    private var engine: DatagramEngine
    private var relay: Relay
    private var sides: Slab<PublicSide>
    private var streams: StreamSide
    private let trunk: DatagramHandle
    private var frames: ReceiveBatch
    private var uplink: SendBatch
    private var trunkReady = false
    private var trunkQueueDropped: UInt32 = 0
    private var undeliverable: UInt64 = 0
    /// Errors of the trunk socket that were looked into.
    private var troubles: UInt64 = 0
    /// A receive on the trunk was announced and brought nothing: there may be an ICMP message instead.
    private var trunkWasEmpty = false
    private var turns: UInt64 = 0
    private var gather: AdaptiveGather
    /// More has come most likely, during a pause or because it comes fast: looking costs less than asking what has.
    private var goesOn = false
    /// When the worker last asked what is ready, and when it last published.
    private var asked = Instant.zero
    private var published = Instant.zero
    /// Datagrams that the turns before this one have seen: of clients, and of the trunk, where a train is one.
    private var seenOfClients: UInt64 = 0
    private var trunkDatagrams: UInt64 = 0
    private var seenOfTrunk: UInt64 = 0
    /// Whether a socket may have more than this turn has taken.
    private var isBehind = false
    /// Receives that brought something.
    private var publicReceives: UInt64 = 0
    private var trunkReceives: UInt64 = 0
    private var vitals: WorkerVitals
    private let flowCapacity: UInt64
    private var cache: CacheAccess?
    private let hasCache: Bool
    private let commands: WorkerCommands
    private let page: CounterPage
    private let vitalsPage: CounterPage
    private let peersPage: CounterPage
    private let streamsPage: PublishedStreams
    private var peersDue = Instant.zero
    private var peersAreShown = false

    private static let wakerTag: UInt64 = 1000
    private static let trunkTag: UInt64 = 1001

    init(_ start: consuming WorkerStart) throws(Errno) {
        let count = start.publicSockets.count
        var engine = try DatagramEngine(
            start.engine, socketCapacity: count + 1,
            descriptorCapacity: 4 + StreamSide.descriptorCount(start.listeners.count, start.streams))
        var streams = StreamSide(start.listeners, start.streams)
        try streams.start(&engine.reactor)
        var made = Slab<PublicSide?>(count: count) { _ in nil }
        for index in 0..<count {
            guard let socket = start.publicSockets[index].take() else { continue }
            let isV4 = socket.family == .v4
            let isDual = !isV4 && socket.localAddress.ip.isAny
            let batch = ReceiveBatch(capacity: WorkerLimits.batch, payloadCapacity: WorkerLimits.publicSlot)
            let handle = try engine.add(socket, receivingInto: batch, tag: UInt64(index))
            // Only a receive that is measured asks for its time.
            engine.setTimestamps(false, on: handle)
            made[index] = PublicSide(
                handle: handle, takesV4: isV4 || isDual, takesV6: !isV4, received: batch,
                outgoing: SendBatch(capacity: WorkerLimits.batch, slotSize: 64))
        }
        let frames = ReceiveBatch(capacity: WorkerLimits.trunkBatch, payloadCapacity: WorkerLimits.trunkSlot)
        // Trains are sent from where the core keeps them.
        let uplink = SendBatch(capacity: WorkerLimits.uplinkBatch, slotSize: 64)
        let measures = start.trunkSocket.timestamps
        let trunk = try engine.add(start.trunkSocket, receivingInto: frames, tag: Self.trunkTag, endsPauses: true)
        let commands = start.commands
        _ = try engine.reactor.register(commands.waker.descriptor, for: .readable, tag: Self.wakerTag)
        var entropy = Crypto.SystemEntropy()
        let relay = Relay(
            start.configuration, adopting: start.flows, keys: start.keys.ring, hashKey: SipKey(k0: entropy.next(), k1: entropy.next()),
            wall: wallClock(),
            now: MonotonicClock.now())
        if start.cache == nil { hasCache = false } else { hasCache = true }
        flowCapacity = UInt64(start.configuration.flowCapacity)
        engine.setTimestamps(false, on: trunk)
        vitals = WorkerVitals(measures: measures)
        gather = Self.gather(start.gather, start.engine)
        self.engine = engine
        self.sides = Self.all(of: &made)
        self.streams = streams
        self.relay = relay
        self.trunk = trunk
        self.frames = frames
        self.uplink = uplink
        self.commands = commands
        cache = start.cache.take()
        page = commands.counters.page
        vitalsPage = commands.counters.vitals
        peersPage = commands.counters.peers
        streamsPage = commands.counters.streams
    }

    /// Over io_uring trains wait for the end of a pause too, so that it is shorter.
    private static func gather(_ longest: Interval, _ kind: EngineKind) -> AdaptiveGather {
        AdaptiveGather(longest: kind == .ring ? longest * 2 / 3 : longest)
    }

    private static func all(of made: inout Slab<PublicSide?>) -> Slab<PublicSide> {
        Slab<PublicSide>(count: made.count) { index in
            guard let side = made[index].take() else { preconditionFailure("a public socket that was not given") }
            return side
        }
    }

    /// Turns until it is told to stop.
    mutating func run() {
        publish(MonotonicClock.now())
        commands.tell(relay.flows.adoption)
        while true {
            var now = MonotonicClock.now()
            let isGlance = goesOn && now - asked < WorkerLimits.glance
            isBehind = false
            if isGlance {
                for index in 0..<sides.count { sides[index].isReady = true }
            } else {
                let before = now
                trunkReady = false
                // Flows and connections that end wait for the control thread's wake-up.
                engine.wait(until: relay.promptDeadline.instant)
                now = MonotonicClock.now()
                asked = now
                if takeEvents(now) == .stop { return finish(now) }
                if clientsAreReady, let until = gather.awoke(at: now, from: before) {
                    _ = engine.pause(until: until, hearsAlarms: false)
                    now = MonotonicClock.now()
                }
            }
            for index in 0..<sides.count { receiveFromClients(index, now) }
            receiveFromTrunk(now, wasAnnounced: !isGlance)
            if !isGlance {
                hearTroubles(now)
                streams.advance(to: now, &relay, &engine.reactor)
                relay.advance(to: now)
                if hasCache { exchange(now) }
                sendUplink()
            }
            turns &+= 1
            rest(now)
        }
    }

    /// Publishes what was done, and lets more come, if that is worth it.
    private mutating func rest(_ now: Instant) {
        let total = relay.counters.publicDatagrams
        let clients = Int(truncatingIfNeeded: total &- seenOfClients)
        let trains = Int(truncatingIfNeeded: trunkDatagrams &- seenOfTrunk)
        seenOfClients = total
        seenOfTrunk = trunkDatagrams
        let until = gather.pause(after: clients &+ trains, fromClients: clients, at: now)
        goesOn = clients > 1 || clients &+ trains > 0 && (until != nil || isBehind)
        guard goesOn else { return publish(now) }
        if now - published >= WorkerLimits.glance { publish(now) }
        if let until, !isBehind {
            pause(until: until)
        } else {
            // Where nothing came from the trunk, every other turn looks there.
            trunkReady = trains > 0 || turns % 2 == 0
        }
    }

    /// Clients' datagrams wait; a train from the trunk was gathered before it was sent, and goes on at once while there are few.
    private mutating func pause(until: Instant) {
        trunkReady = !(gather.trainsAreFew && engine.hasAlarms)
        var trains = 0
        while engine.pause(until: until, hearsAlarms: !trunkReady) {
            trunkReady = true
            receiveFromTrunk(MonotonicClock.now(), wasAnnounced: true)
            trains &+= 1
            // Too many, or an ICMP message that the next turn hears.
            trunkReady = trains >= WorkerLimits.trainsPerPause || trunkWasEmpty
        }
    }

    private var clientsAreReady: Bool {
        for index in 0..<sides.count where sides[index].isReady { return true }
        return false
    }
}

extension RelayWorker {
    /// Leaves nothing behind that was taken from a socket: the next worker finds all the rest in them.
    private mutating func finish(_ now: Instant) {
        for index in 0..<sides.count {
            let handle = sides[index].handle
            engine.stopReceiving(on: handle)
            while Self.receive(handle, &engine, &sides[index], &relay, UInt8(truncatingIfNeeded: index), now) > 0 { sendUplink() }
        }
        engine.stopReceiving(on: trunk)
        while true {
            trunkReady = true
            let before = trunkReceives
            receiveFromTrunk(now, wasAnnounced: false)
            if trunkReceives == before { break }
        }
        sendUplink()
        publish(now)
    }

    private enum Order { case goOn, stop }

    private mutating func takeEvents(_ now: Instant) -> Order {
        while let event = engine.nextEvent() {
            switch event.tag {
            case Self.wakerTag:
                commands.waker.acknowledge()
                // The control thread wakes us once a second.
                relay.noteDate(wallClock(), at: now)
                let pending = commands.take()
                if let settings = pending.settings { take(settings) }
                if pending.stop { return .stop }
            case Self.trunkTag: trunkReady = true
            case let tag where StreamSide.isTag(tag): takeStreamEvent(event, now)
            default: sides[Int(event.tag)].isReady = true
            }
        }
        return .goOn
    }

    /// A client over TCP has connected, sent something, or takes something again.
    @inline(never)
    private mutating func takeStreamEvent(_ event: ReactorEvent, _ now: Instant) {
        guard let connection = streams.take(event, &engine.reactor, at: now) else { return }
        var count = 0
        while streams.forwardNext(connection, &relay, at: now) {
            count &+= 1
            if count % WorkerLimits.batch == 0 { sendUplink() }
        }
        sendUplink()
    }

    @inline(never)
    private mutating func take(_ settings: RelaySettings) {
        relay.replaceTransceivers(settings.directory)
        relay.replaceRelays(settings.relays, at: MonotonicClock.now())
        relay.replaceKeys(settings.keys.ring, trunkMTU: settings.options.trunkMTU)
        gather = Self.gather(.microseconds(Int64(settings.options.gather)), engine.kind)
    }

    /// Up to a few batches of one public socket, each forwarded before the next is taken.
    @inline(never)
    private mutating func receiveFromClients(_ index: Int, _ now: Instant) {
        guard sides[index].isReady else { return }
        sides[index].isReady = false
        let handle = sides[index].handle
        for _ in 0..<WorkerLimits.receivesPerTurn {
            let measures = vitals.wantsSample(at: now)
            if measures { engine.setTimestamps(true, on: handle) }
            let count = Self.receive(handle, &engine, &sides[index], &relay, UInt8(truncatingIfNeeded: index), now)
            let arrival = measures ? arrival(index, count, handle) : nil
            sendUplink()
            if let arrival { vitals.record(from: arrival, to: wallClock()) }
            if count > 0 { vitals.batches.record(UInt64(count)) }
            if count > 0 { publicReceives &+= 1 }
            if count < WorkerLimits.batch { return }
        }
        isBehind = true
    }

    private static func receive(
        _ handle: DatagramHandle, _ engine: inout DatagramEngine, _ side: inout PublicSide, _ relay: inout Relay, _ index: UInt8,
        _ now: Instant
    ) -> Int {
        let count = engine.receive(from: handle, into: &side.received)
        for number in 0..<count {
            side.queueDropped = max(side.queueDropped, side.received[number].dropped)
            _ = relay.receive(side.received.bytes(number), from: side.received[number].source, on: index, at: now)
        }
        return count
    }

    /// When the kernel got one of the datagrams just received; ends the measurement.
    private mutating func arrival(_ index: Int, _ count: Int, _ handle: DatagramHandle) -> WallClock? {
        engine.setTimestamps(false, on: handle)
        guard let number = vitals.place(in: count) else { return nil }
        return sides[index].received[number].arrival
    }

    /// Sends all that the core has for the trunk. What the batch borrows is sent before this returns, so before the core is given
    /// anything that it could write over it.
    @inline(never)
    private mutating func sendUplink() {
        while Self.append(&relay, &uplink) {
            if uplink.isFull { engine.send(&uplink, on: trunk) }
        }
        engine.send(&uplink, on: trunk)
    }

    private static func append(_ relay: inout Relay, _ uplink: inout SendBatch) -> Bool {
        guard let train = relay.nextDeparture() else { return false }
        return uplink.append(lending: train.bytes, segmentSize: train.transmit.segmentSize, to: train.transmit.destination)
    }
}

// MARK: - ICMP

extension RelayWorker {
    @inline(__always)
    private mutating func hearTroubles(_ now: Instant) {
        let seen = frames.errors &+ uplink.statistics.retried
        if seen != troubles || trunkWasEmpty { hearUnreachable(now) }
    }

    /// Tells the core of transceivers whose machine says that nobody listens there.
    @inline(never)
    private mutating func hearUnreachable(_ now: Instant) {
        troubles = frames.errors &+ uplink.statistics.retried
        trunkWasEmpty = false
        // All of them, or the socket stays readable; few, because kernels send few.
        for _ in 0..<1024 {
            guard let report = engine.nextErrorReport(on: trunk) else { return }
            if report.isRefusal { relay.noteUnreachable(report.destination, at: now) }
        }
        trunkWasEmpty = true
    }
}

// MARK: - The flow cache

extension RelayWorker {
    /// Hears what the cache says, tells it what is new, and asks it. A mailbox that is full loses what is told, and asks nobody.
    @inline(never)
    private mutating func exchange(_ now: Instant) {
        guard var access = cache.take() else { return }
        relay.asksCache = access.status.isOpen.load(ordering: .relaxed)
        while let answer = access.answers.next() {
            switch answer.kind {
            case .found:
                relay.recall(answer.source, ufrag: answer.ufrag, at: now)
                sendUplink()
            case .missed: relay.refuse(answer.source, at: now)
            case .remember, .lookUp, .unanswered: relay.leaveUnanswered(answer.source)
            }
        }
        while let memory = relay.nextMemory() {
            _ = access.requests.send(CacheMessage(kind: .remember, source: memory.source, ufrag: memory.ufrag))
        }
        while let source = relay.nextQuestion() {
            let isRefused = access.requests.send(CacheMessage(kind: .lookUp, source: source, ufrag: .none)) != nil
            if isRefused { relay.leaveUnanswered(source) }
        }
        cache = consume access
    }
}

extension RelayWorker {
    /// - Parameter wasAnnounced: whether an empty receive means that there is an ICMP message instead.
    @inline(never)
    private mutating func receiveFromTrunk(_ now: Instant, wasAnnounced: Bool) {
        guard trunkReady else { return }
        trunkReady = false
        for round in 0..<WorkerLimits.receivesPerTurn {
            let measures = vitals.wantsSample(at: now)
            if measures { engine.setTimestamps(true, on: trunk) }
            let count = engine.receive(from: trunk, into: &frames)
            if measures { engine.setTimestamps(false, on: trunk) }
            let arrival = measures ? vitals.place(in: count).flatMap { frames[$0].arrival } : nil
            for number in 0..<count {
                let datagram = frames[number]
                trunkQueueDropped = max(trunkQueueDropped, datagram.dropped)
                for segment in 0..<datagram.segmentCount {
                    undeliverable &+= Self.deliver(frames, number, segment, &relay, &sides, &streams, &engine, now)
                }
            }
            for index in 0..<sides.count { engine.send(&sides[index].outgoing, on: sides[index].handle) }
            // What passes through leaves before more comes.
            sendUplink()
            if let arrival { vitals.record(from: arrival, to: wallClock()) }
            if count > 0 { trunkReceives &+= 1 } else if round == 0 && wasAnnounced { trunkWasEmpty = true }
            trunkDatagrams &+= UInt64(truncatingIfNeeded: count)
            if count < WorkerLimits.trunkBatch { return }
        }
        isBehind = true
    }

    /// Hands the records of one frame to the sockets that reach their clients; how many no socket could take.
    private static func deliver(
        _ frames: borrowing ReceiveBatch, _ number: Int, _ segment: Int, _ relay: inout Relay, _ sides: inout Slab<PublicSide>,
        _ streams: inout StreamSide, _ engine: inout DatagramEngine, _ now: Instant
    ) -> UInt64 {
        let datagram = frames[number]
        guard var frame = relay.openTrunk(frames.bytes(number, datagram.segment(segment)), from: datagram.source, at: now) else { return 0 }
        var refused: UInt64 = 0
        while let record = relay.nextDelivery(of: &frame, at: now) {
            guard let index = socket(for: record.client, relay, sides) else {
                if record.client.isOverTCP {
                    streams.send(record.payload, to: record.client, &engine.reactor, at: now)
                } else {
                    refused &+= 1
                }
                continue
            }
            if sides[index].outgoing.isFull { engine.send(&sides[index].outgoing, on: sides[index].handle) }
            // Sent from where it was received: `receiveFromTrunk` sends before it receives again.
            if !sides[index].outgoing.append(lending: record.payload, segmentSize: 0, to: record.client) { refused &+= 1 }
        }
        return refused
    }

    /// The only socket of the client's family or, where there are several, the one that its flow came in by.
    private static func socket(for client: SocketAddress, _ relay: borrowing Relay, _ sides: borrowing Slab<PublicSide>) -> Int? {
        var found: Int?
        var isOnly = true
        for index in 0..<sides.count where reaches(sides[index], client) {
            if found == nil { found = index } else { isOnly = false }
        }
        if isOnly { return found }
        guard let known = relay.publicSocket(for: client), Int(known) < sides.count else { return found }
        return Int(known)
    }

    private static func reaches(_ side: borrowing PublicSide, _ client: SocketAddress) -> Bool {
        client.ip.isV4 ? side.takesV4 : side.takesV6 && !client.isOverTCP
    }

    @inline(never)
    private mutating func publish(_ now: Instant) {
        published = now
        var words = RelayWords(relay.counters)
        words[.flows] = UInt64(relay.flows.count)
        words[.flowsWithTransceiver] = UInt64(relay.flows.confirmedCount)
        words[.flowCapacity] = flowCapacity
        words[.flowsAdopted] = UInt64(relay.flows.adoption.adopted)
        words[.flowsTorn] = UInt64(relay.flows.adoption.torn)
        var publicDropped: UInt64 = 0
        var retried = uplink.statistics.retried
        var truncated = frames.truncated
        var errors = frames.errors
        var queue: UInt64 = 0
        for index in 0..<sides.count {
            publicDropped &+= sides[index].outgoing.statistics.dropped
            retried &+= sides[index].outgoing.statistics.retried
            truncated &+= sides[index].received.truncated
            errors &+= sides[index].received.errors
            queue &+= UInt64(sides[index].queueDropped)
        }
        words[.flowsDisconnected] = relay.counters.flowsDisconnected
        words[.publicSendDropped] = publicDropped
        words[.trunkSendDropped] = uplink.statistics.dropped
        words[.sendRetried] = retried
        words[.receiveTruncated] = truncated
        words[.receiveErrors] = errors
        words[.publicQueueDropped] = queue
        words[.trunkQueueDropped] = UInt64(trunkQueueDropped)
        words[.undeliverable] = undeliverable
        let transceivers = relay.watchedTransceivers
        words[.transceiversServing] = UInt64(transceivers.serving)
        words[.transceiversDraining] = UInt64(transceivers.draining)
        words[.transceiversLost] = UInt64(transceivers.lost)
        words[.turns] = turns
        words[.publicReceives] = publicReceives
        words[.trunkReceives] = trunkReceives
        words.publish(on: page)
        streams.publish(on: streamsPage)
        vitals.publish(on: vitalsPage, at: now)
        guard relay.peerCount + relay.watchedCount > 0 || peersAreShown, now >= peersDue else { return }
        peersAreShown = relay.peerCount + relay.watchedCount > 0
        peersDue = now + PublishedPeers.interval
        PublishedPeers.publish(relay, on: peersPage)
    }
}
