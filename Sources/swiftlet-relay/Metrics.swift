// What a worker publishes and the control thread reads, and what Prometheus and the dashboard are told of it.

import HTTP
import Membership
import Primitives
import RelayCore
import Serving
import Telemetry

/// The numbers of one worker, in the order in which they are stored.
enum RelayMetric: Int, CaseIterable {
    case publicDatagrams, publicBytes, forwarded, trunkFrames, trunkFramesAcceptedKey, delivered, deliveredBytes
    case flowsMade, flowsMoved, flowsConfirmed, flowsExpiredUnconfirmed, flowsExpiredIdle, flowsGone, flowsDisconnected
    case flowsAdopted, flowsTorn
    case parked, questions, flowsRecalled
    case framesSent, framesPassedOn, trainsSent
    case flows, flowsWithTransceiver, flowCapacity
    case undeliverable, trunkSendDropped, publicSendDropped, sendRetried
    case receiveTruncated, receiveErrors, publicQueueDropped, trunkQueueDropped
    case transceiversServing, transceiversDraining, transceiversLost, transceiverLosses, flowsOfLost
    case turns, publicReceives, trunkReceives

    var name: String {
        switch self {
        case .publicDatagrams: "swiftlet_relay_public_datagrams_total"
        case .publicBytes: "swiftlet_relay_public_bytes_total"
        case .forwarded: "swiftlet_relay_forwarded_datagrams_total"
        case .trunkFrames: "swiftlet_relay_trunk_frames_received_total"
        case .trunkFramesAcceptedKey: "swiftlet_relay_trunk_frames_accepted_key_total"
        case .delivered: "swiftlet_relay_delivered_datagrams_total"
        case .deliveredBytes: "swiftlet_relay_delivered_bytes_total"
        case .flowsMade: "swiftlet_relay_flows_made_total"
        case .flowsMoved: "swiftlet_relay_flows_moved_total"
        case .flowsConfirmed: "swiftlet_relay_flows_confirmed_total"
        case .flowsExpiredUnconfirmed: "swiftlet_relay_flows_expired_unconfirmed_total"
        case .flowsExpiredIdle: "swiftlet_relay_flows_expired_idle_total"
        case .flowsGone: "swiftlet_relay_flows_gone_total"
        case .flowsDisconnected: "swiftlet_relay_flows_disconnected_total"
        case .flowsAdopted: "swiftlet_relay_flows_adopted_total"
        case .flowsTorn: "swiftlet_relay_flows_torn_total"
        case .parked: "swiftlet_relay_parked_datagrams_total"
        case .questions: "swiftlet_relay_cache_questions_total"
        case .flowsRecalled: "swiftlet_relay_flows_recalled_total"
        case .framesSent: "swiftlet_relay_trunk_frames_sent_total"
        case .framesPassedOn: "swiftlet_relay_trunk_frames_passed_on_total"
        case .trainsSent: "swiftlet_relay_trunk_trains_sent_total"
        case .flows: "swiftlet_relay_flows"
        case .flowsWithTransceiver: "swiftlet_relay_flows_confirmed"
        case .flowCapacity: "swiftlet_relay_flow_capacity"
        case .undeliverable: "swiftlet_relay_undeliverable_total"
        case .trunkSendDropped: "swiftlet_relay_trunk_send_dropped_total"
        case .publicSendDropped: "swiftlet_relay_public_send_dropped_total"
        case .sendRetried: "swiftlet_relay_send_retried_total"
        case .receiveTruncated: "swiftlet_relay_receive_truncated_total"
        case .receiveErrors: "swiftlet_relay_receive_errors_total"
        case .publicQueueDropped: "swiftlet_relay_public_queue_dropped_total"
        case .trunkQueueDropped: "swiftlet_relay_trunk_queue_dropped_total"
        case .transceiversServing: "swiftlet_relay_transceivers_serving"
        case .transceiversDraining: "swiftlet_relay_transceivers_draining"
        case .transceiversLost: "swiftlet_relay_transceivers_lost"
        case .transceiverLosses: "swiftlet_relay_transceiver_losses_total"
        case .flowsOfLost: "swiftlet_relay_flows_of_lost_transceivers_total"
        case .turns: "swiftlet_relay_turns_total"
        case .publicReceives: "swiftlet_relay_public_receives_total"
        case .trunkReceives: "swiftlet_relay_trunk_receives_total"
        }
    }

