import CBench
import EventLoop
import Primitives
import Trunk

/// The world on both sides of one contestant: many clients on one socket, and the transceiver's trunk socket. Never sleeps: every method
/// returns at once, and whoever waits calls again.
struct LoadRig: ~Copyable {
    let target: LoadTarget
    let flows: Int
    private let sizes: [Int]
    private let transceivers: Int
    private let crowd: Crowd
    private var engine: DatagramEngine
    private let trunk: DatagramHandle
    private var arrived: ReceiveBatch?
    private var outgoing = SendBatch(capacity: 64, slotSize: 65_536)
    private var replies: TrunkTrains
    private(set) var maker: FlowMaker
    private var turn: TurnOpening
    /// Who brings answers to a flow's client, where the contestant is no Swiftlet relay: learnt from its first packet.
    private var peers: [SocketAddress]
    private var reached: [Bool]

    /// Whether the trunk side sends everything back.
    var echoes = true
    /// Packets of other slices that come late are not counted.
    private var slice: UInt32 = 0
    private var next = 0
    private var sequence: UInt16 = 0
    private(set) var tally = Tally()

    struct Tally {
        var sent = 0
        var up = 0
        var down = 0
        /// Datagrams that reached a client and were none of this slice's: answers to what should have none.
        var strange = 0
        /// Nanoseconds from a packet's stamp to its arrival at the end of its way.
        var latencies: [UInt32] = []
    }

    /// Bytes of a packet in front of everything variable: two of RTP, a sequence number, flow, slice, stamp.
    static let stampSize = 20
    /// The address of client 0; others follow.
    static let firstClient: UInt32 = 0x7F10_0001

    static func trunkSocket() throws -> DatagramSocket {
        try DatagramSocket(
            boundTo: SocketAddress(.v4Loopback, port: 0),
            options: .init(receiveBufferSize: 4 << 20, sendBufferSize: 4 << 20, coalesces: true))
    }

    /// - Parameter trunkSocket: made before the contestant, which must know its address.
    init(
        _ target: LoadTarget, _ trunkSocket: consuming DatagramSocket, flows: Int, sizes: [Int], maker: FlowMaker,
        first: UInt32 = firstClient
    )
        throws
    {
        let crowd = try Crowd(first: first, aimedAt: target.publicSide)
        let arrived = ReceiveBatch(capacity: 32, payloadCapacity: 65_536)
        var engine = try DatagramEngine(socketCapacity: 1, descriptorCapacity: 1)
        let trunk = try engine.add(trunkSocket, receivingInto: arrived, tag: 0)
        turn = TurnOpening(peer: engine.localAddress(of: trunk))
        self.trunk = trunk
        self.crowd = crowd
        self.engine = engine
        self.arrived = consume arrived
        self.target = target
        self.flows = flows
        self.sizes = sizes
        self.maker = maker
        transceivers = maker.transceivers
        replies = TrunkTrains(capacity: 32, key: maker.ring.trunkKey)
        peers = [SocketAddress](repeating: target.trunk, count: flows)
        reached = [Bool](repeating: false, count: flows)
    }

    var clientPort: UInt16 { crowd_port(crowd.pointer) }
    /// What this side has lost because it was too slow.
    var overflow: Int { Int(crowd_overflow(crowd.pointer)) }

    /// Forgets what was counted; packets on their way are none of the next slice's.
    mutating func beginSlice(expecting count: Int) {
        slice &+= 1
        tally = Tally()
        tally.latencies.reserveCapacity(count)
    }
}

// MARK: - Opening

extension LoadRig {
    /// Opens every flow as a client would and sends a packet through each, there and back; how many work.
    mutating func open() -> Int {
        let echoed = echoes
        echoes = true
        defer { echoes = echoed }
        for _ in 0..<5 {
            let missing = (0..<flows).filter { !reached[$0] }
            if missing.isEmpty { break }
            beginSlice(expecting: 0)
            // Few at a time for servers that are slow to begin; a great many flows must be open before the first ends.
            let step = flows > 10_000 ? 256 : 32
            for start in stride(from: 0, to: missing.count, by: step) {
                let some = missing[start..<min(start + step, missing.count)]
                openSome(some)
                for flow in some { putVoice(flow, train: 1, at: MonotonicClock.now()) }
                flush()
                let expected = tally.sent
                settle(.milliseconds(10)) { rig in rig.tally.down >= expected }
            }
            settle(.milliseconds(50)) { rig in rig.tally.down >= rig.tally.sent }
        }
        return reached.count { $0 }
    }

    /// The same again: a flow whose client has been silent for a minute has ended.
    mutating func reopen() -> Int {
        reached = [Bool](repeating: false, count: flows)
        return open()
    }

