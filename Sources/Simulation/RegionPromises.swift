// What must hold in every run with regions: at each datagram that reaches a transceiver or a client, and for frames between relays.

import Crypto
import Primitives
import RelayCore
import RoutingHint
import STUN
import Trunk

// MARK: - Transceivers

extension RegionSimulation {
    /// A datagram reached a transceiver: whatever is in it must be that one's.
    mutating func receive(_ bytes: [UInt8], from hop: SocketAddress, at owner: Int) {
        guard owners[owner].isUp else { return }
        var frame: TrunkFrame
        do { frame = try TrunkFrame(parsing: bytes.span.bytes, key: trunkKey) } catch { return }
        let header = frame.header
        guard header.kind == .clientData else { return }
        guard header.cluster == UInt16(1 + owners[owner].cluster), header.transceiver == owners[owner].id else {
            return violate("a frame for transceiver \(header.cluster)/\(header.transceiver) reached \(describe(owner))")
        }
        while let record = frame.nextRecord() {
            let number = record.session
            guard Int(number) < calls.count, calls[Int(number)].owner == owner else {
                return violate("a packet of session \(number) reached \(describe(owner)), which never had it")
            }
            inspect(record.payload, of: record.client, as: number)
            guard owners[owner].sessions[number] != nil else {
                answer(.gone, header, hop, client: record.client, session: number, payload: [], by: owner)
                continue
            }
            serve(record.payload, header, hop, record.client, number, owner)
        }
    }

    private func describe(_ owner: Int) -> String { "transceiver \(1 + owners[owner].cluster)/\(owners[owner].id)" }

    /// What a client has said must come as a packet of its own call.
    private mutating func inspect(_ payload: RawSpan, of client: SocketAddress, as session: UInt32) {
        guard case .client(let address) = RegionPlace(client) else { return }
        guard address < callOfAddress.count else { return violate("a packet came from \(client), whom nobody is") }
        let number = callOfAddress[address]
        guard calls[Int(number)].client == calls[Int(session)].client else {
            return violate("a packet of client \(calls[Int(number)].client) came as one of session \(session)")
        }
        guard let word = RegionWord.read(payload) else { return }
        // A call that took the place of one that was lost may still be known by its old session, until its first check.
        if calls[Int(word.call)].client != calls[Int(session)].client {
            violate("a word of call \(word.call) came as one of session \(session)")
        }
    }

    private mutating func serve(
        _ payload: RawSpan, _ header: TrunkHeader, _ hop: SocketAddress, _ client: SocketAddress, _ number: UInt32, _ owner: Int
    ) {
        if let word = RegionWord.read(payload) {
            guard !word.isEcho, word.call == number else { return }
            guard var session = owners[owner].sessions[number], word.counter > session.counter else { return }
            session.path = RegionOwner.Path(client: client, hop: hop, header: header)
            session.counter = word.counter
            owners[owner].sessions[number] = session
            let echo = RegionWord.write(word.counter, of: number, isEcho: true)
            answer(.transceiverData, header, hop, client: client, session: number, payload: echo, by: owner)
            return
        }
        guard let message = try? STUNMessage(parsing: payload), message.isBindingRequest, let ufrag = message.receiverUfrag else { return }
        guard case .success(let hint) = minting.open(ufrag, at: wallNow(owners[owner].cluster)) else { return }
        let password = minting.icePassword(for: ufrag)
        guard message.verifiesIntegrity(key: password.span.bytes) else { return }
        guard hint.transceiver == owners[owner].id, hint.session == number else {
            return violate("a check for session \(hint.session) of transceiver \(hint.transceiver) came as one of session \(number)")
        }
        report.checksAnswered += 1
        let id = message.transactionID
        let length = buffer.write(0, 0..<256) { output in
            var writer = STUNWriter(.success, id, to: &output)
            writer.append(xorMappedAddress: client, to: &output)
            _ = writer.finish(key: password.span.bytes, to: &output)
        }
        let reply = buffer.bytes(0, 0..<length).array
        answer(.transceiverData, header, hop, client: client, session: number, payload: reply, by: owner)
        guard owners[owner].sessions[number]?.path == nil else { return }
        owners[owner].sessions[number]?.path = RegionOwner.Path(client: client, hop: hop, header: header)
        answer(.confirm, header, hop, client: client, session: number, payload: [], by: owner)
    }

