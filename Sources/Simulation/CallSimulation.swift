// One call through one relay to one transceiver, in virtual time: offer, checks, handshake, voice, hangup. The very cores that the programs
// run; only sockets, clocks and threads are not there. A seed decides everything, so a failing run comes back by its number.

import Crypto
import DTLS
import HTTP
import Primitives
import RTP
import RelayCore
import RoutingHint
import TransceiverCore
import Trunk

/// What a simulated call is made of.
public struct CallPlan: Sendable {
    public var seed: UInt64
    /// Client ⇄ relay, each way.
    public var access: LinkProfile
    /// Relay ⇄ transceiver, each way.
    public var trunk = LinkProfile(delay: .microseconds(200))
    /// Frames of 20 ms that the client says.
    public var frames: UInt32 = 500
    public var echoDelay = Interval.milliseconds(500)

    public init(seed: UInt64, access: LinkProfile) {
        self.seed = seed
        self.access = access
    }
}

/// What became of it.
public struct CallReport: Sendable {
    public var connectedAfter: Interval?
    public var framesSent = 0
    public var framesHeard = 0
    public var network = VirtualNetwork.Counters()
    public var relayFlowsAtEnd = 0
    public var sessionsAtEnd = 0
    public var heardGoodbye = false
    public var steps = 0
    /// Promises that were broken; empty when all is well.
    public var violations: [String] = []
    /// A number over everything that happened: equal for equal seeds.
    public var fingerprint: UInt64 = 0
}

public struct CallSimulation: ~Copyable {
    private let plan: CallPlan
    private var now = CallSimulation.beginning
    private let startedAt = CallSimulation.beginning
    private var network: VirtualNetwork
    private var relay: Relay
    private var worker: TransceiverWorker
    private var desk: SignalingDesk
    private var client: SimulatedClient
    private let callPath: String
    private var report = CallReport()
    private var trace: UInt64 = 0xCBF2_9CE4_8422_2325
    private var buffer = ByteSlab(count: 1, slotSize: 65_536)

    private static let beginning = Instant(nanoseconds: 1_000_000_000)
    private static let wall = WallClock(secondsSince1970: 1_800_000_000)
    private static let clientAddress = SocketAddress(IPAddress(v4: 0xCB00_7105), port: 40_000)
    private static let relayPublic = SocketAddress(IPAddress(v4: 0xC633_6401), port: 3478)
    private static let relayTrunk = SocketAddress(IPAddress(v4: 0x0A00_0001), port: 4000)
    private static let transceiverTrunk = SocketAddress(IPAddress(v4: 0x0A00_0101), port: 5000)
    /// Longer than any call of a plan: a run that has not ended by then is stuck.
    private static let patience = Interval.seconds(120)

    /// Throws what a client would be told: a refused offer, or libcrypto's refusal of a key.
    public init(_ plan: CallPlan) throws {
        // Everything that can throw comes first: a value that cannot be copied cannot be half made.
        var random = SeededGenerator(seed: plan.seed)
        let ring = KeyRing.generate(random: &random)
        let certificate = try DTLSCertificate.generate(at: Self.wall)
        let own = try DTLSCertificate.generate(at: Self.wall)
        let context = try DTLSContext(certificate: certificate)
        var desk = SignalingDesk(
            settings: SignalingDesk.Settings(
                cluster: 1, transceiver: 7, workers: 1, advertise: [Self.relayPublic], fingerprint: certificate.fingerprint, callsMax: 16),
            codec: HintCodec(ring), random: SeededGenerator(seed: random.next()))
        let request = HTTPRequest(
            method: "POST", path: "/v1/realtime/calls", headers: HTTPHeaders([("Content-Type", "application/sdp")]),
            body: Array(Self.offer(fingerprint: own.fingerprint.sdpText).utf8))
        guard let response = desk.answer(request, at: Self.wall), response.status == 201, let location = response.headers["Location"],
            let facts = AnswerFacts(String(decoding: response.body, as: UTF8.self))
        else { throw SimulationError.offerRefused }
        let client = try SimulatedClient(
            address: Self.clientAddress, ufrag: "simu", password: "simulatedpasswordsimulated", certificate: own, answer: facts,
            frames: plan.frames, seed: random.next(), at: Self.beginning)

        self.plan = plan
        self.desk = desk
        self.client = client
        callPath = location
        network = VirtualNetwork(seed: random.next())
        let entry = TransceiverEntry(id: 7, address: Self.transceiverTrunk)
        relay = Relay(
            RelayConfiguration(
                cluster: 1, relayID: 1, worker: 0, transceivers: .table([entry]), ownAddresses: [Self.relayPublic, Self.relayTrunk],
                flowCapacity: 64), keys: ring, hashKey: SipKey(k0: random.next(), k1: random.next()), wall: Self.wall, now: Self.beginning)
        worker = TransceiverWorker(
            identity: TransceiverWorker.Identity(cluster: 1, transceiver: 7, worker: 0),
            settings: SessionSettings(backend: .echo(delay: plan.echoDelay), clock: NTPClock(wall: Self.wall, at: Self.beginning)),
            key: ring.trunkKey, dtls: context, capacity: 16, now: Self.beginning)
    }

