import TransceiverCore

/// Which WebSocket speaks with which session.
struct SocketBoard {
    private var targets: [UInt64: SocketTarget] = [:]
    private var tags: [SessionKey: [UInt64]] = [:]

    private struct SessionKey: Hashable {
        var worker: Int
        var session: UInt32
    }

    subscript(tag: UInt64) -> SocketTarget? { targets[tag] }

    func tags(worker: Int, session: UInt32) -> [UInt64] { tags[SessionKey(worker: worker, session: session)] ?? [] }

    mutating func insert(_ tag: UInt64, _ target: SocketTarget) {
        targets[tag] = target
        tags[SessionKey(worker: target.worker, session: target.session), default: []].append(tag)
    }

    /// Returns whom it spoke with, if it was the last one to.
    mutating func remove(_ tag: UInt64) -> SocketTarget? {
        guard let target = targets.removeValue(forKey: tag) else { return nil }
        let key = SessionKey(worker: target.worker, session: target.session)
        tags[key]?.removeAll { $0 == tag }
        guard tags[key]?.isEmpty == true else { return nil }
        tags[key] = nil
        return target
    }
}
