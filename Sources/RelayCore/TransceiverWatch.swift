// The transceivers of this cluster, as one worker knows them: whether they answer, and whether they want new calls.
//
// It learns of a transceiver by sending to it. From then on it asks once a second, as long as it has flows that lead there. Who answers no
// longer, or whose machine says that nobody listens there any more (ICMP), is lost: its sessions are gone with it, so its flows are
// dropped. Checks still go there, because one that was started again at the same address answers them.

import Primitives
import Trunk

/// When a transceiver counts as lost.
public struct WatchLimits: Hashable, Sendable {
    /// Between two pings.
    public var interval = Interval.seconds(1)
    /// No answer for so long, of one that has answered before. Longer than a trunk is usually away: flows that are dropped for nothing wait for
    /// their client's next check.
    public var silence = Interval.seconds(10)
    /// ICMP says that nobody listens, and so long after it still does.
    public var refusal = Interval.milliseconds(50)
    /// A transceiver that nothing was sent to for so long is forgotten: its last flow has ended.
    public var memory = Interval.seconds(130)
    public init() {}
}

/// How many transceivers a worker sends to, by how they are.
public struct WatchedTransceivers: Hashable, Sendable, BitwiseCopyable {
    public var serving = 0
    /// They take no new calls: their pongs say so.
    public var draining = 0
    public var lost = 0
    public init() {}
}

/// One transceiver's health, for whoever publishes it.
public struct TransceiverHealth: Sendable, Equatable, BitwiseCopyable {
    public enum State: UInt8, Sendable, BitwiseCopyable { case serving, draining, lost }

    public var id: UInt32
    public var state: State
    /// Smoothed; nil before the first answer.
    public var roundTrip: Interval?
    public var pings: UInt64
    public var pongs: UInt64

    public init(id: UInt32, state: State, roundTrip: Interval?, pings: UInt64, pongs: UInt64) {
        self.id = id
        self.state = state
        self.roundTrip = roundTrip
        self.pings = pings
        self.pongs = pongs
    }
}

struct TransceiverWatch: ~Copyable {
    typealias Health = TransceiverHealth.State

    struct Seat {
        var id: UInt32 = 0
        var address = SocketAddress(.v4Any, port: 0)
        /// A worker of it that has sessions of ours: the one that is asked.
        var worker: UInt8 = 0
        var health = Health.serving
        var usedAt = Instant.zero
        var nextPing = Instant.zero
        var sequence: UInt32 = 0
        var pongs: UInt64 = 0
        var roundTrip = Interval.zero
        /// When the first ping was sent that nothing has come after.
        var waitingSince: Instant?
        /// When ICMP said first that nobody listens, with nothing having come since.
        var refusedAt: Instant?
    }

    private var seats: Slab<Seat>
    private(set) var count = 0
    /// Number of the seat plus one, by a hash of the id; 0 for an empty place. At most half full.
    private var index: Slab<UInt16>
    private let capacity: Int
    private let limits: WatchLimits
    private var soonest = Instant.never
    private var now: Instant
    private(set) var tally = WatchedTransceivers()

    /// More transceivers than this at once are sent to, and not watched.
    static let capacityMax = 1024

    /// - Parameter limits: nil: nobody is watched.
    init(limits: WatchLimits?, at now: Instant) {
        capacity = limits == nil ? 0 : Self.capacityMax
        seats = Slab(count: capacity) { _ in Seat() }
        index = Slab(zeros: 2 * Self.capacityMax)
        self.limits = limits ?? WatchLimits()
        self.now = now
    }

    static var byteCount: Int { capacityMax * (MemoryLayout<Seat>.stride + 2 * MemoryLayout<UInt16>.stride) }

    /// When `nextPing` has something.
    var nextDeadline: Instant { soonest }
    mutating func advance(to now: Instant) { self.now = max(self.now, now) }

    /// Something is sent to `worker` of transceiver `id`.
    mutating func use(_ id: UInt32, _ worker: UInt8, at address: SocketAddress) {
        guard let number = find(id) else { return add(id, worker, address) }
        seats[number].usedAt = now
        seats[number].worker = worker
        guard seats[number].address != address else { return }
        // The table has another address for it: another machine.
        remove(number)
        add(id, worker, address)
    }

    func health(_ number: Int) -> TransceiverHealth {
        let seat = seats[number]
        let roundTrip = seat.pongs > 0 ? seat.roundTrip : nil
        return TransceiverHealth(
            id: seat.id, state: seat.health, roundTrip: roundTrip, pings: UInt64(seat.sequence), pongs: seat.pongs)
    }

    func isLost(_ id: UInt32) -> Bool {
        guard let number = find(id) else { return false }
        return seats[number].health == .lost
    }

    /// The next ping that is due; nil when none is. `died` becomes true when its transceiver is lost from now on.
    mutating func nextPing(died: inout Bool) -> (probe: TrunkProbe, id: UInt32, worker: UInt8, to: SocketAddress)? {
        guard soonest <= now else { return nil }
        soonest = .never
        var number = 0
        while number < count {
            if now - seats[number].usedAt >= limits.memory {
                remove(number)
                continue
            }
            if seats[number].nextPing <= now {
                let probe = ask(number, &died)
                // The rest is looked at with the next call.
                soonest = now
                return (probe, seats[number].id, seats[number].worker, seats[number].address)
            }
            soonest = min(soonest, seats[number].nextPing)
            number &+= 1
        }
        return nil
    }

