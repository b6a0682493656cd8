// The text of an answer. Nothing of an offer comes back but checked tokens: kinds, protocols, formats, mids, payload types, ids.

import Primitives

/// What we take in one message (RFC 8841 §6), bytes.
public let answeredMaxMessageSize = 262_144

func writeAnswer(
    _ offer: SDPOffer, _ settings: AnswerSettings, _ negotiation: Negotiation, _ verdicts: [SDPRejection?], _ transportIndex: Int,
    _ peer: SDPTransport
) -> String {
    var answer = AnswerText()
    answer.line("v=0")
    answer.line("o=- \(settings.sessionID & UInt64(Int64.max)) 2 IN IP4 127.0.0.1")
    answer.line("s=-")
    answer.line("t=0 0")
    let group = offer.bundleGroup(of: offer.media[transportIndex])
    // What is not used but can be kept, without a transport of its own: aiortc does not apply an answer with anything refused in it.
    let isAnswered = offer.media.indices.map { index in
        verdicts[index] == nil || index == transportIndex
            || group != nil && offer.media[index].canBeKept && offer.bundleGroup(of: offer.media[index]) == group
    }
    // In the order of the offer's group: its first accepted mid is the section that carries the transport.
    let mids = offer.media.indices.filter { isAnswered[$0] }.compactMap { offer.media[$0].mid }
    if let group {
        answer.line("a=group:BUNDLE \(group.uniqued.filter { mids.contains($0) }.joined(separator: " "))")
    }
    answer.line("a=ice-lite")
    answer.line("a=msid-semantic: WMS *")
    for index in offer.media.indices {
        let section = offer.media[index]
        guard isAnswered[index] else {
            answer.rejected(section)
            continue
        }
        let kept = verdicts[index] == nil ? nil : section.codecs.first
        let formats = kept.map { "\($0.payloadType)" } ?? negotiation.formats(for: section)
        answer.line("m=\(section.kind) 9 \(section.transportProtocol) \(formats)")
        answer.line("c=IN IP4 0.0.0.0")
        if let mid = section.mid { answer.line("a=mid:\(mid)") }
        answer.transport(settings, active: negotiation.weAreDTLSClient, offeredOptions: peer.iceOptions)
        if let kept {
            answer.inactive(kept)
        } else if section.kind == "audio", let audio = negotiation.audio {
            answer.audio(audio, settings)
        } else {
            answer.line("a=sctp-port:5000")
            answer.line("a=max-message-size:\(answeredMaxMessageSize)")
            if negotiation.dataChannel?.peerInit != nil, let ours = settings.sctpInit {
                answer.line("a=sctp-init:\(Base64.encode(ours))")
            }
        }
        // aiortc takes those of the last section of the kind of that which carries the transport.
        if index == transportIndex || kept != nil { answer.candidates(settings.candidates) }
    }
    return answer.text
}

/// Lines with their ends.
struct AnswerText {
    private(set) var text = ""

    init() { text.reserveCapacity(2_048) }

    mutating func line(_ line: String) {
        text += line
        text += "\r\n"
    }
}

extension AnswerText {
    /// The same m-line with port 0 (RFC 3264 §6).
    fileprivate mutating func rejected(_ section: SDPMediaSection) {
        line("m=\(section.kind) 0 \(section.transportProtocol) \(section.formats.joined(separator: " "))")
        line("c=IN IP4 0.0.0.0")
        if let mid = section.mid { line("a=mid:\(mid)") }
        if section.kind != "application" { line("a=inactive") }
    }

    /// In every accepted section, though one would do: older clients look for it in each.
    fileprivate mutating func transport(_ settings: AnswerSettings, active: Bool, offeredOptions: [String]) {
        credentials(settings.ufrag, settings.password)
        let options = ["trickle", "ice2"].filter { offeredOptions.contains($0) }
        if !options.isEmpty { line("a=ice-options:\(options.joined(separator: " "))") }
        line("a=fingerprint:\(settings.fingerprint)")
        line("a=setup:\(active ? SDPSetup.active.rawValue : SDPSetup.passive.rawValue)")
    }

    /// A section that only carries the transport: neither side sends in it.
    fileprivate mutating func inactive(_ codec: SDPCodec) {
        line("a=inactive")
        line("a=rtcp-mux")
        line("a=rtpmap:\(codec.payloadType) \(codec.name)/\(codec.clockRate)\(codec.channels > 1 ? "/\(codec.channels)" : "")")
    }

    fileprivate mutating func audio(_ audio: NegotiatedAudio, _ settings: AnswerSettings) {
        line("a=\(audio.direction.rawValue)")
        if let id = audio.midExtension { line("a=extmap:\(id) urn:ietf:params:rtp-hdrext:sdes:mid") }
        if let id = audio.audioLevelExtension { line("a=extmap:\(id) urn:ietf:params:rtp-hdrext:ssrc-audio-level") }
        if let id = audio.transportSequenceExtension { line("a=extmap:\(id) \(transportSequenceURI)") }
        line("a=rtcp-mux")
        if audio.reducedSizeRTCP { line("a=rtcp-rsize") }
        line("a=rtpmap:\(audio.opusPayloadType) opus/48000/2")
        line("a=fmtp:\(audio.opusPayloadType) minptime=10;useinbandfec=1")
        if audio.transportSequenceExtension != nil { line("a=rtcp-fb:\(audio.opusPayloadType) transport-cc") }
        if audio.retransmits { line("a=rtcp-fb:\(audio.opusPayloadType) nack") }
        if let red = audio.redPayloadType {
            line("a=rtpmap:\(red) red/48000/2")
            line("a=fmtp:\(red) \(audio.opusPayloadType)/\(audio.opusPayloadType)")
        }
        if let event = audio.telephoneEventPayloadType {
            line("a=rtpmap:\(event) telephone-event/48000")
            line("a=fmtp:\(event) 0-15")
        }
        guard audio.maySend else { return }
        line("a=msid:\(settings.cname) audio")
        line("a=ssrc:\(settings.ssrc) cname:\(settings.cname)")
        line("a=ssrc:\(settings.ssrc) msid:\(settings.cname) audio")
    }

    mutating func credentials(_ ufrag: String, _ password: String) {
        line("a=ice-ufrag:\(ufrag)")
        line("a=ice-pwd:\(password)")
    }

    /// All there will be.
    mutating func candidates(_ addresses: [SocketAddress]) {
        for candidate in SDPCandidate.hosts(addresses) { line("a=candidate:\(candidate)") }
        line("a=end-of-candidates")
    }
}

extension Negotiation {
    fileprivate func formats(for section: SDPMediaSection) -> String {
        guard section.kind == "audio", let audio else { return "webrtc-datachannel" }
        // Opus before RED: whoever takes the first sends no more than it must.
        return [audio.opusPayloadType, audio.redPayloadType, audio.telephoneEventPayloadType].compactMap { $0.map { "\($0)" } }
            .joined(separator: " ")
    }
}

extension [String] {
    fileprivate var uniqued: [String] {
        var seen: [String] = []
        for text in self where !seen.contains(text) { seen.append(text) }
        return seen
    }
}
