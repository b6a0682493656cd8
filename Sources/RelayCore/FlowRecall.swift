// What a relay has to do with a cache outside: it tells whom it knows, and asks about whom it does not. The cache is a hint. What it
// says is opened like the ufrag of a STUN check, a flow made of it starts unconfirmed, and a check always wins.

import Primitives
import RoutingHint

/// A bounded list of flow numbers that somebody will look at soon. One that does not fit comes again.
struct FlowNotes: ~Copyable, Sendable {
    private var numbers: Slab<UInt32>
    private var first = 0
    private var count = 0

    /// - Parameter capacity: 0, or a power of two.
    init(capacity: Int) { numbers = Slab(zeros: capacity) }

    mutating func add(_ number: Int) {
        guard count < numbers.count else { return }
        numbers[(first &+ count) & (numbers.count &- 1)] = UInt32(truncatingIfNeeded: number)
        count &+= 1
    }

    mutating func next() -> Int? {
        guard count > 0 else { return nil }
        let number = Int(numbers[first])
        first = (first &+ 1) & (numbers.count &- 1)
        count &-= 1
        return number
    }
}

extension FlowTable {
    /// From now on keeps a list of flows that were confirmed, moved within their session, or are still alive.
    mutating func rememberConfirmed() { notes = FlowNotes(capacity: 2048) }

    mutating func nextNote() -> (source: SocketAddress, ufrag: Ufrag)? {
        while let number = notes.next() {
            // Another flow may have the place by now: as good, if it is confirmed.
            let flow = flows[number]
            // Nor is there anything to remember of a connection over TCP: no other relay will ever have it.
            if flow.check != 0, flow.isConfirmed, !flow.source.isOverTCP { return (flow.source, flow.ufrag.ufrag) }
        }
        return nil
    }
}

extension Relay {
    /// The next flow that a cache is to keep, or to keep for longer; nil also without `RelayConfiguration.parking`.
    public mutating func nextMemory() -> (source: SocketAddress, ufrag: Ufrag)? { flows.nextNote() }

    /// The next source that a cache is to be asked about. Answer with `recall` or `refuse`, or not at all.
    public mutating func nextQuestion() -> SocketAddress? {
        guard let source = parking?.nextQuestion() else { return nil }
        counters.questions &+= 1
        return source
    }

    /// A cache says that `source` sends to the session of `ufrag`. What waited for this goes on its way: at most
    /// `ParkingLot.packetsPerSource` datagrams in one train, so drain before the next one.
    public mutating func recall(_ source: SocketAddress, ufrag: Ufrag, at now: Instant) {
        // An answer to no question, or one that comes too late, changes nothing.
        guard var lot = parking.take() else { return }
        if let place = lot.find(source) { release(&lot, place, source, ufrag, now) }
        parking = consume lot
    }

    private mutating func release(_ lot: inout ParkingLot, _ place: Int, _ source: SocketAddress, _ ufrag: Ufrag, _ now: Instant) {
        // A check made a flow meanwhile: it knows better.
        let route = flows.find(source).map { flows.route($0) } ?? revive(source, ufrag, lot.socket(place), now)
        for number in 0..<lot.packetCount(place) {
            let reason: RelayDropReason?
            if let route { reason = forward(lot.packet(number, of: place), source, route) } else { reason = .noFlow }
            if let reason { counters.count(reason) } else { counters.forwarded &+= 1 }
        }
        lot.clear(place)
    }

    /// A cache knows nothing of `source`: it is not asked again for a while.
    public mutating func refuse(_ source: SocketAddress, at now: Instant) {
        dropped(parking?.refuse(source, at: now) ?? 0)
    }

    /// Nobody can say anything about `source` now.
    public mutating func leaveUnanswered(_ source: SocketAddress) {
        dropped(parking?.drop(source) ?? 0)
    }

    private mutating func revive(_ source: SocketAddress, _ ufrag: Ufrag, _ socket: UInt8, _ now: Instant) -> Route? {
        guard case .success(let place) = door.open(ufrag, at: now) else { return nil }
        let hint = door.hint(place)
        guard hint.cluster == cluster, transceivers.address(of: hint.transceiver) != nil, !watch.isLost(hint.transceiver) else {
            return nil
        }
        let route = Route(hint)
        guard case .inserted(let flow) = flows.insert(source, route, ufrag, at: now) else { return nil }
        flows.setSocket(flow, socket)
        counters.flowsMade &+= 1
        counters.flowsRecalled &+= 1
        return route
    }

    private mutating func dropped(_ count: Int) {
        for _ in 0..<count { counters.count(.noFlow) }
    }
}

// MARK: - Within the relay

extension Relay {
    /// Whether media of an unknown source waits for a cache's answer now. STUN never does.
    @inline(never)
    mutating func park(_ datagram: RawSpan, _ source: SocketAddress, _ socket: UInt8, _ now: Instant) -> Bool {
        guard parking != nil, asksCache, !source.isOverTCP, Self.isMedia(datagram.byte(0)), forbidden.refusal(of: source) == nil else {
            return false
        }
        guard parking?.park(datagram, from: source, on: socket, at: now) == .parked else { return false }
        counters.parked &+= 1
        return true
    }

    /// DTLS, SRTP or SRTCP (RFC 7983).
    private static func isMedia(_ byte: UInt8) -> Bool { (20...63).contains(byte) || byte >> 6 == 2 }

    var parkingDeadline: Instant {
        switch parking {
        case .some(let lot): lot.nextDeadline
        case .none: .never
        }
    }

    mutating func expireParked(at now: Instant) {
        guard parkingDeadline <= now else { return }
        dropped(parking?.expire(at: now) ?? 0)
    }
}
