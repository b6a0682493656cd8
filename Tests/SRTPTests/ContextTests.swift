import COpenSSL
import Crypto
import Primitives
import SRTP
import Testing

@Suite struct SecuringACall {
    struct Pair: Sendable, CustomTestStringConvertible {
        let profile: SRTPProfile
        let sender: SRTPEngine
        let receiver: SRTPEngine
        var testDescription: String { "\(profile), \(sender.rawValue) to \(receiver.rawValue)" }

        static let all = SRTPProfile.allCases.flatMap { profile in
            SRTPEngine.allCases.flatMap { sender in
                SRTPEngine.allCases.map { Pair(profile: profile, sender: sender, receiver: $0) }
            }
        }
    }

    @Test(arguments: Pair.all) func `what one side protects the other side reads`(pair: Pair) throws {
        var client = try Calls.client(pair.profile, pair.sender)
        var server = try Calls.server(pair.profile, pair.receiver)
        for number in 0..<20 {
            let voice = rtp(UInt16(1000 + number), payload: [UInt8](repeating: UInt8(number), count: number * 7))
            let protected = try Verb.protectRTP.run(&client, voice, room: pair.profile.rtpOverhead)
            #expect(protected.count == voice.count + pair.profile.rtpOverhead)
            #expect(protected[..<12] == voice[..<12])
            if number > 1 { #expect(protected[12..<voice.count] != voice[12...]) }
            let read = try Verb.unprotectRTP.run(&server, protected, room: 0)
            #expect(read == voice)

            let report = rtcp(payload: [UInt8](repeating: UInt8(number), count: number * 4))
            let protectedReport = try Verb.protectRTCP.run(&client, report, room: pair.profile.rtcpOverhead)
            #expect(protectedReport.count == report.count + pair.profile.rtcpOverhead)
            #expect(protectedReport[..<8] == report[..<8])
            let readReport = try Verb.unprotectRTCP.run(&server, protectedReport, room: 0)
            #expect(readReport == report)
        }
    }

    @Test(arguments: SRTPProfile.allCases) func `a change of any byte is noticed, and the genuine packet is still read`(
        profile: SRTPProfile
    ) throws {
        var client = try Calls.client(profile)
        var server = try Calls.server(profile)
        for (protect, unprotect, plain) in [(Verb.protectRTP, Verb.unprotectRTP, rtp(7)), (.protectRTCP, .unprotectRTCP, rtcp())] {
            let protected = try protect.run(&client, plain)
            for place in protected.indices {
                for bit in 0..<8 {
                    var forged = protected
                    forged[place] ^= 1 << UInt8(bit)
                    let refusal = unprotect.refusal(&server, forged)
                    #expect(refusal == .authentication || refusal == .malformed, "byte \(place) bit \(bit): \(String(describing: refusal))")
                }
                let truncated = unprotect.refusal(&server, Array(protected[..<place]))
                #expect(truncated == .authentication || truncated == .malformed)
            }
            let read = try unprotect.run(&server, protected)
            #expect(read == plain)
        }
    }

    @Test(arguments: SRTPProfile.allCases) func `our own packets, sent back to us, are not ours to read`(profile: SRTPProfile) throws {
        var client = try Calls.client(profile)
        let voice = try Verb.protectRTP.run(&client, rtp(1))
        let report = try Verb.protectRTCP.run(&client, rtcp())
        let refusals = (Verb.unprotectRTP.refusal(&client, voice), Verb.unprotectRTCP.refusal(&client, report))
        #expect(refusals == (.authentication, .authentication))
    }

    @Test(arguments: SRTPProfile.allCases) func `RTP and RTCP are under different keys`(profile: SRTPProfile) throws {
        var client = try Calls.client(profile)
        var server = try Calls.server(profile)
        let voice = try Verb.protectRTP.run(&client, rtp(1, payload: [UInt8](repeating: 0, count: 60)))
        let refusal = Verb.unprotectRTCP.refusal(&server, voice)
        #expect(refusal == .authentication)
    }

    @Test(arguments: SRTPProfile.allCases) func `a refused packet leaves no error behind for the TLS calls of this thread`(
        profile: SRTPProfile
    ) throws {
        var server = try Calls.server(profile)
        ERR_clear_error()
        let refusal = Verb.unprotectRTP.refusal(&server, rtp(1, payload: [UInt8](repeating: 0, count: 60)))
        let left = ERR_peek_error()
        #expect(refusal == .authentication && left == 0)
    }

    @Test func `a report that is authenticated but not encrypted is read`() throws {
        let profile = SRTPProfile.aes128CMHMACSHA1_80
        var server = try Calls.server(profile)
        let keys = try SRTPSessionKeys(profile: profile, master: Calls.master(profile, seed: 1))
        let signed = rtcp() + big(UInt32(9))
        let tag = HMACSHA1.tag(key: keys.rtcpAuthenticationKey.bytes, signed.bytes)
        // The E bit itself is authenticated.
        var turned = signed + tag.array[..<10]
        turned[rtcp().count] |= 0x80
        let refusal = Verb.unprotectRTCP.refusal(&server, turned)
        #expect(refusal == .authentication)
        let read = try Verb.unprotectRTCP.run(&server, signed + tag.array[..<10])
        #expect(read == rtcp())
    }
}

@Suite struct PacketsThatAreNot {
    static let kinds = SRTPProfile.allCases.flatMap { profile in SRTPEngine.allCases.map { (profile, $0) } }

