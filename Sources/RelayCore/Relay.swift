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
// Files: FlowTable (client → route) · FlowRecall and ParkingLot (what a cache outside remembers) · BindingRequest (the little STUN we read) · Transceivers (number → address) · TransceiverWatch (do they live) · RelayCounters.

import Crypto
import Primitives
import RoutingHint
import Trunk

/// Everything that makes one worker's relay.
public struct RelayConfiguration: Sendable {
    /// Ours; hints of another cluster are dropped.
    public var cluster: UInt16
    /// Unique among all relays: transceivers address answers by it.
    public var relayID: UInt16
    /// This worker's number, which its trunk socket is steered by.
    public var worker: UInt8
    public var transceivers: TransceiverDirectory
    /// Those of other clusters, and of this one as ingress for others.
    public var relays = RelayDirectory()
    public var peerLimits = PeerLimits()
    /// nil: nobody asks transceivers whether they live.
    public var watchLimits: WatchLimits? = WatchLimits()
    /// Public and trunk addresses of this relay: nothing may come from there, or be sent there.
    public var ownAddresses: [SocketAddress]
    public var flowCapacity: Int
    public var flowLimits = FlowLimits()
    public var hintLifetime = HintLifetime()
    public var trunkMTU = TrunkFormat.defaultMTU
    /// Set where a cache outside is asked about unknown sources; nil for none.
    public var parking: ParkingLimits?
    /// Datagrams that `receive` gets between two drains: as many trains are set aside, 64 KiB each.
    public var batch: Int

    public init(
        cluster: UInt16, relayID: UInt16, worker: UInt8, transceivers: TransceiverDirectory, ownAddresses: [SocketAddress],
        flowCapacity: Int = 262_144, batch: Int = 64
    ) {
        self.cluster = cluster
        self.relayID = relayID
        self.worker = worker
        self.transceivers = transceivers
        self.ownAddresses = ownAddresses
        self.flowCapacity = flowCapacity
        self.batch = batch
    }
}

/// What became of a public datagram.
@frozen public enum RelayDisposition: Hashable, Sendable {
    /// It waits in a train.
    case forwarded
    /// It waits for a cache's answer.
    case parked
    case dropped(RelayDropReason)
}

public struct Relay: ~Copyable {
    public internal(set) var counters = RelayCounters()
    public internal(set) var flows: FlowTable
    /// Of packets that wait for a cache's answer; nil without one.
    var parking: ParkingLot?
    /// False while the cache does not answer: then nothing waits for it.
    public var asksCache = true

    private var trains: TrunkTrains
    var hints: HintCodec
    private var integrity: HMACSHA1
    var transceivers: TransceiverResolver
    private var peers: RelayPeers
    var watch: TransceiverWatch
    /// Where the search for flows of a lost transceiver goes on; nil when there is none.
    var sweepPlace: Int?
    private var forwarding: TrunkForwarding
    private var ownAddresses: Slab<SocketAddress>
    /// A bit for each of their ports, by its lowest six bits: most clients are told from us by it alone.
    private let ownPorts: UInt64
    /// What clients over TCP have sent came to this, as `receive` is told.
    public static let streamSocket = UInt8.max
    private var pongs: ByteSlab
    private var pongDestinations: Slab<SocketAddress>
    private var pongCount = 0
    /// The second word of our frames' headers, without the record count.
    private let secondOfLane: UInt64
    private var trunkKeys: TrunkKeys
    let cluster: UInt16
    private let relayID: UInt16
    private let worker: UInt8
    /// The wall clock at `start`: it goes on by the monotonic one, so that somebody who sets the date ends no call.
    private let wallStart: WallClock
    private let start: Instant
    /// The wall clock as it was read last: after somebody has set the date, new hints are of this time.
    private var wallNoted: WallClock
    private var noted: Instant

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
        hints = HintCodec(keys, lifetime: configuration.hintLifetime)
        integrity = HMACSHA1(key: keys.passwordKey.bytes)
        transceivers = TransceiverResolver(configuration.transceivers)
        peers = RelayPeers(configuration.relays, own: configuration.relayID, limits: configuration.peerLimits, at: now)
        watch = TransceiverWatch(limits: configuration.watchLimits, at: now)
        forwarding = TrunkForwarding(capacity: Self.forwardingMax)
        let own = configuration.ownAddresses
        ownAddresses = Slab(count: own.count) { own[$0] }
        ownPorts = own.reduce(0) { $0 | 1 << UInt64($1.port & 63) }
        pongs = ByteSlab(count: 64, slotSize: 64)
        pongDestinations = Slab(count: 64) { _ in SocketAddress(.v4Any, port: 0) }
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
        wallStart = wall
        start = now
        wallNoted = wall
        noted = now
    }

    /// Bytes that one worker's relay sets aside, as a sum of its users.
    public static func byteCount(_ configuration: RelayConfiguration) -> Int {
        FlowTable.byteCount(capacity: configuration.flowCapacity)  // who is where
            + configuration.batch * 65_536  // trains being filled
            + forwardingMax * 65_536  // trains that pass through
            + TransceiverWatch.byteCount  // who is asked whether he lives
            + (configuration.parking.map(ParkingLot.byteCount) ?? 0)  // packets of unknown sources
    }

    /// Trains of frames that only pass through, between two drains.
    private static let forwardingMax = 64
}

