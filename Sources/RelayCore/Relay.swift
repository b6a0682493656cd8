// Relay: decides where a datagram goes. It knows two things: how to read a routing hint from the first STUN Binding request of a
// flow, and which transceiver an already seen source address belongs to. It terminates nothing, and it never answers a client.
//
// A worker's turn, all of it without allocation:
//
//     for each public datagram     relay.receive(bytes, from: source, at: now)         // forwarded, or dropped with a reason
//     for each trunk datagram      var frame = relay.openTrunk(bytes, from: peer, at: now)
//                                  while let record = relay.nextDelivery(of: &frame)   // send its payload to record.client
//     relay.advance(to: now)                                                           // flows that ended
//     while let transmit = relay.nextTransmit(into: &packet)                           // one train per transceiver worker
//     wait until relay.nextDeadline
//
// Files: FlowTable (client → route) · BindingRequest (the little STUN we read) · Transceivers (number → address) · RelayCounters.

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
    /// Public and trunk addresses of this relay: nothing may come from there, or be sent there.
    public var ownAddresses: [SocketAddress]
    public var flowCapacity: Int
    public var flowLimits = FlowLimits()
    public var hintLifetime = HintLifetime()
    public var trunkMTU = TrunkFormat.defaultMTU
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
    case dropped(RelayDropReason)
}

public struct Relay: ~Copyable {
    public private(set) var counters = RelayCounters()
    public private(set) var flows: FlowTable

    private var trains: TrunkTrains
    private var hints: HintCodec
    private var integrity: HMACSHA1
    private var transceivers: TransceiverResolver
    private var ownAddresses: Slab<SocketAddress>
    private var pongs: Slab<Pong>
    private var pongCount = 0
    private let trunkKey: SipKey
    private let cluster: UInt16
    private let relayID: UInt16
    private let worker: UInt8
    /// The wall clock at `start`: it goes on by the monotonic one, so that somebody who sets the date ends no call.
    private let wallStart: WallClock
    private let start: Instant

    /// - Parameters:
    ///   - hashKey: random, fresh for every process.
    ///   - wall: the date at `now`.
    public init(_ configuration: RelayConfiguration, keys: KeyRing, hashKey: SipKey, wall: WallClock, now: Instant) {
        flows = FlowTable(capacity: configuration.flowCapacity, limits: configuration.flowLimits, key: hashKey, now: now)
        trains = TrunkTrains(capacity: configuration.batch, mtu: configuration.trunkMTU, key: keys.trunkKey)
        hints = HintCodec(keys, lifetime: configuration.hintLifetime)
        integrity = HMACSHA1(key: keys.passwordKey.bytes)
        transceivers = TransceiverResolver(configuration.transceivers)
        let own = configuration.ownAddresses
        ownAddresses = Slab(count: own.count) { own[$0] }
        pongs = Slab(count: 16) { _ in Pong() }
        trunkKey = keys.trunkKey
        cluster = configuration.cluster
        relayID = configuration.relayID
        worker = configuration.worker
        wallStart = wall
        start = now
    }

    /// Bytes that one worker's relay sets aside, as a sum of its users.
    public static func byteCount(_ configuration: RelayConfiguration) -> Int {
        FlowTable.byteCount(capacity: configuration.flowCapacity)  // who is where
            + configuration.batch * 65_536  // trains being filled
    }
}

