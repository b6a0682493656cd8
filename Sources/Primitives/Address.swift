// Addresses in canonical form: 16 bytes, IPv4 mapped into ::ffff:0:0/96. Normalised once, where they enter, so that two
// spellings of one address can never be two flows (or pass one check and fail another).

/// An IPv6 address, or an IPv4 address as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
@frozen public struct IPAddress: Hashable, Sendable {
    /// The first eight bytes, big-endian value.
    public var high: UInt64
    /// The last eight bytes, big-endian value.
    public var low: UInt64

    @inlinable public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
    /// An IPv4 address from its 32 bits in host order: `0x7F000001` is 127.0.0.1.
    @inlinable public init(v4 bits: UInt32) { self.init(high: 0, low: 0x0000_FFFF_0000_0000 | UInt64(bits)) }

    @inlinable public var isV4: Bool { high == 0 && low >> 32 == 0xFFFF }
    /// The 32 bits of an IPv4 address in host order; meaningful only where `isV4`.
    @inlinable public var v4Bits: UInt32 { UInt32(truncatingIfNeeded: low) }

    @inlinable public static var v4Any: IPAddress { IPAddress(v4: 0) }
    @inlinable public static var v4Loopback: IPAddress { IPAddress(v4: 0x7F00_0001) }
    @inlinable public static var v6Any: IPAddress { IPAddress(high: 0, low: 0) }
    @inlinable public static var v6Loopback: IPAddress { IPAddress(high: 0, low: 1) }

    @inlinable public var isAny: Bool { self == .v4Any || self == .v6Any }
    @inlinable public var isLoopback: Bool { isV4 ? v4Bits >> 24 == 127 : self == .v6Loopback }
    @inlinable public var isMulticast: Bool { isV4 ? v4Bits >> 28 == 0xE : high >> 56 == 0xFF }
    @inlinable public var isLinkLocal: Bool { isV4 ? v4Bits >> 16 == 0xA9FE : high >> 54 == 0x3FA }
}

/// An address and a UDP or TCP port.
@frozen public struct SocketAddress: Hashable, Sendable {
    public var ip: IPAddress
    public var port: UInt16

    @inlinable public init(_ ip: IPAddress, port: UInt16) {
        self.ip = ip
        self.port = port
    }
}

extension IPAddress: CustomStringConvertible, LosslessStringConvertible {
    /// Reads dotted quads and RFC 4291 §2.2 text (one `::`, an optional dotted tail); no zone, no brackets.
    public init?(_ text: some StringProtocol) {
        if let bits = Self.parseV4(text.utf8) {
            self.init(v4: bits)
            return
        }
        guard let groups = Self.parseV6(text) else { return nil }
        var high: UInt64 = 0
        var low: UInt64 = 0
        for index in 0..<4 { high = high << 16 | UInt64(groups[index]) }
        for index in 4..<8 { low = low << 16 | UInt64(groups[index]) }
        self.init(high: high, low: low)
    }

    public init?(_ description: String) { self.init(description[...]) }

