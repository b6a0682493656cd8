// Speech through a sender, a network with loss and jitter that a seed decides, and an AudioPipe, in virtual time.
import Audio
import Glibc
import Primitives

struct LossRun {
    private static let rate = 24_000
    private static let frameSamples = 480

    private let arguments: Arguments
    private let loss: Double
    private let isBurst: Bool
    private let jitter: Double
    private let roundTrip: Double
    private let copies: Int
    private let usesFEC: Bool
    private let usesNACK: Bool

    init(_ arguments: Arguments) {
        self.arguments = arguments
        loss = arguments.number("loss", 0) / 100
        isBurst = arguments.values["pattern"] == "burst"
        jitter = arguments.number("jitter", 30)
        roundTrip = arguments.number("rtt", 40)
        copies = Int(arguments.number("red", 0))
        usesFEC = arguments.has("fec")
        usesNACK = arguments.has("nack")
    }

    private struct Sent {
        var bytes: [UInt8]
        var timestamp: UInt32
        var isRED: Bool
    }

    /// Every packet of the speech, as the sender's own queue makes them.
    private func send(_ speech: [Int16]) -> [Sent] {
        var encoding = OpusEncoder.Settings()
        encoding.complexity = 9
        encoding.forwardErrorCorrection = usesFEC
        encoding.expectedLoss = usesFEC ? Int(loss * 100) : 0
        var queue = PlayoutQueue(encoder: encoding, timestamp: 0)
        if copies > 0 { queue.setRedundancy(opusType: 111, distance: copies) }
        var packets: [Sent] = []
        for start in stride(from: 0, to: speech.count - Self.frameSamples, by: Self.frameSamples) {
            let frame = Array(speech[start..<(start + Self.frameSamples)])
            _ = queue.append(frame.span, item: 1)
            let now = Instant.zero + .milliseconds(Int64(start / 24) + 1_000)
            var sent: PlayoutFrame?
            let bytes = [UInt8](unsafeUninitializedCapacity: 1_500) { buffer, count in
                var output = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
                sent = queue.nextFrame(into: &output, at: now)
                count = output.finalize(for: UnsafeMutableRawBufferPointer(buffer))
            }
            if let sent { packets.append(Sent(bytes: bytes, timestamp: sent.timestamp, isRED: copies > 0)) }
        }
        return packets
    }

    func run() {
        guard let path = arguments.values["input"] else { fail("loss needs --input, 16-bit mono at 24 kHz") }
        let packets = send(readSamples(path))
        var network = Network(
            loss: loss, isBurst: isBurst, jitter: jitter, oneWay: roundTrip / 2, seed: UInt64(arguments.number("seed", 1)))
        var settings = AudioPipe.Settings()
        settings.voiceActivity = VoiceActivity.Settings()
        var pipe = AudioPipe(settings)
        // As reports measure it: with the mean of the jitter both ways.
        if usesNACK { pipe.setRoundTrip(.microseconds(Int64((roundTrip + jitter) * 1_000))) }
        var result = Result()
        let start = Instant.zero + .seconds(10)
        let end = start + .milliseconds(Int64(packets.count) * 20)
        // The first packet always comes: without it the time line starts later, and the comparison too.
        for index in packets.indices { network.send(index, at: start + .milliseconds(Int64(index) * 20), always: index == 0) }
        var frame = [Int16](repeating: 0, count: Self.frameSamples)
        while true {
            let now = min(pipe.nextDeadline.instant, network.nextArrival)
            guard now < end else { break }
            while let index = network.receive(at: now) {
                let packet = packets[index]
                let bytes = packet.bytes
                if packet.isRED {
                    _ = pipe.receive(
                        red: bytes.span.bytes, opusType: 111, sequence: Int64(index), timestamp: packet.timestamp, source: 1, at: now)
                } else {
                    _ = pipe.receive(bytes.span.bytes, sequence: Int64(index), timestamp: packet.timestamp, source: 1, at: now)
                }
            }
            pipe.advance(to: now)
            while let request = pipe.nextRequest() {
                for bit in -1..<16 where bit < 0 || request.following >> UInt16(bit) & 1 == 1 {
                    network.ask(Int(request.packet) + bit + 1, at: now)
                }
            }
            while true {
                var span = frame.mutableSpan
                guard let taken = pipe.nextFrame(into: &span) else { break }
                result.frames += 1
                result.concealed += taken.isConcealed ? 1 : 0
                result.delay += Double(pipe.statistics.currentDelay.microseconds) / 1_000
                result.pcm += frame
                while pipe.nextEvent() != nil {}
            }
        }
        result.print(pipe.statistics, requested: pipe.requestedPackets, bytes: packets.reduce(0) { $0 + $1.bytes.count }, packets.count)
        if let path = arguments.values["output"] { writeSamples(result.pcm, path) }
    }
}

