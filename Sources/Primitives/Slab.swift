// The one audited place where preallocated storage is a raw pointer. Arenas and tables are slabs; indices travel, pointers do not.

import Glibc

/// A fixed number of elements, allocated once and never moved. The subscript is bounds-checked and costs no copy, no
/// reference count and no exclusivity check.
@safe @frozen public struct Slab<Element: ~Copyable>: ~Copyable {
    @usableFromInline let base: UnsafeMutablePointer<Element>
    public let count: Int

    /// Makes `count` elements with `make(index)`.
    @inlinable public init(count: Int, make: (Int) -> Element) {
        precondition(count >= 0)
        unsafe base = .allocate(capacity: max(count, 1))
        self.count = count
        for index in 0..<count { unsafe (base + index).initialize(to: make(index)) }
    }

    @inlinable deinit {
        unsafe base.deinitialize(count: count)
        unsafe base.deallocate()
    }

    /// Element 0; the others follow. For an index that fits by the way it was made. Valid while the slab lives.
    @unsafe @inlinable @inline(__always) public var start: UnsafePointer<Element> { unsafe UnsafePointer(base) }
    /// The same, to change it.
    @unsafe @inlinable @inline(__always) public var mutableStart: UnsafeMutablePointer<Element> { mutating get { unsafe base } }

    @inlinable public subscript(index: Int) -> Element {
        unsafeAddress {
            precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
            return unsafe UnsafePointer(base + index)
        }
        unsafeMutableAddress {
            precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
            return unsafe base + index
        }
    }
}

extension Slab where Element: FixedWidthInteger {
    /// `count` zeros. Pages that nobody touches cost nothing, neither now nor when the process ends.
    public init(zeros count: Int) {
        precondition(count >= 0)
        // What `deallocate` gives back is any block of malloc's.
        guard let block = unsafe calloc(max(count, 1), MemoryLayout<Element>.stride) else { preconditionFailure("out of memory") }
        unsafe base = block.bindMemory(to: Element.self, capacity: max(count, 1))
        self.count = count
    }
}

// A slab is owned by one thread at a time; moving it between threads moves the ownership.
extension Slab: @unchecked Sendable where Element: ~Copyable & Sendable {}

/// Preallocated bytes in equal slots, for packets: slot `index` is `slotSize` bytes, cache-line aligned unless it was wanted otherwise.
@safe @frozen public struct ByteSlab: ~Copyable {
    @usableFromInline let base: UnsafeMutableRawPointer
    /// What was allocated: `base` is its first whole page.
    @usableFromInline let block: UnsafeMutableRawPointer
    public let count: Int
    public let slotSize: Int

    /// All zeros. Pages that nobody touches cost nothing, neither now nor when the process ends.
    /// - Parameter isAligned: slot 0 begins a page. What is small and many does without.
    public init(count: Int, slotSize: Int, isAligned: Bool = true) {
        precondition(count > 0 && slotSize > 0 && slotSize % 64 == 0)
        guard let block = unsafe calloc(count * slotSize + (isAligned ? 4095 : 0), 1) else { preconditionFailure("out of memory") }
        unsafe self.block = block
        unsafe base = isAligned ? block.alignedUp(toMultipleOf: 4096) : block
        self.count = count
        self.slotSize = slotSize
    }

    @inlinable deinit { unsafe block.deallocate() }

    /// The first `length` bytes of slot `index`, to read.
    @_lifetime(borrow self)
    @inlinable public func bytes(_ index: Int, _ length: Int) -> RawSpan { bytes(index, 0..<length) }

    /// Bytes `range` of slot `index`, to read.
    @_lifetime(borrow self)
    @inlinable public func bytes(_ index: Int, _ range: Range<Int>) -> RawSpan {
        precondition(index >= 0 && index < count && range.lowerBound >= 0 && range.upperBound <= slotSize)
        let span = unsafe RawSpan(_unsafeStart: UnsafeRawPointer(base + (index &* slotSize &+ range.lowerBound)), byteCount: range.count)
        return unsafe _overrideLifetime(span, borrowing: self)
    }

    /// Bytes `range` of slot `index`, to change in place.
    @_lifetime(&self)
    @inlinable public mutating func mutableBytes(_ index: Int, _ range: Range<Int>) -> MutableRawSpan {
        precondition(index >= 0 && index < count && range.lowerBound >= 0 && range.upperBound <= slotSize)
        let span = unsafe MutableRawSpan(_unsafeStart: base + (index &* slotSize &+ range.lowerBound), byteCount: range.count)
        return unsafe _overrideLifetime(span, mutating: &self)
    }

    /// Slot `index` as an empty output span over bytes `range`; finalize it with `written` to learn its length.
    @inlinable public mutating func write(
        _ index: Int, _ range: Range<Int>, _ body: (inout OutputRawSpan) -> Void
    ) -> Int {
        precondition(index >= 0 && index < count && range.lowerBound >= 0 && range.upperBound <= slotSize)
        let buffer = unsafe UnsafeMutableRawBufferPointer(start: base + (index &* slotSize &+ range.lowerBound), count: range.count)
        var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
        body(&output)
        return unsafe output.finalize(for: buffer)
    }

    /// The address of slot 0; the others follow. Valid while the slab lives.
    @unsafe @inlinable @inline(__always) public var start: UnsafeMutableRawPointer { unsafe base }

    /// The address of slot `index`, for message vectors that are built once. Valid while the slab lives.
    @unsafe @inlinable public func address(_ index: Int) -> UnsafeMutableRawPointer {
        precondition(index >= 0 && index < count)
        return unsafe base + index &* slotSize
    }
}

extension ByteSlab: @unchecked Sendable {}
