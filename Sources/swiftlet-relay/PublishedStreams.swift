// What a worker publishes of its clients over TCP, and what Prometheus is told of them.

import Primitives
import RelayCore
import Telemetry

/// One worker's numbers: written by it, read by the control thread.
struct PublishedStreams: Sendable {
    private static let wordCount = 6 + StreamCounters.endsMax + StreamCounters.dropsMax
    private let page = CounterPage(count: PublishedStreams.wordCount)

    func publish(_ clients: borrowing StreamClients) {
        let counters = clients.counters
        var words = InlineArray<26, UInt64>(repeating: 0)
        words[0] = UInt64(clients.count)
        words[1] = UInt64(clients.authenticatedCount)
        words[2] = counters.accepted
        words[3] = counters.authenticated
        words[4] = counters.datagramsReceived
        words[5] = counters.datagramsSent
        for index in 0..<StreamCounters.endsMax { words[6 + index] = counters.ended[index] }
        for index in 0..<StreamCounters.dropsMax { words[6 + StreamCounters.endsMax + index] = counters.dropped[index] }
        page.publish(words.span)
    }

    /// nil where nothing listens on TCP: then nothing is ever published.
    func snapshot() -> StreamReading? { page.generation == 0 ? nil : StreamReading(words: page.snapshot()) }
}

/// The reader's side.
struct StreamReading {
    fileprivate let words: [UInt64]
    subscript(end: StreamEnd) -> UInt64 { words[6 + Int(end.rawValue)] }
    subscript(reason: StreamDropReason) -> UInt64 { words[6 + StreamCounters.endsMax + Int(reason.rawValue)] }
}

/// Nothing for a relay without TCP.
func writeStreams(_ text: inout PrometheusText, _ workers: [StreamReading]) {
    let families: [(String, String, MetricKind)] = [
        ("swiftlet_relay_tcp_connections", "Connections of clients over TCP now.", .gauge),
        ("swiftlet_relay_tcp_connections_authentic", "Those of them that have brought an authentic check.", .gauge),
        ("swiftlet_relay_tcp_accepted_total", "Connections of clients over TCP that were taken.", .counter),
        ("swiftlet_relay_tcp_authenticated_total", "Those of them that brought an authentic check.", .counter),
        ("swiftlet_relay_tcp_datagrams_received_total", "Datagrams received in frames over TCP; also among public_datagrams.", .counter),
        ("swiftlet_relay_tcp_datagrams_sent_total", "Datagrams sent in frames over TCP.", .counter),
    ]
    for (index, family) in families.enumerated() {
        text.family(family.0, family.1, family.2)
        for (number, worker) in workers.enumerated() { text.sample(family.0, [("worker", String(number))], worker.words[index]) }
    }
    let ended = "swiftlet_relay_tcp_ended_total"
    text.family(ended, "Connections over TCP that were closed or not taken, by reason.", .counter)
    for end in StreamEnd.allCases {
        text.sample(ended, [("reason", snakeCase("\(end)"))], workers.reduce(0) { $0 &+ $1[end] })
    }
    let dropped = "swiftlet_relay_tcp_dropped_total"
    text.family(dropped, "Datagrams for clients over TCP that went nowhere, by reason.", .counter)
    for reason in StreamDropReason.allCases {
        text.sample(dropped, [("reason", snakeCase("\(reason)"))], workers.reduce(0) { $0 &+ $1[reason] })
    }
}
