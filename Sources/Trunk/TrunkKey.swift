// The tag of a frame: a universal hash of everything that is authenticated, under keys of its own, and SipHash-2-4 over that hash.
//
// SipHash over every word would cost a record 90 instructions; multiplying its words in pairs and adding the products up costs it a
// dozen, and what is left for SipHash is two words a frame. The construction is NH (Black, Halevi, Krawczyk, Krovetz, Rogaway 1999, with
// words of 64 bits) under a pseudorandom function: two different frames have one sum with a probability of 2^-64, whoever makes them up.

import Primitives

/// The trunk key as a worker uses it: 66 words drawn from it once, at start.
@frozen public struct TrunkKey: ~Copyable, Sendable {
    @usableFromInline let sip: SipKey
    /// For the frame header.
    @usableFromInline let header0: UInt64
    @usableFromInline let header1: UInt64
    /// For each of the 16 places in a block of records.
    @usableFromInline let records: Slab<RecordKey>

    public init(_ key: SipKey) {
        func word(_ number: Int) -> UInt64 {
            var hash = SipHash(key: key)
            hash.update(word: UInt64(number))
            return hash.finalize()
        }
        sip = key
        header0 = word(64)
        header1 = word(65)
        records = Slab(count: 16) {
            RecordKey(word0: word(4 * $0), word1: word(4 * $0 + 1), word2: word(4 * $0 + 2), word3: word(4 * $0 + 3))
        }
    }
}

@frozen @usableFromInline struct RecordKey: Sendable {
    @usableFromInline let word0: UInt64
    @usableFromInline let word1: UInt64
    @usableFromInline let word2: UInt64
    @usableFromInline let word3: UInt64

    init(word0: UInt64, word1: UInt64, word2: UInt64, word3: UInt64) {
        self.word0 = word0
        self.word1 = word1
        self.word2 = word2
        self.word3 = word3
    }
}

/// The sum of the products of a block of records.
@frozen @usableFromInline struct TagSum: Sendable {
    @usableFromInline var low: UInt64 = 0
    @usableFromInline var high: UInt64 = 0

    @inlinable init() {}

    /// Adds both products of record `number`, which counts from 1. The words are little-endian values, as they are in the frame.
    @inlinable @inline(__always)
    mutating func add(_ word0: UInt64, _ word1: UInt64, _ word2: UInt64, number: Int, _ key: borrowing TrunkKey) {
        // There are 16.
        let place = unsafe key.records.start[number & 15]
        add(word0 &+ place.word0, word1 &+ place.word1)
        add(word2 &+ place.word2, place.word3)
    }

    @inlinable @inline(__always)
    mutating func add(_ left: UInt64, _ right: UInt64) {
        let product = left.multipliedFullWidth(by: right)
        let sum = low.addingReportingOverflow(product.low)
        low = sum.partialValue
        high = high &+ product.high &+ (sum.overflow ? 1 : 0)
    }

    /// Whether record `number` is the last of its block: 15, 31, … 255.
    @inlinable @inline(__always)
    static func endsBlock(_ number: Int) -> Bool { number & 15 == 15 }

    /// Whether a block has this place.
    @inlinable @inline(__always)
    static func hasPlace(_ place: Int) -> Bool { UInt(bitPattern: place) < 16 }

    /// Hands the sum of a whole block to `hash`, which begins with the first, and begins the next.
    @inline(__always)
    mutating func endBlock(_ number: Int, into hash: inout SipHash, _ key: borrowing TrunkKey) {
        // By value, so that a sum that is being added up stays in registers.
        Self.add(low, high, number, to: &hash, key.sip)
        self = TagSum()
    }

    @inline(never)
    private static func add(_ low: UInt64, _ high: UInt64, _ number: Int, to hash: inout SipHash, _ key: SipKey) {
        if number == 15 { hash = SipHash(key: key) }
        hash.update(word: low)
        hash.update(word: high)
    }

    /// Adds a frame header that begins with these little-endian words: what the tag is made of is then whole.
    @inline(__always)
    mutating func addHeader(_ first: UInt64, _ second: UInt64, _ key: borrowing TrunkKey) {
        // Byte 12 counts hops: the lowest byte of this little-endian word's upper half.
        add(first &+ key.header0, (second & 0xFFFF_FF00_FFFF_FFFF) &+ key.header1)
    }

    /// The tag of a frame of fewer than 15 records, none of which has ended a block.
    @inline(__always)
    consuming func tag(_ key: borrowing TrunkKey) -> UInt64 { tag(after: SipHash(key: key.sip)) }

    /// The tag of a longer one, whose whole blocks `hash` has.
    @inline(__always)
    consuming func tag(after hash: consuming SipHash) -> UInt64 {
        hash.update(word: low)
        hash.update(word: high)
        return hash.finalize()
    }
}
