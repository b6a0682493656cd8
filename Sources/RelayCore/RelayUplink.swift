// What comes from clients: to the flow's transceiver, or nowhere. Only an authentic check makes or moves a flow.

import Primitives
import RoutingHint
import Trunk

/// What became of a public datagram.
@frozen public enum RelayDisposition: Hashable, Sendable {
    /// It waits in a train.
    case forwarded
    /// It waits for a cache's answer.
    case parked
    case dropped(RelayDropReason)
}

extension Relay {
    /// What clients over TCP have sent came to this, as `receive` is told.
    public static let streamSocket = UInt8.max

    /// A datagram came from the public side. It is copied into a train, or dropped; drain with `nextTransmit` at least once every
    /// `batch` datagrams.
    ///
    /// - Parameter socket: which of the worker's public sockets it came to; `publicSocket(for:)` tells it again.
    public mutating func receive(_ datagram: RawSpan, from source: SocketAddress, on socket: UInt8 = 0, at now: Instant) -> RelayDisposition
    {
        counters.publicDatagrams &+= 1
        counters.publicBytes &+= UInt64(truncatingIfNeeded: datagram.byteCount)
        // Nearly always: media (RFC 7983) of a known source. Nothing but its flow's route is asked for.
        guard _fastPath(datagram.byteCount > 0), _fastPath(datagram.byte(0) >> 6 == 2), let flow = flows.follow(source, on: socket, at: now)
        else {
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
}

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
        let (route, ufrag): (Route, Ufrag)
        switch authenticate(message, now) {
        case .success(let (hint, characters)): (route, ufrag) = (Route(hint), characters)
        case .failure(let refusal): return refusal.reason
        }
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
        if let reason = forbidden.refusal(of: source) { return reason }
        let (route, ufrag): (Route, Ufrag)
        switch authenticate(message, now) {
        case .success(let (hint, characters)): (route, ufrag) = (Route(hint), characters)
        case .failure(let refusal): return refusal.reason
        }
        switch flows.insert(source, route, ufrag, at: now) {
        case .inserted(let flow):
            counters.flowsMade &+= 1
            flows.setSocket(flow, socket)
        case .tableFull: return .flowTableFull
        case .hintExhausted: return .unconfirmedFlowsOfHint
        }
        return forward(datagram, source, route)
    }

    /// The cheap tests first, MESSAGE-INTEGRITY last. One MAC at most, but for the first check of a hint.
    private mutating func authenticate(_ message: borrowing STUNView, _ now: Instant) -> Result<(RoutingHint, Ufrag), Refusal> {
        guard message.hasUsername else { return .failure(Refusal(.noUsername)) }
        guard message.hasIntegrity else { return .failure(Refusal(.noIntegrity)) }
        guard let ufrag = Ufrag(message.serverUfrag) else { return .failure(Refusal(HintError.notAHint)) }
        let place: Int
        switch door.open(ufrag, at: now) {
        case .success(let found): place = found
        case .failure(let error): return .failure(Refusal(error))
        }
        let hint = door.hint(place)
        if hint.cluster != cluster {
            guard peers.knows(cluster: hint.cluster) else { return .failure(Refusal(.unknownCluster)) }
        } else if transceivers.address(of: hint.transceiver) == nil {
            return .failure(Refusal(.unknownTransceiver))
        }
        guard door.verifies(message, place) else { return .failure(Refusal(.wrongIntegrity)) }
        return .success((hint, ufrag))
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
}
