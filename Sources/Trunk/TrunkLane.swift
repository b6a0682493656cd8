// The frame header as the two words that it is on the wire: what trains are told apart by, and what a frame begins with.

import Primitives

/// Who sends what to whom: a frame header without record count and tag. Two headers are equal where their lanes are, and comparing
/// lanes is comparing two words.
@frozen public struct TrunkLane: Hashable, Sendable {
    /// Bytes 0–7 of the frame, big-endian value: version and kind, worker, cluster, transceiver.
    public let first: UInt64
    /// Bytes 8–15, big-endian value: ingress relay, its worker, no record count yet, hops, reserved.
    public let second: UInt64

    @inlinable public init(first: UInt64, second: UInt64) {
        self.first = first
        self.second = second
    }

    @inlinable public init(_ header: TrunkHeader) {
        first =
            UInt64(TrunkFormat.version << 4 | header.kind.rawValue) << 56 | UInt64(header.worker) << 48 | UInt64(header.cluster) << 32
            | UInt64(header.transceiver)
        second = UInt64(header.ingressRelay) << 48 | UInt64(header.ingressWorker) << 40 | UInt64(header.hops) << 24
    }

    /// Bytes 8–15 of a frame with so many records.
    @inlinable @inline(__always)
    func second(recordCount: Int) -> UInt64 { second | UInt64(UInt8(truncatingIfNeeded: recordCount)) << 32 }
}

/// A train, or a single datagram, that leaves: what to send and where, without a copy. It ends with the next change of whoever lent it.
@frozen public struct TrunkDeparture: ~Escapable {
    public let transmit: TrunkTransmit
    public let bytes: RawSpan

    @_lifetime(copy bytes)
    @inlinable public init(_ transmit: TrunkTransmit, _ bytes: RawSpan) {
        self.transmit = transmit
        self.bytes = bytes
    }
}
