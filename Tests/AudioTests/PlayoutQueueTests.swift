import Audio
import Primitives
import TestSupport
import Testing

/// A listener who takes every packet when it is due and decodes it.
private struct Listener: ~Copyable {
    var queue: PlayoutQueue
    var decoder = OpusDecoder(rate: 24_000)
    var now = start
    var frames: [PlayoutFrame] = []
    var times: [Instant] = []
    var pcm: [Int16] = []

    init(_ settings: OpusEncoder.Settings = .init(), timestamp: UInt32 = 1_000) {
        queue = PlayoutQueue(encoder: settings, timestamp: timestamp)
    }

    mutating func say(_ samples: [Int16], item: UInt32 = 1) -> Int { queue.append(samples.span, item: item) }

    /// Lets time pass, taking what is due.
    mutating func listen(_ interval: Interval) {
        let end = now + interval
        while true {
            let due = max(queue.nextDeadline.instant, now)
            guard due < end else { break }
            now = due
            var bytes = [UInt8](repeating: 0, count: 1_500)
            let frame = bytes.withUnsafeMutableBytes { raw in
                var output = OutputRawSpan(buffer: raw, initializedCount: 0)
                return queue.nextFrame(into: &output, at: now)
            }
            guard let frame else { continue }
            frames.append(frame)
            times.append(now)
            pcm += (try? decoder.pcm(Array(bytes[..<frame.byteCount]))) ?? []
        }
        now = end
    }

    mutating func events() -> [PlayoutEvent] {
        var events: [PlayoutEvent] = []
        while let event = queue.nextEvent() { events.append(event) }
        return events
    }
}

