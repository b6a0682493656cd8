// One receive batch becomes one train per destination worker: frames laid end to end, all but the last padded to the MTU, so that
// the kernel takes each train in one UDP_SEGMENT send. The kernel's path per send is three quarters of what a relay costs.

import Primitives

/// A train that is ready to leave.
@frozen public struct TrunkTransmit: Hashable, Sendable {
    /// The peer's trunk socket.
    public var destination: SocketAddress
    /// 0 for a single frame; otherwise the length of every frame but the last.
    public var segmentSize: Int
    public var frames: Int
    public var records: Int

    @inlinable public init(destination: SocketAddress, segmentSize: Int, frames: Int, records: Int) {
        self.destination = destination
        self.segmentSize = segmentSize
        self.frames = frames
        self.records = records
    }
}

/// Gathers records for up to `capacity` trains. Fixed memory: `capacity` × 64 KiB.
public struct TrunkTrains: ~Copyable, Sendable {
    /// The most frames that the kernel takes in one UDP_SEGMENT send.
    public static let framesMax = 64

    private var storage: ByteSlab
    private var trains: Slab<Train>
    /// Open trains by header: a small table that is emptied by moving on to the next stamp.
    private var index: Slab<IndexEntry>
    private var stamp: UInt32 = 1
    private var count = 0
    private var drained = 0
    private let key: SipKey
    /// The length of every frame but the last.
    public let mtu: Int

    /// - Parameters:
    ///   - capacity: one batch opens at most as many trains as it has datagrams.
    ///   - mtu: the longest frame, 256…9000 bytes.
    public init(capacity: Int, mtu: Int = TrunkFormat.defaultMTU, key: SipKey) {
        precondition((1...1024).contains(capacity) && (256...9000).contains(mtu))
        storage = ByteSlab(count: capacity, slotSize: 65_536)
        trains = Slab(count: capacity) { _ in Train() }
        index = Slab(count: 256) { _ in IndexEntry() }
        self.key = key
        self.mtu = mtu
    }

    /// Whether nothing waits.
    @inlinable public var isEmpty: Bool { waiting == 0 }
    /// How many trains wait.
    public var waiting: Int { count - drained }
    /// Whether another train may be opened; drain before this is false.
    public var isFull: Bool { count == trains.count }
}

extension TrunkTrains {
    /// Copies one datagram into the train for `header` at `destination`. False when it needs a new train and none is left.
    ///
    /// A datagram too long for a frame of the MTU gets a frame, and a train, of its own: the network below may fragment it.
    public mutating func append(
        _ payload: RawSpan, client: SocketAddress, session: UInt32, header: TrunkHeader, to destination: SocketAddress
    ) -> Bool {
        let needed = TrunkFormat.recordHeaderSize &+ payload.byteCount
        let fitsMTU = TrunkFormat.frameHeaderSize &+ needed <= mtu
        guard TrunkFormat.frameHeaderSize &+ needed <= TrunkFormat.datagramMax else { return false }
        let slot = Self.slot(of: header)
        var number = Int(index[slot].train)
        // A train that has left (the batch is being drained) takes nothing more.
        if !fitsMTU || index[slot].stamp != stamp || number < drained || trains[number].header != header
            || trains[number].destination != destination || !makeRoom(needed, in: number)
        {
            guard let opened = open(header, destination) else { return false }
            number = opened
            // A long datagram's train takes nothing more, so nobody must find it.
            if fitsMTU { index[slot] = IndexEntry(stamp: stamp, train: UInt32(truncatingIfNeeded: number)) }
        }
        write(payload, client, session, number)
        return true
    }

    /// What `nextTransmit` will give, for a caller who must know before it writes.
    public func peek() -> TrunkTransmit? {
        guard drained < count else { return nil }
        return transmit(trains[drained])
    }

