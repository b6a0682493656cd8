// What clients and pages do, and how faults begin and end, in a run with regions.

import Crypto
import Primitives
import RelayCore
import RoutingHint
import STUN
import Trunk

// MARK: - Clients

extension RegionSimulation {
    /// Somebody who will dial within the first seconds.
    mutating func welcome(_ number: Int) {
        let first = Int(random.next() % UInt64(plan.relays))
        // The second is another one of anywhere.
        let second = (first + 1 + Int(random.next() % UInt64(plan.relays - 1))) % plan.relays
        var client = RegionClient(
            model: random.next() % 3 == 0 ? .firefox : .chromium, ingresses: (first, second),
            delay: .milliseconds(4 + Int64(random.next() % 36)), ourUfrag: Array("c\(number)".utf8))
        client.nextLook = now + .milliseconds(1 + Int64(random.next() % UInt64(RegionPlan.dialing.milliseconds - 500)))
        clients.append(client)
        clients[number].wakesAt = client.nextLook
        wheel[Int(client.nextLook.nanoseconds / 1_000_000) % Self.wheelSize].append(Int32(number))
    }

    /// A new call at a transceiver that is there.
    private mutating func dial(_ index: Int) {
        clients[index].nextLook = now + .milliseconds(1_000 + Int64(random.next() % 1_000))
        let first = Int(random.next() % UInt64(owners.count))
        guard let owner = (0..<owners.count).map({ (first + $0) % owners.count }).first(where: { owners[$0].isUp }) else { return }
        let number = UInt32(calls.count)
        calls.append(RegionCall(owner: owner, client: index))
        report.callsMade += 1
        owners[owner].sessions[number] = RegionOwner.Session()
        clients[index].call = number
        clients[index].owner = owner
        clients[index].said = 0
        clients[index].watched = nil
        clients[index].hasHealed = false
        moveToFreshAddress(index)
        begin(index)
    }

    /// Fresh credentials of both sides; the first check at once.
    private mutating func begin(_ index: Int) {
        let owner = clients[index].owner
        let hint = RoutingHint(
            cluster: UInt16(1 + owners[owner].cluster), transceiver: owners[owner].id, worker: 0,
            mintedAt: UInt32(truncatingIfNeeded: wallNow(owners[owner].cluster).secondsSince1970), session: clients[index].call)
        let ufrag = minting.mint(hint)
        let password = minting.icePassword(for: ufrag)
        clients[index].theirUfrag = Array(ufrag.description.utf8)
        clients[index].password = (0..<24).map { password[$0] }
        clients[index].isValid = false
        clients[index].checks = []
        clients[index].tries = 0
        clients[index].answeredAt = now
        clients[index].heardAt = now
        clients[index].enter(.checking, at: now)
        clients[index].nextWord = now + .milliseconds(Int64(random.next() % UInt64(plan.cadence.milliseconds)))
    }

    private mutating func moveToFreshAddress(_ index: Int) {
        clients[index].address = RegionPlace.client(callOfAddress.count)
        callOfAddress.append(clients[index].call)
    }

    /// Whatever is due for a client.
    mutating func wake(_ index: Int) {
        clients[index].wakesAt = .never
        if now >= clients[index].nextLook { look(index) }
        guard clients[index].call != 0 else { return schedule(index) }
        if now >= clients[index].nextChange { clients[index].enter(clients[index].state == .connected ? .disconnected : .failed, at: now) }
        if now >= clients[index].checksAt { check(index) }
        if now >= clients[index].speaksAt { speak(index) }
        schedule(index)
    }

    /// The page looks at how its call is.
    private mutating func look(_ index: Int) {
        let client = clients[index]
        guard client.call != 0 else {
            clients[index].nextLook = .never
            return phase == .dialing || phase == .faulty ? dial(index) : ()
        }
        clients[index].nextLook = now + .milliseconds(1_500 + Int64(random.next() % 500))
        let isBad =
            switch client.state {
            case .failed: true
            case .disconnected: now - client.stateSince > .seconds(2)
            case .checking: now - client.stateSince > .seconds(4)
            case .connected: false
            }
        guard isBad else { return }
        guard calls[Int(client.call)].isAlive else { return dial(index) }
        // Signaling of a transceiver that is there answers.
        report.restarts += 1
        clients[index].usesSecond.toggle()
        begin(index)
    }

