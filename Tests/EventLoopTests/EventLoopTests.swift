import EventLoop
import Glibc
import Primitives
import Testing

@Suite struct ReactorTests {
    @Test func `an instant in the past does not wait and one in the future is not returned from early`() throws {
        var reactor = try Reactor(capacity: 4)
        let atOnce = reactor.wait(until: .zero)
        #expect(atOnce == 0)
        let deadline = MonotonicClock.now() + .microseconds(1500)
        // A signal to the process may end a wait early, and other tests send some; nothing else does.
        var waits = 0
        while MonotonicClock.now() < deadline {
            let later = reactor.wait(until: deadline)
            #expect(later == 0)
            waits += 1
        }
        #expect(waits <= 4)
    }

    /// Both ends of a pair are ready in the same wait. The owner of the first closes the second: its event must not be seen, and a
    /// new descriptor in the same slot must not inherit it.
    @Test func `an event of a deregistered descriptor is swallowed`() throws {
        var reactor = try Reactor(capacity: 4)
        let pair = try StreamSocket.pair()
        pair.first.write([1])
        pair.second.write([1])
        let first = try reactor.register(pair.first.descriptor, for: .readable, tag: 1)
        let second = try reactor.register(pair.second.descriptor, for: .readable, tag: 2)
        reactor.wait(until: .never)
        let event = reactor.nextEvent()
        let seen = try #require(event)
        let other = seen.token == first ? second : first
        reactor.deregister(other)
        let swallowed = reactor.nextEvent()
        #expect(swallowed == nil)
        let third = try StreamSocket.pair()
        let again = try reactor.register(third.first.descriptor, for: .writable, tag: 3)
        #expect(again.slot == other.slot && again != other)
        reactor.deregister(seen.token)
        reactor.deregister(seen.token)
        let count = reactor.count
        #expect(count == 1)
    }

    @Test func `a full reactor refuses with an ordinary error`() throws {
        var reactor = try Reactor(capacity: 1)
        let pair = try StreamSocket.pair()
        _ = try reactor.register(pair.first.descriptor, for: .readable, tag: 1)
        do throws(Errno) {
            _ = try reactor.register(pair.second.descriptor, for: .readable, tag: 2)
            Issue.record("registered beyond the capacity")
        } catch { #expect(error == .noBufferSpace) }
    }
}

@Suite struct StreamTests {
    /// A client connects, says something, closes; the server hears it and the end.
    @Test(arguments: engines, loopbackAddresses)
    func `a TCP connection is accepted, read and closed`(engine: EngineKind, address: SocketAddress) throws {
        var loop = try DatagramEngine(engine, descriptorCapacity: 8)
        var listener = try StreamListener(boundTo: address)
        let port = listener.port
        _ = try loop.reactor.register(listener.descriptor, for: .readable, tag: 10)
        let early = loop.nextTag()
        #expect(early == nil)
        let client = try StreamSocket.connect(to: SocketAddress(address.ip, port: port))
        expectEqual(loop.waitForTag(), 10)
        guard case .accepted(let server) = listener.accept() else { Issue.record("nobody to accept"); return }
        guard case .wouldBlock = listener.accept() else { Issue.record("accepted twice"); return }
        expectEqual(server.remoteAddress?.ip, address.ip)
        expectEqual(client.connectionError(), nil)
        _ = try loop.reactor.register(server.descriptor, for: .readable, tag: 11)
        client.write([UInt8]("hello".utf8))
        expectEqual(loop.waitForTag(), 11)
        var buffer = [UInt8](repeating: 0, count: 64)
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        expectEqual(server.read(into: &bytes), .transferred(5))
        expectEqual(bytes.byte(4), UInt8(ascii: "o"))
        expectEqual(server.read(into: &bytes), .wouldBlock)
        client.finishWriting()
        expectEqual(loop.waitForTag(), 11)
        expectEqual(server.read(into: &bytes), .closed)
    }

