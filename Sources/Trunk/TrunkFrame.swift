// Reading a frame: one pass over the record headers checks lengths and tag, a second one hands out the records.

import Primitives

/// A frame whose lengths and tag are right. Walk it with `nextRecord`.
@frozen public struct TrunkFrame: ~Escapable {
    public let header: TrunkHeader
    /// 1…255.
    public let recordCount: Int
    @usableFromInline let bytes: RawSpan
    @usableFromInline var offset: Int
    @usableFromInline var remaining: Int

    /// One datagram of the trunk. Whatever follows the last record is padding and passed over.
    @_lifetime(copy bytes)
    public init(parsing bytes: RawSpan, key: SipKey) throws(TrunkError) {
        guard bytes.byteCount >= TrunkFormat.frameHeaderSize else { throw .truncated }
        let first = bytes.byte(0)
        guard first >> 4 == TrunkFormat.version else { throw .unknownVersion }
        guard let kind = TrunkKind(rawValue: first & 15) else { throw .unknownKind }
        let count = Int(bytes.byte(11))
        guard count > 0 else { throw .wrongRecordCount }
        if kind == .ping || kind == .pong, count != 1 { throw .wrongRecordCount }
        guard bytes.byte(12) <= TrunkFormat.hopsMax else { throw .tooManyHops }
        try Self.checkRecords(bytes, count, carryingPayload: kind == .clientData || kind == .transceiverData)
        guard Self.tag(of: bytes, recordCount: count, key: key) == bytes.u64(16) else { throw .wrongTag }

        header = TrunkHeader(
            kind: kind, worker: bytes.byte(1), cluster: bytes.u16(2), transceiver: bytes.u32(4), ingressRelay: bytes.u16(8),
            ingressWorker: bytes.byte(10), hops: bytes.byte(12))
        recordCount = count
        self.bytes = bytes
        offset = TrunkFormat.frameHeaderSize
        remaining = count
    }

    private static func checkRecords(_ bytes: RawSpan, _ count: Int, carryingPayload: Bool) throws(TrunkError) {
        var offset = TrunkFormat.frameHeaderSize
        for _ in 0..<count {
            guard bytes.byteCount &- offset >= TrunkFormat.recordHeaderSize else { throw .recordOverrun }
            let length = Int(bytes.u16(offset &+ 18))
            if !carryingPayload, length > 0 { throw .unexpectedPayload }
            offset &+= TrunkFormat.recordHeaderSize &+ length
            guard offset <= bytes.byteCount else { throw .recordOverrun }
        }
    }

    /// The tag that belongs into `bytes`: SipHash-2-4 over the frame header with hops and tag zero, and every record header in
    /// order. The records must have been checked.
    static func tag(of bytes: RawSpan, recordCount: Int, key: SipKey) -> UInt64 {
        var sip = SipHash(key: key)
        sip.update(word: bytes.u64LittleEndian(0))
        // Byte 12 counts hops: the lowest byte of this little-endian word's upper half.
        sip.update(word: bytes.u64LittleEndian(8) & 0xFFFF_FF00_FFFF_FFFF)
        sip.update(word: 0)
        var offset = TrunkFormat.frameHeaderSize
        for _ in 0..<recordCount {
            sip.update(word: bytes.u64LittleEndian(offset))
            sip.update(word: bytes.u64LittleEndian(offset &+ 8))
            sip.update(word: bytes.u64LittleEndian(offset &+ 16))
            offset &+= TrunkFormat.recordHeaderSize &+ Int(bytes.u16(offset &+ 18))
        }
        return sip.finalize()
    }
}

/// One record of a frame, in place.
@frozen public struct TrunkRecord: ~Escapable {
    /// The client's address as the ingress relay sees it.
    public let client: SocketAddress
    public let session: UInt32
    /// The datagram; empty in `confirm` and `gone`.
    public let payload: RawSpan

    @_lifetime(copy payload)
    @inlinable init(client: SocketAddress, session: UInt32, payload: RawSpan) {
        self.client = client
        self.session = session
        self.payload = payload
    }
}

extension TrunkFrame {
    /// The next record; nil after the last.
    @_lifetime(copy self)
    @inlinable public mutating func nextRecord() -> TrunkRecord? {
        guard remaining > 0 else { return nil }
        remaining &-= 1
        let start = offset &+ 24
        let end = start &+ Int(bytes.u16(offset &+ 18))
        let client = SocketAddress(IPAddress(high: bytes.u64(offset), low: bytes.u64(offset &+ 8)), port: bytes.u16(offset &+ 16))
        let session = bytes.u32(offset &+ 20)
        offset = end
        return TrunkRecord(client: client, session: session, payload: bytes.bytes(start..<end))
    }

    /// The content of a ping or pong.
    public var probe: TrunkProbe? {
        guard header.kind == .ping || header.kind == .pong else { return nil }
        let start = TrunkFormat.frameHeaderSize
        guard let state = TrunkProbe.State(rawValue: bytes.byte(start + 8)) else { return nil }
        return TrunkProbe(sentAt: bytes.u64(start), sequence: bytes.u32(start + 20), state: state)
    }
}
