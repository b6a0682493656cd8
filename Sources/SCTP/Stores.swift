// Storage that starts small, doubles when used up to a bound, and shrinks again when it is empty and its owner says so: an idle
// association costs little, and a busy one allocates nothing in its steady state.

import Primitives

/// A bounded first-in first-out queue with an index: element 0 is the oldest.
struct Ring<Element: BitwiseCopyable>: ~Copyable {
    private var slots: Slab<Element>
    private var head = 0
    private(set) var count = 0
    private let initial: Int
    let limit: Int
    private let blank: Element

    /// Both sizes are powers of two.
    init(initial: Int, limit: Int, blank: Element) {
        precondition(initial & (initial - 1) == 0 && limit & (limit - 1) == 0 && initial <= limit)
        slots = Slab(count: initial) { _ in blank }
        self.initial = initial
        self.limit = limit
        self.blank = blank
    }

    var isEmpty: Bool { count == 0 }
    var memory: Int { slots.count &* MemoryLayout<Element>.stride }

    subscript(index: Int) -> Element {
        _read {
            precondition(index >= 0 && index < count)
            yield slots[(head &+ index) & (slots.count &- 1)]
        }
        _modify {
            precondition(index >= 0 && index < count)
            yield &slots[(head &+ index) & (slots.count &- 1)]
        }
    }

    /// False: full.
    mutating func append(_ element: Element) -> Bool {
        if count == slots.count {
            guard count < limit else { return false }
            resize(to: count * 2)
        }
        slots[(head &+ count) & (slots.count &- 1)] = element
        count &+= 1
        return true
    }

    /// The oldest; there must be one.
    mutating func removeFirst() -> Element {
        precondition(count > 0)
        let element = slots[head]
        head = (head &+ 1) & (slots.count &- 1)
        count &-= 1
        return element
    }

    /// Back to the first size, if nothing is held.
    mutating func shrink() {
        if count == 0 && slots.count > initial { resize(to: initial) }
    }

    private mutating func resize(to size: Int) {
        var larger = Slab(count: size) { _ in blank }
        for index in 0..<count { larger[index] = slots[(head &+ index) & (slots.count &- 1)] }
        slots = larger
        head = 0
    }
}

/// The bytes of messages on their way out. A position counts all bytes ever appended; it stays valid until it is discarded.
struct ByteRing: ~Copyable {
    private var storage: ByteSlab
    private var start = 0
    private var end = 0
    private static let initial = 4096
    let limit: Int

    /// - Parameter limit: a power of two of at least 4,096.
    init(limit: Int) {
        precondition(limit & (limit - 1) == 0 && limit >= Self.initial)
        self.limit = limit
        storage = ByteSlab(count: 1, slotSize: Self.initial, isAligned: false)
    }

    var count: Int { end &- start }
    var memory: Int { storage.slotSize }

    /// Appends a copy and gives its position; nil: full.
    mutating func append(_ source: RawSpan) -> Int? {
        guard count &+ source.byteCount <= limit else { return nil }
        if count &+ source.byteCount > storage.slotSize { grow(for: count &+ source.byteCount) }
        let position = end
        let offset = position & (storage.slotSize &- 1)
        let first = min(source.byteCount, storage.slotSize &- offset)
        copy(source.bytes(0..<first), to: offset)
        copy(source.bytes(first..<source.byteCount), to: 0)
        end &+= source.byteCount
        return position
    }

    /// Appends `length` bytes from `position` to `output`, which must have room.
    func copy(_ position: Int, _ length: Int, to output: inout OutputRawSpan) {
        precondition(position >= start && position &+ length <= end)
        let offset = position & (storage.slotSize &- 1)
        let first = min(length, storage.slotSize &- offset)
        output.append(contentsOf: storage.bytes(0, offset..<offset &+ first))
        if first < length { output.append(contentsOf: storage.bytes(0, length &- first)) }
    }

    /// Forgets all before `position`.
    mutating func discard(before position: Int) {
        precondition(position >= start && position <= end)
        start = position
    }

    /// Back to the first size, if nothing is held.
    mutating func shrink() {
        if count == 0 && storage.slotSize > Self.initial { storage = ByteSlab(count: 1, slotSize: Self.initial, isAligned: false) }
    }

    private mutating func copy(_ source: RawSpan, to offset: Int) {
        guard source.byteCount > 0 else { return }
        var target = storage.mutableBytes(0, offset..<offset &+ source.byteCount)
        target.copy(source, to: 0)
    }

    private mutating func grow(for needed: Int) {
        var size = storage.slotSize
        while size < needed { size *= 2 }
        var larger = ByteSlab(count: 1, slotSize: size, isAligned: false)
        var position = start
        while position < end {
            let from = position & (storage.slotSize &- 1)
            let to = position & (size &- 1)
            let length = min(end &- position, storage.slotSize &- from, size &- to)
            var target = larger.mutableBytes(0, to..<to &+ length)
            target.copy(storage.bytes(0, from..<from &+ length), to: 0)
            position &+= length
        }
        storage = larger
    }
}

