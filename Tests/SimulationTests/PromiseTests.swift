// The promises themselves: each of them really is broken by what breaks it. A check that never fails checks nothing.
import Primitives
import Simulation
import Testing

@Suite struct PromiseTests {
    @Test func `a call that cannot be is reported, and leaves nothing behind`() throws {
        let report = try run(1, .perfect) { $0.accessIsCut = true }
        #expect(report.connectedAfter == nil)
        #expect(report.violations.contains("the call never connected"))
        #expect(report.violations.contains("the client said 0 frames of 500"))
        #expect(report.network.cut > 0)
        #expect(!report.violations.contains { $0.contains("outlived") || $0.contains("still") })
        #expect(report.sessionsAtEnd == 0)
    }

    @Test func `a loss that no plan allows is seen in a real run`() throws {
        // The trunk is ours: what it loses is a promise broken.
        let report = try run(1, .perfect) { $0.trunk.lossPPM = 50_000 }
        #expect(report.violations.contains { $0.hasSuffix("were lost, 0 are allowed") })
    }

    struct Breach: Sendable, CustomStringConvertible {
        let description: String
        let scenario: CallScenario
        let change: @Sendable (inout CallReport) -> Void
        init(_ description: String, _ scenario: CallScenario = .plain, _ change: @escaping @Sendable (inout CallReport) -> Void) {
            self.description = description
            self.scenario = scenario
            self.change = change
        }
    }

    static let breaches = [
        Breach("the call never connected") { $0.clients[0].connectedAfter = nil },
        Breach("2 handshakes for one call") { $0.clients[0].handshakes = 2 },
        Breach("the server never got its keys") { $0.clients[0].serverReadyAfter = nil },
        Breach("the server got its keys 10000 ms after the client") {
            $0.clients[0].serverReadyAfter = $0.clients[0].connectedAfter.map { $0 + .seconds(10) }
        },
        Breach("the client said 499 frames of 500") { $0.clients[0].framesSaid = 499 },
        Breach("1 frames of somebody else were heard") { $0.clients[0].strangers = 1 },
        Breach("a frame was heard that nobody said") { $0.clients[0].heard.append(500) },
        Breach("a frame was heard twice") { $0.clients[0].heard.append(7) },
        Breach("1 frames of 500 were lost, 0 are allowed") { $0.clients[0].heard.removeLast() },
        Breach("the client heard no goodbye") { $0.clients[0].heardGoodbye = false },
        Breach("a silent client was asked 0 times, not 10", .silence) { $0.clients[0].checksReceived = 0 },
        Breach("after rebind: no check was answered", .rebind) { $0.clients[0].recoveries[0].answered = nil },
        Breach("after relay: no check was answered", .relay) {
            $0.clients[0].recoveries[0].answered = $0.clients[0].recoveries[0].ended + .seconds(3)
        },
        Breach("after rebind: no voice within", .rebind) { $0.clients[0].recoveries[0].heard = nil },
        Breach("after restart: no voice within", .restart) {
            $0.clients[0].recoveries[0].heard = $0.clients[0].recoveries[0].ended + .seconds(1)
        },
        Breach("501 frames were taken, 500 were said") { $0.worker.audioPacketsReceived = 501 },
        Breach("more came back than went in") { $0.worker.audioPacketsSent += 1 },
        Breach("more was heard than came back") { $0.worker.audioPacketsSent -= 1 },
        Breach("a frame of our own relay was refused") { $0.worker.framesRefused[6] = 1 },
        Breach("a frame went to the wrong worker") { $0.worker.framesForOthers = 1 },
        Breach("a record found no room") { $0.worker.recordsWithoutTrain = 1 },
        Breach("3 datagrams were refused on a network without faults") { $0.refusedWhileTalking = 3 },
        Breach("1 sessions outlived their calls") { $0.sessionsAtEnd = 1 },
        Breach("signaling still knows 1 calls") { $0.callsAtEnd = 1 },
        Breach("the relay still has 1 flows") { $0.relayFlowsAtEnd = 1 },
        Breach("1 sessions began, 0 ended") { $0.worker.sessionsEnded[0] = 0 },
        Breach("one session per call, no more") { $0.worker.sessionsCreated = 2 },
        Breach("time stands still") { $0.complaints.append("time stands still at 7 ms") },
    ]

    @Test(arguments: breaches)
    func `each promise is broken by what breaks it`(_ breach: Breach) throws {
        let plan = CallPlan(seed: 1, access: .perfect, scenario: breach.scenario)
        var report = try CallSimulation(plan).run()
        #expect(brokenPromises(of: report, plan).isEmpty)
        breach.change(&report)
        let broken = brokenPromises(of: report, plan)
        #expect(broken.contains { $0.hasPrefix(breach.description) }, "\(broken)")
    }
}
