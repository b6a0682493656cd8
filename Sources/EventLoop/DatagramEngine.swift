// What a worker waits in, receives from and sends through, whichever kernel interface stands behind it.
import Glibc
public import Primitives

/// Which kernel interface moves the datagrams.
@frozen public enum EngineKind: String, Sendable, CaseIterable {
    /// epoll, recvmmsg, sendmmsg.
    case epoll
    /// io_uring.
    case ring
}

extension EngineKind {
    /// Why this kernel interface cannot be used here, or nil when it can. Asks the kernel: once, at start.
    public var unavailability: EngineUnavailability? {
        guard self == .ring else { return nil }
        do throws(Errno) {
            var probe = try RingEngine(socketCapacity: 1)
            let batch = ReceiveBatch(capacity: 1)
            let socket = try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0))
            try probe.add(0, descriptor: socket.descriptor.rawValue, receivingInto: batch)
            return nil
        } catch { return EngineUnavailability(error: error) }
    }
}

/// Why io_uring cannot be used.
public struct EngineUnavailability: Sendable, Equatable, CustomStringConvertible {
    public let error: Errno
    public var description: String {
        switch error {
        case .noSystemCall: "this kernel has no io_uring"
        case .notPermitted: "io_uring is forbidden here (kernel.io_uring_disabled, or the container's seccomp profile)"
        case .invalidArgument: "this kernel's io_uring is too old (6.1 is needed)"
        case .outOfMemory: "io_uring may not lock enough memory (RLIMIT_MEMLOCK)"
        default: "io_uring does not work here: \(error)"
        }
    }
}

/// Names a datagram socket that an engine owns.
@frozen public struct DatagramHandle: Hashable, Sendable {
    public let index: Int
}

/// What the engine keeps beside a socket. Not private: a client module that destroys an engine needs its metadata.
@usableFromInline struct EngineSocket {
    var descriptor: CInt = -1
    var family = AddressFamily.v4
    var segments = false
    var tag: UInt64 = 0
    var isStopped = false
    var token: ReactorToken?
    var alarm: ReactorToken?
    var localAddress = SocketAddress(.v6Any, port: 0)
}

/// One worker's datagram sockets, and a `Reactor` for everything else it waits for.
public struct DatagramEngine: ~Copyable {
    public let kind: EngineKind
    /// Streams, wakers and signals are registered here; their events come from `nextEvent` of the engine.
    public var reactor: Reactor
    private var ring: RingEngine?
    /// Over epoll: what may end a pause.
    private var alarms: Reactor
    private var owned: Slab<DatagramSocket?>
    private var sockets: Slab<EngineSocket>

    /// An engine may be made on any thread, and belongs to the one that first waits, receives or sends.
    ///
    /// - Parameters:
    ///   - kind: `.ring` throws where io_uring does not work; `EngineKind.unavailability` says so beforehand.
    ///   - socketCapacity: the most datagram sockets this engine will own; at most 64.
    ///   - descriptorCapacity: the most other descriptors its reactor watches.
    public init(_ kind: EngineKind = .epoll, socketCapacity: Int = 8, descriptorCapacity: Int = 4096) throws(Errno) {
        precondition(socketCapacity >= 1 && socketCapacity <= 64)
        let reactor = try Reactor(capacity: descriptorCapacity + socketCapacity)
        let alarms = try Reactor(capacity: socketCapacity, eventsPerTurn: 1)
        switch kind {
        case .epoll: ring = nil
        case .ring: ring = try RingEngine(socketCapacity: socketCapacity)
        }
        self.kind = kind
        self.reactor = reactor
        self.alarms = alarms
        owned = Slab(count: socketCapacity) { _ in nil }
        sockets = Slab(count: socketCapacity) { _ in EngineSocket() }
    }
}

extension DatagramEngine {
    /// Takes `socket` over. Its datagrams will be received into `batch` and no other; events for it carry `tag`. Throws
    /// `.noBufferSpace` when there are `socketCapacity` already. With `endsPauses`, what it gets may end a `pause`.
    public mutating func add(
        _ socket: consuming DatagramSocket, receivingInto batch: borrowing ReceiveBatch, tag: UInt64, endsPauses: Bool = false
    ) throws(Errno) -> DatagramHandle {
        guard let index = (0..<sockets.count).first(where: { sockets[$0].descriptor < 0 }) else { throw .noBufferSpace }
        precondition(!socket.coalesces || batch.payloadCapacity == 65_536, "a socket that takes trains needs slots of 65,536 bytes")
        var token: ReactorToken?
        var alarm: ReactorToken?
        switch kind {
        case .epoll:
            token = try reactor.register(socket.descriptor, for: .readable, tag: tag)
            if endsPauses { alarm = try alarms.register(socket.descriptor, for: .readable, tag: tag) }
        case .ring: try ring?.add(index, descriptor: socket.descriptor.rawValue, receivingInto: batch)
        }
        sockets[index] = EngineSocket(
            descriptor: socket.descriptor.rawValue, family: socket.family, segments: socket.supportsSegmentation, tag: tag,
            token: token, alarm: alarm, localAddress: socket.localAddress)
        owned[index] = consume socket
        return DatagramHandle(index: index)
    }

