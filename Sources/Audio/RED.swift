// Redundant audio (RFC 2198): each packet carries copies of the ones before it.

import Primitives

/// Why a payload is not redundant audio.
public enum REDError: UInt8, Error, CaseIterable, Sendable {
    /// It ends within the block headers.
    case truncated
    /// A block reaches beyond the end.
    case overrun
    /// More copies than anybody sends.
    case tooManyBlocks
}

/// One block of a redundant payload.
public struct REDBlock: Sendable, Equatable {
    public var payloadType: UInt8
    /// How many ticks of the RTP clock before the packet's timestamp, 0…16,383; 0 for the primary block.
    public var timestampOffset: UInt32
    /// Its bytes in the payload that was parsed. May be empty.
    public var bytes: Range<Int>

    public init(payloadType: UInt8, timestampOffset: UInt32, bytes: Range<Int>) {
        self.payloadType = payloadType
        self.timestampOffset = timestampOffset
        self.bytes = bytes
    }
}

/// The blocks of a redundant payload: copies from the oldest to the newest, and last the primary one, which is the packet's own.
public struct REDPacket: Sendable {
    /// Copies in one packet; browsers send one or two.
    public static let copiesMax = 8

    private var blocks: InlineArray<9, REDBlock>
    public private(set) var copyCount = 0

    public init(parsing payload: RawSpan) throws(REDError) {
        blocks = InlineArray(repeating: REDBlock(payloadType: 0, timestampOffset: 0, bytes: 0..<0))
        var at = 0
        while true {
            guard at < payload.byteCount else { throw .truncated }
            guard payload.byte(at) & 0x80 != 0 else { break }
            guard copyCount < Self.copiesMax else { throw .tooManyBlocks }
            guard at + 4 <= payload.byteCount else { throw .truncated }
            let header = payload.u32(at)
            blocks[copyCount] = REDBlock(
                payloadType: UInt8(truncatingIfNeeded: header >> 24 & 0x7F), timestampOffset: header >> 10 & 0x3FFF,
                bytes: 0..<Int(header & 0x3FF))
            copyCount += 1
            at += 4
        }
        let primaryType = payload.byte(at)
        at += 1
        for index in 0..<copyCount {
            let length = blocks[index].bytes.count
            guard length <= payload.byteCount - at else { throw .overrun }
            blocks[index].bytes = at..<(at + length)
            at += length
        }
        blocks[copyCount] = REDBlock(payloadType: primaryType, timestampOffset: 0, bytes: at..<payload.byteCount)
    }

    public var primary: REDBlock { blocks[copyCount] }

    /// The copy of the packet `distance` packets before this one, 1…`copyCount`.
    public func copy(distance: Int) -> REDBlock {
        precondition((1...copyCount).contains(distance))
        return blocks[copyCount - distance]
    }
}

/// Puts copies of the last packets into the next one.
struct REDWriter: ~Copyable {
    /// Of a redundant payload: with headers around it still one packet on any path. Copies that would exceed it are left out, the oldest first.
    static let sizeMax = 1_150
    private static let offsetMax: UInt32 = 0x3FFF
    private static let lengthMax = 0x3FF

    let payloadType: UInt8
    private let distance: Int
    private var packets: ByteSlab
    /// Newest last.
    private var kept: Slab<REDCopy>
    private var newest = 0

    /// - Parameters:
    ///   - payloadType: of what is inside: Opus.
    ///   - distance: how many copies, 1…4.
    init(payloadType: UInt8, distance: Int) {
        self.payloadType = payloadType & 0x7F
        self.distance = min(max(distance, 1), 4)
        packets = ByteSlab(count: self.distance, slotSize: Self.lengthMax + 1)
        kept = Slab(count: self.distance) { _ in REDCopy() }
    }

    /// Appends a redundant payload around `packet` to `output`; false, and nothing written, when it does not fit.
    mutating func write(_ packet: RawSpan, timestamp: UInt32, into output: inout OutputRawSpan) -> Bool {
        let room = min(output.freeCapacity, Self.sizeMax)
        var size = 1 + packet.byteCount
        guard size <= output.freeCapacity else { return false }
        var copies = 0
        while copies < distance, let length = length(back: copies, timestamp), size + 4 + length <= room {
            size += 4 + length
            copies += 1
        }
        for back in stride(from: copies - 1, through: 0, by: -1) {
            let copy = kept[slot(back)]
            output.append(UInt32(0x80 | payloadType) << 24 | (timestamp &- copy.timestamp) << 10 | UInt32(copy.byteCount))
        }
        output.append(payloadType)
        for back in stride(from: copies - 1, through: 0, by: -1) {
            output.append(contentsOf: packets.bytes(slot(back), kept[slot(back)].byteCount))
        }
        output.append(contentsOf: packet)
        keep(packet, timestamp)
        return true
    }

    /// The length of the copy `back` packets before the last one, when it may travel along.
    private func length(back: Int, _ timestamp: UInt32) -> Int? {
        let copy = kept[slot(back)]
        let offset = timestamp &- copy.timestamp
        guard copy.byteCount > 0, offset > 0, offset <= Self.offsetMax else { return nil }
        return copy.byteCount
    }

    private mutating func keep(_ packet: RawSpan, _ timestamp: UInt32) {
        newest = (newest + 1) % distance
        let fits = packet.byteCount <= Self.lengthMax
        kept[newest] = REDCopy(byteCount: fits ? packet.byteCount : 0, timestamp: timestamp)
        guard fits else { return }
        var bytes = packets.mutableBytes(newest, 0..<packet.byteCount)
        bytes.copy(packet, to: 0)
    }

    private func slot(_ back: Int) -> Int { (newest + distance - back) % distance }
}

struct REDCopy {
    /// 0 when there is none.
    var byteCount = 0
    var timestamp: UInt32 = 0
}
