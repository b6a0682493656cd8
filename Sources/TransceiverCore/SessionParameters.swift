import DTLS
import ICE
import Primitives
import RTP
import Realtime

/// What signaling agreed on: everything a worker needs to bring a session to life.
public struct SessionParameters: Sendable {
    /// The number that trunk records carry: unique within the worker, random.
    public var id: UInt32
    /// `rtc_…`, as the client knows the call.
    public var callID: String
    public var local: ICECredentials
    public var remote: ICECredentials
    public var dtlsRole: DTLSRole
    /// Every fingerprint of the offer; a certificate must match one of them.
    public var fingerprints: [DTLSFingerprint]
    /// nil when the offer had no audio that we accept.
    public var audio: AudioParameters?
    /// nil when the offer had no data channel section.
    public var dataChannel: DataChannelParameters?
    /// What the conversation begins with.
    public var session: SessionObject
    /// From which the session's own random numbers come: tie-breaker, transaction ids, first sequence number and timestamp.
    public var seed: UInt64

    public init(
        id: UInt32, callID: String, local: ICECredentials, remote: ICECredentials, dtlsRole: DTLSRole, fingerprints: [DTLSFingerprint],
        audio: AudioParameters?, dataChannel: DataChannelParameters? = nil, session: SessionObject = SessionObject(), seed: UInt64
    ) {
        self.id = id
        self.callID = callID
        self.local = local
        self.remote = remote
        self.dtlsRole = dtlsRole
        self.fingerprints = fingerprints
        self.audio = audio
        self.dataChannel = dataChannel
        self.session = session
        self.seed = seed
    }
}

/// The negotiated audio section.
public struct AudioParameters: Sendable {
    /// The offered payload type of Opus, 0…127.
    public var opusPayloadType: UInt8
    /// Of redundant audio (RFC 2198); nil where it was not offered.
    public var redPayloadType: UInt8?
    /// The client sends lost packets again when it is asked to.
    public var retransmits = false
    /// The header extension with transport-wide sequence numbers, which the client wants feedback about; nil where it does not.
    public var transportSequenceExtension: UInt8?
    /// RTCP packets need not be compound (RFC 5506).
    public var reducedSizeRTCP = false
    /// How the client likes its Opus.
    public var opus = OpusWishes()
    /// Our own synchronisation source.
    public var ssrc: UInt32
    /// Our RTCP canonical name (RFC 7022: random, per call).
    public var cname: RTCPCanonicalName
    /// Whether we may send (the offer was sendrecv or recvonly).
    public var maySend: Bool
    /// Whether the client may send.
    public var mayReceive: Bool

    public init(opusPayloadType: UInt8, ssrc: UInt32, cname: RTCPCanonicalName, maySend: Bool, mayReceive: Bool) {
        self.opusPayloadType = opusPayloadType
        self.ssrc = ssrc
        self.cname = cname
        self.maySend = maySend
        self.mayReceive = mayReceive
    }
}

/// Control thread to worker.
public enum WorkerCommand: Sendable {
    case create(SessionParameters)
    /// A session without WebRTC, whose client speaks and hears in events.
    case createWire(session: UInt32, object: SessionObject, seed: UInt64)
    /// An event of a session's client, or of somebody who listens in.
    case clientEvent(session: UInt32, text: [UInt8])
    /// Tell what a session says, from `session.created` on; or no longer.
    case watch(session: UInt32, Bool)
    /// The client of a session without WebRTC does not read as fast as it is told, or does again.
    case pause(session: UInt32, Bool)
    /// ICE restart: the client's new credentials, and ours. Both generations are valid until the new one is nominated.
    case restartICE(session: UInt32, local: ICECredentials, remote: ICECredentials)
    case end(session: UInt32, reason: SessionEndReason)
    /// Say goodbye to everybody (RTCP BYE, DTLS close_notify): the process is about to exit.
    case endAll(reason: SessionEndReason)
    /// Tell relays from now on that no new sessions are wanted.
    case drain
    /// Send under this trunk key from now on, and take frames under both.
    case replaceTrunkKeys(SipKey, accepted: SipKey?)
    /// Tell every client that its call ends in so many seconds, because the process does.
    case announceEnd(seconds: Int)
}

/// Worker to control thread.
public enum WorkerEvent: Sendable {
    case connected(session: UInt32)
    /// How a session's client is reached.
    case path(PathReport)
    /// What a session says to whoever listens in, or to its client without WebRTC.
    case serverEvent(session: UInt32, text: [UInt8])
    case ended(session: UInt32, reason: SessionEndReason)
}

/// What a session has learned of the way to its client, by authentic packets alone.
public struct PathReport: Sendable, Equatable {
    public enum News: Sendable, Equatable {
        /// The first authentic packet has come this way; so long after the offer.
        case connected(after: Interval)
        /// The client is reached over another ingress relay from now on.
        case moved
        /// The client's RTCP report: the round trip, where it tells one, and the part of our packets that it lost, of 256.
        case measured(roundTrip: Interval?, lost: UInt8)
    }
    public var session: UInt32
    /// The relay that the client's packets come through first.
    public var ingressRelay: UInt16
    public var news: News
}

/// Why a session is over; each is also a counter.
public enum SessionEndReason: UInt8, Sendable, CaseIterable {
    case hangup, neverConnected, consentLost, closedByPeer, dtlsFailed, tableFull, shutdown
}