extension Relay {
    /// A datagram came from the public side. It is copied into a train, or dropped; drain with `nextTransmit` at least once every
    /// `batch` datagrams.
    ///
    /// - Parameter socket: which of the worker's public sockets it came to; `publicSocket(for:)` tells it again.
    public mutating func receive(_ datagram: RawSpan, from source: SocketAddress, on socket: UInt8 = 0, at now: Instant) -> RelayDisposition
    {
        counters.publicDatagrams &+= 1
        counters.publicBytes &+= UInt64(datagram.byteCount)
        let reason: RelayDropReason?
        if datagram.byteCount == 0 {
            reason = .empty
        } else if let flow = flows.find(source) {
            flows.setSocket(flow, socket)
            reason = follow(flow, datagram, source, now)
        } else {
            reason = admit(datagram, source, now)
            if reason == nil, socket != 0, let flow = flows.find(source) { flows.setSocket(flow, socket) }
        }
        guard let reason else {
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
    }

    /// Where the next datagram or train goes and how it is cut, for a caller who must know before it is written.
    public func peekTransmit() -> TrunkTransmit? {
        if pongCount == 0 { return trains.peek() }
        return TrunkTransmit(destination: pongs[pongCount - 1].destination, segmentSize: 0, frames: 1, records: 1)
    }

    /// The next datagram or train for the trunk socket: appends it to `packet`, which needs room for 64 KiB.
    public mutating func nextTransmit(into packet: inout OutputRawSpan) -> TrunkTransmit? {
        if pongCount > 0 { return nextPong(into: &packet) }
        guard let transmit = trains.nextTransmit(into: &packet) else { return nil }
        counters.trainsSent &+= 1
        counters.framesSent &+= UInt64(transmit.frames)
        return transmit
    }

    /// The public socket that `client` last sent to; nil for a client without a flow. Needed only where several public sockets
    /// could reach one client: an answer must come from the address that was asked.
    public func publicSocket(for client: SocketAddress) -> UInt8? {
        guard let flow = flows.find(client) else { return nil }
        return flows.socket(flow)
    }

    public var nextDeadline: Deadline { Deadline(flows.nextDeadline, "flow expiry") }

    /// Takes a new directory; flows keep their numbers, which are looked up for every datagram.
    public mutating func replaceTransceivers(_ directory: TransceiverDirectory) { transceivers = TransceiverResolver(directory) }
}

// MARK: - Public side

extension Relay {
    /// A known source. Its STUN checks are still looked at: a new authentic ufrag moves the flow.
    private mutating func follow(_ flow: Int, _ datagram: RawSpan, _ source: SocketAddress, _ now: Instant) -> RelayDropReason? {
        switch datagram.byte(0) {
        case 20...63, 128...191: break  // RFC 7983: DTLS, RTP and RTCP
        case 0...3:
            guard let message = STUNView(datagram) else { return .malformedSTUN }
            if message.isBindingRequest, !flows.ufragMatches(flow, message.serverUfrag) {
                if let reason = move(flow, message, now) { return reason }
            }
        default: return .unknownClass
        }
        flows.touch(flow, at: now)
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
    private mutating func admit(_ datagram: RawSpan, _ source: SocketAddress, _ now: Instant) -> RelayDropReason? {
        guard datagram.byte(0) <= 3 else { return .noFlow }
        guard let message = STUNView(datagram) else { return .malformedSTUN }
        guard message.isBindingRequest else { return .noFlow }
        if let reason = refusal(of: source) { return reason }
        let route: Route
        switch authenticate(message, now) {
        case .success(let hint): route = Route(hint)
        case .failure(let refusal): return refusal.reason
        }
        guard let ufrag = Ufrag(message.serverUfrag) else { return .notAHint }
        switch flows.insert(source, route, ufrag, at: now) {
        case .inserted: counters.flowsMade &+= 1
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
        switch hints.open(message.serverUfrag, at: wallClock(at: now)) {
        case .success(let opened): hint = opened
        case .failure(let error): return .failure(Refusal(error))
        }
        guard hint.cluster == cluster else { return .failure(Refusal(.unknownCluster)) }
        guard transceivers.address(of: hint.transceiver) != nil else { return .failure(Refusal(.unknownTransceiver)) }
        let password = hints.icePassword(for: message.serverUfrag)
        guard message.verifiesIntegrity(key: password.bytes, with: &integrity) else { return .failure(Refusal(.wrongIntegrity)) }
        return .success(hint)
    }

    private mutating func forward(_ datagram: RawSpan, _ source: SocketAddress, _ route: Route) -> RelayDropReason? {
        guard let destination = transceivers.address(of: route.transceiver) else { return .unknownTransceiver }
        let header = TrunkHeader(
            kind: .clientData, worker: route.worker, cluster: route.cluster, transceiver: route.transceiver, ingressRelay: relayID,
            ingressWorker: worker)
        let taken = trains.append(datagram, client: source, session: route.session, header: header, to: destination)
        return taken ? nil : .uplinkFull
    }

    private func refusal(of address: SocketAddress) -> RelayDropReason? {
        if address.port == 0 || address.ip.isAny || address.ip.isMulticast { return .impossibleSource }
        return isOwn(address) ? .ownAddress : nil
    }

    private func isOwn(_ address: SocketAddress) -> Bool {
        for index in 0..<ownAddresses.count where ownAddresses[index] == address { return true }
        return false
    }

    private func wallClock(at now: Instant) -> WallClock {
        let elapsed = now.nanoseconds >= start.nanoseconds ? (now.nanoseconds - start.nanoseconds) / 1_000_000_000 : 0
        return WallClock(secondsSince1970: wallStart.secondsSince1970 &+ elapsed)
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
            frame = try TrunkFrame(parsing: datagram, key: trunkKey)
        } catch {
            counters.count(RelayDropReason(error))
            return nil
        }
        guard frame.header.ingressRelay == relayID else {
            counters.count(.trunkNotForUs)
            return nil
        }
        switch frame.header.kind {
        case .transceiverData: return frame
        case .confirm, .gone: heed(frame, now)
        case .ping: queuePong(frame, to: peer)
        case .pong: break
        case .clientData: counters.count(.trunkNotForUs)
        }
        return nil
    }

    /// The next record to send, as it is, to its client.
    @_lifetime(copy frame)
    public mutating func nextDelivery(of frame: inout TrunkFrame, at now: Instant) -> TrunkRecord? {
        while let record = frame.nextRecord() {
            guard record.payload.byteCount > 0, refusal(of: record.client) == nil else {
                counters.count(.trunkForbiddenClient)
                continue
            }
            // DTLS and media go to validated addresses only, so they say as much as a confirm does.
            if flows.confirmedCount < flows.count, record.payload.byte(0) >= 20 { confirm(record.client, record.session, now) }
            counters.delivered &+= 1
            counters.deliveredBytes &+= UInt64(record.payload.byteCount)
            return record
        }
        return nil
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

    private mutating func confirm(_ client: SocketAddress, _ session: UInt32, _ now: Instant) {
        guard let flow = flows.find(client), !flows.isConfirmed(flow), flows.route(flow).session == session else { return }
        flows.confirm(flow, at: now)
        counters.flowsConfirmed &+= 1
    }
}

extension Relay {
    struct Pong {
        var destination = SocketAddress(.v4Any, port: 0)
        var header = TrunkHeader(kind: .pong, worker: 0, cluster: 0, transceiver: 0, ingressRelay: 0, ingressWorker: 0)
        var probe = TrunkProbe(sentAt: 0, sequence: 0, state: .serving)
    }

    private mutating func queuePong(_ ping: borrowing TrunkFrame, to peer: SocketAddress) {
        // A few a turn are enough to measure by; the rest of a flood of pings goes unanswered.
        guard let probe = ping.probe, pongCount < pongs.count else { return }
        var header = ping.header
        header.kind = .pong
        header.hops = 0
        pongs[pongCount] = Pong(
            destination: peer, header: header, probe: TrunkProbe(sentAt: probe.sentAt, sequence: probe.sequence, state: .serving))
        pongCount += 1
    }

    private mutating func nextPong(into packet: inout OutputRawSpan) -> TrunkTransmit? {
        pongCount -= 1
        let pong = pongs[pongCount]
        var bytes = InlineArray<64, UInt8>(repeating: 0)
        var span = bytes.mutableSpan
        var buffer = unsafe span.mutableBytes
        let length = TrunkWriter.write(pong.probe, pong.header, key: trunkKey, to: &buffer)
        packet.append(contentsOf: buffer.bytes.bytes(0..<length))
        return TrunkTransmit(destination: pong.destination, segmentSize: 0, frames: 1, records: 1)
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
