import Primitives
import TransceiverCore

/// How a call got over something.
public struct Recovery: Sendable {
    public enum Cause: String, Sendable { case silence, restart, rebind, relay }
    public var cause: Cause
    /// Since the beginning of the run: when it began, and when it was over for everybody but our own machines.
    public var began: Interval
    public var ended: Interval
    /// When the first answer arrived to a check that was sent after `ended`.
    public var answered: Interval?
    /// When the first frame was heard again that was said after `ended`.
    public var heard: Interval?

    public init(cause: Cause, began: Interval, ended: Interval, answered: Interval? = nil, heard: Interval? = nil) {
        self.cause = cause
        self.began = began
        self.ended = ended
        self.answered = answered
        self.heard = heard
    }
}

/// What one client has seen.
public struct ClientReport: Sendable {
    /// Since the beginning of the run: keys are there.
    public var connectedAfter: Interval?
    /// The same of the server: what the client says before that is lost.
    public var serverReadyAfter: Interval?
    public var framesSaid: UInt32 = 0
    /// The numbers of the frames that came back, in order of arrival.
    public var heard: [UInt32] = []
    /// Frames of somebody else.
    public var strangers = 0
    /// RTCP BYE or close_notify.
    public var heardGoodbye = false
    /// Authentic checks of the server.
    public var checksReceived = 0
    /// DTLS handshakes that came to their end.
    public var handshakes = 0
    public var recoveries: [Recovery] = []

    public init() {}
}

/// What became of a run.
public struct CallReport: Sendable {
    public var clients: [ClientReport] = []
    public var network = VirtualNetwork.Counters()
    /// Of all relays that there were, one after the other.
    public var relayDatagrams: UInt64 = 0
    public var worker = WorkerCounters()
    /// Datagrams that relay or session refused before the first hangup.
    public var refusedWhileTalking: UInt64 = 0
    public var relayFlowsAtEnd = 0
    public var sessionsAtEnd = 0
    public var callsAtEnd = 0
    public var steps = 0
    /// What the world itself found wrong: an answer of signaling, time that stood still.
    public var complaints: [String] = []
    /// Promises that were broken; empty when all is well.
    public var violations: [String] = []
    /// A number over everything that happened: equal for equal seeds.
    public var fingerprint: UInt64 = 0

    public init() {}

    /// When the last of the clients was connected.
    public var connectedAfter: Interval? {
        var last = Interval.zero
        for client in clients {
            guard let after = client.connectedAfter else { return nil }
            last = max(last, after)
        }
        return last
    }
    public var framesSaid: Int { clients.reduce(0) { $0 + Int($1.framesSaid) } }
    public var framesHeard: Int { clients.reduce(0) { $0 + $1.heard.count } }
}
