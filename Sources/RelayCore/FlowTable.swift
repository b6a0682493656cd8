// The flow table: client address → route. Fixed capacity, allocated once, at most 96 bytes a flow with its share of the index.
//
// Three structures over one slab: an open-addressing index by a keyed hash (so that nobody outside can choose who collides), a
// timing wheel of one-second slots threaded through the flows, and a free list. Each operation is O(1). Traffic only stores the time
// of the last packet; the wheel looks at a flow when it might be due and puts it further back if it is not.

import Primitives
import RoutingHint
import Trunk

/// Where a flow's datagrams go.
@frozen public struct Route: Hashable, Sendable {
    public var cluster: UInt16
    public var transceiver: UInt32
    public var worker: UInt8
    public var session: UInt32

    @inlinable public init(cluster: UInt16, transceiver: UInt32, worker: UInt8, session: UInt32) {
        self.cluster = cluster
        self.transceiver = transceiver
        self.worker = worker
        self.session = session
    }
    public init(_ hint: RoutingHint) {
        self.init(cluster: hint.cluster, transceiver: hint.transceiver, worker: hint.worker, session: hint.session)
    }
}

/// How long flows live, and how many a hint may try.
public struct FlowLimits: Hashable, Sendable {
    /// An unconfirmed flow ends this long after it was made (or moved), whatever it sends. At most 120 s.
    public var unconfirmed = Interval.seconds(10)
    /// A confirmed flow ends after this long without a datagram from its client. At most 120 s.
    public var idle = Interval.seconds(60)
    /// Unconfirmed flows of one hint at a time. A client behind NATs and with several interfaces needs a handful.
    public var unconfirmedPerHint = 16
    public init() {}
}

public struct FlowTable: ~Copyable, Sendable {
    /// The most flows.
    public let capacity: Int
    public let limits: FlowLimits
    /// How many flows there are, and how many of them the transceiver has confirmed.
    public internal(set) var count = 0
    public internal(set) var confirmedCount = 0
    /// What was found at the start.
    public internal(set) var adoption = FlowAdoption()

    /// Confirmed flows that a cache is to be told of.
    var notes = FlowNotes(capacity: 0)

    var flows: FlowMemory
    /// Upper half: where the flow ends (`FlowMemory.end`); lower half: its hash; 0 for an empty place.
    private var index: Slab<UInt64>
    /// Of a place in it.
    private let mask: Int
    private var wheel: Slab<UInt32>
    /// Unconfirmed flows by hint, hashed into one byte each: two hints that share a place share a cap, which harms neither.
    var unconfirmedByHint: Slab<UInt8>
    /// Unconfirmed flows by the lowest bits of their session, so that a delivery to anybody else need not look for one.
    var unconfirmedBySession: Slab<UInt32>
    /// Places that had a flow once; those from `flows.used` on never had one.
    var free: UInt32
    /// The wheel's slots before this second have been swept.
    private var sweptSecond: UInt64
    private let key: SipKey
    private let portKey: UInt64

    /// A table in fresh memory.
    ///
    /// - Parameter key: random; it decides who collides with whom.
    public init(capacity: Int, limits: FlowLimits = FlowLimits(), key: SipKey, now: Instant) {
        self.init(memory: FlowMemory(capacity: capacity), limits: limits, key: key, now: now)
    }

    /// A table that goes on with the flows that lie in `memory`.
    public init(memory: consuming FlowMemory, limits: FlowLimits = FlowLimits(), key: SipKey, now: Instant) {
        let capacity = memory.capacity
        precondition((1...255).contains(limits.unconfirmedPerHint))
        precondition(limits.unconfirmed > .zero && limits.unconfirmed <= .seconds(120))
        precondition(limits.idle > .zero && limits.idle <= .seconds(120))
        self.capacity = capacity
        self.limits = limits
        self.key = key
        var third = SipHash(key: key)
        third.update(word: 0)
        portKey = third.finalize() | 1
        flows = memory
        // Never more than half full: a search then looks at two places on average.
        index = Slab(zeros: Self.powerOfTwo(atLeast: 2 * capacity))
        mask = index.count - 1
        wheel = Slab(count: 128) { _ in Self.none }
        unconfirmedByHint = Slab(zeros: min(max(Self.powerOfTwo(atLeast: capacity / 4), 1024), 65_536))
        unconfirmedBySession = Slab(count: 1024) { _ in 0 }
        free = Self.none
        sweptSecond = Self.milliseconds(now) >> 10
        adopt(at: now)
    }