    /// RFC 5952 text: lower case, the longest run of two or more zero groups as `::`; IPv4 as a dotted quad.
    public var description: String {
        if isV4 {
            let bits = v4Bits
            return "\(bits >> 24).\(bits >> 16 & 0xFF).\(bits >> 8 & 0xFF).\(bits & 0xFF)"
        }
        let groups = (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> UInt64(48 - 16 * ($0 % 4))) }
        var best = 0..<0
        var index = 0
        while index < 8 {
            guard groups[index] == 0 else { index += 1; continue }
            var end = index
            while end < 8, groups[end] == 0 { end += 1 }
            if end - index > max(best.count, 1) { best = index..<end }
            index = end
        }
        func joined(_ range: Range<Int>) -> String { range.map { String(groups[$0], radix: 16) }.joined(separator: ":") }
        return best.isEmpty ? joined(0..<8) : joined(0..<best.lowerBound) + "::" + joined(best.upperBound..<8)
    }

    private static func parseV4(_ text: some Sequence<UInt8>) -> UInt32? {
        var bits: UInt32 = 0
        var octet: UInt32?
        var dots = 0
        for byte in text {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                if octet == 0 { return nil }  // "01" is octal to some and decimal to others: refuse it
                let value = (octet ?? 0) * 10 + UInt32(byte - UInt8(ascii: "0"))
                guard value <= 255 else { return nil }
                octet = value
            case UInt8(ascii: "."):
                guard let value = octet, dots < 3 else { return nil }
                bits = bits << 8 | value
                octet = nil
                dots += 1
            default: return nil
            }
        }
        guard let value = octet, dots == 3 else { return nil }
        return bits << 8 | value
    }

    private static func parseV6(_ text: some StringProtocol) -> [UInt16]? {
        guard text.utf8.count <= 45 else { return nil }
        let halves = splitAtDoubleColon(text)
        guard !halves.isEmpty else { return nil }
        var sides: [[UInt16]] = []
        for half in halves {
            guard let groups = parseGroups(half) else { return nil }
            sides.append(groups)
        }
        if sides.count == 1 { return sides[0].count == 8 ? sides[0] : nil }
        let missing = 8 - sides[0].count - sides[1].count
        guard missing >= 1 else { return nil }
        return sides[0] + Array(repeating: 0, count: missing) + sides[1]
    }

    /// One part without `::`, two with; none where there are several.
    private static func splitAtDoubleColon(_ text: some StringProtocol) -> [Substring] {
        let parts = Substring(text).split(separator: "::", omittingEmptySubsequences: false)
        return parts.count <= 2 ? parts : []
    }

    private static func parseGroups(_ text: Substring) -> [UInt16]? {
        if text.isEmpty { return [] }
        var groups: [UInt16] = []
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        for (index, part) in parts.enumerated() {
            if index == parts.count - 1, let bits = parseV4(part.utf8) {
                groups += [UInt16(truncatingIfNeeded: bits >> 16), UInt16(truncatingIfNeeded: bits)]
            } else {
                guard (1...4).contains(part.utf8.count), part.utf8.allSatisfy({ isHexDigit($0) }), let value = UInt16(part, radix: 16)
                else { return nil }
                groups.append(value)
            }
        }
        return groups.count <= 8 ? groups : nil
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"), UInt8(ascii: "A")...UInt8(ascii: "F"): true
        default: false
        }
    }
}

extension SocketAddress: CustomStringConvertible, LosslessStringConvertible {
    /// `192.0.2.1:3478` or `[2001:db8::1]:3478`.
    public init?(_ description: String) {
        guard let colon = description.lastIndex(of: ":") else { return nil }
        let digits = description[description.index(after: colon)...]
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let port = UInt16(digits) else { return nil }
        var host = description[..<colon]
        if host.hasPrefix("[") {
            guard host.hasSuffix("]") else { return nil }
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            return nil
        }
        guard let ip = IPAddress(host) else { return nil }
        self.init(ip, port: port)
    }
    public var description: String { ip.isV4 ? "\(ip):\(port)" : "[\(ip)]:\(port)" }
}

/// An address prefix such as `10.0.0.0/8` or `2001:db8::/32`; an IPv4 prefix is kept in mapped form (length + 96).
public struct IPPrefix: Hashable, Sendable, CustomStringConvertible {
    public let base: IPAddress
    /// 0…128, counted in the 16-byte form.
    public let length: Int

    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, let ip = IPAddress(String(parts[0])) else { return nil }
        let widest = ip.isV4 ? 32 : 128
        var length = widest
        if parts.count == 2 {
            guard let given = Int(parts[1]), (0...widest).contains(given), !parts[1].hasPrefix("+") else { return nil }
            length = given
        }
        self.base = ip
        self.length = ip.isV4 ? length + 96 : length
    }

    public func contains(_ ip: IPAddress) -> Bool {
        func differs(_ a: UInt64, _ b: UInt64, bits: Int) -> Bool { bits > 0 && (a ^ b) >> UInt64(64 - bits) != 0 }
        return !differs(ip.high, base.high, bits: min(length, 64)) && !differs(ip.low, base.low, bits: max(length - 64, 0))
    }

    public var description: String { base.isV4 ? "\(base)/\(length - 96)" : "\(base)/\(length)" }
}
