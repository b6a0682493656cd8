// Writing reports: always a compound packet with a canonical name (RFC 3550 §6.1), and the reduced-size NACK (RFC 5506).

import Primitives

/// A name that ties the streams of one sender together: 96 random bits, new for every session (RFC 7022 §4.2).
@frozen public struct RTCPCanonicalName: Sendable {
    /// Sixteen characters of base64.
    public let characters: InlineArray<16, UInt8>

    @inlinable public init(random: inout some RandomNumberGenerator) {
        var characters = InlineArray<16, UInt8>(repeating: 0)
        for index in characters.indices { characters[index] = Base64.character(of: UInt8.random(in: 0..<64, using: &random)) }
        self.characters = characters
    }

    /// For `a=ssrc:… cname:` in SDP.
    public var text: String {
        unsafe String(unsafeUninitializedCapacity: characters.count) { bytes in
            for index in characters.indices { unsafe bytes[index] = characters[index] }
            return characters.count
        }
    }
}

/// Writes what one SSRC of ours reports.
@frozen public struct RTCPWriter: Sendable {
    /// The most blocks one report holds.
    public static let blocksMax = 31

    public let ssrc: UInt32
    public let name: RTCPCanonicalName

    public init(ssrc: UInt32, name: RTCPCanonicalName) {
        self.ssrc = ssrc
        self.name = name
    }

    /// The size of what `writeCompound` writes.
    public static func compoundSize(hasSender: Bool, blocks: Int, bye: Bool) -> Int {
        8 + (hasSender ? 20 : 0) + RTCPReportBlock.size * blocks + 28 + (bye ? 8 : 0)
    }

    /// Appends a sender report if `sender` is given, else a receiver report; the canonical name; at the end of the stream a BYE.
    /// Blocks over the 31st are left out. False, and nothing written, if it does not fit.
    @_lifetime(output: copy output)
    public func writeCompound(
        sender: RTCPSenderInfo?, blocks: Span<RTCPReportBlock>, bye: Bool = false, to output: inout OutputRawSpan
    ) -> Bool {
        let count = min(blocks.count, Self.blocksMax)
        guard Self.compoundSize(hasSender: sender != nil, blocks: count, bye: bye) <= output.freeCapacity else { return false }
        writeReport(sender, blocks, count, to: &output)
        writeName(to: &output)
        if bye { Self.writeHead(count: 1, RTCPType.bye, bodySize: 4, ssrc, to: &output) }
        return true
    }

    /// The same for a session that hears one stream or none.
    @_lifetime(output: copy output)
    public func writeCompound(
        sender: RTCPSenderInfo?, block: RTCPReportBlock?, bye: Bool = false, to output: inout OutputRawSpan
    ) -> Bool {
        guard let block else { return writeCompound(sender: sender, blocks: Span(), bye: bye, to: &output) }
        let one: InlineArray<1, RTCPReportBlock> = [block]
        return writeCompound(sender: sender, blocks: one.span, bye: bye, to: &output)
    }

    /// Appends a request for packets of `media` (RFC 4585 §6.2.1): `packet` and, for bit n of `following`, packet + n + 1.
    /// 16 bytes; false, and nothing written, if they do not fit.
    @_lifetime(output: copy output)
    public func writeNACK(media: UInt32, packet: UInt16, following: UInt16, to output: inout OutputRawSpan) -> Bool {
        guard output.freeCapacity >= 16 else { return false }
        Self.writeHead(count: 1, RTCPType.transportFeedback, bodySize: 12, ssrc, to: &output)
        output.append(media)
        output.append(packet)
        output.append(following)
        return true
    }
}

extension RTCPWriter {
    /// Header and first word; `bodySize` counts that word.
    @_lifetime(output: copy output)
    private static func writeHead(count: Int, _ type: UInt8, bodySize: Int, _ ssrc: UInt32, to output: inout OutputRawSpan) {
        assert(bodySize % 4 == 0)
        output.append(0x80 | UInt8(truncatingIfNeeded: count))
        output.append(type)
        output.append(UInt16(truncatingIfNeeded: bodySize / 4))
        output.append(ssrc)
    }

    @_lifetime(output: copy output)
    private func writeReport(_ sender: RTCPSenderInfo?, _ blocks: Span<RTCPReportBlock>, _ count: Int, to output: inout OutputRawSpan) {
        let blocksSize = RTCPReportBlock.size * count
        if let sender {
            Self.writeHead(count: count, RTCPType.senderReport, bodySize: 24 + blocksSize, ssrc, to: &output)
            output.append(sender.ntp.rawValue)
            output.append(sender.rtpTimestamp)
            output.append(sender.packetCount)
            output.append(sender.octetCount)
        } else {
            Self.writeHead(count: count, RTCPType.receiverReport, bodySize: 4 + blocksSize, ssrc, to: &output)
        }
        for index in 0..<count {
            let block = blocks[index]
            output.append(block.ssrc)
            output.append(UInt32(block.fractionLost) << 24 | UInt32(bitPattern: block.cumulativeLost) & 0xFF_FFFF)
            output.append(block.extendedHighest)
            output.append(block.jitter)
            output.append(block.lastSenderReport)
            output.append(block.delaySinceLastSenderReport)
        }
    }

    /// One chunk of one item: 4 SSRC, 2 type and length, 16 name, 2 zeros that end it.
    @_lifetime(output: copy output)
    private func writeName(to output: inout OutputRawSpan) {
        Self.writeHead(count: 1, RTCPType.sourceDescription, bodySize: 24, ssrc, to: &output)
        output.append(UInt8(1))
        output.append(UInt8(16))
        for index in name.characters.indices { output.append(name.characters[index]) }
        output.append(zeros: 2)
    }
}
