import Primitives
import SRTP
import Testing

/// One call's two ends and the packets between them.
enum Calls {
    static func master(_ profile: SRTPProfile, seed: UInt64) -> SRTPMasterKey {
        var random = SeededGenerator(seed: seed)
        return SRTPMasterKey(key: random.bytes(profile.keyLength), salt: random.bytes(profile.saltLength))
    }

    static func client(_ profile: SRTPProfile, _ engine: SRTPEngine = .own) throws -> SRTPContext {
        try SRTPContext(profile: profile, local: master(profile, seed: 1), remote: master(profile, seed: 2), engine: engine)
    }

    static func server(_ profile: SRTPProfile, _ engine: SRTPEngine = .own) throws -> SRTPContext {
        try SRTPContext(profile: profile, local: master(profile, seed: 2), remote: master(profile, seed: 1), engine: engine)
    }
}

extension SeededGenerator {
    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255, using: &self) } }
}

/// A packet in a datagram's buffer, to be changed in place.
struct Packet {
    var buffer: [UInt8]
    var length: Int
    var bytes: [UInt8] { Array(buffer[..<length]) }

    init(_ bytes: [UInt8], room: Int = 20) {
        buffer = bytes + [UInt8](repeating: 0xEE, count: room)
        length = bytes.count
    }

    mutating func change(_ body: (inout MutableRawSpan, Int) throws(SRTPError) -> Int) throws(SRTPError) {
        let plain = length
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        let changed = try body(&bytes, plain)
        length = changed
    }
}

/// The four verbs over arrays.
enum Verb: Sendable, CaseIterable {
    case protectRTP, protectRTCP, unprotectRTP, unprotectRTCP

    func run(_ context: inout SRTPContext, _ bytes: [UInt8], room: Int = 20) throws(SRTPError) -> [UInt8] {
        var packet = Packet(bytes, room: room)
        try packet.change { buffer, length throws(SRTPError) in
            switch self {
            case .protectRTP: try context.protectRTP(&buffer, length: length)
            case .protectRTCP: try context.protectRTCP(&buffer, length: length)
            case .unprotectRTP: try context.unprotectRTP(&buffer, length: length)
            case .unprotectRTCP: try context.unprotectRTCP(&buffer, length: length)
            }
        }
        return packet.bytes
    }

    /// The packet, or why there is none: for comparisons.
    func outcome(_ context: inout SRTPContext, _ bytes: [UInt8], room: Int = 20) -> Result<[UInt8], SRTPError> {
        do throws(SRTPError) { return .success(try run(&context, bytes, room: room)) } catch { return .failure(error) }
    }

    /// Why the packet was refused, or nil.
    func refusal(_ context: inout SRTPContext, _ bytes: [UInt8], room: Int = 20) -> SRTPError? {
        if case .failure(let error) = outcome(&context, bytes, room: room) { error } else { nil }
    }
}

func rtp(_ sequence: UInt16, ssrc: UInt32 = 0xCAFE_BABE, payload: [UInt8] = [1, 2, 3, 4, 5]) -> [UInt8] {
    [0x80, 111] + big(sequence) + [0, 0, 0x10, 0] + big(ssrc) + payload
}

func rtcp(ssrc: UInt32 = 0xCAFE_BABE, payload: [UInt8] = [UInt8](repeating: 7, count: 20)) -> [UInt8] {
    [0x80, 200] + big(UInt16(payload.count / 4 + 1)) + big(ssrc) + payload
}

func big(_ value: some FixedWidthInteger & Sendable) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

func fromHex(_ text: String) throws -> [UInt8] { try #require(bytes(hex: text)) }
