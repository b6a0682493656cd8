// The few things that programs ask of the operating system outside their loops: small files at start, and this machine's addresses.

import Glibc
public import Primitives

/// All of a file, or nil when it cannot be read or is longer than `limit`.
public func readFile(_ path: String, limit: Int) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var content: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = read(descriptor, &chunk, chunk.count)
        if count == 0 { return content }
        guard count > 0, content.count + count <= limit else { return nil }
        content += chunk[..<count]
    }
}

/// Tells one state of a file from another.
public struct FileStamp: Hashable, Sendable {
    private let seconds: Int
    private let nanoseconds: Int
    private let size: Int
    private let inode: UInt

    public init?(_ path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        seconds = status.st_mtim.tv_sec
        nanoseconds = status.st_mtim.tv_nsec
        size = Int(status.st_size)
        inode = UInt(status.st_ino)
    }
}

/// Whether others than owner and group may read a file.
public func isReadableByOthers(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & 0o007 != 0
}

/// The addresses of all interfaces of this machine.
public func interfaceAddresses() -> [IPAddress] {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&list) == 0 else { return [] }
    defer { freeifaddrs(list) }
    var addresses: [IPAddress] = []
    var next = list
    while let entry = next {
        next = entry.pointee.ifa_next
        guard let name = entry.pointee.ifa_addr else { continue }
        switch CInt(name.pointee.sa_family) {
        case AF_INET:
            let bits = name.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { UInt32(bigEndian: $0.pointee.sin_addr.s_addr) }
            addresses.append(IPAddress(v4: bits))
        case AF_INET6:
            let raw = UnsafeRawPointer(name)
            let high = UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            let low = UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
            addresses.append(IPAddress(high: high, low: low))
        default: break
        }
    }
    return addresses
}

/// The environment of this process.
public func environment() -> [String: String] {
    var result: [String: String] = [:]
    var next = environ
    while let entry = next.pointee {
        next += 1
        let parts = String(cString: entry).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        if parts.count == 2 { result[String(parts[0])] = String(parts[1]) }
    }
    return result
}
