// libopus's decoder, in memory of our own.

import COpus
import Primitives

/// Why the decoder or encoder did not do as asked; the number is libopus's own error code.
public enum OpusError: Error, Equatable, Sendable {
    case malformed(OpusPacketError)
    /// The caller's span cannot hold the packet's samples.
    case needs(samples: Int)
    case library(CInt)
}

/// One stream of Opus turned into mono PCM. Its 18 KiB of state are allocated at `init`; a packet allocates nothing.
///
/// The decoder produces any of Opus's own rates itself, so a stream that a backend wants at 24, 16 or 8 kHz needs no resampler after it.
public struct OpusDecoder: ~Copyable {
    /// Samples a second of what comes out.
    public let rate: Int
    private let state: OpaquePointer
    private let memory: UnsafeMutableRawPointer

    /// Rates that the decoder produces itself.
    public static let rates = [8_000, 12_000, 16_000, 24_000, 48_000]

    /// - Parameter rate: one of `rates`.
    public init(rate: Int = 48_000) {
        precondition(Self.rates.contains(rate), "not a rate of Opus: \(rate)")
        self.rate = rate
        memory = .allocate(byteCount: Int(opus_decoder_get_size(1)), alignment: 64)
        state = OpaquePointer(memory)
        let error = opus_decoder_init(state, opus_int32(rate), 1)
        precondition(error == OPUS_OK, "opus_decoder_init: \(error)")
    }

    deinit { memory.deallocate() }

    /// Samples at `rate` that last as long as `samples` at 48 kHz.
    public func scaled(_ samples: Int) -> Int { samples * rate / MediaClock.rate }

    /// Decodes a packet into the beginning of `output` and says how many samples that were.
    public mutating func decode(_ packet: RawSpan, into output: inout MutableSpan<Int16>) throws(OpusError) -> Int {
        let samples = scaled(try parse(packet).sampleCount)
        guard samples <= output.count else { throw .needs(samples: samples) }
        return try run(packet, samples: samples, fec: 0, into: &output)
    }

    /// Makes up `output.count` samples in place of a lost packet: what was heard last, dying away.
    /// - Parameter output: a multiple of 2.5 ms, at most 120 ms.
    public mutating func conceal(into output: inout MutableSpan<Int16>) throws(OpusError) {
        let state = state
        let produced = output.withUnsafeMutableBufferPointer { pcm in
            guard let base = pcm.baseAddress else { return CInt(OPUS_BAD_ARG) }
            return opus_decode(state, nil, 0, base, CInt(pcm.count), 0)
        }
        guard produced >= 0 else { throw .library(produced) }
        clear(&output, from: Int(produced))
    }

    /// Recovers a lost packet from the copy that `next`, the packet after it, carries; where `next` carries none, libopus conceals.
    /// - Parameter output: as long as one frame of `next`, a multiple of 2.5 ms; what lies further back is concealed.
    public mutating func recover(from next: RawSpan, into output: inout MutableSpan<Int16>) throws(OpusError) {
        _ = try parse(next)
        let produced = try run(next, samples: output.count, fec: 1, into: &output)
        clear(&output, from: produced)
    }

    /// Forgets the past, for another stream.
    public mutating func reset() { _ = copus_reset_decoder(state) }

    private func parse(_ packet: RawSpan) throws(OpusError) -> OpusPacket {
        do { return try OpusPacket(parsing: packet) } catch { throw .malformed(error) }
    }

    private func run(_ packet: RawSpan, samples: Int, fec: CInt, into output: inout MutableSpan<Int16>) throws(OpusError) -> Int {
        let state = state
        let produced = output.withUnsafeMutableBufferPointer { pcm in
            packet.withUnsafeBytes { bytes in
                guard let base = pcm.baseAddress else { return CInt(OPUS_BAD_ARG) }
                let packet = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
                return opus_decode(state, packet, opus_int32(bytes.count), base, CInt(samples), fec)
            }
        }
        guard produced >= 0 else { throw .library(produced) }
        return Int(produced)
    }

    private func clear(_ output: inout MutableSpan<Int16>, from start: Int) {
        var index = start
        while index < output.count {
            output[index] = 0
            index += 1
        }
    }
}

extension OpusDecoder: @unchecked Sendable {}
