// Datagrams by io_uring: one multishot receive per socket fills slots that the batch has provided, and a batch of sends is one
// submission. Completions are taken from shared memory; a turn that finds work makes no system call to receive it.
//
// Where a slot can be, and how it moves on:
//
//     with the kernel ──completion──▶ arrived (`RingSocket.arrivals`) ──receive──▶ in the batch ──next receive──▶ with the kernel
//
// A receive that ends (no slot left, an ICMP error, an empty datagram) is armed again by the next `receive` or `wait`.
import CLinux
import CURing
import Glibc
import Primitives

/// What the ring keeps for a socket.
@usableFromInline struct RingSocket: ~Copyable {
    var descriptor: CInt = -1
    /// Counts the sockets that have used this place, so that completions of an earlier one are told apart.
    var generation: UInt64 = 0
    var isArmed = false
    /// No longer read: only what has arrived is still given out.
    var isStopped = false
    var memory: PacketMemory?
    var payloadStart = 0
    var arrivals = Slab<RingArrival>(count: 0) { _ in RingArrival(slot: 0, length: 0) }
    var firstArrival = 0
    var arrivalCount = 0
    /// Slots in the batch that the worker holds.
    var lent = 0
    var errors: UInt64 = 0
}

/// A filled slot that waits for `receive`.
@usableFromInline struct RingArrival {
    var slot: UInt16
    var length: Int32
}

@usableFromInline struct RingEngine: ~Copyable {
    private let ring: OpaquePointer
    private var sockets: Slab<RingSocket>
    private let completions: UnsafeMutablePointer<curing_completion>
    private var isEnabled = false
    private var pollIsArmed = false
    private var pollHasFired = false
    private var nextSocket = 0
    /// Sends that the kernel refused in the submission at hand: index in the batch and errno.
    private var refusals: Slab<SendRefusal>
    private var refusalCount = 0
    private let slotScratch: UnsafeMutablePointer<UInt16>

    static let submissions = 256
    private static let completionsPerTake = 256
    private static let kindShift: UInt64 = 56
    private static let receiveKind: UInt64 = 1
    private static let pollKind: UInt64 = 2
    private static let sendKind: UInt64 = 3

    init(socketCapacity: Int) throws(Errno) {
        var error: CInt = 0
        let created = curing_create(
            CUnsignedInt(Self.submissions), 8192, CUnsignedInt(SocketName.slotSize), CUnsignedInt(CLINUX_RECEIVE_CONTROL_BYTES), &error)
        guard let created else { throw Errno(rawValue: -error) }
        ring = created
        sockets = Slab(count: min(socketCapacity, 64)) { _ in RingSocket() }
        completions = .allocate(capacity: Self.completionsPerTake)
        refusals = Slab(count: Self.submissions) { _ in SendRefusal(index: 0, error: 0) }
        slotScratch = .allocate(capacity: 1024)  // the largest batch
    }

    deinit {
        completions.deallocate()
        slotScratch.deallocate()
        guard curing_destroy(ring) < 0 else { return }
        // The kernel may still write into the slots: they must never be anybody else's memory.
        for index in 0..<sockets.count { if let memory = sockets[index].memory { _ = Unmanaged.passRetained(memory) } }
    }
}

/// A send that the kernel refused.
@usableFromInline struct SendRefusal {
    var index: Int
    var error: CInt
}

extension RingEngine {
    mutating func add(_ index: Int, descriptor: CInt, receivingInto batch: borrowing ReceiveBatch) throws(Errno) {
        precondition(sockets[index].descriptor < 0)
        let slots = batch.memory.slots.count
        let result = curing_add_group(
            ring, CUnsignedInt(index), CUnsignedInt(slots), batch.base + (batch.headroom - ringHeaderSize), batch.stride,
            ringHeaderSize + batch.payloadCapacity)
        guard result >= 0 else { throw Errno(rawValue: -result) }
        let generation = sockets[index].generation + 1
        sockets[index] = RingSocket(
            descriptor: descriptor, generation: generation, memory: batch.memory, payloadStart: batch.headroom,
            arrivals: Slab(count: slots) { _ in RingArrival(slot: 0, length: 0) })
    }

    /// Ends the receive. What has arrived stays to be received.
    mutating func stop(_ index: Int) {
        guard !sockets[index].isStopped else { return }
        sockets[index].isStopped = true
        enable()
        let result = curing_cancel(ring, receiveTag(index))
        precondition(result >= 0, "io_uring cannot end a receive: \(Errno(rawValue: -result))")
        takeCompletions()
        assert(!sockets[index].isArmed)
    }

