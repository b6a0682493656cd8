// A bounded first-in first-out queue of small byte frames: encoded audio on its way, datagrams that wait for a turn.

/// Frames of any length up to 65,535 bytes in one preallocated block, each with a stamp and a tag of its owner's choosing.
/// A frame that does not fit is refused; nothing is allocated after `init`.
public struct FrameRing: ~Copyable {
    /// What is known of a frame without its bytes.
    public struct Header: Sendable {
        /// The owner's time for the frame, for example when it is due.
        public var stamp: Instant
        /// The owner's value, for example an RTP timestamp.
        public var tag: UInt64
        public var byteCount: Int
    }

    private static let headerSize = 18

    private var storage: [UInt8]
    private var head = 0
    private var used = 0
    public private(set) var count = 0

    /// - Parameter byteCapacity: the sum of all frames and 18 bytes for each.
    public init(byteCapacity: Int) {
        storage = [UInt8](repeating: 0, count: byteCapacity)
    }

    public var isEmpty: Bool { count == 0 }

    /// Appends a copy of `frame`; false when it does not fit.
    public mutating func append(_ frame: RawSpan, stamp: Instant, tag: UInt64) -> Bool {
        let size = Self.headerSize + frame.byteCount
        guard frame.byteCount <= 0xFFFF, used + size <= storage.count else { return false }
        var position = wrapped(head + used)
        func put(_ byte: UInt8, _ storage: inout [UInt8]) {
            storage[position] = byte
            position += 1
            if position == storage.count { position = 0 }
        }
        put(UInt8(truncatingIfNeeded: frame.byteCount >> 8), &storage)
        put(UInt8(truncatingIfNeeded: frame.byteCount), &storage)
        for shift in stride(from: 56, through: 0, by: -8) { put(UInt8(truncatingIfNeeded: stamp.nanoseconds >> UInt64(shift)), &storage) }
        for shift in stride(from: 56, through: 0, by: -8) { put(UInt8(truncatingIfNeeded: tag >> UInt64(shift)), &storage) }
        for index in 0..<frame.byteCount { put(frame.byte(index), &storage) }
        used += size
        count += 1
        return true
    }

    /// The oldest frame's header.
    public var first: Header? {
        guard count > 0 else { return nil }
        func value(_ offset: Int, _ bytes: Int) -> UInt64 {
            var value: UInt64 = 0
            for index in 0..<bytes { value = value << 8 | UInt64(storage[wrapped(head + offset + index)]) }
            return value
        }
        return Header(stamp: Instant(nanoseconds: value(2, 8)), tag: value(10, 8), byteCount: Int(value(0, 2)))
    }

    /// Takes the oldest frame, appending its bytes to `output`; nil when there is none. A frame larger than `output` is cut off and lost.
    public mutating func removeFirst(into output: inout OutputRawSpan) -> Header? {
        guard let header = first else { return nil }
        for index in 0..<min(header.byteCount, output.freeCapacity) { output.append(storage[wrapped(head + Self.headerSize + index)]) }
        drop(header)
        return header
    }

    /// Forgets the oldest frame.
    public mutating func removeFirst() {
        if let header = first { drop(header) }
    }

    public mutating func removeAll() {
        head = 0
        used = 0
        count = 0
    }

    private mutating func drop(_ header: Header) {
        let size = Self.headerSize + header.byteCount
        head = wrapped(head + size)
        used -= size
        count -= 1
    }

    private func wrapped(_ position: Int) -> Int { position >= storage.count ? position - storage.count : position }
}
