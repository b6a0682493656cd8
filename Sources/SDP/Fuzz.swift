// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import Primitives

/// Reading never traps; an offer that is answered gets an answer of the same shape, which reads back.
public func fuzzSDP(_ bytes: RawSpan) {
    fuzzFragment(bytes)
    guard let offer = try? SDPOffer(parsing: bytes), let negotiation = try? negotiate(offer, fuzzSettings) else { return }
    let text = Array(negotiation.answer.utf8)
    // Each section that is not used may grow by a c= line, a direction, and a transport.
    let limits = SDPLimits(bytes: SDPLimits.standard.bytes + 16_384)
    guard let answer = try? unsafe SDPOffer(parsing: text.span.bytes, limits: limits) else { fatalError("our answer does not read") }

    precondition(text.suffix(2).elementsEqual([0x0D, 0x0A]) && answer.iceLite && answer.media.count == offer.media.count)
    var accepted = 0
    var isCarried = false
    for (ours, theirs) in zip(answer.media, offer.media) {
        precondition(ours.kind == theirs.kind && ours.transportProtocol == theirs.transportProtocol && ours.mid == theirs.mid)
        if ours.port == 0 {
            precondition(ours.formats == theirs.formats && ours.candidates.isEmpty)
            continue
        }
        accepted += 1
        precondition(ours.formats.allSatisfy { theirs.formats.contains($0) }, "a format that was not offered")
        precondition(ours.transport.ufrag == fuzzSettings.ufrag && ours.transport.fingerprints.count == 1)
        precondition(ours.transport.setup == (negotiation.weAreDTLSClient ? .active : .passive))
        // The group's first section is the one whose role counts.
        if !ours.candidates.isEmpty, answer.bundleGroups.isEmpty || ours.mid == answer.bundleGroups[0].first {
            precondition(ours.transport.setup != theirs.transport.setup, "two clients or two servers")
            isCarried = true
        }
    }
    let used = (negotiation.audio == nil ? 0 : 1) + (negotiation.dataChannel == nil ? 0 : 1)
    precondition(used > 0 && accepted - used == answer.media.filter(\.isKept).count)
    let carrying = answer.media.filter { !$0.candidates.isEmpty }
    precondition(isCarried && carrying.count { !$0.isKept } <= 1, "candidates belong into one section that is used")
    precondition(accepted == 1 || answer.bundleGroups.count == 1 && answer.bundleGroups[0].count == accepted, "two transports")
    precondition(!negotiation.fingerprints.isEmpty && negotiation.rejected.count + used == offer.media.count)
}

extension SDPMediaSection {
    /// Of an answer: not used, but not refused either. Our audio has Opus even where nobody sends.
    fileprivate var isKept: Bool { port != 0 && direction == .inactive && !codecs.contains { $0.parameters.contains("useinbandfec=1") } }
}

private func fuzzFragment(_ bytes: RawSpan) {
    guard let fragment = try? TrickleFragment(parsing: bytes), let ufrag = fragment.ufrag, let password = fragment.password else { return }
    let text = Array(TrickleFragment.answer(ufrag: ufrag, password: password, candidates: fuzzSettings.candidates, mid: "0").utf8)
    guard let again = try? unsafe TrickleFragment(parsing: text.span.bytes) else { fatalError("our fragment does not read") }
    precondition(again.ufrag == ufrag && again.password == password && again.candidates.count == 2 && again.endOfCandidates)
}

private let fuzzSettings = AnswerSettings(
    ufrag: "AbCdEfGhIjKlMnOpQrStUvWxYz012345", password: "AbCdEfGhIjKlMnOpQrStUvWx",
    fingerprint: "sha-256 " + Array(repeating: "AB", count: 32).joined(separator: ":"),
    candidates: [
        SocketAddress(IPAddress(v4: 0xC000_0201), port: 3478),
        SocketAddress(IPAddress(high: 0x2001_0DB8_0000_0000, low: 1), port: 3478),
    ], ssrc: 1, cname: "fuzz", sessionID: .max)
