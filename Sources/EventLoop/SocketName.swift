// Socket addresses between our canonical form and the kernel's `sockaddr`s.
import CLinux
import Glibc
import Primitives

/// Which `sockaddr` a datagram socket speaks. A dual-stack socket is `.v6` and takes IPv4 as mapped addresses.
@frozen public enum AddressFamily: Sendable { case v4, v6 }

/// Room for any socket name: IPv4, IPv6 or a unix path.
struct SocketName {
    private var storage = sockaddr_un()
    private(set) var length = socklen_t(MemoryLayout<sockaddr_un>.size)

    init() {}

    init(_ address: SocketAddress, as family: AddressFamily) {
        length = withUnsafeMutableBytes(of: &storage) { SocketName.write(address, as: family, to: $0.baseAddress!) }
    }

    /// A path in the file system, or an abstract name when it begins with `@`; nil when longer than 107 bytes.
    init?(path: String) {
        let bytes = Array(path.utf8)
        guard bytes.count <= 107, !bytes.isEmpty else { return nil }
        storage.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &storage.sun_path) {
            $0.copyBytes(from: bytes)
            if bytes[0] == UInt8(ascii: "@") { $0[0] = 0 }
        }
        length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count + (bytes[0] == UInt8(ascii: "@") ? 0 : 1))
    }

    /// nil for a unix name.
    var address: SocketAddress? {
        withUnsafeBytes(of: storage) { SocketName.read(from: $0.baseAddress!, length: Int(length)) }
    }

    func withPointer<Result>(
        _ body: (UnsafePointer<sockaddr>, socklen_t) throws(Errno) -> Result
    ) throws(Errno) -> Result {
        try withUnsafePointer(to: storage) { (pointer) throws(Errno) in
            try body(UnsafeRawPointer(pointer).assumingMemoryBound(to: sockaddr.self), length)
        }
    }

    mutating func withMutablePointer<Result>(
        _ body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) throws(Errno) -> Result
    ) throws(Errno) -> Result {
        var length = socklen_t(MemoryLayout<sockaddr_un>.size)
        defer { self.length = length }
        return try withUnsafeMutablePointer(to: &storage) { (pointer) throws(Errno) in
            try body(UnsafeMutableRawPointer(pointer).assumingMemoryBound(to: sockaddr.self), &length)
        }
    }
}

extension SocketName {
    /// Bytes reserved for a name in message vectors: a `sockaddr_in6` (28) and padding.
    static let slotSize = 32

    /// Writes `address` as `family`'s sockaddr to 32 bytes at `pointer`; the length of what it wrote. An IPv6 address on an IPv4
    /// socket becomes family 0, which the kernel refuses for this datagram alone.
    @inline(__always)
    static func write(_ address: SocketAddress, as family: AddressFamily, to pointer: UnsafeMutableRawPointer) -> socklen_t {
        switch family {
        case .v4:
            let name = pointer.assumingMemoryBound(to: sockaddr_in.self)
            name.pointee.sin_family = address.ip.isV4 ? sa_family_t(AF_INET) : sa_family_t(AF_MAX)
            name.pointee.sin_port = address.port.bigEndian
            name.pointee.sin_addr.s_addr = address.ip.v4Bits.bigEndian
            return socklen_t(MemoryLayout<sockaddr_in>.size)
        case .v6:
            let name = pointer.assumingMemoryBound(to: sockaddr_in6.self)
            name.pointee.sin6_family = sa_family_t(AF_INET6)
            name.pointee.sin6_port = address.port.bigEndian
            name.pointee.sin6_flowinfo = 0
            name.pointee.sin6_scope_id = 0
            pointer.storeBytes(of: address.ip.high.bigEndian, toByteOffset: 8, as: UInt64.self)
            pointer.storeBytes(of: address.ip.low.bigEndian, toByteOffset: 16, as: UInt64.self)
            return socklen_t(MemoryLayout<sockaddr_in6>.size)
        }
    }

    /// Reads what the kernel wrote; nil for another family or a short name.
    @inline(__always)
    static func read(from pointer: UnsafeRawPointer, length: Int) -> SocketAddress? {
        guard length >= MemoryLayout<sockaddr_in>.size else { return nil }
        switch CInt(pointer.loadUnaligned(as: sa_family_t.self)) {
        case AF_INET:
            let port = UInt16(bigEndian: pointer.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
            let bits = UInt32(bigEndian: pointer.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
            return SocketAddress(IPAddress(v4: bits), port: port)
        case AF_INET6:
            guard length >= MemoryLayout<sockaddr_in6>.size else { return nil }
            let port = UInt16(bigEndian: pointer.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
            let high = UInt64(bigEndian: pointer.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            let low = UInt64(bigEndian: pointer.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
            return SocketAddress(IPAddress(high: high, low: low), port: port)
        default: return nil
        }
    }
}
