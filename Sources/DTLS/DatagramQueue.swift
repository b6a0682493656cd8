// A bounded queue of datagrams between OpenSSL and the caller, in both directions.

import Primitives

/// First in, first out; each datagram with its length before it. Memory grows to what was used at once and is then reused.
struct DatagramQueue {
    private var storage: [UInt8] = []
    private var head = 0

    /// More than any flight, and what a peer may make us keep when nobody reads.
    static let byteCountMax = 65_536

    var isEmpty: Bool { head == storage.count }

    /// Appends a copy; false when the queue is full.
    mutating func append(_ datagram: UnsafeRawBufferPointer) -> Bool {
        guard datagram.count <= 0xFFFF, storage.count - head + 2 + datagram.count <= Self.byteCountMax else { return false }
        if head > Self.byteCountMax {
            storage.removeFirst(head)
            head = 0
        }
        storage.append(UInt8(truncatingIfNeeded: datagram.count >> 8))
        storage.append(UInt8(truncatingIfNeeded: datagram.count))
        storage.append(contentsOf: datagram)
        return true
    }

    /// Moves the oldest datagram to the end of `packet`; false when there is none. One that does not fit is lost.
    mutating func removeFirst(into packet: inout OutputRawSpan) -> Bool {
        while !isEmpty {
            let start = head + 2
            let end = start + (Int(storage[head]) << 8 | Int(storage[head + 1]))
            let fits = end - start <= packet.freeCapacity
            if fits { packet.append(contentsOf: storage.span.bytes.bytes(start..<end)) }
            head = end
            if isEmpty { removeAll() }
            if fits { return true }
        }
        return false
    }

    /// The same in no more memory than it needs.
    func compacted() -> DatagramQueue {
        var queue = DatagramQueue()
        queue.storage = Array(storage[head...])
        return queue
    }

    private mutating func removeAll() {
        storage.removeAll(keepingCapacity: true)
        head = 0
    }
}