@Suite struct `The playout queue` {
    @Test func `speech that comes at once leaves in real time`() {
        var listener = Listener()
        let accepted = listener.say(tone(440, rate: 24_000, count: 24_000 * 3))
        listener.queue.finish(item: 1)
        #expect(accepted == 72_000)
        listener.listen(.seconds(1))
        #expect(listener.frames.count == 50)
        let queued = listener.queue.queuedMilliseconds
        #expect(queued == 2_000)
        listener.listen(.seconds(4))
        // And one frame for what the encoder held back.
        #expect(listener.frames.count == 151)
        for (a, b) in zip(listener.times, listener.times.dropFirst()) { #expect(b - a == .milliseconds(20)) }
        for (a, b) in zip(listener.frames, listener.frames.dropFirst()) { #expect(b.timestamp &- a.timestamp == 960) }
        #expect(listener.frames.map(\.startsTalkspurt) == [true] + [Bool](repeating: false, count: 150))
        #expect(share(of: 440, in: listener.pcm[2_400..<69_600], rate: 24_000) > 0.98)
        let events = listener.events()
        #expect(events == [.started(item: 1), .finished(item: 1, milliseconds: 3_000)])
    }

    @Test func `timestamps go on through a pause in real time`() {
        var listener = Listener(timestamp: UInt32.max - 5_000)
        _ = listener.say(tone(440, rate: 24_000, count: 4_800))
        listener.queue.finish(item: 1)
        listener.listen(.seconds(5))
        _ = listener.say(tone(440, rate: 24_000, count: 4_800), item: 2)
        listener.queue.finish(item: 2)
        listener.listen(.seconds(1))
        #expect(listener.frames.count == 22)
        #expect(listener.frames[11].startsTalkspurt)
        #expect(listener.frames[11].timestamp &- listener.frames[0].timestamp == 5 * 48_000)
    }

    /// The caller interrupts 1,010 ms after the first packet left: 51 packets are out, 1,020 ms, and 5 ms fade out.
    @Test func `an interruption tells what really left, and the last packet leaves with it`() {
        var listener = Listener()
        _ = listener.say(tone(440, rate: 24_000, count: 24_000 * 10), item: 7)
        listener.queue.finish(item: 7)
        listener.listen(.milliseconds(1_010))
        let heard = listener.frames.count
        #expect(heard == 51)
        let cleared = listener.queue.clear()
        #expect(cleared == PlayoutCleared(item: 7, playedMilliseconds: 1_025, discardedMilliseconds: 8_975))
        let decided = listener.now
        listener.listen(.seconds(1))
        #expect(listener.frames.count == heard + 1)
        #expect(listener.times.last == decided)
        // The fade, delayed by the encoder's lookahead, is over within that packet: no other needs to follow.
        #expect(level(listener.pcm[(51 * 480 + 310)...]) < -45)
        // The packet takes the place in time that the next one had.
        #expect(listener.frames[heard].timestamp &- listener.frames[heard - 1].timestamp == 960)
        let events = listener.events()
        #expect(events == [.started(item: 7)])
        let again = listener.queue.clear()
        #expect(again == PlayoutCleared(item: nil, playedMilliseconds: 0, discardedMilliseconds: 0))
    }

    @Test func `an interruption does not click`() {
        // 5 ms before the cut and all after: no step larger than the tone's own.
        for cut in [200, 207, 213] {
            var listener = Listener()
            _ = listener.say(tone(300, rate: 24_000, count: 24_000, amplitude: 0.6))
            listener.listen(.milliseconds(Int64(cut)))
            _ = listener.queue.clear()
            let before = listener.pcm.dropFirst(2_400)
            let own = zip(before, before.dropFirst()).map { abs(Int($1) - Int($0)) }.max() ?? 0
            let start = listener.pcm.count - 120
            listener.listen(.milliseconds(100))
            let end = listener.pcm[start...]
            let steps = zip(end, end.dropFirst()).map { abs(Int($1) - Int($0)) }.max() ?? 0
            #expect(steps < own * 3 / 2)
        }
    }

    @Test func `what was interrupted does not come back, and what is said next starts at once`() {
        var listener = Listener()
        _ = listener.say(tone(440, rate: 24_000, count: 24_000 * 5), item: 1)
        listener.listen(.milliseconds(500))
        _ = listener.queue.clear()
        let accepted = listener.say(tone(880, rate: 24_000, count: 24_000), item: 2)
        #expect(accepted == 24_000)
        let before = listener.pcm.count
        listener.listen(.seconds(2))
        let after = listener.pcm[(before + 1_440)..<(before + 20_000)]
        #expect(share(of: 880, in: after, rate: 24_000) > 0.97)
        #expect(share(of: 440, in: after, rate: 24_000) < 0.01)
        // The fade-out leaves before its time, and nothing else.
        let steps = zip(listener.times, listener.times.dropFirst()).map { $1 - $0 }
        #expect(steps.allSatisfy { $0 >= .milliseconds(20) || $0 == steps[24] } && steps[24] + steps[25] == .milliseconds(40))
        for (a, b) in zip(listener.frames, listener.frames.dropFirst()) { #expect(b.timestamp &- a.timestamp == 960) }
        let events = listener.events()
        #expect(events.prefix(2) == [.started(item: 1), .started(item: 2)])
    }

    @Test func `several items are told apart`() {
        var listener = Listener()
        for item in 1...3 as ClosedRange<UInt32> { _ = listener.say(tone(440, rate: 24_000, count: 24_000 / 10 * Int(item)), item: item) }
        listener.listen(.milliseconds(150))
        let playing = listener.queue.playing
        #expect(playing?.item == 2 && playing?.milliseconds == 60)
        let cleared = listener.queue.clear()
        #expect(cleared == PlayoutCleared(item: 2, playedMilliseconds: 65, discardedMilliseconds: 435))
        let events = listener.events()
        #expect(events == [.started(item: 1), .finished(item: 1, milliseconds: 100), .started(item: 2)])
    }

    @Test func `a speaker who pauses is an underrun, and goes on without a click`() {
        var listener = Listener()
        _ = listener.say(tone(440, rate: 24_000, count: 2_650))
        listener.listen(.milliseconds(500))
        #expect(listener.frames.count == 7)
        let paused = listener.events()
        #expect(paused == [.started(item: 1), .underrun(item: 1, milliseconds: 110)])
        _ = listener.say(tone(440, rate: 24_000, count: 4_800))
        listener.queue.finish(item: 1)
        listener.listen(.milliseconds(500))
        let after = listener.events()
        #expect(after == [.finished(item: 1, milliseconds: 310)])
        #expect(listener.frames[7].startsTalkspurt)
    }

    @Test func `two minutes wait, no more`() {
        var listener = Listener()
        let second = tone(440, rate: 24_000, count: 24_000)
        var accepted = 0
        for _ in 0..<130 { accepted += listener.say(second) }
        #expect(accepted == 120 * 24_000)
        listener.listen(.seconds(1))
        let more = listener.say(second)
        #expect(more == 24_000)
        var refused = 0
        for item in 2..<100 as Range<UInt32> {
            _ = listener.queue.clear()
            for other in 0..<70 as Range<UInt32> where listener.say([1, 2, 3], item: item * 100 + other) == 0 { refused += 1 }
        }
        #expect(refused == 98 * 6)
    }

    @Test func `a listener who sleeps is not flooded`() {
        var listener = Listener()
        _ = listener.say(tone(440, rate: 24_000, count: 24_000 * 5))
        listener.listen(.milliseconds(100))
        listener.now = listener.now + .seconds(1)
        let before = listener.frames.count
        listener.listen(.milliseconds(1))
        #expect(listener.frames.count == before + 1)
        #expect(listener.frames[before].timestamp &- listener.frames[before - 1].timestamp >= 960 + 43_000)
    }

    /// Any order of saying, finishing, listening and interrupting: what is accepted is played or discarded, to the sample.
    @Test func `nothing gets lost in the accounting`() {
        for seed in 1...20 as ClosedRange<UInt64> {
            var random = SeededGenerator(seed: seed)
            var listener = Listener()
            var accepted = 0
            var discarded = 0
            var item: UInt32 = 0
            for _ in 0..<200 {
                switch Int.random(in: 0..<6, using: &random) {
                case 0...1:
                    item += UInt32.random(in: 0...1, using: &random)
                    let pcm = [Int16](repeating: 900, count: 24 * Int.random(in: 1...400, using: &random))
                    accepted += listener.say(pcm, item: item) / 24
                case 2: listener.queue.finish(item: item)
                case 3...4: listener.listen(.milliseconds(Int64.random(in: 1...300, using: &random)))
                default:
                    guard random.chance(1, in: 3) else { break }
                    let playing = listener.queue.playing
                    let cleared = listener.queue.clear()
                    discarded += cleared.discardedMilliseconds
                    #expect(cleared.item == playing?.item)
                    #expect((0...5).contains(cleared.playedMilliseconds - (playing?.milliseconds ?? 0)))
                    let queued = listener.queue.queuedMilliseconds
                    #expect(queued == 0)
                }
            }
            listener.queue.finish(item: item)
            listener.listen(.seconds(60))
            let queued = listener.queue.queuedMilliseconds
            #expect(queued == 0)
            // Sound that left: frames less the silence that ends each stretch.
            #expect(listener.frames.count * 20 >= accepted - discarded)
        }
    }
}