    var help: String {
        switch self {
        case .publicDatagrams: "Datagrams received on the public side."
        case .publicBytes: "Their payload bytes."
        case .forwarded: "Public datagrams put into a train towards a transceiver."
        case .trunkFrames: "Frames received on the trunk."
        case .trunkFramesAcceptedKey: "Frames under the accepted trunk key. Zero growth everywhere: it can be retired."
        case .delivered: "Datagrams handed out towards clients."
        case .deliveredBytes: "Their payload bytes."
        case .flowsMade: "Flows made by an authentic check from an unknown source."
        case .flowsMoved: "Flows that an authentic check gave another ufrag."
        case .flowsConfirmed: "Flows that their transceiver confirmed."
        case .flowsExpiredUnconfirmed: "Flows that no transceiver confirmed in time."
        case .flowsExpiredIdle: "Confirmed flows whose client fell silent."
        case .flowsGone: "Flows ended by their transceiver."
        case .flowsDisconnected: "Flows of clients over TCP whose connection ended."
        case .flowsAdopted: "Flows that this worker process found in the memory of the last one."
        case .flowsTorn: "Flows found half written and dropped."
        case .parked: "Datagrams of unknown sources that waited for the flow cache."
        case .questions: "Unknown sources that the flow cache was to be asked about."
        case .flowsRecalled: "Flows made because the flow cache knew their source."
        case .framesSent: "Frames sent on the trunk."
        case .framesPassedOn: "Frames of other ingress relays, to a transceiver of this cluster or back."
        case .trainsSent: "Sends on the trunk: a train of frames counts once."
        case .flows: "Flows now."
        case .flowsWithTransceiver: "Confirmed flows now."
        case .flowCapacity: "The most flows."
        case .undeliverable: "Datagrams for clients that no public socket reaches, or that are longer than a slot."
        case .trunkSendDropped: "Frames the kernel did not take."
        case .publicSendDropped: "Datagrams towards clients the kernel did not take."
        case .sendRetried: "Datagrams sent again because of an ICMP message for an earlier one."
        case .receiveTruncated: "Datagrams longer than a receive slot."
        case .receiveErrors: "Receives that reported an ICMP message instead of a datagram."
        case .publicQueueDropped: "Datagrams lost because a public socket's buffer was full."
        case .trunkQueueDropped: "Datagrams lost because a trunk socket's buffer was full."
        case .transceiversServing: "Transceivers that this worker sends to and that answer."
        case .transceiversDraining: "The same that say that they want no new calls."
        case .transceiversLost: "Those that stopped to answer, or whose machine says that nobody listens."
        case .transceiverLosses: "How often a transceiver was lost."
        case .flowsOfLost: "Flows dropped because their transceiver was lost."
        case .turns: "Turns of the loop."
        case .publicReceives: "Receives on the public side that brought something: batches."
        case .trunkReceives: "Receives on the trunk that brought something: batches."
        }
    }

    var isGauge: Bool {
        switch self {
        case .flows, .flowsWithTransceiver, .flowCapacity, .transceiversServing, .transceiversDraining, .transceiversLost: true
        default: false
        }
    }
}

/// One worker's published numbers: the worker fills `next` and publishes it once a turn, without a lock.
final class PublishedCounters: Sendable {
    static let wordCount = RelayMetric.allCases.count + RelayCounters.reasonsMax
    let page = CounterPage(count: PublishedCounters.wordCount)
    let vitals = CounterPage(count: WorkerVitals.wordCount)
    let peers = CounterPage(count: PublishedPeers.wordCount)
    let streams = PublishedStreams()

