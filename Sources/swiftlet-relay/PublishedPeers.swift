// What a worker knows of other relays, on a page that the control thread reads.

import Primitives
import RelayCore
import Telemetry

/// Of each relay four words: id, cluster and health in one, round trip, pings, pongs. The first word of all says how many there are.
enum PublishedPeers {
    /// More are asked how they are, and not shown.
    static let shownMax = 64
    static let wordCount = 1 + 4 * shownMax
    /// Between two publications: nobody looks more often.
    static let interval = Interval.milliseconds(250)

    static func publish(_ relay: borrowing Relay, on page: CounterPage) {
        var words = InlineArray<257, UInt64>(repeating: 0)
        let count = min(relay.peerCount, shownMax)
        words[0] = UInt64(count)
        for index in 0..<count {
            let peer = relay.peerHealth(index)
            words[1 + 4 * index] = UInt64(peer.id) | UInt64(peer.cluster) << 16 | (peer.isAlive ? 1 << 32 : 0)
            words[2 + 4 * index] = peer.roundTrip.map { UInt64(clamping: $0.nanoseconds) } ?? .max
            words[3 + 4 * index] = peer.pings
            words[4 + 4 * index] = peer.pongs
        }
        page.publish(words.span)
    }

    static func read(_ page: CounterPage) -> [PeerHealth] {
        let words = page.snapshot()
        return (0..<min(Int(words[0]), shownMax)).map { index in
            let (name, roundTrip) = (words[1 + 4 * index], words[2 + 4 * index])
            return PeerHealth(
                id: UInt16(truncatingIfNeeded: name), cluster: UInt16(truncatingIfNeeded: name >> 16), isAlive: name >> 32 & 1 == 1,
                roundTrip: roundTrip == .max ? nil : .nanoseconds(Int64(clamping: roundTrip)), pings: words[3 + 4 * index],
                pongs: words[4 + 4 * index])
        }
    }
}
