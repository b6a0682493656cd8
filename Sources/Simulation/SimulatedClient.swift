// A WebRTC client small enough to read: full ICE agent with one candidate pair, DTLS, SRTP, and a voice that counts.

import Crypto
import DTLS
import ICE
import Primitives
import RTP
import SRTP
import STUN

/// What a client reads out of an answer.
struct AnswerFacts {
    var ufrag = ""
    var password = ""
    var fingerprint: DTLSFingerprint
    var weAreDTLSClient = false
    var relay: SocketAddress

    init?(_ sdp: String) {
        var fingerprint: DTLSFingerprint?
        var relay: SocketAddress?
        for line in sdp.split(whereSeparator: \.isNewline) {
            if line.hasPrefix("a=ice-ufrag:") { ufrag = String(line.dropFirst(12)) }
            if line.hasPrefix("a=ice-pwd:") { password = String(line.dropFirst(10)) }
            if line.hasPrefix("a=setup:passive") { weAreDTLSClient = true }
            if line.hasPrefix("a=fingerprint:sha-256 ") {
                let digits = line.dropFirst(22).filter { $0 != ":" }
                fingerprint = bytes(hex: digits).map { DTLSFingerprint(algorithm: .sha256, bytes: $0) }
            }
            if line.hasPrefix("a=candidate:") {
                let words = line.split(separator: " ")
                if words.count > 5, let ip = IPAddress(String(words[4])), let port = UInt16(words[5]) {
                    relay = SocketAddress(ip, port: port)
                }
            }
        }
        guard let fingerprint, let relay else { return nil }
        self.fingerprint = fingerprint
        self.relay = relay
    }
}

struct SimulatedClient: ~Copyable {
    let address: SocketAddress
    let ufrag: String
    let password: String
    private let answer: AnswerFacts
    private let context: DTLSContext
    private var dtls: DTLSAssociation
    private var srtp: SRTPContext?
    private var random: SeededGenerator
    private var nextCheck: Instant
    private var nextFrame = Instant.never
    private var sequence: UInt16 = 100
    private var frame: UInt32 = 0
    private let framesMax: UInt32
    private var isValid = false
    private(set) var connectedAt: Instant?
    private(set) var heardGoodbye = false
    /// The numbers of the frames that came back, in order of arrival.
    private(set) var echoes: [UInt32] = []
    private(set) var sentFrames: UInt32 = 0
    private(set) var refusedPackets = 0

    static let ssrc: UInt32 = 0x1234_5678
    static let frameInterval = Interval.milliseconds(20)

    init(
        address: SocketAddress, ufrag: String, password: String, certificate: DTLSCertificate, answer: AnswerFacts, frames: UInt32,
        seed: UInt64,
        at now: Instant
    ) throws {
        let context = try DTLSContext(certificate: certificate)
        self.context = context
        self.address = address
        self.ufrag = ufrag
        self.password = password
        self.answer = answer
        dtls = DTLSAssociation(role: answer.weAreDTLSClient ? .client : .server, fingerprints: [answer.fingerprint])
        random = SeededGenerator(seed: seed)
        nextCheck = now
        framesMax = frames
    }

    var nextDeadline: Instant { min(nextCheck, nextFrame, dtls.nextDeadline) }
}

extension SimulatedClient {
    mutating func receive(_ datagram: [UInt8], at now: Instant) {
        guard let first = datagram.first else { return }
        switch PacketClass(firstByte: first) {
        case .stun: receiveSTUN(datagram.span.bytes, at: now)
        case .dtls:
            startDTLS(at: now)
            _ = dtls.receive(datagram.span.bytes, at: now)
            settle(at: now)
        case .srtp: receiveMedia(datagram)
        case nil: refusedPackets += 1
        }
    }

    private mutating func receiveSTUN(_ bytes: RawSpan, at now: Instant) {
        guard let message = try? STUNMessage(parsing: bytes) else { return }
        let key = Array(answer.password.utf8)
        guard message.messageClass == .success, message.verifiesIntegrity(key: key.span.bytes) else {
            refusedPackets += 1
            return
        }
        isValid = true
        startDTLS(at: now)
    }

    private mutating func startDTLS(at now: Instant) {
        guard isValid, !dtls.isStarted else { return }
        dtls.start(context: context, at: now)
    }

