import Primitives

/// What a run with faults is to show.
public enum SimulationMode: String, CaseIterable, Sendable {
    /// Faults until the end: nothing may happen that must not.
    case safety
    /// Faults stop: everybody who is still there must hear again, within the promised time.
    case liveness
}

/// Which faults a run has.
public enum FaultScenario: String, CaseIterable, Sendable {
    /// Any of the others, several at once, as the seed decides.
    case chaos
    case rebind, outage5, outage14, outage40, oneway
    case relaydeath, reroute, transceiverdeath, partition
    case clock, weather, replay
    case restart, swap

    public var summary: String {
        switch self {
        case .chaos: "all of the following, several at once"
        case .rebind: "a client's address changes, and it does not know"
        case .outage5: "a client's network is away for 5 s"
        case .outage14: "the same for 14 s"
        case .outage40: "the same for 40 s, so that browsers have given up"
        case .oneway: "a client's network works in one direction only"
        case .relaydeath: "a relay dies and comes back without its flows"
        case .reroute: "a client's packets reach another relay from now on"
        case .transceiverdeath: "a transceiver dies with its calls and comes back empty"
        case .partition: "a relay and a transceiver do not reach each other"
        case .clock: "the machines' clocks are set an hour ahead and a day back, and relays restart meanwhile"
        case .weather: "loss, bursts, duplicates, corruption, reordering, small packets only"
        case .replay: "somebody replays what he has seen, and sends garbage and forged checks"
        case .restart: "clients restart ICE"
        case .swap: "two clients get each other's address"
        }
    }
}

/// One thing that goes wrong, and for how long where it has an end.
struct FaultEvent: Sendable {
    enum Kind: Sendable {
        case rebind(person: Int)
        case swap(Int, Int)
        case cut(person: Int, up: Bool, down: Bool)
        case killRelay(Int)
        case reroute(person: Int)
        case killTransceiver(Int)
        case partition(relay: Int, transceiver: Int)
        case clock(seconds: Int64)
        case weather(access: LinkProfile, trunk: LinkProfile)
        case attack
        case restartICE(person: Int)
    }
    /// Since the moment when everybody was connected.
    var after: Interval
    var lasts: Interval
    var kind: Kind
}

/// One run with faults, all of it decided by a seed.
public struct FaultPlan: Sendable {
    public var seed: UInt64
    public var mode: SimulationMode
    public var scenario: FaultScenario
    /// Whether the report tells what happened, line by line.
    public var isTraced = false
    /// Whether some pages restart ICE and call again by themselves; the others wait for whatever the browser and we can do.
    public var pagesRedial = true

    public init(seed: UInt64, mode: SimulationMode, scenario: FaultScenario = .chaos) {
        self.seed = seed
        self.mode = mode
        self.scenario = scenario
    }

    /// The command that runs it again.
    public var command: String { "swiftlet simulate --mode \(mode.rawValue) --scenario \(scenario.rawValue) --seed \(seed)" }

    static let relays = 2
    static let transceivers = 2
    /// Between two frames of a voice: slow talkers make short runs.
    static let cadence = Interval.milliseconds(100)
    static let echoDelay = Interval.milliseconds(100)
    /// When everything goes well.
    static let calmAccess = LinkProfile(delay: .milliseconds(20), jitter: .milliseconds(5))
    static let calmTrunk = LinkProfile(delay: .microseconds(300))
}

extension FaultPlan {
    /// Who takes part, and what befalls them.
    func cast(_ random: inout SeededGenerator) -> (people: Int, faults: [FaultEvent]) {
        let people = 2 + Int(random.next() % 3)
        var faults: [FaultEvent] = []
        if scenario == .chaos {
            let kinds = FaultScenario.allCases.dropFirst()
            let count = 3 + Int(random.next() % 6)
            for _ in 0..<count {
                let kind = kinds[kinds.startIndex + Int(random.next() % UInt64(kinds.count))]
                // The long outage alone is as long as all the others together: it is the exception.
                if kind == .outage40, random.next() % 4 != 0 { continue }
                faults += Self.events(of: kind, people, &random)
            }
        } else {
            faults = Self.events(of: scenario, people, &random)
        }
        faults.sort { $0.after < $1.after }
        return (people, faults)
    }

