// What happens when: phases of a run, faults and their ends, and what pages do about them.

import HTTP
import ICE
import Primitives
import TransceiverCore

extension FaultSimulation {
    /// Everybody is connected by then, with nothing in the way.
    private static let connectMax = Interval.seconds(10)
    /// So long faults work on after the last of them has ended, where nobody waits for anything.
    private static let lingering = Interval.seconds(3)
    /// After the last goodbye: sessions and flows have gone, by themselves if nobody ends them.
    private static let aftermath = Interval.seconds(150)

    /// When `direct` has something to do.
    func nextDirection() -> Instant {
        var next = Instant.never
        switch phase {
        case .connecting: next = phaseSince + Self.connectMax
        case .faulty:
            next = repairs.map(\.at).min() ?? .never
            if nextFault < faults.count {
                next = min(next, phaseSince + faults[nextFault].after)
            } else if repairs.isEmpty {
                next = min(next, lastRepairAt + Self.lingering)
            }
        case .calm: next = expectations.map(\.until).min() ?? now
        case .leaving: next = now < phaseSince + .seconds(1) ? phaseSince + .seconds(1) : phaseSince + Self.aftermath
        case .over: break
        }
        if phase == .faulty || phase == .calm {
            for person in persons where person.redials { next = min(next, person.nextLook) }
        }
        return next
    }

    private var lastRepairAt: Instant {
        faults.map { phaseSince + $0.after + $0.lasts }.max() ?? phaseSince
    }

    mutating func direct() {
        if phase == .faulty || phase == .calm { lookAtPages() }
        switch phase {
        case .connecting:
            if allConnected() {
                note("all \(persons.count) are connected")
                enter(.faulty)
            } else if now >= phaseSince + Self.connectMax {
                violate("not everybody was connected after 10 s without faults")
            }
        case .faulty:
            while nextFault < faults.count, now >= phaseSince + faults[nextFault].after {
                happen(faults[nextFault])
                nextFault += 1
            }
            while let due = takeRepair() { repair(due) }
            guard nextFault == faults.count, repairs.isEmpty else { return }
            if plan.mode == .liveness, now >= lastRepairAt {
                expectEverybody()
                enter(.calm)
            } else if now >= lastRepairAt + Self.lingering {
                leave()
            }
        case .calm: watch()
        case .leaving:
            if now >= phaseSince + .seconds(1) { for person in 0..<clients.count { clients[person]?.leave() } }
            guard now >= phaseSince + Self.aftermath else { return }
            judgeTheEnd()
            enter(.over)
        case .over: break
        }
    }

    private mutating func takeRepair() -> FaultEvent.Kind? {
        let now = now
        guard let index = repairs.firstIndex(where: { $0.at <= now }) else { return nil }
        return repairs.remove(at: index).kind
    }

    private mutating func enter(_ next: Phase) {
        phase = next
        phaseSince = now
    }

    private mutating func allConnected() -> Bool {
        for person in 0..<clients.count where clients[person]?.isConnected != true { return false }
        return true
    }

    mutating func leave() {
        note("everybody hangs up")
        attackUntil = now
        nextAttack = .never
        for person in persons {
            let request = HTTPRequest(method: "DELETE", path: person.resource, headers: HTTPHeaders(), body: [])
            let status = answer(request, by: person.machine)?.status
            let isThere = calls[person.session]?.isAlive == true
            if isThere, status != 200 { violate("a hangup was answered with \(status ?? 0)") }
            carryOut(person.machine)
        }
        enter(.leaving)
    }
}

// MARK: - Faults

extension FaultSimulation {
    private mutating func happen(_ fault: FaultEvent) {
        if fault.lasts > .zero { repairs.append((now + fault.lasts, fault.kind)) }
        switch fault.kind {
        case .rebind(let person): rebind(person, to: freshAddress())
        case .swap(let a, let b):
            let (first, second) = (persons[a].address, persons[b].address)
            rebind(a, to: second)
            rebind(b, to: first)
        case .cut(let person, let up, let down):
            persons[person].cutsUp += up ? 1 : 0
            persons[person].cutsDown += down ? 1 : 0
            note("person \(person + 1) is cut off for \(fault.lasts.milliseconds) ms\(up ? ", up" : "")\(down ? ", down" : "")")
        case .killRelay(let relay):
            relays[relay] = nil
            note("relay \(relay + 1) dies for \(fault.lasts.milliseconds) ms")
        case .reroute(let person):
            persons[person].relay = (persons[person].relay + 1) % FaultPlan.relays
            note("person \(person + 1) reaches relay \(persons[person].relay + 1) from now on")
        case .killTransceiver(let machine): killMachine(machine, for: fault.lasts)
        case .partition(let relay, let transceiver):
            partitions.append((relay, transceiver))
            note("relay \(relay + 1) and transceiver \(transceiver + 1) are parted for \(fault.lasts.milliseconds) ms")
        case .clock(let seconds):
            clockOffset = seconds
            note("clocks are \(seconds) s off")
        case .weather(let access, let trunk):
            self.access = access
            self.trunk = trunk
            note("weather for \(fault.lasts.milliseconds) ms: access \(access.summary), trunk \(trunk.summary)")
        case .attack:
            attackUntil = max(attackUntil, now + fault.lasts)
            nextAttack = now
            note("an attack for \(fault.lasts.milliseconds) ms")
        case .restartICE(let person):
            // A request goes where packets go.
            if persons[person].cutsUp + persons[person].cutsDown == 0 { restartICE(person) }
        }
    }