    /// Runs the call to its end and tells what became of it.
    public consuming func run() -> CallReport {
        var hungUp = false
        var endsAt = startedAt + Self.patience
        while now < endsAt {
            let next = min(network.nextArrival, client.nextDeadline, relay.nextDeadline.instant, worker.nextDeadline(at: now))
            now = max(now, min(next, endsAt))
            step()
            let isDone = client.sentFrames == plan.frames && client.connectedAt != nil
            if isDone, !hungUp, talkEnded() {
                hungUp = true
                hangUp()
                // Long enough for goodbyes, and for the relay to forget the flow.
                endsAt = min(endsAt, now + .seconds(15))
            }
        }
        finish()
        return report
    }
}

public enum SimulationError: Error { case offerRefused }

// MARK: - Steps

extension CallSimulation {
    private mutating func step() {
        report.steps += 1
        while let command = desk.nextCommand() { worker.perform(command.command, at: now) }
        while let datagram = network.nextArrived(by: now) { deliver(datagram) }
        client.advance(to: now)
        while let bytes = client.nextTransmit(at: now) {
            network.send(bytes, from: Self.clientAddress, to: Self.relayPublic, over: plan.access, at: now)
        }
        relay.advance(to: now)
        worker.advance(to: now)
        drainRelay()
        drainWorker()
        while let event = worker.nextEvent() { desk.receive(event, from: 0) }
    }

    private mutating func deliver(_ datagram: FlyingDatagram) {
        // Not the lengths: OpenSSL's randomness is its own, and signatures differ by a byte or two.
        note(UInt64(datagram.destination.port))
        switch datagram.destination {
        case Self.clientAddress: client.receive(datagram.bytes, at: now)
        case Self.relayPublic: _ = relay.receive(datagram.bytes.span.bytes, from: datagram.source, at: now)
        case Self.relayTrunk: deliverToRelay(datagram)
        default: worker.receive(datagram.bytes.span.bytes, from: datagram.source, at: now)
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

    private mutating func hangUp() {
        let request = HTTPRequest(method: "POST", path: callPath + "/hangup", headers: HTTPHeaders(), body: [])
        if desk.answer(request, at: Self.wall)?.status != 200 { report.violations.append("hangup was refused") }
    }

    /// The last echo has had its time.
    private func talkEnded() -> Bool {
        guard let connected = client.connectedAt else { return false }
        let spoken = SimulatedClient.frameInterval * Int64(plan.frames)
        return now >= connected + spoken + plan.echoDelay + .seconds(2)
    }

    private mutating func note(_ value: UInt64) { trace = (trace ^ value ^ now.nanoseconds) &* 0x100_0000_01B3 }
}

// MARK: - Promises

extension CallSimulation {
    private mutating func finish() {
        report.connectedAfter = client.connectedAt.map { $0 - startedAt }
        report.framesSent = Int(client.sentFrames)
        report.framesHeard = client.echoes.count
        report.network = network.counters
        report.relayFlowsAtEnd = relay.flows.count
        report.sessionsAtEnd = worker.sessionCount
        report.heardGoodbye = client.heardGoodbye
        report.fingerprint = trace
        checkPromises()
    }

    private mutating func checkPromises() {
        func broken(_ text: String) { report.violations.append(text) }
        if client.connectedAt == nil { broken("the call never connected") }
        if client.sentFrames != plan.frames { broken("the client said \(client.sentFrames) frames of \(plan.frames)") }
        if Set(client.echoes).count != client.echoes.count { broken("a frame was heard twice") }
        if client.echoes.contains(where: { $0 >= client.sentFrames }) { broken("a frame was heard that nobody said") }
        // Two passes over the access link, and bursts: four times the expected loss, and some.
        let lost = client.sentFrames - UInt32(client.echoes.count)
        let allowed = UInt64(plan.frames) * plan.access.lossPPM * 8 / 1_000_000 + (plan.access.lossPPM > 0 ? 60 : 0)
        if UInt64(lost) > allowed { broken("\(lost) frames of \(plan.frames) were lost, \(allowed) are allowed") }
        if worker.sessionCount != 0 { broken("the session outlived its hangup") }
        if desk.callCount != 0 { broken("signaling still knows the call") }
        if plan.access.lossPPM == 0, !client.heardGoodbye { broken("the client heard no goodbye") }
    }

    private static func offer(fingerprint: String) -> String {
        [
            "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0",
            "a=mid:0", "a=sendrecv", "a=rtcp-mux", "a=ice-ufrag:simu", "a=ice-pwd:simulatedpasswordsimulated",
            "a=fingerprint:\(fingerprint)", "a=setup:actpass", "a=rtpmap:111 opus/48000/2",
            "a=ssrc:\(SimulatedClient.ssrc) cname:simulated",
        ].map { $0 + "\r\n" }.joined()
    }
}
