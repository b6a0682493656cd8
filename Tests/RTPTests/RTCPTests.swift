// RTCP: reading compounds of real and made-up peers, writing ours, the report timer and the round trip.
import Primitives
import RTP
import TestSupport
import Testing

/// All items of a compound; nil if it is malformed.
func items(_ compound: [UInt8]) -> [RTCPItem]? {
    guard var reader = try? RTCPReader(parsing: compound.span.bytes) else { return nil }
    var items: [RTCPItem] = []
    while let item = reader.next() { items.append(item) }
    return items
}

func rtcpError(_ text: String) -> RTCPError? {
    let compound = packet(text)
    do throws(RTCPError) {
        _ = try RTCPReader(parsing: compound.span.bytes)
        return nil
    } catch { return error }
}

@Suite struct ReadingRTCP {
    /// As aiortc 1.16 put it on the wire.
    @Test func `reads a sender report with a name`() throws {
        let compound = packet(
            "80c80006a333612eeeabe3eede453d20d09851f200000040000000c0"
                + "81ca000ba333612e012462666430636364322d623835372d343636312d386563372d3638343662373465353562340000")
        let read = try #require(items(compound))
        let info = RTCPSenderInfo(
            ntp: NTPTime(rawValue: 17_198_090_217_115_172_128), rtpTimestamp: 3_499_643_378, packetCount: 64, octetCount: 192)
        #expect(read == [.senderReport(ssrc: 2_738_053_422, info), .canonicalName(ssrc: 2_738_053_422, 38..<74)])
        #expect(String(decoding: compound[38..<74], as: UTF8.self) == "bfd0ccd2-b857-4661-8ec7-6846b74e55b4")
    }

