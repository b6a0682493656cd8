// The transceiver's worker: how the core meets the loop. One pinned thread, one trunk socket that the kernel steers its frames to, one core.

import DTLS
import EventLoop
import Primitives
import Telemetry
import TransceiverCore
import Trunk

/// Sizes of a worker's buffers.
enum MediaLimits {
    /// A receive brings whole trains.
    static let receiveBatch = 16
    static let sendBatch = 32
    static let slot = 65_536
    /// Receives in one turn: a flood must not keep timers waiting.
    static let receivesPerTurn = 4
    static let receiveBuffer = 8 << 20
    /// Trains open at once: ingress workers that one turn answers.
    static let trains = 64
    /// How long a worker lets more trains come where they are many, which is where it answers many relays. One relay gathers by itself.
    static let gather = Interval.microseconds(250)
    /// Commands and events between control thread and worker.
    static let mailbox = 4096
}

/// Everything that a worker's thread starts with.
struct MediaWorkerStart: ~Copyable, Sendable {
    var socket: DatagramSocket
    let engine: EngineKind
    let identity: TransceiverWorker.Identity
    let settings: SessionSettings
    /// nil when the backend is within.
    let route: BackendRoute?
    let trunkKey: SipKey
    let acceptedTrunkKey: SipKey?
    let certificate: DTLSCertificate
    let sessions: Int
    let trunkMTU: Int
    var commands: MailboxReceiver<WorkerCommand>
    var events: MailboxSender<WorkerEvent>
    let waker: Waker
    let counters: PublishedCounters
}

struct MediaWorker: ~Copyable {
    private var engine: DatagramEngine
    private var core: TransceiverWorker
    private let trunk: DatagramHandle
    private var received: ReceiveBatch
    private var outgoing: SendBatch
    private var commands: MailboxReceiver<WorkerCommand>
    private var events: MailboxSender<WorkerEvent>
    /// Events that the control thread had no room for yet.
    private var delayed: [WorkerEvent] = []
    private let waker: Waker
    private let counters: PublishedCounters
    private var trunkIsReady = false
    private var streams: BackendStreams?
    private var vitals = WorkerVitals(measures: true)
    private var published = Instant.zero
    private var gather = AdaptiveGather(longest: MediaLimits.gather)
    /// Datagrams of this turn, a train being one; and whether the socket may have more.
    private var receivedCount = 0
    private var isBehind = false

    private static let publishPause = Interval.milliseconds(10)
    private static let wakerTag: UInt64 = 1
    private static let trunkTag: UInt64 = 2

    /// Runs on the worker's own thread, so that its memory is near its processor.
    init(_ start: consuming MediaWorkerStart) throws {
        let streams = try Self.streams(start.route)
        var engine = try DatagramEngine(start.engine, socketCapacity: 1, descriptorCapacity: start.route == nil ? 4 : start.sessions + 8)
        let received = ReceiveBatch(capacity: MediaLimits.receiveBatch, payloadCapacity: MediaLimits.slot)
        // Trains are sent from where the core keeps them.
        let outgoing = SendBatch(capacity: MediaLimits.sendBatch, slotSize: 64)
        let waker = start.waker
        let counters = start.counters
        let core = TransceiverWorker(
            identity: start.identity, settings: start.settings, key: start.trunkKey, acceptedKey: start.acceptedTrunkKey,
            dtls: try DTLSContext(certificate: start.certificate), capacity: start.sessions, trainsMax: MediaLimits.trains,
            mtu: start.trunkMTU, now: MonotonicClock.now())
        let trunk = try engine.add(start.socket, receivingInto: received, tag: Self.trunkTag)
        _ = try engine.reactor.register(waker.descriptor, for: .readable, tag: Self.wakerTag)
        // Only a receive that is measured asks for its time.
        engine.setTimestamps(false, on: trunk)
        self.core = core
        self.trunk = trunk
        self.streams = streams
        commands = start.commands
        events = start.events
        self.engine = engine
        self.received = received
        self.outgoing = outgoing
        self.waker = waker
        self.counters = counters
    }

    private static func streams(_ route: BackendRoute?) throws -> BackendStreams? {
        guard let route else { return nil }
        return try BackendStreams(route)
    }

