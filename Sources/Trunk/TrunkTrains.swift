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
/// Most records go into a frame that is open and has room. That path is inlined into its caller and compares two numbers, `Train.end` with
/// `Train.limit`, which leave no room in a train that takes nothing more, for whatever reason.
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
        let place = Self.place(of: lane.first)
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
        return unsafe Self.write(payload, client, session, &trains[number], storage.start, key)
    }

    /// Copies one datagram into the train that is open for `lane`, wherever it goes. False, and nothing changed, when there is none:
    /// `append(_:client:session:lane:to:)` then opens what is needed.
    @inlinable @inline(__always)
    public mutating func append(_ payload: RawSpan, client: SocketAddress, session: UInt32, toTrainOf lane: TrunkLane) -> Bool {
        let number = Int(index[Self.place(of: lane.first)])
        let needed = TrunkFormat.recordHeaderSize &+ payload.byteCount
        guard number >= drained, number < count, trains[number].lane == lane, !trains[number].isSealed,
            TrunkFormat.frameHeaderSize &+ needed <= mtu, makeRoom(needed, in: number)
        else { return false }
        return unsafe Self.write(payload, client, session, &trains[number], storage.start, key)
    }

    /// The same where it is cheap: into the frame and block that are open. For a caller all of whose lanes have one second word.
    @inlinable @inline(__always)
    public mutating func append(_ payload: RawSpan, client: SocketAddress, session: UInt32, toFrameOf first: UInt64) -> Bool {
        // There is always a train 0, and nothing puts a number here that is no train's.
        let train = unsafe trains.mutableStart + Int(index[Self.place(of: first)])
        guard unsafe train.pointee.lane.first == first else { return false }
        return unsafe Self.write(payload, client, session, &train.pointee, storage.start, key)
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
            unsafe trains[number].sumAgain(UnsafeRawPointer(storage.start), self.key)
        }
    }

    private func transmit(_ number: Int) -> TrunkTransmit {
        TrunkTransmit(
            destination: trains[number].destination, segmentSize: trains[number].frames > 1 ? mtu : 0, frames: trains[number].frames,
            records: trains[number].records &+ trains[number].frameRecords)
    }
}
