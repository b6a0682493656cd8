// Whether a sound has the pitch of a voice: what tells a vowel from a keyboard, a breath or a passing car.

/// The normalized autocorrelation of the last 40 ms at 4 kHz.
struct PitchDetector: ~Copyable {
    private static let rate = 4_000
    private static let length = 160
    /// 400…62 Hz.
    private static let lags = 10...64
    private static let total = length + 64

    private let decimation: Int
    private var history: SampleBuffer<Float>

    /// - Parameter rate: a multiple of 4,000.
    init(rate: Int) {
        precondition(rate.isMultiple(of: Self.rate))
        decimation = rate / Self.rate
        history = SampleBuffer(count: Self.total, repeating: 0)
    }

    /// Takes the next 10 ms: 1 is periodic, 0 is not.
    mutating func process(_ samples: Span<Int16>) -> Float {
        let count = samples.count / decimation
        history.move(count..<Self.total, to: 0)
        for index in 0..<count {
            var sum: Float = 0
            for offset in 0..<decimation { sum += Float(samples[index * decimation + offset]) }
            history[Self.total - count + index] = sum / Float(decimation)
        }
        return best()
    }

    private func best() -> Float {
        let end = Self.total
        let start = end - Self.length
        let energy = product(start, start)
        // Below half a step of 16 bits there is nothing to hear.
        guard energy > 0.25 * Float(Self.length) else { return 0 }
        var shifted = product(start - Self.lags.lowerBound, start - Self.lags.lowerBound)
        var best: Float = 0
        for lag in Self.lags {
            let product = product(start, start - lag)
            if product > 0 { best = max(best, product * product / (energy * max(shifted, 1e-9))) }
            // The window of the next lag begins one sample earlier.
            guard lag < Self.lags.upperBound else { break }
            let (entering, leaving) = (history[start - lag - 1], history[end - lag - 1])
            shifted += entering * entering - leaving * leaving
        }
        return min(best, 1).squareRoot()
    }

    /// The inner product of the two windows that begin at `a` and at `b`; eight lanes, because a sum of floats in order cannot be vectorized.
    private func product(_ a: Int, _ b: Int) -> Float {
        var sum = SIMD8<Float>.zero
        for offset in stride(from: 0, to: Self.length, by: 8) { sum += history.eight(at: a + offset) * history.eight(at: b + offset) }
        return sum.sum()
    }
}