    /// Turns until it is told to end and everybody has heard goodbye.
    mutating func run() {
        vitals.publish(on: counters.vitals, at: MonotonicClock.now())
        var until = Instant.zero
        while true {
            engine.wait(until: until)
            let now = MonotonicClock.now()
            takeEvents(now)
            let isLast = performCommands(now)
            receive(now)
            core.advance(to: now)
            serveStreams(now)
            send()
            report()
            until = delayed.isEmpty ? core.nextDeadline(at: now) : now + .milliseconds(10)
            publish(now, asleepUntil: isLast ? .never : until)
            if isLast { return }
            if let pause = gather.pause(after: receivedCount, fromClients: 0, at: now), !isBehind {
                MonotonicClock.sleep(until: min(pause, until))
            }
        }
    }

    /// Shows counters a hundred times a second, and always before a sleep that may be longer: to copy them costs as much as a packet's framing.
    private mutating func publish(_ now: Instant, asleepUntil next: Instant) {
        let soon = now + Self.publishPause
        guard next > soon || now - published >= Self.publishPause else { return }
        published = now
        core.withCounterWords { counters.publish($0) }
        vitals.publish(on: counters.vitals, at: now)
    }
}

extension MediaWorker {
    private mutating func takeEvents(_ now: Instant) {
        while let event = engine.nextEvent() {
            switch event.tag {
            case Self.wakerTag: waker.acknowledge()
            case BackendStreams.firstTag...: streams?.serve(event, &core, &engine.reactor, at: now)
            default: trunkIsReady = true
            }
        }
    }

    /// What sessions want of their backends' streams, until nobody wants anything.
    private mutating func serveStreams(_ now: Instant) {
        while let asked = core.nextStreamRequest() { streams?.perform(asked, &core, &engine.reactor, at: now) }
    }

    /// True after `endAll`, which is the last command.
    private mutating func performCommands(_ now: Instant) -> Bool {
        while let command = commands.next() {
            core.perform(command, at: now)
            if case .endAll = command { return true }
        }
        return false
    }

    private mutating func receive(_ now: Instant) {
        receivedCount = 0
        isBehind = false
        guard trunkIsReady else { return }
        trunkIsReady = false
        for _ in 0..<MediaLimits.receivesPerTurn {
            let measures = vitals.wantsSample(at: now)
            if measures { engine.setTimestamps(true, on: trunk) }
            let count = engine.receive(from: trunk, into: &received)
            if measures { engine.setTimestamps(false, on: trunk) }
            let arrival = measures ? vitals.place(in: count).flatMap { received[$0].arrival } : nil
            if count > 0 { vitals.batches.record(UInt64(count)) }
            receivedCount += count
            for number in 0..<count {
                Self.hand(received, number, to: &core, at: now)
            }
            send()
            if let arrival { vitals.record(from: arrival, to: wallClock()) }
            if count < MediaLimits.receiveBatch { return }
        }
        isBehind = true
    }

    /// The frames of one train.
    private static func hand(_ received: borrowing ReceiveBatch, _ number: Int, to core: inout TransceiverWorker, at now: Instant) {
        let datagram = received[number]
        for segment in 0..<datagram.segmentCount {
            core.receive(received.bytes(number, datagram.segment(segment)), from: datagram.source, at: now)
        }
    }

    /// Sends all that the core has. What the batch borrows is sent before this returns, so before the core is given anything that it could
    /// write over it.
    private mutating func send() {
        while Self.append(&core, &outgoing) {
            if outgoing.isFull { engine.send(&outgoing, on: trunk) }
        }
        if outgoing.count > 0 { engine.send(&outgoing, on: trunk) }
    }

    private static func append(_ core: inout TransceiverWorker, _ outgoing: inout SendBatch) -> Bool {
        guard let train = core.nextDeparture() else { return false }
        return outgoing.append(lending: train.bytes, segmentSize: train.transmit.segmentSize, to: train.transmit.destination)
    }

    /// Tells the control thread what happened, in order.
    private mutating func report() {
        while let event = core.nextEvent() { delayed.append(event) }
        while let event = delayed.first {
            guard events.send(event) == nil else { return }
            delayed.removeFirst()
        }
    }
}
