import Primitives
import SDP
import Testing

@Suite struct Roles {
    @Test(
        arguments: [
            ("a=setup:actpass", SDPSetup.active, true), ("a=setup:actpass", .passive, false), ("a=setup:active", .active, false),
            ("a=setup:passive", .active, true), ("a=setup:passive", .passive, true), (nil, .active, false),
        ] as [(String?, SDPSetup, Bool)])
    func `the DTLS role is ours only where the offer leaves it open`(offered: String?, preferred: SDPSetup, client: Bool) throws {
        let result = try negotiated(audioOffer(setup: offered), setup: preferred)
        #expect(result.weAreDTLSClient == client)
        #expect(occurrences(of: client ? "a=setup:active" : "a=setup:passive", in: result.answer) == 1)
    }

    @Test(
        arguments: [
            ("a=sendrecv", "a=sendrecv", true, true), ("a=sendonly", "a=recvonly", false, true), ("a=recvonly", "a=sendonly", true, false),
            ("a=inactive", "a=inactive", false, false), (nil, "a=sendrecv", true, true),
        ] as [(String?, String, Bool, Bool)])
    func `the direction is mirrored, and a stream is announced only where we send`(
        offered: String?, answered: String, maySend: Bool, mayReceive: Bool
    ) throws {
        let result = try negotiated(audioOffer(direction: offered))
        #expect(result.audio?.maySend == maySend && result.audio?.mayReceive == mayReceive)
        #expect(occurrences(of: answered, in: result.answer) == 1)
        #expect(result.answer.contains("a=ssrc:4711 cname:swiftlet") == maySend && result.answer.contains("a=msid:") == maySend)
        if let offered {
            // At session level it means the same.
            #expect(try negotiated(audioOffer(session: ["a=group:BUNDLE 0", offered], direction: nil)).audio == result.audio)
        }
    }
}

@Suite struct Codecs {
    @Test func `the offer's preferred Opus is taken with its payload type, whatever the case and the order`() throws {
        let two = audioOffer(formats: "0 96 111", extra: ["a=rtpmap:96 OPUS/48000/2", "a=fmtp:96 stereo=1;usedtx=1"])
        let audio = try #require(try negotiated(two).audio)
        #expect(audio.opusPayloadType == 96 && audio.opusParameters == "stereo=1;usedtx=1")
        #expect(sections(try negotiated(two).answer)[1].contains("a=fmtp:96 minptime=10;useinbandfec=1"))
        #expect(sections(try negotiated(two).answer)[1].first == "m=audio 9 UDP/TLS/RTP/SAVPF 96")
    }

    @Test(arguments: ["opus/48000/1", "opus/48000", "opus/16000/2", "opusx/48000/2", "red/48000/2"])
    func `what only looks like Opus is not taken`(name: String) {
        #expect(refusal(audioOffer().replacing("opus/48000/2", with: name))?.reason == .nothingAccepted(.noOpus))
    }

    @Test func `a payload type that RTCP could be mistaken for is not taken`() {
        let text = audioOffer(formats: "72", extra: ["a=rtpmap:72 opus/48000/2"])
        #expect(refusal(text)?.reason == .nothingAccepted(.noOpus))
    }

    @Test func `a payload type that the m-line lacks is not taken`() {
        #expect(refusal(audioOffer(formats: "0"))?.reason == .nothingAccepted(.noOpus))
    }

