// What RFC 3550's appendix says a receiver counts, by its own words and against a second, slow implementation.
import Primitives
import RTP
import TestSupport
import Testing

@Suite struct ReceiveStreams {
    var stream = RTPReceiveStream(ssrc: 9)

    static func header(_ sequence: UInt16, timestamp: UInt32 = 0) -> RTPHeader {
        var header = wellFormed
        header.sequenceNumber = sequence
        header.timestamp = timestamp
        return header
    }
    static let wellFormed = try! RTPHeader(parsing: packet("8060ffff0000000000000009").span.bytes)

    /// Takes `sequences`, 20 ms apart.
    mutating func take(_ sequences: [UInt16], from start: Int = 0) -> [RTPVerdict] {
        var verdicts: [RTPVerdict] = []
        for (index, sequence) in sequences.enumerated() {
            let step = start + index
            verdicts.append(
                stream.note(
                    Self.header(sequence, timestamp: UInt32(step) * 960), at: Instant(nanoseconds: UInt64(step) * 20_000_000)))
        }
        return verdicts
    }

    @Test mutating func `nothing received is nothing lost`() {
        let block = stream.reportBlock(at: .zero)
        #expect(
            block
                == RTCPReportBlock(
                    ssrc: 9, fractionLost: 0, cumulativeLost: 0, extendedHighest: 0, jitter: 0, lastSenderReport: 0,
                    delaySinceLastSenderReport: 0))
        #expect(!stream.hasReceived)
    }

    @Test mutating func `order, gaps, lateness and duplicates are told apart across the wrap`() {
        let verdicts = take([65533, 65534, 65534, 1, 65535, 65535, 0, 2, 1])
        #expect(verdicts == [.first, .newer, .duplicate, .newer, .late, .duplicate, .late, .newer, .duplicate])
        #expect(stream.extendedHighest == 0x1_0002)
        #expect(stream.packetsExpected == 6)
        // Three duplicates count as received: RFC 3550 §6.4.1.
        #expect(stream.packetsReceived == 9 && stream.cumulativeLost == -3)
        #expect(stream.extended(65535) == 0xFFFF && stream.extended(5) == 0x1_0005)
    }

    @Test mutating func `a fraction is of its own interval`() {
        _ = take(Array(0..<10) + [12, 13])
        var block = stream.reportBlock(at: .zero)
        #expect(block.cumulativeLost == 2 && block.fractionLost == UInt8(2 * 256 / 14) && block.extendedHighest == 13)
        _ = take(Array(14..<24), from: 12)
        block = stream.reportBlock(at: .zero)
        #expect(block.cumulativeLost == 2 && block.fractionLost == 0)
        // Both missing ones arrive after all: the interval has more received than expected.
        _ = take([10, 11], from: 22)
        block = stream.reportBlock(at: .zero)
        #expect(block.cumulativeLost == 0 && block.fractionLost == 0)
        #expect(stream.reportBlock(at: .zero).fractionLost == 0)
    }

    @Test mutating func `nearly everything lost is 255`() {
        _ = take([0])
        _ = stream.reportBlock(at: .zero)
        _ = take([2999], from: 1)
        let block = stream.reportBlock(at: .zero)
        #expect(block.fractionLost == 255 && block.cumulativeLost == 2998)
    }

    /// Five hundred duplicates must not wrap into a loss of four billion, nor beyond 24 bits.
    @Test mutating func `a negative loss stays negative on the wire`() throws {
        _ = take([UInt16](repeating: 4, count: 501))
        let block = stream.reportBlock(at: .zero)
        #expect(block.cumulativeLost == -500 && block.fractionLost == 0)
        var random = SeededGenerator(seed: 1)
        let writer = RTCPWriter(ssrc: 1, name: RTCPCanonicalName(random: &random))
        let bytes = written(200) { output in _ = writer.writeCompound(sender: nil, block: block, to: &output) }
        var reader = try RTCPReader(parsing: bytes.span.bytes)
        _ = reader.next()
        let read = reader.next()
        #expect(read == .reportBlock(reporter: 1, block))
    }

    @Test mutating func `a stray packet is ignored, its successor restarts the stream`() {
        #expect(take([100, 101, 102]) == [.first, .newer, .newer])
        #expect(take([20_000], from: 3) == [.stray])
        #expect(stream.extendedHighest == 102 && stream.packetsReceived == 3)
        #expect(take([103, 30_000, 30_001, 30_002], from: 4) == [.newer, .stray, .restarted, .newer])
        #expect(stream.extendedHighest == 30_002 && stream.packetsReceived == 2 && stream.cumulativeLost == 0)
        #expect(stream.reportBlock(at: .zero).fractionLost == 0)
    }

    @Test mutating func `two strays that do not follow each other restart nothing`() {
        _ = take([100, 20_000, 20_002, 101, 20_003])
        #expect(stream.extendedHighest == 101 && stream.packetsReceived == 2)
    }

    @Test mutating func `the successor of stray 65535 is 0`() {
        #expect(take([30_000, 65_535, 0]) == [.first, .stray, .restarted])
        #expect(stream.extendedHighest == 0 && stream.packetsExpected == 1)
    }

    @Test mutating func `an even stream has no jitter, not even with silence in it`() {
        _ = take(Array(0..<100))
        #expect(stream.jitter == 0)
        _ = take(Array(100..<110), from: 5_000)
        #expect(stream.jitter == 0)
    }

    /// Every second packet 10 ms (480 ticks) late: |D| is always 480, to which J converges.
    @Test mutating func `jitter converges to the mean deviation`() {
        for index in 0..<400 {
            let late: UInt64 = index % 2 == 0 ? 0 : 10_000_000
            stream.note(
                Self.header(UInt16(index), timestamp: UInt32(index) * 960), at: Instant(nanoseconds: UInt64(index) * 20_000_000 + late))
        }
        #expect((478...480).contains(stream.jitter))
        #expect(stream.reportBlock(at: .zero).jitter == stream.jitter)
    }

    @Test mutating func `timestamps and clocks anywhere never trap`() {
        stream.note(Self.header(0, timestamp: 0), at: .zero)
        stream.note(Self.header(1, timestamp: 0x8000_0000), at: .never)
        stream.note(Self.header(2, timestamp: .max), at: .zero)
        stream.noteSenderReport(RTCPSenderInfo(ntp: NTPTime(rawValue: .max), rtpTimestamp: 0, packetCount: 0, octetCount: 0), at: .never)
        #expect(stream.reportBlock(at: .zero).delaySinceLastSenderReport == 0)
        #expect(stream.jitter > 0)
    }

    @Test mutating func `a report quotes the other side's last report and its age`() {
        let info = RTCPSenderInfo(ntp: NTPTime(rawValue: 0xb705_2000_1234_5678 << 8), rtpTimestamp: 0, packetCount: 0, octetCount: 0)
        stream.noteSenderReport(info, at: Instant.zero + .seconds(1))
        let block = stream.reportBlock(at: Instant.zero + .milliseconds(6_250))
        #expect(block.lastSenderReport == info.ntp.middle && block.delaySinceLastSenderReport == 0x0005_4000)
    }
}

