// TCP and unix stream sockets: signaling, backends, the supervisor's channel.
import CLinux
import Glibc
public import Primitives

/// What a read or write came to.
@frozen public enum StreamResult: Sendable, Equatable {
    /// This many bytes, at least one.
    case transferred(Int)
    /// Nothing now; wait for readiness.
    case wouldBlock
    /// The peer has closed its side.
    case closed
    case failed(Errno)
}

/// A connected, or connecting, non-blocking stream.
public struct StreamSocket: ~Copyable, Sendable {
    public let descriptor: FileDescriptor
    /// The peer of a TCP connection; nil for a unix one.
    public let remoteAddress: SocketAddress?

    init(_ descriptor: consuming FileDescriptor, remoteAddress: SocketAddress?) {
        self.descriptor = descriptor
        self.remoteAddress = remoteAddress
    }

    /// Takes over a connected stream socket made elsewhere.
    public init(adopting descriptor: consuming FileDescriptor) throws(Errno) {
        try Syscall.setNonBlocking(descriptor.rawValue)
        let remote = try? Syscall.remoteName(descriptor.rawValue).address
        self.init(descriptor, remoteAddress: remote ?? nil)
    }

    /// Begins a TCP connection. When the descriptor becomes writable, `connectionError()` says how it went.
    public static func connect(to address: SocketAddress) throws(Errno) -> StreamSocket {
        let family: AddressFamily = address.ip.isV4 ? .v4 : .v6
        let descriptor = FileDescriptor(owning: try Syscall.socket(family == .v4 ? AF_INET : AF_INET6, CInt(SOCK_STREAM.rawValue)))
        try Syscall.setOption(descriptor.rawValue, CInt(IPPROTO_TCP), TCP_NODELAY, 1)
        do throws(Errno) { try Syscall.connect(descriptor.rawValue, SocketName(address, as: family)) } catch {
            guard error == .inProgress else { throw error }
        }
        return StreamSocket(descriptor, remoteAddress: address)
    }

    /// Connects to a unix socket: a path, or an abstract name that begins with `@`.
    public static func connect(path: String) throws(Errno) -> StreamSocket {
        guard let name = SocketName(path: path) else { throw .invalidArgument }
        let descriptor = FileDescriptor(owning: try Syscall.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue)))
        try Syscall.connect(descriptor.rawValue, name)
        return StreamSocket(descriptor, remoteAddress: nil)
    }

    /// Two unix stream sockets connected to each other.
    public static func pair() throws(Errno) -> StreamPair {
        let pair = try Syscall.socketPair(CInt(SOCK_STREAM.rawValue))
        return StreamPair(
            first: StreamSocket(FileDescriptor(owning: pair.0), remoteAddress: nil),
            second: StreamSocket(FileDescriptor(owning: pair.1), remoteAddress: nil))
    }
}

/// Two connected unix sockets.
public struct StreamPair: ~Copyable, Sendable {
    public var first: StreamSocket
    public var second: StreamSocket
}

extension StreamSocket {
    /// Appends what has arrived to `output`, as far as it has room (which it must).
    public func read(into output: inout OutputRawSpan) -> StreamResult {
        precondition(output.freeCapacity > 0, "no room to read into")
        return output.withUnsafeMutableBytes { (buffer, initialized) in
            let result = read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[initialized...]))
            if case .transferred(let count) = result { initialized += count }
            return result
        }
    }

    /// Reads into all of `bytes`, which must not be empty.
    public func read(into bytes: inout MutableRawSpan) -> StreamResult {
        bytes.withUnsafeMutableBytes { read(into: $0) }
    }

    private func read(into buffer: UnsafeMutableRawBufferPointer) -> StreamResult {
        do throws(Errno) {
            let count = try Syscall.read(descriptor.rawValue, buffer)
            return count == 0 ? .closed : .transferred(count)
        } catch { return error == .wouldBlock ? .wouldBlock : .failed(error) }
    }

    /// Writes a prefix of `bytes`, which must not be empty. Never raises SIGPIPE.
    public func write(_ bytes: RawSpan) -> StreamResult {
        bytes.withUnsafeBytes { buffer in
            do throws(Errno) { return .transferred(try Syscall.send(descriptor.rawValue, buffer)) } catch {
                return error == .wouldBlock ? .wouldBlock : .failed(error)
            }
        }
    }

    /// nil when the connection stands, or is still being made; otherwise why it failed. Reading clears it.
    public func connectionError() -> Errno? {
        guard let number = try? Syscall.option(descriptor.rawValue, SOL_SOCKET, SO_ERROR), number != 0 else { return nil }
        return Errno(rawValue: number)
    }

    /// Tells the peer that no more will be written.
    public func finishWriting() { try? Syscall.shutdownWrites(descriptor.rawValue) }

    /// Bytes the kernel may buffer for sending (`SO_SNDBUF`): a bound on what a slow reader costs.
    public func setSendBufferSize(_ bytes: Int) throws(Errno) {
        try Syscall.setOption(descriptor.rawValue, SOL_SOCKET, SO_SNDBUF, CInt(clamping: bytes))
    }
}

extension StreamSocket {
    /// Bytes the kernel may keep of what nobody has read yet (`SO_RCVBUF`): a bound on what a fast writer costs.
    public func setReceiveBufferSize(_ bytes: Int) throws(Errno) {
        try Syscall.setOption(descriptor.rawValue, SOL_SOCKET, SO_RCVBUF, CInt(clamping: bytes))
    }

