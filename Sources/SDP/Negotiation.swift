// What becomes of an offer: which sections are taken, in which DTLS role, against whose certificate.

import Primitives

/// What this server puts into an answer.
public struct AnswerSettings: Sendable {
    /// Our ICE user name fragment, 4...32 ice-chars: the routing hint.
    public var ufrag: String
    /// Our ICE password, 22...256 ice-chars.
    public var password: String
    /// `sha-256 AA:BB:…`: the hash of our certificate, as `a=fingerprint` has it.
    public var fingerprint: String
    /// The addresses of relays that the client can reach, the preferred first: one host candidate each, over UDP or, for an `overTCP`
    /// address, over TCP.
    public var candidates: [SocketAddress]
    /// The source of the audio we send.
    public var ssrc: UInt32
    /// Our RTCP canonical name, also the name of our media stream: a token.
    public var cname: String
    /// Goes into the `o=` line, without its top bit (RFC 8829 §5.2.1).
    public var sessionID: UInt64
    /// Our SCTP INIT chunk, which answers that of an offer; without one SCTP shakes hands by itself. Said only to who said theirs: a
    /// client that reads it skips its INIT.
    public var sctpInit: [UInt8]?
    /// The role we take where the offer leaves it to us: `.active` saves the client's two-datagram ClientHello half a round trip.
    public var setup: SDPSetup

    public init(
        ufrag: String, password: String, fingerprint: String, candidates: [SocketAddress], ssrc: UInt32, cname: String, sessionID: UInt64,
        setup: SDPSetup = .active
    ) {
        self.ufrag = ufrag
        self.password = password
        self.fingerprint = fingerprint
        self.candidates = candidates
        self.ssrc = ssrc
        self.cname = cname
        self.sessionID = sessionID
        self.setup = setup
    }
}

/// The answer to an offer, and what it means for the session.
public struct Negotiation: Sendable, Equatable {
    /// The whole answer: CRLF, a line end after the last line.
    public var answer: String
    /// The peer's ICE user name fragment: the second half of the USERNAME of its checks.
    public var iceUfrag: String
    /// The peer's ICE password: the key of checks that we send.
    public var icePassword: String
    /// The peer's certificate must match one of these; never empty.
    public var fingerprints: [SDPFingerprint]
    /// We answered `a=setup:active`: the first DTLS flight is ours.
    public var weAreDTLSClient: Bool
    /// Nil where no audio section was accepted.
    public var audio: NegotiatedAudio?
    /// Nil where no data channel section was accepted.
    public var dataChannel: NegotiatedDataChannel?
    /// Every section that is not used, by its index in the offer: for the log. Answered as inactive where it is RTP of the same BUNDLE group,
    /// with port 0 elsewhere.
    public var rejected: [RejectedSection]
}

/// One Opus stream each way.
public struct NegotiatedAudio: Sendable, Equatable {
    /// As offered, both ways: 0...63 or 96...127.
    public var opusPayloadType: UInt8
    /// The client's `a=fmtp` for Opus: what it likes to receive; empty without one.
    public var opusParameters: String
    /// The client wants to hear us.
    public var maySend: Bool
    /// The client sends.
    public var mayReceive: Bool
    /// The section's mid; nil where the offer has none.
    public var mid: String?
    /// Of `telephone-event/48000`, the clock of Opus (RFC 7160 warns of others in one stream); nil where it is not offered.
    public var telephoneEventPayloadType: UInt8?
    /// 1...14: the header extension with the section's mid (RFC 8843 §15).
    public var midExtension: UInt8?
    /// 1...14: the header extension with the client's audio level (RFC 6464).
    public var audioLevelExtension: UInt8?
    /// Of `red/48000/2` around this Opus (RFC 2198): either side may send it.
    public var redPayloadType: UInt8?
    /// The client sends lost packets again when it is asked to (RFC 4585).
    public var retransmits: Bool
    /// 1...14: the header extension with transport-wide sequence numbers, about which the client wants feedback; nil where it does not.
    public var transportSequenceExtension: UInt8?
    /// `a=rtcp-rsize` on both sides: RTCP need not be compound.
    public var reducedSizeRTCP: Bool
    /// The source the client announced; nil where it did not.
    public var peerSSRC: UInt32?
}

/// SCTP over DTLS (RFC 8841).
public struct NegotiatedDataChannel: Sendable, Equatable {
    public var mid: String?
    /// 1...65535; 5000 where the offer does not say.
    public var peerSCTPPort: UInt16
    /// Bytes of the largest message the peer takes; `Int.max` for any.
    public var peerMaxMessageSize: Int
    /// The peer's INIT chunk, where ours was answered: neither side sends one. Its sender is whoever wrote the offer: not trusted.
    public var peerInit: [UInt8]?

    public init(mid: String?, peerSCTPPort: UInt16, peerMaxMessageSize: Int) {
        self.mid = mid
        self.peerSCTPPort = peerSCTPPort
        self.peerMaxMessageSize = peerMaxMessageSize
    }
}

