import Audio
import Primitives
import Realtime

/// Audio inside events, for clients without WebRTC: what `input_audio_buffer.append` brings becomes PCM and turns, and an answer's PCM becomes
/// what `response.output_audio.delta` carries.
struct EventAudio: ~Copyable {
    /// A minute: whoever sends more at once than is listened to is told so.
    static let pendingMax = 60 * Agent.rate
    /// Frames of 20 ms in one delta.
    private static let framesPerDelta = 5

    private var input = AudioFormat.pcm(rate: Agent.rate)
    private var output = AudioFormat.pcm(rate: Agent.rate)
    private var fromInput: Resampler?
    private var toOutput: Resampler?
    private var voice: VoiceActivity?
    /// Of the client, at the backend's rate, not yet listened to.
    private var pending: [Int16] = []
    private var taken = 0
    private var event: VoiceActivityEvent?
    private var said: [UInt8] = []
    private var framesSaid = 0
    private(set) var milliseconds = 0

    init(_ session: borrowing SessionObject) { apply(session) }

    /// Takes formats and turn detection from the session.
    mutating func apply(_ session: borrowing SessionObject) {
        let (newInput, newOutput) = (AudioFormat(session.inputFormat), AudioFormat(session.outputFormat))
        if newInput != input {
            input = newInput
            fromInput = input.rate == Agent.rate ? nil : Resampler(from: input.rate, to: Agent.rate)
        }
        if newOutput != output {
            output = newOutput
            toOutput = output.rate == Agent.rate ? nil : Resampler(from: Agent.rate, to: output.rate)
        }
        guard let settings = VoiceActivity.Settings(session.turnDetection) else {
            voice = nil
            return
        }
        if voice == nil { voice = VoiceActivity(rate: Agent.rate, settings, startingAt: milliseconds) } else { voice?.settings = settings }
    }
}

extension AudioFormat {
    init(_ format: RealtimeAudioFormat) {
        switch format {
        case .pcm: self = .pcm(rate: 24_000)
        case .muLaw: self = .muLaw
        case .aLaw: self = .aLaw
        }
    }
}

// MARK: - From the client

extension EventAudio {
    /// Takes what an event brought; false when too much waits already.
    mutating func append(_ bytes: [UInt8]) -> Bool {
        let count = bytes.count / input.bytesPerSample
        guard pending.count - taken + count * Agent.rate / input.rate <= Self.pendingMax else { return false }
        var samples = [Int16](repeating: 0, count: count)
        var room = samples.mutableSpan
        _ = input.read(bytes.span.bytes, into: &room)
        pending += Self.resample(samples, with: &fromInput)
        return true
    }

    /// Forgets what was not listened to.
    mutating func clear() {
        pending.removeAll()
        taken = 0
    }

    /// Whether 20 ms or more wait.
    var hasFrame: Bool { pending.count - taken >= Agent.frameSamples }

    /// Overwrites `frame` with the next 20 ms; false when there are less. Call `nextEvent` after each.
    mutating func nextFrame(into frame: inout MutableSpan<Int16>) -> Bool {
        guard hasFrame else { return false }
        for index in frame.indices { frame[index] = pending[taken + index] }
        taken += Agent.frameSamples
        milliseconds += 20
        if taken >= Agent.rate {
            pending.removeFirst(taken)
            taken = 0
        }
        event = voice?.process(frame.span)
        return true
    }

    mutating func nextEvent() -> VoiceActivityEvent? {
        defer { event = nil }
        return event
    }
}

// MARK: - To the client

extension EventAudio {
    /// Takes 20 ms of the answer; returns what makes a delta.
    mutating func say(_ frame: Span<Int16>) -> [UInt8]? {
        var samples = [Int16](repeating: 0, count: frame.count)
        for index in frame.indices { samples[index] = frame[index] }
        samples = Self.resample(samples, with: &toOutput)
        let format = output
        let room = samples.count * format.bytesPerSample
        said += [UInt8](unsafeUninitializedCapacity: room) { buffer, count in
            var bytes = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
            _ = format.write(samples.span, into: &bytes)
            count = bytes.finalize(for: UnsafeMutableRawBufferPointer(buffer))
        }
        framesSaid += 1
        return framesSaid >= Self.framesPerDelta ? takeSaid() : nil
    }

    /// What is left of the answer.
    mutating func takeSaid() -> [UInt8]? {
        guard !said.isEmpty else { return nil }
        defer {
            said = []
            framesSaid = 0
        }
        return said
    }

    private static func resample(_ samples: [Int16], with resampler: inout Resampler?) -> [Int16] {
        guard resampler != nil else { return samples }
        var resampled = [Int16](repeating: 0, count: resampler?.outputCount(for: samples.count) ?? 0)
        var room = resampled.mutableSpan
        let written = resampler?.process(samples.span, into: &room).written ?? 0
        return Array(resampled.prefix(written))
    }
}
