import CBench
import CBench
import EventLoop
import Primitives
import RelayCore
import Trunk

/// Known flows, public side to trunk, over real sockets.
///
/// Everything runs in one thread, turn by turn: 64 datagrams are put into the public socket, one contestant moves them, the receiver is
/// emptied. Only the contestant's own part is on the clock, which is the thread's CPU time; so neither the other processor nor a neighbour on
/// the machine is in it, but the kernel's delivery into the receiver's socket is: on loopback the sender pays for it. The contestants take
/// turns of the same run, so that what disturbs one disturbs all.
enum RelayBench {
    private enum Contestant: String, CaseIterable {
        case relay = "swiftlet relay"
        case bare = "bare recvmmsg/sendmmsg"
        case plain = "recvfrom/sendto each"

        var index: Int { Self.allCases.firstIndex(of: self) ?? 0 }
    }

    private struct Tally {
        var time = Interval.zero
        var packets = 0
        /// Nanoseconds per packet of each slice of the run: the median of these is what is printed.
        var slices: [Double] = []
        var perPacket: Double { packets == 0 ? 0 : Double(time.nanoseconds) / Double(packets) }
    }

    private static let slices = 21

    static func run(packets: Int, flows: Int, size: Int) throws {
        var rig = try Rig(flows: flows, size: size)
        var tallies = [Tally](repeating: Tally(), count: Contestant.allCases.count)
        let rounds = max(1, packets / (Rig.batch * slices))
        for _ in 0..<slices {
            var slice = [Tally](repeating: Tally(), count: tallies.count)
            for _ in 0..<rounds {
                for contestant in Contestant.allCases {
                    rig.fill()
                    let before = threadProcessorTime()
                    let moved = try move(contestant, &rig)
                    let spent = threadProcessorTime() - before
                    slice[contestant.index].time = slice[contestant.index].time + spent
                    slice[contestant.index].packets += moved
                    rig.empty()
                }
            }
            for index in tallies.indices {
                tallies[index].packets += slice[index].packets
                tallies[index].slices.append(slice[index].perPacket)
            }
        }
        report(tallies, flows: flows, size: size, trains: rig.segments)
    }

    private static func move(_ contestant: Contestant, _ rig: inout Rig) throws -> Int {
        switch contestant {
        case .relay: rig.relayTurn()
        case .bare: Int(cbench_bare_turn(rig.bare))
        case .plain: Int(cbench_plain_turn(rig.bare))
        }
    }

    private static func report(_ tallies: [Tally], flows: Int, size: Int, trains: Bool) {
        func median(_ tally: Tally) -> Double { tally.slices.sorted()[tally.slices.count / 2] }
        let bare = median(tallies[Contestant.bare.index])
        say("client → trunk, \(flows) known flows, \(size) B, bursts of \(Rig.batch), loopback, UDP_SEGMENT \(trains ? "on" : "off")")
        for contestant in Contestant.allCases {
            let tally = tallies[contestant.index]
            let cost = median(tally)
            let name = contestant.rawValue + String(repeating: " ", count: 24 - contestant.rawValue.count)
            say("  \(name) \(rounded(cost)) ns of CPU per packet, \(rounded(cost / bare, 2)) × bare, \(tally.packets) packets")
        }
    }

    private static func rounded(_ value: Double, _ digits: Int = 0) -> String {
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let number = (value * scale).rounded() / scale
        return digits == 0 ? String(Int(number)) : String(number)
    }
}

/// Clients, the two sockets of a relay worker, and a receiver, all on loopback.
private struct Rig: ~Copyable {
    static let batch = 64

    private var engine: DatagramEngine
    private let publicSide: DatagramHandle
    private let trunk: DatagramHandle
    private let sink: DatagramHandle
    private var received: ReceiveBatch
    private var frames: ReceiveBatch
    private var uplink = SendBatch(capacity: 32, slotSize: 65_536)
    private var relay: Relay
    private var clients: Slab<DatagramHandle>
    private var clientEngines: Slab<DatagramEngine?>
    private var outgoing = SendBatch(capacity: 1, slotSize: 2048)
    private let target: SocketAddress
    private let packet: [UInt8]
    private var next = 0
    let bare: OpaquePointer
    let segments: Bool

    private static let buffer = DatagramSocket.Options(receiveBufferSize: 4 << 20, sendBufferSize: 4 << 20)

