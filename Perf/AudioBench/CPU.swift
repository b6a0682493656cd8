// What 20 ms cost beside libopus alone: contestants take turns in one thread, and the median ratio of their slices is the answer.
import Audio
import COpus
import Glibc
import Primitives

enum Contestant: String, CaseIterable {
    /// libopus: one packet decoded at 24 kHz.
    case decode
    /// `AudioPipe` without voice activity: jitter buffer, decoder, frames.
    case pipe
    /// `AudioPipe` with voice activity.
    case voice
    /// libopus: decode and encode.
    case transcode
    /// `AudioPipe` and `PlayoutQueue`.
    case both
    /// `AudioPipe` and `PlayoutQueue`, with redundant audio both ways.
    case red
}

struct CPUBench: ~Copyable {
    private static let rate = 24_000
    private static let frameSamples = 480

    private let packets: [[UInt8]]
    private let speech: [Int16]
    private let decoder: OpaquePointer
    private let encoder: OpaquePointer
    private var pipe: AudioPipe
    private var voicePipe: AudioPipe
    private var bothPipe: AudioPipe
    private var redPipe: AudioPipe
    private var queue: PlayoutQueue
    private var redQueue: PlayoutQueue
    private var at: [Contestant: Int] = [:]
    private var pcm = [Int16](repeating: 0, count: 480)
    private var bytes = [UInt8](repeating: 0, count: 1_500)
    private var sentRED: [UInt8] = []

    init() {
        let speech = Self.speech(seconds: 20)
        self.speech = speech
        var packets: [[UInt8]] = []
        var settings = OpusEncoder.Settings()
        settings.expectedLoss = 10
        var maker = OpusEncoder(settings)
        for start in stride(from: 0, to: speech.count, by: Self.frameSamples) {
            let frame = Array(speech[start..<(start + Self.frameSamples)])
            packets.append(
                [UInt8](unsafeUninitializedCapacity: 1_500) { buffer, count in
                    var output = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
                    _ = try? maker.encode(frame.span, into: &output)
                    count = output.finalize(for: UnsafeMutableRawBufferPointer(buffer))
                })
        }
        self.packets = packets
        var error: CInt = 0
        guard let decoder = opus_decoder_create(opus_int32(Self.rate), 1, &error),
            let encoder = opus_encoder_create(opus_int32(Self.rate), 1, OPUS_APPLICATION_VOIP, &error)
        else { fail("libopus: \(error)") }
        self.decoder = decoder
        self.encoder = encoder
        // As `OpusEncoder` sets it.
        _ = copus_set_voice(encoder)
        _ = copus_set_complexity(encoder, opus_int32(settings.complexity))
        _ = copus_set_inband_fec(encoder, 1)
        _ = copus_set_bitrate(encoder, opus_int32(settings.bitrate))
        _ = copus_set_expected_loss(encoder, 0)
        var deaf = AudioPipe.Settings()
        deaf.voiceActivity = nil
        pipe = AudioPipe(deaf)
        bothPipe = AudioPipe(deaf)
        redPipe = AudioPipe(deaf)
        voicePipe = AudioPipe()
        queue = PlayoutQueue(timestamp: 0)
        redQueue = PlayoutQueue(timestamp: 0)
        redQueue.setRedundancy(opusType: 111)
    }

    /// Nanoseconds of the thread for `frames` frames.
    @discardableResult
    mutating func run(_ contestant: Contestant, frames: Int) -> Int {
        let before = threadNanoseconds()
        for _ in 0..<frames {
            let index = at[contestant, default: 0]
            at[contestant] = index + 1
            step(contestant, index)
        }
        return threadNanoseconds() - before
    }

    private mutating func step(_ contestant: Contestant, _ index: Int) {
        switch contestant {
        case .decode: decode(index)
        case .transcode:
            decode(index)
            encode()
        case .pipe: Self.hear(&pipe, packets, index, &pcm)
        case .voice: Self.hear(&voicePipe, packets, index, &pcm)
        case .both:
            Self.hear(&bothPipe, packets, index, &pcm)
            Self.say(&queue, pcm, index, &bytes)
        case .red:
            // What goes out comes in again: the same way twice.
            if !sentRED.isEmpty { Self.hear(red: &redPipe, sentRED, index, &pcm) } else { Self.hear(&redPipe, packets, index, &pcm) }
            let count = Self.say(&redQueue, Array(speech[(index % 1_000 * 480)..<(index % 1_000 * 480 + 480)]), index, &bytes)
            sentRED = Array(bytes[..<count])
        }
    }