/// A receiver in plain words: a set of all extended numbers, loss by counting, jitter in floating point.
struct SlowReceiver {
    var numbers: Set<Int> = []
    var received = 0
    var highest = 0
    var first: Int?
    var jitter = 0.0
    var lastTransit: Double?

    mutating func take(_ number: Int, timestamp: Int, arrival: Int) {
        if first == nil { (first, highest) = (number, number) }
        received += 1
        numbers.insert(number)
        highest = max(highest, number)
        let transit = Double(arrival - timestamp)
        if let lastTransit { jitter += (abs(transit - lastTransit) - jitter) / 16 }
        lastTransit = transit
    }
    var lost: Int { highest - (first ?? 0) + 1 - received }
}

@Suite struct ReceiveStreamModel {
    /// A lossy, reordering, duplicating network over several wraps; both receivers must say the same.
    @Test(arguments: UInt64(1)...20)
    func `agrees with a slow receiver`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let first = Int.random(in: 0...65_535, using: &random)
        let offset = UInt32.random(in: 0...UInt32.max, using: &random)
        var sends: [(number: Int, arrival: Int)] = []
        for index in 0..<20_000 where index == 0 || !random.chance(3, in: 100) {
            let delay = index == 0 ? 0 : Int.random(in: 0...2_400, using: &random)
            sends.append((first + index, index * 960 + delay))
            if random.chance(1, in: 100) { sends.append((first + index, index * 960 + delay + 100)) }
        }
        sends.sort { $0.arrival < $1.arrival }
        var slow = SlowReceiver()
        var stream = RTPReceiveStream(ssrc: 1)
        var duplicates = 0
        for send in sends {
            let timestamp = (send.number - first) * 960
            let fresh = !slow.numbers.contains(send.number)
            slow.take(send.number, timestamp: timestamp, arrival: send.arrival)
            let verdict = stream.note(
                ReceiveStreams.header(UInt16(truncatingIfNeeded: send.number), timestamp: offset &+ UInt32(timestamp)),
                at: Instant(nanoseconds: (UInt64(send.arrival) * 1_000_000_000 + 47_999) / 48_000))
            if verdict == .duplicate { duplicates += 1 }
            #expect((verdict == .duplicate) == !fresh)
        }
        let block = stream.reportBlock(at: .zero)
        #expect(duplicates > 0)
        #expect(Int(block.extendedHighest) == slow.highest)
        #expect(Int(block.cumulativeLost) == slow.lost)
        #expect(abs(Double(block.jitter) - slow.jitter) < 2)
    }
}
