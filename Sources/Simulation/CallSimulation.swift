// Calls through one relay to one transceiver: offer, checks, handshake, voice, faults, hangup.

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

public enum SimulationError: Error { case offerRefused }

public struct CallSimulation: ~Copyable {
    private let plan: CallPlan
    private var now = CallSimulation.beginning
    private var network: VirtualNetwork
    private let relayConfiguration: RelayConfiguration
    private let ring: KeyRing
    private var relay: Relay
    private var worker: TransceiverWorker
    private var desk: SignalingDesk
    private var clients: Slab<SimulatedClient?>
    /// Of each client, as signaling named it.
    private var resources: [String] = []
    /// And as trunk records do.
    private var sessions: [UInt32] = []
    private var random: SeededGenerator
    private var report = CallReport()
    private var trace: UInt64 = 0xCBF2_9CE4_8422_2325
    private var buffer = ByteSlab(count: 1, slotSize: 65_536)

    private var allConnectedAt: Instant?
    private var faultsDone = 0
    private var hungUpAt: Instant?
    private var endsAt = CallSimulation.beginning + CallSimulation.patience
    private var stepsAtNow = 0

    static let beginning = Instant(nanoseconds: 1_000_000_000)
    private static let wall = WallClock(secondsSince1970: 1_800_000_000)
    private static let relayPublic = SocketAddress(IPAddress(v4: 0xC633_6401), port: 3478)
    private static let relayTrunk = SocketAddress(IPAddress(v4: 0x0A00_0001), port: 4000)
    private static let transceiverTrunk = SocketAddress(IPAddress(v4: 0x0A00_0101), port: 5000)
    /// Longer than any call of a plan: a run that has not ended by then is stuck.
    private static let patience = Interval.seconds(150)
    /// Long enough for goodbyes, and for the relay to forget every flow that ever was.
    private static let aftermath = Interval.seconds(75)

    /// Throws what a client would be told: a refused offer, or libcrypto's refusal of a key.
    public init(_ plan: CallPlan) throws {
        // Everything that can throw comes first: a value that cannot be copied cannot be half made.
        var random = SeededGenerator(seed: plan.seed)
        let ring = KeyRing.generate(random: &random)
        let certificate = try DTLSCertificate.generate(at: Self.wall)
        let context = try DTLSContext(certificate: certificate)
        var desk = SignalingDesk(
            settings: SignalingDesk.Settings(
                cluster: 1, transceiver: 7, workers: 1, advertise: [Self.relayPublic], fingerprint: certificate.fingerprint, callsMax: 16),
            codec: HintCodec(ring), access: AccessControl(keys: nil, secrets: ClientSecrets(ring)),
            random: SeededGenerator(seed: random.next()))
        var clients = Slab<SimulatedClient?>(count: plan.scenario.clients) { _ in nil }
        var resources: [String] = []
        for number in 0..<clients.count {
            clients[number] = try Self.call(UInt32(number), plan, &desk, &resources, &random)
        }
        self.plan = plan
        self.desk = desk
        self.clients = clients
        self.resources = resources
        self.ring = ring
        network = VirtualNetwork(seed: random.next())
        relayConfiguration = RelayConfiguration(
            cluster: 1, relayID: 1, worker: 0, transceivers: .table([TransceiverEntry(id: 7, address: Self.transceiverTrunk)]),
            ownAddresses: [Self.relayPublic, Self.relayTrunk], flowCapacity: 64)
        relay = Relay(
            relayConfiguration, keys: ring, hashKey: SipKey(k0: random.next(), k1: random.next()), wall: Self.wall, now: Self.beginning)
        worker = TransceiverWorker(
            identity: TransceiverWorker.Identity(cluster: 1, transceiver: 7, worker: 0),
            settings: SessionSettings(backend: .echo(delay: plan.echoDelay), clock: NTPClock(wall: Self.wall, at: Self.beginning)),
            key: ring.trunkKey, dtls: context, capacity: 16, now: Self.beginning)
        self.random = random
        if plan.accessIsCut { for number in 0..<resources.count { network.unreachable.insert(Self.address(number)) } }
    }

    /// All calls come from one address, as behind one NAT.
    private static func address(_ number: Int, moved: Int = 0) -> SocketAddress {
        SocketAddress(IPAddress(v4: 0xCB00_7105), port: UInt16(40_000 + number + 100 * moved))
    }

    private static func call(
        _ number: UInt32, _ plan: CallPlan, _ desk: inout SignalingDesk, _ resources: inout [String], _ random: inout SeededGenerator
    ) throws -> SimulatedClient {
        let certificate = try DTLSCertificate.generate(at: wall)
        let credentials = credentials(number, generation: 1)
        let offer = simulatedOffer(credentials, fingerprint: certificate.fingerprint, ssrc: SimulatedClient.ssrc(of: number))
        let request = HTTPRequest(
            method: "POST", path: "/whip", headers: HTTPHeaders([("Content-Type", "application/sdp")]), body: Array(offer.utf8))
        guard let response = desk.answer(request, at: wall), response.status == 201, let location = response.headers["Location"],
            let facts = AnswerFacts(String(decoding: response.body, as: UTF8.self))
        else { throw SimulationError.offerRefused }
        resources.append(location)
        return try SimulatedClient(
            number: number, address: address(Int(number)), credentials: credentials, certificate: certificate, answer: facts,
            frames: plan.frames, seed: random.next(), at: beginning)
    }

