import Audio
import Primitives
import TestSupport
import Testing

private struct PipeRun {
    var pcm: [Int16] = []
    /// When each event came.
    var times: [Instant] = []
    var frames: [AudioFrame] = []
    var events: [VoiceActivityEvent] = []
    var statistics = JitterStatistics()
    var undecodable = 0
}

/// Encodes a signal at 24 kHz, sends it through a network, and takes what comes out of the pipe.
private func run(
    _ signal: [Int16], _ settings: AudioPipe.Settings = .init(), expectedLoss: Int = 0, _ delay: (Int) -> Interval?
) -> PipeRun {
    var encoding = OpusEncoder.Settings()
    encoding.expectedLoss = expectedLoss
    var encoder = OpusEncoder(encoding)
    let packets = encoder.packets(signal)
    let sent = stream(packets.count, delay).sorted { $0.arrival < $1.arrival }
    var pipe = AudioPipe(settings)
    var result = PipeRun()
    var next = 0
    var frame = [Int16](repeating: 0, count: pipe.frameSamples)
    let end = (sent.last?.arrival ?? start) + .milliseconds(300)
    while true {
        let due = pipe.nextDeadline.instant
        let arrival = next < sent.count ? sent[next].arrival : .never
        let now = min(due, arrival)
        guard now < end else { break }
        if arrival <= due {
            let packet = packets[sent[next].sequence]
            _ = pipe.receive(
                packet.span.bytes, sequence: Int64(sent[next].sequence), timestamp: sent[next].timestamp, source: 1, at: now)
            next += 1
        }
        pipe.advance(to: now)
        while true {
            var span = frame.mutableSpan
            guard let taken = pipe.nextFrame(into: &span) else { break }
            result.frames.append(taken)
            result.pcm += frame
            while let event = pipe.nextEvent() {
                result.events.append(event)
                result.times.append(now)
            }
        }
    }
    result.statistics = pipe.statistics
    result.undecodable = pipe.undecodable
    return result
}

@Suite struct `The audio pipe` {
    /// From the caller's last sample to the end of the turn there are the silence that was asked for, and what packet, jitter buffer, codec and
    /// detector take: the delay that a caller hears beside the network's. What comes in order waits for nothing.
    @Test(arguments: [0.0, 45]) func `the end of a turn is noticed soon after its silence`(delay: Double) {
        for tail in stride(from: 0, to: 960, by: 192) {
            // In the middle of a syllable.
            let spoken = voice(rate: 24_000, count: 16 * 24_000 + 3_000 + tail)
            let heard = run(spoken + [Int16](repeating: 0, count: 36_000)) { _ in milliseconds(delay) }
            guard heard.events.count == 2, let noticed = heard.times.last, case .speechStopped = heard.events[1] else {
                Issue.record("\(heard.events)")
                continue
            }
            // The stream's first packet is sent at `start`, with samples of the 20 ms before it.
            let last = start - .milliseconds(20) + .microseconds(Int64(spoken.count) * 1_000_000 / 24_000)
            let late = (noticed - last).milliseconds - Int64(delay) - 500
            // Of it up to 20 are the rest of the packet, and 7 the codec.
            #expect(late >= 0 && late <= 40, "\(late) ms after the silence")
        }
    }

    @Test(arguments: [8_000, 16_000, 24_000, 44_100, 48_000])
    func `a tone comes through without a gap at every rate`(_ rate: Int) {
        var settings = AudioPipe.Settings()
        settings.rate = rate
        settings.voiceActivity = nil
        let heard = run(tone(440, rate: 24_000, count: 48_000), settings) { _ in milliseconds(30) }
        #expect(heard.frames.map(\.milliseconds) == (0..<heard.frames.count).map { $0 * 20 })
        #expect(heard.frames.prefix(99).allSatisfy { !$0.isConcealed })
        #expect(heard.pcm.count == heard.frames.count * rate / 50)
        #expect(share(of: 440, in: heard.pcm[(rate / 10)..<(rate * 19 / 10)], rate: rate) > 0.98)
        #expect(heard.undecodable == 0)
    }

    /// A phrase with 10 % of packets lost and 40 ms of jitter: the turn is found where it is without loss.
    @Test(arguments: 1...4)
    func `turns survive loss and jitter`(_ seed: UInt64) {
        let signal = mixed(
            [Int16](repeating: 0, count: 36_000) + voice(rate: 24_000, count: 48_000) + [Int16](repeating: 0, count: 48_000),
            noise(-65, count: 132_000, seed: seed))
        var random = SeededGenerator(seed: seed)
        let heard = run(signal, expectedLoss: 10) { index in
            index > 0 && random.chance(1, in: 10) ? nil : milliseconds(30 + Double.random(in: 0...40, using: &random))
        }
        #expect(heard.events.count == 2)
        guard heard.events.count == 2, case .speechStarted(let started) = heard.events[0],
            case .speechStopped(let stopped) = heard.events[1]
        else { return }
        // Onset at 1.5 s, less 300 ms of padding; what the jitter buffer inserts or skips moves it a little.
        #expect((1_100...1_400).contains(started))
        #expect((3_650...4_200).contains(stopped))
    }