private struct Result {
    var frames = 0
    var concealed = 0
    var delay = 0.0
    var pcm: [Int16] = []

    func print(_ statistics: JitterStatistics, requested: Int, bytes: Int, _ packets: Int) {
        func percent(_ part: Int, _ whole: Int) -> String { "\(Double(part * 10_000 / max(whole, 1)) / 100)" }
        let samples = frames * 960
        Swift.print(
            "frames=\(frames) concealed=\(percent(concealed, frames)) recovered=\(percent(statistics.recoveredSamples, samples))",
            "inserted=\(percent(statistics.insertedSamples, samples)) discarded=\(percent(statistics.discardedSamples, samples))",
            "late=\(percent(statistics.late, packets)) delay=\(Int(delay / Double(max(frames, 1)))) requested=\(percent(requested, packets))",
            "kbps=\(bytes * 8 / max(packets * 20, 1))")
    }
}

/// A path that keeps its order: each packet is delayed by 0…jitter beyond the path's own, and never overtakes. Bursts are a two-state chain
/// with a mean of three packets.
private struct Network {
    let loss: Double
    let isBurst: Bool
    let jitter: Double
    let oneWay: Double
    var random: SeededGenerator
    private var inBurst = false
    private var lastArrival = Instant.zero
    private var flying: [(arrival: Instant, index: Int)] = []

    init(loss: Double, isBurst: Bool, jitter: Double, oneWay: Double, seed: UInt64) {
        self.loss = loss
        self.isBurst = isBurst
        self.jitter = jitter
        self.oneWay = oneWay
        random = SeededGenerator(seed: seed)
    }

    var nextArrival: Instant { flying.first?.arrival ?? .never }

    mutating func send(_ index: Int, at now: Instant, always: Bool = false) {
        let lost = isLost()
        let arrival = max(now + delay(), lastArrival)
        guard !lost || always else { return }
        lastArrival = arrival
        flying.append((arrival, index))
    }

    /// A request that gets lost or not, and its answer, beside the stream.
    mutating func ask(_ index: Int, at now: Instant) {
        guard Double.random(in: 0..<1, using: &random) >= loss, Double.random(in: 0..<1, using: &random) >= loss else { return }
        let arrival = now + delay() + delay()
        let place = flying.firstIndex { $0.arrival > arrival } ?? flying.endIndex
        flying.insert((arrival, index), at: place)
    }

    mutating func receive(at now: Instant) -> Int? {
        guard let first = flying.first, first.arrival <= now else { return nil }
        flying.removeFirst()
        return first.index
    }

    private mutating func delay() -> Interval { .microseconds(Int64((oneWay + Double.random(in: 0...jitter, using: &random)) * 1_000)) }

    private mutating func isLost() -> Bool {
        guard loss > 0 else { return false }
        guard isBurst else { return Double.random(in: 0..<1, using: &random) < loss }
        let enters = loss / (3 * (1 - loss))
        inBurst = Double.random(in: 0..<1, using: &random) < (inBurst ? 2.0 / 3 : enters)
        return inBurst
    }
}

func readSamples(_ path: String) -> [Int16] {
    guard let file = fopen(path, "rb") else { fail("cannot open \(path)") }
    defer { fclose(file) }
    var samples: [Int16] = []
    var chunk = [Int16](repeating: 0, count: 65_536)
    while true {
        let count = fread(&chunk, 2, chunk.count, file)
        if count == 0 { return samples }
        samples += chunk[..<count]
    }
}

private func writeSamples(_ samples: [Int16], _ path: String) {
    guard let file = fopen(path, "wb") else { fail("cannot write \(path)") }
    fwrite(samples, 2, samples.count, file)
    fclose(file)
}