    @Test(arguments: kinds) func `headers longer than the packet, and other versions, are malformed`(
        profile: SRTPProfile, engine: SRTPEngine
    ) throws {
        var client = try Calls.client(profile, engine)
        let voice = rtp(1, payload: [])
        var csrcs = voice
        csrcs[0] |= 1
        var extended = voice
        extended[0] |= 0x10
        var otherVersion = voice + [1, 2, 3, 4]
        otherVersion[0] = 0x40
        let short: [[UInt8]] = [
            [], [0x80], Array(voice[..<11]), csrcs, csrcs + [0, 0, 0], extended, extended + [0xBE, 0xDE, 0],
            extended + [0xBE, 0xDE, 0, 1], extended + [0xBE, 0xDE, 0, 1, 0, 0, 0], extended + [0xBE, 0xDE, 0xFF, 0xFF, 0, 0, 0, 0],
            otherVersion,
        ]
        for bytes in short {
            let outgoing = Verb.protectRTP.refusal(&client, bytes)
            let incoming = Verb.unprotectRTP.refusal(&client, bytes + [UInt8](repeating: 0, count: profile.rtpOverhead))
            #expect(outgoing == .malformed && incoming == .malformed, "\(hex(bytes))")
        }
        let shortReports: [[UInt8]] = [[], [0x80], Array(rtcp()[..<7]), [0x40] + rtcp()[1...]]
        for bytes in shortReports {
            let outgoing = Verb.protectRTCP.refusal(&client, bytes)
            let incoming = Verb.unprotectRTCP.refusal(&client, bytes + [UInt8](repeating: 0, count: profile.rtcpOverhead))
            #expect(outgoing == .malformed && incoming == .malformed, "\(hex(bytes))")
        }
    }

    @Test(arguments: kinds) func `CSRCs and a header extension stay in the clear, the payload behind them does not`(
        profile: SRTPProfile, engine: SRTPEngine
    ) throws {
        var client = try Calls.client(profile, engine)
        var server = try Calls.server(profile)
        var packet = rtp(1, payload: [])
        packet[0] |= 0x12
        packet += [1, 1, 1, 1, 2, 2, 2, 2, 0xBE, 0xDE, 0, 1, 0x10, 0xFF, 0, 0] + [UInt8](repeating: 9, count: 40)
        let protected = try Verb.protectRTP.run(&client, packet)
        #expect(protected[..<28] == packet[..<28])
        #expect(protected[28..<68] != packet[28...])
        let read = try Verb.unprotectRTP.run(&server, protected)
        #expect(read == packet)
    }

    @Test(arguments: kinds) func `no room behind the packet, or more than a datagram, is said before anything is written`(
        profile: SRTPProfile, engine: SRTPEngine
    ) throws {
        var client = try Calls.client(profile, engine)
        let refusals = (
            Verb.protectRTP.refusal(&client, rtp(1), room: profile.rtpOverhead - 1),
            Verb.protectRTCP.refusal(&client, rtcp(), room: profile.rtcpOverhead - 1)
        )
        #expect(refusals == (.noRoom, .noRoom))
        let long = [UInt8](repeating: 0, count: 65_500)
        let tooLong = (Verb.protectRTP.refusal(&client, rtp(1, payload: long)), Verb.protectRTCP.refusal(&client, rtcp(payload: long)))
        #expect(tooLong == (.tooLong, .tooLong))
        let incoming = (Verb.unprotectRTP.refusal(&client, rtp(1, payload: long)), Verb.unprotectRTCP.refusal(&client, rtcp(payload: long)))
        #expect(incoming == (.tooLong, .tooLong))
        // Nothing was spent: the same packet goes out afterwards.
        let protected = try Verb.protectRTP.run(&client, rtp(1), room: profile.rtpOverhead)
        #expect(protected.count == rtp(1).count + profile.rtpOverhead)
    }

    @Test(arguments: kinds) func `a length that is not in the buffer is malformed`(profile: SRTPProfile, engine: SRTPEngine) throws {
        var client = try Calls.client(profile, engine)
        for length in [Int.min, -1, 41, 1000, Int.max] {
            var buffer = [UInt8](repeating: 0x80, count: 40)
            var span = buffer.mutableSpan
            var bytes = span.mutableBytes
            var refusals: [SRTPError] = []
            do throws(SRTPError) { _ = try client.protectRTP(&bytes, length: length) } catch { refusals.append(error) }
            do throws(SRTPError) { _ = try client.protectRTCP(&bytes, length: length) } catch { refusals.append(error) }
            do throws(SRTPError) { _ = try client.unprotectRTP(&bytes, length: length) } catch { refusals.append(error) }
            do throws(SRTPError) { _ = try client.unprotectRTCP(&bytes, length: length) } catch { refusals.append(error) }
            #expect(refusals.count == 4 && refusals.allSatisfy { $0 == .malformed || $0 == .tooLong }, "\(length): \(refusals)")
        }
    }

    @Test(arguments: kinds) func `keys of another length are rejected`(profile: SRTPProfile, engine: SRTPEngine) throws {
        let right = Calls.master(profile, seed: 1)
        let wrong = [
            SRTPMasterKey(key: [], salt: right.salt), SRTPMasterKey(key: right.key + [0], salt: right.salt),
            SRTPMasterKey(key: right.key, salt: []), SRTPMasterKey(key: right.key, salt: right.salt.dropLast()),
        ]
        for key in wrong {
            #expect(throws: SRTPError.rejectedKey) { _ = try SRTPContext(profile: profile, local: key, remote: right, engine: engine) }
            #expect(throws: SRTPError.rejectedKey) { _ = try SRTPContext(profile: profile, local: right, remote: key, engine: engine) }
        }
    }
}
