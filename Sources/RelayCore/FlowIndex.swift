// Where in the flow memory a source's flow lies: open addressing with linear probing, never more than half full, so that a search looks at
// two places on average. It knows hashes and places, not addresses: whoever searches compares.

import Primitives

struct FlowIndex: ~Copyable, Sendable {
    /// Upper half: where the flow ends (`FlowMemory.end`); lower half: its hash; 0 for an empty place.
    private var entries: Slab<UInt64>
    private let mask: Int

    /// - Parameter flows: how many there may be.
    init(flows: Int) {
        entries = Slab(zeros: Self.count(flows: flows))
        mask = entries.count - 1
    }

    static func byteCount(flows: Int) -> Int { count(flows: flows) * MemoryLayout<UInt64>.stride }

    private static func count(flows: Int) -> Int { powerOfTwo(atLeast: 2 * flows) }
}

extension FlowIndex {
    /// The first place where a flow with `hash` may be.
    @inline(__always)
    func home(of hash: UInt32) -> Int { Int(hash) & mask }
    @inline(__always)
    func place(after place: Int) -> Int { (place &+ 1) & mask }

    /// Whether nobody is at `place`: a search ends there.
    @inline(__always)
    func isEmpty(_ place: Int) -> Bool { unsafe entries.start[place & mask] == 0 }

    /// Where the flow at `place` ends, if its hash is `hash`; something beyond all flows, or 0, if not.
    @inline(__always)
    func end(at place: Int, _ hash: UInt32) -> UInt64 {
        let rest = unsafe entries.start[place & mask] ^ UInt64(hash)
        return rest >> 32 | rest << 32
    }

    mutating func add(_ hash: UInt32, _ number: Int) {
        var place = home(of: hash)
        while entries[place] != 0 { place = self.place(after: place) }
        entries[place] = Self.entry(hash, number)
    }

    /// Linear probing without tombstones: what follows moves back, so that searches stay short for ever.
    mutating func remove(_ hash: UInt32, _ number: Int) {
        var hole = home(of: hash)
        let entry = Self.entry(hash, number)
        while entries[hole] != entry {
            precondition(entries[hole] != 0, "a flow is missing from the index")
            hole = place(after: hole)
        }
        var place = place(after: hole)
        while entries[place] != 0 {
            let home = home(of: UInt32(truncatingIfNeeded: entries[place]))
            // It may fill the hole unless its home lies behind it.
            if (place &- home) & mask >= (place &- hole) & mask {
                entries[hole] = entries[place]
                hole = place
            }
            place = self.place(after: place)
        }
        entries[hole] = 0
    }

    private static func entry(_ hash: UInt32, _ number: Int) -> UInt64 { FlowMemory.end(of: number) << 32 | UInt64(hash) }
}

/// The smallest power of two that is not below `count`.
func powerOfTwo(atLeast count: Int) -> Int {
    var power = 1
    while power < count { power *= 2 }
    return power
}