    @Test func `a refused connection says so`() throws {
        let port: UInt16
        do {
            let listener = try StreamListener(boundTo: SocketAddress(.v4Loopback, port: 0))
            port = listener.port
        }
        var reactor = try Reactor(capacity: 4)
        do throws(Errno) {
            let client = try StreamSocket.connect(to: SocketAddress(.v4Loopback, port: port))
            _ = try reactor.register(client.descriptor, for: .writable, tag: 1)
            reactor.wait(until: .never)
            expectEqual(client.connectionError(), .connectionRefused)
        } catch { #expect(error == .connectionRefused) }
    }

    /// No descriptor is left: the waiting client is turned away, so that the listener does not spin on it.
    @Test func `a listener without descriptors turns clients away`() async throws {
        // Runs in a process of its own: it takes every descriptor there is.
        await #expect(processExitsWith: .success) {
            var listener = try StreamListener(boundTo: SocketAddress(.v4Loopback, port: 0))
            let address = SocketAddress(.v4Loopback, port: listener.port)
            var limit = rlimit(rlim_cur: 64, rlim_max: 64)
            precondition(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
            let client = try StreamSocket.connect(to: address)
            var hoard: [CInt] = []
            while true {
                let taken = dup(0)
                if taken < 0 { break }
                hoard.append(taken)
            }
            guard case .refusedForLackOfDescriptors = listener.accept() else { exit(1) }
            guard case .wouldBlock = listener.accept() else { exit(2) }
            close(hoard.removeLast())
            close(hoard.removeLast())
            _ = client.connectionError()
            let second = try StreamSocket.connect(to: address)
            guard case .accepted = listener.accept() else { exit(3) }
            _ = second.connectionError()
            exit(0)
        }
    }

    @Test func `a unix listener takes connections and its path goes away with it`() throws {
        let path = "/tmp/swiftlet-test-\(getpid())-\(UInt32.random(in: 0...UInt32.max)).sock"
        do {
            var listener = try StreamListener(path: path)
            let client = try StreamSocket.connect(path: path)
            guard case .accepted(let server) = listener.accept() else { Issue.record("nobody to accept"); return }
            expectEqual(server.remoteAddress, nil)
            server.write([5])
            var byte = [UInt8](repeating: 0, count: 1)
            var span = byte.mutableSpan
            var bytes = span.mutableBytes
            expectEqual(client.read(into: &bytes), .transferred(1))
            expectEqual(bytes.byte(0), 5)
        }
        #expect(access(path, F_OK) != 0)
    }
}

@Suite struct DescriptorPassingTests {
    /// A datagram is queued in a socket whose owner hands the descriptor over and closes it: the successor reads the datagram.
    @Test(arguments: engines)
    func `a handed-over socket keeps what was queued in it`(engine: EngineKind) throws {
        let channel = try StreamSocket.pair()
        var client = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        let address: SocketAddress
        do {
            let socket = try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0))
            address = socket.localAddress
            client.send([1, 2, 3], to: address)
            try channel.first.send(descriptors: [socket.descriptor.rawValue], with: [UInt8(42)].span.bytes)
        }
        client.send([4], to: address)
        var payload = [UInt8](repeating: 0, count: 16)
        var span = payload.mutableSpan
        var bytes = span.mutableBytes
        var received = try channel.second.receiveDescriptors(into: &bytes)
        expectEqual([received.byteCount, Int(bytes.byte(0)), received.count], [1, 42, 1])
        guard let descriptor = received.take(0) else { Issue.record("no descriptor came"); return }
        if received.take(0) != nil { Issue.record("one descriptor was given out twice") }
        let socket = try DatagramSocket(adopting: descriptor)
        expectEqual(socket.localAddress, address)
        var successor = try Endpoint(engine, socket)
        #expect(successor.collect(2).map(\.bytes) == [[1, 2, 3], [4]])
    }
}

extension StreamListener {
    var port: UInt16 { localAddress?.port ?? 0 }
}

extension StreamSocket {
    /// Writes all of a few bytes.
    func write(_ bytes: [UInt8]) { expectEqual(write(bytes.span.bytes), .transferred(bytes.count)) }
}

extension DatagramEngine {
    /// The tag of the next event without waiting.
    mutating func nextTag() -> UInt64? {
        wait(until: .zero)
        return nextEvent()?.tag
    }
    mutating func waitForTag() -> UInt64? {
        wait(until: MonotonicClock.now() + .seconds(5))
        return nextEvent()?.tag
    }
}
