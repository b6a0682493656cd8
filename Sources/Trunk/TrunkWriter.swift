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
    public func finish(_ header: TrunkHeader, key: borrowing TrunkKey, in buffer: inout MutableRawSpan) {
        precondition(recordCount > 0, "a frame without records says nothing")
        let lane = TrunkLane(header)
        buffer.set(lane.first, at: 0)
        buffer.set(lane.second(recordCount: recordCount), at: 8)
        buffer.set(Self.tag(of: buffer.bytes.bytes(0..<length), recordCount, key), at: 16)
    }

    /// The same for who writes a frame now and then; a worker keeps a `TrunkKey`.
    public func finish(_ header: TrunkHeader, key: SipKey, in buffer: inout MutableRawSpan) {
        finish(header, key: TrunkKey(key), in: &buffer)
    }

    /// Of records that have been written here.
    private static func tag(of frame: RawSpan, _ recordCount: Int, _ key: borrowing TrunkKey) -> UInt64 {
        guard let found = TrunkFrame.tag(of: frame, recordCount: recordCount, key: key) else {
            preconditionFailure("a record that does not end where it should")
        }
        return found.tag
    }
}

extension TrunkWriter {
    /// The same for who writes a frame now and then; a worker keeps a `TrunkKey`.
    public static func write(_ probe: TrunkProbe, _ header: TrunkHeader, key: SipKey, to buffer: inout MutableRawSpan) -> Int {
        write(probe, header, key: TrunkKey(key), to: &buffer)
    }

    /// A whole ping or pong: 48 bytes at the start of `buffer`.
    public static func write(_ probe: TrunkProbe, _ header: TrunkHeader, key: borrowing TrunkKey, to buffer: inout MutableRawSpan) -> Int {
        precondition(header.kind == .ping || header.kind == .pong)
        var writer = TrunkWriter(limit: TrunkFormat.frameHeaderSize + TrunkFormat.recordHeaderSize)
        let place = SocketAddress(IPAddress(high: probe.sentAt, low: UInt64(probe.state.rawValue) << 56), port: 0)
        let fitted = writer.append(client: place, session: probe.sequence, payload: RawSpan(), to: &buffer)
        precondition(fitted)
        writer.finish(header, key: key, in: &buffer)
        return writer.length
    }
}
