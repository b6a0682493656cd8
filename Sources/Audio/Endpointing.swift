// When a turn begins and ends, given how much each moment sounds like speech. Products differ here: this is the part to replace.

/// What the detector heard in 10 ms.
public struct SpeechHop: Sendable, Equatable, BitwiseCopyable {
    /// Of its end, on the clock of the stream.
    public var milliseconds: Int
    /// 0…1, that somebody speaks.
    public var probability: Double
    /// dB below full scale, of the bands of speech.
    public var level: Float
    /// 0…1, how periodic the sound is at the pitches of voices.
    public var pitch: Float
    /// The network lost it: what was said in these 10 ms is not known, and the rest is that of silence.
    public var isMissing: Bool

    public init(milliseconds: Int, probability: Double, level: Float, pitch: Float, isMissing: Bool = false) {
        self.milliseconds = milliseconds
        self.probability = probability
        self.level = level
        self.pitch = pitch
        self.isMissing = isMissing
    }

    /// What the network lost, or its sender never sent.
    static func missing(at milliseconds: Int) -> SpeechHop {
        SpeechHop(milliseconds: milliseconds, probability: 0, level: -.infinity, pitch: 0, isMissing: true)
    }
}

/// What the detector noticed, on the clock of the stream: milliseconds of audio since its first sample.
public enum VoiceActivityEvent: Sendable, Equatable, BitwiseCopyable {
    /// Speech began; the time includes the prefix padding, but never reaches into the turn before.
    case speechStarted(atMilliseconds: Int)
    /// Speech ended; the time includes the silence that had to pass.
    case speechStopped(atMilliseconds: Int)
}

/// Decides where turns begin and end. A product may bring its own (`AudioPipe.setEndpointing`); starts and stops take turns.
public protocol EndpointPolicy: Sendable {
    /// Hears the next 10 ms; called once for each, in order.
    mutating func hear(_ hop: SpeechHop) -> VoiceActivityEvent?
}

/// The rules of the Realtime API's `server_vad`. A start needs 60 ms of probable speech with a voice's pitch in it, so that neither a click nor a
/// breath interrupts an answer; a stop needs the silence that was asked for.
public struct SilenceEndpointing: EndpointPolicy {
    /// In hops of 10 ms: a start is `startHops` probable ones of the last `startWindow`.
    private static let startHops = 6
    private static let startWindow = 10
    /// Of these so many with a pitch.
    private static let voicedHops = 3
    /// A whisper has none: so many probable hops of the last 64, more than a rustle and fewer than a fan that was switched on.
    private static let unvoicedHops = 36...56
    private static let pitch: Float = 0.6
    /// An outage is not silence: a turn waits so long for the network, in milliseconds. Whoever stops to send altogether ends a turn, too.
    private static let outageMilliseconds = 2_000
    /// A hop is judged by a spectrum of the 20 ms that end with it: the voice that is still in there may be that of the hop before. In milliseconds.
    private static let overlap = 10
    /// For so long concealment stands in for what is lost, before it counts as an outage.
    private static let bridgedMilliseconds = 40

    /// Takes effect with the next hop.
    public var settings: VoiceActivity.Settings
    public private(set) var isSpeaking = false

    /// Bit n is the hop n before the last.
    private var probable: UInt64 = 0
    private var voiced: UInt64 = 0
    private var lastSpeech = 0
    private var outage = 0
    private var stopped: Int

    /// - Parameter milliseconds: of the stream that are over already; no turn reaches into them.
    public init(_ settings: VoiceActivity.Settings = VoiceActivity.Settings(), startingAt milliseconds: Int = 0) {
        self.settings = settings
        stopped = milliseconds
    }

    public mutating func hear(_ hop: SpeechHop) -> VoiceActivityEvent? {
        outage = hop.isMissing ? outage + 10 : 0
        if isSpeaking, outage > 0, outage <= Self.outageMilliseconds {
            // What concealment has bridged before it is known no better.
            lastSpeech = min(lastSpeech + (outage == 10 ? Self.bridgedMilliseconds : 0) + 10, hop.milliseconds)
            return nil
        }
        let threshold = min(max(settings.threshold, 0.01), 0.99)
        // −66 dB at threshold 0, −50 at 1: below it there is nobody near the microphone.
        let probability = hop.level > -66 + 16 * Float(threshold) ? hop.probability : 0
        // Speech that has begun goes on at less than what it took to begin.
        let needed = isSpeaking ? max(threshold - 0.15, threshold / 2) : threshold
        probable = probable << 1 | (probability >= needed ? 1 : 0)
        voiced = voiced << 1 | (hop.pitch >= Self.pitch ? 1 : 0)
        return isSpeaking ? stop(at: hop.milliseconds) : start(at: hop.milliseconds)
    }

    private mutating func start(at now: Int) -> VoiceActivityEvent? {
        let recent = probable & (1 << UInt64(Self.startWindow) - 1)
        let clear = recent.nonzeroBitCount >= Self.startHops && (recent & voiced).nonzeroBitCount >= Self.voicedHops
        // Asked once, 600 ms after the first probable hop: a fan does not become a whisper when the noise floor reaches it.
        let whispered = probable >> 60 == 1 && Self.unvoicedHops.contains(probable.nonzeroBitCount)
        guard clear || whispered else { return nil }
        isSpeaking = true
        lastSpeech = now
        let hops = 64 - (clear ? recent : probable).leadingZeroBitCount
        return .speechStarted(atMilliseconds: max(now - hops * 10 - min(max(settings.prefixPaddingMilliseconds, 0), 5_000), stopped))
    }

    private mutating func stop(at now: Int) -> VoiceActivityEvent? {
        // One probable hop alone is a click. Silence begins behind the last of several, not when that is known.
        if (probable & 0b1_1111).nonzeroBitCount >= 3 { lastSpeech = now - probable.trailingZeroBitCount * 10 - Self.overlap }
        guard now - lastSpeech >= min(max(settings.silenceDurationMilliseconds, 10), 10_000) else { return nil }
        isSpeaking = false
        probable = 0
        stopped = now
        return .speechStopped(atMilliseconds: now)
    }
}
