import Telemetry
import Testing

@Suite struct MetricNamesTests {
    @Test(arguments: [
        ("empty", "empty"), ("srtpNotAuthentic", "srtp_not_authentic"), ("malformedSTUN", "malformed_stun"), ("notAHint", "not_a_hint"),
        ("noUsername", "no_username"), ("STUNMessage", "stun_message"),
    ])
    func `a label says a case's name in small letters`(name: String, label: String) { #expect(snakeCase(name) == label) }
}