    /// Bytes that a table of `capacity` flows takes.
    public static func byteCount(capacity: Int) -> Int {
        FlowMemory.byteCount(capacity: capacity) + powerOfTwo(atLeast: 2 * capacity) * MemoryLayout<UInt64>.stride + (128 + 1024) * 4
            + min(max(powerOfTwo(atLeast: capacity / 4), 1024), 65_536)
    }

    static let none = UInt32.max
}

/// What came of an insertion.
public enum FlowInsertion: Hashable, Sendable {
    case inserted(Int)
    /// Every place is taken. Nothing is evicted: an ordinary answer.
    case tableFull
    /// The hint has as many unconfirmed flows as it may have.
    case hintExhausted
}

extension FlowTable {
    /// The number of the flow of `source`; good until the next change of the table.
    ///
    /// Inlined, because a call that borrows the table is handed a copy of it, 256 bytes.
    @inline(__always)
    public func find(_ source: SocketAddress) -> Int? {
        let hash = hash(of: source)
        var place = Int(hash) & mask
        while true {
            let entry = index[place]
            if entry == 0 { return nil }
            let number = FlowMemory.number(end: entry >> 32)
            if UInt32(truncatingIfNeeded: entry) == hash, flows[number].address == source.ip, flows[number].port == source.port {
                return number
            }
            place = (place &+ 1) & mask
        }
    }

    /// Notes that the client `source` has sent something, and to which public socket. Where its flow ends; nil without one, and for a flow
    /// that is not found at once, as nearly all are.
    @inline(__always)
    mutating func follow(_ source: SocketAddress, on socket: UInt8, at now: Instant) -> UInt64? {
        let hash = hash(of: source)
        // What is left without this hash is where a flow ends, or beyond them all when the hash is another one.
        let entry = unsafe index.start[Int(hash) & mask] ^ UInt64(hash)
        let end = entry >> 32 | entry << 32
        guard flows.contains(end: end) else { return nil }
        let flow = unsafe flows.flow(end: end)
        guard unsafe flow.pointee.address == source.ip, unsafe flow.pointee.port == source.port else { return nil }
        unsafe flow.pointee.seen = Self.ticks(now)
        unsafe flow.pointee.socket = socket
        return end
    }

    /// Where datagrams of a flow go that `follow` has found: the first word of its lane, and its session.
    @inline(__always)
    func way(end: UInt64) -> (lane: UInt64, session: UInt32) {
        let flow = unsafe flows.flow(end: end)
        return unsafe (flow.pointee.lane, flow.pointee.session)
    }

    /// Places from here on never had a flow.
    var placesUsed: Int { flows.used }
    func isTaken(_ number: Int) -> Bool { flows[number].check != 0 }
    public func route(_ number: Int) -> Route { flows[number].route }
    public func isConfirmed(_ number: Int) -> Bool { flows[number].isConfirmed }
    public func socket(_ number: Int) -> UInt8 { flows[number].socket }
    /// False when no flow of `session` is unconfirmed; true says nothing.
    @inline(__always)
    func mayBeUnconfirmed(_ session: UInt32) -> Bool { unsafe unconfirmedBySession.start[Int(session & 1023)] != 0 }
    public mutating func setSocket(_ number: Int, _ socket: UInt8) { flows[number].socket = socket }
    /// Whether `characters` are the ufrag that made this flow.
    public func ufragMatches(_ number: Int, _ characters: RawSpan) -> Bool { PackedUfrag(characters) == flows[number].ufrag }

    /// Notes that the client of flow `number` has sent something.
    public mutating func touch(_ number: Int, at now: Instant) {
        flows[number].seen = Self.ticks(now)
    }

    /// Makes an unconfirmed flow. `source` must not have one.
    public mutating func insert(_ source: SocketAddress, _ route: Route, _ ufrag: Ufrag, at now: Instant) -> FlowInsertion {
        assert(find(source) == nil, "one source, two flows")
        guard free != Self.none || flows.used < flows.capacity else { return .tableFull }
        let ufrag = PackedUfrag(ufrag)
        let hintPlace = hintPlace(of: ufrag)
        guard Int(unconfirmedByHint[hintPlace]) < limits.unconfirmedPerHint else { return .hintExhausted }
        let number = takePlace()

        let milliseconds = Self.milliseconds(now)
        flows[number].address = source.ip
        flows[number].port = source.port
        flows[number].isConfirmed = false
        flows[number].socket = 0
        flows[number].seen = Self.ticks(now)
        set(route, ufrag, number, milliseconds)
        unconfirmedByHint[hintPlace] &+= 1
        unconfirmedBySession[Int(route.session & 1023)] &+= 1
        addToIndex(hash(of: source), number)
        count += 1
        schedule(number, at: milliseconds &+ Self.milliseconds(limits.unconfirmed))
        assert(find(source) == number)
        return .inserted(number)
    }

