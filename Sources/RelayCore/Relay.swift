// Relay: decides where a datagram goes. It knows two things: how to read a routing hint from the first STUN Binding request of a
// flow, and which transceiver an already seen source address belongs to. It terminates nothing, and it never answers a client.
//
// A worker's turn, all of it without allocation:
//
//     for each public datagram     relay.receive(bytes, from: source, at: now)         // forwarded, or dropped with a reason
//     for each trunk datagram      var frame = relay.openTrunk(bytes, from: peer, at: now)
//                                  while let record = relay.nextDelivery(of: &frame)   // send its payload to record.client
//     relay.advance(to: now)                                                           // flows that ended
//     while let train = relay.nextDeparture()                                          // one per transceiver worker; or a pong
//     wait until relay.nextDeadline
//
// A client over TCP is a source like any other: its frames come to `receive` as datagrams of its `overTCP` address on `streamSocket`,
// and records for such an address go to its connection (StreamClients, StreamFrames).
//
// Files, along a packet's way: RelayUplink (from clients) · HintDoor, OpenedHints and BindingRequest (an unknown source's check) · FlowTable and
// FlowMemory (client → route) · Transceivers and RelayPeers (route → address) · RelayDownlink (from the trunk) · RelayProbes, TransceiverWatch
// and ProbeQueue (who lives) · FlowRecall and ParkingLot (what a cache outside remembers) · RelayCounters.

import Primitives
import RoutingHint
import Trunk

public struct Relay: ~Copyable {
    public internal(set) var counters = RelayCounters()
    public internal(set) var flows: FlowTable
    /// Of packets that wait for a cache's answer; nil without one.
    var parking: ParkingLot?
    /// False while the cache does not answer: then nothing waits for it.
    public var asksCache = true

    var trains: TrunkTrains
    var door: HintDoor
    var transceivers: TransceiverResolver
    var peers: RelayPeers
    var watch: TransceiverWatch
    /// Where the search for flows of a lost transceiver goes on; nil when there is none.
    var sweepPlace: Int?
    var forwarding: TrunkForwarding
    let forbidden: ForbiddenAddresses
    var probes = ProbeQueue()
    /// The second word of our frames' headers, without the record count.
    let secondOfLane: UInt64
    var trunkKeys: TrunkKeys
    let cluster: UInt16
    let relayID: UInt16
    let worker: UInt8

    /// - Parameters:
    ///   - hashKey: random, fresh for every process.
    ///   - wall: the date at `now`.
    public init(_ configuration: RelayConfiguration, keys: KeyRing, hashKey: SipKey, wall: WallClock, now: Instant) {
        let memory = FlowMemory(capacity: configuration.flowCapacity)
        self.init(configuration, adopting: memory, keys: keys, hashKey: hashKey, wall: wall, now: now)
    }

    /// Goes on with the flows that lie in `memory`, whose capacity holds.
    public init(
        _ configuration: RelayConfiguration, adopting memory: consuming FlowMemory, keys: KeyRing, hashKey: SipKey, wall: WallClock,
        now: Instant
    ) {
        flows = FlowTable(memory: memory, limits: configuration.flowLimits, key: hashKey, now: now)
        if let limits = configuration.parking {
            parking = ParkingLot(limits, key: hashKey, now: now)
            flows.rememberConfirmed()
        }
        trains = TrunkTrains(capacity: configuration.batch, mtu: configuration.trunkMTU, key: keys.trunkKey)
        door = HintDoor(keys, lifetime: configuration.hintLifetime, wall: wall, at: now)
        transceivers = TransceiverResolver(configuration.transceivers)
        peers = RelayPeers(configuration.relays, own: configuration.relayID, limits: configuration.peerLimits, at: now)
        watch = TransceiverWatch(limits: configuration.watchLimits, at: now)
        forwarding = TrunkForwarding(capacity: Self.forwardingMax)
        forbidden = ForbiddenAddresses(own: configuration.ownAddresses)
        secondOfLane =
            TrunkLane(
                TrunkHeader(
                    kind: .clientData, worker: 0, cluster: 0, transceiver: 0, ingressRelay: configuration.relayID,
                    ingressWorker: configuration.worker)
            ).second
        trunkKeys = TrunkKeys(keys.trunkKey, accepted: keys.acceptedTrunkKey)
        cluster = configuration.cluster
        relayID = configuration.relayID
        worker = configuration.worker
    }

    /// Bytes that one worker's relay sets aside, as a sum of its users.
    public static func byteCount(_ configuration: RelayConfiguration) -> Int {
        FlowTable.byteCount(capacity: configuration.flowCapacity)  // who is where
            + configuration.batch * 65_536  // trains being filled
            + forwardingMax * 65_536  // trains that pass through
            + TransceiverWatch.byteCount  // who is asked whether he lives
            + HintDoor.byteCount  // hints that need not be opened again
            + (configuration.parking.map(ParkingLot.byteCount) ?? 0)  // packets of unknown sources
    }

