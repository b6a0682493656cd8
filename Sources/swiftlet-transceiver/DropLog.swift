import EventLoop
import Primitives
import Telemetry
import TransceiverCore
import Trunk

/// Tells of trunk frames that should not come here at all: a stranger on the internal network, or relays with other keys or other files.
struct DropLog {
    private static let forOthers = TrunkError.allCases.count
    private var growth = GrowthLog(count: forOthers + 1)
    private var nextLook = Instant.zero

    mutating func advance(to now: Instant, _ workers: [WorkerLink]) {
        guard now >= nextLook else { return }
        nextLook = now + .seconds(1)
        let counters = workers.map { $0.counters.snapshot() }
        for reason in TrunkError.allCases {
            let index = Int(reason.rawValue)
            let total = counters.reduce(0) { $0 &+ $1.framesRefused[index] }
            guard let count = growth.growth(of: index, total: total, at: now) else { continue }
            let words = reason == .wrongTag ? "that were not made with our trunk key" : "that are none"
            complain("swiftlet-transceiver: dropped \(count) trunk frames \(words) (\(snakeCase("\(reason)")))")
        }
        let total = counters.reduce(0) { $0 &+ $1.framesForOthers }
        if let count = growth.growth(of: Self.forOthers, total: total, at: now) {
            complain("swiftlet-transceiver: dropped \(count) trunk frames for another cluster, transceiver or worker (for_others)")
        }
    }
}
