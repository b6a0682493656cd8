// Power spectra of short frames of PCM, in place and without allocation.

import Glibc

/// The power spectrum of the last two hops of a stream: a Fourier transform of `size` real samples, a power of two, as half as many complex
/// ones.
struct PowerSpectrum: ~Copyable {
    let size: Int
    let hop: Int
    /// Input samples that become one, by their mean.
    let decimation: Int
    private let half: Int
    private var history: SampleBuffer<Float>
    private var power: SampleBuffer<Float>
    private let scale: Float
    private var window: SampleBuffer<Float>
    private var real: SampleBuffer<Float>
    private var imaginary: SampleBuffer<Float>
    /// cos and sin of −2πk/size.
    private var cosines: SampleBuffer<Float>
    private var sines: SampleBuffer<Float>

    /// - Parameters:
    ///   - hop: samples between spectra; two hops are windowed (Hann), the rest up to the next power of two is zero.
    ///   - decimation: input samples for one of these.
    init(hop: Int, decimation: Int) {
        self.decimation = decimation
        let frame = 2 * hop
        var size = 16
        while size < frame { size *= 2 }
        self.size = size
        self.hop = hop
        half = size / 2
        history = SampleBuffer(count: frame, repeating: 0)
        power = SampleBuffer(count: half, repeating: 0)
        window = SampleBuffer(count: frame, repeating: 0)
        real = SampleBuffer(count: half, repeating: 0)
        imaginary = SampleBuffer(count: half, repeating: 0)
        cosines = SampleBuffer(count: half, repeating: 0)
        sines = SampleBuffer(count: half, repeating: 0)
        var windowPower: Float = 0
        for index in 0..<frame {
            window[index] = 0.5 - 0.5 * cosf(2 * .pi * (Float(index) + 0.5) / Float(frame))
            windowPower += window[index] * window[index]
        }
        scale = 1 / windowPower
        for index in 0..<half {
            cosines[index] = cosf(-2 * .pi * Float(index) / Float(size))
            sines[index] = sinf(-2 * .pi * Float(index) / Float(size))
        }
    }

    /// Takes the next hop, full scale being 1.
    mutating func append(_ samples: Span<Int16>) {
        precondition(samples.count == hop * decimation)
        history.move(hop..<(2 * hop), to: 0)
        let unit = 1 / (32_768 * Float(decimation))
        for index in 0..<hop {
            var sum: Int32 = 0
            for offset in 0..<decimation { sum += Int32(samples[index * decimation + offset]) }
            history[hop + index] = Float(sum) * unit
        }
        for index in 0..<half {
            real[index] = windowed(2 * index)
            imaginary[index] = windowed(2 * index + 1)
        }
        transform()
        unpack()
    }

    /// The mean power of `bins`, scaled so that white noise of mean square 1 has a mean of 1 in every bin.
    func mean(of bins: Range<Int>) -> Float {
        var sum: Float = 0
        for bin in bins { sum += power[bin] }
        return sum / Float(bins.count)
    }

    private func windowed(_ index: Int) -> Float { index < window.count ? history[index] * window[index] : 0 }

    /// Radix 2, decimation in time, on `half` complex values.
    private mutating func transform() {
        reverseBits()
        var length = 2
        while length <= half {
            let step = size / length
            for start in stride(from: 0, to: half, by: length) {
                var twiddle = 0
                for low in start..<(start + length / 2) {
                    let high = low + length / 2
                    let (c, s) = (cosines[twiddle], sines[twiddle])
                    let re = real[high] * c - imaginary[high] * s
                    let im = real[high] * s + imaginary[high] * c
                    real[high] = real[low] - re
                    imaginary[high] = imaginary[low] - im
                    real[low] += re
                    imaginary[low] += im
                    twiddle += step
                }
            }
            length *= 2
        }
    }

    private mutating func reverseBits() {
        var other = 0
        for index in 0..<(half - 1) {
            if index < other {
                (real[index], real[other]) = (real[other], real[index])
                (imaginary[index], imaginary[other]) = (imaginary[other], imaginary[index])
            }
            var bit = half / 2
            while other & bit != 0 {
                other ^= bit
                bit /= 2
            }
            other |= bit
        }
    }

    /// The spectrum of the even and of the odd samples, put together.
    private mutating func unpack() {
        for index in 0..<half {
            let mirror = (half - index) & (half - 1)
            let evenRe = (real[index] + real[mirror]) / 2
            let evenIm = (imaginary[index] - imaginary[mirror]) / 2
            let oddRe = (imaginary[index] + imaginary[mirror]) / 2
            let oddIm = (real[mirror] - real[index]) / 2
            let re = evenRe + oddRe * cosines[index] - oddIm * sines[index]
            let im = evenIm + oddRe * sines[index] + oddIm * cosines[index]
            power[index] = (re * re + im * im) * scale
        }
    }
}
