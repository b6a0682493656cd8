import Primitives
import SRTP
import Testing

@Suite struct PacketIndices {
    /// RFC 3711 §3.3.1 in other words: of all 48-bit indices with this sequence number, the nearest to the highest one.
    static func nearest(_ sequence: UInt16, to highest: UInt64) -> UInt64 {
        let rollovers = Int64(highest >> 16)
        let candidates = (rollovers - 1...rollovers + 1).filter { $0 >= 0 }.map { $0 << 16 | Int64(sequence) }
        // Half way between two, the RFC stays with the present rollover counter.
        let distances = candidates.map { (abs($0 - Int64(highest)), $0 >> 16 == rollovers ? 0 : 1, $0) }
        return UInt64(distances.min { ($0.0, $0.1) < ($1.0, $1.1) }!.2)
    }

    @Test func `a sequence number stands for the nearest index`() throws {
        var random = SeededGenerator(seed: 3)
        for _ in 0..<20_000 {
            var window = ReplayWindow()
            let highest = UInt64.random(in: 0..<1 << 20, using: &random)
            window.accept(highest)
            let step = Int.random(in: -40_000...40_000, using: &random)
            let sequence = UInt16(truncatingIfNeeded: Int(highest) + step)
            let index = try window.index(for: sequence)
            #expect(index == Self.nearest(sequence, to: highest), "\(sequence) after \(highest)")
        }
    }

    @Test func `the first packet has rollover counter zero, and nothing lies before it`() throws {
        var window = ReplayWindow()
        #expect(try window.index(for: 65_535) == 65_535)
        window.accept(5)
        #expect(try window.index(for: 65_535) == 65_535)
        #expect(try window.index(for: 32_773) == 32_773)
        window.accept(65_535)
        #expect(try window.index(for: 0) == 65_536)
        window.accept(65_536)
        #expect(try window.index(for: 65_535) == 65_535)
        #expect(try window.index(for: 32_768) == 65_536 + 32_768)
        #expect(try window.index(for: 32_769) == 32_769)
    }

    @Test func `the window remembers as a set would`() {
        var random = SeededGenerator(seed: 4)
        for _ in 0..<50 {
            var window = ReplayWindow()
            var accepted: Set<UInt64> = []
            var highest: UInt64 = .random(in: 0..<1000, using: &random)
            for _ in 0..<500 {
                let reach: UInt64 = random.chance(1, in: 20) ? 400 : 150
                let index = UInt64.random(
                    in: highest.saturatingMinus(reach)...highest + (random.chance(1, in: 10) ? reach : 3), using: &random)
                var refusal: SRTPError?
                do throws(SRTPError) { try window.check(index) } catch { refusal = error }
                let expected: SRTPError? =
                    if let top = accepted.max(), index + ReplayWindow.size <= top { .tooOld } else {
                        accepted.contains(index) ? .replayed : nil
                    }
                #expect(refusal == expected, "\(index)")
                guard refusal == nil else { continue }
                window.accept(index)
                accepted.insert(index)
                highest = max(highest, index)
            }
        }
    }
}

extension UInt64 {
    func saturatingMinus(_ other: UInt64) -> UInt64 { self > other ? self - other : 0 }
}

@Suite struct OrderOfPackets {
    static let kinds = SRTPProfile.allCases.flatMap { profile in SRTPEngine.allCases.map { (profile, $0) } }

    @Test(arguments: kinds) func `a packet is taken once; late ones are taken up to 127 back`(
        profile: SRTPProfile, engine: SRTPEngine
    ) throws {
        var client = try Calls.client(profile, engine)
        var server = try Calls.server(profile, engine)
        var voice: [[UInt8]] = []
        var reports: [[UInt8]] = []
        for number in 0..<200 {
            voice.append(try Verb.protectRTP.run(&client, rtp(UInt16(2000 + number))))
            reports.append(try Verb.protectRTCP.run(&client, rtcp()))
        }
        for (verb, packets) in [(Verb.unprotectRTP, voice), (.unprotectRTCP, reports)] {
            var outcomes: [SRTPError?] = []
            for number in [199, 199, 72, 72, 71, 0, 150, 199, 150] { outcomes.append(verb.refusal(&server, packets[number])) }
            #expect(outcomes == [nil, .replayed, nil, .replayed, .tooOld, .tooOld, nil, .replayed, .replayed])
        }
    }

    @Test(arguments: kinds) func `the sequence number wraps, twice, with losses and late packets on both sides of it`(
        profile: SRTPProfile, engine: SRTPEngine
    ) throws {
        var client = try Calls.client(profile, engine)
        var server = try Calls.server(profile, engine)
        var index = 65_000
        var late: (bytes: [UInt8], index: Int)?
        for number in 0..<90 {
            let plain = rtp(UInt16(truncatingIfNeeded: index), payload: big(UInt32(number)))
            let protected = try Verb.protectRTP.run(&client, plain)
            if number % 10 == 9 {
                late = (protected, index)
            } else {
                let read = try Verb.unprotectRTP.run(&server, protected)
                #expect(read == plain)
                if let packet = late {
                    let refusal = Verb.unprotectRTP.refusal(&server, packet.bytes)
                    #expect(refusal == (index - packet.index < 128 ? nil : .tooOld), "packet \(packet.index) after \(index)")
                    late = nil
                }
            }
            // Small steps over the first wrap, losses of thousands over the ones after it.
            index += number < 30 ? 40 : 5_000
        }
        // The packets right before a wrap may come right after it.
        var before: [[UInt8]] = []
        var sender = try Calls.client(profile, engine)
        var receiver = try Calls.server(profile, engine)
        for sequence in [UInt16(65_534), 65_535, 0, 1] { before.append(try Verb.protectRTP.run(&sender, rtp(sequence))) }
        for number in [0, 3, 1, 2] {
            let refusal = Verb.unprotectRTP.refusal(&receiver, before[number])
            #expect(refusal == nil, "packet \(number)")
        }
    }

