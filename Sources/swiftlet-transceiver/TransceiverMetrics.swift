// What Prometheus reads at /metrics. Names carry their unit; a reason is a label, never a name.

import Primitives
import SCTP
import HTTP
import ICE
import Telemetry
import TransceiverCore
import Trunk

func metricsText(_ workers: [WorkerCounters], _ desk: borrowing SignalingDesk, _ http: ConnectionCounters, uptime: Interval) -> String {
    var text = PrometheusText()
    writeSignaling(&text, desk)
    writeHTTP(&text, http)
    writeSessions(&text, workers)
    writeTrunk(&text, workers)
    writeDrops(&text, workers)
    text.gauge("swiftlet_transceiver_uptime_seconds", "Seconds since the start.", uptime.seconds)
    return text.string
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
    text.counter("swiftlet_transceiver_trunk_records_received_total", "Client datagrams.", sum(workers, \.recordsReceived))
    text.counter("swiftlet_transceiver_trunk_records_sent_total", "Datagrams for clients.", sum(workers, \.recordsSent))
}

private func writeDrops(_ text: inout PrometheusText, _ workers: [WorkerCounters]) {
    let name = "swiftlet_transceiver_dropped_total"
    text.family(name, "What was not used, by what it was and why.", .counter)
    for reason in TrunkError.allCases {
        let count = workers.reduce(0) { $0 &+ $1.framesRefused[Int(reason.rawValue)] }
        text.sample(name, [("what", "frame"), ("reason", snakeCase("\(reason)"))], count)
    }
    text.sample(name, [("what", "frame"), ("reason", "for_others")], sum(workers, \.framesForOthers))
    text.sample(name, [("what", "record"), ("reason", "without_session")], sum(workers, \.recordsWithoutSession))
    text.sample(name, [("what", "record"), ("reason", "oversized")], sum(workers, \.recordsOversized))
    text.sample(name, [("what", "record"), ("reason", "without_train")], sum(workers, \.recordsWithoutTrain))
    for reason in SessionDropReason.allCases {
        let count = workers.reduce(0) { $0 &+ $1.dropped[Int(reason.rawValue)] }
        text.sample(name, [("what", "datagram"), ("reason", snakeCase("\(reason)"))], count)
    }
    for reason in SCTPDropReason.allCases {
        let count = workers.reduce(0) { $0 &+ $1.sctpDropped[Int(reason.rawValue)] }
        text.sample(name, [("what", "sctp"), ("reason", snakeCase("\(reason)"))], count)
    }
    for reason in ICEDropReason.allCases {
        let count = workers.reduce(0) { $0 &+ $1.stunRefused[Int(reason.rawValue)] }
        text.sample(name, [("what", "stun"), ("reason", snakeCase("\(reason)"))], count)
    }
}

private func sum(_ workers: [WorkerCounters], _ counter: KeyPath<WorkerCounters, UInt64>) -> UInt64 {
    workers.reduce(0) { $0 &+ $1[keyPath: counter] }
}

/// `srtpNotAuthentic` → `srtp_not_authentic`
private func snakeCase(_ text: String) -> String {
    var result = ""
    for character in text {
        if character.isUppercase, result.last.map({ !$0.isUppercase && $0 != "_" }) ?? false { result += "_" }
        result += character.lowercased()
    }
    return result
}