    @Test func `telephone events are taken at the clock of Opus alone`() throws {
        let both = audioOffer(
            formats: "111 101 110", extra: ["a=rtpmap:101 telephone-event/8000", "a=rtpmap:110 telephone-event/48000", "a=fmtp:110 0-15"])
        #expect(try negotiated(both).audio?.telephoneEventPayloadType == 110)
        #expect(sections(try negotiated(both).answer)[1].first == "m=audio 9 UDP/TLS/RTP/SAVPF 111 110")
        #expect(
            try negotiated(audioOffer(formats: "111 101", extra: ["a=rtpmap:101 telephone-event/8000"])).audio?.telephoneEventPayloadType
                == nil)
    }

    @Test func `of the header extensions mid and audio level are taken, where we can honour them`() throws {
        let level = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
        let mid = "urn:ietf:params:rtp-hdrext:sdes:mid"
        let cc = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
        let all = try negotiated(audioOffer(extra: ["a=extmap:14 \(mid)", "a=extmap:2/sendrecv \(level) vad=on", "a=extmap:3 \(cc)"]))
        #expect(all.audio?.midExtension == 14 && all.audio?.audioLevelExtension == 2)
        #expect(all.answer.contains("a=extmap:14 \(mid)\r\n") && all.answer.contains("a=extmap:2 \(level)\r\n") && !all.answer.contains(cc))
        for unusable in ["a=extmap:15 \(level)", "a=extmap:0 \(level)", "a=extmap:200 \(level)", "a=extmap:1/recvonly \(level)"] {
            let result = try negotiated(audioOffer(extra: [unusable]))
            #expect(result.audio?.audioLevelExtension == nil && !result.answer.contains("extmap"))
        }
        let session = try negotiated(audioOffer(session: ["a=group:BUNDLE 0", "a=extmap:5 \(level)"]))
        #expect(session.audio?.audioLevelExtension == 5)
        let withoutMid = try negotiated(audioOffer(session: [], mid: nil, extra: ["a=extmap:1 \(mid)"]))
        #expect(withoutMid.audio?.midExtension == nil)
    }

    @Test func `reduced-size RTCP and ICE options are answered only where they are offered`() throws {
        let plain = try negotiated(audioOffer())
        #expect(plain.audio?.reducedSizeRTCP == false && !plain.answer.contains("rtcp-rsize") && !plain.answer.contains("ice-options"))
        let more = try negotiated(audioOffer(extra: ["a=rtcp-rsize", "a=ice-options:ice2 trickle sped renomination"]))
        #expect(more.audio?.reducedSizeRTCP == true && more.answer.contains("a=rtcp-rsize\r\n"))
        #expect(more.answer.contains("a=ice-options:trickle ice2\r\n"))
    }
}

