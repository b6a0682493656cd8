import Primitives
import Realtime

/// `embedded:parrot`: says back what it heard, once the caller's turn has ended. It talks as fast as its listener takes frames, like a real
/// backend, so that pacing, barge-in and truncation are real with nothing else installed.
public struct ParrotBackend: ~Copyable {
    public static let rate = 24_000
    public static let format = BackendAudioFormat.pcm(rate: rate)
    /// Samples in a frame: 20 ms.
    public static let frameSamples = rate / 50

    /// Kept from before speech was noticed: the first syllable.
    private static let prerollSamples = rate / 2
    /// A turn longer than this is said back without its end.
    private static let turnSamplesMax = 30 * rate

    /// The client ends its turns itself: nothing tells when one begins, so all since the last one belongs to it.
    public var keepsEverything = false

    private var heard: [Int16] = []
    private var speaking = false
    /// The turn that was committed last and not yet said back.
    private var turn: [Int16] = []
    private var text: String?
    private var answer: [Int16] = []
    private var said = 0
    private var responding = false
    private var announced = false
    private var events: [BackendEvent] = []

    public init() {}

    /// Takes the caller's audio, gapless: what got lost on the way was concealed before.
    public mutating func hear(_ samples: Span<Int16>) {
        guard heard.count < Self.turnSamplesMax else { return }
        for index in samples.indices { heard.append(samples[index]) }
        if !speaking, !keepsEverything, heard.count > Self.prerollSamples * 2 { heard.removeFirst(heard.count - Self.prerollSamples) }
    }

    /// The caller began to speak: what is heard from here on, and a little before, is the turn.
    public mutating func speechStarted() {
        speaking = true
        if heard.count > Self.prerollSamples { heard.removeFirst(heard.count - Self.prerollSamples) }
    }

    public mutating func perform(_ action: ConversationAction) {
        switch action {
        case .turnCommitted:
            turn = heard
            heard = []
            speaking = false
            events.append(.inputTranscript("(\(Self.seconds(turn.count)) s of speech)"))
        case .clearInput:
            heard = []
            speaking = false
        case .itemCreated(let item):
            text = item["content"]?.array?.compactMap { $0["text"]?.string }.first ?? text
        case .startResponse:
            responding = true
            announced = false
            answer = turn
            turn = []
            said = 0
        case .cancelResponse:
            responding = false
            answer = []
        case .sessionChanged, .appendInput, .clearOutput, .itemDeleted, .truncated: break
        }
    }

    /// Overwrites `frame` with the next 20 ms of the answer; false when there is nothing to say. The last frame is filled up with silence.
    public mutating func nextFrame(into frame: inout MutableSpan<Int16>) -> Bool {
        guard responding else { return false }
        if said >= answer.count {
            if !announced { events.append(.textDelta(text.map { "You wrote: \($0)" } ?? "I heard nothing to say back.")) }
            text = nil
            events.append(.responseDone)
            responding = false
            answer = []
            return false
        }
        if !announced {
            announced = true
            events.append(.audioStarted)
            events.append(.transcriptDelta("You said \(Self.seconds(answer.count)) seconds of something; here it is again."))
        }
        for index in frame.indices {
            frame[index] = said + index < answer.count ? answer[said + index] : 0
        }
        said += frame.count
        return true
    }

    public mutating func nextEvent() -> BackendEvent? { events.isEmpty ? nil : events.removeFirst() }

    private static func seconds(_ samples: Int) -> String {
        let tenths = (samples * 10 + rate / 2) / rate
        return "\(tenths / 10).\(tenths % 10)"
    }
}
