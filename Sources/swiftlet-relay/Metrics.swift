// What a worker publishes and the control thread reads: one atomic a number, stored by its only writer, summed by the reader.

import Primitives
import RelayCore
import Synchronization

/// The numbers of one worker, in the order in which they are stored.
enum RelayMetric: Int, CaseIterable {
    case publicDatagrams, publicBytes, forwarded, trunkFrames, delivered, deliveredBytes
    case flowsMade, flowsMoved, flowsConfirmed, flowsExpiredUnconfirmed, flowsExpiredIdle, flowsGone
    case framesSent, trainsSent
    case flows, flowsWithTransceiver, flowCapacity
    case undeliverable, trunkSendDropped, publicSendDropped, sendRetried
    case receiveTruncated, receiveErrors, publicQueueDropped, trunkQueueDropped
    case turns

    var name: String {
        switch self {
        case .publicDatagrams: "swiftlet_relay_public_datagrams_total"
        case .publicBytes: "swiftlet_relay_public_bytes_total"
        case .forwarded: "swiftlet_relay_forwarded_datagrams_total"
        case .trunkFrames: "swiftlet_relay_trunk_frames_received_total"
        case .delivered: "swiftlet_relay_delivered_datagrams_total"
        case .deliveredBytes: "swiftlet_relay_delivered_bytes_total"
        case .flowsMade: "swiftlet_relay_flows_made_total"
        case .flowsMoved: "swiftlet_relay_flows_moved_total"
        case .flowsConfirmed: "swiftlet_relay_flows_confirmed_total"
        case .flowsExpiredUnconfirmed: "swiftlet_relay_flows_expired_unconfirmed_total"
        case .flowsExpiredIdle: "swiftlet_relay_flows_expired_idle_total"
        case .flowsGone: "swiftlet_relay_flows_gone_total"
        case .framesSent: "swiftlet_relay_trunk_frames_sent_total"
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
        case .turns: "swiftlet_relay_turns_total"
        }
    }

    var help: String {
        switch self {
        case .publicDatagrams: "Datagrams received on the public side."
        case .publicBytes: "Their payload bytes."
        case .forwarded: "Public datagrams put into a train towards a transceiver."
        case .trunkFrames: "Frames received on the trunk."
        case .delivered: "Datagrams handed out towards clients."
        case .deliveredBytes: "Their payload bytes."
        case .flowsMade: "Flows made by an authentic check from an unknown source."
        case .flowsMoved: "Flows that an authentic check gave another ufrag."
        case .flowsConfirmed: "Flows that their transceiver confirmed."
        case .flowsExpiredUnconfirmed: "Flows that no transceiver confirmed in time."
        case .flowsExpiredIdle: "Confirmed flows whose client fell silent."
        case .flowsGone: "Flows ended by their transceiver."
        case .framesSent: "Frames sent on the trunk."
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
        case .turns: "Turns of the loop."
        }
    }

    var isGauge: Bool { self == .flows || self == .flowsWithTransceiver || self == .flowCapacity }
}

/// One worker's published numbers.
final class PublishedCounters: Sendable {
    private let values: Slab<Atomic<UInt64>>
    private let drops: Slab<Atomic<UInt64>>

    init() {
        values = Slab(count: RelayMetric.allCases.count) { _ in Atomic(0) }
        drops = Slab(count: RelayDropReason.allCases.count) { _ in Atomic(0) }
    }

    func set(_ metric: RelayMetric, _ value: UInt64) { values[metric.rawValue].store(value, ordering: .relaxed) }
    func set(_ reason: Int, dropped value: UInt64) { drops[reason].store(value, ordering: .relaxed) }
    func value(_ metric: RelayMetric) -> UInt64 { values[metric.rawValue].load(ordering: .relaxed) }
    func dropped(_ reason: RelayDropReason) -> UInt64 { drops[Int(reason.rawValue)].load(ordering: .relaxed) }
}

extension PublishedCounters {
    func publish(_ counters: RelayCounters) {
        set(.publicDatagrams, counters.publicDatagrams)
        set(.publicBytes, counters.publicBytes)
        set(.forwarded, counters.forwarded)
        set(.trunkFrames, counters.trunkFrames)
        set(.delivered, counters.delivered)
        set(.deliveredBytes, counters.deliveredBytes)
        set(.flowsMade, counters.flowsMade)
        set(.flowsMoved, counters.flowsMoved)
        set(.flowsConfirmed, counters.flowsConfirmed)
        set(.flowsExpiredUnconfirmed, counters.flowsExpiredUnconfirmed)
        set(.flowsExpiredIdle, counters.flowsExpiredIdle)
        set(.flowsGone, counters.flowsGone)
        set(.framesSent, counters.framesSent)
        set(.trainsSent, counters.trainsSent)
        for reason in 0..<drops.count { set(reason, dropped: counters.dropped[reason]) }
    }
}

/// Prometheus text (exposition format 0.0.4): a sum over workers, no client address, no secret.
func prometheusText(_ workers: [PublishedCounters]) -> String {
    var text = ""
    for metric in RelayMetric.allCases {
        text += "# HELP \(metric.name) \(metric.help)\n# TYPE \(metric.name) \(metric.isGauge ? "gauge" : "counter")\n"
        text += "\(metric.name) \(workers.reduce(UInt64(0)) { $0 &+ $1.value(metric) })\n"
    }
    let name = "swiftlet_relay_dropped_total"
    text += "# HELP \(name) Datagrams that went nowhere, by reason.\n# TYPE \(name) counter\n"
    for reason in RelayDropReason.allCases {
        text += "\(name){reason=\"\(reason)\"} \(workers.reduce(UInt64(0)) { $0 &+ $1.dropped(reason) })\n"
    }
    return text
}