    private static func events(of scenario: FaultScenario, _ people: Int, _ random: inout SeededGenerator) -> [FaultEvent] {
        let after = Interval.milliseconds(500 + Int64(random.next() % 15_000))
        let person = Int(random.next() % UInt64(people))
        func one(_ kind: FaultEvent.Kind, lasts: Interval = .zero) -> [FaultEvent] { [FaultEvent(after: after, lasts: lasts, kind: kind)] }
        func cut(_ lasts: Interval) -> [FaultEvent] { one(.cut(person: person, up: true, down: true), lasts: lasts) }
        switch scenario {
        case .chaos: return []
        case .rebind: return one(.rebind(person: person))
        case .swap: return one(.swap(person, (person + 1) % people))
        case .outage5: return cut(.milliseconds(4500 + Int64(random.next() % 1000)))
        case .outage14: return cut(.milliseconds(13_500 + Int64(random.next() % 1000)))
        case .outage40: return cut(.milliseconds(39_000 + Int64(random.next() % 2000)))
        case .oneway:
            let up = random.next() % 2 == 0
            return one(.cut(person: person, up: up, down: !up), lasts: .milliseconds(500 + Int64(random.next() % 6000)))
        case .relaydeath:
            return one(.killRelay(Int(random.next() % UInt64(relays))), lasts: .milliseconds(30 + Int64(random.next() % 3000)))
        case .reroute: return one(.reroute(person: person))
        case .transceiverdeath:
            return one(.killTransceiver(Int(random.next() % UInt64(transceivers))), lasts: .milliseconds(200 + Int64(random.next() % 3000)))
        case .partition:
            let relay = Int(random.next() % UInt64(relays))
            let transceiver = Int(random.next() % UInt64(transceivers))
            return one(.partition(relay: relay, transceiver: transceiver), lasts: .milliseconds(500 + Int64(random.next() % 8000)))
        case .clock:
            let relay = Int(random.next() % UInt64(relays))
            return one(.clock(seconds: random.next() % 2 == 0 ? 3600 : -86_400))
                + [FaultEvent(after: after + .milliseconds(700), lasts: .milliseconds(100), kind: .killRelay(relay))]
                + [FaultEvent(after: after + .seconds(2), lasts: .zero, kind: .restartICE(person: person))]
        case .weather: return one(weather(&random), lasts: .milliseconds(1000 + Int64(random.next() % 8000)))
        case .replay: return one(.attack, lasts: .milliseconds(2000 + Int64(random.next() % 5000)))
        case .restart: return one(.restartICE(person: person))
        }
    }

    private static func weather(_ random: inout SeededGenerator) -> FaultEvent.Kind {
        var access = calmAccess
        var trunk = calmTrunk
        let chosen = random.next()
        if chosen & 1 != 0 { access.lossPPM = random.next() % 300_000 }
        if chosen & 2 != 0 { access.burstPPM = random.next() % 800_000 }
        if chosen & 4 != 0 { access.duplicatePPM = random.next() % 200_000 }
        if chosen & 8 != 0 { access.corruptPPM = random.next() % 100_000 }
        if chosen & 16 != 0 { access.reorderPPM = random.next() % 300_000 }
        if chosen & 32 != 0 { access.jitter = .milliseconds(Int64(random.next() % 300)) }
        if chosen & 64 != 0 { access.mtu = 1200 }
        if chosen & 128 != 0 {
            trunk.duplicatePPM = random.next() % 100_000
            trunk.corruptPPM = random.next() % 50_000
            trunk.reorderPPM = random.next() % 100_000
            trunk.lossPPM = random.next() % 50_000
        }
        return .weather(access: access, trunk: trunk)
    }
}

/// What became of a run with faults.
public struct FaultReport: Sendable {
    public var violations: [String] = []
    /// What happened, with times in milliseconds; empty unless the plan asks for it.
    public var trace: [String] = []
    public var people = 0
    /// Calls begun, and of them those that were lost with their transceiver, or that their client gave up for good.
    public var calls = 0
    public var faults = 0
    public var framesHeard = 0
    /// The longest time from the end of the faults until somebody was heard again.
    public var slowestRecovery: Interval?
    public var network = VirtualNetwork.Counters()
    public var replayed = 0
    public var steps = 0
    public var fingerprint: UInt64 = 0

    public init() {}
}
