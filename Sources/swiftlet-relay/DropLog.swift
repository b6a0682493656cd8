import Primitives
import RelayCore
import Telemetry

/// Tells of drops that an operator can do something about: a file that is out of date, a clock, a stranger on the internal network. What the
/// internet sends to every public port is counted and not told.
struct DropLog {
    private var growth = GrowthLog(count: RelayDropReason.allCases.count)

    /// - Parameter total: what the workers have dropped for a reason since their start.
    mutating func advance(to now: Instant, _ total: (RelayDropReason) -> UInt64) {
        for reason in RelayDropReason.allCases {
            guard let words = Self.explanation(reason),
                let count = growth.growth(of: Int(reason.rawValue), total: total(reason), at: now)
            else { continue }
            log("dropped \(count) \(words) (\(snakeCase("\(reason)")))")
        }
    }

    /// Nil for what is not told.
    private static func explanation(_ reason: RelayDropReason) -> String? {
        switch reason {
        case .unknownCluster: "packets for a cluster that --relays has no relay of"
        case .unknownTransceiver: "packets or frames for a transceiver that --transceivers does not have"
        case .expiredHint: "checks whose hint has expired: an old page, a recording, or a clock that is wrong"
        case .hintFromTheFuture: "checks whose hint is from the future: a clock is wrong here or where the call was answered"
        case .unknownIngress: "frames back to an ingress that --relays does not have"
        case .trunkTag: "trunk frames that were not made with our trunk key"
        case .trunkLoop: "trunk frames in a loop: --relays and --transceivers of some relays do not fit together"
        case .trunkNotForUs: "trunk frames for somebody else: some relay's --relays has our address under another cluster"
        case .trunkTruncated, .trunkVersion, .trunkKind, .trunkRecordCount, .trunkRecordOverrun, .trunkUnexpectedPayload:
            "trunk frames that are none"
        default: nil
        }
    }
}
