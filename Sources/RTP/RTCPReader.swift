// Reading a compound packet: one pass checks all lengths, a second one hands out what is said.

import Primitives

/// A compound packet whose lengths are right, in the clear. Reduced-size packets (RFC 5506) are as welcome as those that begin
/// with a report. Walk it with `next`.
public struct RTCPReader: ~Escapable {
    private let bytes: RawSpan
    /// The next packet of the compound.
    private var offset = 0
    /// What is left of the packet being handed out.
    private var rest = 0..<0
    private var remaining = 0
    private var inside = Inside.nothing
    private var sender: UInt32 = 0
    private var media: UInt32 = 0

    private enum Inside { case nothing, blocks, descriptions, byes, nacks }

    /// - Throws: at the first packet that is malformed; nothing of such a compound is used.
    @_lifetime(copy compound)
    public init(parsing compound: RawSpan) throws(RTCPError) {
        guard compound.byteCount >= 4 else { throw .truncated }
        var offset = 0
        while offset < compound.byteCount {
            offset = try RTCPPacket(at: offset, in: compound).end
        }
        bytes = compound
    }
}

extension RTCPReader {
    /// The next item; nil after the last.
    public mutating func next() -> RTCPItem? {
        while true {
            if let item = nextInside() { return item }
            guard offset < bytes.byteCount, let packet = try? RTCPPacket(at: offset, in: bytes) else { return nil }
            offset = packet.end
            if let item = open(packet) { return item }
        }
    }

    /// Begins `packet`: the item it is itself, if any; what it contains comes from `nextInside`.
    private mutating func open(_ packet: RTCPPacket) -> RTCPItem? {
        let body = packet.body
        let start = body.lowerBound
        switch packet.type {
        case RTCPType.senderReport:
            sender = bytes.u32(start)
            enter(.blocks, (start + 24)..<body.upperBound, packet.count)
            return .senderReport(
                ssrc: sender,
                RTCPSenderInfo(
                    ntp: NTPTime(rawValue: bytes.u64(start + 4)), rtpTimestamp: bytes.u32(start + 12), packetCount: bytes.u32(start + 16),
                    octetCount: bytes.u32(start + 20)))
        case RTCPType.receiverReport:
            sender = bytes.u32(start)
            enter(.blocks, (start + 4)..<body.upperBound, packet.count)
            return .receiverReport(ssrc: sender)
        case RTCPType.sourceDescription:
            enter(.descriptions, body, packet.count)
            return nil
        case RTCPType.bye:
            enter(.byes, body, packet.count)
            return nil
        case RTCPType.transportFeedback where packet.count == 1:
            sender = bytes.u32(start)
            media = bytes.u32(start + 4)
            enter(.nacks, (start + 8)..<body.upperBound, (body.count - 8) / 4)
            return nil
        case RTCPType.transportFeedback where packet.count == 15:
            return .transportFeedback(sender: bytes.u32(start), media: bytes.u32(start + 4), body: (start + 8)..<body.upperBound)
        default:
            return .ignored(packetType: packet.type, format: UInt8(packet.count))
        }
    }

    private mutating func enter(_ inside: Inside, _ range: Range<Int>, _ count: Int) {
        self.inside = inside
        rest = range
        remaining = count
    }

    private mutating func nextInside() -> RTCPItem? {
        while remaining > 0 {
            remaining -= 1
            switch inside {
            case .nothing: return nil
            case .blocks: return .reportBlock(reporter: sender, block(at: take(RTCPReportBlock.size)))
            case .byes: return .bye(ssrc: bytes.u32(take(4)))
            case .nacks:
                let start = take(4)
                return .nack(sender: sender, media: media, packet: bytes.u16(start), following: bytes.u16(start + 2))
            case .descriptions:
                if let item = nextDescription() { return item }
            }
        }
        return nil
    }

    /// `RTCPPacket` has seen to it that these bytes are there.
    private mutating func take(_ size: Int) -> Int {
        let start = rest.lowerBound
        rest = (start + size)..<rest.upperBound
        return start
    }

    private func block(at start: Int) -> RTCPReportBlock {
        let loss = bytes.u32(start + 4)
        return RTCPReportBlock(
            ssrc: bytes.u32(start), fractionLost: UInt8(truncatingIfNeeded: loss >> 24),
            cumulativeLost: Int32(bitPattern: loss << 8) >> 8, extendedHighest: bytes.u32(start + 8), jitter: bytes.u32(start + 12),
            lastSenderReport: bytes.u32(start + 16), delaySinceLastSenderReport: bytes.u32(start + 20))
    }

    /// One chunk (RFC 3550 §6.5): an SSRC, items of type, length and text, a zero, padding to four bytes. A chunk that runs
    /// over ends the packet.
    private mutating func nextDescription() -> RTCPItem? {
        guard rest.count >= 4 else { return endDescriptions() }
        let chunk = rest.lowerBound
        let ssrc = bytes.u32(chunk)
        var offset = chunk + 4
        var name: Range<Int>?
        while offset < rest.upperBound, bytes.byte(offset) != 0 {
            guard offset + 2 <= rest.upperBound else { return endDescriptions() }
            let end = offset + 2 + Int(bytes.byte(offset + 1))
            guard end <= rest.upperBound else { return endDescriptions() }
            if bytes.byte(offset) == 1, name == nil { name = (offset + 2)..<end }
            offset = end
        }
        let next = chunk + ((offset - chunk) / 4 + 1) * 4
        rest = min(next, rest.upperBound)..<rest.upperBound
        guard let name else { return nil }
        return .canonicalName(ssrc: ssrc, name)
    }

    private mutating func endDescriptions() -> RTCPItem? {
        remaining = 0
        return nil
    }
}

/// The common header of the packet at an offset, its lengths checked for its type.
struct RTCPPacket {
    let type: UInt8
    /// Blocks, sources, or the feedback's format: five bits.
    let count: Int
    /// What follows the four header bytes, without padding.
    let body: Range<Int>
    let end: Int

    init(at offset: Int, in bytes: RawSpan) throws(RTCPError) {
        guard bytes.byteCount - offset >= 4 else { throw .truncated }
        let first = bytes.byte(offset)
        guard first >> 6 == 2 else { throw .version }
        type = bytes.byte(offset + 1)
        guard (192...223).contains(type) else { throw .packetType }
        count = Int(first & 31)
        end = offset + 4 + 4 * Int(bytes.u16(offset + 2))
        guard end <= bytes.byteCount else { throw .overrun }
        var bodyEnd = end
        if first & 0x20 != 0 {
            // RFC 3550 §6.4.1 wants a multiple of four and the last packet only; libwebrtc pads transport feedback by 1–3 bytes.
            guard end > offset + 4 else { throw .padding }
            let padding = Int(bytes.byte(end - 1))
            guard padding > 0, padding <= end - offset - 4 else { throw .padding }
            bodyEnd -= padding
        }
        body = (offset + 4)..<bodyEnd
        guard body.count >= Self.leastBody(type, count) else { throw .content }
    }

    private static func leastBody(_ type: UInt8, _ count: Int) -> Int {
        switch type {
        case RTCPType.senderReport: 24 + RTCPReportBlock.size * count
        case RTCPType.receiverReport: 4 + RTCPReportBlock.size * count
        case RTCPType.bye: 4 * count
        case RTCPType.transportFeedback: 8
        default: 0
        }
    }
}
