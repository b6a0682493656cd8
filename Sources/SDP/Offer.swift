// An offer as read: what the session level says, and its media sections in order.

import Primitives

/// A description from a client, read and checked (RFC 8866). Attributes that no answer of ours depends on are passed over.
public struct SDPOffer: Sendable, Equatable {
    /// `a=ice-lite`: the peer sends no checks of its own.
    public var iceLite = false
    /// The `a=group:BUNDLE` lines, each the mids in its order, no more than there may be sections.
    public var bundleGroups: [[String]] = []
    /// ICE and DTLS attributes that stand before the first section.
    public var transport = SDPTransport()
    /// Holds for sections that say nothing themselves.
    public var direction: SDPDirection?
    /// Header extensions of the session level: they hold in every section.
    public var extensions: [SDPExtension] = []
    /// In the offer's order, which is the answer's.
    public var media: [SDPMediaSection] = []

    public init() {}
}

/// What a peer says about its ICE and DTLS, at session or at section level.
public struct SDPTransport: Sendable, Equatable {
    /// `a=ice-ufrag`, 4...256 ice-chars.
    public var ufrag: String?
    /// `a=ice-pwd`, 22...256 ice-chars.
    public var password: String?
    public var setup: SDPSetup?
    /// Those whose hash we know (SHA-2); several are several hashes of one certificate, or several certificates.
    public var fingerprints: [SDPFingerprint] = []
    /// The tokens of `a=ice-options`.
    public var iceOptions: [String] = []

    public init() {}
}

/// The DTLS role of `a=setup` (RFC 4145, 5763).
public enum SDPSetup: String, Sendable, Equatable {
    /// Will send the ClientHello.
    case active
    /// Waits for the ClientHello.
    case passive
    /// Leaves it to the answerer.
    case actpass
}

/// From the view of whoever wrote it.
public enum SDPDirection: String, Sendable, Equatable {
    case sendrecv, sendonly, recvonly, inactive

    var sends: Bool { self == .sendrecv || self == .sendonly }
    var receives: Bool { self == .sendrecv || self == .recvonly }
}

/// A hash of a certificate (RFC 8122).
public struct SDPFingerprint: Sendable, Hashable {
    /// In lower case: `sha-224`, `sha-256`, `sha-384` or `sha-512`.
    public var algorithm: String
    /// As many as the hash has: 28, 32, 48 or 64.
    public var bytes: [UInt8]

    public init(algorithm: String, bytes: [UInt8]) {
        self.algorithm = algorithm
        self.bytes = bytes
    }
}

/// A payload type and what it means: `a=rtpmap` and `a=fmtp`.
public struct SDPCodec: Sendable, Equatable {
    /// 0...127.
    public var payloadType: UInt8
    /// A token as it stands: `opus`, `OPUS`. Names are compared without case (RFC 4855 §3).
    public var name: String
    /// Hz.
    public var clockRate: UInt32
    /// 1 where the line does not say.
    public var channels: UInt8
    /// The `a=fmtp` of this payload type as it stands; empty without one.
    public var parameters: String
}

/// `a=rtcp-fb` (RFC 4585 §4.2).
public struct SDPFeedback: Sendable, Equatable {
    /// nil for `*`, all of them.
    public var payloadType: UInt8?
    /// `nack`, `transport-cc`, …
    public var value: String
}

/// `a=extmap` (RFC 8285).
public struct SDPExtension: Sendable, Equatable {
    public var id: UInt16
    public var uri: String
    /// The restriction after the id's slash, from the view of whoever wrote it.
    public var direction: SDPDirection
}

/// A stream's source (RFC 5576).
public struct SDPSource: Sendable, Equatable {
    public var ssrc: UInt32
    public var cname: String?
}

