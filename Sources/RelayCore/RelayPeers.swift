// Other relays, as one worker knows them: where they are, and whether they answer.
//
// A worker asks by itself and shares what it learns with nobody. A relay that frames go to is asked every `usedInterval`, so that its death
// costs a call little more than three of them; the others are asked once a second, so that the choice is a good one from the first packet on.
// A relay that is held up for longer loses its frames to another one for a moment, which costs nothing: any relay of the cluster passes them on.

import Primitives
import Trunk

/// When a relay counts as gone.
public struct PeerLimits: Hashable, Sendable {
    /// Between two pings to a relay that frames go to.
    public var usedInterval = Interval.milliseconds(30)
    /// Between two pings to any other.
    public var idleInterval = Interval.seconds(1)
    /// What an answer may take besides so many intervals: half as long again as it usually does; or this, when none has come yet.
    public var intervalsMax = 3
    public var firstAnswer = Interval.milliseconds(500)
    public init() {}
}

/// One relay's health, for whoever publishes it.
public struct PeerHealth: Sendable, Equatable, BitwiseCopyable {
    public var id: UInt16
    public var cluster: UInt16
    public var isAlive: Bool
    /// Smoothed; nil before the first answer.
    public var roundTrip: Interval?
    public var pings: UInt64
    public var pongs: UInt64

    public init(id: UInt16, cluster: UInt16, isAlive: Bool, roundTrip: Interval?, pings: UInt64, pongs: UInt64) {
        self.id = id
        self.cluster = cluster
        self.isAlive = isAlive
        self.roundTrip = roundTrip
        self.pings = pings
        self.pongs = pongs
    }
}

struct RelayPeers: ~Copyable {
    struct Peer {
        var id: UInt16 = 0
        var cluster: UInt16 = 0
        var address = SocketAddress(.v4Any, port: 0)
        var isAlive = true
        /// When the first ping was sent that nothing has come after.
        var waitingSince: Instant?
        var sequence: UInt32 = 0
        var nextPing = Instant.zero
        var usedUntil = Instant.zero
        var roundTrip = Interval.zero
        var pings: UInt64 = 0
        var pongs: UInt64 = 0
    }

    private var peers: Slab<Peer>
    private let limits: PeerLimits
    /// Not after any peer's next ping.
    private var soonest = Instant.never
    private var now = Instant.zero
    /// A relay counts as used for so long after a frame.
    private static let memory = Interval.seconds(5)

    /// - Parameter own: this relay's id, which is left out.
    init(_ directory: RelayDirectory, own: UInt16, limits: PeerLimits, at now: Instant) {
        let entries = directory.entries.filter { $0.id != own }
        peers = Slab(count: entries.count) { Peer(id: entries[$0].id, cluster: entries[$0].cluster, address: entries[$0].address) }
        self.limits = limits
        self.now = now
        if !entries.isEmpty { soonest = now }
    }

    var count: Int { peers.count }
    /// When `nextPing` has something.
    var nextDeadline: Instant { soonest }

    func health(_ index: Int) -> PeerHealth {
        let peer = peers[index]
        return PeerHealth(
            id: peer.id, cluster: peer.cluster, isAlive: peer.isAlive, roundTrip: peer.pongs > 0 ? peer.roundTrip : nil, pings: peer.pings,
            pongs: peer.pongs)
    }

    /// Takes another directory, and keeps what is known of relays that stay where they were.
    mutating func replace(_ directory: RelayDirectory, own: UInt16, at now: Instant) {
        let old = peers.count
        let entries = directory.entries.filter { $0.id != own }
        var fresh = Slab(count: entries.count) { Peer(id: entries[$0].id, cluster: entries[$0].cluster, address: entries[$0].address) }
        for index in 0..<fresh.count {
            for known in 0..<old where peers[known].id == fresh[index].id && peers[known].address == fresh[index].address {
                let cluster = fresh[index].cluster
                fresh[index] = peers[known]
                fresh[index].cluster = cluster
            }
        }
        peers = fresh
        soonest = peers.count > 0 ? now : .never
    }

    func knows(cluster: UInt16) -> Bool {
        for index in 0..<peers.count where peers[index].cluster == cluster { return true }
        return false
    }

