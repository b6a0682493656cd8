// UDP sockets: made here, or inherited from a supervisor.
import CLinux
import Glibc
public import Primitives

/// A non-blocking UDP socket. Receiving and sending belong to `DatagramEngine`.
public struct DatagramSocket: ~Copyable, Sendable {
    public let descriptor: FileDescriptor
    /// IPv6 sockets bound to `[::]` are dual-stack.
    public let family: AddressFamily
    /// The bound address, with the port that the kernel chose where 0 was asked for.
    public let localAddress: SocketAddress
    /// Whether the kernel segments trains (`UDP_SEGMENT`); without it the engine sends them as single datagrams.
    public internal(set) var supportsSegmentation: Bool
    /// Whether the kernel joins trains (`UDP_GRO`); only if asked for.
    public let coalesces: Bool
    public let timestamps: Bool

    public struct Options: Sendable {
        /// Lets several workers bind one port (`SO_REUSEPORT`).
        public var sharesPort = false
        /// Bytes asked of the kernel, which doubles them and caps them at `net.core.rmem_max`; nil for its default.
        public var receiveBufferSize: Int?
        public var sendBufferSize: Int?
        /// Receive trains whole (`UDP_GRO`); the batch then needs a `payloadCapacity` of 65,536. Left off where it is not supported.
        public var coalesces = false
        /// Have the kernel note when each datagram came (`SO_TIMESTAMPNS`).
        public var timestamps = false
        /// IPv4 datagrams leave whole (`IP_PMTUDISC_DO`), so that the kernel need not draw an identification for each, which takes some
        /// percent of a send. The engine lets those be fragmented that are too long for their path.
        public var leavesWhole = false
        /// Keep what ICMP says of datagrams that were sent (`IP_RECVERR`), for `DatagramEngine.nextErrorReport`. Who asks for it must read
        /// it: until then the socket is readable.
        public var reportsErrors = false
        /// Have the kernel cut trains (`UDP_SEGMENT`) where it can; otherwise each datagram of one is sent by itself.
        public var segments = true
        public init(
            sharesPort: Bool = false, receiveBufferSize: Int? = nil, sendBufferSize: Int? = nil, coalesces: Bool = false,
            timestamps: Bool = false, leavesWhole: Bool = false, reportsErrors: Bool = false, segments: Bool = true
        ) {
            self.sharesPort = sharesPort
            self.receiveBufferSize = receiveBufferSize
            self.sendBufferSize = sendBufferSize
            self.coalesces = coalesces
            self.timestamps = timestamps
            self.leavesWhole = leavesWhole
            self.reportsErrors = reportsErrors
            self.segments = segments
        }
    }

    /// Binds `address`; port 0 lets the kernel choose.
    public init(boundTo address: SocketAddress, options: Options = Options()) throws(Errno) {
        let family: AddressFamily = address.ip.isV4 ? .v4 : .v6
        let descriptor = FileDescriptor(owning: try Syscall.socket(family == .v4 ? AF_INET : AF_INET6, CInt(SOCK_DGRAM.rawValue)))
        if family == .v6 {
            try Syscall.setOption(descriptor.rawValue, CInt(IPPROTO_IPV6), IPV6_V6ONLY, address.ip.isAny ? 0 : 1)
        }
        if options.sharesPort { try Syscall.setOption(descriptor.rawValue, SOL_SOCKET, SO_REUSEPORT, 1) }
        let coalesces = try Self.apply(options, to: descriptor)
        try Syscall.bind(descriptor.rawValue, SocketName(address, as: family))
        try self.init(descriptor, coalesces: coalesces, options)
    }

    /// Takes over a bound UDP socket that another process made. Its options are set anew, its queue is kept.
    public init(adopting descriptor: consuming FileDescriptor, options: Options = Options()) throws(Errno) {
        try Syscall.setNonBlocking(descriptor.rawValue)
        let coalesces = try Self.apply(options, to: descriptor)
        try self.init(descriptor, coalesces: coalesces, options)
    }

    private init(_ descriptor: consuming FileDescriptor, coalesces: Bool, _ options: Options) throws(Errno) {
        let domain = try Syscall.option(descriptor.rawValue, SOL_SOCKET, SO_DOMAIN)
        guard domain == AF_INET || domain == AF_INET6, let local = try Syscall.localName(descriptor.rawValue).address else {
            throw .invalidArgument
        }
        family = domain == AF_INET ? .v4 : .v6
        localAddress = local
        // Segment size 0 is "off": accepted exactly where the kernel knows the option.
        supportsSegmentation =
            options.segments && (try? Syscall.setOption(descriptor.rawValue, CInt(IPPROTO_UDP), UDP_SEGMENT, 0)) != nil
        self.coalesces = coalesces
        timestamps = options.timestamps
        self.descriptor = descriptor
    }

