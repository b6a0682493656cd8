// Many regions at once. `make simulations-regions` has the size that operators have; here are a few runs that a change is told by.
import Primitives
import Simulation
import Testing

@Suite struct RegionTests {
    private func plan(_ seed: UInt64) -> RegionPlan {
        var plan = RegionPlan(seed: seed, relays: 8, transceivers: 12, calls: 60)
        plan.faultsLast = .seconds(15)
        return plan
    }

    @Test(arguments: UInt64(1)...4)
    func `no packet reaches who does not own it, and every call heals`(seed: UInt64) {
        let report = RegionSimulation(plan(seed)).run()
        #expect(report.violations.isEmpty, "\(plan(seed).command)\n\(report.trace.suffix(20).joined(separator: "\n"))")
        #expect(report.healed > 30)
        #expect(report.callsMade >= 60 && report.faults == 30)
        #expect(report.packetsHeard > 1_000 && report.secondHops > 1_000)
        // Two hops and one: some calls live where they come in.
        #expect(report.checksAnswered > 500)
        #expect(report.slowestRecovery < .seconds(10))
    }

    @Test func `faults do what they are there for`() {
        var loops: UInt64 = 0
        var (lost, restarts, replayed) = (0, 0, 0)
        var network = VirtualNetwork.Counters()
        for seed in UInt64(1)...4 {
            let report = RegionSimulation(plan(seed)).run()
            loops += report.loopsStopped
            lost += report.callsLost
            restarts += report.restarts
            replayed += report.replayed
            network.lost += report.network.lost
            network.duplicated += report.network.duplicated
            network.corrupted += report.network.corrupted
            network.overtook += report.network.overtook
        }
        #expect(loops > 0 && lost > 0 && restarts > 0 && replayed > 50)
        #expect(network.lost > 0 && network.duplicated > 0 && network.corrupted > 0 && network.overtook > 0)
    }

    @Test func `a seed comes back byte for byte`() {
        let (one, other) = (RegionSimulation(plan(7)).run(), RegionSimulation(plan(7)).run())
        #expect(one.fingerprint == other.fingerprint && one.trace == other.trace)
        #expect(one.fingerprint != RegionSimulation(plan(8)).run().fingerprint)
    }
}
