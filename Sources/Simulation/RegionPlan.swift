import Primitives

/// A world of many regions: clusters with relays and transceivers, calls that begin anywhere and live anywhere, and what goes wrong.
public struct RegionPlan: Sendable {
    public var seed: UInt64
    public var clusters = 3
    /// Of all clusters together.
    public var relays = 12
    public var transceivers = 24
    public var calls = 400
    /// Between two packets of a voice: seldom, so that many calls can be had at once.
    public var cadence = Interval.milliseconds(500)
    public var faultsLast = Interval.seconds(25)
    /// About so many a second.
    public var faultsPerSecond: UInt64 = 2

    public init(seed: UInt64) { self.seed = seed }

    /// Sizes as an operator names them. Five relays at least share a cluster where there are so many.
    public init(seed: UInt64, relays: Int, transceivers: Int, calls: Int) {
        self.seed = seed
        self.relays = relays
        self.transceivers = transceivers
        self.calls = calls
        clusters = max(min(relays / 4, 5), 1)
        if calls > 2_000 { cadence = .seconds(1) }
        if relays > 20 { faultsPerSecond = 4 }
    }

    /// The command that runs it again.
    public var command: String {
        "swiftlet simulate --mode regions --relays \(relays) --transceivers \(transceivers) --calls \(calls) --seed \(seed)"
    }

    /// Flows that each relay has room for: one that outlives others takes their clients, and a client that moves has two for a while.
    var flowsPerRelay: Int { max(calls * 8 / relays, 256) }

    /// How long a call may take to be heard again after the last fault: Firefox checks every 5.9 s at most, a page that has lost its call
    /// looks every 2 s, and then come two ways around the world and the wait for its next word.
    static let healing = Interval.seconds(10)
    static let dialing = Interval.seconds(4)
    static let calm = Interval.seconds(11)
}

/// What befalls the regions.
enum RegionFault: Sendable {
    case killRelay(Int)
    case killTransceiver(Int)
    /// No trunk between two clusters.
    case part(Int, Int)
    case weather(access: LinkProfile, trunk: LinkProfile)
    /// The machines of a cluster are off by so much from now on.
    case clock(cluster: Int, seconds: Int64)
    /// One client in `oneIn` gets another address.
    case rebind(oneIn: UInt64)
    case rotateKeys
    /// A relay is missing in everybody's relays file.
    case unlist(relay: Int)
    /// Two relays of a cluster take each other for a transceiver of theirs.
    case loop(cluster: Int, transceiver: Int)
    /// Somebody replays what he has seen, on the trunk and from outside.
    case replay

    var summary: String {
        switch self {
        case .killRelay(let relay): "relay \(relay) dies"
        case .killTransceiver(let transceiver): "transceiver \(transceiver) dies"
        case .part(let one, let other): "clusters \(one) and \(other) lose each other"
        case .weather(let access, let trunk): "access \(access.summary); trunk \(trunk.summary)"
        case .clock(let cluster, let seconds): "the clocks of cluster \(cluster) are \(seconds) s off"
        case .rebind(let oneIn): "one client in \(oneIn) gets another address"
        case .rotateKeys: "keys rotate"
        case .unlist(let relay): "relay \(relay) is missing in the relays files"
        case .loop(let cluster, let transceiver): "relays of cluster \(cluster) send what is for transceiver \(transceiver) in a circle"
        case .replay: "somebody replays what he has seen"
        }
    }
}

struct RegionFaultEvent: Sendable {
    /// Since the moment when everybody had dialed.
    var after: Interval
    var lasts: Interval
    var kind: RegionFault
}

extension RegionPlan {
    func faults(_ random: inout SeededGenerator) -> [RegionFaultEvent] {
        let count = Int(UInt64(faultsLast.milliseconds / 1000) * faultsPerSecond)
        var events = (0..<count).map { index in
            // Each kind at least once where there are enough.
            fault(UInt64(index) % 11, &random)
        }
        events.sort { $0.after < $1.after }
        return events
    }

    private func fault(_ kind: UInt64, _ random: inout SeededGenerator) -> RegionFaultEvent {
        func below(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }
        // All have ended when the faults have.
        let longest = 5_000
        let after = Interval.milliseconds(Int64(below(Int(faultsLast.milliseconds) - longest)))
        func event(_ kind: RegionFault, _ least: Int, _ most: Int) -> RegionFaultEvent {
            RegionFaultEvent(after: after, lasts: .milliseconds(Int64(least + below(most - least))), kind: kind)
        }
        switch kind {
        case 0: return event(.killRelay(below(relays)), 30, 5_000)
        case 1: return event(.killRelay(below(relays)), 2_500, 5_000)
        case 2: return event(.killTransceiver(below(transceivers)), 200, 3_000)
        case 3:
            let one = below(clusters)
            return event(.part(one, (one + 1 + below(max(clusters - 1, 1))) % clusters), 500, 5_000)
        case 4: return event(weather(&random), 500, 4_000)
        case 5: return event(.clock(cluster: below(clusters), seconds: below(2) == 0 ? 3600 : -80_000), 0, 1)
        case 6: return event(.rebind(oneIn: 8 + UInt64(below(24))), 0, 1)
        case 7: return event(.rotateKeys, 0, 1)
        case 8: return event(.unlist(relay: below(relays)), 500, 4_000)
        case 9:
            let transceiver = below(transceivers)
            return event(.loop(cluster: transceiver % clusters, transceiver: transceiver), 500, 2_000)
        default: return event(.replay, 1_000, 4_000)
        }
    }

    private func weather(_ random: inout SeededGenerator) -> RegionFault {
        var access = LinkProfile()
        var trunk = LinkProfile()
        let chosen = random.next()
        if chosen & 1 != 0 { access.lossPPM = random.next() % 200_000 }
        if chosen & 2 != 0 { access.burstPPM = random.next() % 600_000 }
        if chosen & 4 != 0 { access.duplicatePPM = random.next() % 100_000 }
        if chosen & 8 != 0 { access.corruptPPM = random.next() % 50_000 }
        if chosen & 16 != 0 { access.reorderPPM = random.next() % 200_000 }
        if chosen & 32 != 0 { access.jitter = .milliseconds(Int64(random.next() % 200)) }
        if chosen & 192 != 0 {
            trunk.lossPPM = random.next() % 50_000
            trunk.duplicatePPM = random.next() % 50_000
            trunk.corruptPPM = random.next() % 50_000
            trunk.reorderPPM = random.next() % 100_000
        }
        return .weather(access: access, trunk: trunk)
    }
}

/// What became of a run.
public struct RegionReport: Sendable {
    public var violations: [String] = []
    /// What happened, with times in milliseconds; the end of it.
    public var trace: [String] = []
    public var faults = 0
    public var callsMade = 0
    /// Lost with their transceiver.
    public var callsLost = 0
    public var restarts = 0
    public var packetsSaid = 0
    public var packetsHeard = 0
    public var checksAnswered = 0
    /// Frames that passed a relay of the transceiver's cluster.
    public var secondHops: UInt64 = 0
    /// Frames that were stopped because they had passed too many relays, or came back.
    public var loopsStopped: UInt64 = 0
    public var peersDied = 0
    public var replayed = 0
    public var flowsMost = 0
    /// Bytes that all relays together set aside.
    public var relayBytes = 0
    public var slowestRecovery = Interval.zero
    /// Calls that were alive when the faults ended.
    public var healed = 0
    public var network = VirtualNetwork.Counters()
    public var fingerprint: UInt64 = 0xCBF2_9CE4_8422_2325

    public init() {}
}
