import Primitives
import SDP
import Testing
import TestSupport

/// What each client's offer, as captured, comes to.
struct Dialect: Sendable, CustomStringConvertible {
    var file: String
    var ufrag: String
    var opus: UInt8?
    var mid: String?
    var dataMid: String?
    var maxMessageSize = 262_144
    var fingerprints = 1
    var midExtension: UInt8?
    var levelExtension: UInt8?
    var event: UInt8?
    var red: UInt8?
    var sequenceExtension: UInt8?
    var group: String?
    var description: String { file }

    static let all = [
        Dialect(
            file: "chromium-156.sdp", ufrag: "vzMJ", opus: 111, mid: "0", dataMid: "1", midExtension: 4, levelExtension: 1, event: 110,
            red: 63, sequenceExtension: 3, group: "0 1"),
        Dialect(
            file: "chromium-156-warp.sdp", ufrag: "vzMJ", opus: 111, mid: "0", dataMid: "1", midExtension: 4, levelExtension: 1,
            event: 110, red: 63, sequenceExtension: 3, group: "0 1"),
        Dialect(
            file: "libwebrtc-m152.sdp", ufrag: "S3hx", opus: 111, mid: "0", dataMid: "1", midExtension: 4, levelExtension: 1, event: 110,
            red: 63, sequenceExtension: 3, group: "0 1"),
        Dialect(
            file: "firefox-153.sdp", ufrag: "96b3f1a0", opus: 109, mid: "0", dataMid: "1", maxMessageSize: 1_073_741_823,
            midExtension: 3, levelExtension: 1, sequenceExtension: 7, group: "0 1"),
        Dialect(
            file: "aiortc-1.16.sdp", ufrag: "tNck", opus: 96, mid: "0", dataMid: "1", fingerprints: 3, midExtension: 1, levelExtension: 2,
            group: "0 1"),
        Dialect(
            file: "gstreamer-1.22.sdp", ufrag: "XQwiBc3XwWDZqMaszih28sTl68I+sLlK", opus: 97, mid: "audio0", dataMid: "application1",
            maxMessageSize: 65_536, group: "audio0 application1"),
        Dialect(file: "libdatachannel-0.22.sdp", ufrag: "yfWb", dataMid: "0", group: "0"),
        Dialect(
            file: "written-pion.sdp", ufrag: "pionUfragOfSixteen", opus: 111, mid: "0", dataMid: "1", maxMessageSize: 1_073_741_823,
            sequenceExtension: 1, group: "0 1"),
        // Its data channel is in the old syntax: audio alone.
        Dialect(file: "written-legacy-sctp.sdp", ufrag: "aUdi", opus: 96, mid: "0", group: "0"),
    ]
}

