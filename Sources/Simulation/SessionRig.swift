// The core of a media worker with real callers around it, and neither network nor clock: what a packet there and back costs, counted in
// instructions. Everything that callers do is done before the part that is counted.

import Crypto
import DTLS
import HTTP
import Primitives
import RTP
import RoutingHint
import TransceiverCore
import Trunk

/// Callers that are connected, packets that they will say, and the worker that echoes them.
public struct SessionRig: ~Copyable {
    public struct Plan: Sendable {
        public var calls: Int
        /// Packets of one turn, each of another caller.
        public var batch: Int
        /// Bytes of Opus in a packet.
        public var size: Int
        public var echoDelay: Interval
        public var hasDataChannel: Bool
        public var seed: UInt64

        public init(calls: Int, batch: Int, size: Int, echoDelay: Interval, hasDataChannel: Bool, seed: UInt64 = 1) {
            self.calls = calls
            self.batch = min(batch, calls)
            self.size = size
            self.echoDelay = echoDelay
            self.hasDataChannel = hasDataChannel
            self.seed = seed
        }
    }

    private let plan: Plan
    private let callers: LoadCallers
    private var calls: Slab<LoadCaller?>
    private var sessions: [UInt32]
    private let key: SipKey
    private var worker: TransceiverWorker
    private var buffer = ByteSlab(count: 2, slotSize: 65_536)
    private var now = SessionRig.beginning
    /// The relay's frames to the worker.
    private var trains: TrunkTrains
    /// All frames that will come, where each ends, and which one is each turn's last.
    private var said: [UInt8] = []
    private var ends: [Int] = []
    private var turnEnds: [Int] = []
    /// Who says something next.
    private var speaker = 0
    /// What comes next.
    private var turn = 0
    private var frame = 0
    private var offset = 0

    private static let beginning = Instant(nanoseconds: 1_000_000_000)
    private static let wall = WallClock(secondsSince1970: 1_800_000_000)
    private static let relayPublic = SocketAddress(IPAddress(v4: 0xC633_6401), port: 3478)
    private static let relayTrunk = SocketAddress(IPAddress(v4: 0x0A00_0001), port: 4000)
    private static let cluster: UInt16 = 1
    private static let transceiver: UInt32 = 7
    private static let relay: UInt16 = 1
    private static let interval = Interval.milliseconds(20)

    /// Throws what a client would be told: a refused offer, or libcrypto's refusal of a key.
    public init(_ plan: Plan) throws {
        var random = SeededGenerator(seed: plan.seed)
        let ring = KeyRing.generate(random: &random)
        let certificate = try DTLSCertificate.generate(at: Self.wall)
        let context = try DTLSContext(certificate: certificate)
        let callers = try LoadCallers(hasDataChannel: plan.hasDataChannel, wall: Self.wall)
        var desk = SignalingDesk(
            settings: SignalingDesk.Settings(
                cluster: Self.cluster, transceiver: Self.transceiver, workers: 1, advertise: [Self.relayPublic],
                fingerprint: certificate.fingerprint, callsMax: plan.calls),
            codec: HintCodec(ring), access: AccessControl(keys: nil, secrets: ClientSecrets(ring)),
            random: SeededGenerator(seed: random.next()))
        var worker = TransceiverWorker(
            identity: TransceiverWorker.Identity(cluster: Self.cluster, transceiver: Self.transceiver, worker: 0),
            settings: SessionSettings(backend: .echo(delay: plan.echoDelay), clock: NTPClock(wall: Self.wall, at: Self.beginning)),
            key: ring.trunkKey, dtls: context, capacity: plan.calls, now: Self.beginning)
        var calls = Slab<LoadCaller?>(count: plan.calls) { _ in nil }
        var sessions: [UInt32] = []
        for number in 0..<plan.calls {
            calls[number] = try Self.place(UInt32(number), callers, &desk)
            while let command = desk.nextCommand() {
                if case .create(let parameters) = command.command { sessions.append(parameters.id) }
                worker.perform(command.command, at: Self.beginning)
            }
        }
        guard sessions.count == plan.calls else { throw SimulationError.offerRefused }
        self.plan = plan
        self.callers = callers
        self.calls = calls
        self.sessions = sessions
        self.worker = worker
        key = ring.trunkKey
        trains = TrunkTrains(capacity: 1, key: ring.trunkKey)
    }

    private static func place(_ number: UInt32, _ callers: borrowing LoadCallers, _ desk: inout SignalingDesk) throws -> LoadCaller {
        let request = HTTPRequest(
            method: "POST", path: "/v1/realtime/calls", headers: HTTPHeaders([("Content-Type", "application/sdp")]),
            body: Array(callers.offer(number).utf8))
        guard let response = desk.answer(request, at: wall), response.status == 201,
            let caller = callers.caller(number, answer: String(decoding: response.body, as: UTF8.self), at: beginning)
        else { throw SimulationError.offerRefused }
        return caller
    }

    private static func address(_ number: Int) -> SocketAddress {
        SocketAddress(IPAddress(v4: 0xCB00_7100 + UInt32(number >> 8)), port: UInt16(10_000 + (number & 0xFF)))
    }

    private static func number(_ address: SocketAddress) -> Int {
        Int(address.ip.low & 0xFF) << 8 | Int(address.port) - 10_000
    }
}

// MARK: - Before

extension SessionRig {
    /// Lets everybody connect; false when that did not work in ten seconds of virtual time.
    public mutating func connect() -> Bool {
        let end = now + .seconds(10)
        while now < end {
            now = now + .milliseconds(1)
            for number in 0..<calls.count {
                calls[number]?.advance(to: now)
                flush(number)
            }
            worker.advance(to: now)
            deliver()
            while worker.nextEvent() != nil {}
            if ready == calls.count { return true }
        }
        return false
    }

