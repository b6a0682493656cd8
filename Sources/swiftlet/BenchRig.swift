import CBench
import EventLoop
import Primitives
import RelayCore
import Trunk

/// Clients, the two sockets of a relay worker, and a transceiver's socket, all on loopback.
struct BenchRig: ~Copyable {
    private var engine: DatagramEngine
    private let publicSide: DatagramHandle
    private let trunk: DatagramHandle
    private let transceiver: DatagramHandle
    private let publicAddress: SocketAddress
    private let trunkAddress: SocketAddress

    // As in a relay's worker.
    private var relay: Relay
    private var received: ReceiveBatch
    private var frames: ReceiveBatch
    private var uplink = SendBatch(capacity: 32, slotSize: 64)
    private var downlink = SendBatch(capacity: BenchPlan.batch, slotSize: 2048)

    // The world around it.
    private var maker: FlowMaker
    private var clientEngines: Slab<DatagramEngine?>
    private let clients: [DatagramHandle]
    private let addresses: [SocketAddress]
    private var arrived: ReceiveBatch
    private var trains: ReceiveBatch
    private var outgoing = SendBatch(capacity: BenchPlan.batch, slotSize: 65_536)
    private let packet: [UInt8]
    private var next = 0
    private var expected = 0
    private let bareUp: BareLoop
    private let bareDown: BareLoop

    /// Whether trains leave through the kernel at once.
    let segments: Bool
    /// Datagrams that a contestant has sent and nobody has received.
    private(set) var lost = 0

    private static let buffer = DatagramSocket.Options(receiveBufferSize: 4 << 20, sendBufferSize: 4 << 20)
    private static let stranger = SocketAddress(IPAddress(v4: 0xC000_0201), port: 9)

    init(_ plan: BenchPlan) throws {
        var coalescing = Self.buffer
        coalescing.coalesces = true
        let loopback = SocketAddress(.v4Loopback, port: 0)
        let publicSocket = try DatagramSocket(boundTo: loopback, options: Self.buffer)
        let trunkSocket = try DatagramSocket(boundTo: loopback, options: coalescing)
        let transceiverSocket = try DatagramSocket(boundTo: loopback, options: coalescing)
        let publicAddress = publicSocket.localAddress
        let trunkAddress = trunkSocket.localAddress
        let transceiverAddress = transceiverSocket.localAddress
        let segments = trunkSocket.supportsSegmentation
        let bareUp = try BareLoop(from: publicSocket, to: trunkSocket, destinations: 1)
        let bareDown = try BareLoop(from: trunkSocket, to: publicSocket, destinations: plan.flows)
        bareUp.aim(0, transceiverAddress)

        var engine = try DatagramEngine(socketCapacity: 3, descriptorCapacity: 4)
        let received = ReceiveBatch(capacity: BenchPlan.batch, payloadCapacity: 2048)
        let frames = ReceiveBatch(capacity: 16, payloadCapacity: 65_536)
        let trains = ReceiveBatch(capacity: BenchPlan.batch, payloadCapacity: 65_536)
        let publicSide = try engine.add(publicSocket, receivingInto: received, tag: 1)
        let trunk = try engine.add(trunkSocket, receivingInto: frames, tag: 2)
        let transceiver = try engine.add(transceiverSocket, receivingInto: trains, tag: 3)

        // One engine per 64 clients: each is a socket, because a flow is a source address.
        let arrived = ReceiveBatch(capacity: 8, payloadCapacity: 2048)
        var addresses: [SocketAddress] = []
        var handles: [DatagramHandle] = []
        var engines = Slab<DatagramEngine?>(count: (plan.flows + 63) / 64) { _ in nil }
        for group in 0..<engines.count {
            var made = try DatagramEngine(socketCapacity: 64, descriptorCapacity: 1)
            for index in group * 64..<min(plan.flows, group * 64 + 64) {
                let socket = try DatagramSocket(boundTo: loopback)
                addresses.append(socket.localAddress)
                bareDown.aim(index, socket.localAddress)
                handles.append(try made.add(socket, receivingInto: arrived, tag: 0))
            }
            engines[group] = consume made
        }

        maker = FlowMaker(transceivers: plan.transceivers)
        relay = maker.relay(trunk: transceiverAddress, flows: plan.flows)
        packet = FlowMaker.voice(plan.size)
        clients = handles
        clientEngines = engines
        self.addresses = addresses
        self.publicAddress = publicAddress
        self.trunkAddress = trunkAddress
        self.segments = segments
        self.bareUp = bareUp
        self.bareDown = bareDown
        self.engine = engine
        self.received = received
        self.frames = frames
        self.trains = trains
        self.arrived = arrived
        self.publicSide = publicSide
        self.trunk = trunk
        self.transceiver = transceiver
    }
}

