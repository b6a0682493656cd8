// People with calls, two relays behind one address, two transceivers, and everything that can go wrong. See `FaultPlan`.

import Crypto
import DTLS
import HTTP
import ICE
import Primitives
import RTP
import RelayCore
import RoutingHint
import TransceiverCore
import Trunk

/// A transceiver: one worker and its signaling.
struct Machine: ~Copyable {
    var worker: TransceiverWorker
    var desk: SignalingDesk

    mutating func nextDeadline(at now: Instant) -> Instant { worker.nextDeadline(at: now) }
}

/// Somebody who makes calls, one after the other if need be.
struct Person {
    var model = ClientModel.chromium
    /// The page restarts ICE and calls again by itself. Without that it waits for whatever the browser and we can do.
    var redials = false
    /// The number of the present call; its frames carry it.
    var call: UInt32 = 0
    var session: UInt32 = 0
    var machine = 0
    var resource = ""
    var dialedAt = Instant.zero
    var restartedAt = Instant.zero
    var restarts = 0
    var nextLook = Instant.never
    var address = FaultSimulation.nowhere
    /// The relay that the network takes its packets to.
    var relay = 0
    var cutsUp = 0
    var cutsDown = 0
    /// Nothing of it has reached a transceiver since it moved.
    var isLost = false
}

/// What the world knows of a call, whatever relays and transceivers think.
struct CallFacts {
    var machine: Int
    var isAlive = true
    /// When something of its client last reached its transceiver.
    var heardAt: Instant
}

public struct FaultSimulation: ~Copyable {
    let plan: FaultPlan
    let faults: [FaultEvent]
    var now = FaultSimulation.beginning
    var network: VirtualNetwork
    var access = FaultPlan.calmAccess
    var trunk = FaultPlan.calmTrunk
    var random: SeededGenerator
    let ring: KeyRing
    var relays = Slab<Relay?>(count: FaultPlan.relays) { _ in nil }
    var machines = Slab<Machine?>(count: FaultPlan.transceivers) { _ in nil }
    var clients: Slab<SimulatedClient?>
    var persons: [Person]
    var calls: [UInt32: CallFacts] = [:]
    /// Which calls have ever been at an address.
    var owners: [SocketAddress: Set<UInt32>] = [:]
    var partitions: [(relay: Int, transceiver: Int)] = []
    /// What the machines' clocks are off by.
    var clockOffset: Int64 = 0
    var addressesUsed: UInt16 = 0
    var callsMade: UInt32 = 0

    var phase = Phase.connecting
    var phaseSince = FaultSimulation.beginning
    var nextFault = 0
    var repairs: [(at: Instant, kind: FaultEvent.Kind)] = []
    var expectations: [(person: Int, call: UInt32, until: Instant)] = []

    var attackUntil = Instant.zero
    var nextAttack = Instant.never
    var recordings: [(at: Instant, bytes: [UInt8], source: SocketAddress, isStolen: Bool)] = []
    var hasUsedStolen = false
    /// Bytes of each attacker that have come to transceivers, and what they have sent there: both at the transceiver, because a trunk loses
    /// frames and doubles them.
    var shownByAttacker: [SocketAddress: Int] = [:]
    var givenToAttacker: [SocketAddress: Int] = [:]

    var report = FaultReport()
    var framesSaid: UInt64 = 0
    var framesTaken: UInt64 = 0
    var fingerprint: UInt64 = 0xCBF2_9CE4_8422_2325
    var buffer = ByteSlab(count: 1, slotSize: 65_536)

    enum Phase { case connecting, faulty, calm, leaving, over }

    static let beginning = Instant(nanoseconds: 100_000_000_000)
    static let wall = WallClock(secondsSince1970: 1_800_000_000)
    static let nowhere = SocketAddress(.v4Any, port: 0)
    static let publicAddress = SocketAddress(IPAddress(v4: 0xC633_6401), port: 3478)
    static func trunkAddress(relay: Int) -> SocketAddress { SocketAddress(IPAddress(v4: 0x0A00_0001 + UInt32(relay)), port: 4000) }
    static func trunkAddress(machine: Int) -> SocketAddress { SocketAddress(IPAddress(v4: 0x0A00_0101 + UInt32(machine)), port: 5000) }
    static let sessionsMax = 16
    static let flowsMax = 256

