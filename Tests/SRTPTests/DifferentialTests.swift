import Primitives
import SRTP
import Testing

/// libsrtp2 as the oracle: the same packets through both engines give the same bytes and the same verdicts.
@Suite struct AgainstLibSRTP {
    /// The two engines of one side of a call, fed alike.
    struct Twins: ~Copyable {
        var own: SRTPContext
        var library: SRTPContext

        mutating func run(_ verb: Verb, _ bytes: [UInt8]) -> (own: Result<[UInt8], SRTPError>, library: Result<[UInt8], SRTPError>) {
            (verb.outcome(&own, bytes), verb.outcome(&library, bytes))
        }
    }

    /// RTP with all that a header can have: CSRCs, an extension, marker, padding bit; payloads of no byte and up.
    static func randomRTP(_ sequence: UInt16, ssrc: UInt32, using random: inout SeededGenerator) -> [UInt8] {
        let csrcs = random.chance(1, in: 4) ? Int.random(in: 1...15, using: &random) : 0
        let isExtended = random.chance(1, in: 3)
        var packet: [UInt8] = [
            0x80 | (random.chance(1, in: 8) ? 0x20 : 0) | (isExtended ? 0x10 : 0) | UInt8(csrcs), UInt8.random(in: 0...255, using: &random),
        ]
        packet += big(sequence) + random.bytes(4) + big(ssrc) + random.bytes(4 * csrcs)
        if isExtended {
            let words = Int.random(in: 0...6, using: &random)
            packet += [0xBE, 0xDE] + big(UInt16(words)) + random.bytes(4 * words)
        }
        let length = random.chance(1, in: 20) ? Int.random(in: 0...1, using: &random) : Int.random(in: 2...300, using: &random)
        return packet + random.bytes(length)
    }

    @Test(arguments: SRTPProfile.allCases) func `both engines write the same bytes and reach the same verdicts`(profile: SRTPProfile) throws
    {
        var random = SeededGenerator(seed: 11 + UInt64(profile.rawValue))
        var senders = Twins(own: try Calls.client(profile, .own), library: try Calls.client(profile, .libsrtp))
        var receivers = Twins(own: try Calls.server(profile, .own), library: try Calls.server(profile, .libsrtp))
        let sources: [UInt32] = [0xCAFE_BABE, 1, 0xFFFF_FFFF]
        var sequences: [UInt16] = [65_200, 0, 40_000]
        // libsrtp numbers its reports from one, the RFC from zero.
        for source in sources { try senders.own.noteSent(ssrc: source, rtcpIndex: 0) }
        var inFlight: [(verb: Verb, bytes: [UInt8])] = []
        var (delivered, refused) = (0, 0)

        for step in 0..<4_000 {
            let source = Int.random(in: 0..<3, using: &random)
            let isReport = random.chance(1, in: 5)
            let plain: [UInt8]
            if isReport {
                plain = rtcp(ssrc: sources[source], payload: random.bytes(Int.random(in: 0...300, using: &random)))
            } else {
                plain = Self.randomRTP(sequences[source], ssrc: sources[source], using: &random)
                let jump = random.chance(1, in: 100) ? UInt16.random(in: 100...30_000, using: &random) : 1
                sequences[source] = sequences[source] &+ jump
            }
            let sent = senders.run(isReport ? .protectRTCP : .protectRTP, plain)
            try #require(sent.own == sent.library, "step \(step)")
            let protected = try sent.own.get()
            inFlight.append((isReport ? .unprotectRTCP : .unprotectRTP, protected))
            if random.chance(1, in: 10) { inFlight.append(inFlight[inFlight.count - 1]) }
            if random.chance(1, in: 10) {
                var damaged = inFlight[inFlight.count - 1]
                damaged.bytes[Int.random(in: 0..<damaged.bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                inFlight.append(damaged)
            }

            // The network delivers out of order, and now and then something very late.
            while inFlight.count > (random.chance(1, in: 50) ? 0 : 12) {
                let packet = inFlight.remove(at: random.chance(1, in: 4) ? 0 : Int.random(in: 0..<inFlight.count, using: &random))
                let received = receivers.run(packet.verb, packet.bytes)
                try #require(received.own == received.library, "step \(step): \(received)")
                if case .success = received.own { delivered += 1 } else { refused += 1 }
                if random.chance(1, in: 40) { inFlight.append(packet) }
            }
        }
        #expect(delivered > 3_000 && refused > 500, "\(delivered) delivered, \(refused) refused")
    }

    @Test(arguments: SRTPProfile.allCases) func `they read each other through three wraps of the sequence number`(profile: SRTPProfile)
        throws
    {
        for (sender, receiver) in [(SRTPEngine.own, SRTPEngine.libsrtp), (.libsrtp, .own)] {
            var client = try Calls.client(profile, sender)
            var server = try Calls.server(profile, receiver)
            var sequence: UInt16 = 1
            for step in 0..<700 {
                let plain = rtp(sequence, payload: big(UInt64(step)))
                let protected = try Verb.protectRTP.run(&client, plain)
                let read = try Verb.unprotectRTP.run(&server, protected)
                #expect(read == plain)
                sequence = sequence &+ 307
            }
        }
    }
}