    func snapshot() -> RelayReading { RelayReading(words: page.snapshot()) }
}

/// The worker's side of a page: all its numbers in the order of `RelayMetric`, then drops by reason.
struct RelayWords {
    var words = InlineArray<96, UInt64>(repeating: 0)

    init(_ counters: RelayCounters) {
        self[.publicDatagrams] = counters.publicDatagrams
        self[.publicBytes] = counters.publicBytes
        self[.forwarded] = counters.forwarded
        self[.trunkFrames] = counters.trunkFrames
        self[.trunkFramesAcceptedKey] = counters.trunkFramesAcceptedKey
        self[.delivered] = counters.delivered
        self[.deliveredBytes] = counters.deliveredBytes
        self[.flowsMade] = counters.flowsMade
        self[.flowsMoved] = counters.flowsMoved
        self[.flowsConfirmed] = counters.flowsConfirmed
        self[.flowsExpiredUnconfirmed] = counters.flowsExpiredUnconfirmed
        self[.flowsExpiredIdle] = counters.flowsExpiredIdle
        self[.flowsGone] = counters.flowsGone
        self[.parked] = counters.parked
        self[.questions] = counters.questions
        self[.flowsRecalled] = counters.flowsRecalled
        self[.framesSent] = counters.framesSent
        self[.framesPassedOn] = counters.framesPassedOn
        self[.trainsSent] = counters.trainsSent
        self[.transceiverLosses] = counters.transceiversLost
        self[.flowsOfLost] = counters.flowsOfLost
        for reason in 0..<RelayCounters.reasonsMax { words[RelayMetric.count + reason] = counters.dropped[reason] }
    }

    subscript(metric: RelayMetric) -> UInt64 {
        get { words[metric.rawValue] }
        set { words[metric.rawValue] = newValue }
    }

    func publish(on page: CounterPage) { page.publish(words.span.extracting(0..<PublishedCounters.wordCount)) }
}

extension RelayMetric {
    /// By the last case: `allCases` would be an array, and this is on the way of every turn.
    static var count: Int { RelayMetric.trunkReceives.rawValue + 1 }
}

/// The reader's side.
struct RelayReading {
    fileprivate let words: [UInt64]

    subscript(metric: RelayMetric) -> UInt64 { words[metric.rawValue] }
    subscript(reason: RelayDropReason) -> UInt64 { words[RelayMetric.allCases.count + Int(reason.rawValue)] }
}

/// All that is known of a worker at one moment.
struct WorkerReading {
    let counters: RelayReading
    let vitals: PublishedVitals
    let perf: PerfSnapshot?
    var peers: [PeerHealth] = []
    var transceivers: [TransceiverHealth] = []
    /// nil where nothing listens on TCP.
    var streams: StreamReading?
}

/// What Prometheus reads: by worker, no client address, no secret.
func metricsText(_ workers: [WorkerReading], _ http: ConnectionCounters, uptime: Interval) -> String {
    var text = PrometheusText()
    for metric in RelayMetric.allCases {
        text.family(metric.name, metric.help, metric.isGauge ? .gauge : .counter)
        for (index, worker) in workers.enumerated() { text.sample(metric.name, [("worker", String(index))], worker.counters[metric]) }
    }
    let name = "swiftlet_relay_dropped_total"
    text.family(name, "Datagrams that went nowhere, by reason.", .counter)
    for reason in RelayDropReason.allCases {
        text.sample(name, [("reason", snakeCase("\(reason)"))], sum(workers) { $0.counters[reason] })
    }
    let latency = "swiftlet_relay_latency_seconds"
    text.family(latency, "From the kernel's receive to the return of our send, sampled.", .histogram)
    for (index, worker) in workers.enumerated() {
        text.sample(latency, [("worker", String(index))], worker.vitals.latency, unit: .nanoseconds, octaves: 11...30)
    }
    let batch = "swiftlet_relay_batch_datagrams"
    text.family(batch, "Datagrams of one receive.", .histogram)
    for (index, worker) in workers.enumerated() {
        text.sample(batch, [("worker", String(index))], worker.vitals.batches, unit: .ones, octaves: 0...10)
    }
    writePeers(&text, workers)
    writeTransceivers(&text, workers)
    let streams = workers.compactMap(\.streams)
    if !streams.isEmpty { writeStreams(&text, streams) }
    writeThreads(&text, workers)
    writeHTTP(&text, http)
    text.gauge("swiftlet_relay_uptime_seconds", "Seconds since the start.", uptime.seconds)
    return text.string
}