    /// Throws when libcrypto refuses a key, which is no fault of ours.
    public init(_ plan: FaultPlan) throws {
        var random = SeededGenerator(seed: plan.seed &* 3 &+ (plan.mode == .safety ? 1 : 2))
        let (people, faults) = plan.cast(&random)
        self.plan = plan
        self.faults = faults
        ring = KeyRing.generate(random: &random)
        network = VirtualNetwork(seed: random.next())
        clients = Slab(count: people) { _ in nil }
        persons = (0..<people).map { _ in Person() }
        self.random = random
        report.people = people
        report.faults = faults.count
        for relay in 0..<FaultPlan.relays { startRelay(relay) }
        for machine in 0..<FaultPlan.transceivers { try startMachine(machine) }
        for person in 0..<people {
            persons[person].model = self.random.next() % 3 == 0 ? .firefox : .chromium
            persons[person].redials = self.random.next() % 2 == 0 && plan.pagesRedial
            persons[person].relay = Int(self.random.next() % UInt64(FaultPlan.relays))
            try dial(person)
        }
    }

    /// What a machine's clock says.
    var wallNow: WallClock {
        let seconds = Int64(Self.wall.secondsSince1970) + (now - Self.beginning).milliseconds / 1000 + clockOffset
        return WallClock(secondsSince1970: UInt64(seconds))
    }
}

// MARK: - Machines

extension FaultSimulation {
    mutating func startRelay(_ number: Int) {
        let entries = (0..<FaultPlan.transceivers).map { TransceiverEntry(id: UInt32(7 + $0), address: Self.trunkAddress(machine: $0)) }
        let configuration = RelayConfiguration(
            cluster: 1, relayID: UInt16(1 + number), worker: 0, transceivers: .table(entries),
            ownAddresses: [Self.publicAddress, Self.trunkAddress(relay: number)], flowCapacity: Self.flowsMax, batch: 4)
        relays[number] = Relay(
            configuration, keys: ring, hashKey: SipKey(k0: random.next(), k1: random.next()), wall: wallNow, now: now)
    }

    mutating func startMachine(_ number: Int) throws {
        let certificate = try DTLSCertificate.generate(at: Self.wall)
        let desk = SignalingDesk(
            settings: SignalingDesk.Settings(
                cluster: 1, transceiver: UInt32(7 + number), workers: 1, advertise: [Self.publicAddress],
                fingerprint: certificate.fingerprint, callsMax: Self.sessionsMax),
            codec: HintCodec(ring), access: AccessControl(keys: nil, secrets: ClientSecrets(ring)),
            random: SeededGenerator(seed: random.next()))
        let worker = TransceiverWorker(
            identity: TransceiverWorker.Identity(cluster: 1, transceiver: UInt32(7 + number), worker: 0),
            settings: SessionSettings(backend: .echo(delay: FaultPlan.echoDelay), clock: NTPClock(wall: Self.wall, at: Self.beginning)),
            key: ring.trunkKey, dtls: try DTLSContext(certificate: certificate), capacity: Self.sessionsMax, trainsMax: 4, now: now)
        machines[number] = Machine(worker: worker, desk: desk)
    }

    /// A new call of `person`, from a new address, at a transceiver that is there.
    mutating func dial(_ person: Int) throws {
        guard let machine = livingMachine() else { return }
        retire(person)
        callsMade += 1
        report.calls += 1
        let number = callsMade
        let certificate = try DTLSCertificate.generate(at: Self.wall)
        let credentials = credentials(of: person, number)
        let offer = simulatedOffer(credentials, fingerprint: certificate.fingerprint, ssrc: SimulatedClient.ssrc(of: number))
        let request = HTTPRequest(
            method: "POST", path: "/whip", headers: HTTPHeaders([("Content-Type", "application/sdp")]), body: Array(offer.utf8))
        guard let response = answer(request, by: machine), response.status == 201,
            let location = response.headers["Location"], let facts = AnswerFacts(String(decoding: response.body, as: UTF8.self))
        else { return violate("an offer was refused") }
        let address = freshAddress()
        // Some voices wrap around soon.
        let first = random.next() % 3 == 0 ? 65_535 - 60 - UInt16(random.next() % 200) : UInt16(random.next() % 30_000)
        clients[person] = try SimulatedClient(
            number: number, address: address, credentials: credentials, certificate: certificate, answer: facts, frames: .max,
            seed: random.next(), model: persons[person].model, firstSequence: first, cadence: FaultPlan.cadence, at: now)
        persons[person].call = number
        persons[person].machine = machine
        persons[person].resource = location
        persons[person].dialedAt = now
        persons[person].isLost = false
        persons[person].nextLook = now + .milliseconds(500 + Int64(random.next() % 1000))
        carryOut(machine, newCallOf: person)
        move(person, to: address)
        note(
            "person \(person + 1) (\(persons[person].model)\(persons[person].redials ? ", redials" : "")) calls transceiver \(machine + 1)")
    }

