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
        var directory: TransceiverDirectory?
    }
    let waker: Waker
    let counters = PublishedCounters()
    private let pending = Mutex(Pending())

    init() throws(Errno) { waker = try Waker() }

    func stop() {
        pending.withLock { $0.stop = true }
        waker.signal()
    }
    func replaceTransceivers(_ directory: TransceiverDirectory) {
        pending.withLock { $0.directory = directory }
        waker.signal()
    }
    func take() -> Pending {
        pending.withLock { pending in
            defer { pending.directory = nil }
            return pending
        }
    }
}

/// Sizes of a worker's buffers; `byteCount` is their sum.
enum WorkerLimits {
    /// Datagrams of one receive, and of one send towards clients.
    static let batch = 64
    /// Public datagrams are at most a network's MTU; longer ones are counted as truncated.
    static let publicSlot = 2048
    /// A receive on the trunk brings whole trains.
    static let trunkBatch = 16
    static let trunkSlot = 65_536
    static let uplinkBatch = 32
    /// Receives of one socket in one turn: a flood on one side must not keep the other waiting.
    static let receivesPerTurn = 4
    static let receiveBuffer = 4 << 20

    static func byteCount(_ configuration: RelayConfiguration, publicSockets: Int) -> Int {
        Relay.byteCount(configuration)
            + publicSockets * 2 * batch * publicSlot  // received from and sent to clients
            + trunkBatch * trunkSlot  // received trains
            + uplinkBatch * 65_536  // trains on their way into the kernel
    }
}

/// Everything a worker's thread starts with.
struct WorkerStart: ~Copyable, Sendable {
    var publicSockets: Slab<DatagramSocket?>
    var trunkSocket: DatagramSocket
    let engine: EngineKind
    let configuration: RelayConfiguration
    let keys: KeyRingBox
    let commands: WorkerCommands
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
    private var sides: Slab<PublicSide?>
    private let trunk: DatagramHandle
    private var frames: ReceiveBatch
    private var uplink: SendBatch
    private var trunkReady = false
    private var trunkQueueDropped: UInt32 = 0
    private var undeliverable: UInt64 = 0
    private var turns: UInt64 = 0
    /// Receives that brought something.
    private var publicReceives: UInt64 = 0
    private var trunkReceives: UInt64 = 0
    private var vitals = WorkerVitals()
    private let flowCapacity: UInt64
    private let commands: WorkerCommands

    private static let wakerTag: UInt64 = 1000
    private static let trunkTag: UInt64 = 1001

    init(_ start: consuming WorkerStart) throws(Errno) {
        let count = start.publicSockets.count
        var engine = try DatagramEngine(start.engine, socketCapacity: count + 1, descriptorCapacity: 4)
        var sides = Slab<PublicSide?>(count: count) { _ in nil }
        for index in 0..<count {
            guard let socket = start.publicSockets[index].take() else { continue }
            let isV4 = socket.family == .v4
            let isDual = !isV4 && socket.localAddress.ip.isAny
            let batch = ReceiveBatch(capacity: WorkerLimits.batch, payloadCapacity: WorkerLimits.publicSlot)
            let handle = try engine.add(socket, receivingInto: batch, tag: UInt64(index))
            sides[index] = PublicSide(
                handle: handle, takesV4: isV4 || isDual, takesV6: !isV4, received: batch,
                outgoing: SendBatch(capacity: WorkerLimits.batch, slotSize: WorkerLimits.publicSlot))
        }
        let frames = ReceiveBatch(capacity: WorkerLimits.trunkBatch, payloadCapacity: WorkerLimits.trunkSlot)
        let uplink = SendBatch(capacity: WorkerLimits.uplinkBatch, slotSize: 65_536)
        let trunk = try engine.add(start.trunkSocket, receivingInto: frames, tag: Self.trunkTag)
        let commands = start.commands
        _ = try engine.reactor.register(commands.waker.descriptor, for: .readable, tag: Self.wakerTag)
        var entropy = Crypto.SystemEntropy()
        let relay = Relay(
            start.configuration, keys: start.keys.ring, hashKey: SipKey(k0: entropy.next(), k1: entropy.next()), wall: wallClock(),
            now: MonotonicClock.now())
        flowCapacity = UInt64(start.configuration.flowCapacity)
        self.engine = engine
        self.sides = sides
        self.relay = relay
        self.trunk = trunk
        self.frames = frames
        self.uplink = uplink
        self.commands = commands
    }

