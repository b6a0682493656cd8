import ICE
import Trunk

/// What one media worker has seen; plain numbers, published once a turn.
public struct WorkerCounters: Sendable {
    public var framesReceived: UInt64 = 0
    /// By `TrunkError`.
    public var framesRefused = InlineArray<16, UInt64>(repeating: 0)
    /// Authentic, but of another cluster, transceiver or worker, or of a kind that only relays get.
    public var framesForOthers: UInt64 = 0
    /// Authentic under the accepted trunk key, not under the one that we send under.
    public var framesAcceptedKey: UInt64 = 0
    public var recordsReceived: UInt64 = 0
    public var recordsWithoutSession: UInt64 = 0
    public var recordsOversized: UInt64 = 0
    public var recordsSent: UInt64 = 0
    /// Nothing left to gather them in: more ingress workers in one turn than trains.
    public var recordsWithoutTrain: UInt64 = 0
    /// Datagrams that could not leave: the client does not consent, or has yet to prove where it is.
    public var datagramsWithheld: UInt64 = 0
    public var sessionsCreated: UInt64 = 0
    public var sessionsConnected: UInt64 = 0
    /// By `SessionEndReason`.
    public var sessionsEnded = InlineArray<16, UInt64>(repeating: 0)
    /// By `SessionDropReason`.
    public var dropped = InlineArray<32, UInt64>(repeating: 0)
    /// By `ICEDropReason`: what `SessionDropReason.stunRefused` is made of.
    public var stunRefused = InlineArray<16, UInt64>(repeating: 0)
    /// By `SCTPDropReason`.
    public var sctpDropped = InlineArray<16, UInt64>(repeating: 0)
    public var audioPacketsReceived: UInt64 = 0
    public var audioPacketsSent: UInt64 = 0
    public var reportsReceived: UInt64 = 0

    public init() {}

    mutating func note(_ reason: SessionDropReason) { dropped[Int(reason.rawValue)] &+= 1 }
    mutating func note(_ reason: ICEDropReason) { stunRefused[Int(reason.rawValue)] &+= 1 }
}
