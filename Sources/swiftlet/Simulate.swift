import EventLoop
import Primitives
import Simulation

/// `swiftlet simulate`: calls in virtual time.
enum Simulate {
    static let help = """
        usage: swiftlet simulate [--seed N] [--seeds N] [--scenario NAME] [--loss PERCENT] [--network perfect|wifi]
               swiftlet simulate --mode safety|liveness|both [--seed N] [--seeds N] [--scenario NAME]
               swiftlet simulate --mode regions [--relays N] [--transceivers N] [--calls N] [--seed N] [--seeds N]

          --seed N         the first seed (1); the same seed gives the same run, byte for byte
          --seeds N        how many seeds, one after the other (1)

        Without --mode: one or two calls through one relay to one transceiver, every frame counted.
          --network NAME   perfect: 1 ms and nothing lost. wifi: 15 to 45 ms, 3 % lost in bursts, reordered, duplicated (wifi)
          --loss PERCENT   0 to 30: replaces the network's loss
          --scenario NAME  what befalls the call (plain); "all" runs each of them:
        \(CallScenario.allCases.map { "                    \($0.rawValue): \($0.summary)" }.joined(separator: "\n"))

        With --mode: several people with Chromium and Firefox, two relays, two transceivers, and faults. safety: faults until the end,
        and nothing may happen that must not. liveness: faults stop, and everybody who is still there must hear again in time.
          --scenario NAME  which faults (chaos); "all" runs each of them:
        \(FaultScenario.allCases.map { "                    \($0.rawValue): \($0.summary)" }.joined(separator: "\n"))

        With --mode regions: calls through relays of several clusters, of one hop and of two, and faults of all kinds. No packet may reach a
        transceiver that does not own it, and every call that lives must be heard again soon after the last fault.
          --relays N        4 to 200, of all clusters together (12)
          --transceivers N  5 to 1000 (24)
          --calls N         1 to 100000 (400)

        Prints what became of each call, or of all runs with faults; exit status 1 when a promise was broken, with the command that
        replays the run, and what happened in it.
        """

    static func run(_ arguments: [String]) throws(CommandError) {
        let names = ["--seed", "--seeds", "--loss", "--network", "--scenario", "--mode", "--relays", "--transceivers", "--calls"]
        guard let given = try Arguments(arguments, names: names, help: help) else { return }
        let first: UInt64 = try given.number("--seed", 0...(UInt64.max >> 1), default: 1)
        let count: UInt64 = try given.number("--seeds", 1...10_000_000, default: 1)
        if given["--mode"] == "regions" {
            try regions(given, first..<(first + count))
        } else if let mode = given["--mode"] {
            try withFaults(modes(mode), choice(given["--scenario"] ?? "chaos", of: FaultScenario.self), first..<(first + count))
        } else {
            try calls(given, first..<(first + count))
        }
    }

    private static func choice<Choice: RawRepresentable<String> & CaseIterable>(
        _ name: String, of: Choice.Type
    ) throws(CommandError) -> [Choice] {
        if name == "all" { return Array(Choice.allCases) }
        if let one = Choice(rawValue: name) { return [one] }
        let known = Choice.allCases.map(\.rawValue).joined(separator: ", ")
        throw CommandError("--scenario: '\(name)' is none of \(known), all")
    }
}

// MARK: - Calls, frame by frame

extension Simulate {
    private static func calls(_ given: Arguments, _ seeds: Range<UInt64>) throws(CommandError) {
        var access: LinkProfile
        switch given["--network"] ?? "wifi" {
        case "perfect": access = .perfect
        case "wifi": access = .lossyWiFi
        case let other: throw CommandError("--network: '\(other)' is neither perfect nor wifi")
        }
        if given["--loss"] != nil {
            access.lossPPM = try given.number("--loss", 0...30, default: 0) * 10_000
            access.burstPPM = 0
        }
        let scenarios = try choice(given["--scenario"] ?? "plain", of: CallScenario.self)
        var broken = 0
        for scenario in scenarios {
            for seed in seeds {
                SeededEntropy.begin(seed: seed)
                let report: CallReport
                do { report = try CallSimulation(CallPlan(seed: seed, access: access, scenario: scenario)).run() } catch {
                    throw CommandError("seed \(seed): \(error)", status: 1)
                }
                say(describe(seed, scenario, report))
                for violation in report.violations { say("  BROKEN: \(violation)") }
                broken += report.violations.isEmpty ? 0 : 1
            }
        }
        if broken > 0 { throw CommandError("\(broken) of \(seeds.count * scenarios.count) runs broke a promise", status: 1) }
    }

    private static func describe(_ seed: UInt64, _ scenario: CallScenario, _ report: CallReport) -> String {
        let connected = report.connectedAfter.map { "connected after \($0.milliseconds) ms" } ?? "never connected"
        let network = report.network
        let recoveries = report.clients.flatMap(\.recoveries).map {
            ", \($0.cause) " + healing($0)
        }
        return "seed \(seed) \(scenario.rawValue): \(connected)\(recoveries.joined()), "
            + "\(report.framesHeard) of \(report.framesSaid) frames heard; datagrams \(network.sent), lost \(network.lost), duplicated \(network.duplicated), overtook \(network.overtook); "
            + "steps \(report.steps), trace \(hex(report.fingerprint))"
    }

