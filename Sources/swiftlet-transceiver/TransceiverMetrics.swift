// What Prometheus reads at /metrics. Names carry their unit; a reason is a label, never a name.

import Primitives
import SCTP
import HTTP
import ICE
import Serving
import Steering
import Telemetry
import TransceiverCore
import Trunk

func writeMetrics(
    _ text: inout PrometheusText, _ readings: [WorkerReading], _ desk: borrowing SignalingDesk, _ http: ConnectionCounters,
    _ forwarded: ForwardCounters, uptime: Interval
) {
    let workers = readings.map(\.counters)
    writeSignaling(&text, desk)
    writeHTTP(&text, http)
    writeForwarded(&text, forwarded)
    writeSessions(&text, workers)
    writeTrunk(&text, workers)
    writeDrops(&text, workers)
    writeVitals(&text, readings)
    text.gauge("swiftlet_transceiver_uptime_seconds", "Seconds since the start.", uptime.seconds)
}

private func writeSignaling(_ text: inout PrometheusText, _ desk: borrowing SignalingDesk) {
    let counters = desk.counters
    text.gauge("swiftlet_transceiver_calls", "Calls that signaling knows now.", Double(desk.callCount))
    text.gauge("swiftlet_transceiver_calls_connected", "Calls whose keys are there now.", Double(desk.connectedCount))
    text.family("swiftlet_transceiver_offers_total", "Offers, by what became of them.", .counter)
    text.sample("swiftlet_transceiver_offers_total", [("result", "accepted")], counters.offersAccepted)
    text.sample("swiftlet_transceiver_offers_total", [("result", "refused")], counters.offersRefused)
    text.sample("swiftlet_transceiver_offers_total", [("result", "turned_away")], counters.offersTurnedAway)
    text.counter("swiftlet_transceiver_hangups_total", "Calls ended over signaling.", counters.hangups)
    text.counter("swiftlet_transceiver_ice_restarts_total", "ICE restarts over signaling.", counters.iceRestarts)
    text.counter("swiftlet_transceiver_client_secrets_total", "Client secrets minted.", counters.clientSecrets)
    text.counter("swiftlet_transceiver_unauthorized_total", "Requests whose key is missing, wrong or not enough.", counters.unauthorized)
    text.counter("swiftlet_transceiver_trickle_fragments_total", "Fragments without new credentials.", counters.fragments)
}

private func writeHTTP(_ text: inout PrometheusText, _ http: ConnectionCounters) {
    text.counter("swiftlet_transceiver_http_connections_total", "TCP connections taken.", http.accepted)
    text.counter("swiftlet_transceiver_http_connections_turned_away_total", "TCP connections closed for lack of room.", http.turnedAway)
    text.counter("swiftlet_transceiver_http_requests_total", "Requests that could be read.", http.requests)
    text.family(
        "swiftlet_transceiver_http_refused_total", "What came over HTTP connections and was no acceptable request, by reason.", .counter)
    for failure in HTTPFailure.allCases {
        text.sample(
            "swiftlet_transceiver_http_refused_total", [("reason", snakeCase("\(failure)"))], http.refused[Int(failure.rawValue)])
    }
}

private func writeForwarded(_ text: inout PrometheusText, _ counters: ForwardCounters) {
    let name = "swiftlet_transceiver_forwarded_total"
    text.family(name, "Requests about calls that live elsewhere, by what became of them.", .counter)
    text.sample(name, [("result", "answered")], counters.answered)
    text.sample(name, [("result", "redirected")], counters.redirected)
    text.sample(name, [("result", "owner_unknown")], counters.ownerUnknown)
    text.sample(name, [("result", "owner_dead")], counters.ownerDead)
    text.sample(name, [("result", "turned_away")], counters.turnedAway)
    text.counter("swiftlet_transceiver_spilled_total", "New calls that had no place here and were sent to another.", counters.spilled)
    text.counter(
        "swiftlet_transceiver_forwarded_sockets_total", "WebSockets carried through to calls that live elsewhere.", counters.sockets)
}

