import Audio
import Primitives
import TestSupport
import Testing

/// A policy that a product might bring: any sound is speech.
private struct Impatient: EndpointPolicy {
    var isSpeaking = false
    mutating func hear(_ hop: SpeechHop) -> VoiceActivityEvent? {
        let sounds = hop.level > -40
        guard sounds != isSpeaking else { return nil }
        isSpeaking = sounds
        return sounds ? .speechStarted(atMilliseconds: hop.milliseconds) : .speechStopped(atMilliseconds: hop.milliseconds)
    }
}

private func collect(_ capacity: Int, _ body: (inout OutputRawSpan) -> Void) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
        var output = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
        body(&output)
        count = output.finalize(for: UnsafeMutableRawBufferPointer(buffer))
    }
}

@Suite struct `Formats of a backend` {
    @Test func `samples become bytes and come back`() {
        let samples: [Int16] = [0, 1, -1, 256, -32_768, 32_767, 4_000, -4_000]
        let pcm = collect(16) { #expect(AudioFormat.pcm(rate: 24_000).write(samples.span, into: &$0)) }
        #expect(pcm.prefix(8) == [0, 0, 1, 0, 0xFF, 0xFF, 0, 1])
        for format in [AudioFormat.pcm(rate: 16_000), .muLaw, .aLaw] {
            let bytes = collect(16) { #expect(format.write(samples.span, into: &$0)) }
            #expect(bytes.count == samples.count * format.bytesPerSample)
            var back = [Int16](repeating: 0, count: 8)
            var span = back.mutableSpan
            let count = format.read(bytes.span.bytes, into: &span)
            #expect(count == 8)
            let exact = format.bytesPerSample == 2
            for (a, b) in zip(samples, back) { #expect(abs(Int(a) - Int(b)) <= (exact ? 0 : 16 + abs(Int(a)) / 30)) }
        }
        let tooMuch = collect(7) { #expect(!AudioFormat.aLaw.write(samples.span, into: &$0)) }
        #expect(tooMuch.isEmpty)
    }

    @Test(arguments: [AudioFormat.pcm(rate: 24_000), .pcm(rate: 16_000), .muLaw, .aLaw])
    func `a tone goes down as bytes and comes up as bytes`(_ format: AudioFormat) {
        let signal = tone(440, rate: format.rate, count: format.rate * 2)
        let bytes = collect(signal.count * 2) { _ = format.write(signal.span, into: &$0) }
        var encoding = OpusEncoder.Settings()
        encoding.rate = format.rate
        var queue = PlayoutQueue(encoder: encoding, timestamp: 0)
        let taken = queue.append(bytes.span.bytes, as: format, item: 1)
        #expect(taken == bytes.count)
        var settings = AudioPipe.Settings()
        settings.rate = format.rate
        settings.voiceActivity = nil
        var pipe = AudioPipe(settings)
        var heard: [UInt8] = []
        for step in 0..<110 {
            let now = start + .milliseconds(Int64(step) * 20)
            var frame: PlayoutFrame?
            let packet = collect(1_500) { frame = queue.nextFrame(into: &$0, at: now) }
            if let frame {
                _ = pipe.receive(packet.span.bytes, sequence: Int64(step), timestamp: frame.timestamp, source: 1, at: now)
            }
            pipe.advance(to: now)
            while true {
                var taken: AudioFrame?
                let piece = collect(2_000) { taken = pipe.nextFrame(into: &$0, as: format) }
                guard taken != nil else { break }
                #expect(piece.count == format.rate / 50 * format.bytesPerSample)
                heard += piece
            }
        }
        var pcm = [Int16](repeating: 0, count: heard.count / format.bytesPerSample)
        var span = pcm.mutableSpan
        _ = format.read(heard.span.bytes, into: &span)
        #expect(pcm.count >= format.rate * 2)
        #expect(share(of: 440, in: pcm[(format.rate / 5)..<(format.rate * 19 / 10)], rate: format.rate) > 0.97)
    }

    @Test func `half a sample waits for nobody`() {
        var queue = PlayoutQueue(timestamp: 0)
        let odd = [UInt8](repeating: 1, count: 4_801)
        let taken = queue.append(odd.span.bytes, as: .pcm(rate: 24_000), item: 1)
        #expect(taken == 4_800)
        let none = queue.append([UInt8]().span.bytes, as: .pcm(rate: 24_000), item: 1)
        #expect(none == 0)
    }

    @Test func `a backend that decodes by itself gets the packets, and is told what is missing`() {
        var encoder = OpusEncoder()
        let packets = encoder.packets(voice(rate: 24_000, count: 48_000))
        var settings = AudioPipe.Settings()
        settings.voiceActivity = nil
        for hears in [false, true] {
            settings.voiceActivity = hears ? .init() : nil
            var pipe = AudioPipe(settings)
            var got: [[UInt8]] = []
            var stretches: [AudioPacket] = []
            for index in packets.indices {
                let now = start + .milliseconds(Int64(index) * 20)
                let packet = packets[index]
                if index % 10 != 5 {
                    _ = pipe.receive(packet.span.bytes, sequence: Int64(index), timestamp: UInt32(index * 960), source: 1, at: now)
                }
                pipe.advance(to: now)
                while true {
                    var taken: AudioPacket?
                    let bytes = collect(1_500) { taken = pipe.nextPacket(into: &$0) }
                    guard let taken else { break }
                    stretches.append(taken)
                    if taken.content == .packet { got.append(bytes) } else { #expect(bytes.isEmpty) }
                }
            }
            #expect(got == packets.indices.filter { $0 % 10 != 5 }.prefix(got.count).map { packets[$0] })
            #expect(got.count >= 85)
            #expect((8...10).contains(stretches.count { $0.content == .lost }))
            var end = 0
            for stretch in stretches {
                #expect(stretch.milliseconds == end)
                end += stretch.samples / 48
            }
            if hears {
                let event = pipe.nextEvent()
                #expect(event == .speechStarted(atMilliseconds: 0))
            }
        }
    }

    /// A backend that was reached late: frames until then, packets from then on, and one clock for both.
    @Test func `frames may turn into packets in the middle, and back`() {
        var encoder = OpusEncoder()
        let packets = encoder.packets(voice(rate: 24_000, count: 48_000))
        var settings = AudioPipe.Settings()
        settings.voiceActivity = nil
        var pipe = AudioPipe(settings)
        var (frames, taken) = (0, 0)
        for index in packets.indices {
            let now = start + .milliseconds(Int64(index) * 20)
            let packet = packets[index]
            _ = pipe.receive(packet.span.bytes, sequence: Int64(index), timestamp: UInt32(index * 960), source: 1, at: now)
            pipe.advance(to: now)
            if (30..<60).contains(index) {
                while true {
                    var packet: AudioPacket?
                    _ = collect(1_500) { packet = pipe.nextPacket(into: &$0) }
                    guard let packet else { break }
                    #expect(packet.milliseconds == 20 * (frames + taken) && packet.content == .packet)
                    taken += 1
                }
            } else {
                var frame = [Int16](repeating: 0, count: 480)
                while true {
                    var room = frame.mutableSpan
                    guard pipe.nextFrame(into: &room) != nil else { break }
                    frames += 1
                }
            }
        }
        #expect(taken == 30 && frames + taken >= packets.count - 5)
        let milliseconds = pipe.milliseconds
        #expect(milliseconds == 20 * (frames + taken))
    }

    @Test func `a product's own rule decides where turns end`() {
        let signal = [Int16](repeating: 0, count: 4_800) + tone(300, rate: 24_000, count: 2_400) + [Int16](repeating: 0, count: 4_800)
        var detector = VoiceActivity()
        detector.setEndpointing(Impatient())
        var events: [VoiceActivityEvent] = []
        for at in stride(from: 0, to: signal.count, by: 240) {
            if let event = detector.process(signal.span.extracting(at..<(at + 240))) { events.append(event) }
        }
        #expect(events.count == 2)
        guard case .speechStarted(let from) = events.first, case .speechStopped(let to) = events.last else { return }
        #expect((200...230).contains(from) && (300...340).contains(to))
    }

    @Test func `silence inside an answer is not sent when the caller allows it`() {
        var encoding = OpusEncoder.Settings()
        encoding.discontinuousTransmission = true
        var queue = PlayoutQueue(encoder: encoding, timestamp: 0)
        let spoken = voice(rate: 24_000, count: 24_000)
        let signal = spoken + [Int16](repeating: 0, count: 48_000) + spoken
        _ = queue.append(signal.span, item: 1)
        queue.finish(item: 1)
        var frames: [PlayoutFrame] = []
        var sizes: [Int] = []
        for step in 0..<300 {
            let bytes = collect(1_500) { output in
                while let frame = queue.nextFrame(into: &output, at: start + .milliseconds(Int64(step) * 20)) { frames.append(frame) }
            }
            if !bytes.isEmpty { sizes.append(bytes.count) }
        }
        #expect(sizes.count == frames.count && sizes.allSatisfy { $0 > 2 })
        #expect((85...140).contains(frames.count))
        // The timestamp tells how long the silence was, and the marker that one was.
        let last = frames.last?.timestamp ?? 0
        #expect((190...201).contains(Int(last) / 960))
        #expect((2...8).contains(frames.count { $0.startsTalkspurt }))
        let events = [queue.nextEvent(), queue.nextEvent()]
        #expect(events == [.started(item: 1), .finished(item: 1, milliseconds: 4_000)])
    }
}