    private var ready: Int {
        var count = 0
        for number in 0..<calls.count {
            switch calls[number] {
            case .some(let caller): count += caller.isReady ? 1 : 0
            case .none: break
            }
        }
        return count
    }

    private mutating func flush(_ number: Int) {
        while true {
            var wrote = false
            let length = buffer.write(0, 0..<LoadCaller.datagramMax) { wrote = calls[number]?.nextTransmit(into: &$0, at: now) ?? false }
            guard wrote else { return }
            gather(length, from: number)
            let (bytes, size) = takeTrain()
            for start in stride(from: 0, to: bytes.count, by: size) {
                Self.receive(bytes, start..<min(start + size, bytes.count), &worker, now)
            }
        }
    }

    /// As a relay does: what one turn brings shares frames.
    private mutating func gather(_ length: Int, from number: Int) {
        Self.gather(buffer, length, number, sessions[number], &trains)
    }

    private static func gather(_ buffer: borrowing ByteSlab, _ length: Int, _ number: Int, _ session: UInt32, _ trains: inout TrunkTrains) {
        let header = TrunkHeader(
            kind: .clientData, worker: 0, cluster: cluster, transceiver: transceiver, ingressRelay: relay, ingressWorker: 0)
        let fits = trains.append(buffer.bytes(0, length), client: address(number), session: session, header: header, to: relayTrunk)
        precondition(fits, "one turn of callers is longer than a train")
    }

    /// All that was gathered, and the length of every frame but the last.
    private mutating func takeTrain() -> (bytes: [UInt8], size: Int) {
        guard let train = trains.nextDeparture() else { return ([], 1) }
        let size = train.transmit.segmentSize == 0 ? train.bytes.byteCount : train.transmit.segmentSize
        return (train.bytes.array, size)
    }

    /// What the worker has to say, to the callers.
    private mutating func deliver() {
        while let transmit = worker.peekTransmit() {
            let length = buffer.write(1, 0..<65_536) { _ = worker.nextTransmit(into: &$0) }
            let train = buffer.bytes(1, length).array
            let size = transmit.segmentSize == 0 ? length : transmit.segmentSize
            for start in stride(from: 0, to: length, by: size) { hear(Array(train[start..<min(start + size, length)])) }
        }
    }

    private mutating func hear(_ bytes: [UInt8]) {
        guard var frame = try? TrunkFrame(parsing: bytes.span.bytes, key: key) else { return }
        while let record = frame.nextRecord() {
            let number = Self.number(record.client)
            guard record.payload.byteCount > 0, record.payload.byteCount <= LoadCaller.datagramMax, number < calls.count else { continue }
            Self.hand(record.payload, to: &calls[number], &buffer, callers, now)
            flush(number)
        }
    }

    private static func hand(
        _ payload: RawSpan, to caller: inout LoadCaller?, _ buffer: inout ByteSlab, _ callers: borrowing LoadCallers, _ now: Instant
    ) {
        var datagram = buffer.mutableBytes(0, 0..<payload.byteCount)
        datagram.copy(payload, to: 0)
        caller?.receive(&datagram, callers: callers, at: now)
    }

    /// Has callers say all that so many turns will bring: 50 packets a second each.
    public mutating func prepare(turns: Int) {
        let voice = [UInt8](repeating: 0x5A, count: plan.size)
        for _ in 0..<turns {
            for _ in 0..<plan.batch {
                let length = Self.say(voice, &calls[speaker], &buffer)
                if length > 0 { gather(length, from: speaker) }
                speaker = speaker + 1 == calls.count ? 0 : speaker + 1
            }
            let (bytes, size) = takeTrain()
            let start = said.count
            said += bytes
            for place in stride(from: 0, to: bytes.count, by: size) { ends.append(start + min(place + size, bytes.count)) }
            turnEnds.append(ends.count)
        }
    }

    private static func say(_ voice: [UInt8], _ caller: inout LoadCaller?, _ buffer: inout ByteSlab) -> Int {
        var datagram = buffer.mutableBytes(0, 0..<LoadCaller.datagramMax)
        return caller?.say(voice.span.bytes, into: &datagram) ?? 0
    }
}

// MARK: - What is counted

extension SessionRig {
    /// Packets that came back, of what was said.
    public var echoed: Int { Int(worker.counters.audioPacketsSent) }

    /// The same as `run`, under a name that a profiler can be told.
    @inline(never)
    public mutating func measure(turns: Int) { run(turns: turns) }

    /// What a media worker does in so many turns.
    @inline(never)
    public mutating func run(turns: Int) {
        let pause = Interval(nanoseconds: Self.interval.nanoseconds * Int64(plan.batch) / Int64(plan.calls))
        let last = min(turn + turns, turnEnds.count)
        while turn < last {
            now = now + pause
            takeTurn()
        }
    }

    @inline(never)
    private mutating func takeTurn() {
        let end = turnEnds[turn]
        turn += 1
        while frame < end {
            Self.receive(said, offset..<ends[frame], &worker, now)
            offset = ends[frame]
            frame += 1
        }
        Self.depart(&worker)
        worker.advance(to: now)
        Self.depart(&worker)
        _ = worker.nextDeadline(at: now)
    }

    private static func receive(_ said: [UInt8], _ range: Range<Int>, _ worker: inout TransceiverWorker, _ now: Instant) {
        worker.receive(said.span.bytes.bytes(range), from: relayTrunk, at: now)
    }

    /// As the worker's thread does: it sends every train from where it lies.
    private static func depart(_ worker: inout TransceiverWorker) { while worker.nextDeparture() != nil {} }
}
