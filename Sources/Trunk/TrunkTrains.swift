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
///
/// Most records go into a frame that is open and has room. That path is inlined into its caller and checks one number, `Train.room`,
/// which is zero for every train that takes nothing more, for whatever reason.
@frozen public struct TrunkTrains: ~Copyable, Sendable {
    /// The most frames that the kernel takes in one UDP_SEGMENT send.
    @inlinable public static var framesMax: Int { 64 }

    @usableFromInline var storage: ByteSlab
    @usableFromInline var trains: Slab<Train>
    /// The last train of each lane; lanes that share a place only cost a train more. What it says may be long gone, so the train is
    /// asked.
    @usableFromInline var index: InlineArray<256, UInt16>
    @usableFromInline var count = 0
    @usableFromInline var drained = 0
    @usableFromInline var key: TrunkKey
    /// The length of every frame but the last.
    public let mtu: Int

    /// - Parameters:
    ///   - capacity: one batch opens at most as many trains as it has datagrams.
    ///   - mtu: the longest frame, 256…9000 bytes.
    public init(capacity: Int, mtu: Int = TrunkFormat.defaultMTU, key: SipKey) {
        precondition((1...1024).contains(capacity) && (256...9000).contains(mtu))
        storage = ByteSlab(count: capacity, slotSize: 65_536)
        trains = Slab(count: capacity) { _ in Train() }
        index = InlineArray(repeating: 0)
        self.key = TrunkKey(key)
        self.mtu = mtu
    }

    /// How many trains there can be.
    @inlinable public var capacity: Int { trains.count }
    /// Whether nothing waits.
    @inlinable public var isEmpty: Bool { waiting == 0 }
    /// How many trains wait.
    @inlinable public var waiting: Int { count &- drained }
    /// Whether another train may be opened; drain before this is false.
    @inlinable public var isFull: Bool { count == trains.count }
}

/// Frames to one worker, laid end to end in a slot of their own. Places are counted from the first slot's beginning.
@frozen @usableFromInline struct Train: Sendable {
    @usableFromInline var lane = TrunkLane(first: 0, second: 0)
    /// Where the open frame's records must end, and how many bytes are left to them. Together they say where the next record goes.
    @usableFromInline var limit = 0
    /// Zero when the frame takes nothing more: it is full, holds a datagram of its own, or has left.
    @usableFromInline var room = 0
    @usableFromInline var frameRecords = 0
    @usableFromInline var sum = TagSum()
    @usableFromInline var frameStart = 0
    @usableFromInline var frames = 0
    /// Those of closed frames.
    @usableFromInline var records = 0
    /// Whether its destination must be asked for again before it takes more.
    @usableFromInline var isSealed = false
    @usableFromInline var destination = SocketAddress(IPAddress(high: 0, low: 0), port: 0)
    @usableFromInline var hash = SipHash(key: SipKey(k0: 0, k1: 0))

    @usableFromInline init() {}

    /// Where the open frame ends now.
    @inlinable var end: Int { limit &- room }

    /// Nothing more fits.
    @inlinable mutating func endFrame() {
        limit &-= room
        room = 0
    }

    mutating func openFrame(at start: Int, size: Int) {
        frameStart = start
        limit = start &+ size
        room = size &- TrunkFormat.frameHeaderSize
        frameRecords = 0
        frames &+= 1
        sum = TagSum()
    }
}

extension TrunkTrains {
    /// Copies one datagram into the train for `header` at `destination`. False when it needs a new train and none is left.
    ///
    /// A datagram too long for a frame of the MTU gets a frame, and a train, of its own: the network below may fragment it.
    public mutating func append(
        _ payload: RawSpan, client: SocketAddress, session: UInt32, header: TrunkHeader, to destination: SocketAddress
    ) -> Bool {
        append(payload, client: client, session: session, lane: TrunkLane(header), to: destination)
    }

    /// The same for a lane.
    public mutating func append(
        _ payload: RawSpan, client: SocketAddress, session: UInt32, lane: TrunkLane, to destination: SocketAddress
    ) -> Bool {
        let needed = TrunkFormat.recordHeaderSize &+ payload.byteCount
        let fitsMTU = TrunkFormat.frameHeaderSize &+ needed <= mtu
        guard TrunkFormat.frameHeaderSize &+ needed <= TrunkFormat.datagramMax else { return false }
        let place = Self.place(of: lane)
        var number = Int(index[place])
        // A train that has left (the batch is being drained) takes nothing more.
        if !fitsMTU || number < drained || number >= count || trains[number].lane != lane || trains[number].destination != destination
            || !makeRoom(needed, in: number)
        {
            let frameSize = fitsMTU ? mtu : TrunkFormat.frameHeaderSize &+ needed
            guard let opened = open(lane, destination, frameSize: frameSize) else { return false }
            number = opened
            // A long datagram's train takes nothing more, so nobody must find it.
            if fitsMTU { index[place] = UInt16(truncatingIfNeeded: number) }
        }
        trains[number].isSealed = false
        return write(payload, client, session, number)
    }

