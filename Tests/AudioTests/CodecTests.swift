import Audio
import Primitives
import TestSupport
import Testing

private func parsed(_ packet: [UInt8]) throws(OpusPacketError) -> OpusPacket { try OpusPacket(parsing: packet.span.bytes) }

@Suite struct `Opus packets` {
    @Test(arguments: [
        ("08 11 22", 0, 960, 1), ("f8 11", 2, 960, 1), ("78 11", 1, 960, 1), ("18 11", 0, 2_880, 1), ("80 11", 2, 120, 1),
        ("09 11 22 33 44", 0, 960, 2), ("0a 01 11 22", 0, 960, 2), ("0b 03 11 22 33", 0, 960, 3), ("0b 83 01 00 11 22 33", 0, 960, 3),
        ("0b 41 02 11 00 00", 0, 960, 1), ("1b 02 11 22", 0, 2_880, 2), ("08", 0, 960, 1),
        ("83 30" + String(repeating: " 01", count: 48), 2, 120, 48),
    ])
    func `the length of a packet is in its first bytes`(_ text: String, mode: Int, frameSamples: Int, frames: Int) throws {
        let packet = try parsed(#require(bytes(hex: text.filter { $0 != " " })))
        #expect(Int(packet.mode.rawValue) == mode)
        #expect(packet.frameSamples == frameSamples)
        #expect(packet.frameCount == frames)
        #expect(packet.sampleCount == frames * frameSamples)
    }

    @Test(arguments: [
        ("", OpusPacketError.empty), ("09 11 22 33 44 55", .unevenFrames), ("0a", .truncated), ("0a 05 11", .truncated),
        ("0a fc", .truncated), ("0b", .truncated), ("0b 00", .tooLong(frames: 0)), ("0b 07 11 22 33 44 55 66 77", .tooLong(frames: 7)),
        ("0b 3f", .tooLong(frames: 63)),
        ("0b 02 11 22 33", .unevenBytes), ("0b 42 05 11", .truncated), ("0b 42 ff", .truncated), ("0b 83 01 03 11", .truncated),
    ])
    func `a packet that breaks the format is refused with its reason`(_ text: String, reason: OpusPacketError) throws {
        let malformed = try #require(bytes(hex: text.filter { $0 != " " }))
        #expect(throws: reason) { try parsed(malformed) }
    }

    @Test func `a frame of more than 1,275 bytes is refused`() {
        let long = [0x08] + [UInt8](repeating: 1, count: 1_276)
        #expect(throws: OpusPacketError.frameTooLong(1_276)) { try parsed(long) }
    }

    @Test func `mutations of the corpus never trap and libopus agrees`() {
        var encoder = OpusEncoder()
        encoder.setExpectedLoss(20)
        let spoken = encoder.packets(voice(rate: 24_000, count: 24_000 / 5))
        mutate(Corpus.files(in: "opus").map(\.bytes) + spoken) { fuzzOpusPacket($0) }
    }
}

@Suite struct `The Opus codec` {
    @Test(arguments: [24_000, 48_000], [8_000, 12_000, 16_000, 24_000, 48_000])
    func `a tone of 440 Hz is still 440 Hz`(_ encoderRate: Int, decoderRate: Int) throws {
        var settings = OpusEncoder.Settings()
        settings.rate = encoderRate
        var encoder = OpusEncoder(settings)
        var decoder = OpusDecoder(rate: decoderRate)
        var heard: [Int16] = []
        for packet in encoder.packets(tone(440, rate: encoderRate, count: encoderRate)) { heard += try decoder.pcm(packet) }
        #expect(heard.count == decoderRate)
        let steady = heard.dropFirst(decoderRate / 10)
        #expect(share(of: 440, in: steady, rate: decoderRate) > 0.98)
        #expect(share(of: 880, in: steady, rate: decoderRate) < 0.01)
        #expect(abs(level(steady) - level(tone(440, rate: 8_000, count: 8_000))) < 1)
    }

    /// The rate is variable: the gaps between syllables cost less.
    @Test func `the bitrate follows what was asked for`() {
        for bitrate in [12_000, 24_000, 64_000] {
            var encoder = OpusEncoder()
            encoder.setBitrate(bitrate)
            let count = encoder.packets(voice(rate: 24_000, count: 48_000)).reduce(0) { $0 + $1.count }
            #expect((bitrate / 2...bitrate * 11 / 10).contains(count * 8 / 2))
        }
    }

    /// Voice, one packet lost, and the packet after it: what FEC gives is near what was said, what concealment gives is at least not silence.
    @Test func `a lost frame is recovered from the next packet or concealed`() throws {
        var settings = OpusEncoder.Settings()
        settings.expectedLoss = 20
        var encoder = OpusEncoder(settings)
        let packets = encoder.packets(voice(rate: 24_000, count: 24_000))
        let next = try parsed(packets[31])
        #expect(next.carriesFEC)
        #expect(next.mode == .silk || next.mode == .hybrid)

        var whole = OpusDecoder(rate: 24_000)
        var lossy = OpusDecoder(rate: 24_000)
        var concealing = OpusDecoder(rate: 24_000)
        for packet in packets[..<30] {
            _ = try whole.pcm(packet)
            _ = try lossy.pcm(packet)
            _ = try concealing.pcm(packet)
        }
        let said = try whole.pcm(packets[30])
        let recovered = try lossy.recovered(from: packets[31], 480)
        let concealed = try concealing.concealed(480)
        #expect(abs(level(recovered) - level(said)) < 3)
        #expect(level(concealed) > level(said) - 12)
        // Loss that lasts dies away: the caller must not hear a buzz.
        for _ in 0..<50 { _ = try concealing.concealed(480) }
        let last = try concealing.concealed(480)
        #expect(level(last) < -50)
    }