    mutating func remove(_ index: Int) {
        stop(index)
        curing_remove_group(ring, CUnsignedInt(index))
        sockets[index] = RingSocket(generation: sockets[index].generation)
    }

    /// Waits like `Reactor.wait`; the caller asks `reactorIsReady` and `nextReadySocket` afterwards.
    mutating func wait(until instant: Instant, reactor epoll: CInt) {
        enable()
        nextSocket = 0
        pollHasFired = false
        var mustNotWait = false
        for index in 0..<sockets.count where sockets[index].descriptor >= 0 {
            if !sockets[index].isArmed && hasFreeSlots(index) { arm(index) }
            if isReady(index) { mustNotWait = true }
        }
        if !pollIsArmed { pollIsArmed = curing_poll(ring, epoll, Self.pollKind << Self.kindShift) >= 0 }
        var nanoseconds: Int64 = mustNotWait ? 0 : -1
        if !mustNotWait, instant != .never {
            nanoseconds = instant == .zero ? 0 : max((instant - MonotonicClock.now()).nanoseconds, 0)
        }
        enter(waiting: nanoseconds)
        takeCompletions()
    }

    /// Whether the reactor had something in the last wait.
    var reactorIsReady: Bool { pollHasFired }

    /// The next socket of this turn for which `receive` has something to do.
    mutating func nextReadySocket() -> Int? {
        while nextSocket < sockets.count {
            let index = nextSocket
            nextSocket += 1
            if sockets[index].descriptor >= 0 && isReady(index) { return index }
        }
        return nil
    }

    /// Takes back the slots of what `batch` held and fills it with what has arrived.
    mutating func receive(_ index: Int, into batch: inout ReceiveBatch) {
        precondition(sockets[index].memory === batch.memory, "a socket receives into the batch it was added with")
        giveBack(&batch, index)
        if sockets[index].arrivalCount < batch.capacity {
            if !sockets[index].isArmed && !sockets[index].isStopped {
                enable()
                arm(index)
                enter(waiting: 0)
            }
            takeCompletions()
        }
        batch.errors &+= sockets[index].errors
        sockets[index].errors = 0
        while batch.count < batch.capacity, sockets[index].arrivalCount > 0 {
            let arrival = sockets[index].arrivals[sockets[index].firstArrival]
            sockets[index].firstArrival = (sockets[index].firstArrival &+ 1) % sockets[index].arrivals.count
            sockets[index].arrivalCount &-= 1
            let before = batch.count
            batch.adopt(ringSlot: Int(arrival.slot), length: Int(arrival.length))
            if batch.count == before { provide(arrival.slot, index) }
        }
        sockets[index].lent = batch.count
    }

    /// Sends all of `batch` but trains on a socket that cannot segment; `ReadinessEngine` handles those and whatever was refused.
    mutating func send(_ batch: inout SendBatch, on descriptor: CInt, family: AddressFamily, segments: inout Bool) {
        guard segments || batch.firstTrain(from: 0) == batch.count else {
            return ReadinessEngine.send(&batch, on: descriptor, family: family, segments: &segments)
        }
        enable()
        batch.prepare(family: family)
        var start = 0
        while start < batch.count {
            let count = min(batch.count - start, Self.submissions)
            refusalCount = 0
            let result = curing_send(
                ring, descriptor, batch.vectors.headers + start, MemoryLayout<mmsghdr>.stride, CUnsignedInt(count),
                Self.sendKind << Self.kindShift)
            precondition(result >= 0, "io_uring cannot submit: \(Errno(rawValue: -result))")
            takeCompletions()
            batch.recordSent(start..<start + count)
            for refusal in 0..<refusalCount {
                let index = start + refusals[refusal].index
                batch.forgetSent(index)
                ReadinessEngine.settle(
                    Errno(rawValue: refusals[refusal].error), index, in: &batch, on: descriptor, family: family, segments: &segments)
            }
            start += count
        }
        batch.removeAll()
    }
}

extension RingEngine {
    /// The thread that first enters the ring owns it.
    private mutating func enable() {
        guard !isEnabled else { return }
        let result = curing_enable(ring)
        precondition(result >= 0, "io_uring cannot be enabled: \(Errno(rawValue: -result))")
        isEnabled = true
    }

    private func enter(waiting nanoseconds: Int64) {
        let result = curing_wait(ring, nanoseconds)
        // EBUSY, EAGAIN: completions must be taken first, which is what comes next. EEXIST: another thread owns the ring.
        precondition(result >= 0 || result == -EBUSY || result == -EAGAIN, "io_uring cannot wait: \(Errno(rawValue: -result))")
    }