    /// Copies one datagram into the train that is open for `lane`, wherever it goes. False, and nothing changed, when there is none:
    /// `append(_:client:session:lane:to:)` then opens what is needed.
    @inline(never)
    public mutating func append(_ payload: RawSpan, client: SocketAddress, session: UInt32, toTrainOf lane: TrunkLane) -> Bool {
        let number = Int(index[Self.place(of: lane)])
        let needed = TrunkFormat.recordHeaderSize &+ payload.byteCount
        guard number >= drained, number < count, trains[number].lane == lane, !trains[number].isSealed,
            TrunkFormat.frameHeaderSize &+ needed <= mtu, makeRoom(needed, in: number)
        else { return false }
        return write(payload, client, session, number)
    }

    /// The same where it is cheap: into the frame that is open, unless the record ends a block. `payload` is not empty.
    @inlinable @inline(__always)
    public mutating func append(_ payload: RawSpan, client: SocketAddress, session: UInt32, toFrameOf lane: TrunkLane) -> Bool {
        // There is always a train 0, and nothing puts a number here that is no train's.
        let train = unsafe trains.mutableStart + Int(index[Self.place(of: lane)])
        let needed = TrunkFormat.recordHeaderSize &+ payload.byteCount
        guard unsafe train.pointee.lane == lane, unsafe needed <= train.pointee.room else { return false }
        return unsafe Self.write(payload, client, session, &train.pointee, storage.start, key, blockMayEnd: false)
    }

    /// What `nextTransmit` and `nextDeparture` will give, for a caller who must know before it writes.
    public func peek() -> TrunkTransmit? {
        guard drained < count else { return nil }
        return transmit(drained)
    }

    /// Takes the next train: appends its bytes to `packet`, which needs room for 64 KiB.
    public mutating func nextTransmit(into packet: inout OutputRawSpan) -> TrunkTransmit? {
        guard let departure = nextDeparture() else { return nil }
        packet.append(contentsOf: departure.bytes)
        return departure.transmit
    }

    /// Takes the next train where it lies. Its bytes stay as they are until the first `append` after the last train was taken.
    @_lifetime(&self)
    public mutating func nextDeparture() -> TrunkDeparture? {
        guard drained < count else { return nil }
        let number = drained
        let transmit = transmit(number)
        closeFrame(number)
        let end = trains[number].end
        // From here on `append` must not find it.
        trains[number].limit = 0
        trains[number].room = 0
        drained &+= 1
        // With the last one gone everything may be used again; a caller who looks with `peek` never asks in vain.
        if drained == count {
            count = 0
            drained = 0
        }
        let start = unsafe UnsafeRawPointer(storage.address(number))
        let bytes = unsafe RawSpan(_unsafeStart: start, byteCount: end &- number &* storage.slotSize)
        return unsafe _overrideLifetime(TrunkDeparture(transmit, bytes), mutating: &self)
    }

    /// Makes every lane's next datagram ask for its address again, because a directory has changed.
    public mutating func seal() {
        for number in drained..<max(count, drained) {
            trains[number].endFrame()
            trains[number].isSealed = true
        }
    }

    /// Sends under another key from now on. Frames that are whole stay under the one of before; what is gathered goes on under the new one.
    public mutating func replaceKey(_ key: SipKey) {
        self.key = TrunkKey(key)
        for number in drained..<max(count, drained) {
            unsafe Self.sumAgain(&trains[number], UnsafeRawPointer(storage.start), self.key)
        }
    }

    /// The sum of the open frame, of the records that lie there.
    @unsafe private static func sumAgain(_ train: inout Train, _ slots: UnsafeRawPointer, _ key: borrowing TrunkKey) {
        // We wrote all that lies between.
        let frame = unsafe RawSpan(_unsafeStart: slots + train.frameStart, byteCount: train.end &- train.frameStart)
        train.sum = TagSum()
        var offset = TrunkFormat.frameHeaderSize
        var number = 1
        while number <= train.frameRecords {
            let words = (frame.u64LittleEndian(offset), frame.u64LittleEndian(offset &+ 8), frame.u64LittleEndian(offset &+ 16))
            train.sum.add(words.0, words.1, words.2, number: number, key)
            if TagSum.endsBlock(number) { endBlock(number, &train, key) }
            offset &+= TrunkFormat.recordHeaderSize &+ Int(frame.u16(offset &+ 18))
            number &+= 1
        }
    }

    private func transmit(_ number: Int) -> TrunkTransmit {
        TrunkTransmit(
            destination: trains[number].destination, segmentSize: trains[number].frames > 1 ? mtu : 0, frames: trains[number].frames,
            records: trains[number].records &+ trains[number].frameRecords)
    }
}

extension TrunkTrains {
    @inlinable @inline(__always)
    static func place(of lane: TrunkLane) -> Int { Int(truncatingIfNeeded: (lane.first &* 0x9E37_79B9_7F4A_7C15) >> 56) }