    /// nil: nobody is there.
    mutating func answer(_ request: HTTPRequest, by machine: Int) -> HTTPResponse? {
        let wall = wallNow
        return machines[machine]?.desk.answer(request, at: wall)
    }

    private mutating func livingMachine() -> Int? {
        let first = Int(random.next() % UInt64(FaultPlan.transceivers))
        for offset in 0..<FaultPlan.transceivers {
            let machine = (first + offset) % FaultPlan.transceivers
            if machines[machine] != nil { return machine }
        }
        return nil
    }

    func credentials(of person: Int, _ number: UInt32, generation: Int = 1) -> ICECredentials {
        ICECredentials(ufrag: "p\(person)c\(number)g\(generation)", password: "simulatedpasswordsimulated\(number)g\(generation)")
    }

    mutating func freshAddress() -> SocketAddress {
        addressesUsed += 1
        return SocketAddress(IPAddress(v4: 0xCB00_7105), port: 20_000 + addressesUsed)
    }

    mutating func move(_ person: Int, to address: SocketAddress) {
        persons[person].address = address
        clients[person]?.address = address
        owners[address, default: []].insert(persons[person].session)
    }

    /// What the present client of `person` has seen, before it goes.
    mutating func retire(_ person: Int) {
        guard let seen = clients[person]?.report else { return }
        judge(seen, of: person)
        clients[person] = nil
    }
}

// MARK: - The run

extension FaultSimulation {
    /// Runs to the end and tells what became of it.
    public consuming func run() -> FaultReport {
        var stepsAtNow = 0
        while phase != .over, report.violations.isEmpty {
            let next = max(now, nextMoment())
            stepsAtNow = next == now ? stepsAtNow + 1 : 0
            if stepsAtNow > 10_000 { violate("time stands still") }
            if next == .never { violate("nothing will ever happen again") }
            now = next
            step()
            direct()
        }
        report.network = network.counters
        report.fingerprint = fingerprint
        return report
    }

    private mutating func nextMoment() -> Instant {
        var next = min(network.nextArrival, nextDirection(), nextAttack)
        for number in 0..<relays.count {
            if let deadline = relays[number]?.nextDeadline.instant { next = min(next, deadline) }
        }
        let now = now
        for number in 0..<machines.count {
            if let deadline = machines[number]?.nextDeadline(at: now) { next = min(next, deadline) }
        }
        for number in 0..<clients.count {
            if let deadline = clients[number]?.nextDeadline { next = min(next, deadline) }
        }
        return next
    }

    private mutating func step() {
        report.steps += 1
        while let datagram = network.nextArrived(by: now) { deliver(datagram) }
        for person in 0..<clients.count {
            clients[person]?.advance(to: now)
            while let bytes = clients[person]?.nextTransmit(at: now) { sendUp(bytes, from: person) }
        }
        if now >= nextAttack { attack() }
        for number in 0..<relays.count {
            relays[number]?.advance(to: now)
            drainRelay(number)
        }
        for number in 0..<machines.count {
            let now = now
            machines[number]?.worker.advance(to: now)
            carryOut(number)
        }
    }

    private mutating func sendUp(_ bytes: [UInt8], from person: Int) {
        let source = persons[person].address
        guard persons[person].cutsUp == 0 else {
            // Who cuts somebody off may keep what he would have said: the one way to have something fresh.
            if random.next() % 8 == 0 { record(bytes, from: source, isStolen: true) }
            return
        }
        network.send(bytes, from: source, to: Self.publicAddress, over: access, at: now)
    }

    private mutating func deliver(_ datagram: FlyingDatagram) {
        fingerprint =
            (fingerprint ^ UInt64(datagram.destination.port) ^ UInt64(datagram.bytes.count) << 16 ^ now.nanoseconds) &* 0x100_0000_01B3
        if datagram.destination == Self.publicAddress {
            let relay = persons.first { $0.address == datagram.source }?.relay ?? Int(datagram.source.port) % FaultPlan.relays
            _ = relays[relay]?.receive(datagram.bytes.span.bytes, from: datagram.source, at: now)
            drainRelay(relay)
            return
        }
        for relay in 0..<FaultPlan.relays where datagram.destination == Self.trunkAddress(relay: relay) {
            return deliver(datagram, toRelay: relay)
        }
        for machine in 0..<FaultPlan.transceivers where datagram.destination == Self.trunkAddress(machine: machine) {
            return deliver(datagram, toMachine: machine)
        }
        for person in 0..<persons.count where persons[person].address == datagram.destination {
            if persons[person].cutsDown == 0 { clients[person]?.receive(datagram.bytes, at: now) }
            return
        }
        if Self.isAttacker(datagram.destination) { noteLoot(datagram) }
    }