    /// One record back, the way that the other came.
    mutating func answer(
        _ kind: TrunkKind, _ asked: TrunkHeader, _ hop: SocketAddress, client: SocketAddress, session: UInt32, payload: [UInt8],
        by owner: Int
    ) {
        var header = asked
        header.kind = kind
        header.worker = asked.ingressWorker
        header.hops = 0
        var frame = [UInt8](repeating: 0, count: TrunkFormat.frameHeaderSize + TrunkFormat.recordHeaderSize + payload.count)
        var writer = TrunkWriter(limit: frame.count)
        var span = frame.mutableSpan
        var bytes = span.mutableBytes
        _ = writer.append(client: client, session: session, payload: payload.span.bytes, to: &bytes)
        writer.finish(header, key: trunkKey, in: &bytes)
        sendTrunk(frame, from: RegionPlace.ownerTrunk(owner), in: owners[owner].cluster, to: hop)
    }
}

// MARK: - Between relays

extension RegionSimulation {
    /// Frames go round in a circle that the tables have: not for long.
    mutating func inspectCircle(_ bytes: [UInt8]) {
        guard bytes.count > TrunkFormat.frameHeaderSize, bytes[0] & 15 == TrunkKind.clientData.rawValue else { return }
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for (index, byte) in bytes.enumerated() where index != 12 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        visits[hash, default: 0] += 1
        // Each hop may double it, and who replays may as well.
        if visits[hash] == 200 { violate("a frame has come to relays 200 times") }
    }

    /// Something came to a relay that is dead. Whoever sends it must soon know, if another can be had.
    mutating func inspectDead(_ datagram: FlyingDatagram, _ dead: Int) {
        guard datagram.bytes.count > TrunkFormat.frameHeaderSize, datagram.bytes[0] & 15 == TrunkKind.clientData.rawValue,
            case .relay(let sender) = RegionPlace(datagram.source), relays[sender] != nil
        else { return }
        let settle = Interval.seconds(2)
        guard now > unsettledUntil, now - trunkCalmSince > settle, now - upSince[sender] > settle, now > attackUntil + settle, loops.isEmpty
        else {
            sentToDead[sender * plan.relays + dead] = nil
            return
        }
        let others = stride(from: cluster(ofRelay: dead), to: plan.relays, by: plan.clusters).contains {
            $0 != dead && $0 != sender && relays[$0] != nil && now - upSince[$0] > settle
        }
        guard others else {
            sentToDead[sender * plan.relays + dead] = nil
            return
        }
        let since = sentToDead[sender * plan.relays + dead] ?? now
        sentToDead[sender * plan.relays + dead] = since
        if now - since > .milliseconds(1_500) {
            let span = (now - since).milliseconds
            violate("relay \(sender) has sent to relay \(dead) for \(span) ms, although it is dead and others are there")
        }
    }
}

// MARK: - The end

extension RegionSimulation {
    /// Who has a call that lives must have been heard since the faults ended.
    mutating func judgeHealing() {
        for index in clients.indices where calls[Int(clients[index].call)].isAlive && clients[index].watched != nil {
            let client = clients[index]
            guard !client.hasHealed else {
                report.healed += 1
                continue
            }
            violate(
                "client \(index) (\(client.model), \(client.state)) of session \(client.call) at \(describe(client.owner)) by relay "
                    + "\(client.ingress) has not been heard \(RegionPlan.healing.milliseconds / 1000) s after the faults")
        }
    }

    mutating func judgeEnd() {
        for number in 0..<relays.count {
            let flows = relays[number]?.flows.count ?? 0
            if flows > 0 { violate("relay \(number) still has \(flows) flows") }
            guard let counters = relays[number]?.counters else { continue }
            report.secondHops += counters.framesPassedOn
            report.loopsStopped += counters.dropped[Int(RelayDropReason.trunkLoop.rawValue)]
        }
        for owner in owners where owner.sessions.count > 0 { violate("transceiver \(owner.id) still has \(owner.sessions.count) sessions") }
    }
}
