// SipHash-2-4 (Aumasson and Bernstein, 2012): the keyed hash of the flow table and the tag of trunk frames.

/// A 128-bit SipHash key.
@frozen public struct SipKey: Hashable, Sendable {
    public var k0: UInt64
    public var k1: UInt64
    @inlinable public init(k0: UInt64, k1: UInt64) {
        self.k0 = k0
        self.k1 = k1
    }
    /// From 16 bytes, little-endian as in the paper's test vectors; nil for another length.
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount == 16 else { return nil }
        self.init(k0: bytes.u64LittleEndian(0), k1: bytes.u64LittleEndian(8))
    }
}

/// One running SipHash-2-4 over any number of pieces.
@frozen public struct SipHash: Sendable {
    @usableFromInline var v0: UInt64
    @usableFromInline var v1: UInt64
    @usableFromInline var v2: UInt64
    @usableFromInline var v3: UInt64
    @usableFromInline var tail: UInt64 = 0
    @usableFromInline var tailBytes: UInt64 = 0
    @usableFromInline var length: UInt64 = 0

    @inlinable public init(key: SipKey) {
        v0 = key.k0 ^ 0x736f_6d65_7073_6575
        v1 = key.k1 ^ 0x646f_7261_6e64_6f6d
        v2 = key.k0 ^ 0x6c79_6765_6e65_7261
        v3 = key.k1 ^ 0x7465_6462_7974_6573
    }

    @inlinable @inline(__always) mutating func round() {
        v0 &+= v1
        v1 = v1 << 13 | v1 >> 51
        v1 ^= v0
        v0 = v0 << 32 | v0 >> 32
        v2 &+= v3
        v3 = v3 << 16 | v3 >> 48
        v3 ^= v2
        v0 &+= v3
        v3 = v3 << 21 | v3 >> 43
        v3 ^= v0
        v2 &+= v1
        v1 = v1 << 17 | v1 >> 47
        v1 ^= v2
        v2 = v2 << 32 | v2 >> 32
    }

    @inlinable @inline(__always) mutating func compress(_ word: UInt64) {
        v3 ^= word
        round()
        round()
        v0 ^= word
    }

    /// Adds a 64-bit word, as its eight little-endian bytes.
    @inlinable @inline(__always) public mutating func update(word: UInt64) {
        length &+= 8
        if tailBytes == 0 {
            compress(word)
        } else {
            compress(tail | word << (tailBytes &* 8))
            tail = word >> (64 &- tailBytes &* 8)
        }
    }

    @inlinable public mutating func update(byte: UInt8) {
        length &+= 1
        tail |= UInt64(byte) << (tailBytes &* 8)
        tailBytes &+= 1
        if tailBytes == 8 {
            compress(tail)
            tail = 0
            tailBytes = 0
        }
    }

    @inlinable public mutating func update(_ bytes: RawSpan) {
        var offset = 0
        while offset &+ 8 <= bytes.byteCount {
            update(word: bytes.u64LittleEndian(offset))
            offset &+= 8
        }
        while offset < bytes.byteCount {
            update(byte: bytes.byte(offset))
            offset &+= 1
        }
    }

    @inlinable @inline(__always) public consuming func finalize() -> UInt64 {
        compress(tail | length << 56)
        v2 ^= 0xFF
        round()
        round()
        round()
        round()
        return v0 ^ v1 ^ v2 ^ v3
    }
}

extension SipHash {
    /// The hash of a socket address under `key`: what the flow table is keyed by.
    @inlinable public static func hash(_ address: SocketAddress, key: SipKey) -> UInt64 {
        var sip = SipHash(key: key)
        sip.update(word: address.ip.high)
        sip.update(word: address.ip.low)
        sip.update(word: UInt64(address.port))
        return sip.finalize()
    }
}
