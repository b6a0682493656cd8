// What came in: chunks by TSN until their message is whole, then the message.

import Primitives

/// A DATA chunk's header (RFC 9260 section 3.3.1).
struct DataHeader: BitwiseCopyable {
    var tsn: UInt32
    var stream: UInt16
    var sequence: UInt16
    var protocolID: UInt32
    var flags: UInt8

    var isBeginning: Bool { flags & DataFlag.beginning != 0 }
    var isEnd: Bool { flags & DataFlag.end != 0 }
    var isUnordered: Bool { flags & DataFlag.unordered != 0 }

    /// The chunk has at least 17 bytes.
    init(_ chunk: RawSpan) {
        flags = chunk.byte(1)
        tsn = chunk.u32(4)
        stream = chunk.u16(8)
        sequence = chunk.u16(10)
        protocolID = chunk.u32(12)
    }
    init() {
        (tsn, stream, sequence, protocolID, flags) = (0, 0, 0, 0, 0)
    }
}

/// A whole message.
struct IncomingMessage: BitwiseCopyable {
    var stream: UInt16
    var sequence: UInt16
    var protocolID: UInt32
    var isUnordered: Bool
    var chain: Chain
}

enum ArrivalResult: UInt8 {
    case accepted
    case duplicate
    /// No room, or too far ahead: as if it had been lost.
    case dropped
}

enum AdvanceResult {
    case nothing
    case message(IncomingMessage)
    /// Fragments that do not fit together.
    case violation
    case tooLarge
}

/// Chunks above the cumulative TSN lie in a table by TSN; the message that the cumulative TSN is in the middle of is being assembled.
/// All of one stream's messages in TSN order are in the order of that stream too, so the sequence number only decides what may overtake
/// a gap.
struct ReceiveWindow: ~Copyable {
    enum SlotState: UInt8, BitwiseCopyable { case empty, held, delivered }
    struct Slot: BitwiseCopyable {
        var state = SlotState.empty
        var header = DataHeader()
        var chain = Chain.empty
    }

    /// The furthest a TSN may be ahead of the cumulative one.
    private static let span = 4096
    private static let initialSlots = 32
    /// The most fragments of a message that overtakes a gap, on either side of the one that arrived.
    private static let overtakingFragments = 256

    private var slots = Slab(count: Self.initialSlots) { _ in Slot() }
    private(set) var cumulative: UInt32 = 0
    /// The highest TSN that came in.
    private(set) var highest: UInt32 = 0
    var store: BlockStore
    private let maxMessageSize: Int
    /// What is announced when nothing waits, in bytes.
    private let announced: Int

    private var assembly = DataHeader()
    private var assembled = Chain.empty
    private var isAssembling = false
    /// The rest of a message whose beginning the peer has given up is thrown away.
    private var isSkipping = false
    /// Chunks that are missing up to here will not come.
    private var skipTarget: UInt32?

    init(maxMessageSize: Int) {
        self.maxMessageSize = maxMessageSize
        // Two messages of the largest kind: one being taken, one coming in.
        announced = max(2 * maxMessageSize, 131_072)
        // A chunk may leave most of its last block empty, so the bound on memory is half as much again.
        store = BlockStore(limit: BlockStore.blocks(announced + announced / 2))
    }

    /// Begins anew: the peer's first TSN is known, or it has restarted. Messages that were given out stay in the store.
    mutating func restart(first: UInt32) {
        while cumulative != highest {
            cumulative &+= 1
            store.remove(slots[index(cumulative)].chain)
        }
        slots = Slab(count: Self.initialSlots) { _ in Slot() }
        dropAssembly()
        isSkipping = false
        skipTarget = nil
        cumulative = first &- 1
        highest = first &- 1
    }

    var memory: Int { store.memory &+ slots.count &* MemoryLayout<Slot>.stride }
    /// For a_rwnd.
    var available: Int { max(0, announced &- store.usedBytes) }
    var capacity: Int { announced }
    var hasGap: Bool { highest != cumulative }