public struct RejectedSection: Sendable, Equatable {
    public var index: Int
    public var why: SDPRejection

    public init(index: Int, why: SDPRejection) {
        self.index = index
        self.why = why
    }
}

/// Decides about an offer and writes the answer. Throws what to change where no section can be accepted, or where an accepted one
/// lacks its ICE credentials or fingerprint.
public func negotiate(_ offer: SDPOffer, _ settings: AnswerSettings) throws(SDPError) -> Negotiation {
    assert((4...32).contains(settings.ufrag.utf8.count) && (22...256).contains(settings.password.utf8.count), "not ICE credentials")
    let verdicts = judgeSections(of: offer)
    guard let transportIndex = transportSection(of: offer, verdicts) else { throw nothingAccepted(offer, verdicts) }
    guard !offer.iceLite else { throw SDPError(.peerIsLite) }

    let section = offer.media[transportIndex]
    let peer = offer.transport(of: section)
    guard let ufrag = peer.ufrag else { throw SDPError(.noUfrag, line: section.line) }
    guard let password = peer.password else { throw SDPError(.noPassword, line: section.line) }
    guard !peer.fingerprints.isEmpty else { throw SDPError(.noFingerprint, line: section.line) }

    var negotiation = Negotiation(
        answer: "", iceUfrag: ufrag, icePassword: password, fingerprints: peer.fingerprints,
        weAreDTLSClient: weAreActive(peer.setup, settings.setup), rejected: [])
    for index in offer.media.indices {
        if let why = verdicts[index] {
            negotiation.rejected.append(RejectedSection(index: index, why: why))
        } else if offer.media[index].kind == "audio" {
            negotiation.audio = NegotiatedAudio(offer, offer.media[index])
        } else {
            negotiation.dataChannel = NegotiatedDataChannel(offer.media[index])
            if settings.sctpInit != nil { negotiation.dataChannel?.peerInit = offer.media[index].sctpInit }
        }
    }
    negotiation.answer = writeAnswer(offer, settings, negotiation, verdicts, transportIndex, peer)
    return negotiation
}

/// For each section, why it is refused; nil for those that are accepted, all of which share one transport.
private func judgeSections(of offer: SDPOffer) -> [SDPRejection?] {
    var verdicts = offer.media.map { judge($0, offer) }
    // Audio decides which transport the call gets; a data channel does where there is no audio.
    let anchor = offer.media.indices.first { verdicts[$0] == nil && offer.media[$0].kind == "audio" } ?? verdicts.firstIndex { $0 == nil }
    guard let anchor else { return verdicts }
    let group = offer.bundleGroup(of: offer.media[anchor])
    var taken = [offer.media[anchor].kind]
    for index in offer.media.indices where index != anchor && verdicts[index] == nil {
        let section = offer.media[index]
        if taken.contains(section.kind) {
            verdicts[index] = .anotherIsTaken
        } else if let group, offer.bundleGroup(of: section) == group {
            taken.append(section.kind)
        } else {
            verdicts[index] = .notBundled
        }
    }
    return verdicts
}

/// Why a section cannot be accepted, looked at alone.
private func judge(_ section: SDPMediaSection, _ offer: SDPOffer) -> SDPRejection? {
    guard section.port != 0 || section.bundleOnly && offer.bundleGroup(of: section) != nil else { return .disabledByOffer }
    switch section.kind {
    case "audio":
        guard rtpProtocols.contains(section.transportProtocol) else { return .unsupportedProtocol }
        guard section.opus != nil else { return .noOpus }
        return section.rtcpMux ? nil : .noRTCPMux
    case "application":
        if section.transportProtocol == "DTLS/SCTP" || section.hasSCTPMap { return .legacyDataChannel }
        guard dataProtocols.contains(section.transportProtocol) else { return .unsupportedProtocol }
        guard section.formats.contains("webrtc-datachannel") else { return .unsupportedKind }
        return section.sctpPort == 0 ? .sctpClosed : nil
    default:
        return .unsupportedKind
    }
}