/// Blocks in a row that hold one message, or a part of it.
struct Chain: BitwiseCopyable {
    var head: Int32 = -1
    var tail: Int32 = -1
    var byteCount: Int32 = 0
    static var empty: Chain { Chain() }
}

/// What came in, in blocks of 256 bytes that are chained: parts come in any order and messages leave in another.
struct BlockStore: ~Copyable {
    struct Link: BitwiseCopyable {
        var next: Int32
        var length: UInt16
    }

    static let blockSize = 256
    private static let initial = 16
    private var bytes: ByteSlab
    private var links: Slab<Link>
    private var free: Int32 = 0
    private(set) var used = 0
    /// In blocks.
    let limit: Int

    init(limit: Int) {
        self.limit = max(limit, Self.initial)
        bytes = ByteSlab(count: Self.initial, slotSize: Self.blockSize, isAligned: false)
        links = Self.freeLinks(Self.initial, from: 0)
    }

    var memory: Int { bytes.count &* (Self.blockSize &+ MemoryLayout<Link>.stride) }
    var usedBytes: Int { used &* Self.blockSize }

    static func blocks(_ byteCount: Int) -> Int { (byteCount &+ blockSize &- 1) / blockSize }

    /// A copy of `payload`, which is not empty; nil: no room.
    mutating func store(_ payload: RawSpan) -> Chain? {
        let needed = Self.blocks(payload.byteCount)
        guard needed > 0, used &+ needed <= limit else { return nil }
        if used &+ needed > bytes.count { grow(for: used &+ needed) }
        var chain = Chain(byteCount: Int32(truncatingIfNeeded: payload.byteCount))
        var offset = 0
        while offset < payload.byteCount {
            let length = min(Self.blockSize, payload.byteCount &- offset)
            let block = free
            free = links[Int(block)].next
            used &+= 1
            var target = bytes.mutableBytes(Int(block), 0..<length)
            target.copy(payload.bytes(offset..<offset &+ length), to: 0)
            links[Int(block)] = Link(next: -1, length: UInt16(truncatingIfNeeded: length))
            if chain.tail >= 0 { links[Int(chain.tail)].next = block } else { chain.head = block }
            chain.tail = block
            offset &+= length
        }
        return chain
    }

    /// `a` followed by `b`; both are given up for the result.
    mutating func join(_ a: Chain, _ b: Chain) -> Chain {
        if a.head < 0 { return b }
        if b.head < 0 { return a }
        links[Int(a.tail)].next = b.head
        return Chain(head: a.head, tail: b.tail, byteCount: a.byteCount &+ b.byteCount)
    }

    mutating func remove(_ chain: Chain) {
        var block = chain.head
        while block >= 0 {
            let next = links[Int(block)].next
            links[Int(block)] = Link(next: free, length: 0)
            free = block
            used &-= 1
            block = next
        }
    }

    /// Back to the first size, if nothing is held.
    mutating func shrink() {
        guard used == 0 && bytes.count > Self.initial else { return }
        bytes = ByteSlab(count: Self.initial, slotSize: Self.blockSize, isAligned: false)
        links = Self.freeLinks(Self.initial, from: 0)
        free = 0
    }

    /// A copy of the whole chain, for messages that leave and for set-up.
    func array(_ chain: Chain) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: Int(chain.byteCount)) { buffer, count in
            var output = unsafe OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
            append(chain, to: &output)
            count = unsafe output.finalize(for: UnsafeMutableRawBufferPointer(buffer))
        }
    }

    /// Appends the whole chain, which must fit.
    func append(_ chain: Chain, to output: inout OutputRawSpan) {
        var block = chain.head
        while block >= 0 {
            let link = links[Int(block)]
            output.append(contentsOf: bytes.bytes(Int(block), Int(link.length)))
            block = link.next
        }
    }

    /// All free, in order, the last one pointing at none.
    private static func freeLinks(_ count: Int, from first: Int) -> Slab<Link> {
        Slab(count: count) { index in
            Link(next: index >= first && index < count - 1 ? Int32(truncatingIfNeeded: index + 1) : -1, length: 0)
        }
    }

    private mutating func grow(for needed: Int) {
        let old = bytes.count
        var count = old
        while count < needed { count *= 2 }
        count = min(count, limit)
        var largerBytes = ByteSlab(count: count, slotSize: Self.blockSize, isAligned: false)
        var largerLinks = Self.freeLinks(count, from: old)
        for index in 0..<old {
            largerLinks[index] = links[index]
            var target = largerBytes.mutableBytes(index, 0..<Self.blockSize)
            target.copy(bytes.bytes(index, Self.blockSize), to: 0)
        }
        // The new blocks come after what is left of the old free list.
        largerLinks[count - 1].next = free
        free = Int32(truncatingIfNeeded: old)
        bytes = largerBytes
        links = largerLinks
    }
}