    private static func credentials(_ number: UInt32, generation: Int) -> ICECredentials {
        ICECredentials(ufrag: "sim\(number)g\(generation)", password: "simulatedpasswordsimulated\(number)g\(generation)")
    }
}

// MARK: - The run

extension CallSimulation {
    /// Runs the calls to their end and tells what became of them.
    public consuming func run() -> CallReport {
        carryOut()
        while now < endsAt, report.complaints.isEmpty {
            let next = max(now, min(nextMoment(), endsAt))
            stepsAtNow = next == now ? stepsAtNow + 1 : 0
            if stepsAtNow > 10_000 { report.complaints.append("time stands still at \((now - Self.beginning).milliseconds) ms") }
            now = next
            step()
            direct()
            carryOut()
        }
        finish()
        return report
    }

    private mutating func nextMoment() -> Instant {
        var next = min(network.nextArrival, relay.nextDeadline.instant, worker.nextDeadline(at: now))
        for number in 0..<clients.count { next = min(next, clients[number]?.nextDeadline ?? .never) }
        if let start = allConnectedAt, faultsDone < plan.scenario.faults.count {
            next = min(next, start + plan.scenario.faults[faultsDone].after)
        }
        if let hungUpAt, now < hungUpAt + .seconds(1) { next = min(next, hungUpAt + .seconds(1)) }
        return next
    }

    private mutating func step() {
        report.steps += 1
        while let datagram = network.nextArrived(by: now) { deliver(datagram) }
        for number in 0..<clients.count {
            clients[number]?.advance(to: now)
            while let bytes = clients[number]?.nextTransmit(at: now) {
                let source = clients[number]?.address ?? Self.address(number)
                network.send(bytes, from: source, to: Self.relayPublic, over: plan.access, at: now)
            }
        }
        relay.advance(to: now)
        worker.advance(to: now)
        carryOut()
    }

    /// What signaling has decided, at once, and what the worker has to say about it.
    private mutating func carryOut() {
        while let command = desk.nextCommand() {
            if case .create(let parameters) = command.command { sessions.append(parameters.id) }
            worker.perform(command.command, at: now)
        }
        drainRelay()
        drainWorker()
        while let event = worker.nextEvent() {
            if case .connected(let session) = event, let number = sessions.firstIndex(of: session) {
                clients[number]?.noteServerReady(at: now)
            }
            desk.receive(event, from: 0)
        }
    }

    private mutating func deliver(_ datagram: FlyingDatagram) {
        // Not the lengths: OpenSSL's randomness is its own, and signatures differ by a byte or two.
        note(UInt64(datagram.destination.port))
        switch datagram.destination {
        case Self.relayPublic: _ = relay.receive(datagram.bytes.span.bytes, from: datagram.source, at: now)
        case Self.relayTrunk: deliverToRelay(datagram)
        case Self.transceiverTrunk: worker.receive(datagram.bytes.span.bytes, from: datagram.source, at: now)
        default:
            // A NAT drops what is for an address that it has given up.
            for number in 0..<clients.count where clients[number]?.address == datagram.destination {
                clients[number]?.receive(datagram.bytes, at: now)
            }
        }
        drainRelay()
        drainWorker()
    }

    private mutating func deliverToRelay(_ datagram: FlyingDatagram) {
        guard var frame = relay.openTrunk(datagram.bytes.span.bytes, from: datagram.source, at: now) else { return }
        while let record = relay.nextDelivery(of: &frame, at: now) {
            network.send(record.payload.array, from: Self.relayPublic, to: record.client, over: plan.access, at: now)
        }
    }

    private mutating func drainRelay() {
        while let next = relay.peekTransmit() {
            let length = buffer.write(0, 0..<65_536) { _ = relay.nextTransmit(into: &$0) }
            sendTrain(length, next, from: Self.relayTrunk)
        }
    }

    private mutating func drainWorker() {
        while let next = worker.peekTransmit() {
            let length = buffer.write(0, 0..<65_536) { _ = worker.nextTransmit(into: &$0) }
            sendTrain(length, next, from: Self.transceiverTrunk)
        }
    }

    /// What the kernel does with UDP_SEGMENT.
    private mutating func sendTrain(_ length: Int, _ transmit: TrunkTransmit, from source: SocketAddress) {
        let train = buffer.bytes(0, length).array
        let size = transmit.segmentSize == 0 ? length : transmit.segmentSize
        for start in stride(from: 0, to: length, by: size) {
            let frame = Array(train[start..<min(start + size, length)])
            network.send(frame, from: source, to: transmit.destination, over: plan.trunk, at: now)
        }
    }