extension Relay {
    /// A datagram came from the public side. It is copied into a train, or dropped; drain with `nextTransmit` at least once every
    /// `batch` datagrams.
    ///
    /// - Parameter socket: which of the worker's public sockets it came to; `publicSocket(for:)` tells it again.
    public mutating func receive(_ datagram: RawSpan, from source: SocketAddress, on socket: UInt8 = 0, at now: Instant) -> RelayDisposition
    {
        counters.publicDatagrams &+= 1
        counters.publicBytes &+= UInt64(truncatingIfNeeded: datagram.byteCount)
        // Nearly always: media (RFC 7983) of a known source. Nothing but its flow's route is asked for.
        guard _fastPath(datagram.byteCount > 0), _fastPath(datagram.byte(0) >> 6 == 2), let flow = flows.follow(source, on: socket, at: now) else {
            return receiveOther(datagram, from: source, on: socket, at: now)
        }
        let way = flows.way(end: flow)
        guard _fastPath(trains.append(datagram, client: source, session: way.session, toFrameOf: way.lane)) else {
            return forward(datagram, source, flow)
        }
        counters.forwarded &+= 1
        return .forwarded
    }

    @inline(never)
    private mutating func receiveOther(_ datagram: RawSpan, from source: SocketAddress, on socket: UInt8, at now: Instant)
        -> RelayDisposition
    {
        let reason: RelayDropReason?
        if datagram.byteCount == 0 {
            reason = .empty
        } else if let flow = flows.find(source) {
            reason = follow(flow, datagram, source, socket, now)
        } else if park(datagram, source, socket, now) {
            return .parked
        } else {
            reason = admit(datagram, source, socket, now)
        }
        guard let reason else {
            counters.forwarded &+= 1
            return .forwarded
        }
        counters.count(reason)
        return .dropped(reason)
    }

    /// A record that begins a frame or a train, or ends a block.
    @inline(never)
    private mutating func forward(_ datagram: RawSpan, _ source: SocketAddress, _ flow: UInt64) -> RelayDisposition {
        let way = flows.way(end: flow)
        let lane = TrunkLane(first: way.lane, second: secondOfLane)
        guard let reason = append(datagram, source, lane, UInt32(truncatingIfNeeded: way.lane), way.session) else {
            counters.forwarded &+= 1
            return .forwarded
        }
        counters.count(reason)
        return .dropped(reason)
    }

    /// Ends flows that are due; a bounded number, so that a turn stays short.
    public mutating func advance(to now: Instant) {
        let ended = flows.expire(at: now)
        counters.flowsExpiredUnconfirmed &+= UInt64(ended.unconfirmed)
        counters.flowsExpiredIdle &+= UInt64(ended.idle)
        askPeers(now)
        askTransceivers(now)
        if sweepPlace != nil { sweep() }
        expireParked(at: now)
    }

    /// Where the next datagram or train goes and how it is cut, for a caller who must know before it is written.
    public func peekTransmit() -> TrunkTransmit? {
        if pongCount == 0 { return forwarding.peek() ?? trains.peek() }
        return TrunkTransmit(destination: pongDestinations[pongCount &- 1], segmentSize: 0, frames: 1, records: 1)
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
        if pongCount > 0 { return nextPong() }
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
        wallNoted = wall
        noted = now
    }

    /// Takes a new directory; flows keep their numbers, which are looked up for every train.
    public mutating func replaceTransceivers(_ directory: TransceiverDirectory) {
        transceivers = TransceiverResolver(directory)
        trains.seal()
    }