/// One `m=` line and what follows it.
public struct SDPMediaSection: Sendable, Equatable {
    /// The line of `m=`, from 1.
    public var line: Int
    /// `audio`, `video`, `application`, or any other token.
    public var kind: String
    public var port: UInt16
    /// As offered, `UDP/TLS/RTP/SAVPF` for instance.
    public var transportProtocol: String
    /// As offered: payload types, or `webrtc-datachannel`.
    public var formats: [String]
    public var mid: String?
    public var direction: SDPDirection?
    /// In the order of `formats`; payload types without `a=rtpmap` are not among them.
    public var codecs: [SDPCodec] = []
    /// `a=rtcp-fb`, which may stand before the `a=rtpmap` that it is about.
    public var feedback: [SDPFeedback] = []
    public var rtcpMux = false
    /// `a=rtcp-rsize` (RFC 5506).
    public var rtcpReducedSize = false
    /// `a=bundle-only` (RFC 8843): port 0 does not mean disabled.
    public var bundleOnly = false
    public var extensions: [SDPExtension] = []
    public var transport = SDPTransport()
    public var candidates: [SDPCandidate] = []
    public var endOfCandidates = false
    /// `a=sctp-port`; nil without one.
    public var sctpPort: UInt16?
    /// `a=max-message-size` in bytes, 0 for no limit; nil without one (64 KiB then, RFC 8841).
    public var maxMessageSize: UInt64?
    /// The bytes of `a=sctp-init` (draft-hancke-tsvwg-snap): the peer's INIT chunk, as yet unread; nil without one, or if it is not base64.
    public var sctpInit: [UInt8]?
    /// `a=sctpmap` stands here: the syntax before RFC 8841.
    public var hasSCTPMap = false
    /// The value of the first `a=msid`.
    public var msid: String?
    /// The first 16 sources of `a=ssrc`.
    public var sources: [SDPSource] = []
}

extension SDPOffer {
    /// Reads a description. Throws an `SDPError` that says what to change: bounds first, then grammar, then what every offer must
    /// have. Malformed attributes that no answer depends on (candidates, extensions, sources) are passed over.
    public init(parsing bytes: RawSpan, limits: SDPLimits = .standard) throws(SDPError) {
        if let reason = beginning(of: bytes) { throw SDPError(reason, line: reason == .empty ? 0 : 1) }
        for line in try readLines(bytes, limits) {
            if line.letter == UInt8(ascii: "m") {
                try finishSection(limits)
                media.append(try SDPMediaSection(line, limits))
            } else if let (name, value) = line.attribute {
                if media.isEmpty {
                    try read(name, value, line.number, limits)
                } else {
                    try media[media.count - 1].read(name, value, line.number, limits)
                }
            }
        }
        try finishSection(limits)
        guard !media.isEmpty else { throw SDPError(.noMediaSection) }
    }

    /// The ICE and DTLS attributes that hold for a section: its own, else the session's, else those of the first section of its
    /// BUNDLE group, whose transport it shares (RFC 8843 §7.1.3). Fingerprints of section and session are merged.
    public func transport(of section: SDPMediaSection) -> SDPTransport {
        var result = section.transport
        result.fillIn(from: transport)
        result.fingerprints += transport.fingerprints.filter { !result.fingerprints.contains($0) }
        if let group = bundleGroup(of: section), let tagged = media.first(where: { $0.mid != nil && $0.mid == group.first }) {
            result.fillIn(from: tagged.transport)
        }
        return result
    }

    /// The INIT chunk of the first section that gives one.
    public var sctpInit: [UInt8]? { media.lazy.compactMap(\.sctpInit).first }

    /// The first BUNDLE group that names the section.
    public func bundleGroup(of section: SDPMediaSection) -> [String]? {
        guard let mid = section.mid else { return nil }
        return bundleGroups.first { $0.contains(mid) }
    }
}

extension SDPTransport {
    /// Takes over what is missing here. Name and password belong together.
    fileprivate mutating func fillIn(from other: SDPTransport) {
        if ufrag == nil && password == nil { (ufrag, password) = (other.ufrag, other.password) }
        if setup == nil { setup = other.setup }
        if fingerprints.isEmpty { fingerprints = other.fingerprints }
        if iceOptions.isEmpty { iceOptions = other.iceOptions }
    }
}