    private mutating func repair(_ kind: FaultEvent.Kind) {
        switch kind {
        case .cut(let person, let up, let down):
            persons[person].cutsUp -= up ? 1 : 0
            persons[person].cutsDown -= down ? 1 : 0
            note("person \(person + 1)'s network is back")
        case .killRelay(let relay):
            guard relays[relay] == nil else { return }
            startRelay(relay)
            note("relay \(relay + 1) is back, empty")
        case .killTransceiver(let machine):
            guard machines[machine] == nil else { return }
            do { try startMachine(machine) } catch { violate("a transceiver could not start") }
            note("transceiver \(machine + 1) is back, empty")
        case .partition(let relay, let transceiver):
            let index = partitions.firstIndex { $0.relay == relay && $0.transceiver == transceiver }
            if let index { partitions.remove(at: index) }
            note("relay \(relay + 1) and transceiver \(transceiver + 1) meet again")
        case .weather:
            access = FaultPlan.calmAccess
            trunk = FaultPlan.calmTrunk
            note("the weather is fine")
        case .rebind, .swap, .reroute, .clock, .attack, .restartICE: break
        }
    }

    private mutating func rebind(_ person: Int, to address: SocketAddress) {
        persons[person].isLost = true
        move(person, to: address)
        note("person \(person + 1) is at \(address)")
    }

    private mutating func killMachine(_ machine: Int, for time: Interval) {
        guard machines[machine] != nil else { return }
        note("transceiver \(machine + 1) dies for \(time.milliseconds) ms")
        let taken = machines[machine]?.worker.counters.audioPacketsReceived ?? 0
        framesTaken += taken
        machines[machine] = nil
        for session in Array(calls.keys) where calls[session]?.machine == machine { calls[session]?.isAlive = false }
    }
}

// MARK: - Pages

extension FaultSimulation {
    private mutating func lookAtPages() {
        for person in 0..<persons.count where persons[person].redials && now >= persons[person].nextLook {
            persons[person].nextLook = now + .seconds(1)
            look(person)
        }
    }

    /// What a good page does: first an ICE restart, then a new call.
    private mutating func look(_ person: Int) {
        // Its requests go where its packets go.
        guard persons[person].cutsUp + persons[person].cutsDown == 0 else { return }
        let state = clients[person]?.state ?? .failed
        let hasKeys = clients[person]?.isConnected ?? false
        let isOver = clients[person]?.report.heardGoodbye ?? true
        if state == .connected, hasKeys, !isOver { return }
        let isStuck = now >= persons[person].dialedAt + .seconds(8) && now >= persons[person].restartedAt + .seconds(4)
        guard isOver || state == .failed || state == .disconnected || isStuck else { return }
        if hasKeys, !isOver, now >= persons[person].restartedAt + .seconds(12), restartICE(person) { return }
        if now < persons[person].restartedAt + .seconds(4), !isOver { return }
        do { try dial(person) } catch { violate("a client could not be made") }
    }

    /// What a WHIP client does: new credentials to the resource, new ones of the server back, and a new socket. False: the call is gone.
    @discardableResult mutating func restartICE(_ person: Int) -> Bool {
        guard machines[persons[person].machine] != nil, clients[person]?.isConnected == true else { return false }
        let machine = persons[person].machine
        persons[person].restarts += 1
        let local = credentials(of: person, persons[person].call, generation: 1 + persons[person].restarts)
        let headers = HTTPHeaders([("Content-Type", "application/trickle-ice-sdpfrag"), ("If-Match", "*")])
        let request = HTTPRequest(
            method: "PATCH", path: persons[person].resource, headers: headers, body: Array(simulatedRestart(local).utf8))
        let response = answer(request, by: machine)
        let isThere = calls[persons[person].session]?.isAlive == true
        guard let response, response.status == 200, let remote = ICECredentials(in: String(decoding: response.body, as: UTF8.self)) else {
            if isThere { violate("an ICE restart was answered with \(response?.status ?? 0)") }
            return false
        }
        if !isThere { violate("a call that is over was restarted") }
        persons[person].restartedAt = now
        carryOut(machine)
        move(person, to: freshAddress())
        persons[person].isLost = true
        clients[person]?.restartICE(local: local, remote: remote, at: now)
        note("person \(person + 1) restarts ICE from \(persons[person].address)")
        return true
    }
}
