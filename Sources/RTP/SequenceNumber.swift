// Arithmetic on numbers that wrap: RFC 3550 sequence numbers and timestamps, compared as RFC 1982 compares serials.

extension UInt16 {
    /// How far `self` is ahead of `other`: −32,768…32,767, negative when it is older.
    @inlinable public func distance(from other: UInt16) -> Int { Int(Int16(bitPattern: self &- other)) }

    /// Whether `self` comes after `other`. Numbers half the circle apart are not newer either way.
    @inlinable public func isNewer(than other: UInt16) -> Bool { distance(from: other) > 0 }
}

extension UInt32 {
    /// How far `self` is ahead of `other`: −2³¹…2³¹−1, negative when it is older.
    @inlinable public func distance(from other: UInt32) -> Int { Int(Int32(bitPattern: self &- other)) }

    /// Whether `self` comes after `other`. Numbers half the circle apart are not newer either way.
    @inlinable public func isNewer(than other: UInt32) -> Bool { distance(from: other) > 0 }
}
