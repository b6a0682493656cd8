// Turns: a speech detector, and a policy that makes starts and stops of what it hears.

import Primitives

/// Finds speech in a gapless stream of mono PCM. It answers in the same call that takes the frame that decides.
///
/// The detector is our own (`SpeechDetector`): of what Debian packages, speexdsp's preprocessor judges a frame by loudness alone. Where turns begin
/// and end is `SilenceEndpointing`'s to say, or a product's own policy's.
public struct VoiceActivity: ~Copyable {
    public struct Settings: Sendable, Equatable {
        /// 0…1: higher asks for louder and clearer speech.
        public var threshold = 0.5
        /// 0…5,000.
        public var prefixPaddingMilliseconds = 300
        /// 0…10,000.
        public var silenceDurationMilliseconds = 500
        public init() {}
    }

    public let rate: Int
    public private(set) var isSpeaking = false
    /// Milliseconds of audio so far.
    public var milliseconds: Int { hops * 10 }
    /// Of the last 10 ms, 0…1.
    public private(set) var probability = 0.0

    private var detector: SpeechDetector
    private var endpointing: SilenceEndpointing
    private var custom: (any EndpointPolicy)?
    private var hops = 0

    /// - Parameters:
    ///   - rate: samples a second: 8,000, 12,000, 16,000, 24,000 or 48,000.
    ///   - milliseconds: of the stream that are over already.
    public init(rate: Int = 24_000, _ settings: Settings = Settings(), startingAt milliseconds: Int = 0) {
        precondition(OpusDecoder.rates.contains(rate), "no voice detection at \(rate) Hz")
        self.rate = rate
        detector = SpeechDetector(rate: rate)
        endpointing = SilenceEndpointing(settings, startingAt: milliseconds)
        hops = milliseconds / 10
    }

    /// Of `SilenceEndpointing`; take effect with the next frame.
    public var settings: Settings {
        get { endpointing.settings }
        set { endpointing.settings = newValue }
    }

    /// Samples of 10 ms.
    public var hopSamples: Int { detector.hop }

    /// Lets `policy` decide from the next frame on.
    public mutating func setEndpointing(_ policy: any EndpointPolicy) { custom = policy }

    /// Takes the next frame; at most one event comes of it.
    /// - Parameters:
    ///   - frame: 10 or 20 ms; anything else is a mistake of the caller's.
    ///   - isMissing: only a place for what the network lost. The detector does not hear it: its idea of the room's noise stays.
    public mutating func process(_ frame: Span<Int16>, isMissing: Bool = false) -> VoiceActivityEvent? {
        precondition(frame.count == hopSamples || frame.count == 2 * hopSamples)
        var event = hop(frame.extracting(first: hopSamples), isMissing: isMissing)
        if frame.count > hopSamples {
            let second = hop(frame.extracting(last: hopSamples), isMissing: isMissing)
            event = event ?? second
        }
        return event
    }

    private mutating func hop(_ samples: Span<Int16>, isMissing: Bool) -> VoiceActivityEvent? {
        hops += 1
        let hop = isMissing ? SpeechHop.missing(at: milliseconds) : heard(samples)
        probability = hop.probability
        let event = custom == nil ? endpointing.hear(hop) : custom?.hear(hop)
        switch event {
        case .speechStarted: isSpeaking = true
        case .speechStopped: isSpeaking = false
        case nil: break
        }
        return event
    }

    private mutating func heard(_ samples: Span<Int16>) -> SpeechHop {
        let result = detector.process(samples)
        // −66 dB is what no threshold hears.
        let probability = result.level > -66 ? Double(result.probability) : 0
        return SpeechHop(milliseconds: milliseconds, probability: probability, level: result.level, pitch: result.pitch)
    }
}
