import Crypto
import Primitives

/// The value in Redis: version u8 (1), ufrag 32 ice-chars, MAC 16 bytes = 49 bytes. The MAC is HMAC-SHA-256 over source address (16 bytes,
/// IPv4 mapped), source port (u16), version and ufrag, cut to 16 bytes: a value copied under another source's key is worth nothing.
public struct FlowRecordCodec: ~Copyable {
    public static let byteCount = 49
    private static let version: UInt8 = 1

    private var mac: HMACSHA256

    public init(key: [UInt8]) { mac = HMACSHA256(key: key.span.bytes) }

    /// - Parameter ufrag: 32 bytes.
    public mutating func seal(_ ufrag: [UInt8], of source: SocketAddress) -> [UInt8] {
        let value = [Self.version] + ufrag
        return value + tag(of: value, source)
    }

    /// The ufrag, if the value is ours and about `source`.
    public mutating func open(_ value: [UInt8], of source: SocketAddress) -> [UInt8]? {
        guard value.count == Self.byteCount, value[0] == Self.version else { return nil }
        let body = Array(value[..<33])
        let given = Array(value[33...])
        let expected = tag(of: body, source)
        guard given.span.bytes.matchesInConstantTime(expected.span.bytes) else { return nil }
        return Array(body[1...])
    }

    private mutating func tag(of value: [UInt8], _ source: SocketAddress) -> [UInt8] {
        var place: [UInt8] = []
        for shift in stride(from: 56, through: 0, by: -8) { place.append(UInt8(truncatingIfNeeded: source.ip.high >> UInt64(shift))) }
        for shift in stride(from: 56, through: 0, by: -8) { place.append(UInt8(truncatingIfNeeded: source.ip.low >> UInt64(shift))) }
        place += [UInt8(source.port >> 8), UInt8(source.port & 0xFF)]
        let digest = mac.tag(place.span.bytes, value.span.bytes)
        return (0..<16).map { digest[$0] }
    }
}
