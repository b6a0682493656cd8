import Audio
import Primitives
import TestSupport
import Testing

/// Runs a signal through the detector in frames of `milliseconds`, and tells the events.
private func events(
    _ signal: [Int16], rate: Int = 24_000, frame milliseconds: Int = 20, _ settings: VoiceActivity.Settings = .init()
) -> [VoiceActivityEvent] {
    var voice = VoiceActivity(rate: rate, settings)
    var events: [VoiceActivityEvent] = []
    let count = rate / 1_000 * milliseconds
    var start = 0
    while start + count <= signal.count {
        let frame = Array(signal[start..<(start + count)])
        if let event = voice.process(frame.span) { events.append(event) }
        start += count
    }
    return events
}

private func silence(_ seconds: Double, rate: Int = 24_000) -> [Int16] { [Int16](repeating: 0, count: Int(seconds * Double(rate))) }

/// A second of nothing, two of voice, two of nothing.
private func phrase(rate: Int = 24_000, amplitude: Double = 0.4) -> [Int16] {
    silence(1, rate: rate) + voice(rate: rate, count: 2 * rate, amplitude: amplitude) + silence(2, rate: rate)
}

private func times(_ events: [VoiceActivityEvent]) -> [Int] {
    events.map {
        switch $0 {
        case .speechStarted(let at), .speechStopped(let at): at
        }
    }
}

@Suite struct `Voice activity` {
    @Test(arguments: [8_000, 12_000, 16_000, 24_000, 48_000], [10, 20])
    func `a phrase starts and stops where it does, padded as asked`(_ rate: Int, frame: Int) throws {
        let found = events(phrase(rate: rate), rate: rate, frame: frame)
        try #require(found.count == 2)
        let at = times(found)
        #expect(found[0] == .speechStarted(atMilliseconds: at[0]) && found[1] == .speechStopped(atMilliseconds: at[1]))
        // 300 ms before the onset at 1 s; 500 ms after the end, which the gap in the last syllable brings forward.
        #expect((650...760).contains(at[0]))
        #expect((3_250...3_560).contains(at[1]))
    }

    @Test(arguments: [-70.0, -60, -50, -45])
    func `noise under the voice changes little`(_ noiseLevel: Double) throws {
        let signal = phrase()
        let found = events(mixed(signal, noise(noiseLevel, count: signal.count, seed: 7)))
        try #require(found.count == 2)
        let at = times(found)
        #expect((650...800).contains(at[0]))
        #expect((3_200...3_600).contains(at[1]))
    }

    @Test func `padding and silence are settings, and a turn does not reach into the one before`() throws {
        var settings = VoiceActivity.Settings()
        settings.prefixPaddingMilliseconds = 1_500
        settings.silenceDurationMilliseconds = 300
        let spoken = voice(rate: 24_000, count: 24_000)
        let found = events(silence(1) + spoken + silence(0.8) + spoken + silence(1), settings)
        try #require(found.count == 4)
        let at = times(found)
        #expect(at[0] == 0)
        #expect(at[2] == at[1])
        settings.prefixPaddingMilliseconds = 0
        let bare = times(events(silence(1) + spoken + silence(0.8) + spoken + silence(1), settings))
        try #require(bare.count == 4)
        #expect((980...1_060).contains(bare[0]))
        #expect((2_050...2_320).contains(bare[1]))
        #expect((2_780...2_860).contains(bare[2]))
    }

    @Test func `a pause shorter than the silence asked for ends nothing`() {
        var settings = VoiceActivity.Settings()
        settings.silenceDurationMilliseconds = 1_000
        let spoken = voice(rate: 24_000, count: 24_000)
        #expect(events(silence(1) + spoken + silence(0.7) + spoken + silence(2), settings).count == 2)
        settings.silenceDurationMilliseconds = 400
        #expect(events(silence(1) + spoken + silence(0.7) + spoken + silence(2), settings).count == 4)
    }

    @Test func `the decision comes within 120 ms of the first sound`() {
        var detector = VoiceActivity()
        let signal = mixed(phrase(), noise(-60, count: 120_000, seed: 3))
        var decided: Int?
        for start in stride(from: 0, to: signal.count, by: 480) where decided == nil {
            let frame = Array(signal[start..<(start + 480)])
            if detector.process(frame.span) != nil { decided = detector.milliseconds }
        }
        #expect((1_040...1_120).contains(decided ?? 0))
    }

    @Test func `a keyboard, hiss and a fan that is switched on are no speech`() {
        var random = SeededGenerator(seed: 11)
        var clicks = noise(-70, count: 24_000 * 20, seed: 5)
        for _ in 0..<60 {
            let start = Int.random(in: 0..<(clicks.count - 480), using: &random)
            for index in 0..<480 {
                let decay = 1 - Double(index) / 480
                clicks[start + index] = Int16(Double.random(in: -12_000...12_000, using: &random) * decay * decay)
            }
        }
        #expect(events(clicks).isEmpty)
        #expect(events(silence(2) + noise(-30, count: 24_000 * 10, seed: 6)).isEmpty)
        #expect(events(noise(-45, count: 24_000 * 10, seed: 8)).isEmpty)
        #expect(events(silence(10)).isEmpty)
    }

    @Test func `a higher threshold asks for louder speech`() {
        // The peak of 0.004 is a level of about −60 dB.
        let quiet = phrase(amplitude: 0.006)
        var settings = VoiceActivity.Settings()
        settings.threshold = 0.1
        #expect(events(quiet, settings).count == 2)
        settings.threshold = 0.95
        #expect(events(quiet, settings).isEmpty)
        #expect(events(phrase(), settings).count == 2)
    }

    @Test func `any sound at any threshold leaves it alive`() {
        mutate(
            [phrase(amplitude: 1).prefix(2_000).flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }], count: 200
        ) {
            bytes in
            var settings = VoiceActivity.Settings()
            settings.threshold = bytes.byteCount > 0 ? Double(bytes.byte(0)) / 100 - 0.5 : 0
            var detector = VoiceActivity(rate: 8_000, settings)
            for start in stride(from: 0, to: bytes.byteCount - 160, by: 160) {
                let frame = (0..<80).map { Int16(bitPattern: bytes.u16(start + 2 * $0)) }
                _ = detector.process(frame.span)
                precondition(detector.probability >= 0 && detector.probability <= 1)
            }
        }
    }
}
