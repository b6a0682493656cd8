// The association: its state and its verbs.

import Primitives

/// One SCTP association over one DTLS association. The owner makes it when DTLS is up; it sends INIT at once, as the other side does.
public struct SCTPAssociation: ~Copyable {
    /// - Parameters:
    ///   - maxMessageSize: in bytes, the largest message taken from the peer: what our SDP's `a=max-message-size` said.
    ///   - peerMaxMessageSize: in bytes, what the peer's SDP said; absent means 65,536 and zero means any.
    ///   - isClientOfDTLS: our own channels get even ids if so, odd ones if not (RFC 8832 section 6).
    ///   - seed: from the owner's entropy; tags, TSNs and the cookie key come from it.
    ///   - mtu: in bytes, the largest SCTP packet.
    public init(
        localPort: UInt16 = 5000, remotePort: UInt16 = 5000, maxMessageSize: Int = 262_144, peerMaxMessageSize: Int, isClientOfDTLS: Bool,
        seed: UInt64, mtu: Int = 1163, at now: Instant
    ) {}

    /// Takes one packet as DTLS gave it. Nil: all of it was used.
    public mutating func receive(_ packet: RawSpan, at now: Instant) -> SCTPDropReason? { nil }
    /// Lets timers run.
    public mutating func advance(to now: Instant) {}
    /// Writes the next packet, at most the MTU long, at the end of `packet`; false: nothing to send, or no room for an MTU.
    public mutating func nextTransmit(into packet: inout OutputRawSpan, at now: Instant) -> Bool { false }
    public mutating func nextEvent() -> SCTPEvent? { nil }
    /// The oldest message whose `.message` event was given and that was not taken yet.
    public mutating func takeMessage() -> [UInt8]? { nil }
    /// Opens a channel; its id, or nil when the table or the send buffer is full. It can be sent on at once.
    public mutating func openChannel(label: String, isOrdered: Bool) -> UInt16? { nil }
    public mutating func send(_ message: RawSpan, isBinary: Bool, on channel: UInt16) -> SCTPSendResult { .noChannel }
    /// Closes a channel once all that was sent on it has arrived.
    public mutating func closeChannel(_ id: UInt16) {}
    /// Ends the association once all that was sent has arrived (SHUTDOWN).
    public mutating func close() {}
    /// In bytes: what was sent and not yet acknowledged. At most 1 MiB.
    public var bufferedAmount: Int { 0 }
    public var isEstablished: Bool { false }
    /// When `advance` is wanted; `.never` when no timer runs.
    public var nextDeadline: Instant { .never }
}