/// Each worker asks by itself.
private func writePeers(_ text: inout PrometheusText, _ workers: [WorkerReading]) {
    guard workers.contains(where: { !$0.peers.isEmpty }) else { return }
    func samples(_ name: String, _ help: String, _ kind: MetricKind, _ value: (PeerHealth) -> Double?) {
        text.family(name, help, kind)
        for (index, worker) in workers.enumerated() {
            for peer in worker.peers {
                guard let value = value(peer) else { continue }
                text.sample(name, [("worker", String(index)), ("relay", String(peer.id)), ("cluster", String(peer.cluster))], value)
            }
        }
    }
    samples("swiftlet_relay_peer_alive", "Whether another relay answers.", .gauge) { $0.isAlive ? 1 : 0 }
    samples("swiftlet_relay_peer_round_trip_seconds", "To another relay and back, smoothed.", .gauge) { $0.roundTrip?.seconds }
    samples("swiftlet_relay_peer_pings_total", "Pings sent to another relay.", .counter) { Double($0.pings) }
    samples("swiftlet_relay_peer_pongs_total", "Answers of another relay.", .counter) { Double($0.pongs) }
}

private func writeTransceivers(_ text: inout PrometheusText, _ workers: [WorkerReading]) {
    guard workers.contains(where: { !$0.transceivers.isEmpty }) else { return }
    let roundTrip = "swiftlet_relay_transceiver_round_trip_seconds"
    text.family(roundTrip, "To a transceiver that a worker sends to and back, smoothed.", .gauge)
    for (index, worker) in workers.enumerated() {
        for one in worker.transceivers {
            guard let trip = one.roundTrip else { continue }
            text.sample(roundTrip, [("worker", String(index)), ("transceiver", MemberID.text(one.id))], trip.seconds)
        }
    }
}

private func writeThreads(_ text: inout PrometheusText, _ workers: [WorkerReading]) {
    let cpu = "swiftlet_relay_worker_cpu_seconds_total"
    text.family(cpu, "Processor time of a worker's thread, kernel included.", .counter)
    for (index, worker) in workers.enumerated() {
        text.sample(cpu, [("worker", String(index))], Double(worker.vitals.usage.processorTime) / 1e9)
    }
    let switches = "swiftlet_relay_worker_context_switches_total"
    text.family(switches, "Times a worker's thread left its processor, by whether it waited or had to.", .counter)
    for (index, worker) in workers.enumerated() {
        text.sample(switches, [("worker", String(index)), ("kind", "voluntary")], worker.vitals.usage.voluntarySwitches)
        text.sample(switches, [("worker", String(index)), ("kind", "involuntary")], worker.vitals.usage.involuntarySwitches)
    }
    text.threads(
        workers.enumerated().compactMap { index, worker in worker.perf.map { ("relay-\(index)", $0) } }, prefix: "swiftlet_relay")
}

