// A worker without its thread: trunk frames made here go in, and what it would send is taken apart again.
import Crypto
import DTLS
import ICE
import Primitives
import RTP
import STUN
import TestSupport
import TransceiverCore
import Trunk

/// A record of a frame, in a form that can be compared.
struct Record: Hashable, CustomStringConvertible {
    var client: SocketAddress
    var session: UInt32
    var payload: [UInt8]
    var description: String { "\(client) session \(session): \(hex(payload))" }
}

/// One frame on its way to a relay.
struct SentFrame: Hashable {
    var destination: SocketAddress
    var header: TrunkHeader
    var records: [Record]
    var probe: TrunkProbe?
}

struct WorkerBench: ~Copyable {
    /// What was told of ways to clients, since the beginning.
    var paths: [PathReport] = []
    var worker: TransceiverWorker
    var now = WorkerBench.beginning
    private var buffer = ByteSlab(count: 1, slotSize: 65_536)

    static let beginning = Instant(nanoseconds: 1_000_000_000)
    static let hop = SocketAddress("10.0.0.1:4000")!
    static let client = SocketAddress("203.0.113.5:40000")!
    /// Of the relay, towards the worker that `make` makes.
    static let header = TrunkHeader(kind: .clientData, worker: 3, cluster: 9, transceiver: 0x0A01_0203, ingressRelay: 77, ingressWorker: 5)

    static func make(
        capacity: Int = 8, trainsMax: Int = 8, backend: BackendChoice = .echo(delay: .milliseconds(500))
    ) throws -> WorkerBench {
        let wall = Sample.wall
        let context = try DTLSContext(certificate: DTLSCertificate.generate(at: wall))
        return WorkerBench(
            worker: TransceiverWorker(
                identity: TransceiverWorker.Identity(cluster: 9, transceiver: 0x0A01_0203, worker: 3),
                settings: SessionSettings(backend: backend, clock: NTPClock(wall: wall, at: beginning)),
                key: wellKnownTrunkKey, dtls: context, capacity: capacity, trainsMax: trainsMax, now: beginning))
    }

    private init(worker: consuming TransceiverWorker) { self.worker = worker }

    mutating func receive(_ frame: [UInt8], from hop: SocketAddress = WorkerBench.hop) {
        worker.receive(frame.span.bytes, from: hop, at: now)
    }

    /// One client's datagram in a frame of its own.
    mutating func receive(_ payload: [UInt8], session: UInt32, from client: SocketAddress = WorkerBench.client) {
        receive(clientFrame([Record(client: client, session: session, payload: payload)]))
    }

    mutating func create(_ session: UInt32, role: DTLSRole = .client) { worker.perform(.create(.sample(session, role: role)), at: now) }

    /// Lets `interval` pass, stopping at every deadline as the worker's thread would.
    mutating func wait(_ interval: Interval) {
        let end = now + interval
        while true {
            let next = worker.nextDeadline(at: now)
            guard next <= end else { break }
            now = max(now, next)
            worker.advance(to: now)
        }
        now = end
        worker.advance(to: now)
    }

    /// Everything that waits to be sent.
    mutating func sent(key: SipKey = wellKnownTrunkKey) -> [SentFrame] {
        var frames: [SentFrame] = []
        while let next = worker.peekTransmit() {
            let length = buffer.write(0, 0..<65_536) { _ = worker.nextTransmit(into: &$0) }
            let size = next.segmentSize == 0 ? length : next.segmentSize
            for start in stride(from: 0, to: length, by: size) {
                let bytes = buffer.bytes(0, start..<min(start + size, length)).array
                frames.append(SentFrame(bytes, to: next.destination, key: key))
            }
        }
        return frames
    }

    mutating func events() -> [String] {
        var events: [String] = []
        while let event = worker.nextEvent() {
            switch event {
            case .connected(let session): events.append("\(session) connected")
            case .serverEvent(let session, _): events.append("\(session) event")
            case .path(let report): paths.append(report)
            case .ended(let session, let reason): events.append("\(session) \(reason)")
            }
        }
        return events
    }
}

