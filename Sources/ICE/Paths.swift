// The ways by which authentic checks came: eight at most, told apart by the client's address and by the ingress: a client whose answer names two
// ingresses checks both from one address, and media belongs where it comes from.

import Primitives

/// One way, and when an authentic check last came by it.
struct ValidatedPath {
    var path: NetworkPath
    var heardAt: Instant
    /// The slot of the credentials with which it was checked last.
    var slot: UInt8
    /// Whether the owner was told.
    var isAnnounced = false
    /// Whether somebody there has answered what only somebody there could have read. A source address alone proves nothing.
    var isProved = false
    /// Bytes that came from there, and bytes that were sent there before the proof.
    var received = 0
    var sent = 0

    static let none = ValidatedPath(
        path: NetworkPath(client: SocketAddress(.v6Any, port: 0), hop: SocketAddress(.v6Any, port: 0), ingressRelay: 0, ingressWorker: 0),
        heardAt: .zero, slot: 0)
}

/// On the heap: whoever only reads the agent would copy entries that lay in it.
struct PathTable: ~Copyable {
    static let capacity = 8
    private var entries = Slab<ValidatedPath>(count: PathTable.capacity) { _ in .none }
    /// Bit `k`: entry `k` is a way.
    private var live: UInt8 = 0
    /// Ways that the owner does not know of yet.
    private(set) var unannounced = 0

    subscript(index: Int) -> ValidatedPath {
        @inline(__always) _read { yield entries[index] }
        @inline(__always) _modify { yield &entries[index] }
    }

    private func isLive(_ index: Int) -> Bool { live >> UInt8(truncatingIfNeeded: index) & 1 == 1 }

    func index(of path: NetworkPath) -> Int? {
        for index in 0..<Self.capacity where isLive(index) && entries[index].path.isSameWay(as: path) { return index }
        return nil
    }

    /// A way from `client`, by whichever ingress.
    func index(ofClient client: SocketAddress) -> Int? {
        for index in 0..<Self.capacity where isLive(index) && entries[index].path.client == client { return index }
        return nil
    }

    /// Whether `byteCount` more may go to entry `index`, which nobody has proved yet; they are counted if so.
    mutating func spend(_ byteCount: Int, on index: Int) -> Bool {
        guard entries[index].sent &+ byteCount <= entries[index].received &* ICETiming.amplificationMax else { return false }
        entries[index].sent &+= byteCount
        return true
    }

    mutating func noteReceived(_ byteCount: Int, on path: NetworkPath) {
        guard let index = index(of: path), !entries[index].isProved else { return }
        // So far that nothing can overflow; who has received as much is proved, or is sent nothing.
        entries[index].received = min(entries[index].received &+ byteCount, 1 << 40)
    }

    /// The way of an authentic check, remembered. When all places are taken the one not heard of for the longest goes, never `kept`.
    mutating func note(_ path: NetworkPath, slot: UInt8, at now: Instant, keeping kept: Int?) -> Int {
        if let index = index(of: path) {
            entries[index].path = path
            entries[index].heardAt = now
            return index
        }
        let index = place(keeping: kept)
        forget(index)
        live |= 1 << UInt8(truncatingIfNeeded: index)
        unannounced += 1
        entries[index] = ValidatedPath(path: path, heardAt: now, slot: slot)
        return index
    }

    private func place(keeping kept: Int?) -> Int {
        var oldest = -1
        for index in 0..<Self.capacity {
            if !isLive(index) { return index }
            if index == kept { continue }
            if oldest < 0 || entries[index].heardAt < entries[oldest].heardAt { oldest = index }
        }
        return oldest
    }

    /// Forgets what was last checked with the credentials of `slot`.
    mutating func removeAll(of slot: UInt8) {
        for index in 0..<Self.capacity where entries[index].slot == slot { forget(index) }
    }

    private mutating func forget(_ index: Int) {
        if isLive(index), !entries[index].isAnnounced { unannounced -= 1 }
        live &= ~(1 << UInt8(truncatingIfNeeded: index))
    }

    /// The next way that the owner does not know of; it does then.
    mutating func nextUnannounced() -> NetworkPath? {
        guard unannounced > 0 else { return nil }
        for index in 0..<Self.capacity where isLive(index) && !entries[index].isAnnounced {
            entries[index].isAnnounced = true
            unannounced -= 1
            return entries[index].path
        }
        return nil
    }
}