    private mutating func note(_ value: UInt64) { trace = (trace ^ value ^ now.nanoseconds) &* 0x100_0000_01B3 }
}

// MARK: - What happens when

extension CallSimulation {
    private mutating func direct() {
        if allConnectedAt == nil, all({ $0.isConnected }) { allConnectedAt = now }
        guard let start = allConnectedAt else { return }
        let faults = plan.scenario.faults
        while faultsDone < faults.count, now >= start + faults[faultsDone].after {
            happen(faults[faultsDone].fault)
            faultsDone += 1
        }
        if let hungUpAt {
            guard now >= hungUpAt + .seconds(1) else { return }
            for number in 0..<clients.count { clients[number]?.leave() }
        } else if faultsDone == faults.count, all({ $0.hasSaidEverything }), talkEnded() {
            hangUp()
        }
    }

    private func all(_ condition: (borrowing SimulatedClient) -> Bool) -> Bool {
        for number in 0..<clients.count {
            switch clients[number] {
            case .some(let client): guard condition(client) else { return false }
            case .none: return false
            }
        }
        return true
    }

    /// The last echo has had its time.
    private func talkEnded() -> Bool { all { now >= ($0.lastSaidAt ?? .zero) + plan.echoDelay + .seconds(2) } }

    private mutating func happen(_ fault: Fault) {
        note(UInt64(faultsDone))
        switch fault {
        case .killRelay:
            network.unreachable.formUnion([Self.relayPublic, Self.relayTrunk])
            report.relayDatagrams += relay.counters.publicDatagrams
        case .startRelay: startRelay()
        case .fallSilent: for number in 0..<clients.count { clients[number]?.fallSilent(at: now) }
        case .wake: for number in 0..<clients.count { clients[number]?.wake(at: now) }
        case .restartICE: for number in 0..<clients.count { restartICE(number) }
        case .rebind:
            for number in 0..<clients.count {
                clients[number]?.address = Self.address(number, moved: 1 + faultsDone)
                clients[number]?.noteFault(.rebind, began: now, ended: now)
            }
        }
    }

    private mutating func startRelay() {
        let elapsed = UInt64((now - Self.beginning).milliseconds / 1000)
        relay = Relay(
            relayConfiguration, keys: ring, hashKey: SipKey(k0: random.next(), k1: random.next()),
            wall: WallClock(secondsSince1970: Self.wall.secondsSince1970 + elapsed), now: now)
        network.unreachable.subtract([Self.relayPublic, Self.relayTrunk])
        for number in 0..<clients.count { clients[number]?.noteFault(.relay, began: now - .milliseconds(300), ended: now) }
    }

    /// What a WHIP client does: new credentials to the resource, new ones of the server back.
    private mutating func restartICE(_ number: Int) {
        let local = Self.credentials(UInt32(number), generation: 2)
        var headers = HTTPHeaders([("Content-Type", "application/trickle-ice-sdpfrag"), ("If-Match", "*")])
        let body = Array(simulatedRestart(local).utf8)
        let request = HTTPRequest(method: "PATCH", path: resources[number], headers: headers, body: body)
        guard let response = desk.answer(request, at: Self.wall), response.status == 200, let etag = response.headers["ETag"],
            let remote = ICECredentials(in: String(decoding: response.body, as: UTF8.self))
        else {
            report.complaints.append("an ICE restart was refused")
            return
        }
        headers.set("If-Match", etag)
        let trickle = HTTPRequest(method: "PATCH", path: resources[number], headers: headers, body: body)
        if desk.answer(trickle, at: Self.wall)?.status != 204 { report.complaints.append("the new ETag was refused") }
        clients[number]?.restartICE(local: local, remote: remote, at: now)
    }

    private mutating func hangUp() {
        for resource in resources {
            let request = HTTPRequest(method: "DELETE", path: resource, headers: HTTPHeaders(), body: [])
            if desk.answer(request, at: Self.wall)?.status != 200 { report.complaints.append("a hangup was refused") }
        }
        var refused: UInt64 = 0
        for reason in 0..<relay.counters.dropped.count { refused += relay.counters.dropped[reason] }
        for reason in 0..<worker.counters.dropped.count { refused += worker.counters.dropped[reason] }
        report.refusedWhileTalking = refused
        hungUpAt = now
        endsAt = now + Self.aftermath
    }

    private mutating func finish() {
        for number in 0..<clients.count { if let seen = clients[number]?.report { report.clients.append(seen) } }
        report.network = network.counters
        report.relayDatagrams += relay.counters.publicDatagrams
        report.worker = worker.counters
        report.relayFlowsAtEnd = relay.flows.count
        report.sessionsAtEnd = worker.sessionCount
        report.callsAtEnd = desk.callCount
        report.fingerprint = trace
        report.violations = brokenPromises(of: report, plan)
    }
}
