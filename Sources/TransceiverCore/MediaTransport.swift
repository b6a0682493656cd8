import Audio
import DTLS
import Primitives
import RTP
import SRTP

/// The protected media of one call: SRTP and SRTCP in both directions, one Opus stream each way, and the reports about them.
struct MediaTransport: ~Copyable {
    private var srtp: SRTPContext
    private let audio: AudioParameters?
    private var sender: RTPSendStream
    private var receiver: RTPReceiveStream?
    private var reports: RTCPScheduler
    /// The last SRTCP packet in the order of sending: its source, and its index.
    private var newestReport: (ssrc: UInt32, index: UInt32) = (0, 0)
    private let reportTrailerSize: Int
    /// nil where the client wants none.
    private var feedback = Box<TransportFeedback>()
    /// What the client's reports say of our stream.
    private(set) var roundTrip: Interval?
    private(set) var percentLost = 0
    /// Of 256, in the client's last report; nil before its first one.
    private(set) var lastLoss: UInt8?
    private var random: SeededGenerator
    private let clock: NTPClock
    /// No consent: nothing but ICE may leave (RFC 7675 §5.1).
    private var isPaused = false
    private var goodbye = Goodbye.none

    private enum Goodbye { case none, due, said }

    /// Keys are those that DTLS has just exported. Throws when libcrypto or libsrtp2 refuses them.
    init(
        keys: DTLSKeyingMaterial, engine: SRTPEngine, audio: AudioParameters?, clock: NTPClock, seed: UInt64, at now: Instant
    ) throws(SRTPError) {
        guard let profile = SRTPProfile(rawValue: keys.profile.rawValue) else { throw .rejectedKey }
        srtp = try SRTPContext(
            profile: profile, local: SRTPMasterKey(key: keys.localKey, salt: keys.localSalt),
            remote: SRTPMasterKey(key: keys.remoteKey, salt: keys.remoteSalt), engine: engine)
        // The index is the last field, before the tag where the tag is not part of the ciphertext (RFC 3711 §3.4, RFC 7714 §9.2).
        reportTrailerSize = profile == .aes128CMHMACSHA1_80 ? 14 : 4
        self.audio = audio
        if audio?.transportSequenceExtension != nil { feedback = Box(TransportFeedback()) }
        self.clock = clock
        random = SeededGenerator(seed: seed)
        // The top bit stays clear: a stream that begins near the wrap makes the first loss an ambiguity of the roll-over counter.
        let firstSequence = UInt16(truncatingIfNeeded: random.next()) & 0x7FFF
        sender = RTPSendStream(
            ssrc: audio?.ssrc ?? 1, payloadType: audio?.opusPayloadType ?? 0, clockRate: Self.clockRate, firstSequence: firstSequence,
            firstTimestamp: UInt32(truncatingIfNeeded: random.next()))
        reports = RTCPScheduler(startingAt: now, random: &random)
    }

    /// Opus counts at 48 kHz, whatever it carries (RFC 7587 §4.1).
    static let clockRate: UInt32 = 48_000
    /// Room that any profile may need behind a packet.
    static let overheadMax = 48
}

// MARK: - In

extension MediaTransport {
    /// What a protected datagram turned out to be.
    enum Heard {
        case refused(SessionDropReason)
        /// Authentic RTCP; `goodbye`: it had a BYE of the stream that we hear.
        case control(goodbye: Bool, isNewest: Bool)
        /// Authentic RTP that is not for us: another payload type, or a direction that was not agreed.
        case ignored(SessionDropReason)
        case audio(RTPHeader, sequence: Int64, isRedundant: Bool, isNewest: Bool)
    }

    /// Decrypts `datagram` in place and reads it. For `.audio` the header's payload range lies in `datagram`, and `sequence` is its number
    /// without wrapping; `isNewest`: nothing later was sent, as far as we know.
    mutating func receive(_ datagram: inout MutableRawSpan, at now: Instant) -> Heard {
        guard datagram.byteCount >= 12 else { return .refused(.rtpMalformed) }
        return isRTCP(datagram.bytes) ? receiveRTCP(&datagram, at: now) : receiveRTP(&datagram, at: now)
    }

