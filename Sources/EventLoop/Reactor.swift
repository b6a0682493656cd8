// Which descriptors are ready: epoll, level-triggered, with generation-tagged registrations.
import CLinux
import Glibc
public import Primitives

/// Names a registration. A token of a descriptor that was deregistered stays invalid for ever.
@frozen public struct ReactorToken: Hashable, Sendable {
    public let slot: UInt32
    public let generation: UInt32
}

/// What a descriptor is watched for.
@frozen public struct Interest: OptionSet, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static let readable = Interest(rawValue: 1)
    public static let writable = Interest(rawValue: 2)
}

/// A descriptor became ready.
@frozen public struct ReactorEvent: Sendable {
    public var token: ReactorToken
    /// What `register` was given: the owner's own name for the descriptor.
    public var tag: UInt64
    public var isReadable: Bool
    public var isWritable: Bool
    /// The peer closed or the descriptor failed: a read or `connectionError` says which.
    public var isClosed: Bool

    @usableFromInline init(token: ReactorToken, tag: UInt64, isReadable: Bool, isWritable: Bool, isClosed: Bool) {
        self.token = token
        self.tag = tag
        self.isReadable = isReadable
        self.isWritable = isWritable
        self.isClosed = isClosed
    }
}

/// A watched descriptor. Not private: a client module that destroys a reactor needs its metadata.
@usableFromInline struct ReactorRegistration {
    var descriptor: CInt = -1
    var generation: UInt32 = 0
    var tag: UInt64 = 0
}

/// An epoll instance and its registrations. A registered descriptor stays its owner's, who deregisters it before closing it.
public struct Reactor: ~Copyable {
    let epoll: FileDescriptor
    private var registrations: Slab<ReactorRegistration>
    private var free: Slab<UInt32>
    private var freeCount: Int
    private let events: UnsafeMutablePointer<epoll_event>
    private let eventCapacity: Int
    private var ready = 0
    private var next = 0

    /// - Parameters:
    ///   - capacity: the most descriptors watched at once.
    ///   - eventsPerTurn: the most events of one wait; the rest come with the next one.
    public init(capacity: Int = 4096, eventsPerTurn: Int = 256) throws(Errno) {
        precondition(capacity >= 1 && capacity <= 1 << 24 && eventsPerTurn >= 1)
        epoll = FileDescriptor(owning: try Syscall.epollCreate())
        registrations = Slab(count: capacity) { _ in ReactorRegistration() }
        free = Slab(count: capacity) { UInt32(capacity - 1 - $0) }
        freeCount = capacity
        events = .allocate(capacity: eventsPerTurn)
        eventCapacity = eventsPerTurn
    }

    deinit { events.deallocate() }
}

extension Reactor: @unchecked Sendable {}

extension Reactor {
    /// How many descriptors are watched.
    public var count: Int { registrations.count - freeCount }

    /// Watches `descriptor`. Events carry `tag`. Throws `.noBufferSpace` when `capacity` descriptors are watched already.
    public mutating func register(_ descriptor: borrowing FileDescriptor, for interest: Interest, tag: UInt64) throws(Errno) -> ReactorToken
    {
        guard freeCount > 0 else { throw .noBufferSpace }
        let slot = free[freeCount - 1]
        let generation = registrations[Int(slot)].generation
        let token = ReactorToken(slot: slot, generation: generation)
        try Syscall.epollControl(epoll.rawValue, EPOLL_CTL_ADD, descriptor.rawValue, events: Self.mask(interest), data: token.packed)
        freeCount -= 1
        registrations[Int(slot)].descriptor = descriptor.rawValue
        registrations[Int(slot)].tag = tag
        return token
    }

    /// Changes what the descriptor is watched for; with an empty interest only its end is reported.
    public mutating func update(_ token: ReactorToken, for interest: Interest) throws(Errno) {
        guard isCurrent(token) else { throw .noEntry }
        let descriptor = registrations[Int(token.slot)].descriptor
        try Syscall.epollControl(epoll.rawValue, EPOLL_CTL_MOD, descriptor, events: Self.mask(interest), data: token.packed)
    }

    /// Stops watching. Events of this turn that are still to come are swallowed. An old token does nothing.
    public mutating func deregister(_ token: ReactorToken) {
        guard isCurrent(token) else { return }
        let slot = Int(token.slot)
        try? Syscall.epollControl(epoll.rawValue, EPOLL_CTL_DEL, registrations[slot].descriptor, events: 0, data: 0)
        registrations[slot].generation &+= 1
        registrations[slot].descriptor = -1
        free[freeCount] = token.slot
        freeCount += 1
    }

    /// Waits until something is ready, the clock reaches `instant`, or a signal arrives; returns how many events `nextEvent` has.
    /// `.never` waits without end, an instant in the past not at all. Events of the last wait that were not taken are forgotten
    /// (and come again: readiness is level-triggered).
    @discardableResult
    public mutating func wait(until instant: Instant) -> Int {
        next = 0
        ready = Syscall.epollWait(epoll.rawValue, events, eventCapacity, Self.timeout(until: instant))
        return ready
    }

    /// Nothing was ready in this turn.
    mutating func forgetEvents() { ready = 0 }

    /// The next event of the last wait.
    public mutating func nextEvent() -> ReactorEvent? {
        while next < ready {
            let event = events[next]
            next += 1
            let token = ReactorToken(packed: event.data.u64)
            guard isCurrent(token) else { continue }  // deregistered after the kernel had reported it
            let closed = event.events & (EPOLLHUP.rawValue | EPOLLERR.rawValue | EPOLLRDHUP.rawValue) != 0
            return ReactorEvent(
                token: token, tag: registrations[Int(token.slot)].tag,
                isReadable: event.events & EPOLLIN.rawValue != 0 || closed,
                isWritable: event.events & EPOLLOUT.rawValue != 0, isClosed: closed)
        }
        return nil
    }
}

extension Reactor {
    private func isCurrent(_ token: ReactorToken) -> Bool {
        let slot = Int(token.slot)
        return slot < registrations.count && registrations[slot].generation == token.generation && registrations[slot].descriptor >= 0
    }

    private static func mask(_ interest: Interest) -> UInt32 {
        (interest.contains(.readable) ? EPOLLIN.rawValue | EPOLLRDHUP.rawValue : 0) | (interest.contains(.writable) ? EPOLLOUT.rawValue : 0)
    }

    /// nil for no end. The kernel's timer never fires early, so the span is not rounded further.
    static func timeout(until instant: Instant) -> timespec? {
        guard instant != .never else { return nil }
        if instant == .zero { return timespec() }
        let left = instant - MonotonicClock.now()
        return timespec(max(left, .zero))
    }
}

extension ReactorToken {
    /// For events of sockets that a reactor does not watch: no reactor has so many slots.
    static func datagramSocket(_ index: Int) -> ReactorToken { ReactorToken(slot: .max, generation: UInt32(index)) }

    var packed: UInt64 { UInt64(generation) << 32 | UInt64(slot) }
    init(packed: UInt64) {
        self.init(slot: UInt32(truncatingIfNeeded: packed), generation: UInt32(truncatingIfNeeded: packed >> 32))
    }
}
