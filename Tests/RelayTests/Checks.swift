// STUN Binding requests as clients write them, with our own username fragment: what the relay's tests feed it.
import Crypto
import Primitives
import RoutingHint
import TestSupport

/// A Binding request taken apart, to be put together with other credentials.
struct ClientCheck: Sendable, CustomStringConvertible {
    let client: String
    let original: [UInt8]
    var description: String { client }

    static let all: [ClientCheck] = {
        let text = String(decoding: Corpus.read("\(Corpus.testsFolder)/RelayTests/Vectors/client-checks.txt"), as: UTF8.self)
        return text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { line in
            let fields = line.split(separator: " ")
            return ClientCheck(client: String(fields[0]), original: bytes(hex: fields[1])!)
        }
    }()

    /// The client's request in every detail but USERNAME, MESSAGE-INTEGRITY and FINGERPRINT.
    func request(ufrag: String, password: String) -> [UInt8] {
        var message = Array(original.prefix(20))
        var offset = 20
        while offset + 4 <= original.count {
            let type = original.bytes.u16(offset)
            let size = Int(original.bytes.u16(offset + 2))
            switch type {
            case 0x0006:
                let name = String(decoding: original[(offset + 4)..<(offset + 4 + size)], as: UTF8.self)
                let theirs = name.split(separator: ":", omittingEmptySubsequences: false).last ?? ""
                append(type, Array("\(ufrag):\(theirs)".utf8), to: &message)
            case 0x0008: appendIntegrity(password, to: &message)
            case 0x8028: appendFingerprint(to: &message)
            default: append(type, Array(original[(offset + 4)..<(offset + 4 + size)]), to: &message)
            }
            offset += 4 + (size + 3) / 4 * 4
        }
        return message
    }
}

func append(_ type: UInt16, _ value: [UInt8], to message: inout [UInt8]) {
    message += [UInt8(type >> 8), UInt8(type & 0xFF), UInt8(value.count >> 8), UInt8(value.count & 0xFF)] + value
    while message.count % 4 != 0 { message.append(0) }
    setLength(message.count - 20, of: &message)
}

func appendIntegrity(_ password: String, to message: inout [UInt8]) {
    setLength(message.count - 20 + 24, of: &message)
    append(0x0008, HMACSHA1.tag(key: Array(password.utf8).bytes, message.bytes).array, to: &message)
}

func appendFingerprint(to message: inout [UInt8]) {
    setLength(message.count - 20 + 8, of: &message)
    let checksum = CRC32.checksum(message.bytes) ^ 0x5354_554E
    append(0x8028, (0..<4).map { UInt8(truncatingIfNeeded: checksum >> UInt32(24 - 8 * $0)) }, to: &message)
}

private func setLength(_ length: Int, of message: inout [UInt8]) {
    message[2] = UInt8(length >> 8)
    message[3] = UInt8(length & 0xFF)
}

/// An empty message of `type`: 0x0001 is a Binding request.
func stunHeader(_ type: UInt16 = 0x0001) -> [UInt8] {
    [UInt8(type >> 8), UInt8(type & 0xFF), 0, 0, 0x21, 0x12, 0xA4, 0x42] + (1...12).map { UInt8($0) }
}