    /// How long the kernel waits for the peer to acknowledge before it gives the connection up (`TCP_USER_TIMEOUT`).
    public func setAcknowledgmentTime(_ time: Interval) throws(Errno) {
        try Syscall.setOption(descriptor.rawValue, CInt(IPPROTO_TCP), TCP_USER_TIMEOUT, CInt(clamping: time.milliseconds))
    }
}

/// What an accept came to.
public enum AcceptResult: ~Copyable {
    case accepted(StreamSocket)
    /// Nobody is waiting.
    case wouldBlock
    /// No descriptor was free: the client was accepted and closed, so that the listener does not stay ready for ever.
    case refusedForLackOfDescriptors
    /// The client was gone again, or the kernel lacks memory; try the next.
    case failed(Errno)
}

/// A listening stream socket.
public struct StreamListener: ~Copyable, Sendable {
    public let descriptor: FileDescriptor
    /// The bound TCP address with the port that the kernel chose; nil for a unix listener.
    public let localAddress: SocketAddress?
    private let path: String?
    /// Given up for a moment when there is no other descriptor left.
    private var reserve: FileDescriptor?

    /// Listens on TCP; port 0 lets the kernel choose. `[::]` takes IPv4 too.
    public init(boundTo address: SocketAddress, backlog: Int = 1024, sharesPort: Bool = false) throws(Errno) {
        let family: AddressFamily = address.ip.isV4 ? .v4 : .v6
        let descriptor = FileDescriptor(owning: try Syscall.socket(family == .v4 ? AF_INET : AF_INET6, CInt(SOCK_STREAM.rawValue)))
        try Syscall.setOption(descriptor.rawValue, SOL_SOCKET, SO_REUSEADDR, 1)
        if sharesPort { try Syscall.setOption(descriptor.rawValue, SOL_SOCKET, SO_REUSEPORT, 1) }
        if family == .v6 {
            try Syscall.setOption(descriptor.rawValue, CInt(IPPROTO_IPV6), IPV6_V6ONLY, address.ip.isAny ? 0 : 1)
        }
        try Syscall.bind(descriptor.rawValue, SocketName(address, as: family))
        try Syscall.listen(descriptor.rawValue, CInt(clamping: backlog))
        let local = try Syscall.localName(descriptor.rawValue).address
        let reserve = try Self.makeReserve()
        self.init(descriptor, localAddress: local, path: nil, reserve: reserve)
    }

    /// Listens on a unix socket: a path (an old socket file there is removed, and it goes away with the listener), or an abstract
    /// name that begins with `@`.
    public init(path: String, backlog: Int = 128) throws(Errno) {
        guard let name = SocketName(path: path) else { throw .invalidArgument }
        let descriptor = FileDescriptor(owning: try Syscall.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue)))
        if !path.hasPrefix("@") { try? Syscall.unlink(path) }
        try Syscall.bind(descriptor.rawValue, name)
        try Syscall.listen(descriptor.rawValue, CInt(clamping: backlog))
        let reserve = try Self.makeReserve()
        self.init(descriptor, localAddress: nil, path: path.hasPrefix("@") ? nil : path, reserve: reserve)
    }

    /// Takes over a listening socket made elsewhere.
    public init(adopting descriptor: consuming FileDescriptor) throws(Errno) {
        try Syscall.setNonBlocking(descriptor.rawValue)
        let local = try Syscall.localName(descriptor.rawValue).address
        let reserve = try Self.makeReserve()
        self.init(descriptor, localAddress: local, path: nil, reserve: reserve)
    }

    /// Where the listening TCP socket `number` is bound; nil when it is something else.
    public static func address(ofDescriptor number: CInt) -> SocketAddress? {
        guard (try? Syscall.option(number, SOL_SOCKET, SO_ACCEPTCONN)) == 1 else { return nil }
        return (try? Syscall.localName(number))?.address
    }

    private init(_ descriptor: consuming FileDescriptor, localAddress: SocketAddress?, path: String?, reserve: consuming FileDescriptor) {
        self.descriptor = descriptor
        self.localAddress = localAddress
        self.path = path
        self.reserve = consume reserve
    }

    deinit { if let path { try? Syscall.unlink(path) } }

    /// The next client, if one waits. Bound how many are taken in one turn.
    public mutating func accept() -> AcceptResult {
        if reserve == nil { reserve = try? Self.makeReserve() }
        var name = SocketName()
        do throws(Errno) {
            let client = FileDescriptor(owning: try Syscall.accept(descriptor.rawValue, &name))
            let remote = name.address
            if remote != nil { try? Syscall.setOption(client.rawValue, CInt(IPPROTO_TCP), TCP_NODELAY, 1) }
            return .accepted(StreamSocket(client, remoteAddress: remote))
        } catch {
            switch error {
            case .wouldBlock: return .wouldBlock
            case .tooManyOpenFiles, .tooManyOpenFilesInSystem: return refuseOne(error)
            default: return .failed(error)
            }
        }
    }

    private mutating func refuseOne(_ error: Errno) -> AcceptResult {
        guard reserve != nil else { return .failed(error) }
        reserve = nil
        var name = SocketName()
        defer { reserve = try? Self.makeReserve() }
        do throws(Errno) {
            Syscall.close(try Syscall.accept(descriptor.rawValue, &name))
            return .refusedForLackOfDescriptors
        } catch {
            // The kernel looks for a descriptor before it looks for a client: perhaps nobody was waiting.
            return error == .wouldBlock ? .wouldBlock : .failed(error)
        }
    }

    private static func makeReserve() throws(Errno) -> FileDescriptor { FileDescriptor(owning: try Syscall.openReadOnly("/dev/null")) }
}