    init(flows: Int, size: Int) throws {
        var engine = try DatagramEngine(socketCapacity: 3, descriptorCapacity: 4)
        let received = ReceiveBatch(capacity: Self.batch, payloadCapacity: 2048)
        let frames = ReceiveBatch(capacity: Self.batch, payloadCapacity: 65_536)
        let publicSocket = try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0), options: Self.buffer)
        let trunkSocket = try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0), options: Self.buffer)
        var coalescing = Self.buffer
        coalescing.coalesces = true
        let sinkSocket = try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0), options: coalescing)
        let target = publicSocket.localAddress
        let receiver = sinkSocket.localAddress
        guard
            let bare = cbench_bare_make(
                publicSocket.descriptor.rawValue, trunkSocket.descriptor.rawValue, receiver.ip.v4Bits, receiver.port)
        else { throw Errno.outOfMemory }
        let segments = trunkSocket.supportsSegmentation
        let publicSide = try engine.add(publicSocket, receivingInto: received, tag: 1)
        let trunk = try engine.add(trunkSocket, receivingInto: frames, tag: 2)
        let sink = try engine.add(sinkSocket, receivingInto: frames, tag: 3)
        // One engine per 64 clients: each is a socket, because a flow is a source address.
        var clientEngines = Slab<DatagramEngine?>(count: (flows + 63) / 64) { _ in nil }
        var clients = Slab<DatagramHandle?>(count: flows) { _ in nil }
        let unused = ReceiveBatch(capacity: 1, payloadCapacity: 64)
        for group in 0..<clientEngines.count {
            var made = try DatagramEngine(socketCapacity: 64, descriptorCapacity: 1)
            for index in group * 64..<min(flows, group * 64 + 64) {
                clients[index] = try made.add(
                    DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0)), receivingInto: unused, tag: 0)
            }
            clientEngines[group] = consume made
        }
        let handles = Slab<DatagramHandle>(count: flows) { clients[$0] ?? publicSide }
        var maker = FlowMaker()
        relay = maker.relay(trunk: receiver, flows: flows)
        self.engine = engine
        self.received = received
        self.frames = frames
        self.publicSide = publicSide
        self.trunk = trunk
        self.sink = sink
        self.clients = handles
        self.clientEngines = clientEngines
        self.target = target
        self.bare = bare
        self.segments = segments
        packet = FlowMaker.voice(size)
        for index in 0..<flows {
            send(maker.check(), from: index)
            _ = relayTurn()
            empty()
        }
    }

    deinit { cbench_bare_free(bare) }

    private mutating func send(_ bytes: [UInt8], from index: Int) {
        _ = outgoing.append(bytes.span.bytes, to: target)
        Self.send(&clientEngines[index / 64], clients[index], &outgoing)
    }

    private static func send(_ engine: inout DatagramEngine?, _ handle: DatagramHandle, _ batch: inout SendBatch) {
        guard var taken = engine.take() else { return }
        taken.send(&batch, on: handle)
        engine = consume taken
    }

    /// One datagram from each of the next 64 clients.
    mutating func fill() {
        for _ in 0..<Self.batch {
            send(packet, from: next)
            next += 1
            if next == clients.count { next = 0 }
        }
    }

    /// What a relay worker does in one turn.
    mutating func relayTurn() -> Int {
        let count = engine.receive(from: publicSide, into: &received)
        Self.forward(received, count, &relay)
        while let transmit = relay.peekTransmit() {
            if uplink.isFull { engine.send(&uplink, on: trunk) }
            Self.append(transmit, &relay, &uplink)
        }
        engine.send(&uplink, on: trunk)
        return count
    }

    private static func forward(_ received: borrowing ReceiveBatch, _ count: Int, _ relay: inout Relay) {
        let now = MonotonicClock.now()
        for number in 0..<count { _ = relay.receive(received.bytes(number), from: received[number].source, at: now) }
    }

    private static func append(_ transmit: TrunkTransmit, _ relay: inout Relay, _ uplink: inout SendBatch) {
        let segment = transmit.segmentSize == 0 ? TrunkFormat.datagramMax : transmit.segmentSize
        _ = uplink.appendTrain(to: transmit.destination, segmentSize: segment) { _ = relay.nextTransmit(into: &$0) }
    }

    /// Empties the receiver, and the public socket of what a contestant has left.
    mutating func empty() {
        while engine.receive(from: sink, into: &frames) > 0 {}
    }
}