    private mutating func ask(_ number: Int, _ died: inout Bool) -> TrunkProbe {
        if let since = seats[number].waitingSince {
            if now - since >= limits.silence, seats[number].pongs > 0, seats[number].health != .lost {
                become(.lost, number)
                died = true
            }
        } else {
            seats[number].waitingSince = now
        }
        seats[number].sequence &+= 1
        seats[number].nextPing = now + limits.interval
        return TrunkProbe(sentAt: now.nanoseconds, sequence: seats[number].sequence, state: .serving)
    }

    /// An answer of transceiver `id`.
    mutating func receive(_ pong: TrunkProbe, of id: UInt32, from address: SocketAddress, at now: Instant) {
        self.now = max(self.now, now)
        guard let number = find(id), seats[number].address == address else { return }
        // An answer to what was never asked, or to what was asked before this worker started again.
        guard pong.sequence <= seats[number].sequence, pong.sentAt <= now.nanoseconds else { return }
        let sample = Interval.nanoseconds(Int64(truncatingIfNeeded: now.nanoseconds &- pong.sentAt))
        let seat = seats[number]
        seats[number].roundTrip = seat.pongs == 0 ? sample : seat.roundTrip + (sample - seat.roundTrip) / 8
        seats[number].pongs &+= 1
        seats[number].waitingSince = nil
        seats[number].refusedAt = nil
        become(pong.state == .draining ? .draining : .serving, number)
    }

    /// The machine of `address` says that nobody listens there. True when its transceiver is lost from now on.
    mutating func receiveRefusal(from address: SocketAddress, at now: Instant) -> Bool {
        self.now = max(self.now, now)
        for number in 0..<count where seats[number].address == address && seats[number].health != .lost {
            guard let first = seats[number].refusedAt else {
                seats[number].refusedAt = now
                // Asked once more, so that one message alone, which anybody on the trunk could forge, is not believed.
                seats[number].nextPing = min(seats[number].nextPing, now + limits.refusal)
                soonest = min(soonest, seats[number].nextPing)
                return false
            }
            guard now - first >= limits.refusal else { return false }
            become(.lost, number)
            return true
        }
        return false
    }
}

extension TransceiverWatch {
    private mutating func become(_ health: Health, _ number: Int) {
        count(seats[number].health, -1)
        seats[number].health = health
        count(health, 1)
    }

    private mutating func count(_ health: Health, _ change: Int) {
        switch health {
        case .serving: tally.serving += change
        case .draining: tally.draining += change
        case .lost: tally.lost += change
        }
    }

    private mutating func add(_ id: UInt32, _ worker: UInt8, _ address: SocketAddress) {
        guard count < capacity else { return }
        var seat = Seat()
        seat.id = id
        seat.address = address
        seat.worker = worker
        seat.usedAt = now
        seat.nextPing = now + limits.interval
        soonest = min(soonest, seat.nextPing)
        seats[count] = seat
        count &+= 1
        count(.serving, 1)
        enter(id, count)
    }

    /// Rare: a transceiver that nobody has used for minutes, or that has moved. The last one takes its seat.
    private mutating func remove(_ number: Int) {
        count(seats[number].health, -1)
        count &-= 1
        seats[number] = seats[count]
        for place in 0..<index.count { index[place] = 0 }
        for seat in 0..<count { enter(seats[seat].id, seat &+ 1) }
    }

    private mutating func enter(_ id: UInt32, _ entry: Int) {
        var place = home(of: id)
        while index[place] != 0 { place = (place &+ 1) & (index.count &- 1) }
        index[place] = UInt16(truncatingIfNeeded: entry)
    }

    private func find(_ id: UInt32) -> Int? {
        var place = home(of: id)
        while index[place] != 0 {
            let number = Int(index[place]) &- 1
            if seats[number].id == id { return number }
            place = (place &+ 1) & (index.count &- 1)
        }
        return nil
    }

    /// Ids come out of authentic hints: nobody outside can choose them.
    private func home(of id: UInt32) -> Int { Int(truncatingIfNeeded: (id &* 0x9E37_79B9) >> 16) & (index.count &- 1) }
}

// MARK: - Within the relay

extension Relay {
    /// How the transceivers are that this worker sends to.
    public var watchedTransceivers: WatchedTransceivers { watch.tally }
    /// Each of them, by a number below `watchedCount`.
    public var watchedCount: Int { watch.count }
    public func transceiverHealth(_ number: Int) -> TransceiverHealth { watch.health(number) }

    /// ICMP says that nobody listens at `address`, which something was sent to. Twice, and its flows are dropped.
    public mutating func noteUnreachable(_ address: SocketAddress, at now: Instant) {
        if watch.receiveRefusal(from: address, at: now) { beginSweep() }
    }

    mutating func beginSweep() {
        counters.transceiversLost &+= 1
        sweepPlace = 0
    }

    /// Flows looked at in one turn, when a transceiver is lost.
    private static let sweptPerTurn = 2048

    /// Drops flows that lead to who is lost.
    @inline(never)
    mutating func sweep() {
        guard let first = sweepPlace else { return }
        let end = min(first &+ Self.sweptPerTurn, flows.placesUsed)
        for number in first..<max(first, end) where flows.isTaken(number) {
            let route = flows.route(number)
            guard route.cluster == cluster, watch.isLost(route.transceiver) else { continue }
            flows.remove(number)
            counters.flowsOfLost &+= 1
        }
        sweepPlace = end < flows.placesUsed ? end : nil
    }
}
