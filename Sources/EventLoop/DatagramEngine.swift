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

/// Names a datagram socket that an engine owns.
@frozen public struct DatagramHandle: Hashable, Sendable {
    public let index: Int
}

/// What the engine keeps beside a socket. Not private: a client module that destroys an engine needs its metadata.
@usableFromInline struct EngineSocket {
    var descriptor: CInt = -1
    var family = AddressFamily.v4
    var segments = false
    var token: ReactorToken?
    var localAddress = SocketAddress(.v6Any, port: 0)
}

/// One worker's datagram sockets, and a `Reactor` for everything else it waits for.
public struct DatagramEngine: ~Copyable {
    public let kind: EngineKind
    /// Streams, wakers and signals are registered here; their events come from `nextEvent` of the engine.
    public var reactor: Reactor
    private var owned: Slab<DatagramSocket?>
    private var sockets: Slab<EngineSocket>

    /// - Parameters:
    ///   - socketCapacity: the most datagram sockets this engine will own.
    ///   - descriptorCapacity: the most other descriptors its reactor watches.
    public init(_ kind: EngineKind = .epoll, socketCapacity: Int = 8, descriptorCapacity: Int = 4096) throws(Errno) {
        self.kind = kind
        reactor = try Reactor(capacity: descriptorCapacity + socketCapacity)
        owned = Slab(count: socketCapacity) { _ in nil }
        sockets = Slab(count: socketCapacity) { _ in EngineSocket() }
    }
}

extension DatagramEngine {
    /// Takes `socket` over. Its datagrams will be received into `batch` and no other; events for it carry `tag`. Throws
    /// `.noBufferSpace` when there are `socketCapacity` already.
    public mutating func add(_ socket: consuming DatagramSocket, receivingInto batch: borrowing ReceiveBatch, tag: UInt64)
        throws(Errno) -> DatagramHandle
    {
        guard let index = (0..<sockets.count).first(where: { sockets[$0].descriptor < 0 }) else { throw .noBufferSpace }
        precondition(!socket.coalesces || batch.payloadCapacity == 65_536, "a socket that takes trains needs slots of 65,536 bytes")
        sockets[index] = EngineSocket(
            descriptor: socket.descriptor.rawValue, family: socket.family, segments: socket.supportsSegmentation,
            token: try reactor.register(socket.descriptor, for: .readable, tag: tag), localAddress: socket.localAddress)
        owned[index] = consume socket
        return DatagramHandle(index: index)
    }

    /// Gives a socket back, no longer read: to hand it to a successor, or to close it.
    public mutating func remove(_ handle: DatagramHandle) -> DatagramSocket {
        guard var socket = owned[handle.index].take() else { preconditionFailure("no such datagram socket") }
        if let token = sockets[handle.index].token { reactor.deregister(token) }
        socket.supportsSegmentation = sockets[handle.index].segments
        sockets[handle.index] = EngineSocket()
        return socket
    }

    /// The bound address of a socket.
    public func localAddress(of handle: DatagramHandle) -> SocketAddress { sockets[handle.index].localAddress }
    /// Whether trains sent on this socket go through the kernel once.
    public func segments(_ handle: DatagramHandle) -> Bool { sockets[handle.index].segments }
}

extension DatagramEngine {
    /// Waits until a socket or descriptor is ready, the clock reaches `instant` (`.never`: without end; the past: not at all), or a
    /// signal arrives. Then take the events with `nextEvent`.
    public mutating func wait(until instant: Instant) { reactor.wait(until: instant) }

    /// The next event of the last wait. A datagram socket stays ready until a receive returns an empty batch.
    public mutating func nextEvent() -> ReactorEvent? { reactor.nextEvent() }

    /// Replaces what `batch` holds by up to `batch.capacity` datagrams that are there now, without waiting; how many.
    @discardableResult
    public mutating func receive(from handle: DatagramHandle, into batch: inout ReceiveBatch) -> Int {
        ReadinessEngine.receive(from: sockets[handle.index].descriptor, into: &batch)
        return batch.count
    }

    /// Sends and empties `batch`. After a failure on one datagram the next is tried; what became of them is in `batch.statistics`.
    /// When the socket's buffer or the device's queue is full, the rest of the batch, its newest datagrams, is dropped and counted.
    public mutating func send(_ batch: inout SendBatch, on handle: DatagramHandle) {
        guard !batch.isEmpty else { return }
        let socket = sockets[handle.index]
        var segments = socket.segments
        ReadinessEngine.send(&batch, on: socket.descriptor, family: socket.family, segments: &segments)
        if segments != socket.segments { sockets[handle.index].segments = segments }
    }
}
