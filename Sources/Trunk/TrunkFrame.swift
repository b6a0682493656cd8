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
    public init(parsing bytes: RawSpan, key: borrowing TrunkKey) throws(TrunkError) {
        guard bytes.byteCount >= TrunkFormat.frameHeaderSize else { throw .truncated }
        let first = bytes.byte(0)
        guard first >> 4 == TrunkFormat.version else { throw .unknownVersion }
        guard let kind = TrunkKind(rawValue: first & 15) else { throw .unknownKind }
        let count = Int(bytes.byte(11))
        guard count > 0 else { throw .wrongRecordCount }
        if kind == .ping || kind == .pong, count != 1 { throw .wrongRecordCount }
        guard bytes.byte(12) <= TrunkFormat.hopsMax else { throw .tooManyHops }
        guard let (tag, end) = Self.tag(of: bytes, recordCount: count, key: key) else { throw .recordOverrun }
        guard kind == .clientData || kind == .transceiverData || end == TrunkFormat.frameHeaderSize &+ count &* TrunkFormat.recordHeaderSize
        else { throw .unexpectedPayload }
        guard tag == bytes.u64(16) else { throw .wrongTag }

        header = TrunkHeader(
            kind: kind, worker: bytes.byte(1), cluster: bytes.u16(2), transceiver: bytes.u32(4), ingressRelay: bytes.u16(8),
            ingressWorker: bytes.byte(10), hops: bytes.byte(12))
        recordCount = count
        self.bytes = bytes
        offset = TrunkFormat.frameHeaderSize
        remaining = count
    }

    /// The same for who reads a frame now and then; a worker keeps a `TrunkKey`.
    @_lifetime(copy bytes)
    public init(parsing bytes: RawSpan, key: SipKey) throws(TrunkError) { try self.init(parsing: bytes, key: TrunkKey(key)) }

    /// The tag that belongs into `bytes`, which hold a frame header at least; nil when a record does not end inside. And where the last
    /// record ends.
    static func tag(of bytes: RawSpan, recordCount: Int, key: borrowing TrunkKey) -> (tag: UInt64, end: Int)? {
        var sum = TagSum()
        var hash = SipHash(key: SipKey(k0: 0, k1: 0))
        let last = bytes.byteCount &- TrunkFormat.recordHeaderSize
        var offset = TrunkFormat.frameHeaderSize
        var number = 1
        while number <= recordCount {
            guard offset <= last else { return nil }
            let (word0, word1, word2) = unsafe words(bytes, offset)
            sum.add(word0, word1, word2, number: number, key)
            if TagSum.endsBlock(number) { sum.endBlock(number, into: &hash, key) }
            // Bytes 18 and 19 of the record header: the payload's length.
            offset &+= TrunkFormat.recordHeaderSize &+ Int(UInt16(truncatingIfNeeded: word2 >> 16).byteSwapped)
            number &+= 1
        }
        guard offset <= bytes.byteCount else { return nil }
        sum.addHeader(bytes.u64LittleEndian(0), bytes.u64LittleEndian(8), key)
        let tag = recordCount < 15 ? sum.tag(key) : Self.longTag(sum, hash)
        return (tag, offset)
    }

    @inline(never)
    private static func longTag(_ sum: TagSum, _ hash: borrowing SipHash) -> UInt64 { sum.tag(after: copy hash) }

    /// The record header at `offset`; the caller has checked that it is there.
    @unsafe @inlinable @inline(__always)
    static func words(_ bytes: RawSpan, _ offset: Int) -> (UInt64, UInt64, UInt64) {
        let word0 = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt64.self)
        let word1 = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset &+ 8, as: UInt64.self)
        let word2 = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset &+ 16, as: UInt64.self)
        return (UInt64(littleEndian: word0), UInt64(littleEndian: word1), UInt64(littleEndian: word2))
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
    @inlinable @inline(__always) public mutating func nextRecord() -> TrunkRecord? {
        guard remaining > 0 else { return nil }
        remaining &-= 1
        // `init` has looked at every length.
        assert(bytes.byteCount &- offset >= TrunkFormat.recordHeaderSize)
        let (word0, word1, word2) = unsafe Self.words(bytes, offset)
        let end = word2.byteSwapped
        let ip = IPAddress(high: word0.byteSwapped, low: word1.byteSwapped)
        let client = SocketAddress(ip, port: UInt16(truncatingIfNeeded: end >> 48))
        let start = offset &+ TrunkFormat.recordHeaderSize
        let length = Int(UInt16(truncatingIfNeeded: end >> 32))
        offset = start &+ length
        // There is a header, so there is memory.
        let memory = unsafe bytes.withUnsafeBytes { unsafe $0.baseAddress.unsafelyUnwrapped }
        let payload = unsafe RawSpan(_unsafeStart: memory + start, byteCount: length)
        return TrunkRecord(
            client: client, session: UInt32(truncatingIfNeeded: end), payload: unsafe _overrideLifetime(payload, copying: bytes))
    }

    /// Makes `record`, which was the last one taken, the next one again.
    @inlinable public mutating func takeBack(_ record: borrowing TrunkRecord) {
        remaining &+= 1
        offset &-= TrunkFormat.recordHeaderSize &+ record.payload.byteCount
    }

    /// The content of a ping or pong.
    public var probe: TrunkProbe? {
        guard header.kind == .ping || header.kind == .pong else { return nil }
        let start = TrunkFormat.frameHeaderSize
        guard let state = TrunkProbe.State(rawValue: bytes.byte(start + 8)) else { return nil }
        return TrunkProbe(sentAt: bytes.u64(start), sequence: bytes.u32(start + 20), state: state)
    }
}
