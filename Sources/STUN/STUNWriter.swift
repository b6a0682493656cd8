// Writing: one message into the caller's buffer, attribute by attribute, then integrity and fingerprint.

import Crypto
import Primitives

/// Writes one message at the end of an output span. Start it, append attributes, `finish` it; a message that does not fit is taken
/// back whole and `finish` says so.
///
///     var writer = STUNWriter(.success, request.transactionID, to: &packet)
///     writer.append(xorMappedAddress: client, to: &packet)
///     let fitted = writer.finish(key: password, to: &packet)
public struct STUNWriter: ~Copyable {
    private let start: Int
    private let transactionID: STUNTransactionID
    private var overflowed = false

    public init(_ messageClass: STUNClass, _ transactionID: STUNTransactionID, to output: inout OutputRawSpan) {
        start = output.byteCount
        self.transactionID = transactionID
        guard output.freeCapacity >= STUN.headerSize else {
            overflowed = true
            return
        }
        let classBits = UInt16(messageClass.rawValue)
        output.append((classBits & 2) << 7 | (classBits & 1) << 4 | STUN.bindingMethod)
        output.append(UInt16(0))
        output.append(STUN.magicCookie)
        output.append(transactionID.high)
        output.append(transactionID.low)
    }

    /// Writes the lengths, MESSAGE-INTEGRITY under `key` (none for an empty key) and FINGERPRINT. False: it did not fit, and nothing of
    /// the message is left in `output`.
    public consuming func finish(key: RawSpan, to output: inout OutputRawSpan) -> Bool {
        if key.byteCount > 0, begin(STUNAttribute.messageIntegrity, 20, &output) {
            setLength(output.byteCount &- start &+ 20, &output)
            let tag = Self.tag(of: output.bytes, from: start, key: key)
            output.append(contentsOf: tag.bytes)
        }
        if begin(STUNAttribute.fingerprint, 4, &output) {
            setLength(output.byteCount &- start &+ 4, &output)
            let checksum = Self.checksum(of: output.bytes, from: start)
            output.append(checksum)
        }
        if overflowed { output.removeLast(output.byteCount &- start) }
        return !overflowed
    }

    /// Over all but the attribute header just begun, whose four bytes are the last.
    private static func tag(of written: RawSpan, from start: Int, key: RawSpan) -> Digest20 {
        HMACSHA1.tag(key: key, written.bytes(start..<written.byteCount &- 4))
    }

    private static func checksum(of written: RawSpan, from start: Int) -> UInt32 {
        CRC32.checksum(written.bytes(start..<written.byteCount &- 4)) ^ STUN.fingerprintMask
    }

    private func setLength(_ end: Int, _ output: inout OutputRawSpan) {
        var message = output.mutableBytes
        message.set(UInt16(truncatingIfNeeded: end &- STUN.headerSize), at: start &+ 2)
    }

    /// Type and length, if the attribute with its padding fits.
    private mutating func begin(_ type: UInt16, _ length: Int, _ output: inout OutputRawSpan) -> Bool {
        let size = 4 &+ (length &+ 3) & ~3
        guard !overflowed, size <= output.freeCapacity, output.byteCount &- start &+ size <= 0xFFFF else {
            overflowed = true
            return false
        }
        output.append(type)
        output.append(UInt16(truncatingIfNeeded: length))
        return true
    }
}

extension STUNWriter {
    /// Any attribute; the value is padded with zeros to a multiple of four.
    public mutating func append(_ type: UInt16, _ value: RawSpan, to output: inout OutputRawSpan) {
        guard begin(type, value.byteCount, &output) else { return }
        output.append(contentsOf: value)
        output.append(zeros: (4 &- value.byteCount & 3) & 3)
    }

    /// "receiver's ufrag:sender's ufrag".
    public mutating func append(usernameFor receiver: RawSpan, from sender: RawSpan, to output: inout OutputRawSpan) {
        let length = receiver.byteCount &+ 1 &+ sender.byteCount
        guard begin(STUNAttribute.username, length, &output) else { return }
        output.append(contentsOf: receiver)
        output.append(UInt8(ascii: ":"))
        output.append(contentsOf: sender)
        output.append(zeros: (4 &- length & 3) & 3)
    }

    public mutating func append(xorMappedAddress address: SocketAddress, to output: inout OutputRawSpan) {
        let isV4 = address.ip.isV4
        guard begin(STUNAttribute.xorMappedAddress, isV4 ? 8 : 20, &output) else { return }
        output.append(UInt16(isV4 ? 1 : 2))
        output.append(address.port ^ UInt16(truncatingIfNeeded: STUN.magicCookie >> 16))
        if isV4 {
            output.append(address.ip.v4Bits ^ STUN.magicCookie)
        } else {
            output.append(address.ip.high ^ (UInt64(STUN.magicCookie) << 32 | UInt64(transactionID.high)))
            output.append(address.ip.low ^ transactionID.low)
        }
    }

    public mutating func append(priority: UInt32, to output: inout OutputRawSpan) {
        guard begin(STUNAttribute.priority, 4, &output) else { return }
        output.append(priority)
    }

    public mutating func appendUseCandidate(to output: inout OutputRawSpan) { _ = begin(STUNAttribute.useCandidate, 0, &output) }

    public mutating func append(iceControlling tieBreaker: UInt64, to output: inout OutputRawSpan) {
        guard begin(STUNAttribute.iceControlling, 8, &output) else { return }
        output.append(tieBreaker)
    }

    public mutating func append(iceControlled tieBreaker: UInt64, to output: inout OutputRawSpan) {
        guard begin(STUNAttribute.iceControlled, 8, &output) else { return }
        output.append(tieBreaker)
    }

    /// ERROR-CODE without a reason phrase: it is for people, and its bytes would be amplification. `code` is 300…699.
    public mutating func append(errorCode code: Int, to output: inout OutputRawSpan) {
        assert((300...699).contains(code), "RFC 8489 §14.8 has no error \(code)")
        guard begin(STUNAttribute.errorCode, 4, &output) else { return }
        output.append(UInt16(0))
        output.append(UInt8(truncatingIfNeeded: code / 100))
        output.append(UInt8(truncatingIfNeeded: code % 100))
    }

    public mutating func append(unknownAttributes unknown: STUNUnknownAttributes, to output: inout OutputRawSpan) {
        let count = Int(unknown.count)
        guard begin(STUNAttribute.unknownAttributes, 2 * count, &output) else { return }
        for index in 0..<count { output.append(unknown.types[index]) }
        output.append(zeros: 2 * (count & 1))
    }
}
