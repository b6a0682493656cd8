// Copying packets where they are many. For a packet of voice a call of the C library's memmove costs a third more than the copy itself, which
// is some vector moves when it is inlined. Every other copy is `MutableRawSpan.copy` or the library's.

extension UnsafeMutableRawPointer {
    /// Copies all of `packet` to bytes `start..<end` from here, which are as many; the two do not overlap.
    @unsafe @inlinable @inline(__always)
    public func copyPacket(_ packet: RawSpan, from start: Int, to end: Int) {
        let count = packet.byteCount
        assert(end &- start == count)
        let source = unsafe packet.withUnsafeBytes { $0.baseAddress }
        guard _fastPath((64...192).contains(count)) else {
            if let source = unsafe source { unsafe (self + start).copyMemory(from: source, byteCount: count) }
            return
        }
        let memory = unsafe source.unsafelyUnwrapped
        // Blocks from the front, and at last one that ends where the packet ends, over bytes that are there already.
        unsafe copyBlock(memory, to: start)
        if count > 128 { unsafe copyBlock(memory + 64, to: start &+ 64) }
        unsafe copyBlock(memory + (count &- 64), to: end &- 64)
    }

    @unsafe @inlinable @inline(__always)
    func copyBlock(_ source: UnsafeRawPointer, to offset: Int) {
        unsafe storeBytes(of: source.loadUnaligned(as: SIMD64<UInt8>.self), toByteOffset: offset, as: SIMD64<UInt8>.self)
    }

    /// Zeroes bytes `start..<end` from here, and up to 63 behind them, which nobody has written yet.
    @unsafe @inlinable @inline(__always)
    public func zeroBlocks(from start: Int, to end: Int) {
        var offset = start
        while offset < end {
            unsafe storeBytes(of: SIMD64<UInt8>(repeating: 0), toByteOffset: offset, as: SIMD64<UInt8>.self)
            offset &+= 64
        }
    }
}