    private func receiveTag(_ index: Int) -> UInt64 {
        Self.receiveKind << Self.kindShift | (sockets[index].generation & 0xFFFF_FFFF) << 8 | UInt64(index)
    }

    private mutating func arm(_ index: Int) {
        guard !sockets[index].isStopped else { return }
        if curing_receive(ring, sockets[index].descriptor, CUnsignedInt(index), receiveTag(index)) >= 0 { sockets[index].isArmed = true }
    }

    private func hasFreeSlots(_ index: Int) -> Bool {
        sockets[index].lent + sockets[index].arrivalCount < sockets[index].arrivals.count
    }

    /// Something has arrived, or the worker holds every slot, so that only its next `receive` can go on.
    private func isReady(_ index: Int) -> Bool {
        sockets[index].arrivalCount > 0 || (!sockets[index].isArmed && !sockets[index].isStopped)
    }

    private func provide(_ slot: UInt16, _ index: Int) {
        slotScratch[0] = slot
        provideScratch(1, index)
    }

    private func provideScratch(_ count: Int, _ index: Int) {
        curing_provide(ring, CUnsignedInt(index), slotScratch, CUnsignedInt(count))
    }

    private mutating func giveBack(_ batch: inout ReceiveBatch, _ index: Int) {
        for datagram in 0..<batch.count { slotScratch[datagram] = UInt16(batch.entries[datagram].slot) }
        if batch.count > 0 { provideScratch(batch.count, index) }
        batch.count = 0
        sockets[index].lent = 0
    }

    private mutating func takeCompletions() {
        while true {
            let count = Int(curing_take(ring, completions, CUnsignedInt(Self.completionsPerTake)))
            for place in 0..<count { dispatch(completions[place]) }
            if count < Self.completionsPerTake { return }
        }
    }

    private mutating func dispatch(_ completion: curing_completion) {
        switch completion.tag >> Self.kindShift {
        case Self.receiveKind: received(completion)
        case Self.pollKind:
            pollIsArmed = false
            pollHasFired = true
        case Self.sendKind:
            guard completion.result < 0, refusalCount < refusals.count else { return }
            refusals[refusalCount] = SendRefusal(index: Int(completion.tag & 0xFFFF), error: -completion.result)
            refusalCount += 1
        default: assertionFailure("a completion that nobody asked for")
        }
    }

    private mutating func received(_ completion: curing_completion) {
        let index = Int(completion.tag & 0xFF)
        guard sockets[index].descriptor >= 0, completion.tag == receiveTag(index) else { return }
        let hasSlot = completion.flags & UInt32(CURING_HAS_SLOT) != 0
        let slot = UInt16(truncatingIfNeeded: completion.flags >> UInt32(CURING_SLOT_SHIFT))
        if hasSlot && Int(completion.result) >= ringHeaderSize {
            assert(sockets[index].arrivalCount < sockets[index].arrivals.count)
            let place = (sockets[index].firstArrival &+ sockets[index].arrivalCount) % sockets[index].arrivals.count
            sockets[index].arrivals[place] = RingArrival(slot: slot, length: completion.result)
            sockets[index].arrivalCount &+= 1
        } else if hasSlot {
            provide(slot, index)
        }
        if completion.flags & UInt32(CURING_WILL_REPEAT) == 0 { sockets[index].isArmed = false }
        // ENOBUFS: every slot was in use; ECANCELED: `stop`. Anything else was about a datagram sent earlier.
        if completion.result < 0, completion.result != -ENOBUFS, completion.result != -ECANCELED { sockets[index].errors &+= 1 }
    }
}

extension ReceiveBatch {
    /// Adds the datagram in `slot`: the kernel's header, the name and the control messages lie before its payload. `length` counts
    /// all of it.
    mutating func adopt(ringSlot slot: Int, length: Int) {
        let header = base + (slot &* stride &+ headroom &- ringHeaderSize)
        let fields = header.load(as: curing_receive_header.self)
        let name = header + MemoryLayout<curing_receive_header>.size
        adopt(
            slot: slot, length: min(Int(fields.payload_length), length &- ringHeaderSize), flags: CInt(bitPattern: fields.flags),
            name: name,
            nameLength: min(Int(fields.name_length), SocketName.slotSize), control: name + SocketName.slotSize,
            controlLength: min(Int(fields.control_length), Int(CLINUX_RECEIVE_CONTROL_BYTES)))
    }
}

extension SendBatch {
    mutating func forgetSent(_ index: Int) { statistics.sent &-= segmentCount(index) }
}
