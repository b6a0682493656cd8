// Pings and pongs that wait to leave. A few a turn are enough to measure by; the rest of a flood of pings goes unanswered.

import Primitives
import Trunk

struct ProbeQueue: ~Copyable {
    private var frames = ByteSlab(count: Self.capacity, slotSize: Self.slotSize)
    private var destinations = Slab(count: Self.capacity) { _ in SocketAddress(.v4Any, port: 0) }
    private var count = 0

    private static let capacity = 64
    private static let slotSize = 64
    private static let frameSize = TrunkFormat.frameHeaderSize + TrunkFormat.recordHeaderSize

    var isEmpty: Bool { count == 0 }
    var isFull: Bool { count == Self.capacity }

    /// There must be room.
    mutating func append(_ probe: TrunkProbe, _ header: TrunkHeader, _ key: borrowing TrunkKey, to destination: SocketAddress) {
        var frame = frames.mutableBytes(count, 0..<Self.slotSize)
        _ = TrunkWriter.write(probe, header, key: key, to: &frame)
        destinations[count] = destination
        count &+= 1
    }

    /// What `next` will give.
    func peek() -> TrunkTransmit? {
        guard count > 0 else { return nil }
        return TrunkTransmit(destination: destinations[count &- 1], segmentSize: 0, frames: 1, records: 1)
    }

    /// The newest one. Its bytes stay as they are until the next `append`.
    @_lifetime(&self)
    mutating func next() -> TrunkDeparture? {
        guard let transmit = peek() else { return nil }
        count &-= 1
        let start = unsafe UnsafeRawPointer(frames.address(count))
        let bytes = unsafe RawSpan(_unsafeStart: start, byteCount: Self.frameSize)
        return unsafe _overrideLifetime(TrunkDeparture(transmit, bytes), mutating: &self)
    }
}