func writeSteering(_ text: inout PrometheusText, _ counters: SteeringCounters, _ reports: [String: IngressReport]) {
    let choices = "swiftlet_transceiver_ingress_chosen_total"
    text.family(choices, "Answers by the ingress that they name first, and by how it was chosen.", .counter)
    for (ingress, reasons) in counters.choices.sorted(by: { $0.key < $1.key }) {
        for reason in SteeringReason.allCases {
            guard let count = reasons[reason] else { continue }
            text.sample(choices, [("ingress", ingress), ("reason", reason.rawValue)], count)
        }
    }
    let troubles = "swiftlet_transceiver_geo_headers_refused_total"
    writeReports(&text, reports.sorted { $0.key < $1.key })
    text.family(troubles, "What requests say of their place and was not used, by why.", .counter)
    for trouble in GeoTrouble.allCases { text.sample(troubles, [("reason", trouble.rawValue)], counters.troubles[trouble] ?? 0) }
}

private func writeReports(_ text: inout PrometheusText, _ reports: [(key: String, value: IngressReport)]) {
    let healthy = "swiftlet_transceiver_ingress_healthy"
    text.family(healthy, "Whether a relay of an ingress answers over the trunk now.", .gauge)
    for (name, report) in reports { text.sample(healthy, [("ingress", name)], report.isHealthy ? 1 : 0) }
    let roundTrip = "swiftlet_transceiver_ingress_trunk_round_trip_seconds"
    text.family(roundTrip, "To the fastest relay of an ingress over the trunk and back.", .gauge)
    for (name, report) in reports {
        guard let trip = report.roundTrip else { continue }
        text.sample(roundTrip, [("ingress", name)], trip.seconds)
    }
}

private func writeSessions(_ text: inout PrometheusText, _ workers: [WorkerCounters]) {
    text.counter("swiftlet_transceiver_sessions_created_total", "Sessions made by workers.", sum(workers, \.sessionsCreated))
    text.counter("swiftlet_transceiver_sessions_connected_total", "Sessions that reached their keys.", sum(workers, \.sessionsConnected))
    text.family("swiftlet_transceiver_sessions_ended_total", "Sessions that ended, by reason.", .counter)
    for reason in SessionEndReason.allCases {
        let count = workers.reduce(0) { $0 &+ $1.sessionsEnded[Int(reason.rawValue)] }
        text.sample("swiftlet_transceiver_sessions_ended_total", [("reason", snakeCase("\(reason)"))], count)
    }
    text.counter("swiftlet_transceiver_audio_packets_received_total", "Audio packets for backends.", sum(workers, \.audioPacketsReceived))
    text.counter("swiftlet_transceiver_audio_packets_sent_total", "Audio packets from backends.", sum(workers, \.audioPacketsSent))
    text.counter("swiftlet_transceiver_reports_received_total", "Authentic RTCP packets.", sum(workers, \.reportsReceived))
}

private func writeTrunk(_ text: inout PrometheusText, _ workers: [WorkerCounters]) {
    text.family("swiftlet_transceiver_trunk_frames_received_total", "Trunk frames, by worker.", .counter)
    for (index, worker) in workers.enumerated() {
        text.sample("swiftlet_transceiver_trunk_frames_received_total", [("worker", String(index))], worker.framesReceived)
    }
    text.counter(
        "swiftlet_transceiver_trunk_frames_accepted_key_total",
        "Frames under the accepted trunk key. Zero growth everywhere: it can be retired.", sum(workers, \.framesAcceptedKey))
    text.counter("swiftlet_transceiver_trunk_records_received_total", "Client datagrams.", sum(workers, \.recordsReceived))
    text.counter("swiftlet_transceiver_trunk_records_sent_total", "Datagrams for clients.", sum(workers, \.recordsSent))
}

private func writeDrops(_ text: inout PrometheusText, _ workers: [WorkerCounters]) {
    let name = "swiftlet_transceiver_dropped_total"
    text.family(name, "What was not used, by what it was and why.", .counter)
    for drop in drops(workers) { text.sample(name, [("what", drop.what), ("reason", drop.reason)], drop.count) }
}

