// libspeexdsp's resampler, for rates between which Opus cannot help.

import CSpeexDSP
import Primitives

/// Mono PCM at one rate turned into another: a stream with memory, so that the seams between frames are not heard. Allocates at `init` only.
public struct Resampler: ~Copyable {
    public let inputRate: Int
    public let outputRate: Int
    private let state: OpaquePointer

    /// - Parameters:
    ///   - inputRate: 8,000…48,000, and so `outputRate`.
    ///   - quality: 0…10; 3 is 4 µs a frame and good enough for speech.
    public init(from inputRate: Int, to outputRate: Int, quality: Int = 3) {
        precondition((8_000...48_000).contains(inputRate) && (8_000...48_000).contains(outputRate) && (0...10).contains(quality))
        self.inputRate = inputRate
        self.outputRate = outputRate
        var error: CInt = 0
        let state = speex_resampler_init(1, spx_uint32_t(inputRate), spx_uint32_t(outputRate), CInt(quality), &error)
        guard let state, error == 0 else { preconditionFailure("speex_resampler_init: \(error)") }
        self.state = state
        // Without the filter's leading zeros every frame gives exactly its share, from the first on.
        _ = speex_resampler_skip_zeros(state)
    }

    deinit { speex_resampler_destroy(state) }

    /// The most samples that `count` samples of input give.
    public func outputCount(for count: Int) -> Int { (count * outputRate + inputRate - 1) / inputRate + 1 }

    /// Resamples into the beginning of `output`: how many samples were read, and how many written. All of `input` is read when `output` holds
    /// `outputCount(for: input.count)`.
    public mutating func process(_ input: Span<Int16>, into output: inout MutableSpan<Int16>) -> (read: Int, written: Int) {
        var read = spx_uint32_t(input.count)
        var written = spx_uint32_t(output.count)
        let state = state
        _ = input.withUnsafeBufferPointer { source in
            output.withUnsafeMutableBufferPointer { target in
                speex_resampler_process_int(state, 0, source.baseAddress, &read, target.baseAddress, &written)
            }
        }
        return (Int(read), Int(written))
    }

    /// Forgets the past, for another stream.
    public mutating func reset() {
        _ = speex_resampler_reset_mem(state)
        _ = speex_resampler_skip_zeros(state)
    }
}

extension Resampler: @unchecked Sendable {}
