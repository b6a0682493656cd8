import ICE
import Primitives

/// One call as signaling knows it.
struct Call: Sendable {
    /// `rtc_…`.
    let id: String
    let worker: Int
    /// The number on the trunk, unique within its worker.
    let session: UInt32
    var isConnected = false
    /// The ICE session that an ETag names: one more at every restart.
    var generation = 1
    var remoteUfrag: String
    var remotePassword: String
    /// The mid that trickled fragments speak of.
    let mid: String?

    var etag: String { "\"\(id.suffix(12))-\(generation)\"" }
}

/// The calls of this process, by id and by session.
struct CallList: Sendable {
    private struct SessionKey: Hashable {
        var worker: Int
        var session: UInt32
    }
    private var calls: [String: Call] = [:]
    private var ids: [SessionKey: String] = [:]
    private(set) var countByWorker: [Int]

    init(workers: Int) { countByWorker = Array(repeating: 0, count: workers) }

    var count: Int { calls.count }
    /// Counted as they come and go: the control thread asks in every turn.
    private(set) var connectedCount = 0
    /// The worker with the fewest calls.
    var idlestWorker: Int { countByWorker.indices.min { countByWorker[$0] < countByWorker[$1] } ?? 0 }

    subscript(id: String) -> Call? { calls[id] }
    func contains(session: UInt32, worker: Int) -> Bool { ids[SessionKey(worker: worker, session: session)] != nil }

    mutating func insert(_ call: Call) {
        calls[call.id] = call
        ids[SessionKey(worker: call.worker, session: call.session)] = call.id
        countByWorker[call.worker] += 1
    }

    mutating func update(_ id: String, _ change: (inout Call) -> Void) {
        guard calls[id] != nil else { return }
        change(&calls[id]!)
    }

    mutating func noteConnected(session: UInt32, worker: Int) {
        guard let id = ids[SessionKey(worker: worker, session: session)] else { return }
        if calls[id]?.isConnected == false { connectedCount += 1 }
        update(id) { $0.isConnected = true }
    }

    mutating func remove(session: UInt32, worker: Int) {
        guard let id = ids.removeValue(forKey: SessionKey(worker: worker, session: session)) else { return }
        if calls.removeValue(forKey: id)?.isConnected == true { connectedCount -= 1 }
        countByWorker[worker] -= 1
    }
}
