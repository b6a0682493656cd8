import EventLoop
import Primitives
import Testing

/// A group of sockets on one port, each in an engine of its own, as workers have them.
private struct Workers: ~Copyable {
    var endpoints: Slab<Endpoint>
    let address: SocketAddress

    init(
        _ kind: EngineKind, count: Int, boundTo address: SocketAddress, coalesces: Bool = false, steeredBy program: SteeringProgram
    ) throws {
        var options = DatagramSocket.Options()
        options.coalesces = coalesces
        var group = try DatagramSocket.group(count: count, boundTo: address, options: options, steeredBy: program)
        self.address = SocketAddress(address.ip.isAny ? .v6Loopback : address.ip, port: group.localAddress.port)
        endpoints = Slab(count: count) { index in
            do { return try Endpoint(kind, group.take(index), payloadCapacity: coalesces ? 65_536 : 2048) } catch {
                preconditionFailure("\(error)")
            }
        }
    }

    /// The worker that has something, and what.
    mutating func receiveAnywhere() -> (worker: Int, received: Received)? {
        let end = MonotonicClock.now() + .seconds(5)
        while MonotonicClock.now() < end {
            for worker in 0..<endpoints.count {
                if let first = endpoints[worker].collectPresent().first { return (worker, first) }
            }
        }
        return nil
    }
}

private func found(_ arrival: (worker: Int, received: Received)?) throws -> (worker: Int, received: Received) { try #require(arrival) }

@Suite struct SteeringTests {
    /// A hundred clients, each with a port of its own, over both families: the kernel's choice is the one user space computes.
    @Test(arguments: engines, [IPAddress.v4Loopback, .v6Loopback])
    func `user space knows the worker that the kernel chooses`(engine: EngineKind, ip: IPAddress) throws {
        let steering = AddressSteering(workers: 4, key: 0x1234_5678)
        var workers = try Workers(engine, count: 4, boundTo: SocketAddress(ip, port: 0), steeredBy: .bySource(steering))
        var counts = [0, 0, 0, 0]
        for _ in 0..<100 {
            var client = try Endpoint(.epoll, boundTo: SocketAddress(ip, port: 0))
            client.send([0, 0, 0], to: workers.address)
            let (worker, received) = try found(workers.receiveAnywhere())
            #expect(received.datagram.source == client.address)
            #expect(worker == steering.workerIndex(for: client.address))
            #expect(worker == workerIndex(for: client.address, workers: 4, key: 0x1234_5678))
            counts[worker] += 1
        }
        #expect(!counts.contains(0))
    }

    /// IPv4 clients of a dual-stack group carry 127.x addresses, so that the address takes part in the hash too.
    @Test(arguments: engines)
    func `a dual-stack group steers IPv4 clients by their IPv4 address`(engine: EngineKind) throws {
        let steering = AddressSteering(workers: 3)
        var workers = try Workers(engine, count: 3, boundTo: SocketAddress(.v6Any, port: 0), steeredBy: .bySource(steering))
        for host in 1...60 {
            var client = try Endpoint(.epoll, boundTo: SocketAddress(IPAddress(v4: 0x7F01_0000 + UInt32(host)), port: 0))
            client.send([1], to: SocketAddress(.v4Loopback, port: workers.address.port))
            let (worker, received) = try found(workers.receiveAnywhere())
            #expect(received.datagram.source == client.address)
            #expect(worker == steering.workerIndex(for: client.address))
        }
    }

    /// The trunk's rule: whole trains go to the worker that byte 1 of their first frame names.
    @Test(arguments: engines, loopbackAddresses)
    func `the worker byte of a trunk frame names the socket, for trains too`(engine: EngineKind, address: SocketAddress) throws {
        var workers = try Workers(engine, count: 4, boundTo: address, coalesces: true, steeredBy: .byWorkerByte(workers: 4))
        var relay = try Endpoint(.epoll, boundTo: address, options: DatagramSocket.Options(coalesces: true))
        for wanted in (0..<24).map({ UInt8($0 % 6) }) {
            let appended = relay.outgoing.appendTrain(to: workers.address, segmentSize: 1400) { packet in
                for _ in 0..<3 {
                    packet.append(UInt8(1))
                    packet.append(wanted)
                    packet.append(zeros: 1398)
                }
            }
            #expect(appended)
            relay.flush()
            let (worker, received) = try found(workers.receiveAnywhere())
            #expect(worker == Int(wanted) % 4)
            #expect(received.datagram.segmentCount == 3)
        }
        relay.send([1], to: workers.address)
        expectEqual(workers.receiveAnywhere()?.worker, 0)
    }
}
