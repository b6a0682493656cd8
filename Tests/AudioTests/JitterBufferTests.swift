import Audio
import Primitives
import TestSupport
import Testing

@Suite struct `The jitter buffer` {
    @Test func `on a steady network every packet is played in order, 20 ms apart`() {
        let run = play(stream(500) { _ in milliseconds(30) })
        #expect(run.sequences.starts(with: Array(0..<500).prefix(490)))
        let frames = run.heard.filter { $0.frame.kind != .discard }
        for (a, b) in zip(frames, frames.dropFirst()) { #expect(b.at - a.at == .milliseconds(20)) }
        #expect(run.statistics.concealedSamples <= 15 * 960)
        #expect(run.arrivals.allSatisfy { $0 == .accepted })
    }

    private static func machine() -> JitterBuffer.Settings {
        var settings = JitterBuffer.Settings()
        settings.handsOnAtOnce = true
        return settings
    }

    /// A machine listens: what is next in order has no reason to wait, and what is missing is waited for as long as for anybody.
    @Test(arguments: 1...3) func `to a machine packets are handed on as they come, and only the missing are waited for`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var last = start
        let sent = stream(1_000) { index in
            guard index < 500 || index % 50 != 0 else { return nil }
            // Jitter that keeps the order.
            let sent = start + .milliseconds(Int64(index) * 20)
            last = max(last, sent + milliseconds(30 + Double.random(in: 0...40, using: &random)))
            return last - sent
        }
        let arrival = Dictionary(uniqueKeysWithValues: sent.map { ($0.sequence, $0.arrival) })
        let paced = play(sent)
        let run = play(sent, settings: Self.machine())
        let waited = run.heard.filter { heard in heard.sequence.map { heard.at > arrival[$0] ?? start } ?? false }
        #expect(waited.allSatisfy { $0.sequence ?? 0 >= 500 } && !waited.isEmpty && waited.count < 10 * 6)
        #expect(run.sequences == run.sequences.sorted() && run.sequences.count >= 980)
        // The same is concealed, at the same time: no later, or the wait would be longer, and no sooner, or it would be in vain.
        #expect(abs(run.count(.conceal) - paced.count(.conceal)) <= 2)
        for heard in run.heard where heard.frame.kind == .conceal {
            #expect(paced.heard.contains { abs(($0.at - heard.at).milliseconds) <= 20 && $0.frame.kind == .conceal })
        }
    }

    /// The wait would grow without end: what is beyond the longest is skipped.
    @Test func `whoever sends faster than real time is heard in real time`() {
        let sent = (0..<1_000).map {
            SentPacket(sequence: $0, timestamp: UInt32($0 * 960), arrival: start + .milliseconds(Int64($0) * 10))
        }
        let run = play(sent, settings: Self.machine(), tail: .zero)
        #expect((500...520).contains(run.count(.packet)) && run.count(.conceal) == 0, "\(run.count(.packet))")
    }

    /// The first wait is 40 ms; a network without jitter does not need it, and the caller pauses now and then.
    @Test func `the delay falls to its minimum on a steady network`() {
        let run = play(stream(1_500) { _ in milliseconds(30) }, quiet: { ($0 - start).milliseconds % 1_000 > 800 })
        #expect(run.statistics.targetDelay == .milliseconds(20))
        #expect(run.statistics.currentDelay <= .milliseconds(40))
        #expect(run.statistics.discardedSamples <= 960)
    }