    /// Turns until it is told to stop.
    mutating func run() {
        publish(MonotonicClock.now())
        while true {
            engine.wait(until: relay.nextDeadline.instant)
            let now = MonotonicClock.now()
            if takeEvents() == .stop { return }
            for index in 0..<sides.count { receiveFromClients(index, now) }
            receiveFromTrunk(now)
            relay.advance(to: now)
            sendUplink()
            turns &+= 1
            publish(now)
        }
    }
}

extension RelayWorker {
    private enum Order { case goOn, stop }

    private mutating func takeEvents() -> Order {
        while let event = engine.nextEvent() {
            switch event.tag {
            case Self.wakerTag:
                commands.waker.acknowledge()
                let pending = commands.take()
                if let directory = pending.directory { relay.replaceTransceivers(directory) }
                if pending.stop { return .stop }
            case Self.trunkTag: trunkReady = true
            default: sides[Int(event.tag)]?.isReady = true
            }
        }
        return .goOn
    }

    /// Up to a few batches of one public socket, each forwarded before the next is taken.
    private mutating func receiveFromClients(_ index: Int, _ now: Instant) {
        guard sides[index]?.isReady == true, let handle = sides[index]?.handle else { return }
        sides[index]?.isReady = false
        for _ in 0..<WorkerLimits.receivesPerTurn {
            let count = Self.receive(handle, &engine, &sides[index], &relay, UInt8(truncatingIfNeeded: index), now)
            let arrival = sample(index, count, now)
            sendUplink()
            if let arrival { vitals.record(from: arrival, to: wallClock()) }
            if count > 0 { publicReceives &+= 1 }
            if count < WorkerLimits.batch { return }
        }
    }

    private static func receive(
        _ handle: DatagramHandle, _ engine: inout DatagramEngine, _ side: inout PublicSide?, _ relay: inout Relay, _ index: UInt8,
        _ now: Instant
    ) -> Int {
        guard var taken = side.take() else { return 0 }
        let count = engine.receive(from: handle, into: &taken.received)
        for number in 0..<count {
            let datagram = taken.received[number]
            taken.queueDropped = max(taken.queueDropped, datagram.dropped)
            _ = relay.receive(taken.received.bytes(number), from: datagram.source, on: index, at: now)
        }
        side = consume taken
        return count
    }

    /// When the kernel got one of the datagrams just received, if this batch is to be measured.
    private mutating func sample(_ index: Int, _ count: Int, _ now: Instant) -> WallClock? {
        guard count > 0 else { return nil }
        vitals.batches.record(UInt64(count))
        guard let number = vitals.sample(of: count, at: now) else { return nil }
        return Self.arrival(sides[index], number)
    }

    private static func arrival(_ side: borrowing PublicSide?, _ number: Int) -> WallClock? {
        switch side {
        case .some(let side): side.received[number].arrival
        case .none: nil
        }
    }

    private mutating func sendUplink() {
        while let next = relay.peekTransmit() {
            if uplink.isFull { engine.send(&uplink, on: trunk) }
            Self.append(next, &relay, &uplink)
        }
        engine.send(&uplink, on: trunk)
    }

    private static func append(_ next: TrunkTransmit, _ relay: inout Relay, _ uplink: inout SendBatch) {
        let segment = next.segmentSize == 0 ? TrunkFormat.datagramMax : next.segmentSize
        _ = uplink.appendTrain(to: next.destination, segmentSize: segment) { _ = relay.nextTransmit(into: &$0) }
    }
}