    /// Gives the flow another route. It stays confirmed only where the session stays the same (an ICE restart). False, and nothing
    /// changed, when the new hint has as many unconfirmed flows as it may have.
    public mutating func move(_ number: Int, to route: Route, _ ufrag: Ufrag, at now: Instant) -> Bool {
        let ufrag = PackedUfrag(ufrag)
        let staysConfirmed = flows[number].isConfirmed && flows[number].route == route
        if !staysConfirmed {
            let old = hintPlace(of: flows[number].ufrag)
            let new = hintPlace(of: ufrag)
            if flows[number].isConfirmed {
                guard Int(unconfirmedByHint[new]) < limits.unconfirmedPerHint else { return false }
                confirmedCount -= 1
                flows[number].isConfirmed = false
            } else {
                guard old == new || Int(unconfirmedByHint[new]) < limits.unconfirmedPerHint else { return false }
                unconfirmedByHint[old] &-= 1
                unconfirmedBySession[Int(flows[number].session & 1023)] &-= 1
            }
            unconfirmedByHint[new] &+= 1
            unconfirmedBySession[Int(route.session & 1023)] &+= 1
        }
        let milliseconds = Self.milliseconds(now)
        set(route, ufrag, number, milliseconds)
        if staysConfirmed {
            notes.add(number)
        } else {
            unschedule(number)
            schedule(number, at: milliseconds &+ Self.milliseconds(limits.unconfirmed))
        }
        return true
    }

    /// The transceiver says that the flow is real: from now on it lives as long as its client sends.
    public mutating func confirm(_ number: Int, at now: Instant) {
        guard !flows[number].isConfirmed else { return }
        flows[number].isConfirmed = true
        confirmedCount += 1
        let place = hintPlace(of: flows[number].ufrag)
        assert(unconfirmedByHint[place] > 0)
        unconfirmedByHint[place] &-= 1
        unconfirmedBySession[Int(flows[number].session & 1023)] &-= 1
        touch(number, at: now)
        notes.add(number)
        // The wheel finds it at its old time and puts it back by the new rule.
    }

    public mutating func remove(_ number: Int) {
        let flow = flows[number]
        unschedule(number)
        removeFromIndex(hash(of: flow.source), number)
        if flow.isConfirmed {
            confirmedCount -= 1
        } else {
            unconfirmedByHint[hintPlace(of: flow.ufrag)] &-= 1
            unconfirmedBySession[Int(flow.session & 1023)] &-= 1
        }
        flows[number] = Flow(next: free)
        free = UInt32(truncatingIfNeeded: number)
        count -= 1
    }
}

extension FlowTable {
    /// Removes what is due; looks at no more than `budget` flows. How many of each kind ended.
    public mutating func expire(at now: Instant, budget: Int = 1024) -> (unconfirmed: Int, idle: Int) {
        let milliseconds = Self.milliseconds(now)
        let second = milliseconds >> 10
        var ended = (unconfirmed: 0, idle: 0)
        // After a long stop one round visits every slot.
        if second &- sweptSecond > 128, second > sweptSecond { sweptSecond = second &- 128 }
        var left = budget
        while sweptSecond < second {
            let slot = Int(sweptSecond & 127)
            while wheel[slot] != Self.none {
                guard left > 0 else { return ended }
                left -= 1
                let number = Int(wheel[slot])
                let remaining = remainingMilliseconds(number, now)
                if remaining > 0 {
                    unschedule(number)
                    schedule(number, at: milliseconds &+ UInt64(remaining))
                    // At most once in an idle time: what keeps a cache's entry from running out.
                    if flows[number].isConfirmed { notes.add(number) }
                } else {
                    if flows[number].isConfirmed { ended.idle += 1 } else { ended.unconfirmed += 1 }
                    remove(number)
                }
            }
            sweptSecond &+= 1
        }
        return ended
    }

    /// Whether a second has ended that `expire` has not looked at.
    @inline(__always)
    func isSweepDue(at now: Instant) -> Bool { Self.milliseconds(now) >> 10 > sweptSecond }

    /// When `expire` may find something: at the end of the first second that has flows. In the past when a budget ran out.
    public var nextDeadline: Instant {
        guard count > 0 else { return .never }
        for offset in 0..<UInt64(128) where wheel[Int((sweptSecond &+ offset) & 127)] != Self.none {
            return Instant(nanoseconds: ((sweptSecond &+ offset &+ 1) << 10) &* 1_000_000)
        }
        return .never
    }