    /// Takes another ring of the same deployment (`KeyRing.problem(following:)`): the password key must be that of before. What waits to
    /// depart departs; another MTU is only taken when nothing does.
    public mutating func replaceKeys(_ ring: KeyRing, trunkMTU: Int) {
        hints = HintCodec(ring, lifetime: hints.lifetime)
        trunkKeys = TrunkKeys(ring.trunkKey, accepted: ring.acceptedTrunkKey)
        trains.replaceKey(ring.trunkKey)
        guard trunkMTU != trains.mtu, trains.isEmpty else { return }
        trains = TrunkTrains(capacity: trains.capacity, mtu: trunkMTU, key: ring.trunkKey)
    }
}

// MARK: - Public side

extension Relay {
    /// A known source. Its STUN checks are still looked at: a new authentic ufrag moves the flow.
    private mutating func follow(
        _ flow: Int, _ datagram: RawSpan, _ source: SocketAddress, _ socket: UInt8, _ now: Instant
    ) -> RelayDropReason? {
        switch datagram.byte(0) {
        case 20...63, 128...191: break
        case 0...3:
            guard let message = STUNView(datagram) else { return .malformedSTUN }
            if message.isBindingRequest, !flows.ufragMatches(flow, message.serverUfrag) {
                if let reason = move(flow, message, now) { return reason }
            }
        default: return .unknownClass
        }
        flows.touch(flow, at: now)
        flows.setSocket(flow, socket)
        return forward(datagram, source, flows.route(flow))
    }

    private mutating func move(_ flow: Int, _ message: borrowing STUNView, _ now: Instant) -> RelayDropReason? {
        let route: Route
        switch authenticate(message, now) {
        case .success(let hint): route = Route(hint)
        case .failure(let refusal): return refusal.reason
        }
        guard let ufrag = Ufrag(message.serverUfrag) else { return .notAHint }
        guard flows.move(flow, to: route, ufrag, at: now) else { return .unconfirmedFlowsOfHint }
        counters.flowsMoved &+= 1
        return nil
    }

    /// An unknown source: only an authentic check makes a flow.
    @inline(never)
    private mutating func admit(_ datagram: RawSpan, _ source: SocketAddress, _ socket: UInt8, _ now: Instant) -> RelayDropReason? {
        guard datagram.byte(0) <= 3 else { return .noFlow }
        guard let message = STUNView(datagram) else { return .malformedSTUN }
        guard message.isBindingRequest else { return .noFlow }
        // An address over TCP is nobody's over UDP.
        guard source.isOverTCP == (socket == Self.streamSocket) else { return .impossibleSource }
        if let reason = refusal(of: source) { return reason }
        let route: Route
        switch authenticate(message, now) {
        case .success(let hint): route = Route(hint)
        case .failure(let refusal): return refusal.reason
        }
        guard let ufrag = Ufrag(message.serverUfrag) else { return .notAHint }
        switch flows.insert(source, route, ufrag, at: now) {
        case .inserted(let flow):
            counters.flowsMade &+= 1
            flows.setSocket(flow, socket)
        case .tableFull: return .flowTableFull
        case .hintExhausted: return .unconfirmedFlowsOfHint
        }
        return forward(datagram, source, route)
    }

    /// The cheap tests first, the two HMACs of MESSAGE-INTEGRITY last: a forger is sent away before he costs anything.
    private mutating func authenticate(_ message: borrowing STUNView, _ now: Instant) -> Result<RoutingHint, Refusal> {
        guard message.hasUsername else { return .failure(Refusal(.noUsername)) }
        guard message.hasIntegrity else { return .failure(Refusal(.noIntegrity)) }
        let hint: RoutingHint
        switch open(message.serverUfrag, now) {
        case .success(let opened): hint = opened
        case .failure(let error): return .failure(Refusal(error))
        }
        if hint.cluster != cluster {
            guard peers.knows(cluster: hint.cluster) else { return .failure(Refusal(.unknownCluster)) }
        } else if transceivers.address(of: hint.transceiver) == nil {
            return .failure(Refusal(.unknownTransceiver))
        }
        let password = hints.icePassword(for: message.serverUfrag)
        guard message.verifiesIntegrity(key: password.bytes, with: &integrity) else { return .failure(Refusal(.wrongIntegrity)) }
        return .success(hint)
    }