    private mutating func check(_ index: Int) {
        let id = clients[index].planCheck(&random, at: now)
        clients[index].checks.append((id, now))
        if clients[index].checks.count > 8 { clients[index].checks.removeFirst() }
        let client = clients[index]
        let length = buffer.write(0, 0..<512) { output in
            var writer = STUNWriter(.request, id, to: &output)
            writer.append(usernameFor: client.theirUfrag.span.bytes, from: client.ourUfrag.span.bytes, to: &output)
            writer.append(priority: 0x6E00_1EFF, to: &output)
            writer.append(iceControlling: UInt64(index), to: &output)
            writer.appendUseCandidate(to: &output)
            _ = writer.finish(key: client.password.span.bytes, to: &output)
        }
        sendUp(buffer.bytes(0, 0..<length).array, of: index)
    }

    private mutating func speak(_ index: Int) {
        clients[index].said += 1
        let client = clients[index]
        clients[index].nextWord = now + plan.cadence
        report.packetsSaid += 1
        if phase == .calm, client.watched == .some(0) { clients[index].watched = client.said }
        sendUp(RegionWord.write(client.said, of: client.call, isEcho: false), of: index)
    }

    /// A datagram reached a client's address, be it its present one or an old one.
    mutating func hear(_ bytes: [UInt8], at address: Int) {
        guard address < callOfAddress.count else { return }
        let call = callOfAddress[address]
        let index = calls[Int(call)].client
        guard clients[index].address == RegionPlace.client(address) else { return }
        if let word = RegionWord.read(bytes.span.bytes) {
            // One who has just called again may hear the end of what was.
            guard calls[Int(word.call)].client == index, word.isEcho else {
                return violate("client \(index) heard a word of call \(word.call)")
            }
            guard word.call == clients[index].call else { return }
            clients[index].heardAt = now
            report.packetsHeard += 1
            if let watched = clients[index].watched, watched > 0, word.counter >= watched, !clients[index].hasHealed {
                clients[index].hasHealed = true
                report.slowestRecovery = max(report.slowestRecovery, now - phaseSince)
            }
            return
        }
        let key = clients[index].password
        guard let message = try? STUNMessage(parsing: bytes.span.bytes), message.messageClass == .success,
            message.verifiesIntegrity(key: key.span.bytes),
            let check = clients[index].checks.first(where: { $0.id == message.transactionID })
        else { return }
        clients[index].heardAt = now
        clients[index].isValid = true
        clients[index].tries = 0
        clients[index].answeredAt = max(clients[index].answeredAt, check.at)
        if clients[index].state != .connected, clients[index].state != .failed { clients[index].enter(.connected, at: now) }
        if clients[index].checks.last?.id == message.transactionID {
            let pace = clients[index].model.checkInterval(&random)
            clients[index].nextCheck = max(clients[index].nextCheck, check.at + pace)
        }
        schedule(index)
    }
}

// MARK: - Phases

extension RegionSimulation {
    mutating func direct() {
        obeyOrders()
        attack()
        switch phase {
        case .dialing: if now - phaseSince >= RegionPlan.dialing { enter(.faulty) }
        case .faulty:
            while nextFault < faults.count, phaseSince + faults[nextFault].after <= now {
                begin(faults[nextFault])
                nextFault += 1
            }
            for repair in repairs where repair.at <= now { end(repair.kind) }
            repairs.removeAll { $0.at <= now }
            if now - phaseSince >= plan.faultsLast, repairs.isEmpty { enter(.calm) }
        case .calm:
            if now - phaseSince >= RegionPlan.healing, now - phaseSince < RegionPlan.healing + Self.tick { judgeHealing() }
            if now - phaseSince >= RegionPlan.calm { enter(.leaving) }
        case .leaving: if now - phaseSince >= .seconds(75) { enter(.over) }
        case .over: break
        }
    }

    private mutating func enter(_ next: Phase) {
        phase = next
        phaseSince = now
        switch next {
        case .dialing, .faulty: break
        case .calm:
            tell("all faults have ended")
            for index in clients.indices where calls[Int(clients[index].call)].isAlive { clients[index].watched = 0 }
        case .leaving:
            tell("everybody hangs up")
            for index in clients.indices {
                hangUp(clients[index].call)
                clients[index].call = 0
                clients[index].nextLook = .never
            }
        case .over: judgeEnd()
        }
    }

    private mutating func hangUp(_ number: UInt32) {
        guard calls[Int(number)].isAlive else { return }
        calls[Int(number)].isAlive = false
        let owner = calls[Int(number)].owner
        guard let path = owners[owner].sessions.removeValue(forKey: number)?.path else { return }
        answer(.gone, path.header, path.hop, client: path.client, session: number, payload: [], by: owner)
    }