    /// - Parameter payload: not empty.
    mutating func insert(_ header: DataHeader, _ payload: RawSpan) -> ArrivalResult {
        guard isBefore(cumulative, header.tsn) else { return .duplicate }
        let distance = Int(header.tsn &- cumulative)
        guard distance <= Self.span else { return .dropped }
        if distance > slots.count { grow(for: distance) }
        guard slots[index(header.tsn)].state == .empty else { return .duplicate }
        // Only the next chunk in order may use the last of the memory: it is the one that lets the others go.
        let mayUse = distance == 1 ? store.limit : store.limit - store.limit / 6
        guard store.used &+ BlockStore.blocks(payload.byteCount) <= mayUse, let chain = store.store(payload) else { return .dropped }
        slots[index(header.tsn)] = Slot(state: .held, header: header, chain: chain)
        if isBefore(highest, header.tsn) { highest = header.tsn }
        return .accepted
    }

    /// Moves the cumulative TSN over chunks that are there, or that were given up, to the next message. Call until `.nothing`.
    mutating func advance() -> AdvanceResult {
        while cumulative != highest {
            let next = cumulative &+ 1
            let place = index(next)
            let slot = slots[place]
            if slot.state == .empty {
                guard let target = skipTarget, !isBefore(target, next) else { return .nothing }
                dropAssembly()
                cumulative = next
                passSkipTarget()
                continue
            }
            slots[place] = Slot()
            cumulative = next
            if slot.state == .delivered {
                if isAssembling { return .violation }
                passSkipTarget()
                continue
            }
            let result = take(slot)
            passSkipTarget()
            if case .nothing = result { continue }
            return result
        }
        return .nothing
    }

    private mutating func dropAssembly() {
        if isAssembling { store.remove(assembled) }
        assembled = .empty
        isAssembling = false
        isSkipping = true
    }

    /// A peer skips to the last chunk of a message that it gave up: what is still being assembled there is that one.
    private mutating func passSkipTarget() {
        guard cumulative == skipTarget else { return }
        skipTarget = nil
        if isAssembling { dropAssembly() }
    }

    private mutating func take(_ slot: Slot) -> AdvanceResult {
        let header = slot.header
        if header.isBeginning {
            guard !isAssembling else {
                store.remove(slot.chain)
                return .violation
            }
            isSkipping = false
            isAssembling = true
            assembly = header
            assembled = .empty
        } else if !isAssembling {
            store.remove(slot.chain)
            if header.isEnd && isSkipping {
                isSkipping = false
                return .nothing
            }
            return isSkipping ? .nothing : .violation
        }
        assembled = store.join(assembled, slot.chain)
        guard header.stream == assembly.stream, header.isUnordered == assembly.isUnordered,
            header.isUnordered || header.sequence == assembly.sequence
        else { return .violation }
        guard Int(assembled.byteCount) <= maxMessageSize else { return .tooLarge }
        guard header.isEnd else { return .nothing }
        isAssembling = false
        let message = IncomingMessage(
            stream: assembly.stream, sequence: assembly.sequence, protocolID: assembly.protocolID, isUnordered: assembly.isUnordered,
            chain: assembled)
        assembled = .empty
        return .message(message)
    }