    /// Trains of frames that only pass through, between two drains.
    private static let forwardingMax = 64
}

extension Relay {
    /// Ends flows that are due; a bounded number, so that a turn stays short.
    public mutating func advance(to now: Instant) {
        // In nearly every turn nothing is due.
        if flows.isSweepDue(at: now) {
            let ended = flows.expire(at: now)
            counters.flowsExpiredUnconfirmed &+= UInt64(ended.unconfirmed)
            counters.flowsExpiredIdle &+= UInt64(ended.idle)
        }
        if peers.nextDeadline <= now { askPeers(now) }
        watch.advance(to: now)
        if watch.nextDeadline <= now { askTransceivers(now) }
        if sweepPlace != nil { sweep() }
        expireParked(at: now)
    }

    /// Where the next datagram or train goes and how it is cut, for a caller who must know before it is written.
    public func peekTransmit() -> TrunkTransmit? {
        probes.peek() ?? forwarding.peek() ?? trains.peek()
    }

    /// The next datagram or train for the trunk socket: appends it to `packet`, which needs room for 64 KiB.
    public mutating func nextTransmit(into packet: inout OutputRawSpan) -> TrunkTransmit? {
        guard let departure = nextDeparture() else { return nil }
        packet.append(contentsOf: departure.bytes)
        return departure.transmit
    }

    /// The next datagram or train where it lies, for a caller who sends without a copy. The bytes stay as they are until the first
    /// `receive` or `openTrunk` after the last one was taken.
    @_lifetime(&self)
    public mutating func nextDeparture() -> TrunkDeparture? {
        if !probes.isEmpty { return probes.next() }
        if !forwarding.isEmpty { return forwarding.nextDeparture() }
        guard let departure = trains.nextDeparture() else { return nil }
        counters.trainsSent &+= 1
        counters.framesSent &+= UInt64(truncatingIfNeeded: departure.transmit.frames)
        return departure
    }

    /// The public socket that `client` last sent to; nil for a client without a flow. Needed only where several public sockets
    /// could reach one client: an answer must come from the address that was asked.
    public func publicSocket(for client: SocketAddress) -> UInt8? {
        guard let flow = flows.find(client) else { return nil }
        return flows.socket(flow)
    }

    /// Whether `client` has a flow.
    public func hasFlow(_ client: SocketAddress) -> Bool { flows.find(client) != nil }

    /// The connection of `client` has ended, and its flow with it. What its transceiver still sends there goes nowhere; it learns of the
    /// end as it does over UDP, by silence, unless the client comes back.
    public mutating func disconnect(_ client: SocketAddress) {
        guard let flow = flows.find(client) else { return }
        flows.remove(flow)
        counters.flowsDisconnected &+= 1
    }

    public var nextDeadline: Deadline {
        if sweepPlace != nil { return Deadline(.zero, "flows of a lost transceiver") }
        return .soonest(
            .soonest(
                Deadline(flows.nextDeadline, "flow expiry"), Deadline(min(peers.nextDeadline, watch.nextDeadline), "ping")),
            Deadline(parkingDeadline, "parked packets"))
    }

    /// The same without flows that end, for a worker that turns once a second in any case: flows count in seconds, and a sleep without a
    /// timer costs less.
    public var promptDeadline: Deadline {
        .soonest(Deadline(peers.nextDeadline, "relay ping"), Deadline(parkingDeadline, "parked packets"))
    }

    /// Takes new neighbours; those that stay where they were stay as healthy as they were.
    public mutating func replaceRelays(_ directory: RelayDirectory, at now: Instant) {
        peers.replace(directory, own: relayID, at: now)
        trains.seal()
    }

    /// How the other relays are: as many as there are others.
    public var peerCount: Int { peers.count }
    public func peerHealth(_ index: Int) -> PeerHealth { peers.health(index) }

    /// Tells the date again, once a second or so. Hints of this time are honoured beside those of the date at the start.
    public mutating func noteDate(_ wall: WallClock, at now: Instant) {
        door.noteDate(wall, at: now)
    }

    /// Takes a new directory; flows keep their numbers, which are looked up for every train.
    public mutating func replaceTransceivers(_ directory: TransceiverDirectory) {
        transceivers = TransceiverResolver(directory)
        trains.seal()
    }

    /// Takes another ring of the same deployment (`KeyRing.problem(following:)`): the password key must be that of before. What waits to
    /// depart departs; another MTU is only taken when nothing does.
    public mutating func replaceKeys(_ ring: KeyRing, trunkMTU: Int) {
        door.replaceKeys(ring)
        trunkKeys = TrunkKeys(ring.trunkKey, accepted: ring.acceptedTrunkKey)
        trains.replaceKey(ring.trunkKey)
        guard trunkMTU != trains.mtu, trains.isEmpty else { return }
        trains = TrunkTrains(capacity: trains.capacity, mtu: trunkMTU, key: ring.trunkKey)
    }
}
