// Header extensions (RFC 8285): small elements between header and payload, each with the id that SDP gave it.

import Primitives

/// Where a packet's header extension lies. Its elements are found by walking: there are a handful at most.
@frozen public struct RTPExtensions: Hashable, Sendable {
    /// `0xBEDE` one-byte elements, `0x1000`–`0x100F` two-byte elements; anything else is opaque to us.
    public var profile: UInt16
    /// The elements, as offsets into the packet; a multiple of four bytes.
    public var range: Range<Int>

    @inlinable public init(profile: UInt16, range: Range<Int>) {
        self.profile = profile
        self.range = range
    }

    /// A packet without an extension.
    public static let none = RTPExtensions(profile: 0, range: 0..<0)

    @inlinable public var isEmpty: Bool { range.isEmpty }
}

extension RTPExtensions {
    /// The data of the first element `id`, as offsets into `packet`, which must be the packet that was parsed; nil when there is
    /// none. Id 0 is padding and never found. A two-byte element may be empty.
    public func value(id: UInt8, in packet: RawSpan) -> Range<Int>? {
        guard id != 0, !range.isEmpty, range.lowerBound >= 0, range.upperBound <= packet.byteCount else { return nil }
        if profile == 0xBEDE { return oneByteValue(id, packet) }
        if profile >> 4 == 0x100 { return twoByteValue(id, packet) }
        return nil
    }

    /// RFC 8285 §4.2.
    private func oneByteValue(_ id: UInt8, _ packet: RawSpan) -> Range<Int>? {
        var offset = range.lowerBound
        while offset < range.upperBound {
            let head = packet.byte(offset)
            offset += 1
            if head == 0 { continue }
            // 15 ends the walk; so does 0 with a length, which is not padding.
            guard head >> 4 != 15, head >> 4 != 0 else { return nil }
            let end = offset + Int(head & 15) + 1
            guard end <= range.upperBound else { return nil }
            if head >> 4 == id { return offset..<end }
            offset = end
        }
        return nil
    }

    /// RFC 8285 §4.3.
    private func twoByteValue(_ id: UInt8, _ packet: RawSpan) -> Range<Int>? {
        var offset = range.lowerBound
        while offset < range.upperBound {
            let found = packet.byte(offset)
            offset += 1
            if found == 0 { continue }
            guard offset < range.upperBound else { return nil }
            let end = offset + 1 + Int(packet.byte(offset))
            guard end <= range.upperBound else { return nil }
            if found == id { return (offset + 1)..<end }
            offset = end
        }
        return nil
    }
}
