import Audio
import Primitives
import RTP
import TestSupport
import Testing

private func payload(_ text: String) -> [UInt8] { bytes(hex: text.filter { !$0.isWhitespace }) ?? [] }

private func collect(_ body: (inout OutputRawSpan) -> Void) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: 1_500) { buffer, count in
        var output = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
        body(&output)
        count = output.finalize(for: UnsafeMutableRawBufferPointer(buffer))
    }
}

@Suite struct `Redundant audio` {
    @Test func `blocks are found by the RFC's layout`() throws {
        // One copy of 111, 960 ticks back, 4 bytes.
        let packet = try REDPacket(parsing: payload("EF 0F0004 6F 08010203 080A0B0C0D").span.bytes)
        #expect(packet.copyCount == 1)
        #expect(packet.copy(distance: 1) == REDBlock(payloadType: 111, timestampOffset: 960, bytes: 5..<9))
        #expect(packet.primary == REDBlock(payloadType: 111, timestampOffset: 0, bytes: 9..<14))
    }

    @Test(arguments: [
        ("", REDError.truncated), ("EF", .truncated), ("EF0F", .truncated), ("EF0F0004", .truncated), ("EF0F0004 6F 010203", .overrun),
        ("EF0F03FF 6F", .overrun), (String(repeating: "EF0F0000", count: 9) + "6F", .tooManyBlocks),
    ])
    func `what is none is refused with its reason`(_ text: String, reason: REDError) {
        let bytes = payload(text)
        #expect(throws: reason) { _ = try REDPacket(parsing: bytes.span.bytes) }
    }

    @Test func `mutations of the corpus never trap`() {
        mutate(Corpus.files(in: "red").map(\.bytes), count: mutationCount / 10) { fuzzRED($0) }
    }

    @Test func `an answer goes out with copies, and lost packets come back from them`() {
        for distance in 1...3 {
            var queue = PlayoutQueue(timestamp: 5)
            queue.setRedundancy(opusType: 111, distance: distance)
            let signal = tone(440, rate: 24_000, count: 24_000 * 4)
            _ = queue.append(signal.span, item: 1)
            var settings = AudioPipe.Settings()
            settings.voiceActivity = nil
            var pipe = AudioPipe(settings)
            var copies: [Int] = []
            var frames: [AudioFrame] = []
            var pcm: [Int16] = []
            var frame = [Int16](repeating: 0, count: 480)
            for index in 0..<220 {
                let now = start + .milliseconds(Int64(index) * 20)
                var sent: PlayoutFrame?
                let packet = collect { sent = queue.nextFrame(into: &$0, at: now) }
                if let sent {
                    #expect(sent.byteCount == packet.count)
                    copies.append((try? REDPacket(parsing: packet.span.bytes))?.copyCount ?? -1)
                    // Gaps as long as the copies reach, from the second second on.
                    if index < 50 || index % 17 >= distance {
                        let arrival = pipe.receive(
                            red: packet.span.bytes, opusType: 111, sequence: Int64(index), timestamp: sent.timestamp, source: 1, at: now)
                        #expect(arrival == .accepted || arrival == .restarted)
                    }
                }
                pipe.advance(to: now)
                var span = frame.mutableSpan
                while let taken = pipe.nextFrame(into: &span) {
                    frames.append(taken)
                    for at in span.indices { pcm.append(span[at]) }
                }
            }
            #expect(copies.prefix(4) == [0, min(1, distance), min(2, distance), min(3, distance)])
            #expect(copies.dropFirst(4).allSatisfy { $0 == distance })
            // The first gap teaches the buffer to wait.
            let concealed = frames.prefix(195).count { $0.isConcealed }
            #expect(concealed <= distance)
            for second in 1...3 {
                let pieces = (0..<5).map { share(of: 440, in: pcm[(second * 24_000 + $0 * 4_800)...].prefix(4_800), rate: 24_000) }
                // What the first gap inserted shifts the phase in one of them.
                #expect(pieces.count { $0 > 0.95 } >= 4)
            }
        }
    }

    @Test func `copies of another codec, empty ones and other payloads are left out`() {
        var pipe = AudioPipe()
        let foreign = payload("E0 0F0004 6F 08010203 080A0B0C0D")
        let first = pipe.receive(red: foreign.span.bytes, opusType: 111, sequence: 5, timestamp: 9_600, source: 1, at: start)
        #expect(first == .accepted)
        let received = pipe.statistics.received
        #expect(received == 1)
        let other = pipe.receive(red: foreign.span.bytes, opusType: 96, sequence: 6, timestamp: 10_560, source: 1, at: start)
        #expect(other == .malformed)
        let malformed = pipe.malformedRED
        #expect(malformed == 1)
    }
}

