// One deadline per member, for thousands of members: insert, move and remove are O(1), and a turn visits only what is due.

/// A hashed timing wheel over members 0..<capacity, each with at most one deadline. Intrusive lists in preallocated slabs: nothing is
/// allocated after `init`. A deadline fires at its tick or later, never before; one beyond the horizon is looked at again once a round.
public struct TimerWheel: ~Copyable {
    // Not private: the compiler (6.3.1) breaks on `Slab` of a private type in a public struct.
    struct Entry {
        var next: Int32 = none
        var previous: Int32 = none
        var slot: Int32 = none
        var deadline = Instant.never
    }

    static let none: Int32 = -1

    private var entries: Slab<Entry>
    private var heads: Slab<Int32>
    /// Nanoseconds a tick.
    private let resolution: UInt64
    /// All ticks before this one were visited.
    private var tick: UInt64
    /// Where the sweep of the current tick goes on when its budget ran out.
    private var armed = 0

    /// - Parameters:
    ///   - capacity: members, 1…2³¹−1.
    ///   - slots: ticks in a round, a power of two.
    public init(capacity: Int, slots: Int = 2048, resolution: Interval = .milliseconds(1), now: Instant) {
        precondition(slots > 0 && slots & (slots - 1) == 0 && resolution.nanoseconds > 0)
        entries = Slab(count: capacity) { _ in Entry() }
        heads = Slab(count: slots) { _ in Self.none }
        self.resolution = UInt64(resolution.nanoseconds)
        tick = now.nanoseconds / self.resolution
    }

    /// How many members wait for something.
    public var count: Int { armed }

    /// Sets, moves or (with `.never`) clears the deadline of `member`.
    public mutating func arm(_ member: Int, at deadline: Instant) {
        if entries[member].deadline == deadline { return }
        disarm(member)
        if deadline == .never { return }
        // Rounded up: a member that is woken early would only go to sleep again.
        let due = max(deadline.nanoseconds / resolution &+ 1, tick)
        let slot = Int(due & UInt64(heads.count - 1))
        let head = heads[slot]
        entries[member] = Entry(next: head, previous: Self.none, slot: Int32(slot), deadline: deadline)
        if head != Self.none { entries[Int(head)].previous = Int32(member) }
        heads[slot] = Int32(member)
        armed += 1
    }

    public mutating func disarm(_ member: Int) {
        let entry = entries[member]
        guard entry.slot != Self.none else { return }
        if entry.previous != Self.none {
            entries[Int(entry.previous)].next = entry.next
        } else {
            heads[Int(entry.slot)] = entry.next
        }
        if entry.next != Self.none { entries[Int(entry.next)].previous = entry.previous }
        entries[member] = Entry()
        armed -= 1
    }

    /// The next member whose deadline has come, disarmed; nil when none is left. Call until nil, or until the turn's budget is spent.
    public mutating func nextDue(at now: Instant) -> Int? {
        let current = now.nanoseconds / resolution
        if armed == 0 {
            tick = max(tick, current)
            return nil
        }
        // After a long stop one round visits every slot; more rounds would find nothing new.
        if current > tick, current - tick > UInt64(heads.count) { tick = current - UInt64(heads.count) }
        while tick <= current {
            var member = heads[Int(tick & UInt64(heads.count - 1))]
            while member != Self.none {
                let entry = entries[Int(member)]
                if entry.deadline <= now {
                    disarm(Int(member))
                    return Int(member)
                }
                member = entry.next
            }
            if tick == current { return nil }
            tick += 1
        }
        return nil
    }

    /// No member is due before this instant. Exact to one tick for deadlines within a round, at the latest one round ahead.
    public func nextDeadline(at now: Instant) -> Instant {
        if armed == 0 { return .never }
        let start = max(tick, 1)
        for offset in 0..<UInt64(heads.count) {
            var member = heads[Int((start + offset) & UInt64(heads.count - 1))]
            let end = Instant(nanoseconds: (start + offset + 1) * resolution)
            while member != Self.none {
                if entries[Int(member)].deadline < end { return max(Instant(nanoseconds: (start + offset) * resolution), now) }
                member = entries[Int(member)].next
            }
        }
        return now + Interval(nanoseconds: Int64(resolution) * Int64(heads.count))
    }
}
