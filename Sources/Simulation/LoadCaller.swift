// A caller for load generators: a real WebRTC client (ICE, DTLS, SRTP, one data channel) in as little code as that takes, of which a
// thousand run in one thread. It plays packets that somebody else has encoded and counts what it hears.

import Crypto
import DTLS
import ICE
import Primitives
import RTP
import SCTP
import SDP
import SRTP
import STUN

/// What all callers of a process share.
public struct LoadCallers: ~Copyable {
    private let certificate: DTLSCertificate
    fileprivate let context: DTLSContext
    private let hasDataChannel: Bool

    public init(hasDataChannel: Bool, wall: WallClock) throws(DTLSError) {
        let certificate = try DTLSCertificate.generate(at: wall)
        let context = try DTLSContext(certificate: certificate)
        self.certificate = certificate
        self.context = context
        self.hasDataChannel = hasDataChannel
    }

    /// An offer as Chromium makes it, of caller `number`.
    public func offer(_ number: UInt32) -> String {
        loadOffer(Self.credentials(number), fingerprint: certificate.fingerprint, ssrc: 1000 &+ number, hasDataChannel: hasDataChannel)
    }

    /// The caller whose offer was answered with `answer`; nil when it has no part in it.
    public func caller(_ number: UInt32, answer: String, at now: Instant) -> LoadCaller? {
        guard let facts = AnswerFacts(answer) else { return nil }
        return LoadCaller(number, Self.credentials(number), facts, hasDataChannel: hasDataChannel, at: now)
    }

    private static func credentials(_ number: UInt32) -> ICECredentials {
        ICECredentials(ufrag: "load\(number)", password: "loadpasswordloadpassword\(number)")
    }
}

/// One caller.
public struct LoadCaller: ~Copyable {
    private let ssrc: UInt32
    private let local: ICECredentials
    private let remoteUfrag: [UInt8]
    private let remotePassword: [UInt8]
    private let relay: SocketAddress
    private var dtls: DTLSAssociation
    private var srtp: SRTPContext?
    private var sctp: SCTPAssociation?
    private let isDTLSClient: Bool
    private let hasDataChannel: Bool
    private var random: SeededGenerator

    private var nextCheck: Instant
    private var isValid = false
    private var checkToAnswer: STUNTransactionID?
    private var sequence: UInt16 = 100
    private var timestamp: UInt32 = 0

    /// Packets of audio said and heard, and events heard.
    public private(set) var said = 0
    public private(set) var heard = 0
    public private(set) var events = 0
    /// The channel is open both ways.
    public private(set) var hasChannel = false
    public private(set) var hasFailed = false

    /// Room that a datagram of ours may need.
    public static let datagramMax = 1472
    /// Checks as a browser sends them: often until the first answer, then to keep consent (RFC 7675).
    private static let checkIntervalAtFirst = Interval.milliseconds(50)
    private static let checkInterval = Interval.milliseconds(2500)
    private static let samplesPerFrame: UInt32 = 960
    /// As in the offer.
    private static let opusPayloadType: UInt8 = 111
    private static let transportSequenceExtension: UInt8 = 3

    fileprivate init(_ number: UInt32, _ local: ICECredentials, _ answer: AnswerFacts, hasDataChannel: Bool, at now: Instant) {
        ssrc = 1000 &+ number
        self.local = local
        remoteUfrag = Array(answer.remote.ufrag.utf8)
        remotePassword = Array(answer.remote.password.utf8)
        relay = answer.relay
        isDTLSClient = answer.weAreDTLSClient
        dtls = DTLSAssociation(role: isDTLSClient ? .client : .server, fingerprints: [answer.fingerprint])
        self.hasDataChannel = hasDataChannel
        random = SeededGenerator(seed: UInt64(number) &+ 1)
        nextCheck = now
    }

    /// Everything that was negotiated is there.
    public var isReady: Bool { hasMedia && (hasChannel || !hasDataChannel) }

    private var hasMedia: Bool {
        switch srtp {
        case .some: true
        case .none: false
        }
    }