    /// The whole message around `tsn`, which is above a gap, if it may overtake: unordered, or the next one of its stream.
    /// - Parameter expected: the next sequence number of the stream.
    mutating func overtakingMessage(around tsn: UInt32, expected: UInt16) -> IncomingMessage? {
        guard isBefore(cumulative, tsn), slots[index(tsn)].state == .held else { return nil }
        let header = slots[index(tsn)].header
        guard header.isUnordered || header.sequence == expected else { return nil }
        guard var first = edge(of: header, from: tsn, step: 0 &- 1, flag: DataFlag.beginning),
            let last = edge(of: header, from: tsn, step: 1, flag: DataFlag.end)
        else { return nil }
        var message = IncomingMessage(
            stream: header.stream, sequence: header.sequence, protocolID: slots[index(first)].header.protocolID,
            isUnordered: header.isUnordered, chain: .empty)
        var total = 0
        var probe = first
        while true {
            total &+= Int(slots[index(probe)].chain.byteCount)
            if probe == last { break }
            probe &+= 1
        }
        // Too large: found out again, and punished, when the gap is filled.
        guard total <= maxMessageSize else { return nil }
        while true {
            message.chain = store.join(message.chain, slots[index(first)].chain)
            slots[index(first)].chain = .empty
            slots[index(first)].state = .delivered
            if first == last { return message }
            first &+= 1
        }
    }

    /// The TSN of the fragment with `flag`, going from `tsn` by `step` over fragments of the same message.
    private func edge(of message: DataHeader, from tsn: UInt32, step: UInt32, flag: UInt8) -> UInt32? {
        var tsn = tsn
        for hops in 0..<Self.overtakingFragments {
            guard isBefore(cumulative, tsn), !isBefore(highest, tsn) else { return nil }
            let slot = slots[index(tsn)]
            guard slot.state == .held, slot.header.stream == message.stream, slot.header.isUnordered == message.isUnordered,
                slot.header.isUnordered || slot.header.sequence == message.sequence
            else { return nil }
            // A second beginning, or an end before ours: another message.
            if hops > 0 && flag == DataFlag.beginning && slot.header.isEnd { return nil }
            if hops > 0 && flag == DataFlag.end && slot.header.isBeginning { return nil }
            if slot.header.flags & flag != 0 { return tsn }
            tsn &+= step
        }
        return nil
    }

    /// The peer gave up what is missing up to `newCumulative` (RFC 3758). Whole messages among it stay: call `advance` afterwards.
    /// False: nothing new, or further than anything the peer can have sent.
    mutating func skip(to newCumulative: UInt32) -> Bool {
        guard isBefore(cumulative, newCumulative) else { return false }
        let distance = Int(newCumulative &- cumulative)
        guard distance <= Self.span else { return false }
        if distance > slots.count { grow(for: distance) }
        if isBefore(highest, newCumulative) { highest = newCumulative }
        if let target = skipTarget, !isBefore(target, newCumulative) { return false }
        skipTarget = newCumulative
        return true
    }

    /// Calls `body` with start and end of each run of chunks above the cumulative TSN, as distances from it, until it returns false.
    func forEachGapBlock(_ body: (_ start: UInt16, _ end: UInt16) -> Bool) {
        var distance = 1
        let last = Int(highest &- cumulative)
        while distance <= last {
            guard isThere(distance) else {
                distance &+= 1
                continue
            }
            let start = distance
            while distance < last && isThere(distance &+ 1) { distance &+= 1 }
            guard body(UInt16(truncatingIfNeeded: start), UInt16(truncatingIfNeeded: distance)) else { return }
            distance &+= 1
        }
    }

    mutating func shrink() {
        store.shrink()
        if !hasGap && slots.count > Self.initialSlots { slots = Slab(count: Self.initialSlots) { _ in Slot() } }
    }

    private func isThere(_ distance: Int) -> Bool {
        slots[index(cumulative &+ UInt32(truncatingIfNeeded: distance))].state != .empty
    }

    private func index(_ tsn: UInt32) -> Int { Int(truncatingIfNeeded: tsn) & (slots.count &- 1) }

    private mutating func grow(for distance: Int) {
        var count = slots.count
        while count < distance { count *= 2 }
        var larger = Slab(count: count) { _ in Slot() }
        var tsn = cumulative
        while tsn != highest {
            tsn &+= 1
            larger[Int(truncatingIfNeeded: tsn) & (count - 1)] = slots[index(tsn)]
        }
        slots = larger
    }
}
