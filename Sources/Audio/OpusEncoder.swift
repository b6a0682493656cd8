// libopus's encoder, in memory of our own.

import COpus
import Primitives

/// Mono PCM turned into one stream of Opus, 20 ms a packet, for speech. Its 44 KiB of state are allocated at `init`; a packet allocates
/// nothing.
public struct OpusEncoder: ~Copyable {
    public struct Settings: Sendable, Equatable {
        /// Samples a second of what goes in: 8,000, 12,000, 16,000, 24,000 or 48,000.
        public var rate = 24_000
        /// Bits a second, 6,000…510,000.
        public var bitrate = 32_000
        /// 0…10. A 20 ms frame costs about 50 µs at 0, 110 µs at 5, 200 µs at 10.
        public var complexity = 5
        /// Each packet may carry a copy of its predecessor; libopus spends bits on it only when loss is expected.
        public var forwardErrorCorrection = true
        /// Percent of packets that are expected to get lost, 0…100.
        public var expectedLoss = 0
        /// After 200 ms of silence packets shrink to one or two bytes, which need not be sent, but for one in 400 ms.
        public var discontinuousTransmission = false
        public init() {}
    }

    /// Samples of one frame at the encoder's rate: 20 ms.
    public let frameSamples: Int
    /// Samples at the encoder's rate by which what comes out is behind what went in.
    public let lookahead: Int
    public private(set) var settings: Settings
    private let state: OpaquePointer
    private let memory: UnsafeMutableRawPointer

    /// No packet of 20 ms is longer.
    public static let longestPacket = 1_276

    public init(_ settings: Settings = Settings()) {
        precondition(OpusDecoder.rates.contains(settings.rate), "not a rate of Opus: \(settings.rate)")
        self.settings = settings
        frameSamples = settings.rate / 50
        memory = .allocate(byteCount: Int(opus_encoder_get_size(1)), alignment: 64)
        state = OpaquePointer(memory)
        let error = opus_encoder_init(state, opus_int32(settings.rate), 1, OPUS_APPLICATION_VOIP)
        precondition(error == OPUS_OK, "opus_encoder_init: \(error)")
        var samples: opus_int32 = 0
        _ = copus_get_lookahead(state, &samples)
        lookahead = Int(samples)
        _ = copus_set_dtx(state, settings.discontinuousTransmission ? 1 : 0)
        _ = copus_set_voice(state)
        _ = copus_set_complexity(state, opus_int32(min(max(settings.complexity, 0), 10)))
        _ = copus_set_inband_fec(state, settings.forwardErrorCorrection ? 1 : 0)
        setBitrate(settings.bitrate)
        setExpectedLoss(settings.expectedLoss)
    }

    deinit { memory.deallocate() }

    /// - Parameter bits: a second; clamped to 6,000…510,000.
    public mutating func setBitrate(_ bits: Int) {
        settings.bitrate = min(max(bits, 6_000), 510_000)
        _ = copus_set_bitrate(state, opus_int32(settings.bitrate))
    }

    /// What the receiver's reports say of loss; decides how many bits go into in-band FEC.
    /// - Parameter percent: clamped to 0…100.
    public mutating func setExpectedLoss(_ percent: Int) {
        settings.expectedLoss = min(max(percent, 0), 100)
        _ = copus_set_expected_loss(state, opus_int32(settings.expectedLoss))
    }

    /// Appends the packet of `frame` to `output` and says how many bytes it has.
    /// - Parameters:
    ///   - frame: exactly `frameSamples`.
    ///   - output: room for `longestPacket` bytes is always enough; with less, libopus makes the packet smaller.
    public mutating func encode(_ frame: Span<Int16>, into output: inout OutputRawSpan) throws(OpusError) -> Int {
        guard frame.count == frameSamples else { throw .needs(samples: frameSamples) }
        let state = state
        let limit = min(output.freeCapacity, Self.longestPacket)
        let count = output.withUnsafeMutableBytes { buffer, initialized in
            guard let base = buffer.baseAddress else { return CInt(OPUS_BUFFER_TOO_SMALL) }
            let bytes = (base + initialized).assumingMemoryBound(to: UInt8.self)
            let count = frame.withUnsafeBufferPointer { pcm in
                guard let samples = pcm.baseAddress else { return CInt(OPUS_BAD_ARG) }
                return opus_encode(state, samples, CInt(pcm.count), bytes, opus_int32(limit))
            }
            if count > 0 { initialized += Int(count) }
            return count
        }
        guard count >= 0 else { throw .library(count) }
        return Int(count)
    }

    /// Forgets the past, for another stream; settings stay.
    public mutating func reset() { _ = copus_reset_encoder(state) }
}

extension OpusEncoder: @unchecked Sendable {}