/// What a pipe asks for when packets of a steady stream, `lost` ones apart, come 20 ms apart.
private struct Asker: ~Copyable {
    var pipe: AudioPipe
    var asked: [(at: Int, packet: UInt16, following: UInt16)] = []

    init(roundTrip: Int64?, minimumDelay: Int64 = 60) {
        var settings = AudioPipe.Settings()
        settings.voiceActivity = nil
        settings.jitter.minimumDelay = .milliseconds(minimumDelay)
        pipe = AudioPipe(settings)
        pipe.setRoundTrip(roundTrip.map { .milliseconds($0) })
    }

    mutating func run(to end: Int, _ arrivals: [(at: Int, sequence: Int)], fec: Bool = false) {
        let sorted = arrivals.sorted { $0.at < $1.at }
        var next = 0
        var frame = [Int16](repeating: 0, count: 480)
        for millisecond in 0..<end {
            let now = start + .milliseconds(Int64(millisecond))
            while next < sorted.count, sorted[next].at <= millisecond {
                let packet: [UInt8] = [0x08, fec ? 0x40 : 0, 0, 1, 2, 3]
                let sequence = sorted[next].sequence
                _ = pipe.receive(packet.span.bytes, sequence: Int64(sequence), timestamp: UInt32(sequence * 960), source: 1, at: now)
                next += 1
            }
            pipe.advance(to: now)
            while let request = pipe.nextRequest() { asked.append((millisecond, request.packet, request.following)) }
            var span = frame.mutableSpan
            while pipe.nextFrame(into: &span) != nil {}
        }
    }
}

@Suite struct `Retransmission` {
    private func steady(_ count: Int, without lost: Set<Int>) -> [(at: Int, sequence: Int)] {
        (0..<count).filter { !lost.contains($0) }.map { ($0 * 20, $0) }
    }

    @Test func `a lost packet is asked for when the next one comes, and once more when the answer is overdue`() {
        var asker = Asker(roundTrip: 20)
        asker.run(to: 1_000, steady(50, without: [20]))
        #expect(asker.asked.map(\.packet) == [20, 20])
        #expect(asker.asked.first?.at == 21 * 20)
        #expect((454...460).contains(asker.asked.last?.at ?? 0))
    }

    @Test func `one request names several`() {
        var asker = Asker(roundTrip: 10)
        asker.run(to: 1_000, steady(50, without: [20, 21, 23]))
        #expect(asker.asked.first?.packet == 20 && asker.asked.first?.following == 0b1)
        #expect(asker.asked.contains { $0.packet == 23 })
        let count = asker.pipe.requestedPackets
        #expect(count <= 6)
    }

    @Test func `a packet that comes again is played and not asked for again`() {
        var asker = Asker(roundTrip: 20)
        asker.run(to: 1_000, steady(50, without: [20]) + [(440, 20)])
        #expect(asker.asked.count == 1)
        let concealed = asker.pipe.statistics.concealedSamples
        #expect(concealed <= 960)
    }

    @Test func `nothing is asked for that would come too late, or without a round trip`() {
        for roundTrip in [nil, 110, 500] as [Int64?] {
            var asker = Asker(roundTrip: roundTrip, minimumDelay: 20)
            asker.run(to: 600, steady(30, without: [20]))
            #expect(asker.asked.isEmpty || roundTrip == 110)
            #expect(asker.asked.count <= 1)
        }
    }

    @Test func `what the next packet repairs is not asked for, nor an outage`() {
        var asker = Asker(roundTrip: 20)
        asker.run(to: 1_000, steady(50, without: [20]), fec: true)
        #expect(asker.asked.isEmpty)
        var outage = Asker(roundTrip: 20)
        outage.run(to: 2_000, steady(100, without: Set(20..<50)))
        #expect(outage.asked.isEmpty)
    }

    @Test func `reordering is waited for once it is known`() {
        var asker = Asker(roundTrip: 20)
        var arrivals = steady(200, without: [150])
        // Every tenth packet comes 5 ms after its successor.
        for index in arrivals.indices where arrivals[index].sequence % 10 == 3 { arrivals[index].at += 25 }
        asker.run(to: 4_000, arrivals)
        // The first one is asked for in vain; then the pipe knows better.
        #expect(asker.asked.filter { $0.packet % 10 == 3 }.count <= 1)
        #expect(asker.asked.contains { $0.packet == 150 })
    }

    @Test func `a hostile stream of gaps is asked for within bounds`() {
        var asker = Asker(roundTrip: 5)
        asker.run(to: 2_000, (0..<500).map { ($0 * 4, $0 * 15) })
        #expect(asker.asked.count <= 200)
    }
}