    private func isParted(_ relay: Int, _ machine: Int) -> Bool { partitions.contains { $0.relay == relay && $0.transceiver == machine } }

    private mutating func deliver(_ datagram: FlyingDatagram, toMachine machine: Int) {
        for relay in 0..<FaultPlan.relays where datagram.source == Self.trunkAddress(relay: relay) {
            if isParted(relay, machine) { return }
            // Nobody listens. Some networks tell (ICMP), others keep it to themselves.
            if machines[machine] == nil, plan.seed % 2 == 0 { relays[relay]?.noteUnreachable(datagram.destination, at: now) }
        }
        inspectUplink(datagram.bytes, to: machine)
        machines[machine]?.worker.receive(datagram.bytes.span.bytes, from: datagram.source, at: now)
        carryOut(machine)
    }

    private mutating func deliver(_ datagram: FlyingDatagram, toRelay relay: Int) {
        for machine in 0..<FaultPlan.transceivers where datagram.source == Self.trunkAddress(machine: machine) {
            if isParted(relay, machine) { return }
        }
        guard relays[relay] != nil else { return }
        inspectDownlink(datagram.bytes, from: datagram.source)
        guard var frame = relays[relay]!.openTrunk(datagram.bytes.span.bytes, from: datagram.source, at: now) else { return }
        while let record = relays[relay]!.nextDelivery(of: &frame, at: now) {
            network.send(record.payload.array, from: Self.publicAddress, to: record.client, over: access, at: now)
        }
    }

    mutating func drainRelay(_ number: Int) {
        while let next = relays[number]?.peekTransmit() {
            let length = buffer.write(0, 0..<65_536) { _ = relays[number]?.nextTransmit(into: &$0) }
            sendTrain(length, next, from: Self.trunkAddress(relay: number))
        }
    }

    /// Commands of signaling to the worker, its trains to the network, its events to signaling.
    mutating func carryOut(_ machine: Int, newCallOf person: Int? = nil) {
        guard machines[machine] != nil else { return }
        while let command = machines[machine]!.desk.nextCommand() {
            if case .create(let parameters) = command.command, let person {
                persons[person].session = parameters.id
                calls[parameters.id] = CallFacts(machine: machine, heardAt: now)
            }
            machines[machine]!.worker.perform(command.command, at: now)
        }
        while let next = machines[machine]!.worker.peekTransmit() {
            let length = buffer.write(0, 0..<65_536) { _ = machines[machine]!.worker.nextTransmit(into: &$0) }
            sendTrain(length, next, from: Self.trunkAddress(machine: machine))
        }
        while let event = machines[machine]!.worker.nextEvent() {
            if case .ended(let session, let reason) = event { noteEnd(of: session, reason) }
            machines[machine]!.desk.receive(event, from: 0)
        }
    }

    private mutating func noteEnd(of session: UInt32, _ reason: SessionEndReason) {
        if calls[session]?.isAlive != true { violate("a session ended twice") }
        calls[session]?.isAlive = false
        let person = persons.firstIndex { $0.session == session }.map { "person \($0 + 1)'s" } ?? "an old"
        note("\(person) call ended: \(reason)")
    }

    private mutating func sendTrain(_ length: Int, _ transmit: TrunkTransmit, from source: SocketAddress) {
        let size = transmit.segmentSize == 0 ? length : transmit.segmentSize
        for start in stride(from: 0, to: length, by: size) {
            let frame = buffer.bytes(0, start..<min(start + size, length)).array
            noteGifts(frame)
            network.send(frame, from: source, to: transmit.destination, over: trunk, at: now)
        }
    }

    mutating func note(_ text: String) {
        guard plan.isTraced else { return }
        report.trace.append("\((now - Self.beginning).milliseconds) ms  \(text)")
    }

    mutating func violate(_ text: String) {
        guard report.violations.count < 5 else { return }
        report.violations.append("\(text), at \((now - Self.beginning).milliseconds) ms")
        note("BROKEN: \(text)")
    }
}
