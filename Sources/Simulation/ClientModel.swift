// How browsers time their checks and when they give up, as measured on the wire with Chromium 156 and Firefox 153.

import Primitives

enum ClientState: Sendable { case checking, connected, disconnected, failed }

enum ClientModel: Sendable {
    /// Never gives up.
    case steady
    /// Checks every 2.5 s, and ten times a second once it has heard nothing for so long. It is disconnected, and stops speaking, five seconds
    /// after the first check that is not answered; ten seconds later it has failed and says nothing at all. A check of ours wakes it up again.
    case chromium
    /// Checks about every 5 s and goes on speaking; without answers for 28 s it is dead for good.
    case firefox

    /// Between two checks that are answered.
    func checkInterval(_ random: inout SeededGenerator) -> Interval {
        switch self {
        case .steady: SimulatedClient.checkInterval
        case .chromium: .milliseconds(2500 + Int64(random.next() % 160))
        case .firefox: .milliseconds(4100 + Int64(random.next() % 1800))
        }
    }

    /// Nothing heard for so long: it checks at once, and quickly.
    var uneasyAfter: Interval? { self == .chromium ? .milliseconds(2500) : nil }

    func speaks(in state: ClientState) -> Bool {
        switch self {
        case .steady: true
        case .chromium: state == .connected || state == .checking
        case .firefox: state != .failed
        }
    }

    func checks(in state: ClientState) -> Bool { self == .steady || state != .failed }

    /// When it leaves `state` if nothing answers.
    func nextChange(from state: ClientState, since: Instant, answered: Instant) -> Instant {
        switch (self, state) {
        case (.steady, _), (_, .failed): .never
        case (.chromium, .checking): since + .seconds(15)
        case (.chromium, .connected): answered + .milliseconds(7600)
        case (.chromium, .disconnected): since + .seconds(10)
        case (.firefox, .checking): since + .milliseconds(11_100)
        case (.firefox, .connected): answered + .seconds(8)
        case (.firefox, .disconnected): answered + .seconds(28)
        }
    }
}
