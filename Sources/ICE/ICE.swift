// ICE (RFC 8445) as a server with a public address speaks it: the lite agent, which answers checks and lets the client choose.
//
// `ICELiteAgent` is one session's agent, without sockets and without a clock. It answers every authentic Binding request, remembers
// the paths that such requests came by, and follows the client's nomination. Three things are ours:
//
// - A nomination selects the downlink only until something replay-protected was received on it. From then on only fresh SRTP, SRTCP
//   or DTLS moves it (`noteAuthenticated`): a check can be replayed from elsewhere by somebody who saw it.
// - A path that the downlink has moved to must prove itself: whoever has the keys may forge its source address. It is asked by a
//   check of ours at once, and until the answer it gets three times the bytes that came from it; the rest goes the old way. With no
//   answer after two seconds the downlink goes back.
// - A client that has fallen silent is asked by checks of our own, though we are lite. A Chromium that has given up sends nothing any
//   more, and only a check from us brings it back.
// - Whatever is not authentic is dropped and counted, never answered: an answer is never longer than its request.
//
// Consent (RFC 7675) belongs to the selected path: an authentic check, an answer to our check, or authenticated media from there.

import Primitives

/// One side's username fragment and password (RFC 8839 §5.4): 4…256 and 22…256 ice-chars.
public struct ICECredentials: Sendable, Equatable {
    public var ufrag: String
    public var password: String

    public init(ufrag: String, password: String) {
        self.ufrag = ufrag
        self.password = password
    }
}

/// Why a datagram changed nothing. The raw value is the index of a counter.
public enum ICEDropReason: UInt8, CaseIterable, Sendable {
    /// Not a STUN message.
    case malformed
    /// An indication, or a method other than Binding.
    case notForUs
    /// FINGERPRINT is there and wrong.
    case badFingerprint
    /// A request without "receiver:sender".
    case noUsername
    /// USERNAME is of no live generation.
    case wrongUfrag
    /// MESSAGE-INTEGRITY is missing or not made with the password.
    case badIntegrity
    /// An answer to a check that we did not send there, or that was answered before.
    case unknownResponse
    /// The client answered our check with an error.
    case refused
}

/// What the owner of an agent has to know.
public enum ICEEvent: Sendable, Equatable {
    /// An authentic check came from there for the first time: packets may be sent there.
    case pathValidated(NetworkPath)
    /// The downlink goes there from now on.
    case selected(NetworkPath)
    /// 30 seconds without a sign of consent from the selected path: nothing but our own checks may be sent.
    case consentLost
    /// The selected path consents again.
    case consentRegained
    /// 60 seconds without anything authentic from anywhere: the session may be freed. Our own checks have ended.
    case silent
}

/// Times of the agent.
public enum ICETiming {
    /// RFC 7675 §5.1.
    public static let consent = Interval.seconds(30)
    /// A Chromium that has nothing to send checks every 2.5 seconds; with media flowing this never passes.
    public static let silenceBeforeChecks = Interval.seconds(4)
    /// Between two of our checks, ±20 %.
    public static let checkInterval = Interval.seconds(1)
    /// Until `ICEEvent.silent`. Chromium is revived after 40 s and more, so the session is worth keeping that long.
    public static let silence = Interval.seconds(60)
    /// Bytes to a path that has not proved itself, as a multiple of those that came from it (as RFC 9000 §8.1 has it for QUIC).
    public static let amplificationMax = 3
    /// Between two checks of ours that ask for the proof.
    public static let proofInterval = Interval.milliseconds(250)
    /// How long the downlink stays on a path that does not prove itself, if there is another.
    public static let proof = Interval.seconds(2)
}
