// What is to be sent, and what was sent and is not acknowledged: chunks in the order of their TSNs.

import Primitives

/// In bytes: messages accepted and not yet acknowledged.
let sendBufferLimit = 1 << 20
/// Kept free of messages for the few control messages of channels.
private let controlReserve = 4096
/// Small messages cost a chunk each: no more than this.
private let chunkLimit = 8192
private let controlChunkReserve = 256

enum ChunkState: UInt8, BitwiseCopyable {
    case waiting
    case inFlight
    /// Thought to be lost: to be sent again.
    case lost
    /// Acknowledged in a gap block; the peer may still take that back.
    case acknowledged
    /// Given up (RFC 3758): the peer is told to skip it.
    case abandoned
}

struct OutgoingChunk: BitwiseCopyable {
    /// In the byte ring.
    var position: Int
    var queuedAt: Instant
    var sentAt: Instant = .zero
    var protocolID: UInt32
    var length: UInt16
    var stream: UInt16
    var sequence: UInt16
    var flags: UInt8
    var state = ChunkState.waiting
    var misses: UInt8 = 0
    var sends: UInt8 = 0

    static var blank: OutgoingChunk {
        OutgoingChunk(position: 0, queuedAt: .zero, protocolID: 0, length: 0, stream: 0, sequence: 0, flags: 0)
    }
    var has: (beginning: Bool, end: Bool, unordered: Bool) {
        (flags & DataFlag.beginning != 0, flags & DataFlag.end != 0, flags & DataFlag.unordered != 0)
    }
}

/// TSNs are given when a message is queued: the queue is sent strictly in order.
struct SendQueue: ~Copyable {
    /// Chunk 0 has this TSN; all before it are acknowledged.
    private(set) var firstTSN: UInt32
    var chunks = Ring(initial: 16, limit: chunkLimit, blank: OutgoingChunk.blank)
    private var bytes = ByteRing(limit: sendBufferLimit)
    /// Chunks that were sent at least once, or skipped: the first so many.
    private(set) var sentCount = 0
    /// In bytes of user data.
    private(set) var flight = 0
    private(set) var lostCount = 0
    /// No chunk before this index is lost.
    private var lostHint = 0

    init(firstTSN: UInt32) { self.firstTSN = firstTSN }

    var byteCount: Int { bytes.count }
    var memory: Int { chunks.memory &+ bytes.memory }
    var isEmpty: Bool { chunks.isEmpty }
    var cumulativeAck: UInt32 { firstTSN &- 1 }
    /// The TSN of the next message's first chunk.
    var nextTSN: UInt32 { firstTSN &+ UInt32(truncatingIfNeeded: chunks.count) }
    /// The highest TSN that was sent.
    var highestSent: UInt32 { firstTSN &+ UInt32(truncatingIfNeeded: sentCount) &- 1 }
    var hasUnsent: Bool { sentCount < chunks.count }

    func tsn(_ index: Int) -> UInt32 { firstTSN &+ UInt32(truncatingIfNeeded: index) }

    /// Cuts a message into chunks; how many, or nil when it does not fit.
    mutating func append(
        _ message: RawSpan, stream: UInt16, sequence: UInt16, protocolID: UInt32, isUnordered: Bool, isControl: Bool, fragment: Int,
        at now: Instant
    ) -> Int? {
        let count = max(1, (message.byteCount &+ fragment &- 1) / fragment)
        guard bytes.count &+ message.byteCount <= sendBufferLimit - (isControl ? 0 : controlReserve),
            chunks.count &+ count <= chunkLimit - (isControl ? 0 : controlChunkReserve),
            let position = bytes.append(message)
        else { return nil }
        for index in 0..<count {
            let offset = index &* fragment
            var flags: UInt8 = isUnordered ? DataFlag.unordered : 0
            if index == 0 { flags |= DataFlag.beginning }
            if index == count &- 1 { flags |= DataFlag.end }
            let appended = chunks.append(
                OutgoingChunk(
                    position: position &+ offset, queuedAt: now, protocolID: protocolID,
                    length: UInt16(truncatingIfNeeded: min(fragment, message.byteCount &- offset)), stream: stream, sequence: sequence,
                    flags: flags))
            assert(appended)
        }
        return count
    }

    func copyPayload(_ index: Int, to output: inout OutputRawSpan) {
        bytes.copy(chunks[index].position, Int(chunks[index].length), to: &output)
    }

    /// The chunk leaves now, for the first time or again.
    mutating func markSent(_ index: Int, at now: Instant) {
        if chunks[index].state == .lost { lostCount &-= 1 }
        chunks[index].state = .inFlight
        chunks[index].sentAt = now
        chunks[index].misses = 0
        if chunks[index].sends < .max { chunks[index].sends &+= 1 }
        flight &+= Int(chunks[index].length)
        if index >= sentCount { sentCount = index &+ 1 }
    }

    mutating func markLost(_ index: Int) {
        guard chunks[index].state == .inFlight || chunks[index].state == .acknowledged else { return }
        if chunks[index].state == .inFlight { flight &-= Int(chunks[index].length) }
        chunks[index].state = .lost
        lostCount &+= 1
        lostHint = min(lostHint, index)
    }

    /// The bytes that left the network by this; none if it was acknowledged before.
    mutating func markAcknowledged(_ index: Int) -> Int {
        let length = Int(chunks[index].length)
        switch chunks[index].state {
        case .inFlight: flight &-= length
        case .lost: lostCount &-= 1
        case .waiting, .acknowledged, .abandoned: return 0
        }
        chunks[index].state = .acknowledged
        return length
    }

    /// The peer threw away what it had acknowledged in a gap block.
    mutating func takeBackAcknowledgement(_ index: Int) {
        guard chunks[index].state == .acknowledged else { return }
        chunks[index].state = .inFlight
        flight &+= Int(chunks[index].length)
    }

    mutating func abandon(_ index: Int) {
        switch chunks[index].state {
        case .inFlight: flight &-= Int(chunks[index].length)
        case .lost: lostCount &-= 1
        case .waiting, .acknowledged, .abandoned: break
        }
        chunks[index].state = .abandoned
    }

    /// Chunks that were given up count as sent when their turn comes.
    mutating func skipAbandoned() {
        while sentCount < chunks.count && chunks[sentCount].state == .abandoned { sentCount &+= 1 }
    }

    /// The first lost chunk from `index` on.
    mutating func nextLost(from index: Int) -> Int? {
        guard lostCount > 0 else { return nil }
        var candidate = max(index, lostHint)
        while candidate < sentCount {
            if chunks[candidate].state == .lost {
                if index <= lostHint { lostHint = candidate }
                return candidate
            }
            candidate &+= 1
        }
        return nil
    }

    mutating func shrink() {
        chunks.shrink()
        bytes.shrink()
    }

    /// Takes the oldest chunk away: it is acknowledged for good.
    mutating func removeFirst() -> OutgoingChunk {
        let chunk = chunks.removeFirst()
        assert(chunk.state != .inFlight && chunk.state != .lost)
        firstTSN &+= 1
        if sentCount > 0 { sentCount &-= 1 }
        if lostHint > 0 { lostHint &-= 1 }
        bytes.discard(before: chunk.position &+ Int(chunk.length))
        return chunk
    }
}
