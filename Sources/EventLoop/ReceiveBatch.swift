// Where received datagrams lie until the next receive.
import CLinux
import Glibc
public import Primitives

/// What is known about one received datagram, or one train of them.
@frozen public struct Datagram: Sendable {
    /// Who sent it; IPv4 in mapped form, on dual-stack sockets too.
    public var source: SocketAddress
    /// Bytes of payload.
    public var length: Int
    /// 0 for a single datagram. Otherwise the payload is a UDP_GRO train: datagrams of this length, the last may be shorter.
    public var segmentSize: Int
    /// How many datagrams the socket has lost since it was made, because its buffer was full; 0 while none was.
    public var dropped: UInt32
    /// When the kernel got it, by the wall clock; nil unless the socket asks for timestamps.
    public var arrival: WallClock?
    @usableFromInline var slot: Int

    @usableFromInline init(source: SocketAddress, length: Int, slot: Int) {
        self.source = source
        self.length = length
        self.slot = slot
        segmentSize = 0
        dropped = 0
        arrival = nil
    }

    /// How many datagrams: 1, or the length of the train.
    @inlinable public var segmentCount: Int {
        segmentSize > 0 && length > segmentSize ? (length &+ segmentSize &- 1) / segmentSize : 1
    }

    /// Where datagram `index` of the train lies in the payload.
    @inlinable public func segment(_ index: Int) -> Range<Int> {
        precondition(index >= 0 && index < segmentCount)
        let size = segmentSize > 0 ? segmentSize : length
        let start = index &* size
        return start..<min(start &+ size, length)
    }
}

/// Up to `capacity` datagrams, in memory allocated once. `DatagramEngine.receive` fills it and thereby ends the life of what it
/// held before. Datagrams longer than `payloadCapacity` are counted in `truncated` and not shown.
public struct ReceiveBatch: ~Copyable {
    /// How many datagrams one receive can return; 64 is where a longer batch stops paying.
    public let capacity: Int
    /// Bytes before each payload that belong to the owner of the batch, to write a header in place.
    public let headroom: Int
    /// The longest payload that fits: 65,536 for a socket that takes trains.
    public let payloadCapacity: Int
    /// How many datagrams there are now.
    public internal(set) var count = 0
    /// Datagrams lost since the batch was made because they were longer than `payloadCapacity`.
    public internal(set) var truncated: UInt64 = 0
    /// Times the kernel reported an error instead of a datagram (an ICMP message for something sent earlier).
    public internal(set) var errors: UInt64 = 0

    let memory: PacketMemory
    @usableFromInline let base: UnsafeMutableRawPointer
    @usableFromInline let stride: Int
    @usableFromInline var entries: Slab<Datagram>
    let vectors: MessageVectors

    /// - Parameters:
    ///   - slots: datagrams that memory is set aside for. epoll needs no more than `capacity`; io_uring receives into the slots
    ///     beyond the current batch while the worker is busy, so that more is a deeper queue.
    ///   - headroom: at least 128 bytes are kept in any case: io_uring writes its own header there.
    public init(capacity: Int = 64, slots: Int? = nil, payloadCapacity: Int = 2048, headroom: Int = 128) {
        precondition(capacity >= 1 && capacity <= 1024 && payloadCapacity >= 1 && payloadCapacity <= 65_536 && headroom >= 0)
        let slots = max(slots ?? capacity, capacity)
        precondition(slots <= 32_768, "a buffer ring has at most 32,768 entries")
        self.capacity = capacity
        self.headroom = (max(headroom, ringHeaderSize) + 63) / 64 * 64
        self.payloadCapacity = payloadCapacity
        stride = self.headroom + (payloadCapacity + 63) / 64 * 64
        memory = PacketMemory(count: slots, slotSize: stride)
        base = memory.base
        entries = Slab(count: capacity) { _ in Datagram(source: SocketAddress(.v6Any, port: 0), length: 0, slot: 0) }
        vectors = MessageVectors(count: capacity, controlSize: Int(CLINUX_RECEIVE_CONTROL_BYTES))
        for index in 0..<capacity {
            vectors.vectors[index] = iovec(iov_base: base + index * stride + self.headroom, iov_len: payloadCapacity)
        }
        vectors.resetForReceive(0..<capacity)
    }
}