private func drops(_ workers: [WorkerCounters]) -> [(what: String, reason: String, count: UInt64)] {
    var drops: [(what: String, reason: String, count: UInt64)] = []
    for reason in TrunkError.allCases {
        drops.append(("frame", snakeCase("\(reason)"), workers.reduce(0) { $0 &+ $1.framesRefused[Int(reason.rawValue)] }))
    }
    drops.append(("frame", "for_others", sum(workers, \.framesForOthers)))
    drops.append(("record", "without_session", sum(workers, \.recordsWithoutSession)))
    drops.append(("record", "oversized", sum(workers, \.recordsOversized)))
    drops.append(("record", "without_train", sum(workers, \.recordsWithoutTrain)))
    drops.append(("outgoing", "unproved_or_no_consent", sum(workers, \.datagramsWithheld)))
    for reason in SessionDropReason.allCases {
        drops.append(("datagram", snakeCase("\(reason)"), workers.reduce(0) { $0 &+ $1.dropped[Int(reason.rawValue)] }))
    }
    for reason in SCTPDropReason.allCases {
        drops.append(("sctp", snakeCase("\(reason)"), workers.reduce(0) { $0 &+ $1.sctpDropped[Int(reason.rawValue)] }))
    }
    for reason in ICEDropReason.allCases {
        drops.append(("stun", snakeCase("\(reason)"), workers.reduce(0) { $0 &+ $1.stunRefused[Int(reason.rawValue)] }))
    }
    return drops
}

private func writeVitals(_ text: inout PrometheusText, _ workers: [WorkerReading]) {
    let latency = "swiftlet_transceiver_latency_seconds"
    text.family(latency, "From the kernel's receive of a trunk train to the return of the send after it, sampled.", .histogram)
    for (index, worker) in workers.enumerated() {
        text.sample(latency, [("worker", String(index))], worker.vitals.latency, unit: .nanoseconds, octaves: 11...30)
    }
    let cpu = "swiftlet_transceiver_worker_cpu_seconds_total"
    text.family(cpu, "Processor time of a worker's thread, kernel included.", .counter)
    for (index, worker) in workers.enumerated() {
        text.sample(cpu, [("worker", String(index))], Double(worker.vitals.usage.processorTime) / 1e9)
    }
    let switches = "swiftlet_transceiver_worker_context_switches_total"
    text.family(switches, "Times a worker's thread left its processor, by whether it waited or had to.", .counter)
    for (index, worker) in workers.enumerated() {
        text.sample(switches, [("worker", String(index)), ("kind", "voluntary")], worker.vitals.usage.voluntarySwitches)
        text.sample(switches, [("worker", String(index)), ("kind", "involuntary")], worker.vitals.usage.involuntarySwitches)
    }
    text.threads(
        workers.enumerated().compactMap { index, worker in worker.perf.map { ("media-\(index)", $0) } }, prefix: "swiftlet_transceiver")
}

/// What the dashboard is told.
func dashboardReport(
    _ readings: [WorkerReading], calls: Int, connected: Int, callsMax: Int, ingresses: [String: IngressReport]
) -> DashboardReport {
    let workers = readings.map(\.counters)
    let reports = readings.enumerated().map { index, worker in
        WorkerReport(
            "media-\(index)",
            traffic: [
                TrafficReport("from relays", packets: worker.counters.recordsReceived, batches: worker.counters.framesReceived),
                TrafficReport("to relays", packets: worker.counters.recordsSent),
            ], vitals: worker.vitals, perf: worker.perf)
    }
    let drops = drops(workers).map { DropReport("\($0.what): \($0.reason)", $0.count) }
    return DashboardReport(
        program: "transceiver",
        fill: FillReport("calls", used: UInt64(calls), confirmed: UInt64(connected), capacity: UInt64(callsMax)), workers: reports,
        trunk: ingresses.sorted { $0.key < $1.key }.map {
            TrunkReport("ingress \($0.key)", isAlive: $0.value.isHealthy, roundTrip: $0.value.roundTrip)
        }, drops: drops)
}

private func sum(_ workers: [WorkerCounters], _ counter: KeyPath<WorkerCounters, UInt64>) -> UInt64 {
    workers.reduce(0) { $0 &+ $1[keyPath: counter] }
}
