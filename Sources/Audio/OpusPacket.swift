// What can be known of an Opus packet without decoding it, and the refusal of packets that break the format (RFC 6716 §3).

import Primitives

/// Why bytes are not an Opus packet; the cases are the requirements R1…R7 of RFC 6716 §3.4.
public enum OpusPacketError: Error, Equatable, Sendable {
    /// R1: a packet has at least its TOC byte.
    case empty
    /// R2: a frame is at most 1,275 bytes.
    case frameTooLong(Int)
    /// R3: two frames of equal size share an even number of bytes.
    case unevenFrames
    /// R4, R6, R7: a length runs past the end of the packet.
    case truncated
    /// R5: 1…48 frames, of at most 120 ms in all.
    case tooLong(frames: Int)
    /// R6: the bytes are not a multiple of the number of frames.
    case unevenBytes
}

/// An Opus packet's table of contents.
public struct OpusPacket: Equatable, Sendable {
    /// Which of Opus's two codecs made the packet.
    public enum Mode: UInt8, Sendable { case silk, hybrid, celt }

    public var mode: Mode
    public var isStereo: Bool
    /// 1…48.
    public var frameCount: Int
    /// Samples of one frame at 48 kHz: 120…2,880.
    public var frameSamples: Int
    /// The packet also carries what its predecessor's last frame said, at a lower rate (in-band FEC, RFC 6716 §2.1.7).
    public var carriesFEC: Bool
    /// All frames are empty or a single byte: the sender's silence (RFC 6716 §2.1.9).
    public var isSilence: Bool

    /// Samples of the whole packet at 48 kHz: 120…5,760.
    public var sampleCount: Int { frameCount * frameSamples }

    /// Reads and checks the framing of `packet`; the frames' content is the decoder's affair.
    public init(parsing packet: RawSpan) throws(OpusPacketError) {
        guard packet.byteCount >= 1 else { throw .empty }
        let toc = packet.byte(0)
        let configuration = Int(toc >> 3)
        mode = configuration < 12 ? .silk : configuration < 16 ? .hybrid : .celt
        frameSamples = Self.samples(ofConfiguration: configuration)
        isStereo = toc & 0b100 != 0

        let frames = try Frames(packet, code: toc & 0b11)
        frameCount = frames.count
        guard frameCount * frameSamples <= MediaClock.longestPacket else { throw .tooLong(frames: frameCount) }
        isSilence = frames.longest <= 1
        carriesFEC = false
        if mode != .celt, frames.firstLength > 0 {
            carriesFEC = Self.firstFrameHasFEC(packet.byte(frames.firstStart), frameSamples: frameSamples, isStereo: isStereo)
        }
    }

    /// RFC 6716 §3.1, table 2.
    private static func samples(ofConfiguration configuration: Int) -> Int {
        switch configuration {
        case 0..<12: configuration & 3 == 3 ? 2_880 : 480 << (configuration & 3)
        case 12..<16: 480 << (configuration & 1)
        default: 120 << (configuration & 3)
        }
    }

    /// RFC 6716 §4.2.3: a SILK frame begins, for each channel, with a bit of voice activity for each 20 ms and one that says whether a
    /// low-rate copy of the past follows. These bits are coded with even probability, so they are plain bits.
    private static func firstFrameHasFEC(_ byte: UInt8, frameSamples: Int, isStereo: Bool) -> Bool {
        let units = max(1, frameSamples / 960)
        let mid = byte >> UInt8(7 - units) & 1 == 1
        let side = isStereo && byte >> UInt8(6 - 2 * units) & 1 == 1
        return mid || side
    }
}

/// Where the frames of a packet are (RFC 6716 §3.2).
private struct Frames {
    var count: Int
    var firstStart: Int
    var firstLength: Int
    var longest: Int

    static let longestFrame = 1_275

    init(_ packet: RawSpan, code: UInt8) throws(OpusPacketError) {
        var at = 1
        switch code {
        case 0:
            count = 1
            firstStart = at
            firstLength = packet.byteCount - at
            longest = firstLength
        case 1:
            count = 2
            guard (packet.byteCount - at).isMultiple(of: 2) else { throw .unevenFrames }
            firstStart = at
            firstLength = (packet.byteCount - at) / 2
            longest = firstLength
        case 2:
            count = 2
            let first = try Self.length(packet, &at, end: packet.byteCount)
            guard first <= packet.byteCount - at else { throw .truncated }
            firstStart = at
            firstLength = first
            longest = max(first, packet.byteCount - at - first)
        default:
            guard packet.byteCount >= 2 else { throw .truncated }
            let header = packet.byte(1)
            at = 2
            count = Int(header & 0b11_1111)
            guard count >= 1, count <= 48 else { throw .tooLong(frames: count) }
            let end = header & 0b100_0000 == 0 ? packet.byteCount : try Self.endBeforePadding(packet, &at)
            if header & 0b1000_0000 == 0 {
                guard (end - at).isMultiple(of: count) else { throw .unevenBytes }
                firstStart = at
                firstLength = (end - at) / count
                longest = firstLength
            } else {
                (firstLength, longest) = try Self.variableLengths(packet, &at, end: end, count: count)
                firstStart = at
            }
        }
        guard longest <= Self.longestFrame else { throw .frameTooLong(longest) }
    }

    /// Reads all lengths but the last frame's, which is what remains.
    private static func variableLengths(
        _ packet: RawSpan, _ at: inout Int, end: Int, count: Int
    ) throws(OpusPacketError) -> (first: Int, longest: Int) {
        var sum = 0
        var first: Int?
        var longest = 0
        for _ in 0..<(count - 1) {
            let length = try length(packet, &at, end: end)
            sum += length
            longest = max(longest, length)
            first = first ?? length
        }
        let last = end - at - sum
        guard last >= 0 else { throw .truncated }
        return (first ?? last, max(longest, last))
    }

    /// RFC 6716 §3.2.1: one byte below 252, else two bytes that say up to 1,275.
    private static func length(_ packet: RawSpan, _ at: inout Int, end: Int) throws(OpusPacketError) -> Int {
        guard at < end else { throw .truncated }
        let first = Int(packet.byte(at))
        at += 1
        guard first >= 252 else { return first }
        guard at < end else { throw .truncated }
        let second = Int(packet.byte(at))
        at += 1
        return second * 4 + first
    }

    /// RFC 6716 §3.2.5: each 255 stands for 254 bytes of padding and another length byte.
    private static func endBeforePadding(_ packet: RawSpan, _ at: inout Int) throws(OpusPacketError) -> Int {
        var padding = 0
        while true {
            guard at < packet.byteCount else { throw .truncated }
            let byte = Int(packet.byte(at))
            at += 1
            padding += byte == 255 ? 254 : byte
            if byte != 255 { break }
        }
        guard padding <= packet.byteCount - at else { throw .truncated }
        return packet.byteCount - padding
    }
}