extension ReceiveBatch: @unchecked Sendable {}

extension ReceiveBatch {
    /// Datagram `index` of `0..<count`.
    @inlinable public subscript(index: Int) -> Datagram {
        precondition(index >= 0 && index < count)
        return entries[index]
    }

    /// The payload of datagram `index`: the whole train, if it is one.
    @_lifetime(borrow self)
    @inlinable public func bytes(_ index: Int) -> RawSpan {
        precondition(index >= 0 && index < count)
        return bytes(index, 0..<entries[index].length)
    }

    /// Bytes `range` of the payload of datagram `index`; with `Datagram.segment`, one datagram of a train.
    @_lifetime(borrow self)
    @inlinable public func bytes(_ index: Int, _ range: Range<Int>) -> RawSpan {
        precondition(index >= 0 && index < count && range.lowerBound >= 0 && range.upperBound <= entries[index].length)
        let start = base + (entries[index].slot &* stride &+ headroom &+ range.lowerBound)
        return _overrideLifetime(RawSpan(_unsafeStart: UnsafeRawPointer(start), byteCount: range.count), borrowing: self)
    }

    /// Bytes `range` relative to the payload, to change in place: from `-headroom` up to `payloadCapacity`.
    @_lifetime(&self)
    @inlinable public mutating func mutableBytes(_ index: Int, _ range: Range<Int>) -> MutableRawSpan {
        precondition(index >= 0 && index < count && range.lowerBound >= -headroom && range.upperBound <= payloadCapacity)
        let start = base + (entries[index].slot &* stride &+ headroom &+ range.lowerBound)
        return _overrideLifetime(MutableRawSpan(_unsafeStart: start, byteCount: range.count), mutating: &self)
    }

    /// The payload of datagram `index`, to change in place (SRTP).
    @_lifetime(&self)
    @inlinable public mutating func mutableBytes(_ index: Int) -> MutableRawSpan {
        precondition(index >= 0 && index < count)
        return mutableBytes(index, 0..<entries[index].length)
    }
}

extension ReceiveBatch {
    /// Takes over what recvmmsg left in the first `received` vectors.
    mutating func adopt(received: Int) {
        count = 0
        for index in 0..<received {
            let header = vectors.headers[index]
            adopt(
                slot: index, length: Int(header.msg_len), flags: header.msg_hdr.msg_flags,
                name: vectors.name(index), nameLength: Int(header.msg_hdr.msg_namelen),
                control: vectors.control(index), controlLength: header.msg_hdr.msg_controllen)
        }
        vectors.resetForReceive(0..<received)
    }

    /// Adds one datagram that lies in `slot`, unless it was cut off or has no address.
    @inline(__always)
    mutating func adopt(
        slot: Int, length: Int, flags: CInt, name: UnsafeRawPointer, nameLength: Int, control: UnsafeMutableRawPointer, controlLength: Int
    ) {
        guard flags & CInt(MSG_TRUNC) == 0, length <= payloadCapacity else {
            truncated &+= 1
            return
        }
        guard let source = SocketName.read(from: name, length: nameLength) else { return }
        var datagram = Datagram(source: source, length: length, slot: slot)
        if controlLength > 0 {
            var parsed = clinux_control()
            clinux_parse_control(control, controlLength, &parsed)
            datagram.dropped = parsed.dropped
            datagram.segmentSize = Int(parsed.segment_size)
            if parsed.timestamp_seconds != 0 {
                datagram.arrival = WallClock(secondsSince1970: parsed.timestamp_seconds, nanoseconds: parsed.timestamp_nanoseconds)
            }
        }
        entries[count] = datagram
        count &+= 1
    }
}