    mutating func forward(_ datagram: RawSpan, _ source: SocketAddress, _ route: Route) -> RelayDropReason? {
        let header = TrunkHeader(
            kind: .clientData, worker: route.worker, cluster: route.cluster, transceiver: route.transceiver, ingressRelay: relayID,
            ingressWorker: worker)
        return append(datagram, source, TrunkLane(header), route.transceiver, route.session)
    }

    @inline(__always)
    private mutating func append(
        _ datagram: RawSpan, _ source: SocketAddress, _ lane: TrunkLane, _ transceiver: UInt32, _ session: UInt32
    ) -> RelayDropReason? {
        if trains.append(datagram, client: source, session: session, toTrainOf: lane) { return nil }
        // A lane's first datagram since trains left, or since the directory changed.
        guard let destination = destination(of: lane, transceiver) else { return .unknownTransceiver }
        return trains.append(datagram, client: source, session: session, lane: lane, to: destination) ? nil : .uplinkFull
    }

    /// A transceiver of ours, or a relay of its cluster.
    @inline(never)
    private mutating func destination(of lane: TrunkLane, _ transceiver: UInt32) -> SocketAddress? {
        let cluster = UInt16(truncatingIfNeeded: lane.first >> 32)
        guard cluster == self.cluster else { return peers.address(towards: cluster, transceiver) }
        guard let address = transceivers.address(of: transceiver) else { return nil }
        watch.use(transceiver, UInt8(truncatingIfNeeded: lane.first >> 48), at: address)
        return address
    }

    func refusal(of address: SocketAddress) -> RelayDropReason? {
        guard Self.mayBeAClient(address) else { return .impossibleSource }
        return isOwn(address) ? .ownAddress : nil
    }

    /// Somebody, and not many.
    @inline(__always)
    private static func mayBeAClient(_ address: SocketAddress) -> Bool {
        let ip = address.ip
        if ip.isV4 { return address.port != 0 && ip.v4Bits != 0 && ip.v4Bits >> 28 != 0xE }
        return address.port != 0 && ip.high | ip.low != 0 && ip.high >> 56 != 0xFF
    }

    @inline(never)
    private func isOwn(_ address: SocketAddress) -> Bool {
        for index in 0..<ownAddresses.count where ownAddresses[index] == address { return true }
        return false
    }

    /// Of the time since the start or, when somebody has set the date, of the new one.
    private mutating func open(_ ufrag: RawSpan, _ now: Instant) -> Result<RoutingHint, HintError> {
        let first = Self.advanced(wallStart, since: start, to: now)
        let second = Self.advanced(wallNoted, since: noted, to: now)
        let result = hints.open(ufrag, at: first)
        // Nearly always they are the same but for a rounded second, and an old hint that somebody repeats costs no second MAC.
        let (low, high) = (min(first, second), max(first, second))
        guard high.secondsSince1970 - low.secondsSince1970 > 1 else { return result }
        switch result {
        case .failure(.expired), .failure(.mintedInFuture): return hints.open(ufrag, at: second)
        default: return result
        }
    }

    func wallClock(at now: Instant) -> WallClock { Self.advanced(wallNoted, since: noted, to: now) }

    private static func advanced(_ wall: WallClock, since start: Instant, to now: Instant) -> WallClock {
        let elapsed = now.nanoseconds >= start.nanoseconds ? (now.nanoseconds - start.nanoseconds) / 1_000_000_000 : 0
        return WallClock(secondsSince1970: wall.secondsSince1970 &+ elapsed)
    }
}

/// A drop reason as an error, for `Result`.
struct Refusal: Error {
    let reason: RelayDropReason
    init(_ reason: RelayDropReason) { self.reason = reason }
    init(_ error: HintError) {
        reason =
            switch error {
            case .notAHint: .notAHint
            case .unknownKey: .unknownHintKey
            case .wrongTag: .wrongHintTag
            case .unknownVersion: .unknownHintVersion
            case .expired: .expiredHint
            case .mintedInFuture: .hintFromTheFuture
            }
    }
}

// MARK: - Trunk side

extension Relay {
    /// A datagram came from the trunk. The frame, if it has something for clients; flow feedback and pings are dealt with here.
    @_lifetime(copy datagram)
    public mutating func openTrunk(_ datagram: RawSpan, from peer: SocketAddress, at now: Instant) -> TrunkFrame? {
        counters.trunkFrames &+= 1
        let frame: TrunkFrame
        do {
            frame = try TrunkFrame(parsing: datagram, key: trunkKeys.own)
        } catch {
            return openAccepted(datagram, from: peer, after: error, at: now)
        }
        return take(frame, datagram, from: peer, at: now)
    }

