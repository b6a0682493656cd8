// Writing one frame into bytes that the caller owns. Layout lives here and in TrunkFrame.swift, nowhere else.

import Primitives

/// Builds one frame at the start of a buffer: records first, then `finish` puts header and tag before them.
///
/// The writer holds offsets, not the buffer, so that a caller can keep several open over one slab.
@frozen public struct TrunkWriter: Sendable {
    /// The most bytes that the frame may have.
    public let limit: Int
    /// Bytes written so far, the frame header's place included.
    public private(set) var length = TrunkFormat.frameHeaderSize
    public private(set) var recordCount = 0

    public init(limit: Int) {
        precondition(limit >= TrunkFormat.frameHeaderSize + TrunkFormat.recordHeaderSize && limit <= TrunkFormat.datagramMax)
        self.limit = limit
    }

    /// Goes on with a frame whose records end at `length`, as `TrunkTrains` does.
    init(resumingAt length: Int, recordCount: Int) {
        limit = TrunkFormat.datagramMax
        self.length = length
        self.recordCount = recordCount
    }

    /// Whether a record with `byteCount` bytes of payload still fits.
    public func fits(_ byteCount: Int) -> Bool {
        recordCount < TrunkFormat.recordsMax && byteCount <= 0xFFFF && limit &- length &- TrunkFormat.recordHeaderSize >= byteCount
    }

    /// Appends a record; false, and nothing written, when it does not fit.
    public mutating func append(client: SocketAddress, session: UInt32, payload: RawSpan, to buffer: inout MutableRawSpan) -> Bool {
        guard fits(payload.byteCount) else { return false }
        buffer.set(client.ip.high, at: length)
        buffer.set(client.ip.low, at: length &+ 8)
        buffer.set(client.port, at: length &+ 16)
        buffer.set(UInt16(truncatingIfNeeded: payload.byteCount), at: length &+ 18)
        buffer.set(session, at: length &+ 20)
        if payload.byteCount > 0 { buffer.copy(payload, to: length &+ TrunkFormat.recordHeaderSize) }
        length &+= TrunkFormat.recordHeaderSize &+ payload.byteCount
        recordCount &+= 1
        return true
    }

    /// Writes header and tag; the frame is then the first `length` bytes of `buffer`. At least one record must have been appended.
    public func finish(_ header: TrunkHeader, key: SipKey, in buffer: inout MutableRawSpan) {
        precondition(recordCount > 0, "a frame without records says nothing")
        buffer.set(TrunkFormat.version << 4 | header.kind.rawValue, at: 0)
        buffer.set(header.worker, at: 1)
        buffer.set(header.cluster, at: 2)
        buffer.set(header.transceiver, at: 4)
        buffer.set(header.ingressRelay, at: 8)
        buffer.set(header.ingressWorker, at: 10)
        buffer.set(UInt8(truncatingIfNeeded: recordCount), at: 11)
        buffer.set(UInt32(header.hops) << 24, at: 12)
        buffer.set(UInt64(0), at: 16)
        buffer.set(TrunkFrame.tag(of: buffer.bytes, recordCount: recordCount, key: key), at: 16)
    }
}

extension TrunkWriter {
    /// A whole ping or pong: 48 bytes at the start of `buffer`.
    public static func write(_ probe: TrunkProbe, _ header: TrunkHeader, key: SipKey, to buffer: inout MutableRawSpan) -> Int {
        precondition(header.kind == .ping || header.kind == .pong)
        var writer = TrunkWriter(limit: TrunkFormat.frameHeaderSize + TrunkFormat.recordHeaderSize)
        let place = SocketAddress(IPAddress(high: probe.sentAt, low: UInt64(probe.state.rawValue) << 56), port: 0)
        let fitted = writer.append(client: place, session: probe.sequence, payload: RawSpan(), to: &buffer)
        precondition(fitted)
        writer.finish(header, key: key, in: &buffer)
        return writer.length
    }
}