    private static func apply(_ options: Options, to descriptor: borrowing FileDescriptor) throws(Errno) -> Bool {
        let raw = descriptor.rawValue
        if let size = options.receiveBufferSize { try Syscall.setOption(raw, SOL_SOCKET, SO_RCVBUF, CInt(clamping: size)) }
        if let size = options.sendBufferSize { try Syscall.setOption(raw, SOL_SOCKET, SO_SNDBUF, CInt(clamping: size)) }
        try Syscall.setOption(raw, SOL_SOCKET, SO_RXQ_OVFL, 1)
        try Syscall.setOption(raw, SOL_SOCKET, SO_TIMESTAMPNS, options.timestamps ? 1 : 0)
        // Of dual-stack sockets too, for their IPv4 half. A kernel that refuses only fragments as before.
        if options.leavesWhole { try? Syscall.setOption(raw, CInt(IPPROTO_IP), IP_MTU_DISCOVER, IP_PMTUDISC_DO) }
        let isV4 = try Syscall.option(raw, SOL_SOCKET, SO_DOMAIN) == AF_INET
        // An IPv6 socket may be dual-stack: then it has both kinds.
        try Syscall.setOption(raw, CInt(IPPROTO_IP), IP_RECVERR, options.reportsErrors ? 1 : 0)
        if !isV4 { try Syscall.setOption(raw, CInt(IPPROTO_IPV6), IPV6_RECVERR, options.reportsErrors ? 1 : 0) }
        guard options.coalesces else { return false }
        return (try? Syscall.setOption(raw, CInt(IPPROTO_UDP), UDP_GRO, 1)) != nil
    }
}

extension DatagramSocket {
    /// Gives the descriptor away without closing it.
    public consuming func releaseDescriptor() -> FileDescriptor { descriptor }

    /// Where the UDP socket `number` is bound; nil when it is something else.
    public static func address(ofDescriptor number: CInt) -> SocketAddress? {
        guard (try? Syscall.option(number, SOL_SOCKET, SO_TYPE)) == CInt(SOCK_DGRAM.rawValue),
            let domain = try? Syscall.option(number, SOL_SOCKET, SO_DOMAIN), domain == AF_INET || domain == AF_INET6
        else { return nil }
        return (try? Syscall.localName(number))?.address
    }

    /// Has the kernel choose among the sockets of this port by `program`, for the whole SO_REUSEPORT group. Sockets are numbered in the
    /// order in which they were bound; attach once all are, before traffic is expected.
    public func steer(by program: SteeringProgram) throws(Errno) { try Syscall.attachReuseportProgram(descriptor.rawValue, program) }

    /// Receives from `peer` only, and hears of its ICMP errors.
    public func connect(to peer: SocketAddress) throws(Errno) { try Syscall.connect(descriptor.rawValue, SocketName(peer, as: family)) }

    /// Bytes of receive buffer that the kernel really gave (twice what was asked, capped).
    public var receiveBufferSize: Int { Int((try? Syscall.option(descriptor.rawValue, SOL_SOCKET, SO_RCVBUF)) ?? 0) }
    /// Whether IPv4 datagrams leave whole, as asked for in the options.
    public var leavesWhole: Bool { (try? Syscall.option(descriptor.rawValue, CInt(IPPROTO_IP), IP_MTU_DISCOVER)) == IP_PMTUDISC_DO }
    public var sendBufferSize: Int { Int((try? Syscall.option(descriptor.rawValue, SOL_SOCKET, SO_SNDBUF)) ?? 0) }

    /// `count` sockets on one port, in worker order, steered by `program`. With port 0 the first one chooses.
    public static func group(count: Int, boundTo address: SocketAddress, options: Options = Options(), steeredBy program: SteeringProgram)
        throws(Errno) -> DatagramSocketGroup
    {
        precondition(count >= 1)
        var options = options
        options.sharesPort = true
        var group = DatagramSocketGroup(capacity: count)
        var address = address
        for _ in 0..<count {
            let socket = try DatagramSocket(boundTo: address, options: options)
            address.port = socket.localAddress.port
            group.append(socket)
        }
        try group.steer(by: program)
        return group
    }
}

/// The sockets of one port, one for each worker; each worker takes its own once.
public struct DatagramSocketGroup: ~Copyable, Sendable {
    private var sockets: Slab<DatagramSocket?>
    /// Each socket's descriptor number, in worker order: to hand to a successor, and good as long as its socket is open.
    public private(set) var descriptorNumbers: [CInt] = []
    public private(set) var localAddress = SocketAddress(.v6Any, port: 0)

    public init(capacity: Int) { sockets = Slab(count: capacity) { _ in nil } }

    /// Adds the next worker's socket: the order of binding is the order of steering.
    public mutating func append(_ socket: consuming DatagramSocket) {
        localAddress = socket.localAddress
        let index = descriptorNumbers.count
        descriptorNumbers.append(socket.descriptor.rawValue)
        sockets[index] = consume socket
    }

    /// The socket of worker `index`; traps when it was taken before.
    public mutating func take(_ index: Int) -> DatagramSocket {
        guard let socket = sockets[index].take() else { preconditionFailure("socket \(index) was taken before") }
        return socket
    }

    /// Attaches `program` to the group; before the first socket is taken.
    public func steer(by program: SteeringProgram) throws(Errno) { try Syscall.attachReuseportProgram(descriptorNumbers[0], program) }
}
