// When to look at which flow: a timing wheel of slots of 1,024 ms, threaded through the flows themselves.

import Primitives

struct FlowWheel: ~Copyable, Sendable {
    /// The first flow of each slot.
    private var heads = Slab(count: Self.slots) { _ in FlowTable.none }
    /// Slots before this one have been swept. It counts on; a slot's place in the wheel is what is left of it.
    private var swept: UInt64

    /// A flow is put at most 120 s ahead.
    private static let slots = 128
    static var byteCount: Int { slots * MemoryLayout<UInt32>.stride }

    init(milliseconds: UInt64) { swept = milliseconds >> 10 }

    /// Whether a slot has ended that has not been swept.
    @inline(__always)
    func isDue(milliseconds: UInt64) -> Bool { milliseconds >> 10 > swept }

    /// The next flow of a slot that has ended; nil when all of those are empty. It stays where it is: take it away, or put it back.
    mutating func nextDue(milliseconds: UInt64) -> Int? {
        let now = milliseconds >> 10
        // After a long stop one round visits every slot.
        if now > swept, now &- swept > UInt64(Self.slots) { swept = now &- UInt64(Self.slots) }
        while swept < now {
            let head = heads[place(swept)]
            if head != FlowTable.none { return Int(head) }
            swept &+= 1
        }
        return nil
    }

    /// In milliseconds, the end of the first slot that has a flow; nil without one.
    var nextEnd: UInt64? {
        for offset in 0..<UInt64(Self.slots) where heads[place(swept &+ offset)] != FlowTable.none { return (swept &+ offset &+ 1) << 10 }
        return nil
    }

    /// Puts a flow into the slot that `milliseconds` lies in.
    mutating func add(_ number: Int, at milliseconds: UInt64, in flows: inout FlowMemory) {
        // A slot is swept when it is over; one that was swept already waits for the next.
        let slot = place(max(milliseconds >> 10, swept))
        let head = heads[slot]
        flows[number].wheelSlot = slot
        flows[number].previous = FlowTable.none
        flows[number].next = head
        if head != FlowTable.none { flows[Int(head)].previous = UInt32(truncatingIfNeeded: number) }
        heads[slot] = UInt32(truncatingIfNeeded: number)
    }

    mutating func remove(_ number: Int, in flows: inout FlowMemory) {
        let next = flows[number].next
        let previous = flows[number].previous
        if previous != FlowTable.none {
            flows[Int(previous)].next = next
        } else {
            heads[flows[number].wheelSlot] = next
        }
        if next != FlowTable.none { flows[Int(next)].previous = previous }
    }

    private func place(_ slot: UInt64) -> Int { Int(truncatingIfNeeded: slot) & (Self.slots &- 1) }
}
