// INIT and INIT ACK: what is in them, and reading them (RFC 9260 sections 3.3.2 and 3.3.3).

import Primitives

/// Streams that we offer and accept: there is no table behind a stream, only behind a channel, so all ids can be used.
let streamLimit: UInt16 = .max

/// What the peer said in INIT or INIT ACK.
struct Initiation: BitwiseCopyable {
    var tag: UInt32 = 0
    var window: UInt32 = 0
    var outgoingStreams: UInt16 = 0
    var incomingStreams: UInt16 = 0
    var tsn: UInt32 = 0
    var skips = false
    var resetsStreams = false
    var takesZeroChecksum = false
    /// The cookie's place in the chunk, if there is one.
    var cookieStart = 0
    var cookieEnd = 0

    static let fixedSize = 20

    init() {}

    /// Reads a chunk of at least its fixed size.
    /// - Parameters:
    ///   - chunk: all of it, without padding.
    ///   - report: gets parameters that ask to be reported, as long as there is room.
    /// - Returns: nil when it is malformed or breaks a rule that ends the association.
    init?(_ chunk: RawSpan, report: inout ReportBuffer) {
        guard chunk.byteCount >= Self.fixedSize else { return nil }
        tag = chunk.u32(4)
        window = chunk.u32(8)
        outgoingStreams = chunk.u16(12)
        incomingStreams = chunk.u16(14)
        tsn = chunk.u32(16)
        guard tag != 0, outgoingStreams != 0, incomingStreams != 0, window >= 1500 else { return nil }
        var offset = Self.fixedSize
        while offset &+ 4 <= chunk.byteCount {
            let type = chunk.u16(offset)
            let length = Int(chunk.u16(offset &+ 2))
            guard length >= 4, offset &+ length <= chunk.byteCount else { return nil }
            take(type, chunk, offset, length)
            if !ParameterType.isKnown(type) {
                if type & 0x4000 != 0 { report.append(chunk.bytes(offset..<offset &+ length)) }
                if type & 0x8000 == 0 { break }
            }
            offset &+= length &+ padding(length)
        }
    }

    private mutating func take(_ type: UInt16, _ chunk: RawSpan, _ offset: Int, _ length: Int) {
        switch type {
        case ParameterType.stateCookie: (cookieStart, cookieEnd) = (offset &+ 4, offset &+ length)
        case ParameterType.forwardTSN: skips = true
        case ParameterType.supportedExtensions:
            for index in offset &+ 4..<offset &+ length {
                if chunk.byte(index) == ChunkType.forwardTSN { skips = true }
                if chunk.byte(index) == ChunkType.reconfiguration { resetsStreams = true }
            }
        // Error detection method 1: the packets come through DTLS.
        case ParameterType.zeroChecksum: if length == 8 && chunk.u32(offset &+ 4) == 1 { takesZeroChecksum = true }
        default: break
        }
    }
}

/// Parameters to be reported back; what does not fit is not reported.
struct ReportBuffer: ~Copyable {
    var bytes = InlineArray<256, UInt8>(repeating: 0)
    private(set) var count = 0

    mutating func append(_ parameter: RawSpan) {
        let padded = parameter.byteCount &+ padding(parameter.byteCount)
        guard count &+ padded <= 256 else { return }
        for index in 0..<padded { bytes[count &+ index] = index < parameter.byteCount ? parameter.byte(index) : 0 }
        count &+= padded
    }
}

/// An INIT ACK that waits to be sent.
struct InitReply: BitwiseCopyable {
    var peer = Initiation()
    var localTag: UInt32 = 0
    var localTSN: UInt32 = 0
    /// Both tags of the association that exists already, for the cookie; zero when there is none.
    var tieLocal: UInt32 = 0
    var tiePeer: UInt32 = 0
}

/// The state cookie: what an INIT said, under our own seal, so that nothing is kept until the peer has shown that it hears us. DTLS
/// has shown that already; the seal is for a peer that would make cookies up.
struct StateCookie: BitwiseCopyable {
    var madeAt: Instant
    var reply: InitReply

    static let size = 64
    static let lifetime = Interval.seconds(60)

    init(madeAt: Instant, reply: InitReply) {
        self.madeAt = madeAt
        self.reply = reply
    }

    /// Reads a cookie that `write` made with the same key; nil for any other.
    init?(_ bytes: RawSpan, key: SipKey) {
        guard bytes.byteCount == Self.size else { return nil }
        var hash = SipHash(key: key)
        hash.update(bytes.bytes(0..<Self.size - 8))
        guard hash.finalize() == bytes.u64(Self.size - 8) else { return nil }
        madeAt = Instant(nanoseconds: bytes.u64(0))
        reply = InitReply()
        reply.localTag = bytes.u32(8)
        reply.localTSN = bytes.u32(12)
        reply.tieLocal = bytes.u32(16)
        reply.tiePeer = bytes.u32(20)
        reply.peer.tag = bytes.u32(24)
        reply.peer.tsn = bytes.u32(28)
        reply.peer.window = bytes.u32(32)
        reply.peer.outgoingStreams = bytes.u16(36)
        reply.peer.incomingStreams = bytes.u16(38)
        let flags = bytes.u64(40)
        reply.peer.skips = flags & 1 != 0
        reply.peer.resetsStreams = flags & 2 != 0
        reply.peer.takesZeroChecksum = flags & 4 != 0
    }

    func write(to output: inout OutputRawSpan, key: SipKey) {
        let start = output.byteCount
        output.append(madeAt.nanoseconds)
        output.append(reply.localTag)
        output.append(reply.localTSN)
        output.append(reply.tieLocal)
        output.append(reply.tiePeer)
        output.append(reply.peer.tag)
        output.append(reply.peer.tsn)
        output.append(reply.peer.window)
        output.append(reply.peer.outgoingStreams)
        output.append(reply.peer.incomingStreams)
        output.append(UInt64(reply.peer.skips ? 1 : 0) | (reply.peer.resetsStreams ? 2 : 0) | (reply.peer.takesZeroChecksum ? 4 : 0))
        output.append(UInt64(0))
        output.append(seal(of: output.bytes, from: start, key: key))
    }

    private func seal(of written: RawSpan, from start: Int, key: SipKey) -> UInt64 {
        var hash = SipHash(key: key)
        hash.update(written.bytes(start..<start &+ Self.size - 8))
        return hash.finalize()
    }
}
