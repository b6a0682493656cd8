// Is this speech? A likelihood ratio of speech over a tracked noise floor in 16 bands (after Sohn, Kim and Sung, 1999), and whether the sound
// has a pitch.

import Glibc

/// The probability of speech in each 10 ms of a stream.
struct SpeechDetector: ~Copyable {
    /// Hz; about one critical band each, where speech has its power.
    private static let edges: [16 of Float] = [
        150, 250, 350, 450, 570, 700, 840, 1_000, 1_170, 1_370, 1_600, 1_850, 2_150, 2_500, 2_900, 3_400,
    ]
    static let bandCount = 15
    /// Speech is judged below 4 kHz. Means of neighbours are a poor filter: a hiss above comes through as one below, which is welcome.
    private static let analysisRate = 8_000
    /// The quietest noise floor, of mean square 1 at full scale: −80 dB, so that digital silence with a little dither is silence.
    private static let quietest: Float = 1e-8
    /// Noise is the least of eight windows of 200 ms: what does not pause for 1.6 s is no speech.
    private static let windowHops = 20
    private static let windowCount = 8

    /// Samples of 10 ms.
    let hop: Int
    private var spectrum: PowerSpectrum
    private var pitch: PitchDetector
    private var bands: SampleBuffer<BandState>
    private var minima: SampleBuffer<Float>
    private var hops = 0

    struct BandState {
        var firstBin = 0
        var endBin = 0
        var smoothed: Float = 0
        var noise: Float = 0
        var leastOfWindow: Float = 0
        /// Last hop's speech power over noise.
        var speechToNoise: Float = 0
    }

    struct Result {
        /// 0…1.
        var probability: Float
        /// dB below full scale, of the bands.
        var level: Float
        /// 0…1, how periodic the sound is at the pitches of voices.
        var pitch: Float
    }

    init(rate: Int) {
        hop = rate / 100
        let decimation = max(1, rate.isMultiple(of: Self.analysisRate) ? rate / Self.analysisRate : 1)
        spectrum = PowerSpectrum(hop: hop / decimation, decimation: decimation)
        pitch = PitchDetector(rate: rate)
        bands = SampleBuffer(count: Self.bandCount, repeating: BandState())
        minima = SampleBuffer(count: Self.bandCount * Self.windowCount, repeating: .greatestFiniteMagnitude)
        let binWidth = Float(rate / decimation) / Float(spectrum.size)
        for band in 0..<Self.bandCount {
            bands[band].firstBin = Int((Self.edges[band] / binWidth).rounded())
            bands[band].endBin = max(bands[band].firstBin + 1, Int((Self.edges[band + 1] / binWidth).rounded()))
        }
    }

    /// Takes the next 10 ms.
    mutating func process(_ samples: Span<Int16>) -> Result {
        spectrum.append(samples)
        var ratio: Float = 0
        var total: Float = 0
        for band in 0..<Self.bandCount {
            let energy = bandPower(band)
            total += energy * Float(bands[band].endBin - bands[band].firstBin)
            ratio += logLikelihoodRatio(band, energy)
        }
        ratio /= Float(Self.bandCount)
        let probability = 1 / (1 + expf(-5 * (ratio - 0.45)))
        for band in 0..<Self.bandCount { trackNoise(band, probability: probability) }
        hops += 1
        let level = 10 * log10f(max(total * 2 / Float(spectrum.size), 1e-12))
        return Result(probability: probability, level: level, pitch: pitch.process(samples))
    }

    private func bandPower(_ band: Int) -> Float { spectrum.mean(of: bands[band].firstBin..<bands[band].endBin) }

    private mutating func logLikelihoodRatio(_ band: Int, _ energy: Float) -> Float {
        var state = bands[band]
        if hops == 0 {
            // Whatever is there first is noise, unless it is loud.
            state.noise = min(max(energy, Self.quietest), 1e-5)
            state.smoothed = energy
            state.leastOfWindow = energy
        }
        let posterior = min(energy / state.noise, 1_000)
        let prior = 0.9 * state.speechToNoise + 0.1 * max(posterior - 1, 0)
        let gain = prior / (1 + prior)
        state.speechToNoise = gain * gain * posterior
        state.smoothed = 0.7 * state.smoothed + 0.3 * energy
        bands[band] = state
        return min(posterior * gain - logf(1 + prior), 8)
    }

    private mutating func trackNoise(_ band: Int, probability: Float) {
        var state = bands[band]
        state.leastOfWindow = min(state.leastOfWindow, state.smoothed)
        var floor: Float = state.leastOfWindow
        for window in 0..<Self.windowCount { floor = min(floor, minima[window * Self.bandCount + band]) }
        if (hops + 1) % Self.windowHops == 0 {
            minima[(hops / Self.windowHops) % Self.windowCount * Self.bandCount + band] = state.leastOfWindow
            state.leastOfWindow = state.smoothed
        }
        let rate = 0.06 * (1 - probability)
        state.noise += rate * (bandPower(band) - state.noise)
        // A smoothed minimum is below the mean.
        if hops >= Self.windowHops * Self.windowCount { state.noise = max(state.noise, floor * 1.3) }
        state.noise = max(state.noise, Self.quietest)
        bands[band] = state
    }
}
