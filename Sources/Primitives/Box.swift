// A value that may be absent, reached where it lies.

/// A value in memory of its own, or none. What an `Optional` of a large value costs at each use, a copy of its payload, a box does not;
/// and an empty one is eight bytes.
@safe @frozen public struct Box<Value: ~Copyable>: ~Copyable {
    @usableFromInline var address: UnsafeMutablePointer<Value>?

    @inlinable public init() { unsafe address = nil }

    @inlinable public init(_ value: consuming Value) {
        let address = UnsafeMutablePointer<Value>.allocate(capacity: 1)
        unsafe address.initialize(to: value)
        unsafe self.address = address
    }

    @inlinable deinit {
        guard let address = unsafe address else { return }
        unsafe address.deinitialize(count: 1)
        unsafe address.deallocate()
    }

    @inlinable @inline(__always) public var isEmpty: Bool { unsafe address == nil }

    /// Traps when the box is empty.
    @inlinable public var value: Value {
        @inline(__always) unsafeAddress {
            guard let address = unsafe address else { preconditionFailure("an empty box") }
            return unsafe UnsafePointer(address)
        }
        @inline(__always) unsafeMutableAddress {
            guard let address = unsafe address else { preconditionFailure("an empty box") }
            return unsafe address
        }
    }
}

// A box is owned by one thread at a time; moving it between threads moves the ownership.
extension Box: @unchecked Sendable where Value: ~Copyable & Sendable {}
