// The few things a relay asks of the operating system outside its loop: small files at start, and this machine's addresses.

import Glibc
import Primitives

/// All of a file, or nil when it cannot be read or is longer than `limit`.
func readFile(_ path: String, limit: Int) -> [UInt8]? {
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
struct FileStamp: Hashable {
    private let seconds: Int
    private let nanoseconds: Int
    private let size: Int
    private let inode: UInt

    init?(_ path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        seconds = status.st_mtim.tv_sec
        nanoseconds = status.st_mtim.tv_nsec
        size = Int(status.st_size)
        inode = UInt(status.st_ino)
    }
}

/// Whether others than owner and group may read a file.
func isReadableByOthers(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & 0o007 != 0
}

/// The addresses of all interfaces of this machine.
func interfaceAddresses() -> [IPAddress] {
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

/// `addresses` with every `0.0.0.0` and `[::]` replaced by this machine's own, which is what packets carry.
func expanded(_ addresses: [SocketAddress]) -> [SocketAddress] {
    let own = interfaceAddresses()
    var result: [SocketAddress] = []
    for address in addresses {
        if address.ip.isAny {
            // A socket on [::] has the IPv4 addresses too.
            let reachable = own.filter { !address.ip.isV4 || $0.isV4 }
            result += reachable.map { SocketAddress($0, port: address.port) }
        } else {
            result.append(address)
        }
    }
    return result
}

/// One line to standard error, where the service manager collects it.
func log(_ line: String) {
    let bytes = Array("swiftlet-relay: \(line)\n".utf8)
    _ = bytes.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
}
