// What must hold whatever goes wrong, and what must come back when nothing does any more.

import Primitives
import STUN
import TransceiverCore
import Trunk

// MARK: - Attackers

extension FaultSimulation {
    /// Who replays, from eight addresses; and who sends what cannot be authentic, from one of its own.
    private static let replayers = IPAddress(v4: 0xC612_0001)
    private static let forger = SocketAddress(IPAddress(v4: 0xC612_0002), port: 6000)
    static func isAttacker(_ address: SocketAddress) -> Bool { address.ip == replayers || address == forger }

    mutating func record(_ bytes: [UInt8], from source: SocketAddress, isStolen: Bool = false) {
        if recordings.count == 64 { recordings.removeFirst() }
        recordings.append((now, bytes, source, isStolen))
    }

    mutating func attack() {
        guard now < attackUntil else {
            nextAttack = .never
            return
        }
        nextAttack = now + .milliseconds(10 + Int64(random.next() % 60))
        let old = recordings.prefix { $0.at + .seconds(1) <= now }
        guard !old.isEmpty else { return }
        let recording = old[old.startIndex + Int(random.next() % UInt64(old.count))]
        var bytes = recording.bytes
        report.replayed += 1
        if recording.isStolen { hasUsedStolen = true }
        let replayer = SocketAddress(Self.replayers, port: 50_000 + UInt16(random.next() % 8))
        switch random.next() % 8 {
        case 0, 1, 2: send(bytes, as: replayer)
        case 3: send(bytes, as: recording.source)
        case 4:
            bytes[Int(random.next() % UInt64(bytes.count))] ^= UInt8(1 << (random.next() % 8))
            send(bytes, as: recording.source)
        case 5:
            // A check with everything right but the password.
            if bytes.first == 0, bytes.count > 32 { bytes[bytes.count - 20] ^= 1 }
            send(bytes, as: Self.forger)
        case 6: send((0..<Int(random.next() % 200)).map { _ in UInt8(truncatingIfNeeded: random.next()) }, as: Self.forger)
        default:
            let target = random.next() % 2 == 0 ? Self.trunkAddress(relay: 0) : Self.trunkAddress(machine: 0)
            network.send(bytes, from: Self.forger, to: target, over: trunk, at: now)
        }
    }

    private mutating func send(_ bytes: [UInt8], as source: SocketAddress) {
        network.send(bytes, from: source, to: Self.publicAddress, over: FaultPlan.calmAccess, at: now)
    }

    /// Something came back to an attacker.
    mutating func noteLoot(_ datagram: FlyingDatagram) {
        if datagram.destination == Self.forger { violate("a forger got an answer") }
        // A path of an ICE restart is chosen by a check alone, until media has come by it.
        let mayMove = hasUsedStolen || persons.contains { $0.restarts > 0 }
        if !mayMove, PacketClass(firstByte: datagram.bytes.first ?? 0) != .stun { violate("a replay moved the downlink") }
    }
}

// MARK: - At the seams

extension FaultSimulation {
    /// No datagram goes to a session that its sender never had.
    mutating func inspectUplink(_ bytes: [UInt8], to machine: Int) {
        guard var frame = try? TrunkFrame(parsing: bytes.span.bytes, key: ring.trunkKey), frame.header.kind == .clientData else { return }
        while let record = frame.nextRecord() {
            if random.next() % 8 == 0, !Self.isAttacker(record.client) {
                // Whose address was somebody else's a moment ago is taken to the wrong session: what it says is still fresh to its own.
                let isMisled = !persons.contains { $0.address == record.client && $0.session == record.session }
                self.record(record.payload.array, from: record.client, isStolen: isMisled)
            }
            if machines[machine] != nil, Self.isAttacker(record.client) {
                shownByAttacker[record.client, default: 0] += record.payload.byteCount
            }
            if record.client == Self.forger { violate("a datagram without proof went to a transceiver") }
            if !Self.isAttacker(record.client), owners[record.client]?.contains(record.session) != true {
                violate("a datagram of \(record.client) went to a session of somebody else")
            }
            // Stolen words count: they are the client's own.
            calls[record.session]?.heardAt = now
            for person in 0..<persons.count where persons[person].session == record.session && persons[person].address == record.client {
                persons[person].isLost = false
            }
        }
    }

    /// A transceiver sends to nobody unproved more than three times what came from there.
    mutating func noteGifts(_ bytes: [UInt8]) {
        guard var frame = try? TrunkFrame(parsing: bytes.span.bytes, key: ring.trunkKey), frame.header.kind == .transceiverData else {
            return
        }
        while let record = frame.nextRecord() {
            // Before there are keys a path is not bounded: flights of a handshake go to whoever has played a check that nobody else has
            // shown.
            guard Self.isAttacker(record.client), record.payload.byteCount > 0, record.payload.byte(0) != 22 else { continue }
            givenToAttacker[record.client, default: 0] += record.payload.byteCount
            if givenToAttacker[record.client, default: 0] > 3 * shownByAttacker[record.client, default: 0] {
                violate("an attacker got more than three times what it sent")
            }
        }
    }

