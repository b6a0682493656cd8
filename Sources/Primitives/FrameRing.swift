// A bounded first-in first-out queue of small byte frames: encoded audio on its way, datagrams that wait for a turn.

/// Frames of any length up to 65,535 bytes in one block, each with a stamp and a tag of its owner's choosing.
/// A frame that does not fit is refused. The block is there from the first frame on; nothing else is allocated.
public struct FrameRing: ~Copyable {
    /// What is known of a frame without its bytes.
    public struct Header: Sendable {
        /// The owner's time for the frame, for example when it is due.
        public var stamp: Instant
        /// The owner's value, for example an RTP timestamp.
        public var tag: UInt64
        public var byteCount: Int
    }

    /// Before each frame: stamp, tag, length, as they are in memory.
    private static let headerSize = 18

    private let capacity: Int
    private var storage = Box<ByteSlab>()
    private var head = 0
    private var used = 0
    public private(set) var count = 0
    /// Of the oldest frame; says nothing when there is none.
    private var oldest = Header(stamp: .never, tag: 0, byteCount: 0)

    /// - Parameter byteCapacity: the sum of all frames and 18 bytes for each.
    public init(byteCapacity: Int) { capacity = max(byteCapacity, 0) }

    public var isEmpty: Bool { count == 0 }

    /// The stamp of the oldest frame; `.never` when there is none.
    public var nextStamp: Instant { count > 0 ? oldest.stamp : .never }

    /// The oldest frame's header.
    public var first: Header? { count > 0 ? oldest : nil }

    /// Appends a copy of `frame`; false when it does not fit.
    public mutating func append(_ frame: RawSpan, stamp: Instant, tag: UInt64) -> Bool {
        let size = Self.headerSize + frame.byteCount
        guard frame.byteCount <= 0xFFFF, used + size <= capacity else { return false }
        if storage.isEmpty { open() }
        let header = Header(stamp: stamp, tag: tag, byteCount: frame.byteCount)
        let start = wrapped(head + used)
        write(header, at: start)
        put(frame, at: wrapped(start + Self.headerSize))
        if count == 0 { oldest = header }
        used += size
        count += 1
        return true
    }

    /// Takes the oldest frame, appending its bytes to `output`; nil when there is none. A frame larger than `output` is cut off and lost.
    public mutating func removeFirst(into output: inout OutputRawSpan) -> Header? {
        guard count > 0 else { return nil }
        let header = oldest
        let start = wrapped(head + Self.headerSize)
        let length = min(header.byteCount, output.freeCapacity)
        let whole = min(length, capacity - start)
        output.append(contentsOf: storage.value.bytes(0, start..<start + whole))
        if whole < length { output.append(contentsOf: storage.value.bytes(0, 0..<length - whole)) }
        dropFirst()
        return header
    }

    /// Forgets the oldest frame.
    public mutating func removeFirst() {
        if count > 0 { dropFirst() }
    }

    public mutating func removeAll() {
        head = 0
        used = 0
        count = 0
    }
}

extension FrameRing {
    @inline(never)
    private mutating func open() { storage = Box(ByteSlab(count: 1, slotSize: max(64, (capacity + 63) / 64 * 64), isAligned: false)) }

    private mutating func dropFirst() {
        let size = Self.headerSize + oldest.byteCount
        head = wrapped(head + size)
        used -= size
        count -= 1
        if count > 0 { oldest = readHeader(at: head) }
    }

    /// Copies `bytes` to `position`, and what does not fit there to the beginning.
    private mutating func put(_ bytes: RawSpan, at position: Int) {
        let whole = min(bytes.byteCount, capacity - position)
        if whole > 0 {
            var target = storage.value.mutableBytes(0, position..<position + whole)
            target.copy(bytes.bytes(0..<whole), to: 0)
        }
        guard whole < bytes.byteCount else { return }
        var rest = storage.value.mutableBytes(0, 0..<bytes.byteCount - whole)
        rest.copy(bytes.bytes(whole..<bytes.byteCount), to: 0)
    }

    private mutating func write(_ header: Header, at position: Int) {
        if position + Self.headerSize <= capacity {
            var target = storage.value.mutableBytes(0, position..<position + Self.headerSize)
            Self.store(header, into: &target)
        } else {
            var bytes = InlineArray<18, UInt8>(repeating: 0)
            var span = bytes.mutableSpan
            var target = unsafe span.mutableBytes
            Self.store(header, into: &target)
            unsafe put(bytes.span.bytes, at: position)
        }
    }

    private static func store(_ header: Header, into target: inout MutableRawSpan) {
        target.set(header.stamp.nanoseconds, at: 0)
        target.set(header.tag, at: 8)
        target.set(UInt16(truncatingIfNeeded: header.byteCount), at: 16)
    }

    private func readHeader(at position: Int) -> Header {
        if position + Self.headerSize <= capacity {
            return Self.header(storage.value.bytes(0, position..<position + Self.headerSize))
        }
        var bytes = InlineArray<18, UInt8>(repeating: 0)
        for index in 0..<Self.headerSize { bytes[index] = storage.value.bytes(0, capacity).byte(wrapped(position + index)) }
        return unsafe Self.header(bytes.span.bytes)
    }

    private static func header(_ bytes: RawSpan) -> Header {
        Header(stamp: Instant(nanoseconds: bytes.u64(0)), tag: bytes.u64(8), byteCount: Int(bytes.u16(16)))
    }

    private func wrapped(_ position: Int) -> Int { position >= capacity ? position - capacity : position }
}
