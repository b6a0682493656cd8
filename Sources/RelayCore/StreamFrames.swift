// Datagrams in a stream (RFC 4571): each behind its length, two bytes, big-endian. How ICE speaks over TCP (RFC 6544 §3).

import Primitives

public enum StreamFraming {
    /// Bytes before each datagram.
    public static let headerSize = 2
    /// The longest datagram that is taken, as long as the longest over UDP. What begins with a longer one is no client of ours: the
    /// first two bytes of a TLS ClientHello say 5635, those of HTTP's `GET` 18245.
    public static let payloadMax = 2048
    /// The longest frame.
    public static let frameMax = headerSize + payloadMax
}

/// What the next bytes of a stream are.
@frozen public enum StreamFrameStep: Hashable, Sendable {
    /// A datagram, which may be empty, at this place of the buffer.
    case datagram(Range<Int>)
    /// The rest of a frame has yet to come.
    case incomplete
    /// A datagram of this many bytes: nothing that comes behind it can be used.
    case tooLong(Int)
}

/// Takes the streams of a number of connections apart. All of them read into one buffer; what a connection leaves of a frame waits in a
/// place of its own.
///
///     reader.begin(connection)
///     let count = …read(into: reader.room)…
///     reader.received(count)
///     while case .datagram(let range) = reader.next() { …reader.bytes(range)… }
///     reader.end(connection)
public struct StreamFrameReader: ~Copyable {
    private var buffer: ByteSlab
    private var tails: ByteSlab
    private var tailLengths: Slab<UInt16>
    private var parsed = 0
    private var filled = 0

    /// Bytes that one read may bring.
    public static let readMax = 16_384
    private static let slot = (StreamFraming.frameMax + 63) / 64 * 64

    /// - Parameter connections: numbered from 0. Places that are never used cost no memory.
    public init(connections: Int) {
        buffer = ByteSlab(count: 1, slotSize: Self.slot + Self.readMax)
        tails = ByteSlab(count: max(connections, 1), slotSize: Self.slot)
        tailLengths = Slab(zeros: connections)
    }

    /// Bytes that are set aside for one connection.
    public static var byteCountOfConnection: Int { slot + 2 }

    /// Puts what `connection` has left of a frame before what it will bring.
    public mutating func begin(_ connection: Int) {
        parsed = 0
        filled = Int(tailLengths[connection])
        guard filled > 0 else { return }
        copy(tails, connection, 0..<filled, into: &buffer, 0)
    }

    /// Where to read to.
    public var room: MutableRawSpan {
        @_lifetime(&self)
        mutating get { buffer.mutableBytes(0, filled..<filled + Self.readMax) }
    }

    /// So many bytes have been read.
    public mutating func received(_ count: Int) {
        precondition((0...Self.readMax).contains(count) && filled + count <= buffer.slotSize)
        filled += count
    }

    public mutating func next() -> StreamFrameStep {
        guard filled - parsed >= StreamFraming.headerSize else { return .incomplete }
        let length = Int(buffer.bytes(0, parsed..<filled).u16(0))
        guard length <= StreamFraming.payloadMax else { return .tooLong(length) }
        let start = parsed + StreamFraming.headerSize
        guard filled - start >= length else { return .incomplete }
        parsed = start + length
        return .datagram(start..<parsed)
    }

    /// The bytes of a datagram, until the next `begin`.
    @_lifetime(borrow self)
    public func bytes(_ range: Range<Int>) -> RawSpan { buffer.bytes(0, range) }

    /// Keeps what is left for the next time. Only after `next` has said `incomplete`: so it is less than a frame.
    public mutating func end(_ connection: Int) {
        let left = filled - parsed
        precondition(left < StreamFraming.frameMax)
        tailLengths[connection] = UInt16(left)
        guard left > 0 else { return }
        copy(buffer, 0, parsed..<filled, into: &tails, connection)
    }

    /// The connection has ended, or its place begins anew.
    public mutating func forget(_ connection: Int) { tailLengths[connection] = 0 }
}

/// Puts datagrams into the streams of a number of connections. A frame that the kernel has taken a part of must go on where it stopped,
/// or all behind it is garbage: its rest waits in a place of its own, and until it has left nothing else is sent there.
public struct StreamFrameWriter: ~Copyable {
    private var frame: ByteSlab
    private var frameLength = 0
    private var rests: ByteSlab
    private var restStarts: Slab<UInt16>
    private var restEnds: Slab<UInt16>

    private static let slot = (StreamFraming.frameMax + 63) / 64 * 64

    /// - Parameter connections: numbered from 0. Places that are never used cost no memory.
    public init(connections: Int) {
        frame = ByteSlab(count: 1, slotSize: Self.slot)
        rests = ByteSlab(count: max(connections, 1), slotSize: Self.slot)
        restStarts = Slab(zeros: connections)
        restEnds = Slab(zeros: connections)
    }

    /// Bytes that are set aside for one connection.
    public static var byteCountOfConnection: Int { slot + 4 }

    /// Makes the frame of `datagram`, which `bytes` then has; false for one that is longer than `StreamFraming.payloadMax`.
    public mutating func make(_ datagram: RawSpan) -> Bool {
        guard datagram.byteCount <= StreamFraming.payloadMax else { return false }
        frameLength = StreamFraming.headerSize + datagram.byteCount
        var target = frame.mutableBytes(0, 0..<frameLength)
        target.set(UInt16(datagram.byteCount), at: 0)
        if datagram.byteCount > 0 { target.copy(datagram, to: StreamFraming.headerSize) }
        return true
    }

    /// The frame that was made last.
    public var bytes: RawSpan {
        @_lifetime(borrow self)
        get { frame.bytes(0, frameLength) }
    }

    /// Of the frame that was made last `connection` has taken `count` bytes, at least one. True when a rest waits.
    public mutating func sent(_ count: Int, to connection: Int) -> Bool {
        precondition(count > 0 && count <= frameLength && !hasRest(connection))
        let left = frameLength - count
        guard left > 0 else { return false }
        copy(frame, 0, count..<frameLength, into: &rests, connection)
        restStarts[connection] = 0
        restEnds[connection] = UInt16(left)
        return true
    }

    public func hasRest(_ connection: Int) -> Bool { restStarts[connection] != restEnds[connection] }

    /// What must leave before anything else.
    @_lifetime(borrow self)
    public func rest(_ connection: Int) -> RawSpan {
        rests.bytes(connection, Int(restStarts[connection])..<Int(restEnds[connection]))
    }

    /// Of the rest `connection` has taken `count` bytes. True when a rest is left.
    public mutating func sentOfRest(_ count: Int, to connection: Int) -> Bool {
        precondition(count >= 0 && count <= Int(restEnds[connection]) - Int(restStarts[connection]))
        restStarts[connection] += UInt16(count)
        return hasRest(connection)
    }

    /// The connection has ended, or its place begins anew.
    public mutating func forget(_ connection: Int) {
        restStarts[connection] = 0
        restEnds[connection] = 0
    }
}

/// Bytes `range` of one slot to the beginning of another.
private func copy(_ source: borrowing ByteSlab, _ from: Int, _ range: Range<Int>, into target: inout ByteSlab, _ to: Int) {
    var bytes = target.mutableBytes(to, 0..<range.count)
    bytes.copy(source.bytes(from, range), to: 0)
}