extension SentFrame {
    init(_ bytes: [UInt8], to destination: SocketAddress, key: SipKey = wellKnownTrunkKey) {
        guard var frame = try? TrunkFrame(parsing: bytes.span.bytes, key: key) else { fatalError("a frame without a tag") }
        self.init(destination: destination, header: frame.header, records: [], probe: frame.probe)
        while let record = frame.nextRecord() {
            records.append(Record(client: record.client, session: record.session, payload: record.payload.array))
        }
    }
}

extension SessionParameters {
    static func sample(_ session: UInt32, role: DTLSRole = .client) -> SessionParameters {
        var random = SeededGenerator(seed: UInt64(session))
        return SessionParameters(
            id: session, callID: "rtc_\(session)", local: .local(session), remote: .remote(session), dtlsRole: role,
            fingerprints: [DTLSFingerprint(algorithm: .sha256, bytes: [UInt8](repeating: 7, count: 32))],
            audio: AudioParameters(
                opusPayloadType: 111, ssrc: 1, cname: RTCPCanonicalName(random: &random), maySend: true, mayReceive: true), seed: 42)
    }
}

extension ICECredentials {
    static func local(_ session: UInt32, generation: Int = 1) -> ICECredentials {
        ICECredentials(ufrag: "ours\(session)g\(generation)", password: "ourpasswordourpassword\(session)g\(generation)")
    }
    static func remote(_ session: UInt32, generation: Int = 1) -> ICECredentials {
        ICECredentials(ufrag: "peer\(session)g\(generation)", password: "peerpasswordpeerpassword\(session)g\(generation)")
    }
}

func clientFrame(_ records: [Record], header: TrunkHeader = WorkerBench.header, key: SipKey = wellKnownTrunkKey) -> [UInt8] {
    var buffer = [UInt8](repeating: 0, count: 24 + records.reduce(0) { $0 + 24 + $1.payload.count })
    var writer = TrunkWriter(limit: buffer.count)
    var span = buffer.mutableSpan
    var target = span.mutableBytes
    for record in records {
        precondition(writer.append(client: record.client, session: record.session, payload: record.payload.span.bytes, to: &target))
    }
    writer.finish(header, key: key, in: &target)
    return Array(buffer.prefix(writer.length))
}

func pingFrame(_ probe: TrunkProbe, header: TrunkHeader = WorkerBench.header) -> [UInt8] {
    var header = header
    header.kind = .ping
    var buffer = [UInt8](repeating: 0, count: 64)
    var span = buffer.mutableSpan
    var target = span.mutableBytes
    let length = TrunkWriter.write(probe, header, key: wellKnownTrunkKey, to: &target)
    return Array(buffer.prefix(length))
}

/// A nominating check of `session`'s client.
func check(_ session: UInt32, generation: Int = 1, transaction: UInt64 = 1, password: String? = nil) -> [UInt8] {
    let local = ICECredentials.local(session, generation: generation)
    let receiver = Array(local.ufrag.utf8)
    let sender = Array(ICECredentials.remote(session, generation: generation).ufrag.utf8)
    let key = Array((password ?? local.password).utf8)
    var storage = ByteSlab(count: 1, slotSize: 1024)
    let length = storage.write(0, 0..<1024) { packet in
        var writer = STUNWriter(.request, STUNTransactionID(high: 1, low: transaction), to: &packet)
        writer.append(usernameFor: receiver.span.bytes, from: sender.span.bytes, to: &packet)
        writer.append(priority: 0x6E00_1EFF, to: &packet)
        writer.append(iceControlling: 7, to: &packet)
        writer.appendUseCandidate(to: &packet)
        _ = writer.finish(key: key.span.bytes, to: &packet)
    }
    return storage.bytes(0, length).array
}
