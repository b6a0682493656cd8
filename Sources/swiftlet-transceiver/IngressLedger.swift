import Primitives
import Steering
import Telemetry
import TransceiverCore

/// How calls fared, by the ingress that their clients really used: what steering is judged by.
struct IngressLedger {
    private struct Account {
        var setUp = Histogram()
        var roundTrip = Histogram()
        /// Parts lost of 256, of every report.
        var lost: UInt64 = 0
        var reports: UInt64 = 0
        /// Calls that came here from another ingress.
        var moves: UInt64 = 0
    }
    private var accounts: [UInt16: Account] = [:]

    mutating func note(_ report: PathReport) {
        switch report.news {
        case .connected(let after): accounts[report.ingressRelay, default: Account()].setUp.record(UInt64(max(0, after.nanoseconds)))
        case .moved: accounts[report.ingressRelay, default: Account()].moves += 1
        case .measured(let roundTrip, let lost):
            accounts[report.ingressRelay, default: Account()].reports += 1
            accounts[report.ingressRelay, default: Account()].lost += UInt64(lost)
            if let roundTrip { accounts[report.ingressRelay, default: Account()].roundTrip.record(UInt64(max(0, roundTrip.nanoseconds))) }
        }
    }

    /// - Parameter table: names of relays; those that have none are `relay-N`.
    func write(to text: inout PrometheusText, _ table: IngressTable?) {
        let rows = accounts.sorted { $0.key < $1.key }.map { relay, account in
            ([("ingress", table?.name(ofRelay: relay) ?? "unnamed"), ("relay", String(relay))], account)
        }
        let setUp = "swiftlet_transceiver_ingress_setup_seconds"
        text.family(setUp, "From the offer to the keys, by the ingress relay that the client used then.", .histogram)
        for (labels, account) in rows { text.sample(setUp, labels, account.setUp, unit: .nanoseconds, octaves: 20...35) }
        let roundTrip = "swiftlet_transceiver_ingress_round_trip_seconds"
        text.family(roundTrip, "Round trips to clients by their RTCP reports, by ingress relay.", .histogram)
        for (labels, account) in rows { text.sample(roundTrip, labels, account.roundTrip, unit: .nanoseconds, octaves: 17...33) }
        let reports = "swiftlet_transceiver_ingress_reports_total"
        text.family(reports, "RTCP reports of clients, by ingress relay.", .counter)
        for (labels, account) in rows { text.sample(reports, labels, account.reports) }
        let lost = "swiftlet_transceiver_ingress_reported_loss_total"
        text.family(lost, "Sum of the parts lost in these reports, each 0 to 1; by their number, the mean.", .counter)
        for (labels, account) in rows { text.sample(lost, labels, Double(account.lost) / 256) }
        let moves = "swiftlet_transceiver_ingress_moves_total"
        text.family(moves, "Running calls that came to another ingress relay.", .counter)
        for (labels, account) in rows { text.sample(moves, labels, account.moves) }
    }
}
