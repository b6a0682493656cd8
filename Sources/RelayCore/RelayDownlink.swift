// What comes from the trunk: records for clients, what transceivers say of flows, and frames of other relays, which go on as they are.

import Primitives
import Trunk

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
        guard record.payload.byteCount > 0, ForbiddenAddresses.mayBeAClient(record.client), !forbidden.mayBeOurs(record.client),
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
        guard record.payload.byteCount > 0, forbidden.refusal(of: record.client) == nil else {
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
