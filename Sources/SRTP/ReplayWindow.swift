// Packet indices and what was seen of them (RFC 3711 §3.3.1, §3.3.2). Reading and accepting are two steps: between them the packet
// must authenticate, else a forger could move the window.

/// The highest accepted index of one source, and which of the 127 before it were accepted.
package struct ReplayWindow: Sendable {
    package static let size: UInt64 = 128
    /// One past the last RTP index: 32 bits of rollover counter and 16 of sequence number.
    package static let rtpIndices: UInt64 = 1 << 48
    /// One past the last SRTCP index.
    package static let rtcpIndices: UInt64 = 1 << 31

    package private(set) var highest: UInt64 = 0
    /// Bit `k` stands for the index `highest - k`; zero as long as nothing was accepted.
    private var seen: UInt128 = 0

    package init() {}

    package var isEmpty: Bool { seen == 0 }

    /// The index that a sequence number most likely stands for: the one nearest to the highest. The first packet of a source has
    /// rollover counter zero; so has everything "before" it, as there is no rollover counter below zero.
    package func index(for sequence: UInt16) throws(SRTPError) -> UInt64 {
        let sequence = UInt64(sequence)
        guard !isEmpty else { return sequence }
        let last = highest & 0xFFFF
        let rollovers = highest &- last
        if last < 0x8000 {
            let isBehind = sequence > last &+ 0x8000 && rollovers > 0
            return (isBehind ? rollovers &- 0x10000 : rollovers) | sequence
        }
        guard sequence < last &- 0x8000 else { return rollovers | sequence }
        guard rollovers &+ 0x10000 < Self.rtpIndices else { throw .keyExhausted }
        return (rollovers &+ 0x10000) | sequence
    }

    /// Throws when `index` was accepted before, or lies too far back to tell.
    package func check(_ index: UInt64) throws(SRTPError) {
        guard !isEmpty, index <= highest else { return }
        let age = highest &- index
        guard age < Self.size else { throw .tooOld }
        guard seen >> UInt128(age) & 1 == 0 else { throw .replayed }
    }

    /// Marks `index`, which passed `check` and authenticated.
    package mutating func accept(_ index: UInt64) {
        if isEmpty {
            highest = index
            seen = 1
        } else if index > highest {
            let distance = index &- highest
            seen = distance < Self.size ? seen << UInt128(distance) | 1 : 1
            highest = index
        } else if highest &- index < Self.size {
            seen |= 1 << UInt128(highest &- index)
        }
    }
}