extension RelayWorker {
    private mutating func receiveFromTrunk(_ now: Instant) {
        guard trunkReady else { return }
        trunkReady = false
        for _ in 0..<WorkerLimits.receivesPerTurn {
            let count = engine.receive(from: trunk, into: &frames)
            let arrival = vitals.sample(of: count, at: now).flatMap { frames[$0].arrival }
            for number in 0..<count {
                let datagram = frames[number]
                trunkQueueDropped = max(trunkQueueDropped, datagram.dropped)
                for segment in 0..<datagram.segmentCount {
                    undeliverable &+= Self.deliver(frames, number, segment, &relay, &sides, &engine, now)
                }
            }
            for index in 0..<sides.count { Self.send(&sides[index], &engine) }
            if let arrival { vitals.record(from: arrival, to: wallClock()) }
            if count > 0 { trunkReceives &+= 1 }
            if count < WorkerLimits.trunkBatch { return }
        }
    }

    /// Hands the records of one frame to the sockets that reach their clients; how many no socket could take.
    private static func deliver(
        _ frames: borrowing ReceiveBatch, _ number: Int, _ segment: Int, _ relay: inout Relay, _ sides: inout Slab<PublicSide?>,
        _ engine: inout DatagramEngine, _ now: Instant
    ) -> UInt64 {
        let datagram = frames[number]
        guard var frame = relay.openTrunk(frames.bytes(number, datagram.segment(segment)), from: datagram.source, at: now) else { return 0 }
        var refused: UInt64 = 0
        while let record = relay.nextDelivery(of: &frame, at: now) {
            guard let index = socket(for: record.client, relay, sides) else {
                refused &+= 1
                continue
            }
            if sides[index]?.outgoing.isFull == true { send(&sides[index], &engine) }
            if sides[index]?.outgoing.append(record.payload, to: record.client) != true { refused &+= 1 }
        }
        return refused
    }

    /// The only socket of the client's family or, where there are several, the one that its flow came in by.
    private static func socket(for client: SocketAddress, _ relay: borrowing Relay, _ sides: borrowing Slab<PublicSide?>) -> Int? {
        var found: Int?
        var isOnly = true
        for index in 0..<sides.count where reaches(sides[index], client) {
            if found == nil { found = index } else { isOnly = false }
        }
        if isOnly { return found }
        guard let known = relay.publicSocket(for: client), Int(known) < sides.count else { return found }
        return Int(known)
    }

    private static func reaches(_ side: borrowing PublicSide?, _ client: SocketAddress) -> Bool {
        switch side {
        case .some(let side): client.ip.isV4 ? side.takesV4 : side.takesV6
        case .none: false
        }
    }

    private static func send(_ side: inout PublicSide?, _ engine: inout DatagramEngine) {
        guard var taken = side.take() else { return }
        engine.send(&taken.outgoing, on: taken.handle)
        side = consume taken
    }

    private mutating func publish(_ now: Instant) {
        var words = RelayWords(relay.counters)
        words[.flows] = UInt64(relay.flows.count)
        words[.flowsWithTransceiver] = UInt64(relay.flows.confirmedCount)
        words[.flowCapacity] = flowCapacity
        var publicDropped: UInt64 = 0
        var retried = uplink.statistics.retried
        var truncated = frames.truncated
        var errors = frames.errors
        var queue: UInt64 = 0
        for index in 0..<sides.count {
            publicDropped &+= sides[index]?.outgoing.statistics.dropped ?? 0
            retried &+= sides[index]?.outgoing.statistics.retried ?? 0
            truncated &+= sides[index]?.received.truncated ?? 0
            errors &+= sides[index]?.received.errors ?? 0
            queue &+= UInt64(sides[index]?.queueDropped ?? 0)
        }
        words[.publicSendDropped] = publicDropped
        words[.trunkSendDropped] = uplink.statistics.dropped
        words[.sendRetried] = retried
        words[.receiveTruncated] = truncated
        words[.receiveErrors] = errors
        words[.publicQueueDropped] = queue
        words[.trunkQueueDropped] = UInt64(trunkQueueDropped)
        words[.undeliverable] = undeliverable
        words[.turns] = turns
        words[.publicReceives] = publicReceives
        words[.trunkReceives] = trunkReceives
        words.publish(on: commands.counters.page)
        vitals.publish(on: commands.counters.vitals, at: now)
    }
}
