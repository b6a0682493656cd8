import Primitives
import RTP
import SRTP

/// What all sessions of a process share.
public struct SessionSettings: Sendable {
    /// What answers the calls.
    public var backend: BackendChoice
    /// Which SRTP implementation protects packets.
    public var srtpEngine: SRTPEngine
    /// A session that no client has reached by then is over.
    public var connectTimeout: Interval = .seconds(30)
    /// What sender reports read the time from.
    public var clock: NTPClock

    public init(backend: BackendChoice, srtpEngine: SRTPEngine = .own, clock: NTPClock) {
        self.backend = backend
        self.srtpEngine = srtpEngine
        self.clock = clock
    }
}

/// Why a datagram of a client was not used; each is a counter.
public enum SessionDropReason: UInt8, CaseIterable, Sendable {
    /// The first byte belongs to nothing that we speak (RFC 7983).
    case unknownClass
    /// Not a Binding request or response that is for this session and authentic.
    case stunRefused
    /// DTLS from an address that ICE has not validated.
    case dtlsFromUnvalidatedPath
    case dtlsRefused
    /// SRTP before the handshake is over; browsers never send it, a lost Finished makes others do.
    case mediaBeforeKeys
    case srtpNotAuthentic, srtpReplayed, srtpTooManyStreams, srtpRefused
    case rtpMalformed, rtcpMalformed
    /// Not the payload type of the answer, or a direction that the answer excludes.
    case unknownPayloadType
    /// The backend's queue is full.
    case backendFull
}