    public var nextDeadline: Instant {
        var soonest = min(nextCheck, dtls.nextDeadline)
        switch sctp {
        case .some(let sctp): soonest = min(soonest, sctp.nextDeadline)
        case .none: break
        }
        return soonest
    }
}

// MARK: - In

extension LoadCaller {
    /// Takes one datagram, which is decrypted in place.
    public mutating func receive(_ datagram: inout MutableRawSpan, callers: borrowing LoadCallers, at now: Instant) {
        guard datagram.byteCount > 0 else { return }
        switch PacketClass(firstByte: datagram.byte(0)) {
        case .stun: receiveSTUN(datagram.bytes, callers, now)
        case .dtls:
            start(callers, now)
            _ = dtls.receive(datagram.bytes, at: now)
            settle(at: now)
        case .srtp: receiveMedia(&datagram)
        case nil: break
        }
    }

    private mutating func receiveSTUN(_ bytes: RawSpan, _ callers: borrowing LoadCallers, _ now: Instant) {
        guard let message = try? STUNMessage(parsing: bytes) else { return }
        switch message.messageClass {
        case .success where !isValid:
            isValid = true
            nextCheck = now + Self.checkInterval
            start(callers, now)
        case .request: checkToAnswer = message.transactionID
        default: break
        }
    }

    private mutating func start(_ callers: borrowing LoadCallers, _ now: Instant) {
        if isValid, !dtls.isStarted { dtls.start(context: callers.context, at: now) }
    }

    private mutating func receiveMedia(_ datagram: inout MutableRawSpan) {
        let count = datagram.byteCount
        guard hasMedia, count > 12, !isRTCP(datagram.bytes) else { return }
        if (try? srtp?.unprotectRTP(&datagram, length: count)) != nil { heard += 1 }
    }

    private mutating func settle(at now: Instant) {
        while let event = dtls.nextEvent() {
            switch event {
            case .established(let keys): establish(keys, at: now)
            case .closed, .failed: hasFailed = true
            }
        }
        converse(at: now)
    }

    private mutating func establish(_ keys: DTLSKeyingMaterial, at now: Instant) {
        guard let profile = SRTPProfile(rawValue: keys.profile.rawValue) else { return }
        srtp = try? SRTPContext(
            profile: profile, local: SRTPMasterKey(key: keys.localKey, salt: keys.localSalt),
            remote: SRTPMasterKey(key: keys.remoteKey, salt: keys.remoteSalt), engine: .own)
        guard hasDataChannel else { return }
        sctp = SCTPAssociation(
            peerMaxMessageSize: 262_144, isClientOfDTLS: isDTLSClient, seed: random.next(), mtu: DTLSAssociation.applicationDataSizeMax,
            at: now)
        _ = sctp?.openChannel(label: "oai-events", isOrdered: true)
    }

    private mutating func converse(at now: Instant) {
        guard hasDataChannel, hasMedia else { return }
        var packet = ByteSlab(count: 1, slotSize: DTLSAssociation.datagramSizeMax)
        while true {
            let length = packet.write(0, 0..<DTLSAssociation.datagramSizeMax) { _ = dtls.nextApplicationData(into: &$0) }
            guard length > 0 else { break }
            _ = sctp?.receive(packet.bytes(0, length), at: now)
        }
        while let event = sctp?.nextEvent() {
            switch event {
            case .channelOpened: hasChannel = true
            case .message:
                _ = sctp?.takeMessage()
                events += 1
            case .closed, .failed: hasFailed = true
            case .established, .channelClosed: break
            }
        }
        while true {
            var wrote = false
            let length = packet.write(0, 0..<DTLSAssociation.applicationDataSizeMax) {
                wrote = sctp?.nextTransmit(into: &$0, at: now) ?? false
            }
            guard wrote, dtls.send(packet.bytes(0, length)) else { return }
        }
    }

    public mutating func advance(to now: Instant) {
        dtls.advance(to: now)
        sctp?.advance(to: now)
        settle(at: now)
    }
}

// MARK: - Out