    /// Sends one packet through every flow, there and back; how many came back.
    mutating func useAll() -> Int {
        echoes = true
        beginSlice(expecting: flows)
        next = 0
        for start in stride(from: 0, to: flows, by: 64) {
            sendUp(min(64, flows - start), train: 1)
            settle(.milliseconds(10)) { rig in rig.tally.down >= rig.tally.sent }
        }
        settle(.milliseconds(200)) { rig in rig.tally.down >= rig.tally.sent }
        return tally.down
    }

    private mutating func openSome(_ some: ArraySlice<Int>) {
        switch target.framing {
        case .trunk: for flow in some { put(maker.check(session: UInt32(flow + 1)), from: flow) }
        case .turn:
            for step in TurnOpening.Step.allCases {
                for flow in some { put(turn.request(step, flow), from: flow) }
                flush()
                settle(.milliseconds(20)) { rig in rig.tally.strange >= some.count }
                tally.strange = 0
            }
        case .none: return
        }
        flush()
    }

    /// Turns until `isDone` or the time is over.
    mutating func settle(_ patience: Interval, _ isDone: (borrowing LoadRig) -> Bool) {
        let end = MonotonicClock.now() + patience
        while !isDone(self), MonotonicClock.now() < end {
            pollTrunk()
            pollClients()
        }
    }

    private mutating func put(_ bytes: [UInt8], from flow: Int) { putRaw(bytes, from: UInt32(flow)) }

    /// Any bytes from any source; `client` may lie beyond the flows.
    mutating func putRaw(_ bytes: [UInt8], from client: UInt32) {
        var memory = crowd_next(crowd.pointer, client, UInt32(bytes.count), 0)
        if memory == nil {
            flush()
            memory = crowd_next(crowd.pointer, client, UInt32(bytes.count), 0)
        }
        if let memory { memory.update(from: bytes, count: bytes.count) }
    }
}

// MARK: - Sending

extension LoadRig {
    /// Gathers `count` packets of the next flows, and sends them.
    mutating func sendUp(_ count: Int, train: Int) {
        let now = MonotonicClock.now()
        var left = count
        while left > 0 {
            putVoice(next, train: min(train, left), at: now)
            left -= train
            next = next + 1 == flows ? 0 : next + 1
        }
        flush()
    }

    mutating func flush() { crowd_flush(crowd.pointer) }

    /// `train` packets of one flow in one message, which the kernel takes apart.
    private mutating func putVoice(_ flow: Int, train: Int, at now: Instant) {
        sequence &+= 1
        let size = sizes[Int(sequence) % sizes.count]
        let headroom = target.headroom
        let length = headroom + size
        var memory = crowd_next(crowd.pointer, UInt32(flow), UInt32(length * train), train > 1 ? UInt32(length) : 0)
        if memory == nil {
            flush()
            memory = crowd_next(crowd.pointer, UInt32(flow), UInt32(length * train), train > 1 ? UInt32(length) : 0)
        }
        guard let memory else { return }
        for number in 0..<train {
            let packet = UnsafeMutableRawPointer(memory) + number * length
            if headroom > 0 { TurnOpening.writeChannelHeader(packet, flow, size) }
            stamp(packet + headroom, flow, at: now)
        }
        tally.sent += train
    }

    /// The rest of a packet is whatever was in memory: nobody on the way reads it.
    private func stamp(_ packet: UnsafeMutableRawPointer, _ flow: Int, at now: Instant) {
        packet.storeBytes(of: UInt32(0x806F_0000 | UInt32(sequence)).bigEndian, as: UInt32.self)
        packet.storeBytes(of: UInt32(flow).bigEndian, toByteOffset: 4, as: UInt32.self)
        packet.storeBytes(of: slice.bigEndian, toByteOffset: 8, as: UInt32.self)
        packet.storeBytes(of: now.nanoseconds.bigEndian, toByteOffset: 12, as: UInt64.self)
    }

    /// What a transceiver sends by itself: `count` packets to as many clients.
    mutating func sendDown(_ count: Int) {
        let now = MonotonicClock.now()
        let size = sizes[Int(sequence) % sizes.count]
        var packet = [UInt8](repeating: 0x5A, count: size)
        for _ in 0..<count {
            sequence &+= 1
            packet.withUnsafeMutableBytes { stamp($0.baseAddress!, next, at: now) }
            sendBack(packet.span.bytes, to: next)
            next = next + 1 == flows ? 0 : next + 1
            tally.sent += 1
        }
        sendReplies()
    }

