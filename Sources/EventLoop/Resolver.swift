// Names to addresses. The C library's resolver blocks, so it is for start-up and for threads of its own; never for a reactor's.
import CLinux
import Glibc
public import Primitives

public enum Resolver {
    /// The TCP addresses of a host in the order in which to try them (RFC 6724); empty when it has none, or nobody knows. Blocks for seconds where
    /// name servers do not answer.
    /// - Parameter host: a name or an address, without brackets.
    public static func addresses(of host: String, port: UInt16) -> [SocketAddress] {
        if let ip = IPAddress(host) { return [SocketAddress(ip, port: port)] }
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_ADDRCONFIG
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, nil, &hints, &list) == 0 else { return [] }
        defer { freeaddrinfo(list) }
        var addresses: [SocketAddress] = []
        var entry = list
        while let current = entry {
            if let ip = address(current.pointee), !addresses.contains(SocketAddress(ip, port: port)) {
                addresses.append(SocketAddress(ip, port: port))
            }
            entry = current.pointee.ai_next
        }
        return addresses
    }

    private static func address(_ entry: addrinfo) -> IPAddress? {
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        guard getnameinfo(entry.ai_addr, entry.ai_addrlen, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0 else { return nil }
        return IPAddress(String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }
}
