import Backend
import Primitives
import RTP
import Realtime
import SRTP

/// Which backend answers calls, with its settings.
public enum BackendChoice: Sendable {
    /// The caller's own audio after this delay.
    case echo(delay: Interval)
    /// Says back what it heard when the caller's turn ends.
    case parrot
    /// A server that speaks the Realtime WebSocket.
    case realtime(RealtimeBackendSettings)
    /// A server that offers `swiftlet.v1.VoiceBackend`.
    case grpc(GRPCBackendSettings)

    /// What sessions may ask of it.
    public var abilities: SessionObject.Abilities {
        switch self {
        case .echo, .parrot: SessionObject.Abilities(semanticVAD: false)
        case .realtime: RealtimeBackend.abilities
        case .grpc: GRPCBackend.abilities
        }
    }

    /// Whether sessions need streams to somewhere.
    var isRemote: Bool {
        switch self {
        case .echo, .parrot: false
        case .realtime, .grpc: true
        }
    }
}

/// What all sessions of a process share.
public struct SessionSettings: Sendable {
    /// What answers the calls.
    public var backend: BackendChoice
    /// Which SRTP implementation protects packets.
    public var srtpEngine: SRTPEngine
    /// A session that no client has reached by then is over.
    public var connectTimeout: Interval = .seconds(30)
    /// A session that nothing authentic has come from for so long is over. Until then its client is asked once a second.
    public var keptSilent: Interval = .seconds(60)
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
    /// It came after its moment, or twice.
    case audioLate
    /// Authentic, and no Opus packet.
    case audioMalformed
}