    /// The frame, if it has something for clients.
    @_lifetime(copy frame)
    @inline(__always)
    private mutating func take(_ frame: TrunkFrame, _ datagram: RawSpan, from peer: SocketAddress, at now: Instant) -> TrunkFrame? {
        let isOurs = frame.header.ingressRelay == relayID
        switch frame.header.kind {
        case .transceiverData where isOurs: return frame
        case .confirm where isOurs, .gone where isOurs: heed(frame, now)
        case .ping: queuePong(frame, to: peer)
        case .pong where isOurs: heedPong(frame, from: peer, now)
        // What we sent ourselves, on its way to another cluster, has come back.
        case .clientData where isOurs: counters.count(.trunkLoop)
        case .clientData, .transceiverData, .confirm, .gone: passOn(frame, datagram)
        case .pong: counters.count(.trunkNotForUs)
        }
        return nil
    }

    /// A frame that was refused under the key that we send under.
    @_lifetime(copy datagram)
    @inline(never)
    private mutating func openAccepted(_ datagram: RawSpan, from peer: SocketAddress, after error: TrunkError, at now: Instant)
        -> TrunkFrame?
    {
        let frame: TrunkFrame
        do {
            frame = try trunkKeys.readAccepted(datagram, after: error)
        } catch {
            counters.count(RelayDropReason(error))
            return nil
        }
        counters.trunkFramesAcceptedKey &+= 1
        return take(frame, datagram, from: peer, at: now)
    }

    /// A frame of another ingress relay: to the transceiver, or back. Its header says all, and nothing is remembered.
    @inline(never)
    private mutating func passOn(_ frame: borrowing TrunkFrame, _ datagram: RawSpan) {
        let header = frame.header
        guard header.cluster == cluster else { return counters.count(.trunkNotForUs) }
        let isUp = header.kind == .clientData
        guard let destination = isUp ? transceivers.address(of: header.transceiver) : peers.address(ofRelay: header.ingressRelay) else {
            return counters.count(isUp ? .unknownTransceiver : .unknownIngress)
        }
        guard forwarding.append(datagram, header: header, records: frame.recordCount, to: destination) else {
            return counters.count(.uplinkFull)
        }
        counters.framesPassedOn &+= 1
    }

    /// The next record to send, as it is, to its client.
    @_lifetime(copy frame)
    public mutating func nextDelivery(of frame: inout TrunkFrame, at now: Instant) -> TrunkRecord? {
        guard let record = frame.nextRecord() else { return nil }
        // Nearly all need no second look.
        guard record.payload.byteCount > 0, Self.mayBeAClient(record.client), ownPorts >> UInt64(record.client.port & 63) & 1 == 0,
            !flows.mayBeUnconfirmed(record.session)
        else {
            frame.takeBack(record)
            return lookAtDelivery(of: &frame, at: now)
        }
        counters.delivered &+= 1
        counters.deliveredBytes &+= UInt64(truncatingIfNeeded: record.payload.byteCount)
        return record
    }

    /// The same with every question asked; what DTLS and media say of flows is heard.
    @_lifetime(copy frame)
    @inline(never)
    private mutating func lookAtDelivery(of frame: inout TrunkFrame, at now: Instant) -> TrunkRecord? {
        guard let record = frame.nextRecord() else { return nil }
        guard record.payload.byteCount > 0, refusal(of: record.client) == nil else {
            counters.count(.trunkForbiddenClient)
            // At most as deep as a frame has records.
            return nextDelivery(of: &frame, at: now)
        }
        // DTLS and media go to validated addresses only, so they say as much as a confirm does.
        if flows.mayBeUnconfirmed(record.session), record.payload.byte(0) >= 20 { confirm(record.client, record.session, now) }
        counters.delivered &+= 1
        counters.deliveredBytes &+= UInt64(truncatingIfNeeded: record.payload.byteCount)
        return record
    }

    private mutating func heed(_ feedback: consuming TrunkFrame, _ now: Instant) {
        var frame = feedback
        while let record = frame.nextRecord() {
            if frame.header.kind == .confirm {
                confirm(record.client, record.session, now)
            } else if let flow = flows.find(record.client), flows.route(flow).session == record.session {
                flows.remove(flow)
                counters.flowsGone &+= 1
            }
        }
    }

