// Trunk: what relays and transceivers say to each other, over UDP. A frame carries the datagrams of one receive batch that go to
// one worker, so that the trunk's cost per packet falls as load rises, and never waits for company. SPEC.md is the format.
//
// `TrunkFrame` reads: it walks the records in place, checks the tag and every length once, at `init`, and allocates nothing.
// `TrunkWriter` (in TrunkWriter.swift) writes one frame into the caller's buffer. `TrunkTrains` (in TrunkTrains.swift) gathers a
// whole batch: frames of equal length, one train per destination worker, ready for a single UDP_SEGMENT send.

import Primitives

/// What a frame is for: the lower four bits of its first byte.
@frozen public enum TrunkKind: UInt8, Sendable, CaseIterable {
    /// Relay → transceiver: datagrams as clients sent them.
    case clientData = 1
    /// Transceiver → relay: datagrams to send to clients.
    case transceiverData = 2
    /// Transceiver → relay: these flows are real (records without payload). They get the long idle time.
    case confirm = 3
    /// Transceiver → relay: these flows' sessions have ended (records without payload).
    case gone = 4
    /// Either way, one record in the form of `TrunkProbe`.
    case ping = 5
    /// The answer to a ping: its record, with the answerer's state.
    case pong = 6
}

/// The frame header without record count and tag, which belong to the writer.
@frozen public struct TrunkHeader: Hashable, Sendable {
    public var kind: TrunkKind
    /// The worker that shall get the frame: of the transceiver on the way up, of the ingress relay on the way down. At byte 1, where
    /// the receiving SO_REUSEPORT group's BPF program looks.
    public var worker: UInt8
    public var cluster: UInt16
    /// As in the routing hint.
    public var transceiver: UInt32
    /// The relay that owns the clients' flows, and which of its workers.
    public var ingressRelay: UInt16
    public var ingressWorker: UInt8
    /// Relays that have forwarded the frame. The one field outside the tag, so that a relay can count without keys.
    public var hops: UInt8

    @inlinable public init(
        kind: TrunkKind, worker: UInt8, cluster: UInt16, transceiver: UInt32, ingressRelay: UInt16, ingressWorker: UInt8, hops: UInt8 = 0
    ) {
        self.kind = kind
        self.worker = worker
        self.cluster = cluster
        self.transceiver = transceiver
        self.ingressRelay = ingressRelay
        self.ingressWorker = ingressWorker
        self.hops = hops
    }
}

/// Sizes of the format, in bytes.
public enum TrunkFormat {
    @inlinable public static var version: UInt8 { 1 }
    @inlinable public static var frameHeaderSize: Int { 24 }
    @inlinable public static var recordHeaderSize: Int { 24 }
    /// The record count has one byte.
    @inlinable public static var recordsMax: Int { 255 }
    /// A frame that more relays than this have forwarded is going in circles.
    @inlinable public static var hopsMax: UInt8 { 4 }
    /// The longest frame when nothing else is configured: fits a 1500-byte network with room for tunnels.
    @inlinable public static var defaultMTU: Int { 1400 }
    /// The longest UDP payload over IPv4: no frame and no train is longer.
    @inlinable public static var datagramMax: Int { 65_507 }
}

/// Why a frame is dropped, always whole.
public enum TrunkError: UInt8, Error, CaseIterable, Sendable {
    case truncated
    case unknownVersion
    case unknownKind
    /// No record, or for `ping` and `pong` not exactly one.
    case wrongRecordCount
    /// A record's length points beyond the frame.
    case recordOverrun
    /// A record of a kind without payload has one.
    case unexpectedPayload
    case wrongTag
    /// Forwarded more than `hopsMax` times.
    case tooManyHops
}

/// The health of one side, as a ping's or pong's only record.
@frozen public struct TrunkProbe: Hashable, Sendable {
    public enum State: UInt8, Sendable { case serving = 0, draining = 1 }

    /// The asking side's clock in nanoseconds; comes back unchanged, so that it alone makes the round-trip time.
    public var sentAt: UInt64
    public var sequence: UInt32
    /// Of whoever sends this frame.
    public var state: State

    @inlinable public init(sentAt: UInt64, sequence: UInt32, state: State) {
        self.sentAt = sentAt
        self.sequence = sequence
        self.state = state
    }
}