    /// And none comes from a session to somebody who never was its client, or who has not consented for long.
    mutating func inspectDownlink(_ bytes: [UInt8], from source: SocketAddress) {
        guard var frame = try? TrunkFrame(parsing: bytes.span.bytes, key: ring.trunkKey), frame.header.kind == .transceiverData else {
            return
        }
        while let record = frame.nextRecord() {
            guard !Self.isAttacker(record.client) else { continue }
            if owners[record.client]?.contains(record.session) != true { violate("a session sends to somebody who is not its client") }
            if record.payload.byteCount > 0, record.payload.byte(0) >= 20, let call = calls[record.session],
                now > call.heardAt + .seconds(31)
            {
                violate("media was sent to somebody who has not been heard for 31 s")
            }
        }
    }

    /// What one client has seen of its call.
    mutating func judge(_ seen: ClientReport, of person: Int) {
        framesSaid += UInt64(seen.framesSaid)
        report.framesHeard += seen.heard.count
        if seen.strangers > 0 { violate("person \(person + 1) heard what nobody said to it") }
        if seen.heard.contains(where: { $0 >= seen.framesSaid }) { violate("person \(person + 1) heard a frame that was never said") }
        if Set(seen.heard).count != seen.heard.count { violate("person \(person + 1) heard a frame twice") }
        if seen.handshakes > 1 { violate("two handshakes in one call") }
    }
}

// MARK: - The end

extension FaultSimulation {
    /// Long after the last goodbye.
    mutating func judgeTheEnd() {
        for person in 0..<persons.count { retire(person) }
        for relay in 0..<relays.count {
            if let flows = relays[relay]?.flows.count, flows > 0 { violate("relay \(relay + 1) still has \(flows) flows") }
        }
        for machine in 0..<machines.count where machines[machine] != nil {
            let worker = machines[machine]!.worker.counters
            let sessions = machines[machine]!.worker.sessionCount
            let calls = machines[machine]!.desk.callCount
            framesTaken += worker.audioPacketsReceived
            var ended: UInt64 = 0
            for reason in 0..<worker.sessionsEnded.count { ended += worker.sessionsEnded[reason] }
            if sessions > 0 { violate("\(sessions) sessions outlived their calls") }
            if calls > 0 { violate("signaling still knows \(calls) calls") }
            if ended != worker.sessionsCreated { violate("\(worker.sessionsCreated) sessions began, \(ended) ended") }
            if worker.recordsOversized + worker.recordsWithoutTrain > 0 { violate("a record found no room") }
        }
        let alive = calls.values.filter(\.isAlive).count
        if alive > 0 { violate("\(alive) calls have neither ended nor a session") }
        if framesTaken > framesSaid { violate("\(framesTaken) frames were taken, \(framesSaid) were said") }
    }
}

// MARK: - Liveness

extension FaultSimulation {
    /// The faults have ended: who must hear again, and when.
    mutating func expectEverybody() {
        note("the faults have ended")
        for person in 0..<persons.count {
            guard let bound = bound(of: person) else {
                note("person \(person + 1) is not expected back")
                continue
            }
            clients[person]?.watch(from: now)
            expectations.append((person, persons[person].call, now + bound))
            note("person \(person + 1) is \(clients[person]?.state ?? .failed) and expected within \(bound.milliseconds) ms")
        }
    }

    /// nil: its call is over, or only a page could bring it back and it has none that does.
    private mutating func bound(of person: Int) -> Interval? {
        // Six seconds until it notices, two until it acts, one for a call; a second of each if the first attempt came too early.
        if persons[person].redials { return .seconds(20) }
        guard let call = calls[persons[person].session], call.isAlive, let state = clients[person]?.state else { return nil }
        guard clients[person]?.isConnected == true, clients[person]?.report.heardGoodbye == false else { return nil }
        let silent = now - call.heardAt
        let voice = FaultPlan.cadence + FaultPlan.echoDelay + .milliseconds(300)
        switch (persons[person].model, state) {
        // In an ICE restart it repeats one check more and more slowly, and gives up after 11 s.
        case (.firefox, .failed), (.firefox, .checking): return nil
        case (.firefox, _):
            // Its next check may come after it has given up.
            let answered = clients[person]?.lastAnswerAt ?? now
            return now + .seconds(7) < answered + .seconds(28) ? .seconds(6) + voice : nil
        case (_, .failed):
            // Only our check brings it back, and only if we know where it is.
            // Who has what it said while it was cut off can send our checks elsewhere.
            guard !persons[person].isLost, !hasUsedStolen, silent < .seconds(55) else { return nil }
            return .milliseconds(1300) + voice
        case (.chromium, .disconnected):
            // It checks ten times a second, unless it gives up before an answer can reach it.
            let givesUp = clients[person]?.nextStateChange ?? now
            return givesUp > now + .milliseconds(200) ? .milliseconds(500) + voice : nil
        case (_, _): return .milliseconds(2700) + voice
        }
    }

    mutating func watch() {
        var waiting: [(person: Int, call: UInt32, until: Instant)] = []
        for expected in expectations where !isHeard(expected.person, sinceCall: expected.call) { waiting.append(expected) }
        expectations = waiting
        if let late = waiting.first(where: { $0.until <= now }) {
            return violate("person \(late.person + 1) hears nothing \((now - phaseSince).milliseconds) ms after the end of the faults")
        }
        guard expectations.isEmpty else { return }
        report.slowestRecovery = now - phaseSince
        note("everybody who is expected hears again")
        leave()
    }

    private func isHeard(_ person: Int, sinceCall call: UInt32) -> Bool {
        switch clients[person] {
        case .some(let client): persons[person].call == call ? client.heardWatched != nil : !client.report.heard.isEmpty
        case .none: false
        }
    }
}
