import Primitives
import Steering
import TestSupport
import Testing

@Suite struct ProberTests {
    private let table = try! IngressTable(
        parsing: """
            fra 198.51.100.1:3478 50 8 1 10@10.0.0.1:3479,11@10.0.0.2:3479
            iad 198.51.100.2:3478 38 -77 2 20@10.1.0.1:3479
            nrt 198.51.100.3:3478 35 139 1 30
            """)
    private func at(_ milliseconds: Int64) -> Instant { Instant(nanoseconds: 1_000_000_000) + .milliseconds(milliseconds) }
    private func prober() -> IngressProber {
        var prober = IngressProber(at: at(0))
        prober.replace(table, at: at(0))
        return prober
    }
    private func round(_ prober: inout IngressProber, at now: Instant) -> [IngressPing] {
        var pings: [IngressPing] = []
        while let ping = prober.nextPing(at: now) { pings.append(ping) }
        return pings
    }

    @Test func `every relay with a trunk address is asked once a second`() {
        var prober = prober()
        #expect(round(&prober, at: at(0)).map(\.relay.id) == [10, 11, 20])
        #expect(round(&prober, at: at(999)).isEmpty)
        #expect(round(&prober, at: at(1000)).map(\.sequence) == [2, 2, 2])
    }

    @Test func `an ingress is as fast as its fastest relay, and healthy until nobody answers`() {
        var prober = prober()
        for ping in round(&prober, at: at(0)) {
            let later = at(ping.relay.id == 10 ? 30 : 12)
            prober.receivePong(id: ping.relay.id, from: ping.relay.address, sequence: ping.sequence, at: later)
        }
        #expect(prober.reports(at: at(40))["fra"] == IngressReport(roundTrip: .milliseconds(12), isHealthy: true))
        #expect(prober.reports(at: at(40))["nrt"] == nil)
        // Only one relay of fra goes on answering.
        for second in 1...4 {
            for ping in round(&prober, at: at(Int64(second) * 1000)) where ping.relay.id == 10 {
                prober.receivePong(id: 10, from: ping.relay.address, sequence: ping.sequence, at: at(Int64(second) * 1000 + 30))
            }
        }
        let reports = prober.reports(at: at(4100))
        #expect(reports["fra"] == IngressReport(roundTrip: .milliseconds(30), isHealthy: true))
        #expect(reports["iad"]?.isHealthy == false)
    }

    @Test func `who never answered is dead after a while, not at once`() {
        var prober = prober()
        _ = round(&prober, at: at(0))
        #expect(prober.reports(at: at(100))["fra"]?.isHealthy == true)
        #expect(prober.reports(at: at(2500))["fra"]?.isHealthy == false)
    }

    @Test func `a pong of somebody else, of another ping or said twice counts for nothing`() {
        var prober = prober()
        let ping = round(&prober, at: at(0))[0]
        prober.receivePong(id: 10, from: SocketAddress("10.9.9.9:1")!, sequence: 1, at: at(1))
        prober.receivePong(id: 10, from: ping.relay.address, sequence: 7, at: at(1))
        prober.receivePong(id: 99, from: ping.relay.address, sequence: 1, at: at(1))
        #expect(prober.reports(at: at(2))["fra"]?.roundTrip == nil)
        prober.receivePong(id: 10, from: ping.relay.address, sequence: 1, at: at(5))
        prober.receivePong(id: 10, from: ping.relay.address, sequence: 1, at: at(500))
        #expect(prober.reports(at: at(600))["fra"]?.roundTrip == .milliseconds(5))
    }

    @Test func `a new table keeps what is known of relays that stay`() {
        var prober = prober()
        for ping in round(&prober, at: at(0)) {
            prober.receivePong(id: ping.relay.id, from: ping.relay.address, sequence: ping.sequence, at: at(9))
        }
        prober.replace(try! IngressTable(parsing: "ams 198.51.100.9:3478 52 4 1 10@10.0.0.1:3479"), at: at(10))
        #expect(prober.reports(at: at(11)) == ["ams": IngressReport(roundTrip: .milliseconds(9), isHealthy: true)])
        prober.replace(IngressTable(), at: at(12))
        #expect(prober.nextDeadline == .never)
    }
}
