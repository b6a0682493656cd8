// Reading and writing wire formats. Every read is bounds-checked by the span; parsers check lengths first, so that a short
// packet is a decision and never a trap.

extension RawSpan {
    /// The byte at `offset`, which must be inside the span.
    @inlinable public func byte(_ offset: Int) -> UInt8 {
        precondition(offset >= 0 && offset < byteCount)
        return unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt8.self)
    }
    /// The big-endian 16-bit value at `offset`.
    @inlinable public func u16(_ offset: Int) -> UInt16 {
        precondition(offset >= 0 && offset <= byteCount - 2)
        return UInt16(bigEndian: unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt16.self))
    }
    /// The big-endian 32-bit value at `offset`.
    @inlinable public func u32(_ offset: Int) -> UInt32 {
        precondition(offset >= 0 && offset <= byteCount - 4)
        return UInt32(bigEndian: unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt32.self))
    }
    /// The big-endian 64-bit value at `offset`.
    @inlinable public func u64(_ offset: Int) -> UInt64 {
        precondition(offset >= 0 && offset <= byteCount - 8)
        return UInt64(bigEndian: unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt64.self))
    }
    /// The little-endian 64-bit value at `offset` (SipHash reads its input so).
    @inlinable public func u64LittleEndian(_ offset: Int) -> UInt64 { u64(offset).byteSwapped }

    /// The bytes `range`, which must be inside the span.
    @_lifetime(copy self)
    @inlinable public func bytes(_ range: Range<Int>) -> RawSpan { extracting(range) }

    /// A copy on the heap: for set-up paths and tests, never per packet.
    public var array: [UInt8] { unsafe withUnsafeBytes { unsafe Array($0) } }

    /// Whether both spans hold the same bytes. Leaves at the first difference: not for secrets.
    @inlinable public func elementsEqual(_ other: RawSpan) -> Bool {
        guard byteCount == other.byteCount else { return false }
        var index = 0
        while index &+ 8 <= byteCount {
            if u64(index) != other.u64(index) { return false }
            index &+= 8
        }
        while index < byteCount {
            if byte(index) != other.byte(index) { return false }
            index &+= 1
        }
        return true
    }

    /// Whether both spans hold the same bytes, in time that depends on the length alone: for tags and tokens.
    public func matchesInConstantTime(_ other: RawSpan) -> Bool {
        guard byteCount == other.byteCount else { return false }
        var difference: UInt8 = 0
        for index in 0..<byteCount { difference |= byte(index) ^ other.byte(index) }
        return difference == 0
    }
}

extension MutableRawSpan {
    @inlinable public func byte(_ offset: Int) -> UInt8 { bytes.byte(offset) }
    @inlinable public func u16(_ offset: Int) -> UInt16 { bytes.u16(offset) }
    @inlinable public func u32(_ offset: Int) -> UInt32 { bytes.u32(offset) }

    @_lifetime(self: copy self)
    @inlinable public mutating func set(_ value: UInt8, at offset: Int) {
        precondition(offset >= 0 && offset < byteCount)
        storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
    }
    @_lifetime(self: copy self)
    @inlinable public mutating func set(_ value: UInt16, at offset: Int) {
        precondition(offset >= 0 && offset <= byteCount - 2)
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
    }
    @_lifetime(self: copy self)
    @inlinable public mutating func set(_ value: UInt32, at offset: Int) {
        precondition(offset >= 0 && offset <= byteCount - 4)
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
    }
    @_lifetime(self: copy self)
    @inlinable public mutating func set(_ value: UInt64, at offset: Int) {
        precondition(offset >= 0 && offset <= byteCount - 8)
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt64.self)
    }
    /// Copies all of `source` to `offset`; it must fit.
    @_lifetime(self: copy self)
    @inlinable public mutating func copy(_ source: RawSpan, to offset: Int) {
        precondition(offset >= 0 && offset <= byteCount - source.byteCount)
        unsafe withUnsafeMutableBytes { target in
            unsafe source.withUnsafeBytes { unsafe (target.baseAddress! + offset).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        }
    }
}

extension OutputRawSpan {
    @_lifetime(self: copy self)
    @inlinable public mutating func append(_ value: UInt16) { unsafe append(value.bigEndian, as: UInt16.self) }
    @_lifetime(self: copy self)
    @inlinable public mutating func append(_ value: UInt32) { unsafe append(value.bigEndian, as: UInt32.self) }
    @_lifetime(self: copy self)
    @inlinable public mutating func append(_ value: UInt64) { unsafe append(value.bigEndian, as: UInt64.self) }
    @_lifetime(self: copy self)
    @inlinable public mutating func append(contentsOf source: RawSpan) {
        precondition(source.byteCount <= freeCapacity)
        guard source.byteCount > 0 else { return }
        unsafe withUnsafeMutableBytes { target, count in
            unsafe source.withUnsafeBytes { unsafe (target.baseAddress! + count).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
            count += source.byteCount
        }
    }
    @_lifetime(self: copy self)
    @inlinable public mutating func append(zeros count: Int) {
        precondition(count >= 0 && count <= freeCapacity)
        guard count > 0 else { return }
        unsafe withUnsafeMutableBytes { target, written in
            unsafe (target.baseAddress! + written).initializeMemory(as: UInt8.self, repeating: 0, count: count)
            written += count
        }
    }
}

/// Lower-case hexadecimal, for logs, tests and key files.
public func hex(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    for byte in bytes {
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
}

/// Reads hexadecimal; white space between bytes is passed over, anything else gives nil.
public func bytes(hex text: some StringProtocol) -> [UInt8]? {
    var result: [UInt8] = []
    var half: UInt8?
    for character in text.utf8 {
        let digit: UInt8
        switch character {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = character - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = character - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = character - UInt8(ascii: "A") + 10
        case UInt8(ascii: " "), UInt8(ascii: "\n"), UInt8(ascii: "\t"), UInt8(ascii: "\r"): continue
        default: return nil
        }
        if let high = half {
            result.append(high << 4 | digit)
            half = nil
        } else {
            half = digit
        }
    }
    return half == nil ? result : nil
}