/// One of the yardsticks between two sockets, which must live as long.
struct BareLoop: ~Copyable {
    private let loop: OpaquePointer

    init(from source: borrowing DatagramSocket, to target: borrowing DatagramSocket, destinations: Int) throws(Errno) {
        guard let made = cbench_bare_make(source.descriptor.rawValue, target.descriptor.rawValue, Int32(destinations)) else {
            throw Errno.outOfMemory
        }
        loop = made
    }

    deinit { cbench_bare_free(loop) }

    func aim(_ index: Int, _ address: SocketAddress) { cbench_bare_aim(loop, Int32(index), address.ip.v4Bits, address.port) }
    /// How many datagrams were moved.
    func turn() -> Int { Int(cbench_bare_turn(loop)) }
    func plainTurn() -> Int { Int(cbench_plain_turn(loop)) }
}

extension BenchRig {
    /// Makes a confirmed flow of every client; false when that did not work.
    mutating func open() -> Bool {
        for index in 0..<clients.count {
            send(maker.check(), from: index)
            _ = turn(.up, .relay)
            empty(.up)
        }
        // A media packet to a client confirms its flow.
        for _ in 0..<(clients.count + BenchPlan.batch - 1) / BenchPlan.batch {
            fill(.down, .relay)
            _ = turn(.down, .relay)
            empty(.down)
        }
        return relay.flows.confirmedCount == clients.count
    }
}

extension BenchRig {
    /// Puts 64 packets before the contestant: one of each of the next clients, or one for each of them.
    mutating func fill(_ direction: BenchPlan.Direction, _ contestant: RelayBench.Contestant) {
        switch (direction, contestant) {
        case (.up, _):
            for offset in 0..<BenchPlan.batch { send(packet, from: (next + offset) % clients.count) }
        case (.down, .relay):
            let made = maker.frames(packet, to: addresses, from: next, count: BenchPlan.batch)
            // As many frames to a train as the kernel takes.
            let longest = made.size * min(SendBatch.trainLimit, 65_507 / made.size)
            let target = trunkAddress
            for start in stride(from: 0, to: made.bytes.count, by: longest) {
                let train = made.bytes[start..<min(start + longest, made.bytes.count)]
                _ = outgoing.appendTrain(to: target, segmentSize: made.size) { output in
                    for byte in train { output.append(byte) }
                }
            }
            engine.send(&outgoing, on: transceiver)
        case (.down, _):
            let packet = packet
            let target = trunkAddress
            for _ in 0..<BenchPlan.batch { _ = outgoing.append(packet.span.bytes, to: target) }
            engine.send(&outgoing, on: transceiver)
        }
        next = (next + BenchPlan.batch) % clients.count
    }

    /// Lets the contestant move what `fill` has put there; how many packets it has moved.
    mutating func turn(_ direction: BenchPlan.Direction, _ contestant: RelayBench.Contestant) -> Int {
        switch (direction, contestant) {
        case (.up, .relay): return relayUp()
        case (.down, .relay): return relayDown()
        case (.up, .bare): return sent(bareUp.turn())
        case (.down, .bare): return sent(bareDown.turn())
        case (.up, .plain): return sent(bareUp.plainTurn())
        case (.down, .plain): return sent(bareDown.plainTurn())
        }
    }

    private mutating func sent(_ count: Int) -> Int {
        expected += count
        return count
    }