    private mutating func decode(_ index: Int) {
        let packet = packets[index % packets.count]
        _ = opus_decode(decoder, packet, opus_int32(packet.count), &pcm, 480, 0)
    }

    private mutating func encode() { _ = opus_encode(encoder, pcm, 480, &bytes, 1_276) }

    private static func time(_ index: Int) -> Instant { .zero + .seconds(1) + .milliseconds(Int64(index) * 20) }

    private static func hear(_ pipe: inout AudioPipe, _ packets: [[UInt8]], _ index: Int, _ pcm: inout [Int16]) {
        let packet = packets[index % packets.count]
        _ = pipe.receive(
            packet.span.bytes, sequence: Int64(index), timestamp: UInt32(truncatingIfNeeded: index * 960), source: 1, at: time(index))
        take(&pipe, index, &pcm)
    }

    private static func hear(red pipe: inout AudioPipe, _ payload: [UInt8], _ index: Int, _ pcm: inout [Int16]) {
        _ = pipe.receive(
            red: payload.span.bytes, opusType: 111, sequence: Int64(index), timestamp: UInt32(truncatingIfNeeded: index * 960), source: 1,
            at: time(index))
        take(&pipe, index, &pcm)
    }

    private static func take(_ pipe: inout AudioPipe, _ index: Int, _ pcm: inout [Int16]) {
        pipe.advance(to: time(index))
        var span = pcm.mutableSpan
        while pipe.nextFrame(into: &span) != nil {}
        while pipe.nextEvent() != nil {}
    }

    @discardableResult
    private static func say(_ queue: inout PlayoutQueue, _ pcm: [Int16], _ index: Int, _ bytes: inout [UInt8]) -> Int {
        _ = queue.append(pcm.span, item: 1)
        return bytes.withUnsafeMutableBytes { raw in
            var output = OutputRawSpan(buffer: raw, initializedCount: 0)
            _ = queue.nextFrame(into: &output, at: time(index))
            return output.finalize(for: raw)
        }
    }

    /// Something like a voice: harmonics of a gliding pitch in syllables.
    private static func speech(seconds: Int) -> [Int16] {
        var phase = 0.0
        return (0..<(seconds * rate)).map { index in
            let time = Double(index) / Double(rate)
            phase += 2 * .pi * (130 + 25 * sin(2 * .pi * 1.7 * time)) / Double(rate)
            var sum = 0.0
            for harmonic in 1...12 { sum += sin(phase * Double(harmonic)) / Double(harmonic) }
            return Int16(6_000 * sum * max(0, sin(2 * .pi * 2 * time)).squareRoot())
        }
    }
}

private func threadNanoseconds() -> Int {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Slices of 50 frames each, in turn, so that what disturbs one disturbs all.
func compareCPU(seconds: Int) {
    var bench = CPUBench()
    var slices: [Contestant: [Int]] = [:]
    for contestant in Contestant.allCases { bench.run(contestant, frames: 100) }
    for _ in 0..<seconds {
        for contestant in Contestant.allCases { slices[contestant, default: []].append(bench.run(contestant, frames: 50) / 50) }
    }
    func ratio(_ a: Contestant, _ b: Contestant) -> Double {
        let ratios = zip(slices[a] ?? [], slices[b] ?? []).map { Double($0) / Double($1) }.sorted()
        return ratios.isEmpty ? 0 : (ratios[ratios.count / 2] * 1_000).rounded() / 1_000
    }
    func median(_ a: Contestant) -> Int { (slices[a] ?? [0]).sorted()[(slices[a]?.count ?? 1) / 2] }
    for contestant in Contestant.allCases { print("\(contestant.rawValue): \(median(contestant)) ns per 20 ms") }
    print("pipe over libopus's decode: \(ratio(.pipe, .decode)); with voice activity \(ratio(.voice, .decode))")
    print("pipe and playout over libopus's decode and encode: \(ratio(.both, .transcode)); with redundant audio \(ratio(.red, .transcode))")
}
