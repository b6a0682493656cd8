public import Primitives
public import Telemetry

extension RegistryBoard.View {
    /// - Parameter prefix: of the names, such as `swiftlet_relay`.
    public func write(to text: inout PrometheusText, prefix: String, at now: Instant) {
        let members = prefix + "_members"
        text.family(members, "Transceivers that are known, by how they are; lost ones are in no reading any more.", .gauge)
        text.sample(members, [("state", "serving")], Double(book.count(in: .serving)))
        text.sample(members, [("state", "draining")], Double(book.count(in: .draining)))
        text.sample(members, [("state", "lost")], Double(book.lostCount))
        text.gauge(prefix + "_registry_open", "Whether the registry of members answers: 0 or 1.", isOpen ? 1 : 0)
        let age = prefix + "_registry_reading_age_seconds"
        if let readAt { text.gauge(age, "Since the registry last told all members.", (now - readAt).seconds) }
        text.counter(prefix + "_registry_readings_total", "Readings of all members.", counters.readings)
        text.counter(prefix + "_registry_readings_failed_total", "Answers that were no reading.", counters.readingsFailed)
        text.counter(prefix + "_registry_writings_total", "Times that this program has written itself.", counters.writings)
        text.counter(prefix + "_registry_forged_total", "Entries that are not ours.", counters.forged)
        text.counter(prefix + "_registry_replayed_total", "Entries older than what is known.", counters.replayed)
        text.counter(
            prefix + "_registry_removed_total", "Entries removed: of members that are gone, and such as are not ours.", counters.removed)
        text.counter(prefix + "_registry_server_errors_total", "Errors that Redis answered with.", counters.serverErrors)
        text.counter(prefix + "_registry_failures_total", "Connections to Redis that failed or fell silent.", counters.failures)
    }
}
