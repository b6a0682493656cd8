// Datagrams that wait for the next send.
import CLinux
import Glibc
public import Primitives

/// Up to `capacity` datagrams, each to its own address, written straight into memory allocated once. `DatagramEngine.send`
/// empties it. A UDP send that fails is a number here, never an error path.
public struct SendBatch: ~Copyable {
    /// The most datagrams a UDP_SEGMENT train may hold.
    public static let trainLimit = 64

    /// How many datagrams (or trains) fit; 64 is where a longer batch stops paying.
    public let capacity: Int
    /// Bytes in each slot: 65,536 where trains are sent.
    public let slotSize: Int
    /// How many wait now.
    @inlinable public var count: Int { waiting }
    @usableFromInline var waiting = 0
    /// What has become of everything sent from this batch since it was made.
    public internal(set) var statistics = SendStatistics()

    let memory: PacketMemory
    @usableFromInline let base: UnsafeMutableRawPointer
    @usableFromInline var entries: Slab<Outgoing>
    let vectors: MessageVectors
    /// Headers for a train that the kernel will not segment for us.
    let pieces: MessageVectors
    var failures: Slab<UInt64>
    /// Whose slots `append(forwarding:)` refers to; kept alive until the batch is sent.
    @usableFromInline var lender: UnsafeMutableRawPointer?
    private var lentMemory: PacketMemory?

    public init(capacity: Int = 64, slotSize: Int = 2048) {
        precondition(capacity >= 1 && capacity <= 1024 && slotSize >= 1 && slotSize <= 65_536)
        self.capacity = capacity
        self.slotSize = (slotSize + 63) / 64 * 64
        memory = PacketMemory(count: capacity, slotSize: self.slotSize)
        base = memory.base
        entries = Slab(count: capacity) { _ in Outgoing(destination: SocketAddress(.v6Any, port: 0), bytes: nil, length: 0, segmentSize: 0)
        }
        vectors = MessageVectors(count: capacity, controlSize: Int(CLINUX_SEND_CONTROL_BYTES))
        pieces = MessageVectors(count: Self.trainLimit, controlSize: 0)
        failures = Slab(count: Self.errnoLimit) { _ in 0 }
    }
}

extension SendBatch: @unchecked Sendable {}

/// One datagram or train in a `SendBatch`.
@frozen @usableFromInline struct Outgoing {
    @usableFromInline var destination: SocketAddress
    @usableFromInline var bytes: UnsafeMutableRawPointer?
    @usableFromInline var length: Int
    /// 0 for a single datagram.
    @usableFromInline var segmentSize: Int

    @inlinable init(destination: SocketAddress, bytes: UnsafeMutableRawPointer?, length: Int, segmentSize: Int) {
        self.destination = destination
        self.bytes = bytes
        self.length = length
        self.segmentSize = segmentSize
    }
}

/// Sums since a `SendBatch` was made. A train counts as its datagrams in `sent` and `dropped`.
@frozen public struct SendStatistics: Sendable, Equatable {
    /// Datagrams the kernel took.
    public var sent: UInt64 = 0
    /// Datagrams the kernel did not take; `SendBatch.failures(_:)` says why.
    public var dropped: UInt64 = 0
    /// Datagrams sent again because an ICMP message for an earlier one was in the way.
    public var retried: UInt64 = 0
    /// The last error that dropped a datagram, and where that one was going.
    public var lastFailure: Errno?
    public var lastFailedDestination: SocketAddress?
    public init() {}
}

extension SendBatch {
    @inlinable public var isFull: Bool { count == capacity }
    @inlinable public var isEmpty: Bool { count == 0 }

    /// How many sends have failed with `error`.
    public func failures(_ error: Errno) -> UInt64 { failures[min(Int(error.rawValue), Self.errnoLimit - 1)] }

    /// Runs `write` on the next slot and takes what it wrote as a datagram to `destination`; an empty one is not taken.
    /// False when the batch is full; `write` has then not run.
    @inlinable public mutating func append(to destination: SocketAddress, _ write: (inout OutputRawSpan) -> Void) -> Bool {
        append { packet in
            write(&packet)
            return destination
        }
    }

    /// Runs `write` on the next slot. It answers where what it wrote is to go, or nil for nowhere. True when a datagram was
    /// taken; false when the batch is full (`write` has not run), on nil, and for an empty packet. So a core is drained by
    /// `while batch.append({ core.nextTransmit(into: &$0, at: now)?.destination }) {}`.
    @inlinable public mutating func append(_ write: (inout OutputRawSpan) -> SocketAddress?) -> Bool {
        guard count < capacity else { return false }
        let buffer = UnsafeMutableRawBufferPointer(start: base + count &* slotSize, count: slotSize)
        var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
        let destination = write(&output)
        let length = output.finalize(for: buffer)
        guard let destination, length > 0 else { return false }
        entries[count] = Outgoing(destination: destination, bytes: buffer.baseAddress, length: length, segmentSize: 0)
        waiting &+= 1
        return true
    }

