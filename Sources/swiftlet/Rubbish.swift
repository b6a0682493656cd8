import Primitives
import RoutingHint
import STUN

/// What a relay gets from those who do not wish it well, from as many sources as there are addresses.
struct Rubbish {
    enum Kind: String, CaseIterable {
        /// A whole Binding request whose name is no hint of ours: its tag is wrong.
        case forged
        /// A hint that somebody has seen, and a signature that is wrong: the most that a stranger can make a relay compute.
        case unsigned
        case truncated
        /// 1,400 bytes of attributes.
        case huge
        /// Longer than any datagram that a relay takes.
        case oversized
        /// What looks like media, from nobody.
        case media
        /// No protocol at all.
        case noise
    }

    let packets: [[UInt8]]
    private let sources: UInt32
    private let first: UInt32
    private var sequence: UInt32 = 0

    /// - Parameters:
    ///   - first: the first source's place in the crowd, behind those of calls.
    ///   - sources: how many there are.
    init(_ kinds: [Kind], first: Int, sources: Int, maker: FlowMaker) {
        var maker = maker
        var random = SeededGenerator(seed: 3)
        packets = (0..<64).map { Self.packet(kinds[$0 % kinds.count], &maker, &random) }
        self.first = UInt32(first)
        self.sources = UInt32(sources)
    }

    /// The next packet and where it pretends to come from: each source in turn.
    mutating func next() -> (bytes: [UInt8], source: UInt32) {
        sequence &+= 1
        return (packets[Int(sequence) % packets.count], first + sequence % sources)
    }

    private static func packet(_ kind: Kind, _ maker: inout FlowMaker, _ random: inout SeededGenerator) -> [UInt8] {
        let check = maker.check(session: UInt32(truncatingIfNeeded: random.next() | 0x8000_0000))
        switch kind {
        case .forged:
            var forged = check
            // The name is the first attribute; its later half is the tag.
            for index in 40..<56 { forged[index] = UInt8(ascii: "a") + UInt8(random.next() % 26) }
            return forged
        case .unsigned:
            var broken = check
            broken[broken.count - 12] ^= 0x55
            return broken
        case .truncated: return Array(check.prefix(21 + Int(random.next() % UInt64(check.count - 22))))
        case .huge, .oversized:
            var message = Array(check.prefix(20))
            let length = kind == .huge ? 1380 : 3980
            message[2] = UInt8(length >> 8)
            message[3] = UInt8(length & 0xFF)
            for _ in 0..<length / 4 { message += [0x80, UInt8(random.next() & 0x7F), 0, 0] }
            return message
        case .media: return [0x80, 111] + (0..<158).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        case .noise: return [0xFF] + (0..<99).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        }
    }
}