    /// Takes the next train: appends its bytes to `packet`, which needs room for 64 KiB.
    public mutating func nextTransmit(into packet: inout OutputRawSpan) -> TrunkTransmit? {
        guard drained < count else { return nil }
        let number = drained
        drained &+= 1
        closeFrame(number)
        let train = trains[number]
        packet.append(contentsOf: storage.bytes(number, train.end))
        // With the last one gone everything may be used again; a caller who looks with `peek` never asks in vain.
        if drained == count { clear() }
        return transmit(train)
    }

    private func transmit(_ train: Train) -> TrunkTransmit {
        TrunkTransmit(
            destination: train.destination, segmentSize: train.frames > 1 ? mtu : 0, frames: train.frames, records: train.records)
    }

    private mutating func clear() {
        count = 0
        drained = 0
        stamp &+= 1
        guard stamp == 0 else { return }
        // After 2^32 batches old entries would look like new ones.
        for slot in 0..<index.count { index[slot] = IndexEntry() }
        stamp = 1
    }
}

extension TrunkTrains {
    // Not private: the compiler (6.3.1) breaks on `Slab` of a private type in a public struct.
    struct Train: Sendable {
        var header = TrunkHeader(kind: .clientData, worker: 0, cluster: 0, transceiver: 0, ingressRelay: 0, ingressWorker: 0)
        var destination = SocketAddress(.v4Any, port: 0)
        /// Where the open frame begins and ends in the slot.
        var frameStart = 0
        var end = 0
        var frameRecords = 0
        var frames = 0
        var records = 0
    }

    struct IndexEntry: Sendable {
        var stamp: UInt32 = 0
        var train: UInt32 = 0
    }

    /// Trains of one batch that share a slot only cost a train more.
    private static func slot(of header: TrunkHeader) -> Int {
        let word = UInt64(header.transceiver) << 24 | UInt64(header.cluster) << 8 | UInt64(header.worker)
        return Int((word &* 0x9E37_79B9_7F4A_7C15) >> 56)
    }

    private mutating func open(_ header: TrunkHeader, _ destination: SocketAddress) -> Int? {
        guard count < trains.count else { return nil }
        var train = Train()
        train.header = header
        train.destination = destination
        train.end = TrunkFormat.frameHeaderSize
        train.frames = 1
        trains[count] = train
        count &+= 1
        return count &- 1
    }

    /// Makes the open frame take `needed` more bytes, beginning a new frame if it must; false when the train is full.
    private mutating func makeRoom(_ needed: Int, in number: Int) -> Bool {
        let train = trains[number]
        if train.end &- train.frameStart &+ needed <= mtu, train.frameRecords < TrunkFormat.recordsMax { return true }
        let start = train.frameStart &+ mtu
        guard train.frames < Self.framesMax, start &+ mtu <= TrunkFormat.datagramMax else { return false }
        closeFrame(number)
        // What lies there is of an earlier batch: it must not leave the machine.
        var padding = storage.mutableBytes(number, train.end..<start)
        for offset in 0..<(start &- train.end) { padding.set(UInt8(0), at: offset) }
        trains[number].frameStart = start
        trains[number].end = start &+ TrunkFormat.frameHeaderSize
        trains[number].frameRecords = 0
        trains[number].frames &+= 1
        return true
    }

    private mutating func write(_ payload: RawSpan, _ client: SocketAddress, _ session: UInt32, _ number: Int) {
        let start = trains[number].frameStart
        var writer = TrunkWriter(resumingAt: trains[number].end &- start, recordCount: trains[number].frameRecords)
        var buffer = storage.mutableBytes(number, start..<storage.slotSize)
        let fitted = writer.append(client: client, session: session, payload: payload, to: &buffer)
        assert(fitted, "makeRoom said that it fits")
        trains[number].end = start &+ writer.length
        trains[number].frameRecords = writer.recordCount
        trains[number].records &+= 1
    }

    private mutating func closeFrame(_ number: Int) {
        let train = trains[number]
        let writer = TrunkWriter(resumingAt: train.end &- train.frameStart, recordCount: train.frameRecords)
        let key = key
        var buffer = storage.mutableBytes(number, train.frameStart..<train.end)
        writer.finish(train.header, key: key, in: &buffer)
    }
}
