// SCTP: data channels for one peer, as a machine without I/O. It speaks RFC 9260 inside DTLS (RFC 8261), opens channels by DCEP
// (RFC 8832) and closes them by stream reset (RFC 6525), as RFC 8831 asks. DTLS has proven the peer before the first packet comes
// here, so there is one association, one path and no listening: what remains hostile is the peer itself, and every number it sends
// is a claim to be checked.
//
// Four parts. The send queue holds messages cut into chunks, in one ring of bytes, until they are acknowledged. The receive window
// holds chunks by TSN until their message is whole. Channels are a small fixed table. The association ties them together: handshake,
// timers, congestion, and one packet at a time into the caller's buffer. Both stores start at a few KiB, grow only when used, are
// bounded, and shrink when empty.
//
// Not here: multi-homing, address reconfiguration, authentication chunks, interleaving (RFC 8260; a voice session has one channel).

import Primitives

/// What happened in an association, in order.
public enum SCTPEvent: Sendable, Equatable {
    /// The handshake is over. Comes again if the peer restarts; its channels were then closed first.
    case established
    /// A channel can be used: the peer opened it, or it has acknowledged ours.
    case channelOpened(id: UInt16, label: String, protocol: String)
    /// The channel is gone, by either side's wish. Messages that came before it are still to be taken.
    case channelClosed(id: UInt16)
    /// A whole message waits for `takeMessage`.
    case message(id: UInt16, isBinary: Bool, byteCount: Int)
    /// The association ended as both sides agreed.
    case closed
    /// The association ended otherwise. Nothing comes after it.
    case failed(SCTPFailure)
}

/// Why an association failed.
public enum SCTPFailure: UInt8, Sendable, CaseIterable {
    /// No answer to INIT or COOKIE ECHO.
    case handshakeTimeout
    /// Data, heartbeats or a stream reset stayed unanswered (RFC 9260 section 8.1).
    case peerUnreachable
    /// SHUTDOWN stayed unanswered.
    case shutdownTimeout
    /// The peer sent ABORT: browsers do so when a page closes the connection.
    case abortedByPeer
    /// `abort()` was called.
    case abortedLocally
    /// The peer broke the protocol; it was sent ABORT.
    case protocolViolation
    /// The peer sent a message above the maximum that was announced to it, or flooded a bounded table.
    case limitExceeded
}

/// Why a packet, or the rest of it, was dropped.
public enum SCTPDropReason: UInt8, Sendable, CaseIterable, Error {
    /// Shorter than header and chunk, or a chunk's length does not fit.
    case malformed
    case wrongPort
    case wrongChecksum
    case wrongVerificationTag
    /// A chunk that this state does not take.
    case unexpectedChunk
    /// A chunk type that asks to be dropped with all that follows it.
    case unknownChunk
    /// A cookie that is not ours, or too old.
    case badCookie
    /// An acknowledgement of what was never sent.
    case badAcknowledgement
    /// The association is over.
    case closed
}

/// What became of a message given to `send`.
public enum SCTPSendResult: UInt8, Sendable {
    case sent
    /// The send buffer is full. Try again when `bufferedAmount` has fallen.
    case blocked
    /// Above what the peer takes.
    case tooLarge
    /// No such channel, or it is closing.
    case noChannel
}