    /// From the fault's end until a voice was heard again.
    private static func healing(_ recovery: Recovery) -> String {
        guard let heard = recovery.heard else { return "not healed" }
        return "healed after \((heard - recovery.ended).milliseconds) ms"
    }

    private static func hex(_ value: UInt64) -> String {
        Primitives.hex([UInt8](withUnsafeBytes(of: value.bigEndian) { Array($0) }))
    }
}

// MARK: - Faults

extension Simulate {
    /// Runs that break a promise and are told about in full.
    private static let toldMax = 5

    private static func modes(_ name: String) throws(CommandError) -> [SimulationMode] {
        if name == "both" { return SimulationMode.allCases }
        if let mode = SimulationMode(rawValue: name) { return [mode] }
        throw CommandError("--mode: '\(name)' is none of safety, liveness, both, regions")
    }

    private static func withFaults(
        _ modes: [SimulationMode], _ scenarios: [FaultScenario], _ seeds: Range<UInt64>
    ) throws(CommandError) {
        var broken = 0
        for scenario in scenarios {
            for mode in modes {
                var sum = Sum()
                for seed in seeds {
                    let plan = FaultPlan(seed: seed, mode: mode, scenario: scenario)
                    let report = try run(plan)
                    sum.add(report)
                    guard !report.violations.isEmpty else { continue }
                    broken += 1
                    if broken <= toldMax { try tell(plan) }
                }
                say("\(mode.rawValue) \(scenario.rawValue): \(sum.description)")
            }
        }
        let runs = seeds.count * scenarios.count * modes.count
        if broken > 0 { throw CommandError("\(broken) of \(runs) runs broke a promise", status: 1) }
    }

    private static func run(_ plan: FaultPlan) throws(CommandError) -> FaultReport {
        SeededEntropy.begin(seed: plan.seed)
        do { return try FaultSimulation(plan).run() } catch { throw CommandError("seed \(plan.seed): \(error)", status: 1) }
    }

    /// Once more, with everything that happened.
    private static func tell(_ plan: FaultPlan) throws(CommandError) {
        var traced = plan
        traced.isTraced = true
        let report = try run(traced)
        say("BROKEN: \(report.violations.first ?? "not when it was run again")")
        say("  replay: \(plan.command)")
        for line in report.trace.suffix(40) { say("  " + line) }
    }

    private struct Sum {
        var runs = 0
        var calls = 0
        var faults = 0
        var heard = 0
        var replayed = 0
        var slowest = Interval.zero
        var network = VirtualNetwork.Counters()
        var fingerprint: UInt64 = 0

        mutating func add(_ report: FaultReport) {
            runs += 1
            calls += report.calls
            faults += report.faults
            heard += report.framesHeard
            replayed += report.replayed
            slowest = max(slowest, report.slowestRecovery ?? .zero)
            network.sent += report.network.sent
            network.lost += report.network.lost
            network.duplicated += report.network.duplicated
            network.corrupted += report.network.corrupted
            fingerprint = fingerprint &* 31 &+ report.fingerprint
        }

        var description: String {
            "\(runs) runs, \(calls) calls, \(faults) faults, \(heard) frames heard, slowest recovery \(slowest.milliseconds) ms; "
                + "datagrams \(network.sent), lost \(network.lost), duplicated \(network.duplicated), corrupted \(network.corrupted), "
                + "replayed \(replayed); trace \(hex(fingerprint))"
        }
    }
}

// MARK: - Regions

extension Simulate {
    private static func regions(_ given: Arguments, _ seeds: Range<UInt64>) throws(CommandError) {
        let relays: Int = try given.number("--relays", 4...200, default: 12)
        let transceivers: Int = try given.number("--transceivers", 5...1_000, default: 24)
        let calls: Int = try given.number("--calls", 1...100_000, default: 400)
        var broken = 0
        for seed in seeds {
            let plan = RegionPlan(seed: seed, relays: relays, transceivers: transceivers, calls: calls)
            let report = RegionSimulation(plan).run()
            say(describe(plan, report))
            guard let violation = report.violations.first else { continue }
            broken += 1
            guard broken <= toldMax else { continue }
            say("BROKEN: \(violation)")
            say("  replay: \(plan.command)")
            for line in report.trace.suffix(40) { say("  " + line) }
        }
        if broken > 0 { throw CommandError("\(broken) of \(seeds.count) runs broke a promise", status: 1) }
    }

    private static func describe(_ plan: RegionPlan, _ report: RegionReport) -> String {
        let network = report.network
        return "regions seed \(plan.seed): \(plan.relays) relays, \(plan.transceivers) transceivers, \(report.callsMade) calls, "
            + "\(report.callsLost) lost with their transceiver, \(report.faults) faults, \(report.restarts) ICE restarts; "
            + "words said \(report.packetsSaid), heard \(report.packetsHeard), checks answered \(report.checksAnswered); "
            + "second hops \(report.secondHops), loops stopped \(report.loopsStopped), replayed \(report.replayed); "
            + "healed \(report.healed), slowest \(report.slowestRecovery.milliseconds) ms; flows at most \(report.flowsMost), "
            + "relays' memory \(report.relayBytes >> 20) MiB; datagrams \(network.sent), lost \(network.lost), "
            + "duplicated \(network.duplicated), corrupted \(network.corrupted), overtook \(network.overtook); "
            + "trace \(hex(report.fingerprint))"
    }
}