    @Test(arguments: kinds) func `no index is used twice for sending`(profile: SRTPProfile, engine: SRTPEngine) throws {
        var client = try Calls.client(profile, engine)
        var outcomes: [SRTPError?] = []
        for sequence in [UInt16(500), 500, 499, 499, 300, 501] { outcomes.append(Verb.protectRTP.refusal(&client, rtp(sequence))) }
        #expect(outcomes == [nil, .replayed, nil, .replayed, .tooOld, nil])
        let reports = [try Verb.protectRTCP.run(&client, rtcp()), try Verb.protectRTCP.run(&client, rtcp())]
        #expect(reports[0] != reports[1])
    }

    @Test(arguments: SRTPProfile.allCases) func `the first report has index zero, and each next one has one more`(
        profile: SRTPProfile
    ) throws {
        var client = try Calls.client(profile)
        for number in 0..<3 {
            let protected = try Verb.protectRTCP.run(&client, rtcp())
            let place = profile == .aes128CMHMACSHA1_80 ? rtcp().count : protected.count - 4
            #expect(Array(protected[place..<place + 4]) == big(0x8000_0000 | UInt32(number)))
        }
    }

    @Test(arguments: SRTPProfile.allCases) func `when all indices were used nothing more is sent`(profile: SRTPProfile) throws {
        var client = try Calls.client(profile)
        try client.noteSent(ssrc: 0xCAFE_BABE, rtpIndex: (1 << 48) - 2, rtcpIndex: (1 << 31) - 2)
        let last = (Verb.protectRTP.refusal(&client, rtp(65_535)), Verb.protectRTCP.refusal(&client, rtcp()))
        #expect(last == (nil, nil))
        let more = (Verb.protectRTP.refusal(&client, rtp(0)), Verb.protectRTCP.refusal(&client, rtcp()))
        #expect(more == (.keyExhausted, .keyExhausted))
    }
}

@Suite struct SourcesOfACall {
    static let kinds = SRTPProfile.allCases.flatMap { profile in SRTPEngine.allCases.map { (profile, $0) } }

    @Test(arguments: kinds) func `eight sources are heard, and forgers take none of their places`(
        profile: SRTPProfile, engine: SRTPEngine
    ) throws {
        var server = try Calls.server(profile, engine)
        for forged in 0..<50 as Range<UInt32> {
            let junk = [UInt8](repeating: 1, count: 40)
            let refusals = (
                Verb.unprotectRTP.refusal(&server, rtp(9, ssrc: forged, payload: junk)),
                Verb.unprotectRTCP.refusal(&server, rtcp(ssrc: forged, payload: junk))
            )
            #expect(refusals.0 == .authentication && refusals.1 == .authentication)
        }
        // A sender has four places: three of them bring nine sources.
        var refusals: [SRTPError?] = []
        for sender in 0..<3 as Range<UInt32> {
            var client = try Calls.client(profile, engine)
            for source in 0..<3 as Range<UInt32> {
                let packet = try Verb.protectRTP.run(&client, rtp(1, ssrc: 100 + sender * 3 + source))
                refusals.append(Verb.unprotectRTP.refusal(&server, packet))
            }
        }
        #expect(refusals == [SRTPError?](repeating: nil, count: 8) + [.tooManyStreams])

        // The eight that have places are heard on, with RTCP too.
        var client = try Calls.client(profile, engine)
        let packet = try Verb.protectRTP.run(&client, rtp(2, ssrc: 100))
        let report = try Verb.protectRTCP.run(&client, rtcp(ssrc: 107))
        let stranger = try Verb.protectRTCP.run(&client, rtcp(ssrc: 108))
        let heard = (
            Verb.unprotectRTP.refusal(&server, packet), Verb.unprotectRTCP.refusal(&server, report),
            Verb.unprotectRTCP.refusal(&server, stranger)
        )
        #expect(heard == (nil, nil, .tooManyStreams))
    }

    @Test(arguments: kinds) func `four sources may send`(profile: SRTPProfile, engine: SRTPEngine) throws {
        var client = try Calls.client(profile, engine)
        var refusals: [SRTPError?] = []
        for source in 0..<5 as Range<UInt32> { refusals.append(Verb.protectRTP.refusal(&client, rtp(1, ssrc: source))) }
        refusals.append(Verb.protectRTCP.refusal(&client, rtcp(ssrc: 3)))
        refusals.append(Verb.protectRTCP.refusal(&client, rtcp(ssrc: 4)))
        #expect(refusals == [nil, nil, nil, nil, .tooManyStreams, nil, .tooManyStreams])
    }

    @Test(arguments: kinds) func `a forged packet from far ahead does not move the window`(
        profile: SRTPProfile, engine: SRTPEngine
    ) throws {
        var client = try Calls.client(profile, engine)
        var server = try Calls.server(profile, engine)
        let packets = try (0..<4).map { try Verb.protectRTP.run(&client, rtp(UInt16($0 * 10_000))) }
        let first = Verb.unprotectRTP.refusal(&server, packets[0])
        var forged = packets[3]
        forged[20] ^= 1
        let second = Verb.unprotectRTP.refusal(&server, forged)
        let third = Verb.unprotectRTP.refusal(&server, packets[1])
        #expect((first, second, third) == (nil, .authentication, nil))
    }
}