    private mutating func open(_ lane: TrunkLane, _ destination: SocketAddress, frameSize: Int) -> Int? {
        guard count < trains.count else { return nil }
        // Every write relies on it: records end at `limit`, and the slot does not end before.
        precondition(frameSize > TrunkFormat.frameHeaderSize && frameSize <= TrunkFormat.datagramMax && storage.slotSize == 65_536)
        let number = count
        trains[number].lane = lane
        trains[number].destination = destination
        trains[number].isSealed = false
        trains[number].frames = 0
        trains[number].records = 0
        count &+= 1
        trains[number].openFrame(at: number &* storage.slotSize, size: frameSize)
        return number
    }

    /// Makes the open frame take `needed` more bytes, beginning a new frame if it must; false when the train is full.
    @inline(__always)
    private mutating func makeRoom(_ needed: Int, in number: Int) -> Bool {
        let slots = unsafe storage.start
        return unsafe Self.makeRoom(needed, &trains[number], slots, from: number &* storage.slotSize, mtu, key)
    }

    @unsafe @inline(__always)
    private static func makeRoom(
        _ needed: Int, _ train: inout Train, _ slots: UnsafeMutableRawPointer, from origin: Int, _ mtu: Int, _ key: borrowing TrunkKey
    ) -> Bool {
        if needed <= train.room { return true }
        let start = train.frameStart &+ mtu
        let end = train.end
        // Behind a frame longer than the MTU comes nothing.
        guard end <= start, train.frames < framesMax, start &+ mtu &- origin <= TrunkFormat.datagramMax else { return false }
        unsafe close(train, slots, key)
        // What lies there is of an earlier batch: it must not leave the machine.
        unsafe (slots + end).initializeMemory(as: UInt8.self, repeating: 0, count: start &- end)
        train.records &+= train.frameRecords
        train.openFrame(at: start, size: mtu)
        return true
    }

    /// Writes a record of a datagram into the open frame of train `number`, which has room for it.
    @inline(__always)
    private mutating func write(_ payload: RawSpan, _ client: SocketAddress, _ session: UInt32, _ number: Int) -> Bool {
        _ = unsafe Self.write(payload, client, session, &trains[number], storage.start, key, blockMayEnd: true)
        if TagSum.endsBlock(trains[number].frameRecords) { endBlock(number) }
        return true
    }

    /// The same without the end of a block; false, and nothing written, when the record ends one and that may not be.
    @unsafe @inlinable @inline(__always)
    static func write(
        _ payload: RawSpan, _ client: SocketAddress, _ session: UInt32, _ train: inout Train, _ slots: UnsafeMutableRawPointer,
        _ key: borrowing TrunkKey, blockMayEnd: Bool
    ) -> Bool {
        let room = train.room
        let needed = TrunkFormat.recordHeaderSize &+ payload.byteCount
        assert(needed <= room)
        let number = train.frameRecords &+ 1
        if !blockMayEnd, TagSum.endsBlock(number) { return false }
        let record = unsafe slots + (train.limit &- room)
        train.room = room &- needed
        train.frameRecords = number
        let end = UInt64(client.port) << 48 | UInt64(truncatingIfNeeded: payload.byteCount) << 32 | UInt64(session)
        let (word0, word1, word2) = (client.ip.high.bigEndian, client.ip.low.bigEndian, end.bigEndian)
        unsafe record.storeBytes(of: word0, as: UInt64.self)
        unsafe record.storeBytes(of: word1, toByteOffset: 8, as: UInt64.self)
        unsafe record.storeBytes(of: word2, toByteOffset: 16, as: UInt64.self)
        train.sum.add(word0.littleEndian, word1.littleEndian, word2.littleEndian, number: number, key)
        unsafe payload.withUnsafeBytes { source in
            // Where blocks may end, anything may come, nothing too.
            if blockMayEnd, unsafe source.baseAddress == nil { return }
            unsafe (record + 24).copyMemory(from: source.baseAddress.unsafelyUnwrapped, byteCount: source.count)
        }
        return true
    }

    /// After records 15, 31 and so on. The record count has one byte: after 255 nothing more fits, whatever its length.
    @inline(never)
    private mutating func endBlock(_ number: Int) {
        let records = trains[number].frameRecords
        Self.endBlock(records, &trains[number], key)
        if records == TrunkFormat.recordsMax { trains[number].endFrame() }
    }

    @inline(__always)
    private static func endBlock(_ records: Int, _ train: inout Train, _ key: borrowing TrunkKey) {
        train.sum.endBlock(records, into: &train.hash, key)
    }

    private mutating func closeFrame(_ number: Int) { unsafe Self.close(trains[number], storage.start, key) }

    @unsafe @inline(__always)
    private static func close(_ train: borrowing Train, _ slots: UnsafeMutableRawPointer, _ key: borrowing TrunkKey) {
        let first = train.lane.first.bigEndian
        let second = train.lane.second(recordCount: train.frameRecords).bigEndian
        let tag = train.sum.tag(first.littleEndian, second.littleEndian, recordCount: train.frameRecords, after: train.hash, key)
        let frame = unsafe slots + train.frameStart
        unsafe frame.storeBytes(of: first, as: UInt64.self)
        unsafe frame.storeBytes(of: second, toByteOffset: 8, as: UInt64.self)
        unsafe frame.storeBytes(of: tag.bigEndian, toByteOffset: 16, as: UInt64.self)
    }
}