@Suite struct Dialects {
    @Test(arguments: Dialect.all)
    func `every client's offer is understood and answered`(dialect: Dialect) throws {
        let result = try negotiated(corpus(dialect.file))
        #expect(result.iceUfrag == dialect.ufrag)
        #expect(result.fingerprints.count == dialect.fingerprints)
        #expect(result.weAreDTLSClient)
        #expect(result.audio?.opusPayloadType == dialect.opus)
        #expect(result.audio?.mid == dialect.mid)
        #expect(result.audio?.midExtension == dialect.midExtension)
        #expect(result.audio?.audioLevelExtension == dialect.levelExtension)
        #expect(result.audio?.telephoneEventPayloadType == dialect.event)
        #expect(result.audio?.redPayloadType == dialect.red)
        #expect(result.audio?.transportSequenceExtension == dialect.sequenceExtension)
        if let audio = result.audio { #expect(audio.maySend && audio.mayReceive) }
        #expect(result.dataChannel?.mid == dialect.dataMid)
        if let channel = result.dataChannel {
            #expect(channel.peerSCTPPort == 5000 && channel.peerMaxMessageSize == dialect.maxMessageSize)
        }
        #expect(sections(result.answer)[0].filter { $0.hasPrefix("a=group:") } == [dialect.group.map { "a=group:BUNDLE \($0)" }])
    }

    @Test(arguments: Dialect.all)
    func `line ends may be LF alone, and the last may be missing`(dialect: Dialect) throws {
        let text = corpus(dialect.file)
        let wanted = try negotiated(text)
        var bare = text.replacing("\r\n", with: "\n")
        #expect(try negotiated(bare) == wanted)
        bare.removeLast()
        #expect(try negotiated(bare) == wanted)
        #expect(try negotiated(text + "\r\n") == wanted)
    }

    @Test func `the whole of Chromium's answer is as written here`() throws {
        let wanted = """
            v=0
            o=- 7 2 IN IP4 127.0.0.1
            s=-
            t=0 0
            a=group:BUNDLE 0 1
            a=ice-lite
            a=msid-semantic: WMS *
            m=audio 9 UDP/TLS/RTP/SAVPF 111 63 110
            c=IN IP4 0.0.0.0
            a=mid:0
            a=ice-ufrag:\(ourUfrag)
            a=ice-pwd:\(ourPassword)
            a=ice-options:trickle
            a=fingerprint:\(ourFingerprint)
            a=setup:active
            a=sendrecv
            a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
            a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
            a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
            a=rtcp-mux
            a=rtcp-rsize
            a=rtpmap:111 opus/48000/2
            a=fmtp:111 minptime=10;useinbandfec=1
            a=rtcp-fb:111 transport-cc
            a=rtpmap:63 red/48000/2
            a=fmtp:63 111/111
            a=rtpmap:110 telephone-event/48000
            a=fmtp:110 0-15
            a=msid:swiftlet audio
            a=ssrc:4711 cname:swiftlet
            a=ssrc:4711 msid:swiftlet audio
            a=candidate:1 1 udp 2130706431 2001:db8::1 3478 typ host
            a=candidate:2 1 udp 2130706175 192.0.2.1 3478 typ host
            a=end-of-candidates
            m=application 9 UDP/DTLS/SCTP webrtc-datachannel
            c=IN IP4 0.0.0.0
            a=mid:1
            a=ice-ufrag:\(ourUfrag)
            a=ice-pwd:\(ourPassword)
            a=ice-options:trickle
            a=fingerprint:\(ourFingerprint)
            a=setup:active
            a=sctp-port:5000
            a=max-message-size:262144

            """
        #expect(try negotiated(corpus("chromium-156.sdp")).answer == wanted.replacing("\n", with: "\r\n"))
    }

    @Test func `what a client says in detail is there to read`() throws {
        let chromium = try offer(corpus("chromium-156.sdp"))
        let audio = try #require(chromium.media.first)
        #expect(chromium.bundleGroups == [["0", "1"]] && chromium.media.map(\.kind) == ["audio", "application"])
        #expect(audio.codecs.map(\.payloadType) == [111, 63, 9, 0, 8, 13, 110, 126])
        #expect(audio.codecs.first?.parameters == "minptime=10;useinbandfec=1")
        #expect(audio.rtcpMux && audio.rtcpReducedSize && audio.candidates.isEmpty && !audio.endOfCandidates)
        #expect(audio.msid == "2ee598d4-349d-487d-9997-f1a485f29b3e af3f3252-414e-4683-9e20-fa587a9ca3ad")
        #expect(audio.sources.map(\.ssrc) == [1_364_577_275] && audio.sources.first?.cname == "/ckuRI85Of3ijWtf")
        #expect(audio.extensions.map(\.id) == [1, 2, 3, 4] && audio.transport.iceOptions == ["trickle"])

        // a=fmtp stands before a=rtpmap here, and one extension has a direction.
        let firefox = try offer(corpus("firefox-153.sdp"))
        #expect(firefox.media[0].codecs.first?.parameters == "maxplaybackrate=48000;stereo=1;useinbandfec=1")
        #expect(firefox.media[0].extensions.map(\.direction) == [.sendrecv, .recvonly, .sendrecv, .sendrecv])
        #expect(firefox.transport.fingerprints.count == 1 && firefox.media[0].transport.fingerprints.isEmpty)

        let gstreamer = try offer(corpus("gstreamer-1.22.sdp"))
        let candidates = gstreamer.media[0].candidates
        #expect(candidates.count == 9 && candidates[0].transport == "udp" && candidates[1].transport == "tcp")
        #expect(candidates[0].address == SocketAddress("10.213.0.2:47242") && candidates[0].kind == .host)
        #expect(gstreamer.media[1].bundleOnly && gstreamer.media[1].port == 0 && gstreamer.media[1].maxMessageSize == nil)
    }
}