    /// As aiortc 1.16 put it on the wire.
    @Test func `reads a receiver report`() {
        let block = RTCPReportBlock(
            ssrc: 873_937_964, fractionLost: 0, cumulativeLost: 0, extendedHighest: 6703, jitter: 18, lastSenderReport: 3_824_093_285,
            delaySinceLastSenderReport: 18_639)
        #expect(
            items(packet("81c90007a333612e34173c2c0000000000001a2f00000012e3ef0865000048cf"))
                == [.receiverReport(ssrc: 2_738_053_422), .reportBlock(reporter: 2_738_053_422, block)])
    }

    @Test func `reads a compound with two blocks, two names and a reasoned BYE`() throws {
        let file = try #require(Corpus.files(in: "rtcp").first { $0.name == "sr-two-blocks-bye.hex" })
        let read = try #require(items(file.bytes))
        #expect(read.count == 7)
        guard case .senderReport(1, _) = read[0], case .reportBlock(1, let one) = read[1], case .reportBlock(1, let two) = read[2] else {
            Issue.record("not a report with two blocks: \(read)")
            return
        }
        #expect(one.cumulativeLost == -1 && one.fractionLost == 0 && one.ssrc == 2 && one.extendedHighest == 0x1FFFF)
        #expect(two.cumulativeLost == 0x7F_FFFF && two.fractionLost == 0x7F && two.ssrc == 3)
        #expect(read[3...] == [.canonicalName(ssrc: 1, 86..<87), .canonicalName(ssrc: 2, 99..<101), .bye(ssrc: 1), .bye(ssrc: 2)])
    }

    @Test func `NACKs come one by one`() {
        #expect(
            items(packet("81cd000400000001123456780064000500c80000"))
                == [
                    .nack(sender: 1, media: 0x1234_5678, packet: 100, following: 5),
                    .nack(sender: 1, media: 0x1234_5678, packet: 200, following: 0),
                ])
    }

    /// libwebrtc pads transport feedback to four bytes by 1–3, which RFC 3550 does not provide for.
    @Test func `transport feedback may be padded by one byte`() {
        #expect(
            items(packet("afcd0007 00000002 0a0b0c0d 1234 0009 00abcd03 2009 0408100020400c1801 01"))
                == [.transportFeedback(sender: 2, media: 0x0a0b_0c0d, body: 12..<31)])
    }

    @Test func `what we do not act on is still seen`() {
        #expect(items(packet("81ce00020000000112345678")) == [.ignored(packetType: 206, format: 1)])
        #expect(items(packet("82cc0003000000014141414100000001")) == [.ignored(packetType: 204, format: 2)])
        #expect(items(packet("80cf0004000000010400 0002 eeabe3ee de453d20")) == [.ignored(packetType: 207, format: 0)])
        #expect(items(packet("82cd00020000000112345678")) == [.ignored(packetType: 205, format: 2)])
        #expect(items(packet("80df0000")) == [.ignored(packetType: 223, format: 0)])
    }

    @Test func `nothing of a malformed compound is used`() {
        #expect(rtcpError("") == .truncated)
        #expect(rtcpError("80c900") == .truncated)
        #expect(rtcpError("40c9000100000001") == .version)
        #expect(rtcpError("8060000100000001") == .packetType)
        #expect(rtcpError("80c9000200000001") == .overrun)
        #expect(rtcpError("80c9ffff00000001") == .overrun)
        #expect(rtcpError("80c9000100000001 80c9") == .truncated)
        #expect(rtcpError("80c9000100000001 80c9000200000001") == .overrun)
        #expect(rtcpError("81c9000100000001") == .content)
        #expect(rtcpError("80c90000") == .content)
        #expect(rtcpError("80c8000100000001") == .content)
        #expect(rtcpError("82cb000100000001") == .content)
        #expect(rtcpError("81cd000100000001") == .content)
        #expect(rtcpError("a0c90000") == .padding)
        #expect(rtcpError("a0c9000200000001 00000000") == .padding)
        #expect(rtcpError("a0c9000200000001 00000009") == .padding)
        #expect(rtcpError("a0c9000200000001 00000008") == .content)
        #expect(rtcpError("a0c9000200000001 00000004") == nil)
    }

    @Test func `source descriptions that run over end themselves only`() {
        let bye: [RTCPItem] = [.bye(ssrc: 5)]
        let end = "81cb000100000005"
        #expect(items(packet("81ca0000" + end)) == bye)
        #expect(items(packet("81ca0001 00000001" + end)) == bye)
        #expect(items(packet("81ca0002 00000001 01050000" + end)) == bye)
        #expect(items(packet("81ca0002 00000001 01024100" + end)) == [.canonicalName(ssrc: 1, 10..<12)] + bye)
        #expect(items(packet("81ca0002 00000001 00000001" + end)) == bye)
        #expect(items(packet("9fca0002 00000001 01014100" + end)) == [.canonicalName(ssrc: 1, 10..<11)] + bye)
    }

    @Test(arguments: Corpus.files(in: "rtcp"))
    func `the corpus is RTCP`(file: CorpusFile) {
        #expect(items(file.bytes) != nil && isRTCP(file.bytes.span.bytes))
        fuzzRTCP(file.bytes.span.bytes)
    }

    @Test func `mutations of the RTCP corpus never trap`() { mutate(Corpus.files(in: "rtcp").map(\.bytes)) { fuzzRTCP($0) } }
}

@Suite struct WritingRTCP {
    let writer: RTCPWriter
    let info = RTCPSenderInfo(ntp: NTPTime(rawValue: 0x0102_0304_0506_0708), rtpTimestamp: 9, packetCount: 10, octetCount: 11)
    let block = RTCPReportBlock(
        ssrc: 2, fractionLost: 3, cumulativeLost: -4, extendedHighest: 5, jitter: 6, lastSenderReport: 7, delaySinceLastSenderReport: 8)

    init() {
        var random = SeededGenerator(seed: 1)
        writer = RTCPWriter(ssrc: 0xAABB_CCDD, name: RTCPCanonicalName(random: &random))
    }