    private mutating func sendBack(_ payload: RawSpan, to flow: Int) {
        if target.framing == .trunk {
            let client = SocketAddress(IPAddress(v4: Self.firstClient + UInt32(flow)), port: clientPort)
            reply(payload, client, UInt32(flow + 1), ingressWorker: 0)
        } else {
            if outgoing.isFull { engine.send(&outgoing, on: trunk) }
            _ = outgoing.append(payload, to: peers[flow])
        }
    }

    private mutating func reply(_ payload: RawSpan, _ client: SocketAddress, _ session: UInt32, ingressWorker: UInt8) {
        let header = TrunkHeader(
            kind: .transceiverData, worker: ingressWorker, cluster: FlowMaker.cluster, transceiver: 1, ingressRelay: FlowMaker.relayID,
            ingressWorker: ingressWorker)
        if !replies.append(payload, client: client, session: session, header: header, to: target.trunk) {
            sendReplies()
            _ = replies.append(payload, client: client, session: session, header: header, to: target.trunk)
        }
    }

    private mutating func sendReplies() {
        while let transmit = replies.peek() {
            if outgoing.isFull { engine.send(&outgoing, on: trunk) }
            Self.append(transmit, &replies, &outgoing)
        }
        engine.send(&outgoing, on: trunk)
    }

    private static func append(_ transmit: TrunkTransmit, _ replies: inout TrunkTrains, _ outgoing: inout SendBatch) {
        let segment = transmit.segmentSize == 0 ? TrunkFormat.datagramMax : transmit.segmentSize
        _ = outgoing.appendTrain(to: transmit.destination, segmentSize: segment) { _ = replies.nextTransmit(into: &$0) }
    }
}

// MARK: - Receiving

extension LoadRig {
    /// Takes what has come to the trunk side, and sends it back if it echoes.
    mutating func pollTrunk() {
        guard var batch = arrived.take() else { return }
        let count = engine.receive(from: trunk, into: &batch)
        let now = count > 0 ? MonotonicClock.now() : .zero
        for number in 0..<count {
            let datagram = batch[number]
            for segment in 0..<datagram.segmentCount {
                let bytes = batch.bytes(number, datagram.segment(segment))
                if target.framing == .trunk { takeFrame(bytes, now) } else { takePlain(bytes, from: datagram.source, now) }
            }
        }
        arrived = consume batch
        if count > 0 { sendReplies() }
    }

    private mutating func takeFrame(_ bytes: RawSpan, _ now: Instant) {
        guard var frame = try? TrunkFrame(parsing: bytes, key: maker.ring.trunkKey) else { return }
        let worker = frame.header.ingressWorker
        while let record = frame.nextRecord() {
            guard noteUp(record.payload, now) else { continue }
            if echoes { reply(record.payload, record.client, record.session, ingressWorker: worker) }
        }
    }

    private mutating func takePlain(_ bytes: RawSpan, from source: SocketAddress, _ now: Instant) {
        guard noteUp(bytes, now) else { return }
        let flow = Int(bytes.u32(4))
        if flow < flows { peers[flow] = source }
        guard echoes else { return }
        if outgoing.isFull { engine.send(&outgoing, on: trunk) }
        _ = outgoing.append(bytes, to: source)
    }

    /// Counts a packet that has reached the trunk side; false for anything that is none of ours.
    private mutating func noteUp(_ payload: RawSpan, _ now: Instant) -> Bool {
        guard payload.byteCount >= Self.stampSize, payload.byte(0) == 0x80 else { return false }
        guard payload.u32(8) == slice else { return false }
        tally.up += 1
        if !echoes { tally.latencies.append(UInt32(clamping: now.nanoseconds &- payload.u64(12))) }
        return true
    }

    /// Takes what has come back to clients.
    mutating func pollClients() {
        let count = crowd_receive(crowd.pointer)
        guard count > 0 else { return }
        let now = MonotonicClock.now()
        for index in 0..<count {
            let headroom = target.headroom
            let length = Int(crowd_length(crowd.pointer, index)) - headroom
            let packet = UnsafeRawPointer(crowd_bytes(crowd.pointer, index)!) + headroom
            guard length >= Self.stampSize, packet.load(as: UInt8.self) == 0x80,
                UInt32(bigEndian: packet.loadUnaligned(fromByteOffset: 8, as: UInt32.self)) == slice
            else {
                tally.strange += 1
                continue
            }
            tally.down += 1
            let flow = Int(UInt32(bigEndian: packet.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
            if flow < flows { reached[flow] = true }
            let sentAt = UInt64(bigEndian: packet.loadUnaligned(fromByteOffset: 12, as: UInt64.self))
            tally.latencies.append(UInt32(clamping: now.nanoseconds &- sentAt))
        }
    }
}