    private mutating func receiveRTP(_ datagram: inout MutableRawSpan, at now: Instant) -> Heard {
        let length: Int
        do { length = try srtp.unprotectRTP(&datagram, length: datagram.byteCount) } catch { return .refused(Self.reason(error)) }
        guard let header = try? RTPHeader(parsing: datagram.bytes.bytes(0..<length)) else { return .ignored(.rtpMalformed) }
        noteArrival(header, datagram.bytes, at: now)
        guard let audio, audio.mayReceive else { return .ignored(.unknownPayloadType) }
        let isRedundant = header.payloadType == audio.redPayloadType
        guard isRedundant || header.payloadType == audio.opusPayloadType else { return .ignored(.unknownPayloadType) }
        // Whoever has the key may change the source whenever it likes; browsers do on replaceTrack and after a restart.
        if receiver?.ssrc != header.ssrc { receiver = RTPReceiveStream(ssrc: header.ssrc, clockRate: Self.clockRate) }
        let verdict = receiver?.note(header, at: now)
        let isNewest = verdict == .newer || verdict == .first || verdict == .restarted
        return .audio(header, sequence: receiver?.extended(header.sequenceNumber) ?? 0, isRedundant: isRedundant, isNewest: isNewest)
    }

    /// Of every authentic packet, whatever is in it: feedback is about the path.
    private mutating func noteArrival(_ header: RTPHeader, _ packet: RawSpan, at now: Instant) {
        guard !feedback.isEmpty, let id = audio?.transportSequenceExtension, let range = header.extensions.value(id: id, in: packet),
            range.count == 2
        else { return }
        feedback.value.note(packet.u16(range.lowerBound), at: now)
    }

    private mutating func receiveRTCP(_ datagram: inout MutableRawSpan, at now: Instant) -> Heard {
        let index = datagram.bytes.u32(max(0, datagram.byteCount &- reportTrailerSize)) & 0x7FFF_FFFF
        let length: Int
        do { length = try srtp.unprotectRTCP(&datagram, length: datagram.byteCount) } catch { return .refused(Self.reason(error)) }
        let plain = datagram.bytes.bytes(0..<length)
        guard var reader = try? RTCPReader(parsing: plain) else { return .ignored(.rtcpMalformed) }
        let ssrc = plain.byteCount >= 8 ? plain.u32(4) : 0
        let isNewest = ssrc != newestReport.ssrc || index > newestReport.index
        if isNewest { newestReport = (ssrc, index) }
        var goodbye = false
        while let item = reader.next() {
            switch item {
            case .senderReport(let ssrc, let info): if ssrc == receiver?.ssrc { receiver?.noteSenderReport(info, at: now) }
            case .reportBlock(_, let block): if block.ssrc == sender.ssrc { hear(block, at: now) }
            case .bye(let ssrc): if ssrc == receiver?.ssrc { goodbye = true }
            default: break
            }
        }
        return .control(goodbye: goodbye, isNewest: isNewest)
    }

    private mutating func hear(_ block: RTCPReportBlock, at now: Instant) {
        if let interval = reports.note(block, at: clock.time(at: now)) { roundTrip = interval }
        lastLoss = block.fractionLost
        percentLost = Int(block.fractionLost) * 100 / 256
    }

    private static func reason(_ error: SRTPError) -> SessionDropReason {
        switch error {
        case .replayed, .tooOld: .srtpReplayed
        case .authentication: .srtpNotAuthentic
        case .tooManyStreams: .srtpTooManyStreams
        default: .srtpRefused
        }
    }
}

// MARK: - Out

extension MediaTransport {
    mutating func pause() { isPaused = true }
    mutating func resume() { isPaused = false }

    /// The next `nextReport` says BYE, and nothing leaves after it.
    mutating func sayGoodbye() { if goodbye == .none { goodbye = .due } }

    /// Whether audio may leave now.
    var maySend: Bool { !isPaused && goodbye == .none && (audio?.maySend ?? false) }