    /// Reads no further from a socket, which keeps what comes for whoever inherits it. `receive` still gives out what had been read
    /// before: repeat it until the batch stays empty, then `remove`.
    public mutating func stopReceiving(on handle: DatagramHandle) {
        sockets[handle.index].isStopped = true
        if let token = sockets[handle.index].token { reactor.deregister(token) }
        if let alarm = sockets[handle.index].alarm { alarms.deregister(alarm) }
        ring?.stop(handle.index)
    }

    /// Gives a socket back: to hand it to a successor, or to close it.
    public mutating func remove(_ handle: DatagramHandle) -> DatagramSocket {
        guard var socket = owned[handle.index].take() else { preconditionFailure("no such datagram socket") }
        stopReceiving(on: handle)
        ring?.remove(handle.index)
        socket.supportsSegmentation = sockets[handle.index].segments
        sockets[handle.index] = EngineSocket()
        return socket
    }

    /// Whether what is received from now on carries its arrival, for a socket made with `timestamps`. The kernel notes the time in any
    /// case; handing it over costs some percent of a datagram's price, so that a measurement by sample asks for it one batch long.
    /// A system call.
    public func setTimestamps(_ isOn: Bool, on handle: DatagramHandle) {
        try? Syscall.setOption(sockets[handle.index].descriptor, SOL_SOCKET, SO_TIMESTAMPNS, isOn ? 1 : 0)
    }

    /// The bound address of a socket.
    public func localAddress(of handle: DatagramHandle) -> SocketAddress { sockets[handle.index].localAddress }
    /// Whether trains sent on this socket go through the kernel once.
    public func segments(_ handle: DatagramHandle) -> Bool { sockets[handle.index].segments }
}

extension DatagramEngine {
    /// Waits until a socket or descriptor is ready, the clock reaches `instant` (`.never`: without end; the past: not at all), or a
    /// signal arrives. Then take the events with `nextEvent`.
    public mutating func wait(until instant: Instant) {
        switch kind {
        case .epoll: reactor.wait(until: instant)
        case .ring:
            ring?.wait(until: instant, reactor: reactor.epoll.rawValue)
            if ring?.reactorIsReady == true { reactor.wait(until: .zero) } else { reactor.forgetEvents() }
        }
    }

    /// Lets time pass until `instant`, whatever comes meanwhile; less of it when a signal arrives, none for an instant in the past. With
    /// `hearsAlarms` it ends early, with true, when a socket that was added with `endsPauses` has something. Not over io_uring, where it
    /// could not be told from the others: there every datagram would end it.
    public mutating func pause(until instant: Instant, hearsAlarms: Bool) -> Bool {
        if hearsAlarms && alarms.count > 0 { return alarms.wait(until: instant) > 0 }
        MonotonicClock.sleep(until: instant)
        return false
    }
    /// Whether `pause` can hear of anything.
    public var hasAlarms: Bool { alarms.count > 0 }

    /// The next event of the last wait. A datagram socket stays ready until a receive returns an empty batch.
    public mutating func nextEvent() -> ReactorEvent? {
        if kind == .ring, let index = ring?.nextReadySocket() {
            return ReactorEvent(
                token: .datagramSocket(index), tag: sockets[index].tag, isReadable: true, isWritable: false, isClosed: false)
        }
        return reactor.nextEvent()
    }

    /// Replaces what `batch` holds by up to `batch.capacity` datagrams that are there now, without waiting; how many.
    @discardableResult
    public mutating func receive(from handle: DatagramHandle, into batch: inout ReceiveBatch) -> Int {
        switch kind {
        case .epoll:
            if sockets[handle.index].isStopped {
                batch.count = 0
            } else {
                ReadinessEngine.receive(from: sockets[handle.index].descriptor, into: &batch)
            }
        case .ring: ring?.receive(handle.index, into: &batch)
        }
        return batch.count
    }

    /// What ICMP has said of a datagram that was sent: where to, and whether nobody listens there. nil when it has said nothing more. Only
    /// for sockets with `reportsErrors`; take all of them after a receive or a send has counted an error, or a receive brought nothing.
    public func nextErrorReport(on handle: DatagramHandle) -> (destination: SocketAddress, isRefusal: Bool)? {
        while let report = Syscall.nextErrorReport(sockets[handle.index].descriptor) {
            if let destination = report.destination { return (destination, report.isRefusal) }
        }
        return nil
    }

    /// Sends and empties `batch`. After a failure on one datagram the next is tried; what became of them is in `batch.statistics`.
    /// When the socket's buffer or the device's queue is full, the rest of the batch, its newest datagrams, is dropped and counted.
    public mutating func send(_ batch: inout SendBatch, on handle: DatagramHandle) {
        guard !batch.isEmpty else { return }
        let socket = sockets[handle.index]
        var segments = socket.segments
        switch kind {
        case .epoll: ReadinessEngine.send(&batch, on: socket.descriptor, family: socket.family, segments: &segments)
        case .ring: ring?.send(&batch, on: socket.descriptor, family: socket.family, segments: &segments)
        }
        if segments != socket.segments { sockets[handle.index].segments = segments }
    }
}
