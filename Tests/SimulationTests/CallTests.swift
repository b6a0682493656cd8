// Whole calls in virtual time: the product's promises, on good and bad networks, through everything that befalls a call.
import Primitives
import Simulation
import Testing

/// A network by name.
struct Road: Sendable, CustomStringConvertible {
    let description: String
    let access: LinkProfile

    static let perfect = Road(description: "perfect", access: .perfect)
    static let wifi = Road(description: "wifi", access: .lossyWiFi)
    static let lossy: Road = {
        var access = LinkProfile.lossyWiFi
        access.lossPPM = 200_000
        access.burstPPM = 0
        return Road(description: "20 % loss", access: access)
    }()
}

func run(_ seed: UInt64, _ road: Road, _ scenario: CallScenario = .plain, change: (inout CallPlan) -> Void = { _ in }) throws -> CallReport
{
    var plan = CallPlan(seed: seed, access: road.access, scenario: scenario)
    change(&plan)
    return try CallSimulation(plan).run()
}

@Suite struct CallTests {
    @Test(arguments: 1...20)
    func `a call over a perfect network keeps every promise`(_ seed: UInt64) throws {
        let report = try run(seed, .perfect)
        #expect(report.violations.isEmpty)
        #expect(report.framesHeard == 500)
        #expect(report.network.lost == 0)
        // One check, and a handshake of two round trips that begins with our own flight.
        #expect(report.connectedAfter.map { $0 < .milliseconds(20) } == true)
    }

    @Test(arguments: 1...50)
    func `a call over lossy WiFi keeps every promise`(_ seed: UInt64) throws {
        let report = try run(seed, .wifi)
        #expect(report.violations.isEmpty)
        #expect(report.network.lost > 0 && report.network.overtook > 0)
    }

    @Test(arguments: 1...20)
    func `a call that loses every fifth datagram keeps every promise`(_ seed: UInt64) throws {
        let report = try run(seed, .lossy)
        #expect(report.violations.isEmpty)
        #expect(report.network.lost > 100)
    }

    @Test(arguments: CallScenario.allCases.filter { $0 != .plain }, [Road.perfect, .wifi, .lossy])
    func `a call survives what befalls it`(_ scenario: CallScenario, _ road: Road) throws {
        for seed in UInt64(1)...4 {
            let report = try run(seed, road, scenario)
            #expect(report.violations.isEmpty, "swiftlet simulate --scenario \(scenario.rawValue) --seed \(seed)")
        }
    }

    @Test(arguments: [CallScenario.plain, .storm], [Road.perfect, .wifi])
    func `the same seed is the same run, to the nanosecond`(_ scenario: CallScenario, _ road: Road) throws {
        let first = try run(7, road, scenario)
        let second = try run(7, road, scenario)
        #expect(first.fingerprint == second.fingerprint)
        #expect(first.steps == second.steps)
        #expect(first.clients.map(\.heard) == second.clients.map(\.heard))
        let other = try run(8, .wifi, scenario)
        #expect(other.fingerprint != first.fingerprint)
    }
}

@Suite struct ScenarioTests {
    @Test func `a client that falls silent for 20 seconds is asked, and loses nothing`() throws {
        let report = try run(1, .perfect, .silence)
        let client = try #require(report.clients.first)
        // From the fifth second on, once a second.
        #expect((11...22).contains(client.checksReceived))
        #expect(client.heard.count == 500)
        #expect(client.recoveries.map(\.cause) == [.silence])
    }

    @Test func `after 40 silent seconds consent is gone and the call is not`() throws {
        let report = try run(1, .perfect, .longSilence)
        let client = try #require(report.clients.first)
        #expect(client.checksReceived > 25)
        #expect(client.heard.count == 500)
        #expect(client.handshakes == 1)
    }

    @Test func `an ICE restart costs no frame and no handshake`() throws {
        let report = try run(1, .perfect, .restart)
        let client = try #require(report.clients.first)
        #expect(client.recoveries.map(\.cause) == [.restart])
        #expect(client.heard == Array(0..<500))
        #expect(client.handshakes == 1)
    }

    @Test func `after a rebinding the voice comes back within one echo of the next check`() throws {
        for seed in UInt64(1)...5 {
            let report = try run(seed, .perfect, .rebind)
            let recovery = try #require(report.clients.first?.recoveries.first)
            let answered = try #require(recovery.answered)
            let heard = try #require(recovery.heard)
            #expect(answered - recovery.ended <= .milliseconds(2510))
            #expect(heard - answered <= .milliseconds(530))
            // Something was lost, or the address did not change.
            #expect(report.framesHeard < 500)
        }
    }

    @Test func `a new relay knows nobody and everybody at the next check`() throws {
        let report = try run(1, .perfect, .relay)
        let recovery = try #require(report.clients.first?.recoveries.first)
        let answered = try #require(recovery.answered)
        #expect(answered - recovery.ended <= .milliseconds(2510))
        #expect(report.network.cut > 0)
    }

    @Test func `two calls of one address are two calls`() throws {
        let report = try run(1, .perfect, .pair)
        #expect(report.clients.count == 2)
        for client in report.clients { #expect(client.heard == Array(0..<500) && client.strangers == 0) }
        #expect(report.worker.sessionsCreated == 2)
    }
}