    private mutating func receiveMedia(_ datagram: [UInt8]) {
        guard srtp != nil else { return }
        var copy = datagram
        let isRTCP = copy.count > 1 && (192...223).contains(copy[1])
        var span = copy.mutableSpan
        var bytes = span.mutableBytes
        let count = bytes.byteCount
        do {
            let length = isRTCP ? try srtp!.unprotectRTCP(&bytes, length: count) : try srtp!.unprotectRTP(&bytes, length: count)
            hear(copy, length, isRTCP)
        } catch { refusedPackets += 1 }
    }

    private mutating func hear(_ packet: [UInt8], _ length: Int, _ isRTCP: Bool) {
        let plain = packet.span.bytes.bytes(0..<length)
        if isRTCP {
            guard var reader = try? RTCPReader(parsing: plain) else { return }
            while let item = reader.next() { if case .bye = item { heardGoodbye = true } }
        } else if let header = try? RTPHeader(parsing: plain), header.payload.count >= 4 {
            echoes.append(plain.u32(header.payload.lowerBound))
        }
    }

    private mutating func settle(at now: Instant) {
        while let event = dtls.nextEvent() {
            switch event {
            case .established(let keys):
                guard let profile = SRTPProfile(rawValue: keys.profile.rawValue) else { continue }
                srtp = try? SRTPContext(
                    profile: profile, local: SRTPMasterKey(key: keys.localKey, salt: keys.localSalt),
                    remote: SRTPMasterKey(key: keys.remoteKey, salt: keys.remoteSalt), engine: .own)
                connectedAt = now
                nextFrame = now
            case .closed: heardGoodbye = true
            case .failed: connectedAt = nil
            }
        }
    }

    mutating func advance(to now: Instant) {
        dtls.advance(to: now)
        settle(at: now)
    }

    /// The next datagram for the relay; nil when there is none at `now`.
    mutating func nextTransmit(at now: Instant) -> [UInt8]? {
        if now >= nextCheck {
            // Fast until an answer has come, then a check now and then for consent.
            nextCheck = now + (isValid ? .milliseconds(2500) : .milliseconds(50))
            return check()
        }
        if let bytes = Self.written({ dtls.nextTransmit(into: &$0) }) { return bytes }
        guard now >= nextFrame, srtp != nil else { return nil }
        guard frame < framesMax else {
            nextFrame = .never
            return nil
        }
        nextFrame = nextFrame + Self.frameInterval
        return voice()
    }

    private mutating func check() -> [UInt8]? {
        let id = STUNTransactionID(high: UInt32(truncatingIfNeeded: random.next()), low: random.next())
        let ours = Array(ufrag.utf8)
        let theirs = Array(answer.ufrag.utf8)
        let key = Array(answer.password.utf8)
        return Self.written { packet in
            var writer = STUNWriter(.request, id, to: &packet)
            writer.append(usernameFor: theirs.span.bytes, from: ours.span.bytes, to: &packet)
            writer.append(priority: 0x6E00_1EFF, to: &packet)
            writer.append(iceControlling: 7, to: &packet)
            writer.appendUseCandidate(to: &packet)
            return writer.finish(key: key.span.bytes, to: &packet)
        }
    }

    /// One frame whose content is its number.
    private mutating func voice() -> [UInt8]? {
        var packet = [UInt8](repeating: 0, count: 128)
        var span = packet.mutableSpan
        var bytes = span.mutableBytes
        bytes.set(UInt8(0x80), at: 0)
        bytes.set(UInt8(111), at: 1)
        bytes.set(sequence, at: 2)
        bytes.set(frame &* 960, at: 4)
        bytes.set(Self.ssrc, at: 8)
        bytes.set(frame, at: 12)
        sequence &+= 1
        frame += 1
        sentFrames += 1
        guard let length = try? srtp!.protectRTP(&bytes, length: 72) else { return nil }
        return Array(packet[..<length])
    }

    private static func written(_ write: (inout OutputRawSpan) -> Bool) -> [UInt8]? {
        var storage = ByteSlab(count: 1, slotSize: 2048)
        var wrote = false
        let length = storage.write(0, 0..<2048) { wrote = write(&$0) }
        return wrote ? storage.bytes(0, length).array : nil
    }
}
