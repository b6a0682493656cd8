// Where packets wait for their turn: small blocks in chains, so that a 60-byte packet does not hold the room of a 1,275-byte one.

import Primitives

/// A fixed number of blocks, chained where a packet needs more than one. Full is an ordinary answer.
struct PacketStore: ~Copyable {
    /// One packet's chain.
    struct Packet {
        var first: Int16 = -1
        var byteCount = 0
    }

    static let blockSize = 128

    private var blocks: ByteSlab
    /// The block after each, or −1; free blocks are a chain too.
    private var next: SampleBuffer<Int16>
    private var firstFree: Int16 = 0
    private(set) var freeCount: Int

    init(blockCount: Int) {
        precondition((1...Int(Int16.max)).contains(blockCount))
        blocks = ByteSlab(count: blockCount, slotSize: Self.blockSize)
        next = SampleBuffer(count: blockCount, repeating: -1)
        freeCount = blockCount
        for index in 0..<(blockCount - 1) { next[index] = Int16(index + 1) }
    }

    /// Keeps a copy of `bytes`; nil when there is no room.
    mutating func insert(_ bytes: RawSpan) -> Packet? {
        let needed = max(1, (bytes.byteCount + Self.blockSize - 1) / Self.blockSize)
        guard needed <= freeCount else { return nil }
        let packet = Packet(first: firstFree, byteCount: bytes.byteCount)
        var last = Int(firstFree)
        for index in 0..<needed {
            last = Int(firstFree)
            let start = index * Self.blockSize
            let count = min(Self.blockSize, bytes.byteCount - start)
            var block = blocks.mutableBytes(last, 0..<count)
            block.copy(bytes.bytes(start..<(start + count)), to: 0)
            firstFree = next[last]
        }
        next[last] = -1
        freeCount -= needed
        return packet
    }

    /// Appends the packet to `output`; false, and nothing appended, when it does not fit.
    func copy(_ packet: Packet, into output: inout OutputRawSpan) -> Bool {
        guard packet.byteCount <= output.freeCapacity else { return false }
        var block = packet.first
        var left = packet.byteCount
        while left > 0, block >= 0 {
            let count = min(left, Self.blockSize)
            output.append(contentsOf: blocks.bytes(Int(block), count))
            left -= count
            block = next[Int(block)]
        }
        return true
    }

    mutating func remove(_ packet: Packet) {
        var block = packet.first
        while block >= 0 {
            let following = next[Int(block)]
            next[Int(block)] = firstFree
            firstFree = block
            freeCount += 1
            block = following
        }
    }
}
