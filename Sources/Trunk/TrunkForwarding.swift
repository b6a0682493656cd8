// Frames that pass through a relay on their way to another machine: whole, as they came, but for one hop more.

import Primitives

/// Gathers forwarded frames into trains for one UDP_SEGMENT send each. Fixed memory: `capacity` × 64 KiB.
///
/// Frames of one batch to one destination and of one length leave together, in the order in which they came; a shorter one ends its train.
public struct TrunkForwarding: ~Copyable, Sendable {
    struct Train: Sendable {
        var destination = SocketAddress(IPAddress(high: 0, low: 0), port: 0)
        /// The length of the first frame, which all but the last have.
        var segmentSize = 0
        var length = 0
        var frames = 0
        var records = 0
        var isClosed = false
    }

    private var storage: ByteSlab
    private var trains: Slab<Train>
    private var count = 0
    private var drained = 0

    /// - Parameter capacity: trains that may wait at once.
    public init(capacity: Int) {
        precondition((1...1024).contains(capacity))
        storage = ByteSlab(count: capacity, slotSize: 65_536)
        trains = Slab(count: capacity) { _ in Train() }
    }

    /// Whether nothing waits.
    public var isEmpty: Bool { count == drained }

    /// Copies `frame`, which has been parsed, for `destination`, with one hop more. False when it needs a new train and none is left.
    public mutating func append(_ frame: RawSpan, header: TrunkHeader, records: Int, to destination: SocketAddress) -> Bool {
        guard let number = train(for: destination, frame.byteCount) ?? open(destination, frame.byteCount) else { return false }
        let start = trains[number].length
        var slot = storage.mutableBytes(number, start..<(start &+ frame.byteCount))
        slot.copy(frame, to: 0)
        slot.set(header.hops &+ 1, at: 12)
        trains[number].length = start &+ frame.byteCount
        trains[number].frames &+= 1
        trains[number].records &+= records
        if frame.byteCount < trains[number].segmentSize { trains[number].isClosed = true }
        return true
    }

    /// The newest train to `destination`, if a frame of `length` may follow there. An older one must not take it: it would overtake.
    private func train(for destination: SocketAddress, _ length: Int) -> Int? {
        var number = count
        while number > drained {
            number &-= 1
            guard trains[number].destination == destination else { continue }
            let fits =
                !trains[number].isClosed && length <= trains[number].segmentSize && trains[number].frames < TrunkTrains.framesMax
                && trains[number].length &+ length <= TrunkFormat.datagramMax
            return fits ? number : nil
        }
        return nil
    }

    private mutating func open(_ destination: SocketAddress, _ length: Int) -> Int? {
        guard count < trains.count, length <= TrunkFormat.datagramMax else { return nil }
        trains[count] = Train(destination: destination, segmentSize: length)
        count &+= 1
        return count &- 1
    }

    /// What `nextDeparture` will give.
    public func peek() -> TrunkTransmit? {
        guard drained < count else { return nil }
        let train = trains[drained]
        return TrunkTransmit(
            destination: train.destination, segmentSize: train.frames > 1 ? train.segmentSize : 0, frames: train.frames,
            records: train.records)
    }

    /// Takes the next train where it lies. Its bytes stay as they are until the first `append` after the last train was taken.
    @_lifetime(&self)
    public mutating func nextDeparture() -> TrunkDeparture? {
        guard let transmit = peek() else { return nil }
        let number = drained
        drained &+= 1
        if drained == count {
            count = 0
            drained = 0
        }
        let start = unsafe UnsafeRawPointer(storage.address(number))
        let bytes = unsafe RawSpan(_unsafeStart: start, byteCount: trains[number].length)
        return unsafe _overrideLifetime(TrunkDeparture(transmit, bytes), mutating: &self)
    }
}