private func writeHTTP(_ text: inout PrometheusText, _ http: ConnectionCounters) {
    text.counter("swiftlet_relay_http_connections_total", "TCP connections taken.", http.accepted)
    text.counter("swiftlet_relay_http_connections_turned_away_total", "TCP connections closed for lack of room.", http.turnedAway)
    text.counter("swiftlet_relay_http_requests_total", "Requests that could be read.", http.requests)
    text.family("swiftlet_relay_http_refused_total", "What came over HTTP connections and was no acceptable request.", .counter)
    for failure in HTTPFailure.allCases {
        text.sample("swiftlet_relay_http_refused_total", [("reason", snakeCase("\(failure)"))], http.refused[Int(failure.rawValue)])
    }
    text.counter("swiftlet_relay_http_slow_listeners_total", "Listeners to events that did not read.", http.slowListeners)
}

/// What the dashboard is told.
func dashboardReport(_ workers: [WorkerReading]) -> DashboardReport {
    let reports = workers.enumerated().map { index, worker in
        let counters = worker.counters
        return WorkerReport(
            "relay-\(index)",
            traffic: [
                TrafficReport(
                    "from clients", packets: counters[.publicDatagrams], bytes: counters[.publicBytes], batches: counters[.publicReceives]),
                TrafficReport(
                    "to clients", packets: counters[.delivered], bytes: counters[.deliveredBytes], batches: counters[.trunkReceives]),
            ], vitals: worker.vitals, perf: worker.perf)
    }
    var drops = RelayDropReason.allCases.map { reason in DropReport(snakeCase("\(reason)"), sum(workers) { $0.counters[reason] }) }
    for (metric, reason) in [
        (RelayMetric.publicQueueDropped, "public socket full"), (.trunkQueueDropped, "trunk socket full"),
        (.publicSendDropped, "send to client failed"), (.trunkSendDropped, "send on trunk failed"), (.receiveTruncated, "truncated"),
        (.undeliverable, "undeliverable"),
    ] {
        drops.append(DropReport(reason, sum(workers) { $0.counters[metric] }))
    }
    let streams = workers.compactMap(\.streams)
    for reason in StreamDropReason.allCases where !streams.isEmpty {
        drops.append(DropReport("tcp \(snakeCase("\(reason)"))", streams.reduce(0) { $0 &+ $1[reason] }))
    }
    return DashboardReport(
        program: "relay",
        fill: FillReport(
            "flows", used: sum(workers) { $0.counters[.flows] }, confirmed: sum(workers) { $0.counters[.flowsWithTransceiver] },
            capacity: sum(workers) { $0.counters[.flowCapacity] }),
        workers: reports, trunk: trunkReports(workers), drops: drops)
}

/// Workers ask each by themselves: somebody is alive who answers one of them, and as far away as the nearest says.
private func trunkReports(_ workers: [WorkerReading]) -> [TrunkReport] {
    var reports: [UInt16: TrunkReport] = [:]
    for peer in workers.flatMap(\.peers) {
        let known = reports[peer.id]
        reports[peer.id] = TrunkReport(
            "relay \(peer.id) of cluster \(peer.cluster)", isAlive: peer.isAlive || known?.isAlive == true,
            roundTrip: [peer.roundTrip, known?.roundTrip].compactMap(\.self).min(), pings: peer.pings &+ (known?.pings ?? 0),
            pongs: peer.pongs &+ (known?.pongs ?? 0))
    }
    var transceivers: [UInt32: TrunkReport] = [:]
    for one in workers.flatMap(\.transceivers) {
        let known = transceivers[one.id]
        transceivers[one.id] = TrunkReport(
            "transceiver \(MemberID.text(one.id))", isAlive: one.state != .lost || known?.isAlive == true,
            isDraining: one.state == .draining || known?.isDraining == true,
            roundTrip: [one.roundTrip, known?.roundTrip].compactMap(\.self).min(), pings: one.pings &+ (known?.pings ?? 0),
            pongs: one.pongs &+ (known?.pongs ?? 0))
    }
    return reports.sorted { $0.key < $1.key }.map(\.value) + transceivers.sorted { $0.key < $1.key }.map(\.value)
}

private func sum(_ workers: [WorkerReading], _ value: (WorkerReading) -> UInt64) -> UInt64 { workers.reduce(0) { $0 &+ value($1) } }
