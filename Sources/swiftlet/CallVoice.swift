import Audio
import Glibc
import Primitives

/// What a caller says, over and over: some seconds that sound like speech, then a pause, as Opus packets of 20 ms.
struct CallVoice {
    /// All packets, one behind the other.
    private let bytes: [UInt8]
    private let ends: [Int]

    private static let rate = 24_000

    init(speechMilliseconds: Int, pauseMilliseconds: Int) {
        var settings = OpusEncoder.Settings()
        settings.rate = Self.rate
        var encoder = OpusEncoder(settings)
        let spoken = speechMilliseconds * Self.rate / 1000
        let count = (speechMilliseconds + pauseMilliseconds) / 20
        var phase = 0.0
        var bytes: [UInt8] = []
        var ends: [Int] = []
        var room = [UInt8](repeating: 0, count: OpusEncoder.longestPacket)
        for frame in 0..<count {
            var samples = [Int16](repeating: 0, count: encoder.frameSamples)
            for index in samples.indices where frame * encoder.frameSamples + index < spoken {
                samples[index] = Self.sample(frame * encoder.frameSamples + index, &phase)
            }
            let length = room.withUnsafeMutableBytes { raw in
                var output = OutputRawSpan(buffer: raw, initializedCount: 0)
                _ = try? encoder.encode(samples.span, into: &output)
                return output.finalize(for: raw)
            }
            bytes += room[..<length]
            ends.append(bytes.count)
        }
        self.bytes = bytes
        self.ends = ends
    }

    /// Harmonics of a gliding voice under a formant, in syllables of a quarter second with short gaps.
    private static func sample(_ index: Int, _ phase: inout Double) -> Int16 {
        let time = Double(index) / Double(rate)
        let pitch = 130 + 25 * sin(2 * .pi * 1.7 * time)
        phase += 2 * .pi * pitch / Double(rate)
        let formant = 550 + 250 * sin(2 * .pi * 2.3 * time)
        var sum = 0.0
        for harmonic in 1...20 {
            let frequency = Double(harmonic) * pitch
            let weight = 1 / (1 + pow((frequency - formant) / 200, 2)) + 0.3 / (1 + pow((frequency - 1_600) / 300, 2))
            sum += weight * sin(phase * Double(harmonic))
        }
        let syllable = max(0, sin(2 * .pi * 2 * time)).squareRoot()
        return Int16(max(-1, min(1, 0.1 * syllable * sum)) * 32_767)
    }

    var count: Int { ends.count }
    var averageSize: Int { bytes.count / max(1, ends.count) }

    /// Where packet `number` lies; it goes on from the start behind the last one.
    func range(_ number: Int) -> Range<Int> {
        let index = number % ends.count
        return (index == 0 ? 0 : ends[index - 1])..<ends[index]
    }

    var span: RawSpan {
        @_lifetime(borrow self) get { bytes.span.bytes }
    }
}