    /// The octets of RFC 3550 §6.4.1, §6.5 and §6.6, one field after another.
    @Test func `a compound is what the RFC draws`() {
        let bytes = written(200) { output in
            let fitted = writer.writeCompound(sender: info, block: block, bye: true, to: &output)
            #expect(fitted)
        }
        let name = hex(writer.name.text.utf8)
        #expect(
            hex(bytes)
                == "81c8000caabbccdd0102030405060708" + "000000090000000a0000000b"
                + "0000000203fffffc00000005000000060000000700000008"
                + "81ca0006aabbccdd0110" + name + "0000" + "81cb0001aabbccdd")
        #expect(bytes.count == RTCPWriter.compoundSize(hasSender: true, blocks: 1, bye: true))
    }

    @Test(arguments: [0, 1, 2, 31, 40], [false, true])
    func `what is written reads the same`(count: Int, bye: Bool) throws {
        for sender in [nil, info] {
            let blocks = (0..<count).map { index in
                var block = block
                block.ssrc = UInt32(index)
                return block
            }
            let bytes = written(1_000) { output in
                let fitted = writer.writeCompound(sender: sender, blocks: blocks.span, bye: bye, to: &output)
                #expect(fitted)
            }
            var expected: [RTCPItem] = [sender.map { .senderReport(ssrc: writer.ssrc, $0) } ?? .receiverReport(ssrc: writer.ssrc)]
            expected += blocks.prefix(31).map { .reportBlock(reporter: writer.ssrc, $0) }
            let nameStart = bytes.count - (bye ? 8 : 0) - 18
            expected.append(.canonicalName(ssrc: writer.ssrc, nameStart..<(nameStart + 16)))
            if bye { expected.append(.bye(ssrc: writer.ssrc)) }
            #expect(items(bytes) == expected)
        }
    }

    @Test func `a compound that does not fit leaves no trace`() {
        let size = RTCPWriter.compoundSize(hasSender: true, blocks: 1, bye: false)
        for (capacity, fits) in [(0, false), (size - 1, false), (size, true)] {
            let bytes = written(capacity) { output in
                let fitted = writer.writeCompound(sender: info, block: block, to: &output)
                #expect(fitted == fits)
            }
            #expect(bytes.count == (fits ? size : 0))
        }
        let nothing = written(15) { output in
            let fitted = writer.writeNACK(media: 1, packet: 2, following: 3, to: &output)
            #expect(!fitted)
        }
        #expect(nothing.isEmpty)
    }

    @Test func `a NACK is sixteen bytes`() {
        let bytes = written(16) { output in _ = writer.writeNACK(media: 0x1234_5678, packet: 100, following: 5, to: &output) }
        #expect(hex(bytes) == "81cd0003aabbccdd123456780064" + "0005")
        #expect(items(bytes) == [.nack(sender: writer.ssrc, media: 0x1234_5678, packet: 100, following: 5)])
    }

    @Test func `names are sixteen characters of base64 and differ`() {
        var random = SeededGenerator(seed: 2)
        let names = Set((0..<100).map { _ in RTCPCanonicalName(random: &random).text })
        #expect(names.count == 100)
        #expect(names.allSatisfy { $0.utf8.count == 16 && $0.utf8.allSatisfy { Base64.value(of: $0) != nil } })
    }
}

@Suite struct Reporting {
    @Test func `reports come 2.5 to 7.5 seconds apart, the first after 1.25 to 3.75`() {
        var random = SeededGenerator(seed: 3)
        var gaps: [Int64] = []
        for _ in 0..<200 {
            var scheduler = RTCPScheduler(startingAt: Instant.zero + .seconds(100), random: &random)
            let first = scheduler.due
            #expect((1_250...3_750).contains((first - (Instant.zero + .seconds(100))).milliseconds))
            #expect(scheduler.nextDeadline.instant == first)
            let early = scheduler.takeDue(at: first - .nanoseconds(1), random: &random)
            #expect(!early)
            let due = scheduler.takeDue(at: first, random: &random)
            #expect(due)
            gaps.append((scheduler.due - first).milliseconds)
        }
        #expect(gaps.allSatisfy { (2_500...7_500).contains($0) })
        #expect((gaps.max() ?? 0) > 7_000 && (gaps.min() ?? 0) < 3_000)
    }

    @Test func `reports missed are not made up for`() {
        var random = SeededGenerator(seed: 3)
        var scheduler = RTCPScheduler(startingAt: .zero, random: &random)
        let late = Instant.zero + .seconds(1_000)
        let first = scheduler.takeDue(at: late, random: &random)
        let second = scheduler.takeDue(at: late, random: &random)
        #expect(first && !second && scheduler.due > late)
    }

    static func block(lastReport: UInt32, delay: UInt32) -> RTCPReportBlock {
        RTCPReportBlock(
            ssrc: 1, fractionLost: 0, cumulativeLost: 0, extendedHighest: 0, jitter: 0, lastSenderReport: lastReport,
            delaySinceLastSenderReport: delay)
    }