    @Test func `a packet without FEC says so`() throws {
        var settings = OpusEncoder.Settings()
        settings.forwardErrorCorrection = false
        var encoder = OpusEncoder(settings)
        for packet in encoder.packets(voice(rate: 24_000, count: 12_000)) {
            let header = try parsed(packet)
            #expect(!header.carriesFEC)
        }
    }

    @Test func `a malformed packet and a small span are refused before libopus`() {
        var decoder = OpusDecoder(rate: 48_000)
        var samples = [Int16](repeating: 0, count: 480)
        let malformed: [UInt8] = [0x09, 1, 2, 3]
        let long: [UInt8] = [0x08, 1, 2]
        var refusals: [OpusError] = []
        var span = samples.mutableSpan
        do { _ = try decoder.decode(malformed.span.bytes, into: &span) } catch { refusals.append(error) }
        do { _ = try decoder.decode(long.span.bytes, into: &span) } catch { refusals.append(error) }
        #expect(refusals == [.malformed(.unevenFrames), .needs(samples: 960)])
        #expect(samples.allSatisfy { $0 == 0 })
    }
}

@Suite struct `The resampler` {
    @Test(arguments: [8_000, 16_000, 24_000, 44_100], [true, false])
    func `a tone keeps its pitch and the frames their number`(_ rate: Int, down: Bool) {
        let (from, to) = down ? (48_000, rate) : (rate, 48_000)
        var resampler = Resampler(from: from, to: to)
        let signal = tone(440, rate: from, count: from)
        var heard: [Int16] = []
        for start in stride(from: 0, to: from, by: from / 50) { heard += resampler.pcm(Array(signal[start..<start + from / 50])) }
        #expect(abs(heard.count - to) <= to / 100)
        #expect(share(of: 440, in: heard.dropFirst(to / 10), rate: to) > 0.99)
    }

    @Test func `what the lower rate cannot hold does not come back as another pitch`() {
        var resampler = Resampler(from: 48_000, to: 8_000)
        let heard = resampler.pcm(tone(6_000, rate: 48_000, count: 48_000))
        #expect(level(heard.dropFirst(800)) < -40)
    }
}

@Suite struct `G.711` {
    /// ITU-T G.711 tables 1a…2b: the codes at the ends of the segments; the value in 16 bits.
    @Test(
        arguments: [
            (0xFF, 0), (0xFE, 8), (0xF0, 120), (0xEF, 132), (0xE0, 372), (0xDF, 396), (0xD0, 876), (0xCF, 924), (0xC0, 1_884),
            (0xBF, 1_980),
            (0xB0, 3_900), (0xAF, 4_092), (0xA0, 7_932), (0x9F, 8_316), (0x90, 15_996), (0x8F, 16_764), (0x80, 32_124), (0x00, -32_124),
            (0x7F, 0), (0x7E, -8), (0x6F, -132),
        ] as [(UInt8, Int16)])
    func `µ-law codes have the values of the recommendation`(_ code: UInt8, value: Int16) { #expect(MuLaw.decode(code) == value) }

    @Test(
        arguments: [
            (0xD5, 8), (0xD4, 24), (0xDA, 248), (0xC5, 264), (0xCA, 504), (0xF5, 528), (0xFA, 1_008), (0xE5, 1_056), (0x95, 2_112),
            (0x85, 4_224),
            (0xB5, 8_448), (0xA5, 16_896), (0xAA, 32_256), (0x2A, -32_256), (0x55, -8), (0x54, -24),
        ] as [(UInt8, Int16)])
    func `A-law codes have the values of the recommendation`(_ code: UInt8, value: Int16) { #expect(ALaw.decode(code) == value) }

    @Test func `every code comes back from its value, and every sample from the nearest code`() {
        for code in UInt8.min...UInt8.max {
            // µ-law has two zeros; negative zero (0x7F) is encoded as the positive one.
            #expect(MuLaw.encode(MuLaw.decode(code)) == (code == 0x7F ? 0xFF : code))
            #expect(ALaw.encode(ALaw.decode(code)) == code)
        }
        for sample in stride(from: Int16.min, through: Int16.max - 2, by: 3) {
            let magnitude = abs(Int(sample))
            // Half a step, a 32nd of the biased magnitude, and what the ends clip.
            let most = max(8, (magnitude + 132) / 31) + (magnitude > 32_124 ? 650 : 0)
            #expect(abs(Int(MuLaw.decode(MuLaw.encode(sample))) - Int(sample)) <= most)
            #expect(abs(Int(ALaw.decode(ALaw.encode(sample))) - Int(sample)) <= max(8, magnitude / 31) + (magnitude > 32_256 ? 512 : 0))
        }
    }

    @Test func `the digital milliwatt of the recommendation is a tone of 1 kHz`() {
        // G.711 table 5 and 6: one period of 1 kHz at 0 dBm0.
        let mu: [UInt8] = [0x1E, 0x0B, 0x0B, 0x1E, 0x9E, 0x8B, 0x8B, 0x9E]
        let a: [UInt8] = [0x34, 0x21, 0x21, 0x34, 0xB4, 0xA1, 0xA1, 0xB4]
        for samples in [mu.map(MuLaw.decode), a.map(ALaw.decode)] {
            let second = (0..<8_000).map { samples[$0 % 8] }
            #expect(share(of: 1_000, in: second, rate: 8_000) > 0.999)
            // 0 dBm0 is 3.17 dB (µ) and 3.14 dB (A) below the overload point of a sine.
            #expect(abs(level(second) + 3.01 + 3.15) < 0.1)
        }
    }
}
