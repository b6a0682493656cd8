public import Primitives

/// A relay that can be asked how it is.
public struct ProbedRelay: Hashable, Sendable {
    public var id: UInt16
    /// Its trunk address.
    public var address: SocketAddress

    public init(id: UInt16, address: SocketAddress) {
        self.id = id
        self.address = address
    }
}

/// One question.
public struct IngressPing: Hashable, Sendable {
    public var relay: ProbedRelay
    public var sequence: UInt32
}

/// Asks the relays of a table's ingresses once a second how they are, and says what that means for their ingresses. Without I/O: pings come
/// out, pongs go in.
public struct IngressProber: Sendable {
    public static let interval = Interval.seconds(1)
    /// A relay is taken for dead when none of its last pings was answered: between this and one interval more after it died.
    public static let patience = Interval.milliseconds(2_500)

    private struct Relay {
        let probed: ProbedRelay
        let ingress: String
        /// When it was first asked, and when it last answered; whoever has not been asked for long is taken for healthy.
        var since: Instant
        var heardAt: Instant?
        var roundTrip: Interval?
        var sequence: UInt32 = 0
        var sentAt: Instant
        /// The ping that is out, and not answered yet.
        var isOut = false
    }
    private var relays: [Relay] = []
    private var queue: [IngressPing] = []
    private var nextRound: Instant

    public init(at now: Instant) { nextRound = now }

    /// Other relays from now on; what is known of those that stay, stays.
    public mutating func replace(_ table: IngressTable, at now: Instant) {
        var known: [ProbedRelay: Relay] = [:]
        for relay in relays { known[relay.probed] = relay }
        relays = table.ingresses.flatMap { ingress in
            ingress.relays.compactMap { relay in
                guard let address = relay.trunk else { return nil }
                let probed = ProbedRelay(id: relay.id, address: address)
                let before = known[probed]
                var fresh = Relay(probed: probed, ingress: ingress.name, since: before?.since ?? now, sentAt: now)
                if let before {
                    (fresh.heardAt, fresh.roundTrip) = (before.heardAt, before.roundTrip)
                    (fresh.sequence, fresh.sentAt, fresh.isOut) = (before.sequence, before.sentAt, before.isOut)
                }
                return fresh
            }
        }
    }

    public var nextDeadline: Instant { relays.isEmpty ? .never : queue.isEmpty ? nextRound : Instant(nanoseconds: 0) }

    /// The next ping to send; call until nil.
    public mutating func nextPing(at now: Instant) -> IngressPing? {
        if now >= nextRound {
            nextRound = now + Self.interval
            for index in relays.indices {
                relays[index].sequence &+= 1
                relays[index].isOut = true
                relays[index].sentAt = now
                queue.append(IngressPing(relay: relays[index].probed, sequence: relays[index].sequence))
            }
        }
        return queue.isEmpty ? nil : queue.removeFirst()
    }

    /// An authentic pong of relay `id`, from `address`. One that answers no ping that is out says nothing.
    public mutating func receivePong(id: UInt16, from address: SocketAddress, sequence: UInt32, at now: Instant) {
        guard let index = relays.firstIndex(where: { $0.probed == ProbedRelay(id: id, address: address) }), relays[index].isOut,
            relays[index].sequence == sequence
        else { return }
        relays[index].isOut = false
        relays[index].heardAt = now
        let measured = now - relays[index].sentAt
        // RFC 6298's weights: one slow pong is no slow trunk.
        relays[index].roundTrip = relays[index].roundTrip.map { $0 + (measured - $0) / 8 } ?? measured
    }

    /// What is known of ingresses by their relays: healthy while one of them answers, and as fast as the fastest. Ingresses without a
    /// relay that can be asked are not in it.
    public func reports(at now: Instant) -> [String: IngressReport] {
        var reports: [String: IngressReport] = [:]
        for relay in relays {
            let isHealthy = now - (relay.heardAt ?? relay.since) < Self.patience
            var report = reports[relay.ingress] ?? IngressReport(roundTrip: nil, isHealthy: false)
            if isHealthy {
                report.isHealthy = true
                if let mine = relay.roundTrip { report.roundTrip = report.roundTrip.map { min($0, mine) } ?? mine }
            }
            reports[relay.ingress] = report
        }
        return reports
    }
}