@Suite struct Sections {
    @Test func `every section is answered at its place, what is not used as inactive if it can be kept, else with port 0`() throws {
        let text = audioOffer(
            session: ["a=group:BUNDLE 0 v 1 a2 x"],
            then: ["m=video 9 UDP/TLS/RTP/SAVPF 96 97", "a=mid:v", "a=rtcp-mux", "a=rtpmap:96 VP8/90000"] + dataSection()
                + ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:a2", "a=rtcp-mux", "a=rtpmap:111 opus/48000/2"]
                + ["m=text 4000 TCP/MSRP *", "a=mid:x"]
                + ["m=video 9 UDP/TLS/RTP/SAVPF 96 97", "a=mid:alone", "a=rtcp-mux", "a=rtpmap:96 VP8/90000"])
        let result = try negotiated(text)
        let answer = sections(result.answer)
        #expect(
            answer.dropFirst().map { $0[0] } == [
                "m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 96", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
                "m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=text 0 TCP/MSRP *", "m=video 0 UDP/TLS/RTP/SAVPF 96 97",
            ])
        #expect(answer[0].contains("a=group:BUNDLE 0 v 1 a2"))
        for kept in [answer[2], answer[4]] {
            #expect(kept.contains("a=inactive") && kept.contains("a=rtcp-mux") && kept.contains("a=ice-ufrag:\(ourUfrag)"))
            #expect(!kept.contains { $0.hasPrefix("a=ssrc") } && kept.last == "a=end-of-candidates")
        }
        #expect(answer[6] == ["m=video 0 UDP/TLS/RTP/SAVPF 96 97", "c=IN IP4 0.0.0.0", "a=mid:alone", "a=inactive"])
        #expect(
            result.rejected == [
                RejectedSection(index: 1, why: .unsupportedKind), RejectedSection(index: 3, why: .anotherIsTaken),
                RejectedSection(index: 4, why: .unsupportedKind), RejectedSection(index: 5, why: .unsupportedKind),
            ])
    }

    @Test func `candidates stand in the section that carries the transport alone, and end there`() throws {
        let result = try negotiated(audioOffer(session: ["a=group:BUNDLE 1 0"], then: dataSection()))
        let answer = sections(result.answer)
        #expect(answer[0].contains("a=group:BUNDLE 1 0"))
        #expect(!answer[1].contains { $0.hasPrefix("a=candidate") } && !answer[1].contains("a=end-of-candidates"))
        #expect(answer[2].filter { $0.hasPrefix("a=candidate") }.count == 2 && answer[2].last == "a=end-of-candidates")
        for section in answer.dropFirst() {
            #expect(section.contains("a=ice-ufrag:\(ourUfrag)") && section.contains("a=fingerprint:\(ourFingerprint)"))
        }
    }

    @Test func `without BUNDLE only one section is taken: audio, wherever it stands`() throws {
        let alone = try negotiated(audioOffer(session: [], mid: nil))
        #expect(alone.audio != nil && alone.audio?.mid == nil && !alone.answer.contains("a=mid") && !alone.answer.contains("BUNDLE"))
        for session in [[], ["a=group:BUNDLE 0"], ["a=group:LS 0 1"], ["a=group:BUNDLE 0", "a=group:BUNDLE 1"]] {
            let result = try negotiated(audioOffer(session: session, then: dataSection()))
            #expect(result.audio != nil && result.dataChannel == nil)
            #expect(result.rejected == [RejectedSection(index: 1, why: .notBundled)])
            #expect(sections(result.answer)[2].first == "m=application 0 UDP/DTLS/SCTP webrtc-datachannel")
        }
        let head = ["v=0", "s=-"] + dataSection()
        let dataFirst = head.map { $0 + "\r\n" }.joined() + audioOffer(session: []).without("v=").without("s=").without("o=").without("t=")
        #expect(try negotiated(dataFirst).rejected == [RejectedSection(index: 0, why: .notBundled)])
    }

    @Test func `a data channel alone is a call, in the dialect of RFC 8841 only`() throws {
        func data(_ line: String, _ extra: [String]) -> String {
            (["v=0", "a=group:BUNDLE 1", line] + dataSection(extra: extra).dropFirst()).map { $0 + "\r\n" }.joined()
        }
        let modern = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"
        let result = try negotiated(data(modern, ["a=sctp-port:5001", "a=max-message-size:0"]))
        #expect(result.audio == nil && result.dataChannel == NegotiatedDataChannel(mid: "1", peerSCTPPort: 5001, peerMaxMessageSize: .max))
        #expect(try negotiated(data(modern, [])).dataChannel?.peerSCTPPort == 5000)
        #expect(refusal(data(modern, ["a=sctp-port:0"]))?.reason == .nothingAccepted(.sctpClosed))
        #expect(
            refusal(data("m=application 9 DTLS/SCTP 5000", ["a=sctpmap:5000 webrtc-datachannel 256"]))?.reason
                == .nothingAccepted(.legacyDataChannel))
        #expect(refusal(data("m=application 9 UDP/DTLS/SCTP t38", []))?.reason == .nothingAccepted(.unsupportedKind))
        #expect(refusal(data("m=application 9 UDP/BFCP *", []))?.reason == .nothingAccepted(.unsupportedProtocol))
    }

    @Test func `the old data channel syntax is refused in its own words`() throws {
        let answer = sections(try negotiated(corpus("written-legacy-sctp.sdp")).answer)
        #expect(answer[2] == ["m=application 0 DTLS/SCTP 5000", "c=IN IP4 0.0.0.0", "a=mid:1"])
    }

    @Test func `port 0 means bundle-only where the offer says so, and disabled where it does not`() throws {
        let bundled = audioOffer(session: ["a=group:BUNDLE 0 1"], then: dataSection(port: 0, extra: ["a=bundle-only"]))
        #expect(try negotiated(bundled).dataChannel != nil)
        let disabled = audioOffer(session: ["a=group:BUNDLE 0 1"], then: dataSection(port: 0))
        #expect(try negotiated(disabled).rejected == [RejectedSection(index: 1, why: .disabledByOffer)])
        let alone = audioOffer(then: dataSection(port: 0, extra: ["a=bundle-only"]))
        #expect(try negotiated(alone).rejected == [RejectedSection(index: 1, why: .disabledByOffer)])
    }

    @Test(arguments: ["chromium-156", "firefox-153"])
    func `video that stands first in the bundle is kept as inactive, for it carries the transport`(client: String) throws {
        let result = try negotiated(corpus("\(client)-video-audio-data-max-bundle.sdp"))
        let answer = sections(result.answer)
        #expect(result.audio?.mid == "1" && result.dataChannel?.mid == "2" && answer[0].contains("a=group:BUNDLE 0 1 2"))
        #expect(result.rejected == [RejectedSection(index: 0, why: .unsupportedKind)])
        #expect(answer[1].first?.hasPrefix("m=video 9 ") == true && answer[1].contains("a=inactive") && answer[1].contains("a=rtcp-mux"))
        #expect(answer[1].contains { $0.hasPrefix("a=rtpmap:") && $0.hasSuffix(" VP8/90000") } && answer[1].last == "a=end-of-candidates")
        #expect(!answer[2].contains("a=end-of-candidates"))
    }

    @Test func `a section in two bundles belongs to the first, and carries no other's transport`() throws {
        let text = corpus("firefox-153-video-audio-data-max-bundle.sdp")
        let result = try negotiated(text.replacing("a=group:BUNDLE 0 1 2", with: "a=group:BUNDLE 0\r\na=group:BUNDLE 0 1 2"))
        #expect(sections(result.answer)[0].contains("a=group:BUNDLE 1 2") && result.audio != nil && result.dataChannel != nil)
        #expect(sections(result.answer)[1].first?.hasPrefix("m=video 0 ") == true)
    }

    @Test func `a first section that cannot be kept is refused, and the transport moves on`() throws {
        let video = ["v=0", "a=group:BUNDLE v 0", "m=video 9 UDP/TLS/RTP/SAVPF 96", "a=mid:v", "a=rtpmap:96 VP8/90000", "a=ice-ufrag:wrng"]
        let text = video.map { $0 + "\r\n" }.joined() + audioOffer(session: []).without("v=").without("s=").without("o=").without("t=")
        let result = try negotiated(text)
        #expect(result.iceUfrag == "abcd" && sections(result.answer)[0].contains("a=group:BUNDLE 0"))
        #expect(sections(result.answer)[1].first == "m=video 0 UDP/TLS/RTP/SAVPF 96")
        #expect(sections(result.answer)[2].last == "a=end-of-candidates")
    }
}