    /// What is left to flow `number`; zero or less when it is due.
    func remainingMilliseconds(_ number: Int, _ now: Instant) -> Int64 {
        // Modulo 2^32; a time that is later than now (a turn with an older clock) counts as now.
        if flows[number].isConfirmed {
            let elapsed = max(Int32(bitPattern: Self.ticks(now) &- flows[number].seen), 0)
            return Int64(Self.milliseconds(limits.idle)) - (Int64(elapsed) << 20) / 1_000_000
        }
        let elapsed = max(Int32(bitPattern: UInt32(truncatingIfNeeded: Self.milliseconds(now)) &- flows[number].since), 0)
        return Int64(Self.milliseconds(limits.unconfirmed)) - Int64(elapsed)
    }

    mutating func schedule(_ number: Int, at milliseconds: UInt64) {
        // A slot is swept when its second is over; one that was swept already waits for the next.
        let second = max(milliseconds >> 10, sweptSecond)
        let slot = Int(second & 127)
        let head = wheel[slot]
        flows[number].wheelSlot = slot
        flows[number].previous = Self.none
        flows[number].next = head
        if head != Self.none { flows[Int(head)].previous = UInt32(truncatingIfNeeded: number) }
        wheel[slot] = UInt32(truncatingIfNeeded: number)
    }

    private mutating func unschedule(_ number: Int) {
        let next = flows[number].next
        let previous = flows[number].previous
        if previous != Self.none {
            flows[Int(previous)].next = next
        } else {
            wheel[flows[number].wheelSlot] = next
        }
        if next != Self.none { flows[Int(next)].previous = previous }
    }
}

extension FlowTable {
    /// A place without a flow; there is one.
    private mutating func takePlace() -> Int {
        guard free == Self.none else {
            let number = Int(free)
            free = flows[number].next
            return number
        }
        let number = flows.used
        flows.used = number + 1
        return number
    }

    private mutating func set(_ route: Route, _ ufrag: PackedUfrag, _ number: Int, _ milliseconds: UInt64) {
        flows[number].ufrag = ufrag
        flows[number].route = route
        flows[number].since = UInt32(truncatingIfNeeded: milliseconds)
        flows[number].check = flows[number].checksum
    }

    /// A folded 64×64→128 multiplication of the address under two secret words, and the port times a secret odd word: a tenth of
    /// SipHash-2-4. This is no MAC, and need not be one: a hash is never shown to anybody, it only has to keep somebody without the key
    /// from choosing addresses that share a place. He could not choose many either: a flow takes an authentic hint, and a hint has a
    /// handful of flows.
    @inline(__always)
    func hash(of source: SocketAddress) -> UInt32 {
        let product = (source.ip.high ^ key.k0).multipliedFullWidth(by: source.ip.low ^ key.k1)
        return UInt32(truncatingIfNeeded: ((product.high ^ product.low) &+ UInt64(source.port) &* portKey) >> 32)
    }

    func hintPlace(of ufrag: PackedUfrag) -> Int { Int(truncatingIfNeeded: ufrag.mixed) & (unconfirmedByHint.count &- 1) }

    mutating func addToIndex(_ hash: UInt32, _ number: Int) {
        var place = Int(hash) & mask
        while index[place] != 0 { place = (place &+ 1) & mask }
        index[place] = Self.entry(hash, number)
    }

    private static func entry(_ hash: UInt32, _ number: Int) -> UInt64 { FlowMemory.end(of: number) << 32 | UInt64(hash) }

    /// Linear probing without tombstones: what follows moves back, so that searches stay short for ever.
    private mutating func removeFromIndex(_ hash: UInt32, _ number: Int) {
        var hole = Int(hash) & mask
        let entry = Self.entry(hash, number)
        while index[hole] != entry {
            precondition(index[hole] != 0, "a flow is missing from the index")
            hole = (hole &+ 1) & mask
        }
        var place = (hole &+ 1) & mask
        while index[place] != 0 {
            let home = Int(index[place] & 0xFFFF_FFFF) & mask
            // It may fill the hole unless its home lies behind it.
            if (place &- home) & mask >= (place &- hole) & mask {
                index[hole] = index[place]
                hole = place
            }
            place = (place &+ 1) & mask
        }
        index[hole] = 0
    }

    @inline(__always) static func milliseconds(_ instant: Instant) -> UInt64 { instant.nanoseconds / 1_000_000 }
    /// What costs a shift and no division.
    @inline(__always) private static func ticks(_ instant: Instant) -> UInt32 { UInt32(truncatingIfNeeded: instant.nanoseconds >> 20) }
    @inline(__always) private static func milliseconds(_ interval: Interval) -> UInt64 { UInt64(interval.milliseconds) }

    private static func powerOfTwo(atLeast n: Int) -> Int {
        var power = 1
        while power < n { power *= 2 }
        return power
    }
}