    /// Empties the receivers and counts what should have been there.
    mutating func empty(_ direction: BenchPlan.Direction) {
        var found = 0
        switch direction {
        case .up:
            while engine.receive(from: transceiver, into: &trains) > 0 {
                for number in 0..<trains.count { found += trains[number].segmentCount }
            }
        case .down:
            for index in 0..<clients.count where found < expected {
                found += Self.empty(&clientEngines[index / 64], clients[index], &arrived)
            }
        }
        lost += max(0, expected - found)
        expected = 0
    }

    /// Keeps one flow that no transceiver has confirmed, as there always is one, from ending.
    mutating func refreshStranger() {
        let check = maker.check()
        _ = relay.receive(check.span.bytes, from: Self.stranger, at: MonotonicClock.now())
        sendUplink()
        empty(.up)
    }
}

extension BenchRig {
    /// What a relay worker does in a turn with datagrams of clients.
    private mutating func relayUp() -> Int {
        let now = MonotonicClock.now()
        let count = engine.receive(from: publicSide, into: &received)
        Self.forward(received, count, &relay, now)
        relay.advance(to: now)
        sendUplink()
        return count
    }

    private static func forward(_ received: borrowing ReceiveBatch, _ count: Int, _ relay: inout Relay, _ now: Instant) {
        for number in 0..<count { _ = relay.receive(received.bytes(number), from: received[number].source, at: now) }
    }

    private mutating func sendUplink() {
        while Self.append(&relay, &uplink, &expected) {
            if uplink.isFull { engine.send(&uplink, on: trunk) }
        }
        engine.send(&uplink, on: trunk)
    }

    private static func append(_ relay: inout Relay, _ uplink: inout SendBatch, _ expected: inout Int) -> Bool {
        guard let train = relay.nextDeparture() else { return false }
        expected += train.transmit.frames
        return uplink.append(lending: train.bytes, segmentSize: train.transmit.segmentSize, to: train.transmit.destination)
    }

    /// What a relay worker does in a turn with frames of transceivers.
    private mutating func relayDown() -> Int {
        let now = MonotonicClock.now()
        var moved = 0
        let count = engine.receive(from: trunk, into: &frames)
        for number in 0..<count {
            for segment in 0..<frames[number].segmentCount {
                moved += Self.deliver(frames, number, segment, &relay, &downlink, &engine, publicSide, now)
            }
        }
        engine.send(&downlink, on: publicSide)
        relay.advance(to: now)
        expected += moved
        return moved
    }

    private static func deliver(
        _ frames: borrowing ReceiveBatch, _ number: Int, _ segment: Int, _ relay: inout Relay, _ downlink: inout SendBatch,
        _ engine: inout DatagramEngine, _ publicSide: DatagramHandle, _ now: Instant
    ) -> Int {
        let datagram = frames[number]
        guard var frame = relay.openTrunk(frames.bytes(number, datagram.segment(segment)), from: datagram.source, at: now) else { return 0 }
        var count = 0
        while let record = relay.nextDelivery(of: &frame, at: now) {
            if downlink.isFull { engine.send(&downlink, on: publicSide) }
            if downlink.append(lending: record.payload, segmentSize: 0, to: record.client) { count += 1 }
        }
        return count
    }

    private mutating func send(_ bytes: [UInt8], from index: Int) {
        _ = outgoing.append(bytes.span.bytes, to: publicAddress)
        Self.send(&clientEngines[index / 64], clients[index], &outgoing)
    }

    private static func send(_ engine: inout DatagramEngine?, _ handle: DatagramHandle, _ batch: inout SendBatch) {
        guard var taken = engine.take() else { return }
        taken.send(&batch, on: handle)
        engine = consume taken
    }

    private static func empty(_ engine: inout DatagramEngine?, _ handle: DatagramHandle, _ batch: inout ReceiveBatch) -> Int {
        guard var taken = engine.take() else { return 0 }
        var count = 0
        while taken.receive(from: handle, into: &batch) > 0 { count += batch.count }
        engine = consume taken
        return count
    }
}