extension LoadCaller {
    /// Appends the next datagram of checks, handshake and channel; false when there is none.
    public mutating func nextTransmit(into packet: inout OutputRawSpan, at now: Instant) -> Bool {
        if let id = checkToAnswer.take() {
            let key = Array(local.password.utf8)
            var writer = STUNWriter(.success, id, to: &packet)
            writer.append(xorMappedAddress: relay, to: &packet)
            return writer.finish(key: key.span.bytes, to: &packet)
        }
        if now >= nextCheck { return check(&packet, at: now) }
        return dtls.nextTransmit(into: &packet)
    }

    private mutating func check(_ packet: inout OutputRawSpan, at now: Instant) -> Bool {
        nextCheck = now + (isValid ? Self.checkInterval : Self.checkIntervalAtFirst)
        let id = STUNTransactionID(high: UInt32(truncatingIfNeeded: random.next()), low: random.next())
        let ours = Array(local.ufrag.utf8)
        var writer = STUNWriter(.request, id, to: &packet)
        writer.append(usernameFor: remoteUfrag.span.bytes, from: ours.span.bytes, to: &packet)
        writer.append(priority: 0x6E00_1EFF, to: &packet)
        writer.append(iceControlling: 7, to: &packet)
        writer.appendUseCandidate(to: &packet)
        return writer.finish(key: remotePassword.span.bytes, to: &packet)
    }

    /// Makes an SRTP packet of one Opus packet, with the transport-wide sequence number that Chromium sends; its length, 0 without keys.
    public mutating func say(_ opus: RawSpan, into packet: inout MutableRawSpan) -> Int {
        guard hasMedia, packet.byteCount >= 20 + opus.byteCount + 16 else { return 0 }
        packet.set(UInt16(0x9000 | UInt16(Self.opusPayloadType)), at: 0)
        packet.set(sequence, at: 2)
        packet.set(timestamp, at: 4)
        packet.set(ssrc, at: 8)
        // RFC 8285 §4.2: one element of two bytes, then padding.
        packet.set(UInt32(0xBEDE_0001), at: 12)
        packet.set(UInt8(Self.transportSequenceExtension << 4 | 1), at: 16)
        packet.set(sequence, at: 17)
        packet.set(UInt8(0), at: 19)
        packet.copy(opus, to: 20)
        sequence &+= 1
        timestamp &+= Self.samplesPerFrame
        guard let length = try? srtp?.protectRTP(&packet, length: 20 + opus.byteCount) else { return 0 }
        said += 1
        return length
    }
}

/// What Chromium offers for one microphone and, if wanted, a data channel.
private func loadOffer(_ credentials: ICECredentials, fingerprint: DTLSFingerprint, ssrc: UInt32, hasDataChannel: Bool) -> String {
    let transport = [
        "a=ice-ufrag:\(credentials.ufrag)", "a=ice-pwd:\(credentials.password)", "a=ice-options:trickle",
        "a=fingerprint:\(fingerprint.sdpText)", "a=setup:actpass",
    ]
    let extensions = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
    var lines = [
        "v=0", "o=- 5039663267870556053 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0" + (hasDataChannel ? " 1" : ""),
        "a=extmap-allow-mixed", "a=msid-semantic: WMS stream", "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126",
        "c=IN IP4 0.0.0.0", "a=rtcp:9 IN IP4 0.0.0.0",
    ]
    lines += transport
    lines += [
        "a=mid:0", "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "a=extmap:3 \(extensions)",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid", "a=sendrecv", "a=msid:stream track", "a=rtcp-mux", "a=rtcp-rsize",
        "a=rtpmap:111 opus/48000/2", "a=rtcp-fb:111 transport-cc", "a=fmtp:111 minptime=10;useinbandfec=1", "a=rtpmap:63 red/48000/2",
        "a=fmtp:63 111/111", "a=rtpmap:9 G722/8000", "a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000", "a=rtpmap:13 CN/8000",
        "a=rtpmap:110 telephone-event/48000", "a=rtpmap:126 telephone-event/8000", "a=ssrc:\(ssrc) cname:loadcaller",
        "a=ssrc:\(ssrc) msid:stream track",
    ]
    if hasDataChannel {
        lines += ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0"]
        lines += transport
        lines += ["a=mid:1", "a=sctp-port:5000", "a=max-message-size:262144"]
    }
    return lines.map { $0 + "\r\n" }.joined()
}
