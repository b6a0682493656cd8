// People with the browsers' timing, two relays, two transceivers, and everything that can go wrong. `make simulations` runs ten thousand
// seeds of it; here each fault has a few, so that a change that breaks one is told by its name.
import Primitives
import Simulation
import Testing

@Suite struct FaultTests {
    @Test(arguments: SimulationMode.allCases, FaultScenario.allCases)
    func `faults break no promise`(_ mode: SimulationMode, _ scenario: FaultScenario) throws {
        for seed in UInt64(1)...6 {
            let plan = FaultPlan(seed: seed, mode: mode, scenario: scenario)
            let report = try FaultSimulation(plan).run()
            #expect(report.violations.isEmpty, "\(plan.command)")
            #expect(report.calls >= 2 && report.framesHeard > 0)
            #expect(scenario == .chaos || report.faults > 0)
        }
    }

    @Test func `attackers and bad weather do what they are there for`() throws {
        let attacked = try FaultSimulation(FaultPlan(seed: 1, mode: .safety, scenario: .replay)).run()
        #expect(attacked.replayed > 20)
        var network = VirtualNetwork.Counters()
        for seed in UInt64(1)...8 {
            let counters = try FaultSimulation(FaultPlan(seed: seed, mode: .safety, scenario: .weather)).run().network
            network.lost += counters.lost
            network.duplicated += counters.duplicated
            network.corrupted += counters.corrupted
            network.overtook += counters.overtook
        }
        #expect(network.lost > 0 && network.duplicated > 0 && network.corrupted > 0 && network.overtook > 0)
    }

    @Test func `a run tells what happened when it is asked to`() throws {
        var plan = FaultPlan(seed: 3, mode: .liveness, scenario: .outage14)
        let silent = try FaultSimulation(plan).run()
        #expect(silent.trace.isEmpty)
        plan.isTraced = true
        let report = try FaultSimulation(plan).run()
        #expect(report.trace.contains { $0.contains("is cut off for") })
        #expect(report.trace.contains { $0.contains("everybody who is expected hears again") })
        #expect(plan.command == "swiftlet simulate --mode liveness --scenario outage14 --seed 3")
    }

    @Test(arguments: [FaultScenario.outage5, .outage14, .outage40])
    func `whoever has lost its network hears again within the promised time`(_ scenario: FaultScenario) throws {
        // 0.5 s, 0.5 s and 2 s, and the way of a voice there and back with the wait for its next word.
        let bound: Interval = scenario == .outage40 ? .milliseconds(2000) : .milliseconds(1000)
        for seed in UInt64(1)...12 {
            var plan = FaultPlan(seed: seed, mode: .liveness, scenario: scenario)
            plan.pagesRedial = false
            let report = try FaultSimulation(plan).run()
            #expect(report.violations.isEmpty, "\(plan.command)")
            #expect(report.slowestRecovery.map { $0 <= bound } ?? true)
        }
    }
}