    @Test(arguments: 1...5)
    func `jitter is waited for, and no longer than needed`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let run = play(stream(3_000) { _ in milliseconds(30 + Double.random(in: 0...60, using: &random)) })
        // 97 of 100 packets come within 58 ms of the fastest.
        #expect(run.statistics.targetDelay >= .milliseconds(50))
        #expect(run.statistics.targetDelay <= .milliseconds(70))
        // What came too late was waited for: nothing is lost, little was made up on the way.
        #expect(Set(run.sequences).count >= 2_980)
        #expect(run.statistics.concealedSamples < 3_000 * 960 * 2 / 100)
        #expect(run.longestGap <= 330)
        #expect(run.delays.max()! <= .milliseconds(200))
    }

    @Test(arguments: 1...3)
    func `after a bad spell the delay comes down again`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let run = play(
            stream(4_000) { index in milliseconds(30 + ((1_000..<2_000).contains(index) ? Double.random(in: 0...150, using: &random) : 0))
            },
            quiet: { ($0 - start).milliseconds % 2_000 > 1_700 })
        let during = run.delays[1_500..<2_000].max()!
        #expect(during > .milliseconds(100) && during <= .milliseconds(220))
        #expect(run.statistics.targetDelay <= .milliseconds(25))
        #expect(run.statistics.currentDelay <= .milliseconds(45))
    }

    @Test func `in speech without any pause excess delay is given back too`() {
        // Eight packets held up and let go at once.
        let run = play(stream(3_000) { index in milliseconds((500..<508).contains(index) ? 190 - Double(index - 500) * 20 : 30) })
        #expect(run.delays.max()! >= .milliseconds(150))
        #expect(run.statistics.currentDelay <= .milliseconds(80))
        #expect(run.statistics.late == 0)
    }

    @Test(arguments: [1, 5, 10, 20])
    func `of lost packets those with a copy in the next are recovered, the others concealed`(percent: UInt64) {
        for fec in [true, false] {
            var random = SeededGenerator(seed: percent)
            var lost = Set<Int>()
            let packets = stream(5_000, fec: fec) { index in
                if index > 0, random.chance(percent, in: 100) {
                    lost.insert(index)
                    return nil
                }
                return milliseconds(30 + Double.random(in: 0...10, using: &random))
            }
            let run = play(packets, quiet: { ($0 - start).milliseconds % 2_000 > 1_700 })
            // Lost packets whose successor came.
            let recoverable = lost.count { !lost.contains($0 + 1) && $0 + 1 < 5_000 }
            let share = Double(run.statistics.concealedSamples / 960 - 15) / 5_000
            if fec {
                #expect(run.count(.fec) >= recoverable - 10 && run.count(.fec) <= recoverable)
                #expect(share < Double(percent * percent) / 10_000 + 0.005)
            } else {
                #expect(run.count(.fec) == 0)
                #expect(abs(share - Double(lost.count) / 5_000) < 0.005)
            }
            #expect(Set(run.sequences).count + lost.count + run.statistics.discardedSamples / 960 >= 4_998)
            #expect(run.delays.max()! <= .milliseconds(80))
        }
    }

    @Test func `reordered packets are put in order`() {
        let run = play(stream(1_000) { index in milliseconds(index % 5 == 2 ? 75 : 30) }, tail: .zero)
        #expect(run.sequences == run.sequences.sorted())
        // Until the buffer has learnt, a few come after their turn.
        #expect(run.sequences.count >= 985)
        #expect(run.statistics.late <= 10)
        let settled = run.heard.dropFirst(100).filter { $0.frame.kind == .conceal }
        #expect(settled.isEmpty)
    }

    @Test func `duplicates are counted and played once`() {
        let once = stream(300) { _ in milliseconds(30) }
        let again = once.map { packet in
            var packet = packet
            packet.arrival = packet.arrival + .milliseconds(Int64(packet.sequence % 7) * 15)
            return packet
        }
        let run = play(once + again)
        #expect(run.sequences == Array(0..<300))
        #expect(run.statistics.duplicates == 300)
        #expect(run.statistics.late == 0)
    }

    @Test func `a redundant copy fills the gap and teaches nothing of jitter`() {
        let lost = Set([50, 51, 120, 200])
        let originals = stream(400) { lost.contains($0) ? nil : milliseconds(30) }
        let copies = originals.filter { $0.sequence > 1 }.flatMap { packet in
            (1...2).map { back in
                SentPacket(
                    sequence: packet.sequence - back, timestamp: packet.timestamp &- UInt32(960 * back), arrival: packet.arrival,
                    redundant: true)
            }
        }
        let run = play(originals + copies, tail: .zero)
        #expect(Set(run.sequences).isSuperset(of: lost))
        #expect(run.statistics.duplicates == 0 && run.statistics.late == 0)
        // Two in a row were repaired: it waits for two.
        #expect(run.statistics.targetDelay <= .milliseconds(60))
        #expect(run.statistics.concealedSamples <= 5 * 960)
    }

    /// A sender with discontinuous transmission: half a second of nothing between phrases, sequence numbers without a gap.
    @Test func `a sender's silence is no loss`() {
        var packets: [SentPacket] = []
        for phrase in 0..<10 {
            for index in 0..<25 {
                let slot = phrase * 50 + index
                packets.append(
                    SentPacket(
                        sequence: phrase * 25 + index, timestamp: UInt32(slot * 960), arrival: start + .milliseconds(Int64(slot) * 20 + 30),
                        silence: index == 24))
            }
        }
        let run = play(packets, tail: .zero)
        #expect(run.statistics.concealedSamples == 0)
        #expect(run.heard.count { $0.frame.kind == .packet } >= 247)
        let silence = run.statistics.silenceSamples / 960
        #expect(silence >= 215 && silence <= 228)
        #expect(run.statistics.restarts == 0)
    }

    /// Chromium sends a few packets when a muted track comes back; the wait was longer than any jitter.
    @Test func `an outage is silence after its first 120 ms, and the stream goes on`() {
        let run = play(stream(600) { (200..<350).contains($0) ? nil : milliseconds(30) })
        let outage = run.heard.filter { $0.at > start + .milliseconds(4_060) && $0.at < start + .milliseconds(6_990) }
        #expect(outage.prefix(5).allSatisfy { $0.frame.kind == .conceal })
        #expect(outage.dropFirst(8).allSatisfy { $0.frame.kind == .silence })
        #expect(Set(run.sequences).isSuperset(of: 350..<600))
        #expect(run.statistics.restarts == 0)
    }

    @Test func `a network that stalls and then delivers all at once leaves no lasting delay`() {
        let run = play(
            stream(2_000) { index in (500..<575).contains(index) ? milliseconds(30 + Double(575 - index) * 20) : milliseconds(30) },
            quiet: { ($0 - start).milliseconds % 2_000 > 1_700 })
        #expect(run.statistics.late > 50)
        #expect(run.delays.max()! <= .milliseconds(220))
        #expect(run.statistics.currentDelay <= .milliseconds(60))
        #expect(run.hadTheirTurn.isSuperset(of: 600..<1_990))
    }

    @Test func `a sender's clock that stood still starts a new time line`() {
        var packets = stream(200) { _ in milliseconds(30) }
        // Six seconds of hold; sequence and timestamp go on as if nothing had been.
        packets += stream(300, first: 200, timestamp: 200 * 960) { _ in milliseconds(30) }.map { packet in
            var packet = packet
            packet.arrival = packet.arrival + .seconds(10)
            return packet
        }
        let run = play(packets)
        #expect(run.statistics.restarts == 1)
        #expect(run.sequences.suffix(295) == Array(205..<500)[...] || run.sequences.count >= 495)
        #expect(run.statistics.currentDelay <= .milliseconds(60))
    }

    @Test(arguments: [3_000_000_000, 960_000, 5_000] as [UInt32])
    func `a timestamp that jumps ahead does not stop the sound`(jump: UInt32) {
        var packets = stream(200) { _ in milliseconds(30) }
        packets += stream(300, first: 200, timestamp: 200 * 960 &+ jump) { _ in milliseconds(30) }.map { packet in
            var packet = packet
            packet.arrival = packet.arrival + .seconds(4)
            return packet
        }
        let run = play(packets)
        #expect(run.sequences.count >= 480)
        #expect(run.longestGap <= 400)
        #expect(run.delays.max()! <= .milliseconds(220))
    }

    @Test func `another source starts anew`() {
        var packets = stream(200) { _ in milliseconds(30) }
        packets += stream(200, first: 40_000, timestamp: 77_777) { _ in milliseconds(30) }.map { packet in
            var packet = packet
            packet.arrival = packet.arrival + .seconds(4)
            packet.source = 2
            return packet
        }
        let run = play(packets)
        #expect(run.statistics.restarts == 1)
        #expect(run.arrivals.count { $0 == .restarted } == 1)
        #expect(Set(run.sequences).isSuperset(of: 40_000..<40_200))
        let frames = run.heard.filter { $0.frame.kind != .discard }
        for (a, b) in zip(frames, frames.dropFirst()) { #expect(b.at - a.at <= .milliseconds(20)) }
    }

    @Test func `sequence numbers and timestamps wrap unheard`() {
        let run = play(stream(500, first: 65_400, timestamp: UInt32.max - 100_000) { _ in milliseconds(30) }, tail: .zero)
        #expect(run.statistics.restarts == 0 && run.statistics.concealedSamples == 0)
        #expect(run.sequences.count >= 495)
    }

    @Test func `a clock that drifts by 500 ppm is followed without loss`() {
        for drift in [0.0005, -0.0005] {
            let run = play(
                stream(6_000) { index in milliseconds(100 + Double(index) * 20 * drift) }, tail: .zero,
                quiet: { ($0 - start).milliseconds % 2_000 > 1_700 })
            #expect(run.statistics.restarts == 0 && run.statistics.late == 0)
            #expect(run.statistics.concealedSamples <= 5 * 960)
            #expect(run.statistics.currentDelay <= .milliseconds(60))
        }
    }

    @Test func `a full buffer refuses, and plays what it has`() {
        var buffer = JitterBuffer()
        let payload = [UInt8](repeating: 8, count: 1_276)
        var refused = 0
        for index in 0..<100 {
            let arrival = buffer.receive(
                payload.span.bytes, sequence: Int64(index), timestamp: UInt32(index * 960), source: 1,
                at: start + .milliseconds(Int64(index)))
            if arrival == .overflow { refused += 1 }
        }
        let statistics = buffer.statistics
        #expect(refused == statistics.overflows)
        #expect(refused > 80)
    }

    @Test func `what is no Opus packet is refused`() {
        var buffer = JitterBuffer()
        let malformed: [[UInt8]] = [[], [0x09, 1, 2, 3], [0x0B], [UInt8](repeating: 8, count: 1_501)]
        var arrivals: [JitterArrival] = []
        for payload in malformed { arrivals.append(buffer.receive(payload.span.bytes, sequence: 1, timestamp: 0, source: 1, at: start)) }
        let deadline = buffer.nextDeadline.instant
        #expect(arrivals.allSatisfy { $0 == .malformed })
        #expect(deadline == .never)
    }

    @Test func `no script of a hostile peer makes it trap or fall silent`() {
        let steady = (0..<100).flatMap { _ in [0, 0, 1, 0, 0, 0, 20, 60] as [UInt8] }
        let wild = (0..<100).flatMap { index in [UInt8(index), 0, 3, 0, UInt8(index), 9, 20, 60] as [UInt8] }
        mutate([steady, wild], count: mutationCount / 10) { fuzzJitterBuffer($0) }
    }
}