    /// Copies `payload`. False when the batch is full or the payload is empty or longer than a slot.
    @inlinable public mutating func append(_ payload: RawSpan, to destination: SocketAddress) -> Bool {
        guard count < capacity, payload.byteCount > 0, payload.byteCount <= slotSize else { return false }
        let slot = base + count &* slotSize
        payload.withUnsafeBytes { slot.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        entries[count] = Outgoing(destination: destination, bytes: slot, length: payload.byteCount, segmentSize: 0)
        waiting &+= 1
        return true
    }

    /// A train: all datagrams are `segmentSize` long, the last may be shorter; at most 64 of them and 65,507 bytes in all. It goes
    /// through the kernel once where UDP_SEGMENT works, and as single datagrams where it does not.
    @inlinable public mutating func appendTrain(
        to destination: SocketAddress, segmentSize: Int, _ write: (inout OutputRawSpan) -> Void
    ) -> Bool {
        precondition(segmentSize > 0 && segmentSize <= 65_507)
        guard append(to: destination, write) else { return false }
        let length = entries[count &- 1].length
        precondition(length <= 65_507 && length <= segmentSize &* Self.trainLimit, "a train the kernel would refuse")
        if length > segmentSize { entries[count &- 1].segmentSize = segmentSize }
        return true
    }

    /// A train, or with `segmentSize` 0 a single datagram, that is sent from where it lies. Unsafe: `bytes` must stay as they are until
    /// the batch has been sent, and nothing here can check it. False when the batch is full or `bytes` is empty.
    @unsafe @inlinable public mutating func append(lending bytes: RawSpan, segmentSize: Int, to destination: SocketAddress) -> Bool {
        let length = bytes.byteCount
        guard count < capacity, length > 0 else { return false }
        precondition(segmentSize >= 0 && length <= 65_507, "a train the kernel would refuse")
        precondition(segmentSize == 0 || length <= segmentSize &* Self.trainLimit, "a train the kernel would refuse")
        // Only ever read: `Outgoing` is mutable because `iovec` is.
        let start = bytes.withUnsafeBytes { UnsafeMutableRawPointer(mutating: $0.baseAddress) }
        entries[count] = Outgoing(
            destination: destination, bytes: start, length: length, segmentSize: length > segmentSize ? segmentSize : 0)
        waiting &+= 1
        return true
    }

    /// Sends bytes `range` (relative to the payload, from `-headroom`) of a received datagram without copying them. The bytes
    /// are read when the batch is sent, which must happen before the next receive into `batch`. Until it is sent, a send batch
    /// borrows from one receive batch only.
    public mutating func append(forwarding index: Int, _ range: Range<Int>, of batch: borrowing ReceiveBatch, to destination: SocketAddress)
        -> Bool
    {
        precondition(index >= 0 && index < batch.count)
        precondition(range.lowerBound >= -batch.headroom && range.upperBound <= batch.payloadCapacity)
        guard count < capacity, !range.isEmpty else { return false }
        if lender != batch.base {
            precondition(lender == nil, "send what was borrowed from the other batch first")
            lender = batch.base
            lentMemory = batch.memory
        }
        let bytes = batch.base + (batch.entries[index].slot &* batch.stride &+ batch.headroom &+ range.lowerBound)
        entries[count] = Outgoing(destination: destination, bytes: bytes, length: range.count, segmentSize: 0)
        waiting &+= 1
        return true
    }

    /// Forgets everything that waits.
    public mutating func removeAll() {
        waiting = 0
        lender = nil
        // `lentMemory` stays: most likely the same batch lends again, and no reference count changes per turn.
    }
}

extension SendBatch {
    /// One above the kernel's highest errno (133), and a bucket for anything else.
    static let errnoLimit = 135

    /// Points the message vectors at what waits, for a socket of `family`.
    mutating func prepare(family: AddressFamily) {
        for index in 0..<count {
            let outgoing = entries[index]
            let nameLength = SocketName.write(outgoing.destination, as: family, to: vectors.name(index))
            vectors.vectors[index] = iovec(iov_base: outgoing.bytes, iov_len: outgoing.length)
            vectors.headers[index].msg_hdr.msg_namelen = nameLength
            if outgoing.segmentSize > 0 {
                clinux_write_segment_size(vectors.control(index), UInt16(outgoing.segmentSize))
                vectors.headers[index].msg_hdr.msg_controllen = vectors.controlSize
            } else {
                vectors.headers[index].msg_hdr.msg_controllen = 0
            }
        }
    }

    /// Points `pieces` at the datagrams of train `index`; how many there are.
    func preparePieces(of index: Int, family: AddressFamily) -> Int {
        let outgoing = entries[index]
        let size = outgoing.segmentSize
        let pieceCount = (outgoing.length + size - 1) / size
        for piece in 0..<pieceCount {
            let start = piece * size
            pieces.vectors[piece] = iovec(iov_base: outgoing.bytes! + start, iov_len: min(size, outgoing.length - start))
            pieces.headers[piece].msg_hdr.msg_namelen = SocketName.write(outgoing.destination, as: family, to: pieces.name(piece))
        }
        return pieceCount
    }

    func segmentCount(_ index: Int) -> UInt64 {
        let outgoing = entries[index]
        return outgoing.segmentSize == 0 ? 1 : UInt64((outgoing.length + outgoing.segmentSize - 1) / outgoing.segmentSize)
    }

    mutating func recordSent(_ indices: Range<Int>) {
        for index in indices { statistics.sent &+= segmentCount(index) }
    }

    mutating func recordFailure(_ error: Errno, _ index: Int, datagrams: UInt64) {
        statistics.dropped &+= datagrams
        statistics.lastFailure = error
        statistics.lastFailedDestination = entries[index].destination
        failures[min(Int(error.rawValue), Self.errnoLimit - 1)] &+= datagrams
    }
}
