// One train as it is filled: frames end to end, the last of them open. `TrunkTrains` says which train a record goes to; this is how it is
// written, and how a frame ends.

import Primitives

/// Frames to one worker, laid end to end in a slot of their own. Places are counted in bytes from the first slot's beginning.
@frozen @usableFromInline struct Train: Sendable {
    @usableFromInline var lane = TrunkLane(first: 0, second: 0)
    /// Where the next record goes, and where the open frame's records must end: 0 when the train has left, `end` when the frame is full
    /// or holds a datagram of its own.
    @usableFromInline var end = 0
    @usableFromInline var limit = 0
    /// The next record's place in its block, 0…15; 16 when the block is whole and its sum is due. The first block begins with place 1.
    @usableFromInline var place = 1
    /// The records of whole blocks, and one for the place that the first block leaves out.
    @usableFromInline var placesBefore = 0
    @usableFromInline var sum = TagSum()
    @usableFromInline var frameStart = 0
    @usableFromInline var frames = 0
    /// Whether its destination must be asked for again before it takes more.
    @usableFromInline var isSealed = false
    /// Those of closed frames. Not beside `frames`: a pair of neighbours is added to as a vector, which takes three times the instructions.
    @usableFromInline var records = 0
    @usableFromInline var destination = SocketAddress(IPAddress(high: 0, low: 0), port: 0)
    @usableFromInline var hash = SipHash(key: SipKey(k0: 0, k1: 0))

    @usableFromInline init() {}
}

extension Train {
    /// Records of the open frame.
    var frameRecords: Int { placesBefore &+ place &- 1 }

    /// Whether the open frame has room for `needed` bytes.
    func takes(_ needed: Int) -> Bool { end &+ needed <= limit }

    /// Nothing more fits.
    mutating func endFrame() { limit = end }

    mutating func openFrame(at start: Int, size: Int) {
        frameStart = start
        end = start &+ TrunkFormat.frameHeaderSize
        limit = start &+ size
        place = 1
        placesBefore = 0
        frames &+= 1
        sum = TagSum()
    }

    /// After records 15, 31 and so on. The record count has one byte: after 255 nothing more fits, whatever its length.
    @inline(never)
    mutating func endBlock(_ key: borrowing TrunkKey) {
        let records = frameRecords
        sum.endBlock(records, into: &hash, key)
        placesBefore = records &+ 1
        place = 0
        if records == TrunkFormat.recordsMax { endFrame() }
    }

    /// Writes the open frame's header and tag, and counts it.
    @unsafe @inline(__always)
    mutating func close(_ slots: UnsafeMutableRawPointer, _ key: borrowing TrunkKey) {
        if !TagSum.hasPlace(place) { endBlock(key) }
        let count = frameRecords
        let first = lane.first.bigEndian
        let second = lane.second(recordCount: count).bigEndian
        sum.addHeader(first.littleEndian, second.littleEndian, key)
        let tag = count < 15 ? sum.tag(key) : longTag()
        let frame = unsafe slots + frameStart
        unsafe frame.storeBytes(of: first, as: UInt64.self)
        unsafe frame.storeBytes(of: second, toByteOffset: 8, as: UInt64.self)
        unsafe frame.storeBytes(of: tag.bigEndian, toByteOffset: 16, as: UInt64.self)
        records &+= count
    }

    @inline(never)
    private func longTag() -> UInt64 { sum.tag(after: hash) }

    /// The sum of the open frame under another key, of the records that lie there.
    @unsafe mutating func sumAgain(_ slots: UnsafeRawPointer, _ key: borrowing TrunkKey) {
        // We wrote all that lies between.
        let frame = unsafe RawSpan(_unsafeStart: slots + frameStart, byteCount: end &- frameStart)
        let count = frameRecords
        sum = TagSum()
        // The last block's sum may be due: then it stays so.
        let blocks = placesBefore
        var offset = TrunkFormat.frameHeaderSize
        var number = 1
        while number <= count {
            let words = (frame.u64LittleEndian(offset), frame.u64LittleEndian(offset &+ 8), frame.u64LittleEndian(offset &+ 16))
            sum.add(words.0, words.1, words.2, number: number, key)
            if TagSum.endsBlock(number), number < blocks { sum.endBlock(number, into: &hash, key) }
            offset &+= TrunkFormat.recordHeaderSize &+ Int(frame.u16(offset &+ 18))
            number &+= 1
        }
    }
}

extension TrunkTrains {
    @inlinable @inline(__always)
    static func place(of first: UInt64) -> Int { Int(truncatingIfNeeded: (first &* 0x9E37_79B9_7F4A_7C15) >> 56) }

    mutating func open(_ lane: TrunkLane, _ destination: SocketAddress, frameSize: Int) -> Int? {
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

    /// Closes the open frame of train `number`, padded to the MTU, and begins the next one; false when the train is full.
    @inline(__always)
    private mutating func openNextFrame(_ number: Int) -> Bool {
        let start = trains[number].frameStart &+ mtu
        let end = trains[number].end
        // Behind a frame longer than the MTU comes nothing.
        guard end <= start, trains[number].frames < Self.framesMax, start &+ mtu &- number &* storage.slotSize <= TrunkFormat.datagramMax
        else { return false }
        closeFrame(number)
        // What lies there is of an earlier batch: it must not leave the machine.
        unsafe storage.start.zeroBlocks(from: end, to: start)
        trains[number].openFrame(at: start, size: mtu)
        return true
    }

    @inline(__always)
    mutating func closeFrame(_ number: Int) { unsafe trains[number].close(storage.start, key) }

    /// Makes train `number` take `needed` more bytes, beginning a new block or frame if it must; false when the train is full.
    @inline(never) @usableFromInline
    mutating func makeRoom(_ needed: Int, in number: Int) -> Bool {
        if !TagSum.hasPlace(trains[number].place) { trains[number].endBlock(key) }
        return trains[number].takes(needed) || openNextFrame(number)
    }

    /// Writes a record of a datagram into the open frame of `train`; false, and nothing written, when that takes more than a copy.
    @unsafe @inlinable @inline(__always)
    static func write(
        _ payload: RawSpan, _ client: SocketAddress, _ session: UInt32, _ train: inout Train, _ slots: UnsafeMutableRawPointer,
        _ key: borrowing TrunkKey
    ) -> Bool {
        let (start, place) = (train.end, train.place)
        let next = start &+ (TrunkFormat.recordHeaderSize &+ payload.byteCount)
        // Nearly always: two branches that are foreseen cost less than one on both.
        guard _fastPath(next <= train.limit), _fastPath(TagSum.hasPlace(place)) else { return false }
        train.end = next
        train.place = place &+ 1
        unsafe slots.copyPacket(payload, from: start &+ TrunkFormat.recordHeaderSize, to: next)
        let record = unsafe slots + start
        let end = UInt64(client.port) << 48 | UInt64(truncatingIfNeeded: payload.byteCount) << 32 | UInt64(session)
        let (word0, word1, word2) = (client.ip.high.bigEndian, client.ip.low.bigEndian, end.bigEndian)
        unsafe record.storeBytes(of: word0, as: UInt64.self)
        unsafe record.storeBytes(of: word1, toByteOffset: 8, as: UInt64.self)
        unsafe record.storeBytes(of: word2, toByteOffset: 16, as: UInt64.self)
        train.sum.add(word0.littleEndian, word1.littleEndian, word2.littleEndian, number: place, key)
        return true
    }
}
