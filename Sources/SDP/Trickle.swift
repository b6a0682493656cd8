// Bodies of WHIP's PATCH: application/trickle-ice-sdpfrag (RFC 8840 §9, RFC 9725 §4.4).

import Primitives

/// What a client adds to its offer, or restarts ICE with.
public struct TrickleFragment: Sendable, Equatable {
    /// Nil where the fragment does not say. Another value than the session's is an ICE restart.
    public var ufrag: String?
    /// Comes with `ufrag` or not at all.
    public var password: String?
    /// Of all sections.
    public var candidates: [SDPCandidate]
    /// `a=end-of-candidates` stands somewhere in it.
    public var endOfCandidates: Bool

    public init(ufrag: String? = nil, password: String? = nil, candidates: [SDPCandidate] = [], endOfCandidates: Bool = false) {
        self.ufrag = ufrag
        self.password = password
        self.candidates = candidates
        self.endOfCandidates = endOfCandidates
    }
}

extension TrickleFragment {
    /// Reads a fragment: attributes of the session level and of pseudo m-lines are taken together, for all of a call is bundled.
    /// Unknown lines are passed over; the bounds are those of an offer.
    public init(parsing bytes: RawSpan, limits: SDPLimits = .standard) throws(SDPError) {
        self.init()
        let lines = try readLines(bytes, limits)
        guard let first = lines.first else { throw SDPError(.empty) }
        for line in lines {
            guard let (name, value) = line.attribute else { continue }
            switch name {
            case "candidate":
                if let candidate = SDPCandidate(value) { candidates.append(candidate) }
            case "end-of-candidates": endOfCandidates = true
            case "ice-ufrag":
                guard value.isICE(4...256) else { throw SDPError(.badUfrag, line: line.number) }
                if ufrag == nil { ufrag = value.string }
            case "ice-pwd":
                guard value.isICE(22...256) else { throw SDPError(.badPassword, line: line.number) }
                if password == nil { password = value.string }
            default: continue
            }
        }
        guard (ufrag == nil) == (password == nil) else { throw SDPError(.halfCredentials, line: first.number) }
    }

    /// The answer to an ICE restart: our new credentials and all our candidates, under a pseudo m-line with the mid of the section
    /// that carries the transport; nil where the offer had none.
    public static func answer(ufrag: String, password: String, candidates: [SocketAddress], mid: String?) -> String {
        var answer = AnswerText()
        answer.line("a=ice-lite")
        if let mid { answer.line("a=group:BUNDLE \(mid)") }
        answer.line("m=audio 9 RTP/AVP 0")
        if let mid { answer.line("a=mid:\(mid)") }
        answer.credentials(ufrag, password)
        answer.candidates(candidates)
        return answer.text
    }
}
