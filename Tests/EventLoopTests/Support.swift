// Shared by this room's tests: real sockets on loopback, ports chosen by the kernel, waits that end with the condition.
import EventLoop
import Glibc
import Primitives
import Testing

/// The kernel interfaces that this machine offers.
let engines: [EngineKind] = EngineKind.allCases.filter { $0.unavailability == nil }

let loopbackAddresses = [SocketAddress(.v4Loopback, port: 0), SocketAddress(.v6Loopback, port: 0)]

/// One socket in one engine, with batches of its own.
struct Endpoint: ~Copyable {
    var engine: DatagramEngine
    let socket: DatagramHandle
    var incoming: ReceiveBatch
    var outgoing: SendBatch
    let address: SocketAddress

    init(
        _ kind: EngineKind, _ socket: consuming DatagramSocket, payloadCapacity: Int = 2048, slots: Int = 128, sendSlotSize: Int = 2048
    ) throws {
        var engine = try DatagramEngine(kind, socketCapacity: 2, descriptorCapacity: 16)
        let incoming = ReceiveBatch(slots: slots, payloadCapacity: payloadCapacity)
        let address = socket.localAddress
        let handle = try engine.add(socket, receivingInto: incoming, tag: 1)
        self.init(engine, handle, incoming, SendBatch(slotSize: sendSlotSize), address)
    }

    private init(
        _ engine: consuming DatagramEngine, _ socket: DatagramHandle, _ incoming: consuming ReceiveBatch, _ outgoing: consuming SendBatch,
        _ address: SocketAddress
    ) {
        self.engine = engine
        self.socket = socket
        self.incoming = incoming
        self.outgoing = outgoing
        self.address = address
    }

    init(_ kind: EngineKind, boundTo address: SocketAddress, options: DatagramSocket.Options = .init()) throws {
        try self.init(
            kind, DatagramSocket(boundTo: address, options: options), payloadCapacity: options.coalesces ? 65_536 : 2048,
            slots: options.coalesces ? 64 : 128, sendSlotSize: options.coalesces ? 65_536 : 2048)
    }

    mutating func send(_ payload: [UInt8], to destination: SocketAddress) {
        let appended = outgoing.append(payload.span.bytes, to: destination)
        precondition(appended)
        flush()
    }

    /// Adds to the batch; false when it is full.
    mutating func queue(_ payload: [UInt8], to destination: SocketAddress) -> Bool {
        outgoing.append(payload.span.bytes, to: destination)
    }

    mutating func enqueue(_ payload: [UInt8], to destination: SocketAddress) {
        let appended = queue(payload, to: destination)
        #expect(appended)
    }

    /// Puts a part of `bytes` into the batch where it lies: `bytes` must live until `flush`.
    mutating func lend(_ bytes: [UInt8], _ range: Range<Int>, segmentSize: Int, to destination: SocketAddress) -> Bool {
        unsafe outgoing.append(lending: bytes.span.bytes.extracting(range), segmentSize: segmentSize, to: destination)
    }

    var statistics: SendStatistics { outgoing.statistics }

    mutating func flush() { engine.send(&outgoing, on: socket) }

    /// Receives until `count` datagrams (trains count once) have come or five seconds have passed.
    mutating func collect(_ count: Int) -> [Received] {
        var received: [Received] = []
        let end = MonotonicClock.now() + .seconds(5)
        while received.count < count, MonotonicClock.now() < end {
            engine.wait(until: end)
            while engine.nextEvent() != nil {}
            engine.receive(from: socket, into: &incoming)
            for index in 0..<incoming.count {
                received.append(Received(datagram: incoming[index], bytes: incoming.bytes(index).array))
            }
        }
        return received
    }

    /// What is there without waiting.
    mutating func collectPresent() -> [Received] {
        engine.wait(until: .zero)
        while engine.nextEvent() != nil {}
        engine.receive(from: socket, into: &incoming)
        return (0..<incoming.count).map { Received(datagram: incoming[$0], bytes: incoming.bytes($0).array) }
    }
}

struct Received {
    var datagram: Datagram
    var bytes: [UInt8]
}

/// The first of what was collected; the test ends when there is none.
func one(_ received: [Received]) throws -> Received { try #require(received.first) }

/// For values that come from something noncopyable, which the `#expect` macro cannot take apart.
func expectEqual<Value: Equatable>(_ value: Value, _ wanted: Value, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(value == wanted, sourceLocation: sourceLocation)
}

/// An empty UDP datagram, which anybody may send us and which a `SendBatch` does not take.
func sendEmptyDatagram(toIPv4Loopback port: UInt16) {
    let descriptor = socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0)
    defer { close(descriptor) }
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = port.bigEndian
    name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let sent = withUnsafePointer(to: &name) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            sendto(descriptor, nil, 0, 0, __CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
    #expect(sent == 0)
}