/// RFC 8829 §5.1.2: an offer may name any of these and mean DTLS-SRTP; without a fingerprint it is refused anyway.
private let rtpProtocols = ["UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "TCP/DTLS/RTP/SAVPF", "TCP/DTLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP"]
private let dataProtocols = ["UDP/DTLS/SCTP", "TCP/DTLS/SCTP"]

/// The section whose ICE and DTLS attributes count: the first of the accepted ones' BUNDLE group.
///
/// Where that first section is itself not accepted, video for instance, the transport moves on to the first accepted one if it
/// must. If it can be, the section is kept instead, like all that can be: answered as inactive, within the group. libwebrtc with `max-bundle` has
/// one transport, drops it with the section it was offered in, and then fails to apply the answer; no offer says `max-bundle`.
private func transportSection(of offer: SDPOffer, _ verdicts: [SDPRejection?]) -> Int? {
    guard let first = verdicts.firstIndex(where: { $0 == nil }) else { return nil }
    let group = offer.bundleGroup(of: offer.media[first]) ?? []
    for mid in group {
        // A mid in two groups belongs to the first (RFC 8843 §7.1 forbids it).
        guard let index = offer.media.firstIndex(where: { $0.mid == mid }), offer.bundleGroup(of: offer.media[index]) == group else {
            continue
        }
        if verdicts[index] == nil || offer.media[index].canBeKept { return index }
    }
    return first
}

/// RFC 4145 §4.1, RFC 5763 §5. An offer without the attribute is active by default, so we are passive then, which also suits a
/// client that would have taken either.
private func weAreActive(_ offered: SDPSetup?, _ preferred: SDPSetup) -> Bool {
    switch offered {
    case .actpass: preferred == .active
    case .passive: true
    case .active, nil: false
    }
}

/// The refusal that helps most: of the first audio section, else of the first application section, else of the first.
private func nothingAccepted(_ offer: SDPOffer, _ verdicts: [SDPRejection?]) -> SDPError {
    let index = offer.media.firstIndex { $0.kind == "audio" } ?? offer.media.firstIndex { $0.kind == "application" } ?? 0
    guard offer.media.indices.contains(index), let why = verdicts[index] else { return SDPError(.noMediaSection) }
    return SDPError(.nothingAccepted(why), line: offer.media[index].line)
}

extension SDPMediaSection {
    /// The offer's preferred Opus whose payload type RTCP cannot be mistaken for (RFC 5761 §4, RFC 7587 §7).
    var opus: SDPCodec? { codec("opus", channels: 2) }

    /// Can be answered as inactive: RTP over our transport, and a codec to name in the `m=` line.
    var canBeKept: Bool {
        port != 0 && rtcpMux && !codecs.isEmpty && (kind == "audio" || kind == "video") && rtpProtocols.contains(transportProtocol)
    }

    func codec(_ name: String, channels: UInt8) -> SDPCodec? {
        codecs.first {
            Array($0.name.utf8)[...].equalsIgnoringCase(name) && $0.clockRate == 48_000 && $0.channels == channels
                && !(64...95).contains($0.payloadType)
        }
    }
}

extension NegotiatedAudio {
    init?(_ offer: SDPOffer, _ section: SDPMediaSection) {
        guard let opus = section.opus else { return nil }
        let direction = section.direction ?? offer.direction ?? .sendrecv
        opusPayloadType = opus.payloadType
        opusParameters = opus.parameters
        maySend = direction.receives
        mayReceive = direction.sends
        mid = section.mid
        telephoneEventPayloadType = section.codec("telephone-event", channels: 1)?.payloadType
        let extensions = section.extensions + offer.extensions
        midExtension = mid == nil ? nil : extensions.id(of: "urn:ietf:params:rtp-hdrext:sdes:mid")
        audioLevelExtension = extensions.id(of: "urn:ietf:params:rtp-hdrext:ssrc-audio-level")
        if audioLevelExtension == midExtension { audioLevelExtension = nil }
        redPayloadType =
            section.codecs.first {
                $0.name.lowercased() == "red" && $0.clockRate == 48_000 && $0.channels == 2
                    && $0.parameters.split(separator: "/").allSatisfy { $0 == String(opus.payloadType) } && !$0.parameters.isEmpty
            }?.payloadType
        retransmits = section.offersFeedback("nack", of: opus.payloadType)
        transportSequenceExtension =
            section.offersFeedback("transport-cc", of: opus.payloadType) ? extensions.id(of: transportSequenceURI) : nil
        if [midExtension, audioLevelExtension].contains(transportSequenceExtension) { transportSequenceExtension = nil }
        reducedSizeRTCP = section.rtcpReducedSize
        peerSSRC = section.sources.first?.ssrc
    }

    /// Our direction, from our view.
    var direction: SDPDirection {
        switch (maySend, mayReceive) {
        case (true, true): .sendrecv
        case (true, false): .sendonly
        case (false, true): .recvonly
        case (false, false): .inactive
        }
    }
}

let transportSequenceURI = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"

extension [SDPExtension] {
    /// An id that fits one-byte headers (RFC 8285 §4.2), of an extension that the offer would use both ways.
    fileprivate func id(of uri: String) -> UInt8? {
        first { $0.uri == uri && (1...14).contains($0.id) && $0.direction == .sendrecv }.map { UInt8(truncatingIfNeeded: $0.id) }
    }
}

extension NegotiatedDataChannel {
    init(_ section: SDPMediaSection) {
        mid = section.mid
        peerSCTPPort = section.sctpPort ?? 5_000
        switch section.maxMessageSize {
        case nil: peerMaxMessageSize = 65_536
        case 0: peerMaxMessageSize = .max
        case let size?: peerMaxMessageSize = Int(clamping: size)
        }
    }
}
