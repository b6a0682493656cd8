import Crypto
import Primitives

/// A member in Redis: a field named like its id (`1/10.0.1.5`), and as its value version u8 (1), beat u64 big-endian, the member's line, and a
/// MAC of 16 bytes: HMAC-SHA-256, cut, over all before it. The line names the member, so that a value under another's field is worth nothing.
///
/// The beat grows with every writing. It says that the member lives, and which of two values is the older one; it is no time.
public struct MemberRecordCodec: ~Copyable {
    public static let headBytes = 9
    public static let macBytes = 16
    public static let byteCountMax = headBytes + Member.lineMax + macBytes
    private static let version: UInt8 = 1

    private var mac: HMACSHA256

    /// - Parameter key: known to all transceivers and relays of the deployment, 16 bytes or more.
    public init(key: [UInt8]) { mac = HMACSHA256(key: key.span.bytes) }

    public mutating func seal(_ member: Member, beat: UInt64) -> [UInt8] {
        var value = [Self.version]
        for shift in stride(from: 56, through: 0, by: -8) { value.append(UInt8(truncatingIfNeeded: beat >> UInt64(shift))) }
        value += Array(member.line.utf8)
        return value + tag(of: value)
    }

    /// The member, if the value is ours and about the one that `field` names.
    public mutating func open(_ value: [UInt8], of field: [UInt8]) -> (member: Member, beat: UInt64)? {
        let bodyCount = value.count - Self.macBytes
        guard bodyCount > Self.headBytes, value.count <= Self.byteCountMax, value[0] == Self.version else { return nil }
        let body = Array(value[..<bodyCount])
        let given = Array(value[bodyCount...])
        guard given.span.bytes.matchesInConstantTime(tag(of: body).span.bytes) else { return nil }
        guard let line = String(validating: body[Self.headBytes...], as: UTF8.self), let member = try? Member(parsing: line),
            Array(member.id.description.utf8) == field
        else { return nil }
        return (member, body.span.bytes.u64(1))
    }

    private mutating func tag(of body: [UInt8]) -> [UInt8] {
        let digest = mac.tag(body.span.bytes)
        return (0..<Self.macBytes).map { digest[$0] }
    }
}