    @Test(arguments: [400, 900, 1_800])
    func `an outage in the middle of a phrase does not end the turn`(_ outage: Int) {
        let signal = [Int16](repeating: 0, count: 24_000) + voice(rate: 24_000, count: 24_000 * 5) + [Int16](repeating: 0, count: 48_000)
        let heard = run(signal) { index in (100..<(100 + outage / 20)).contains(index) ? nil : milliseconds(30) }
        let missing = heard.frames.count { $0.isMissing && $0.milliseconds < 5_000 }
        // Concealment bridges the beginning, and repeats what came too late for its turn.
        #expect(((outage - 200)...outage).contains(missing * 20))
        #expect(heard.events.count == 2)
        guard case .speechStopped(let stopped) = heard.events.last else { return }
        #expect((6_150...6_700).contains(stopped))
    }

    @Test func `a caller whose packets stop for good has stopped to speak`() {
        let signal = [Int16](repeating: 0, count: 24_000) + voice(rate: 24_000, count: 24_000 * 8)
        let heard = run(signal) { index in (150..<449).contains(index) ? nil : milliseconds(30) }
        #expect(heard.events.count == 2)
        guard case .speechStopped(let stopped) = heard.events.last else { return }
        // The outage began at 3 s: 2 s of patience, and the silence that was asked for.
        #expect((5_200...5_700).contains(stopped))
    }

    @Test(arguments: 1...3)
    func `lost frames are marked and not silent`(_ seed: UInt64) {
        let signal = tone(440, rate: 24_000, count: 24_000 * 6)
        var random = SeededGenerator(seed: seed)
        var settings = AudioPipe.Settings()
        settings.voiceActivity = nil
        let heard = run(signal, settings) { index in index > 0 && random.chance(1, in: 20) ? nil : milliseconds(30) }
        let marked = heard.frames.count { $0.isConcealed } - 6
        #expect(abs(marked - 15) <= 9)
        // Two losses in a row die away.
        let faint = (5..<295).count { level(heard.pcm[($0 * 480)..<($0 * 480 + 480)]) < -30 }
        #expect(faint <= 4)
        #expect(share(of: 440, in: heard.pcm[2_400..<140_000], rate: 24_000) > 0.8)
    }

    @Test func `packets of other lengths make frames of 20 ms too`() {
        // 60 ms packets: three 20 ms frames of SILK in one (code 3), as a sender with ptime 60 makes them.
        var encoder = OpusEncoder()
        encoder.setBitrate(16_000)
        let small = encoder.packets(voice(rate: 24_000, count: 24_000 * 3))
        var pipe = AudioPipe()
        var frame = [Int16](repeating: 0, count: 480)
        var frames: [AudioFrame] = []
        for index in stride(from: 0, to: small.count - 2, by: 3) {
            let parts = small[index..<(index + 3)]
            guard Set(parts.map { $0[0] }).count == 1 else { continue }
            var packet: [UInt8] = [parts[index][0] | 3, 0x83]
            for part in parts.prefix(2) {
                let length = part.count - 1
                packet += length < 252 ? [UInt8(length)] : [UInt8(252 + length % 4), UInt8((length - 252 - length % 4) / 4)]
            }
            for part in parts { packet += part.dropFirst() }
            let now = start + .milliseconds(Int64(index) * 20)
            let arrival = pipe.receive(packet.span.bytes, sequence: Int64(index / 3), timestamp: UInt32(index * 960), source: 1, at: now)
            #expect(arrival == .accepted)
            pipe.advance(to: now + .milliseconds(59))
            var span = frame.mutableSpan
            while let taken = pipe.nextFrame(into: &span) { frames.append(taken) }
        }
        #expect(frames.count >= 135)
        #expect(frames.count { $0.isConcealed } <= 12)
    }

    @Test func `voice activity can be switched off and on`() {
        var pipe = AudioPipe()
        pipe.setVoiceActivity(nil)
        var off = VoiceActivity.Settings()
        off.threshold = 0.9
        pipe.setVoiceActivity(off)
        let speaking = pipe.isSpeaking
        #expect(!speaking)
    }

    @Test func `rubbish in valid framing reaches nobody but the decoder`() {
        mutate([[0x08, 1, 2, 3, 4, 5, 6, 7, 8], [0x78, 9, 8, 7, 6, 5, 4], [0xF8, 0xFF, 0xFE]], count: mutationCount / 100) { bytes in
            var pipe = AudioPipe()
            for index in 0..<5 {
                _ = pipe.receive(
                    bytes, sequence: Int64(index), timestamp: UInt32(index * 960), source: 1, at: start + .milliseconds(Int64(index) * 20))
            }
            pipe.advance(to: start + .milliseconds(300))
            var frame = [Int16](repeating: 0, count: 480)
            var count = 0
            var span = frame.mutableSpan
            while pipe.nextFrame(into: &span) != nil { count += 1 }
            precondition(count < 100)
        }
    }
}