    /// Makes an SRTP packet of the frame that `packet` holds behind `RTPHeader.fixedSize` bytes of room; false and an empty packet when it
    /// may not leave.
    /// - Parameter isRedundant: the frame is RFC 2198's, and RED was negotiated.
    mutating func protect(
        timestamp: UInt32, startsTalkspurt: Bool, isRedundant: Bool = false, in packet: inout OutputRawSpan, at now: Instant
    ) -> Bool {
        guard maySend, packet.byteCount > RTPHeader.fixedSize, packet.freeCapacity >= Self.overheadMax else { return Self.clear(&packet) }
        let length = packet.byteCount
        packet.append(zeros: Self.overheadMax)
        var bytes = packet.mutableBytes
        guard sender.writeHeader(into: &bytes, length: length, timestamp: timestamp, marker: startsTalkspurt, at: now) else {
            return Self.clear(&packet)
        }
        if isRedundant, let type = audio?.redPayloadType { bytes.set((startsTalkspurt ? 0x80 : 0) | type, at: 1) }
        guard let protected = try? srtp.protectRTP(&bytes, length: length) else { return Self.clear(&packet) }
        packet.removeLast(packet.byteCount - protected)
        return true
    }

    /// Writes the report, or goodbye, that is due at `now`; false when none is.
    mutating func nextReport(into packet: inout OutputRawSpan, at now: Instant) -> Bool {
        guard goodbye == .due || reports.due <= now else { return false }
        return writeReport(into: &packet, at: now)
    }

    @inline(never)
    private mutating func writeReport(into packet: inout OutputRawSpan, at now: Instant) -> Bool {
        guard let audio, !isPaused, takeDue(at: now) else { return false }
        let isLast = goodbye == .due
        if isLast { goodbye = .said }
        let writer = RTCPWriter(ssrc: audio.ssrc, name: audio.cname)
        let info = sender.senderInfo(at: now, wall: clock.time(at: now))
        guard writer.writeCompound(sender: info, block: receiver?.reportBlock(at: now), bye: isLast, to: &packet) else { return false }
        return protectRTCP(&packet)
    }

    private mutating func protectRTCP(_ packet: inout OutputRawSpan) -> Bool {
        let length = packet.byteCount
        guard packet.freeCapacity >= Self.overheadMax else { return Self.clear(&packet) }
        packet.append(zeros: Self.overheadMax)
        var bytes = packet.mutableBytes
        guard let protected = try? srtp.protectRTCP(&bytes, length: length) else { return Self.clear(&packet) }
        packet.removeLast(packet.byteCount - protected)
        return true
    }

    /// Writes the feedback about arrivals that is due at `now`; false when none is.
    mutating func nextFeedback(into packet: inout OutputRawSpan, at now: Instant) -> Bool {
        guard !feedback.isEmpty, feedback.value.due <= now else { return false }
        return writeFeedback(into: &packet, at: now)
    }

    @inline(never)
    private mutating func writeFeedback(into packet: inout OutputRawSpan, at now: Instant) -> Bool {
        guard let audio, !isPaused, goodbye == .none, beginFeedback(audio, &packet, at: now) else { return false }
        guard feedback.value.write(sender: audio.ssrc, media: receiver?.ssrc ?? 0, into: &packet, at: now) else {
            return Self.clear(&packet)
        }
        return protectRTCP(&packet)
    }

    /// Writes a request for lost packets; false when it may not leave.
    mutating func ask(for request: RetransmissionRequest, into packet: inout OutputRawSpan, at now: Instant) -> Bool {
        guard let audio, let media = receiver?.ssrc, !isPaused, goodbye == .none, beginFeedback(audio, &packet, at: now) else {
            return false
        }
        let writer = RTCPWriter(ssrc: audio.ssrc, name: audio.cname)
        guard writer.writeNACK(media: media, packet: request.packet, following: request.following, to: &packet) else {
            return Self.clear(&packet)
        }
        return protectRTCP(&packet)
    }

    /// What a feedback packet must follow, unless both sides agreed that it may stand alone (RFC 4585 §3.1, RFC 5506).
    private mutating func beginFeedback(_ audio: AudioParameters, _ packet: inout OutputRawSpan, at now: Instant) -> Bool {
        if audio.reducedSizeRTCP { return true }
        return RTCPWriter(ssrc: audio.ssrc, name: audio.cname).writeCompound(sender: nil, block: nil, to: &packet)
    }

    private mutating func takeDue(at now: Instant) -> Bool {
        switch goodbye {
        case .due: true
        case .said: false
        case .none: reports.takeDue(at: now, random: &random)
        }
    }

    private static func clear(_ packet: inout OutputRawSpan) -> Bool {
        packet.removeAll()
        return false
    }

    var nextDeadline: Instant {
        mutating get {
            guard goodbye == .none, audio != nil, !isPaused else { return .never }
            return feedback.isEmpty ? reports.due : min(reports.due, feedback.value.due)
        }
    }
}