    @inline(never)
    private mutating func confirm(_ client: SocketAddress, _ session: UInt32, _ now: Instant) {
        guard let flow = flows.find(client), !flows.isConfirmed(flow), flows.route(flow).session == session else { return }
        flows.confirm(flow, at: now)
        counters.flowsConfirmed &+= 1
    }
}

extension Relay {
    private mutating func queuePong(_ ping: borrowing TrunkFrame, to peer: SocketAddress) {
        // A few a turn are enough to measure by; the rest of a flood of pings goes unanswered.
        guard let probe = ping.probe, pongCount < pongs.count else { return }
        var header = ping.header
        header.kind = .pong
        header.hops = 0
        // A relay that asks waits at a worker of its own; a transceiver has said where it waits.
        if header.ingressRelay != relayID { header.worker = header.ingressWorker }
        Self.write(
            TrunkProbe(sentAt: probe.sentAt, sequence: probe.sequence, state: .serving), header, trunkKeys.own, to: &pongs, pongCount)
        pongDestinations[pongCount] = peer
        pongCount &+= 1
    }

    /// Pings for as many of the relays as are due and have room.
    private mutating func askPeers(_ now: Instant) {
        guard peers.nextDeadline <= now else { return }
        peers.advance(to: now)
        var died = false
        while pongCount < pongs.count, let (probe, address) = peers.nextPing(died: &died) {
            let header = TrunkHeader(
                kind: .ping, worker: worker, cluster: cluster, transceiver: 0, ingressRelay: relayID, ingressWorker: worker)
            Self.write(probe, header, trunkKeys.own, to: &pongs, pongCount)
            pongDestinations[pongCount] = address
            pongCount &+= 1
        }
        if died { trains.seal() }
    }

    /// Pings for as many of the transceivers as are due and have room.
    private mutating func askTransceivers(_ now: Instant) {
        watch.advance(to: now)
        guard watch.nextDeadline <= now else { return }
        var died = false
        while pongCount < pongs.count, let (probe, id, worker, address) = watch.nextPing(died: &died) {
            let header = TrunkHeader(
                kind: .ping, worker: worker, cluster: cluster, transceiver: id, ingressRelay: relayID, ingressWorker: self.worker)
            Self.write(probe, header, trunkKeys.own, to: &pongs, pongCount)
            pongDestinations[pongCount] = address
            pongCount &+= 1
            if died { beginSweep() }
            died = false
        }
    }

    private mutating func heedPong(_ pong: borrowing TrunkFrame, from address: SocketAddress, _ now: Instant) {
        guard let probe = pong.probe else { return }
        // Lanes look again for where they go.
        if peers.receive(probe, from: address, at: now) { trains.seal() }
        if pong.header.cluster == cluster { watch.receive(probe, of: pong.header.transceiver, from: address, at: now) }
    }

    private static func write(
        _ probe: TrunkProbe, _ header: TrunkHeader, _ key: borrowing TrunkKey, to pongs: inout ByteSlab, _ number: Int
    ) {
        var buffer = pongs.mutableBytes(number, 0..<64)
        _ = TrunkWriter.write(probe, header, key: key, to: &buffer)
    }

    @_lifetime(&self)
    private mutating func nextPong() -> TrunkDeparture? {
        pongCount &-= 1
        let transmit = TrunkTransmit(destination: pongDestinations[pongCount], segmentSize: 0, frames: 1, records: 1)
        let length = TrunkFormat.frameHeaderSize &+ TrunkFormat.recordHeaderSize
        let start = unsafe UnsafeRawPointer(pongs.address(pongCount))
        let bytes = unsafe RawSpan(_unsafeStart: start, byteCount: length)
        return unsafe _overrideLifetime(TrunkDeparture(transmit, bytes), mutating: &self)
    }
}

extension RelayDropReason {
    init(_ error: TrunkError) {
        self =
            switch error {
            case .truncated: .trunkTruncated
            case .unknownVersion: .trunkVersion
            case .unknownKind: .trunkKind
            case .wrongRecordCount: .trunkRecordCount
            case .recordOverrun: .trunkRecordOverrun
            case .unexpectedPayload: .trunkUnexpectedPayload
            case .wrongTag: .trunkTag
            case .tooManyHops: .trunkLoop
            }
    }
}
