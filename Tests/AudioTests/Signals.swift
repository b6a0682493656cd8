// Signals made in code, and what the tests measure of them.
import Audio
import Glibc
import Primitives

/// A sine of `frequency` Hz, `amplitude` 0…1.
func tone(_ frequency: Double, rate: Int, count: Int, amplitude: Double = 0.5) -> [Int16] {
    (0..<count).map { Int16(amplitude * 32_767 * sin(2 * .pi * frequency * Double($0) / Double(rate))) }
}

/// Speech-like: harmonics of a gliding voice under a formant, in syllables of a quarter second with short gaps. `amplitude` is the peak, 0…1.
func voice(rate: Int, count: Int, amplitude: Double = 0.4) -> [Int16] {
    var phase = 0.0
    return (0..<count).map { index in
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
        return Int16(max(-1, min(1, amplitude * syllable * sum / 4)) * 32_767)
    }
}

/// White noise at `level` dB below full scale.
func noise(_ level: Double, count: Int, seed: UInt64) -> [Int16] {
    var random = SeededGenerator(seed: seed)
    let deviation = 32_768 * pow(10, level / 20)
    return (0..<count).map { _ in
        let sum = (0..<12).reduce(0.0) { partial, _ in partial + Double.random(in: -0.5...0.5, using: &random) }
        return Int16(max(-32_768, min(32_767, sum * deviation)))
    }
}

/// The sum of two signals, clipped.
func mixed(_ a: [Int16], _ b: [Int16]) -> [Int16] {
    zip(a, b).map { Int16(clamping: Int($0) + Int($1)) }
}

/// Goertzel's algorithm: the share of the signal's power that is at `frequency`, 0…1 (1 is a pure tone).
func share(of frequency: Double, in samples: some Collection<Int16>, rate: Int) -> Double {
    let coefficient = 2 * cos(2 * .pi * frequency / Double(rate))
    var (s1, s2, power) = (0.0, 0.0, 0.0)
    for sample in samples {
        let x = Double(sample)
        (s1, s2) = (x + coefficient * s1 - s2, s1)
        power += x * x
    }
    guard power > 0 else { return 0 }
    return 2 * (s1 * s1 + s2 * s2 - coefficient * s1 * s2) / (power * Double(samples.count))
}

/// Root mean square in dB below full scale; −120 for silence.
func level(_ samples: some Collection<Int16>) -> Double {
    let power = samples.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(max(samples.count, 1)) / (32_768 * 32_768)
    return max(-120, 10 * log10(max(power, 1e-12)))
}

extension OpusEncoder {
    mutating func packet(_ samples: [Int16]) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Self.longestPacket) { buffer, count in
            var output = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
            _ = try? encode(samples.span, into: &output)
            count = output.finalize(for: UnsafeMutableRawBufferPointer(buffer))
        }
    }

    /// The packets of a whole signal; its end is filled up with silence.
    mutating func packets(_ samples: [Int16]) -> [[UInt8]] {
        stride(from: 0, to: samples.count, by: frameSamples).map { start in
            var frame = Array(samples[start..<min(start + frameSamples, samples.count)])
            frame += [Int16](repeating: 0, count: frameSamples - frame.count)
            return packet(frame)
        }
    }
}

extension OpusDecoder {
    mutating func pcm(_ packet: [UInt8]) throws -> [Int16] {
        var samples = [Int16](repeating: 0, count: scaled(MediaClock.longestPacket))
        var span = samples.mutableSpan
        let count = try decode(packet.span.bytes, into: &span)
        return Array(samples[..<count])
    }

    mutating func concealed(_ count: Int) throws -> [Int16] {
        var samples = [Int16](repeating: 1, count: count)
        var span = samples.mutableSpan
        try conceal(into: &span)
        return samples
    }

    mutating func recovered(from next: [UInt8], _ count: Int) throws -> [Int16] {
        var samples = [Int16](repeating: 1, count: count)
        var span = samples.mutableSpan
        try recover(from: next.span.bytes, into: &span)
        return samples
    }
}

extension Resampler {
    mutating func pcm(_ samples: [Int16]) -> [Int16] {
        var output = [Int16](repeating: 0, count: outputCount(for: samples.count))
        var span = output.mutableSpan
        let (_, written) = process(samples.span, into: &span)
        return Array(output[..<written])
    }
}