@Suite struct Transports {
    @Test func `ICE and DTLS attributes of the session level hold for a section without its own`() throws {
        let session = [
            "a=group:BUNDLE 0", "a=ice-ufrag:sess", "a=ice-pwd:sessionPasswordOfTwentyTwo", "a=fingerprint:\(theirFingerprint)",
            "a=setup:passive",
        ]
        let bare = audioOffer(session: session, setup: nil).replacing("a=ice-ufrag:abcd\r\n", with: "")
            .replacing("a=ice-pwd:abcdefghijklmnopqrstuv\r\n", with: "")
        let result = try negotiated(bare)
        #expect(result.iceUfrag == "sess" && result.icePassword == "sessionPasswordOfTwentyTwo" && result.weAreDTLSClient)
        #expect(result.fingerprints.count == 1)
        #expect(try negotiated(audioOffer(session: session)).iceUfrag == "abcd")
    }

    @Test func `fingerprints of section and session are merged, each once, in any case of letters`() throws {
        let other = "SHA-384 " + Array(repeating: "cd", count: 48).joined(separator: ":")
        let text = audioOffer(session: ["a=group:BUNDLE 0", "a=fingerprint:\(other)", "a=fingerprint:\(theirFingerprint)"])
        #expect(
            try negotiated(text).fingerprints == [
                SDPFingerprint(algorithm: "sha-256", bytes: Array(repeating: 0xAB, count: 32)),
                SDPFingerprint(algorithm: "sha-384", bytes: Array(repeating: 0xCD, count: 48)),
            ])
    }

    @Test func `a bundled section without transport attributes takes those of its group's first`() throws {
        let bare = ["m=application 0 UDP/DTLS/SCTP webrtc-datachannel", "a=mid:1", "a=bundle-only", "a=sctp-port:5000"]
        let result = try negotiated(audioOffer(session: ["a=group:BUNDLE 0 1"], then: bare))
        #expect(result.dataChannel != nil && result.audio != nil)
        // Its audio cannot be accepted nor kept: the data channel stands alone on the transport that was offered there.
        let refused = audioOffer(session: ["a=group:BUNDLE 0 1"], then: bare).without("a=rtcp-mux")
        #expect(try negotiated(refused).iceUfrag == "abcd")
    }

    @Test func `the session id is a positive 64-bit number`() throws {
        let result = try negotiate(offer(audioOffer()), settings(sessionID: .max))
        #expect(sections(result.answer)[0][1] == "o=- 9223372036854775807 2 IN IP4 127.0.0.1")
    }
}