    private mutating func obeyOrders() {
        guard orders.contains(where: { $0.at <= now }) else { return }
        let due = orders.filter { $0.at <= now }
        orders.removeAll { $0.at <= now }
        for (_, order) in due {
            switch order {
            case .readKeys(let relay, let ring): relays[relay]?.replaceKeys(ring, trunkMTU: TrunkFormat.defaultMTU)
            case .readRelays(let relay): relays[relay]?.replaceRelays(directory, at: now)
            case .promote:
                guard ring.promote(at: wallNow(0).secondsSince1970, retiringTheOldAt: .max) else { continue }
                minting = HintCodec(ring)
                isRotating = false
                distributeKeys()
            }
        }
    }

    /// Everybody reads its files within the second.
    private mutating func distributeKeys() {
        for relay in 0..<plan.relays { orders.append((now + .milliseconds(Int64(random.next() % 1_000)), .readKeys(relay: relay, ring))) }
    }

    private mutating func distributeRelays(without unlisted: Set<Int>) {
        directory = Self.directory(plan, without: unlisted)
        for relay in 0..<plan.relays { orders.append((now + .milliseconds(Int64(random.next() % 1_000)), .readRelays(relay: relay))) }
        unsettledUntil = max(unsettledUntil, now + .seconds(3))
    }

    private var unlisted: Set<Int> {
        Set(repairs.compactMap { if case .unlist(let relay) = $0.kind, $0.at > now { relay } else { nil } })
    }
}

// MARK: - Faults

extension RegionSimulation {
    private mutating func begin(_ event: RegionFaultEvent) {
        tell("\(event.kind.summary)\(event.lasts > .milliseconds(1) ? ", for \(event.lasts.milliseconds) ms" : "")")
        repairs.append((now + event.lasts, event.kind))
        switch event.kind {
        case .killRelay(let relay): relays[relay] = nil
        case .killTransceiver(let owner):
            owners[owner].isUp = false
            for number in owners[owner].sessions.keys {
                calls[Int(number)].isAlive = false
                report.callsLost += 1
            }
            owners[owner].sessions = [:]
        case .part(let one, let other):
            guard one != other else { return }
            partitions.append((one, other))
            unsettledUntil = max(unsettledUntil, now + event.lasts + .seconds(2))
        case .weather(let access, let trunk):
            self.access = access
            self.trunk = trunk
            trunkCalmSince = now + event.lasts
        case .clock(let cluster, let seconds): clockOffsets[cluster] = seconds
        case .rebind(let oneIn):
            for index in clients.indices where clients[index].call != 0 && random.next() % oneIn == 0 { moveToFreshAddress(index) }
        case .rotateKeys:
            guard !isRotating, ring.add(random: &random) else { return }
            isRotating = true
            distributeKeys()
            orders.append((now + .milliseconds(1_500), .promote))
        case .unlist: distributeRelays(without: unlisted)
        case .loop(let cluster, let transceiver):
            loops.append((cluster, transceiver))
            rewriteTables(of: cluster)
        case .replay:
            attackUntil = max(attackUntil, now + event.lasts)
            nextAttack = min(nextAttack, now)
        }
    }

    private mutating func end(_ kind: RegionFault) {
        switch kind {
        case .killRelay(let relay): if relays[relay] == nil { startRelay(relay) }
        case .killTransceiver(let owner): owners[owner].isUp = true
        case .part(let one, let other):
            if let place = partitions.firstIndex(where: { $0 == (one, other) }) { partitions.remove(at: place) }
        case .weather:
            // Of two at once, the one that ends first takes both along.
            access = LinkProfile()
            trunk = LinkProfile()
        case .clock, .rebind, .rotateKeys, .replay: break
        case .unlist: distributeRelays(without: unlisted)
        case .loop(let cluster, let transceiver):
            if let place = loops.firstIndex(where: { $0 == (cluster, transceiver) }) { loops.remove(at: place) }
            rewriteTables(of: cluster)
            if loops.isEmpty { visits = [:] }
        }
    }

    private mutating func rewriteTables(of cluster: Int) {
        for relay in stride(from: cluster, to: plan.relays, by: plan.clusters) {
            let table = table(of: relay)
            relays[relay]?.replaceTransceivers(.table(table))
        }
    }
}