    /// Where frames for `transceiver` of `cluster` go: to the same relay from everywhere, unless that one is gone (rendezvous hashing).
    mutating func address(towards cluster: UInt16, _ transceiver: UInt32) -> SocketAddress? {
        var best: Int?
        var bestRank: (alive: Bool, weight: UInt64) = (false, 0)
        for index in 0..<peers.count where peers[index].cluster == cluster {
            let rank = (alive: peers[index].isAlive, weight: Self.weight(peers[index].id, transceiver))
            // With nobody alive, whoever would be it: the pings may be what is lost.
            if best == nil
                || (rank.alive ? !bestRank.alive || rank.weight > bestRank.weight : !bestRank.alive && rank.weight > bestRank.weight)
            {
                best = index
                bestRank = rank
            }
        }
        guard let best else { return nil }
        if peers[best].usedUntil <= now {
            // Until now it was asked seldom, and may have been waited for since then.
            if peers[best].isAlive { peers[best].waitingSince = nil }
            peers[best].nextPing = min(peers[best].nextPing, now + limits.usedInterval)
            soonest = min(soonest, peers[best].nextPing)
        }
        peers[best].usedUntil = now + Self.memory
        return peers[best].address
    }

    /// The ingress relay that owns a frame's clients.
    func address(ofRelay id: UInt16) -> SocketAddress? {
        var low = 0
        var high = peers.count
        while low < high {
            let middle = (low &+ high) / 2
            if peers[middle].id < id { low = middle &+ 1 } else { high = middle }
        }
        return low < peers.count && peers[low].id == id ? peers[low].address : nil
    }

    /// SplitMix64's finalizer: a fixed function, because all relays must choose alike.
    private static func weight(_ relay: UInt16, _ transceiver: UInt32) -> UInt64 {
        var x = (UInt64(relay) << 32 | UInt64(transceiver)) &+ 0x9E37_79B9_7F4A_7C15
        x = (x ^ x >> 30) &* 0xBF58_476D_1CE4_E5B9
        x = (x ^ x >> 27) &* 0x94D0_49BB_1331_11EB
        return x ^ x >> 31
    }

    mutating func advance(to now: Instant) { self.now = max(self.now, now) }

    /// The next ping that is due; nil when none is. `died` becomes true when its relay counts as gone from now on.
    mutating func nextPing(died: inout Bool) -> (probe: TrunkProbe, to: SocketAddress)? {
        guard soonest <= now else { return nil }
        soonest = .never
        for index in 0..<peers.count {
            if peers[index].nextPing <= now {
                let ping = ask(index, &died)
                // The rest is looked at with the next call.
                soonest = now
                return ping
            }
            soonest = min(soonest, peers[index].nextPing)
        }
        return nil
    }

    private mutating func ask(_ index: Int, _ died: inout Bool) -> (probe: TrunkProbe, to: SocketAddress) {
        let interval = peers[index].usedUntil > now ? limits.usedInterval : limits.idleInterval
        let usual = peers[index].pongs == 0 ? limits.firstAnswer : peers[index].roundTrip * 3 / 2
        let patience = interval * Int64(limits.intervalsMax) + usual
        let since = peers[index].waitingSince ?? now
        peers[index].waitingSince = since
        peers[index].nextPing = now + interval
        if peers[index].isAlive {
            if now - since >= patience {
                peers[index].isAlive = false
                died = true
            } else {
                // Not after patience ends: a call has no sound meanwhile.
                peers[index].nextPing = min(now + interval, since + patience)
            }
        }
        peers[index].sequence &+= 1
        peers[index].pings &+= 1
        let probe = TrunkProbe(sentAt: now.nanoseconds, sequence: peers[index].sequence, state: .serving)
        return (probe, peers[index].address)
    }

    /// An answer of the relay at `address`. True when it had counted as gone.
    mutating func receive(_ pong: TrunkProbe, from address: SocketAddress, at now: Instant) -> Bool {
        self.now = max(self.now, now)
        for index in 0..<peers.count where peers[index].address == address {
            // An answer to what was never asked, or to what was asked before the relay started again.
            guard pong.sequence <= peers[index].sequence, pong.sentAt <= now.nanoseconds else { return false }
            let sample = Interval.nanoseconds(Int64(truncatingIfNeeded: now.nanoseconds &- pong.sentAt))
            let peer = peers[index]
            peers[index].roundTrip = peer.pongs == 0 ? sample : peer.roundTrip + (sample - peer.roundTrip) / 8
            peers[index].pongs &+= 1
            peers[index].waitingSince = nil
            peers[index].isAlive = true
            return !peer.isAlive
        }
        return false
    }
}
