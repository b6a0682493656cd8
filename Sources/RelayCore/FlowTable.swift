// The flow table: client address → route. Fixed capacity, allocated once, at most 96 bytes a flow with its share of the index.
//
// Three structures over one memory: an index by a keyed hash (FlowIndex; nobody outside can choose who collides), a timing wheel threaded
// through the flows (FlowWheel), and a free list. Each operation is O(1). Traffic only stores the time of the last packet; the wheel looks at a
// flow when it might be due and puts it further back if it is not.

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
    var index: FlowIndex
    var wheel: FlowWheel
    /// Unconfirmed flows by hint, hashed into one byte each: two hints that share a place share a cap, which harms neither.
    var unconfirmedByHint: Slab<UInt8>
    /// Unconfirmed flows by the lowest bits of their session, so that a delivery to anybody else need not look for one.
    var unconfirmedBySession: Slab<UInt32>
    /// Places that had a flow once; those from `flows.used` on never had one.
    var free: UInt32
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
        index = FlowIndex(flows: capacity)
        wheel = FlowWheel(milliseconds: Self.milliseconds(now))
        unconfirmedByHint = Slab(zeros: Self.hintPlaces(capacity: capacity))
        unconfirmedBySession = Slab(zeros: Self.sessionPlaces)
        free = Self.none
        adopt(at: now)
    }

    /// Bytes that a table of `capacity` flows takes.
    public static func byteCount(capacity: Int) -> Int {
        FlowMemory.byteCount(capacity: capacity) + FlowIndex.byteCount(flows: capacity) + FlowWheel.byteCount
            + sessionPlaces * MemoryLayout<UInt32>.stride + hintPlaces(capacity: capacity)
    }

    private static var sessionPlaces: Int { 1024 }
    private static func hintPlaces(capacity: Int) -> Int { min(max(powerOfTwo(atLeast: capacity / 4), 1024), 65_536) }

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
        var place = index.home(of: hash)
        while !index.isEmpty(place) {
            let end = index.end(at: place, hash)
            if flows.contains(end: end) {
                let flow = unsafe flows.flow(end: end)
                if unsafe flow.pointee.address == source.ip, unsafe flow.pointee.port == source.port { return FlowMemory.number(end: end) }
            }
            place = index.place(after: place)
        }
        return nil
    }

    /// Notes that the client `source` has sent something, and to which public socket. Where its flow ends; nil without one, and for a flow
    /// that is not found at once, as nearly all are.
    @inline(__always)
    mutating func follow(_ source: SocketAddress, on socket: UInt8, at now: Instant) -> UInt64? {
        let hash = hash(of: source)
        let end = index.end(at: index.home(of: hash), hash)
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
        index.add(hash(of: source), number)
        count += 1
        wheel.add(number, at: milliseconds &+ Self.milliseconds(limits.unconfirmed), in: &flows)
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
            wheel.remove(number, in: &flows)
            wheel.add(number, at: milliseconds &+ Self.milliseconds(limits.unconfirmed), in: &flows)
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
        wheel.remove(number, in: &flows)
        index.remove(hash(of: flow.source), number)
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
        var ended = (unconfirmed: 0, idle: 0)
        var left = budget
        while left > 0, let number = wheel.nextDue(milliseconds: milliseconds) {
            left -= 1
            let remaining = remainingMilliseconds(number, now)
            if remaining > 0 {
                wheel.remove(number, in: &flows)
                wheel.add(number, at: milliseconds &+ UInt64(remaining), in: &flows)
                // At most once in an idle time: what keeps a cache's entry from running out.
                if flows[number].isConfirmed { notes.add(number) }
            } else {
                if flows[number].isConfirmed { ended.idle += 1 } else { ended.unconfirmed += 1 }
                remove(number)
            }
        }
        return ended
    }

    /// Whether a second has ended that `expire` has not looked at.
    @inline(__always)
    func isSweepDue(at now: Instant) -> Bool { wheel.isDue(milliseconds: Self.milliseconds(now)) }

    /// When `expire` may find something: at the end of the first second that has flows. In the past when a budget ran out.
    public var nextDeadline: Instant {
        guard count > 0, let end = wheel.nextEnd else { return .never }
        return Instant(nanoseconds: end &* 1_000_000)
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

    @inline(__always) static func milliseconds(_ instant: Instant) -> UInt64 { instant.nanoseconds / 1_000_000 }
    /// What costs a shift and no division.
    @inline(__always) private static func ticks(_ instant: Instant) -> UInt32 { UInt32(truncatingIfNeeded: instant.nanoseconds >> 20) }
    @inline(__always) private static func milliseconds(_ interval: Interval) -> UInt64 { UInt64(interval.milliseconds) }
}