    /// The example of RFC 3550 §6.4.1, figure 2.
    @Test func `the round trip of the RFC's example is 6.125 seconds`() {
        var random = SeededGenerator(seed: 3)
        var scheduler = RTCPScheduler(startingAt: .zero, random: &random)
        let arrival = NTPTime(rawValue: 0xb44d_b710_8000_0000)
        let trip = scheduler.note(Self.block(lastReport: 0xb705_2000, delay: 0x0005_4000), at: arrival)
        #expect(trip == .milliseconds(6_125) && scheduler.roundTrip == .milliseconds(6_125))
    }

    @Test func `what cannot be a round trip is none`() {
        var random = SeededGenerator(seed: 3)
        var scheduler = RTCPScheduler(startingAt: .zero, random: &random)
        let arrival = NTPTime(rawValue: 0x0000_0001_0000_0000)
        let unquoted = scheduler.note(Self.block(lastReport: 0, delay: 0), at: arrival)
        let future = scheduler.note(Self.block(lastReport: 0x0002_0000, delay: 0), at: arrival)
        let ancient = scheduler.note(Self.block(lastReport: 0xF000_0000, delay: 0), at: arrival)
        let overlong = scheduler.note(Self.block(lastReport: 0x0000_8000, delay: .max), at: arrival)
        #expect(unquoted == nil && future == nil && ancient == nil && overlong == nil && scheduler.roundTrip == nil)
        // Across the wrap of the middle bits, and rounded below zero.
        let wrapped = scheduler.note(Self.block(lastReport: 0xFFFF_8000, delay: 0x0000_8000), at: arrival)
        #expect(wrapped == .seconds(1))
        let rounded = scheduler.note(Self.block(lastReport: 0x0001_0000, delay: 3), at: arrival)
        #expect(rounded == .zero)
    }

    /// Both directions through the real machines: a report of ours comes back after 80 ms on the way and 300 ms over there.
    @Test func `a round trip is measured through both machines`() throws {
        var random = SeededGenerator(seed: 4)
        let start = Instant.zero + .seconds(50)
        let clock = NTPClock(wall: WallClock(secondsSince1970: 1_800_000_000, nanoseconds: 999_999_999), at: start)
        var sender = RTPSendStream(ssrc: 1, payloadType: 111, firstSequence: 0, firstTimestamp: 0)
        _ = written(20) { output in _ = sender.writePacket(payload: RawSpan(), timestamp: 0, marker: false, to: &output, at: start) }
        var receiver = RTPReceiveStream(ssrc: 1)
        receiver.noteSenderReport(try #require(sender.senderInfo(at: start, wall: clock.time(at: start))), at: start + .milliseconds(40))
        let block = receiver.reportBlock(at: start + .milliseconds(340))
        var scheduler = RTCPScheduler(startingAt: start, random: &random)
        let trip = scheduler.note(block, at: clock.time(at: start + .milliseconds(380)))
        #expect((79...80).contains(trip?.milliseconds ?? 0))
    }
}

@Suite struct NTPTimes {
    /// 70 years with 17 leap days, checked with Python's datetime.
    @Test func `the NTP epoch is 1900`() {
        #expect(NTPTime(WallClock(secondsSince1970: 0)).rawValue == 2_208_988_800 << 32)
        #expect(NTPTime(WallClock(secondsSince1970: 0, nanoseconds: 500_000_000)).rawValue == UInt64(2_208_988_800) << 32 | 0x8000_0000)
        #expect(NTPTime(WallClock(secondsSince1970: 0, nanoseconds: .max)).rawValue >> 32 == 2_208_988_800)
        // 7 February 2036, 06:28:16 UTC: the seconds wrap.
        #expect(NTPTime(WallClock(secondsSince1970: 2_085_978_496)).rawValue == 0)
        #expect(NTPTime(WallClock(secondsSince1970: .max)).rawValue >> 32 == 2_208_988_799)
        #expect(NTPTime(rawValue: 0x1122_3344_5566_7788).middle == 0x3344_5566)
    }

    @Test func `a session's clock goes with the monotonic one`() {
        let clock = NTPClock(wall: WallClock(secondsSince1970: 10, nanoseconds: 750_000_000), at: Instant.zero + .seconds(5))
        #expect(clock.time(at: Instant.zero + .milliseconds(6_500)) == NTPTime(WallClock(secondsSince1970: 12, nanoseconds: 250_000_000)))
        #expect(clock.time(at: .zero) == NTPTime(WallClock(secondsSince1970: 10, nanoseconds: 750_000_000)))
    }
}
