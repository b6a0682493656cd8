// What an offer may cost, and what is said to a client whose offer does not do.

/// Bounds that hold before any grammar is looked at. A count is the highest value that is still read.
public struct SDPLimits: Sendable, Equatable {
    /// Bytes of a whole description.
    public var bytes: Int
    /// Bytes of one line, without its end.
    public var line: Int
    /// Lines of a description, empty ones too.
    public var lines: Int
    /// `m=` lines.
    public var mediaSections: Int
    /// `a=candidate` lines of the whole description.
    public var candidates: Int
    /// Formats of one `m=` line: payload types are 7 bits.
    public var formats: Int
    /// Fingerprints of one section, and of the session level.
    public var fingerprints: Int

    public init(
        bytes: Int = 65_536, line: Int = 2_048, lines: Int = 4_096, mediaSections: Int = 16, candidates: Int = 100, formats: Int = 128,
        fingerprints: Int = 16
    ) {
        self.bytes = bytes
        self.line = line
        self.lines = lines
        self.mediaSections = mediaSections
        self.candidates = candidates
        self.formats = formats
        self.fingerprints = fingerprints
    }

    /// What signaling uses.
    public static let standard = SDPLimits()
}

/// Why an offer or a fragment is refused, and where. `message` is meant for the client's author.
public struct SDPError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The line it is about, from 1; 0 where it is about the whole.
    public var line: Int
    public var reason: SDPErrorReason

    public init(_ reason: SDPErrorReason, line: Int = 0) {
        self.line = line
        self.reason = reason
    }

    /// What is wrong and what to change, in one sentence, with the line's number where there is one.
    public var message: String { line > 0 ? "SDP line \(line): \(reason.advice)" : "SDP: \(reason.advice)" }
    public var description: String { message }
}

/// The kinds of refusal. A number is the limit that was passed.
public enum SDPErrorReason: Sendable, Equatable {
    // Bounds.
    case tooLong(limit: Int), lineTooLong(limit: Int), tooManyLines(limit: Int), tooManyMediaSections(limit: Int)
    case tooManyCandidates(limit: Int), tooManyFormats(limit: Int), tooManyFingerprints(limit: Int)
    // Grammar.
    case empty, json, notSDP, badByte, badLine, badMedia, badMid, duplicateMid, badUfrag, badPassword, badFingerprint, badSetup
    case badSCTPPort, badMaxMessageSize
    // What an offer must have for us to answer.
    case noMediaSection, noUfrag, noPassword, noFingerprint, peerIsLite, nothingAccepted(SDPRejection)
    // What an application/trickle-ice-sdpfrag must have.
    case halfCredentials
}

/// Why one media section is answered with port 0.
public enum SDPRejection: UInt8, Sendable, Equatable, CaseIterable {
    /// The offer itself has port 0, without `a=bundle-only`.
    case disabledByOffer
    /// Neither audio nor a data channel.
    case unsupportedKind
    /// An audio section whose profile is not RTP over DTLS-SRTP, an application section that is not SCTP over DTLS.
    case unsupportedProtocol
    /// No opus/48000/2 with a payload type outside 64...95.
    case noOpus
    /// No `a=rtcp-mux`.
    case noRTCPMux
    /// Data channels in the syntax before RFC 8841: `DTLS/SCTP 5000` with `a=sctpmap`.
    case legacyDataChannel
    /// `a=sctp-port:0`: the offer closes the association.
    case sctpClosed
    /// An acceptable section of this kind stands before it.
    case anotherIsTaken
    /// Acceptable, but not in the BUNDLE group of the accepted one: a call has one transport.
    case notBundled
}

extension SDPErrorReason {
    /// The sentence of `SDPError.message`, without the place.
    var advice: String {
        switch self {
        case .tooLong(let limit): "longer than \(limit) bytes; offer fewer media sections, codecs or candidates"
        case .lineTooLong(let limit): "longer than \(limit) bytes; no attribute needs as much"
        case .tooManyLines(let limit): "more than \(limit) lines; offer fewer media sections or codecs"
        case .tooManyMediaSections(let limit): "more than \(limit) m= lines; offer one audio section and at most one data channel section"
        case .tooManyCandidates(let limit): "more than \(limit) candidates; send the offer without candidates, they are not needed"
        case .tooManyFormats(let limit): "more than \(limit) formats in one m= line; offer fewer codecs"
        case .tooManyFingerprints(let limit): "more than \(limit) fingerprints in one section; one sha-256 fingerprint does"
        case .empty: "the body is empty; send the SDP offer as it comes from createOffer or localDescription.sdp"
        case .json: "the body is JSON; send the text of its sdp member alone, as application/sdp"
        case .notSDP: "not an SDP offer: the first line must be exactly v=0, and line ends must be real CRLF or LF, not escaped ones"
        case .badByte: "a NUL or a carriage return inside a line; lines end with CRLF or LF"
        case .badLine: "not of the form x=value"
        case .badMedia: "must read m=<media> <port> <protocol> <format> …, with a port of 0...65535"
        case .badMid: "a=mid must be one token"
        case .duplicateMid: "this a=mid is already another section's; each needs its own"
        case .badUfrag: "a=ice-ufrag must be 4 to 256 of A-Z a-z 0-9 + /"
        case .badPassword: "a=ice-pwd must be 22 to 256 of A-Z a-z 0-9 + /"
        case .badFingerprint: "a=fingerprint must be a hash name and as many hexadecimal pairs as the hash has bytes, joined by colons"
        case .badSetup: "a=setup must be actpass, active or passive"
        case .badSCTPPort: "a=sctp-port must be 0...65535"
        case .badMaxMessageSize: "a=max-message-size must be a number of bytes, 0 for no limit"
        case .noMediaSection: "no m= line; offer an audio section with Opus, or a data channel"
        case .noUfrag: "no a=ice-ufrag for this section, in it or at session level; add it"
        case .noPassword: "no a=ice-pwd for this section, in it or at session level; add it"
        case .noFingerprint: "no a=fingerprint of sha-224, sha-256, sha-384 or sha-512 for this section; media is accepted over DTLS only"
        case .peerIsLite: "a=ice-lite in the offer, and this server is ICE-lite itself: nobody would send checks; use a full ICE agent"
        case .nothingAccepted(let why): "no section can be accepted; \(why.advice)"
        case .halfCredentials: "a=ice-ufrag and a=ice-pwd must come together"
        }
    }
}

extension SDPRejection {
    var advice: String {
        switch self {
        case .disabledByOffer: "the section has port 0; use port 9"
        case .unsupportedKind: "offer audio or a data channel"
        case .unsupportedProtocol: "offer audio as UDP/TLS/RTP/SAVPF, data channels as UDP/DTLS/SCTP"
        case .noOpus: "add Opus to the audio section: a=rtpmap:111 opus/48000/2, with 111 in the m= line"
        case .noRTCPMux: "add a=rtcp-mux to the audio section"
        case .legacyDataChannel: "write data channels as m=application 9 UDP/DTLS/SCTP webrtc-datachannel with a=sctp-port (RFC 8841)"
        case .sctpClosed: "a=sctp-port is 0; use 5000"
        case .anotherIsTaken: "one section of each kind is accepted"
        case .notBundled: "put all sections into one a=group:BUNDLE"
        }
    }
}
