// What a worker knows of those at the other ends of the trunk, on a page that the control thread reads.

import Primitives
import RelayCore
import Telemetry

/// Other relays and transceivers. How many of each there are is in the first word; each has four words: who it is and how, round trip, pings,
/// pongs.
enum PublishedPeers {
    /// More of a kind are asked how they are, and not shown.
    static let shownMax = 64
    static let wordCount = 1 + 2 * 4 * shownMax
    /// Between two publications: nobody looks more often.
    static let interval = Interval.milliseconds(250)

    static func publish(_ relay: borrowing Relay, on page: CounterPage) {
        var words = InlineArray<513, UInt64>(repeating: 0)
        let relays = min(relay.peerCount, shownMax)
        let transceivers = min(relay.watchedCount, shownMax)
        words[0] = UInt64(relays) | UInt64(transceivers) << 32
        for index in 0..<relays {
            let peer = relay.peerHealth(index)
            let name = UInt64(peer.id) | UInt64(peer.cluster) << 16 | (peer.isAlive ? 1 << 32 : 0)
            write(name, peer.roundTrip, peer.pings, peer.pongs, to: &words, index)
        }
        for index in 0..<transceivers {
            let one = relay.transceiverHealth(index)
            write(UInt64(one.id) | UInt64(one.state.rawValue) << 32, one.roundTrip, one.pings, one.pongs, to: &words, relays + index)
        }
        page.publish(words.span)
    }

    private static func write(
        _ name: UInt64, _ roundTrip: Interval?, _ pings: UInt64, _ pongs: UInt64, to words: inout InlineArray<513, UInt64>, _ place: Int
    ) {
        words[1 + 4 * place] = name
        words[2 + 4 * place] = roundTrip.map { UInt64(clamping: $0.nanoseconds) } ?? .max
        words[3 + 4 * place] = pings
        words[4 + 4 * place] = pongs
    }

    static func read(_ page: CounterPage) -> (relays: [PeerHealth], transceivers: [TransceiverHealth]) {
        let words = page.snapshot()
        let relays = min(Int(words[0] & 0xFFFF_FFFF), shownMax)
        let transceivers = min(Int(words[0] >> 32), shownMax)
        func roundTrip(_ place: Int) -> Interval? {
            words[2 + 4 * place] == .max ? nil : .nanoseconds(Int64(clamping: words[2 + 4 * place]))
        }
        return (
            (0..<relays).map { place in
                let name = words[1 + 4 * place]
                return PeerHealth(
                    id: UInt16(truncatingIfNeeded: name), cluster: UInt16(truncatingIfNeeded: name >> 16), isAlive: name >> 32 & 1 == 1,
                    roundTrip: roundTrip(place), pings: words[3 + 4 * place], pongs: words[4 + 4 * place])
            },
            (relays..<relays + transceivers).map { place in
                let name = words[1 + 4 * place]
                return TransceiverHealth(
                    id: UInt32(truncatingIfNeeded: name), state: .init(rawValue: UInt8(truncatingIfNeeded: name >> 32)) ?? .serving,
                    roundTrip: roundTrip(place), pings: words[3 + 4 * place], pongs: words[4 + 4 * place])
            }
        )
    }
}