/// Reads a report as the draft says: arrival ticks of 250 µs by sequence number, nil for lost ones.
private func readReport(_ packet: [UInt8]) -> (first: Int, arrivals: [Int?], count: Int)? {
    guard packet.count >= 20, packet.count % 4 == 0, packet[0] & 0x1F == 15, packet[1] == 205 else { return nil }
    func u16(_ at: Int) -> Int { Int(packet[at]) << 8 | Int(packet[at + 1]) }
    guard (u16(2) + 1) * 4 == packet.count else { return nil }
    let count = u16(14)
    var statuses: [Int] = []
    var at = 20
    while statuses.count < count {
        let chunk = u16(at)
        at += 2
        guard chunk >> 14 == 3 else { return nil }
        for symbol in 0..<7 { statuses.append(chunk >> (12 - 2 * symbol) & 3) }
    }
    var time = (Int(packet[16]) << 16 | Int(packet[17]) << 8 | Int(packet[18])) * 256
    var arrivals: [Int?] = []
    for status in statuses.prefix(count) {
        switch status {
        case 1:
            time += Int(packet[at])
            at += 1
            arrivals.append(time)
        case 2:
            time += Int(Int16(truncatingIfNeeded: u16(at)))
            at += 2
            arrivals.append(time)
        default: arrivals.append(nil)
        }
    }
    let padding = packet[0] & 0x20 != 0 ? Int(packet[packet.count - 1]) : 0
    return at + padding == packet.count ? (u16(12), arrivals, Int(packet[19])) : nil
}

@Suite struct `Transport feedback` {
    @Test(arguments: 1...20)
    func `a report tells when each packet came`(_ seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var feedback = TransportFeedback()
        let first = Int.random(in: 0..<65_536, using: &random)
        var sent: [Int: Int] = [:]
        var told: [Int: Int?] = [:]
        var reports = 0
        var millisecond = 0
        for index in 0..<300 {
            millisecond += Int.random(in: 0...30, using: &random)
            let now = start + .milliseconds(Int64(millisecond))
            if !random.chance(1, in: 10) {
                let number = first + index
                feedback.note(UInt16(truncatingIfNeeded: number), at: now)
                sent[number] = Int(now.nanoseconds / 250_000)
            }
            while true {
                var written = false
                let packet = collect { written = feedback.write(sender: 1, media: 2, into: &$0, at: now) }
                guard written else { break }
                let report = try #require(readReport(packet))
                #expect(report.count == reports & 0xFF)
                reports += 1
                var compound = try RTCPReader(parsing: packet.span.bytes)
                let item = compound.next()
                guard case .transportFeedback(sender: 1, media: 2, body: let body) = item else {
                    Issue.record("RTP's reader sees \(String(describing: item))")
                    return
                }
                #expect(body.lowerBound == 12)
                let offset = (report.first - first) & 0xFFFF
                for (place, arrival) in report.arrivals.enumerated() { told[first + offset + place] = .some(arrival) }
            }
        }
        #expect(reports > 10)
        let last = told.keys.max() ?? 0
        for number in first...last where number > (sent.keys.min() ?? 0) {
            let entry = try #require(told[number])
            #expect(entry == sent[number])
        }
    }

    @Test func `reordered packets have negative deltas, long pauses their own report`() throws {
        var feedback = TransportFeedback()
        feedback.note(11, at: start + .milliseconds(5))
        feedback.note(10, at: start + .milliseconds(15))
        feedback.note(12, at: start + .seconds(20))
        var written = false
        let first = collect { written = feedback.write(sender: 1, media: 2, into: &$0, at: start + .seconds(21)) }
        #expect(written)
        let report = try #require(readReport(first))
        #expect(report.first == 10)
        let arrivals = report.arrivals.compactMap { $0 }
        #expect(arrivals.count == 2 && arrivals[0] - arrivals[1] == 40)
        let second = collect { written = feedback.write(sender: 1, media: 2, into: &$0, at: start + .seconds(21)) }
        #expect(written && readReport(second)?.first == 12)
        _ = collect { written = feedback.write(sender: 1, media: 2, into: &$0, at: start + .seconds(21)) }
        #expect(!written)
    }

    @Test func `any numbers at any time make reports that can be read`() {
        for seed in 1...50 as ClosedRange<UInt64> {
            var random = SeededGenerator(seed: seed)
            var feedback = TransportFeedback()
            var now = start
            for _ in 0..<400 {
                feedback.note(UInt16.random(in: 0...UInt16.max, using: &random) >> UInt16.random(in: 0...15, using: &random), at: now)
                now = now + .microseconds(Int64.random(in: 0...1_000_000, using: &random) >> Int64.random(in: 0...20, using: &random))
                while true {
                    var written = false
                    let packet = collect { written = feedback.write(sender: 1, media: 2, into: &$0, at: now) }
                    guard written else { break }
                    let report = readReport(packet)
                    #expect(report != nil)
                }
                let due = feedback.nextDeadline.instant
                #expect(due > now)
            }
        }
    }
}
