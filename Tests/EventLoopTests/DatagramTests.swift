import EventLoop
import Primitives
import Testing

@Suite struct DatagramTests {
    /// One batch of 64 goes out, each datagram with its own content; all arrive with the sender's address.
    @Test(arguments: engines, loopbackAddresses)
    func `a batch arrives whole and in order`(engine: EngineKind, address: SocketAddress) throws {
        var sender = try Endpoint(engine, boundTo: address)
        var receiver = try Endpoint(engine, boundTo: address)
        for index in 0..<64 {
            let appended = sender.outgoing.append(to: receiver.address) { packet in
                packet.append(UInt32(index))
                packet.append(zeros: index)
            }
            #expect(appended)
        }
        let isFull = sender.outgoing.isFull
        let overflow = sender.queue([1], to: receiver.address)
        #expect(isFull && !overflow)
        sender.flush()
        let waiting = sender.outgoing.count
        #expect(waiting == 0)
        #expect(sender.statistics.sent == 64)
        let received = receiver.collect(64)
        #expect(received.count == 64)
        for (index, item) in received.enumerated() {
            #expect(item.datagram.source == sender.address)
            #expect(item.bytes == [0, 0, 0, UInt8(index)] + [UInt8](repeating: 0, count: index))
            #expect(item.datagram.segmentSize == 0 && item.datagram.segmentCount == 1)
        }
    }

    /// A dual-stack socket hears IPv4 and IPv6, and canonical addresses make both look alike; it answers both.
    @Test(arguments: engines)
    func `a dual-stack socket speaks to both families`(engine: EngineKind) throws {
        var server = try Endpoint(engine, boundTo: SocketAddress(.v6Any, port: 0))
        for ip in [IPAddress.v4Loopback, .v6Loopback] {
            var client = try Endpoint(engine, boundTo: SocketAddress(ip, port: 0))
            client.send([7, 7], to: SocketAddress(ip, port: server.address.port))
            let question = try one(server.collect(1))
            #expect(question.datagram.source == client.address)
            server.send([8], to: question.datagram.source)
            #expect(client.collect(1).first?.bytes == [8])
        }
    }

    /// More datagrams than one batch holds come in several receives; every slot is used again many times.
    @Test(arguments: engines)
    func `slots are reused over many batches`(engine: EngineKind) throws {
        var sender = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var receiver = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        for round in 0..<50 {
            for index in 0..<40 {
                sender.enqueue([0, UInt8(round), 0, UInt8(index)], to: receiver.address)
            }
            sender.flush()
            let received = receiver.collect(40)
            #expect(received.map(\.bytes) == (0..<40).map { [0, UInt8(round), 0, UInt8($0)] })
        }
    }

    /// The worker writes a header before the payload in place and sends both without a copy.
    @Test(arguments: engines)
    func `a received datagram is forwarded with a header written in place`(engine: EngineKind) throws {
        var client = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var relay = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var server = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        client.send([1, 2, 3], to: relay.address)
        _ = relay.collect(1)
        var header = relay.incoming.mutableBytes(0, -4..<3)
        header.set(UInt32(0xAABB_CCDD), at: 0)
        header.set(UInt8(9), at: 6)
        let appended = relay.outgoing.append(forwarding: 0, -4..<3, of: relay.incoming, to: server.address)
        #expect(appended)
        relay.flush()
        #expect(server.collect(1).first?.bytes == [0xAA, 0xBB, 0xCC, 0xDD, 1, 2, 9])
    }

    @Test(arguments: engines)
    func `a datagram longer than the slot is counted and not shown`(engine: EngineKind) throws {
        var sender = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var receiver = try Endpoint(
            engine, try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0)), payloadCapacity: 100)
        sender.send([UInt8](repeating: 1, count: 101), to: receiver.address)
        sender.send([UInt8](repeating: 2, count: 100), to: receiver.address)
        #expect(receiver.collect(1).first?.bytes == [UInt8](repeating: 2, count: 100))
        let truncated = receiver.incoming.truncated
        #expect(truncated == 1)
    }

    /// Twenty datagrams of one size and a shorter one go through the kernel once and arrive as one train.
    @Test(arguments: engines, loopbackAddresses)
    func `a train arrives whole with its segment size`(engine: EngineKind, address: SocketAddress) throws {
        var options = DatagramSocket.Options()
        options.coalesces = true
        var sender = try Endpoint(engine, boundTo: address, options: options)
        var receiver = try Endpoint(engine, boundTo: address, options: options)
        let segments = sender.engine.segments(sender.socket)
        try #require(segments, "this kernel has no UDP_SEGMENT")
        let appended = sender.outgoing.appendTrain(to: receiver.address, segmentSize: 300) { packet in
            for index in 0..<20 {
                packet.append(UInt32(index))
                packet.append(zeros: 296)
            }
            packet.append(UInt32(20))
        }
        #expect(appended)
        sender.flush()
        #expect(sender.statistics.sent == 21)
        let train = try one(receiver.collect(1))
        #expect(train.datagram.length == 20 * 300 + 4)
        #expect(train.datagram.segmentSize == 300)
        #expect(train.datagram.segmentCount == 21)
        for index in 0..<21 {
            let range = train.datagram.segment(index)
            #expect(range.count == (index < 20 ? 300 : 4))
            let number = receiver.incoming.bytes(0, range).u32(0)
            #expect(number == UInt32(index))
        }
    }

    /// What the kernel does not cut is cut here: the same datagrams, in the same order.
    @Test(arguments: engines, loopbackAddresses)
    func `without segmentation a train leaves as single datagrams`(engine: EngineKind, address: SocketAddress) throws {
        var sender = try Endpoint(engine, boundTo: address, options: .init(coalesces: true, segments: false))
        var receiver = try Endpoint(engine, boundTo: address, options: .init(coalesces: true))
        let segments = sender.engine.segments(sender.socket)
        #expect(!segments)
        sender.enqueue([1, 2, 3], to: receiver.address)
        let appended = sender.outgoing.appendTrain(to: receiver.address, segmentSize: 300) { packet in
            for index in 0..<4 {
                packet.append(UInt32(index))
                packet.append(zeros: 296)
            }
            packet.append(UInt32(4))
        }
        #expect(appended)
        sender.enqueue([4], to: receiver.address)
        sender.flush()
        #expect(sender.statistics.sent == 7)
        let received = receiver.collect(7)
        #expect(received.map(\.bytes.count) == [3, 300, 300, 300, 300, 4, 1])
        #expect(received.allSatisfy { $0.datagram.segmentCount == 1 })
        #expect(received.dropFirst().prefix(5).map { $0.bytes[3] } == [0, 1, 2, 3, 4])
    }

    /// A receiver that does not ask for trains gets plain datagrams.
    @Test(arguments: engines)
    func `a train reaches a plain receiver as datagrams`(engine: EngineKind) throws {
        var sender = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var receiver = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        let appended = sender.outgoing.appendTrain(to: receiver.address, segmentSize: 10) { $0.append(zeros: 35) }
        #expect(appended)
        sender.flush()
        #expect(receiver.collect(4).map(\.bytes.count) == [10, 10, 10, 5])
    }

    @Test(arguments: engines)
    func `the kernel's time of arrival comes with the datagram`(engine: EngineKind) throws {
        var options = DatagramSocket.Options()
        options.timestamps = true
        var sender = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var receiver = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0), options: options)
        let before = wallClock()
        sender.send([1], to: receiver.address)
        let received = try one(receiver.collect(1))
        let arrival = try #require(received.datagram.arrival)
        #expect(arrival >= before && arrival <= wallClock())
        #expect(sender.collectPresent().isEmpty)
    }

    /// The receiver sleeps while far more arrives than its buffer takes; afterwards the kernel tells how many were lost.
    @Test(arguments: engines)
    func `datagrams lost in the socket's buffer are counted by the kernel`(engine: EngineKind) throws {
        let small = DatagramSocket.Options(receiveBufferSize: 4096)
        var sender = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var receiver = try Endpoint(engine, DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0), options: small), slots: 64)
        for _ in 0..<200 { sender.send([UInt8](repeating: 0, count: 1000), to: receiver.address) }
        var shown = 0
        while true {
            let present = receiver.collectPresent()
            if present.isEmpty { break }
            shown += present.count
        }
        sender.send([1], to: receiver.address)
        let last = try one(receiver.collect(1))
        #expect(shown < 200)
        #expect(Int(last.datagram.dropped) == 200 - shown)
    }
}

@Suite struct HandOverTests {
    /// Thirty datagrams come; the worker has seen ten when it is told to stop. It still gets what the engine had read already, the
    /// successor gets the rest and what comes later, and nothing is lost or seen twice.
    @Test(arguments: engines)
    func `a worker that stops reading leaves the rest to its successor`(engine: EngineKind) throws {
        var client = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        let socket = try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0))
        let address = socket.localAddress
        let inherited = try socket.descriptor.duplicate()
        var old = try DatagramEngine(engine, socketCapacity: 1, descriptorCapacity: 4)
        var batch = ReceiveBatch(capacity: 10, slots: 16)
        let handle = try old.add(socket, receivingInto: batch, tag: 1)
        for index in 0..<30 { client.send([UInt8(index)], to: address) }
        var seen: [UInt8] = []
        old.wait(until: .never)
        old.receive(from: handle, into: &batch)
        for index in 0..<batch.count { seen.append(batch.bytes(index).byte(0)) }
        old.stopReceiving(on: handle)
        client.send([30], to: address)
        while old.receive(from: handle, into: &batch) > 0 {
            for index in 0..<batch.count { seen.append(batch.bytes(index).byte(0)) }
        }
        _ = old.remove(handle)
        var successor = try Endpoint(engine, DatagramSocket(adopting: inherited))
        seen += successor.collect(31 - seen.count).map { $0.bytes[0] }
        #expect(seen == (0..<31).map { UInt8($0) })
    }

    /// An empty datagram, after which io_uring ends a multishot receive, is shown as one and stops nothing.
    @Test(arguments: engines)
    func `empty datagrams do not stop a socket`(engine: EngineKind) throws {
        var client = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var server = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        for round in 0..<20 {
            sendEmptyDatagram(toIPv4Loopback: server.address.port)
            sendEmptyDatagram(toIPv4Loopback: server.address.port)
            client.send([UInt8(round)], to: server.address)
            #expect(server.collect(3).map(\.bytes) == [[], [], [UInt8(round)]])
        }
    }

    /// The smallest memory an engine can have: a batch of four and four slots. Everything comes, in fours.
    @Test(arguments: engines)
    func `a batch that holds every slot does not stop the socket`(engine: EngineKind) throws {
        var client = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var server = try DatagramEngine(engine, socketCapacity: 1, descriptorCapacity: 4)
        var batch = ReceiveBatch(capacity: 4, slots: 4)
        let socket = try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0))
        let address = socket.localAddress
        let handle = try server.add(socket, receivingInto: batch, tag: 1)
        for index in 0..<50 { client.send([UInt8(index)], to: address) }
        client.send([50], to: address)
        var seen: [UInt8] = []
        let end = MonotonicClock.now() + .seconds(5)
        while seen.count < 51, MonotonicClock.now() < end {
            server.wait(until: end)
            while server.nextEvent() != nil {}
            server.receive(from: handle, into: &batch)
            for index in 0..<batch.count where !batch.bytes(index).isEmpty { seen.append(batch.bytes(index).byte(0)) }
        }
        #expect(seen == (0..<51).map { UInt8($0) })
    }

    /// A socket's place in the engine is used again by another socket with other memory.
    @Test(arguments: engines)
    func `a removed socket makes room for another`(engine: EngineKind) throws {
        var client = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var server = try DatagramEngine(engine, socketCapacity: 1, descriptorCapacity: 4)
        for round in 0..<5 {
            var batch = ReceiveBatch(capacity: 4)
            let handle = try server.add(DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0)), receivingInto: batch, tag: 1)
            client.send([UInt8(round)], to: server.localAddress(of: handle))
            server.wait(until: MonotonicClock.now() + .seconds(5))
            let event = server.nextEvent()
            #expect(event?.tag == 1)
            let count = server.receive(from: handle, into: &batch)
            #expect(count == 1)
            let first = batch.bytes(0).byte(0)
            #expect(first == UInt8(round))
            _ = server.remove(handle)
        }
    }
}

@Suite struct LendingTests {
    @Test(arguments: engines)
    func `bytes are sent from where they lie, alone and as a train`(engine: EngineKind) throws {
        var sender = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var receiver = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        let bytes = (0..<100).map { UInt8($0) }
        var taken = sender.lend(bytes, 0..<10, segmentSize: 0, to: receiver.address)
        taken = taken && sender.lend(bytes, 10..<45, segmentSize: 10, to: receiver.address)
        #expect(taken)
        let empty = sender.lend(bytes, 5..<5, segmentSize: 0, to: receiver.address)
        #expect(!empty)
        sender.flush()
        withExtendedLifetime(bytes) {}
        let received = receiver.collect(5).map(\.bytes)
        #expect(received == [Array(0..<10), Array(10..<20), Array(20..<30), Array(30..<40), Array(40..<45)])
        #expect(sender.statistics.sent == 5)
    }
}

@Suite struct WholeDatagramTests {
    @Test func `a socket leaves whole only where it is asked to`() throws {
        let usual = try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0)).leavesWhole
        #expect(!usual)
        for address in [SocketAddress(.v4Loopback, port: 0), SocketAddress(.v6Any, port: 0)] {
            let asked = try DatagramSocket(boundTo: address, options: .init(leavesWhole: true)).leavesWhole
            #expect(asked)
        }
    }

    /// A datagram and a train that are longer than the network takes arrive in fragments, and their neighbours as ever.
    @Test(.enabled(if: mayMakeNetworks), arguments: engines)
    func `what is too long to leave whole is fragmented`(engine: EngineKind) {
        let ran = withNetworkOfItsOwn(mtu: 1500) {
            do {
                var sender = try Endpoint(
                    engine, DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0), options: .init(leavesWhole: true)),
                    payloadCapacity: 8192, sendSlotSize: 8192)
                var receiver = try Endpoint(engine, DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0)), payloadCapacity: 8192)
                sender.enqueue([1], to: receiver.address)
                sender.enqueue([UInt8](repeating: 2, count: 3000), to: receiver.address)
                sender.enqueue([3], to: receiver.address)
                let appended = sender.outgoing.appendTrain(to: receiver.address, segmentSize: 2000) { packet in
                    for _ in 0..<4100 { packet.append(UInt8(4)) }
                }
                #expect(appended)
                sender.enqueue([5], to: receiver.address)
                sender.flush()
                // io_uring hears of a refusal last.
                #expect(receiver.collect(7).map(\.bytes.count).sorted() == [1, 1, 1, 100, 2000, 2000, 3000])
                #expect(sender.statistics.sent == 7)
                #expect(sender.statistics.dropped == 0)
                let stillWhole = sender.engine.remove(sender.socket).leavesWhole
                #expect(stillWhole)
            } catch { Issue.record(error) }
        }
        #expect(ran)
    }
}

@Suite struct SendFailureTests {
    /// A connected socket hears the ICMP error of a datagram when it sends the next. That one is sent again, and the rest of the
    /// batch, to somebody else, arrives.
    @Test(arguments: engines)
    func `an ICMP refusal does not end a batch`(engine: EngineKind) throws {
        let nobody = try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0)).localAddress
        let socket = try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0))
        try socket.connect(to: nobody)
        var sender = try Endpoint(engine, socket)
        var receiver = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        sender.send([1], to: nobody)
        for _ in 0..<3 { sender.enqueue([1], to: nobody) }
        for index in 0..<10 { sender.enqueue([UInt8(index)], to: receiver.address) }
        sender.flush()
        #expect(receiver.collect(10).map(\.bytes) == (0..<10).map { [UInt8($0)] })
        #expect(sender.statistics.retried >= 1)
        #expect(sender.statistics.sent == 14)
        #expect(sender.statistics.dropped == 0)
    }

    /// A socket that is not connected hears of ICMP errors only where it asks for them. They say to whom something was sent, cost the batches
    /// around them nothing, and once they are read the socket is quiet again.
    @Test(arguments: engines, loopbackAddresses)
    func `who does not listen is named`(engine: EngineKind, address: SocketAddress) throws {
        let nobody = try DatagramSocket(boundTo: address).localAddress
        var sender = try Endpoint(engine, boundTo: address, options: .init(reportsErrors: true))
        var receiver = try Endpoint(engine, boundTo: address)
        var named = 0
        for round in 0..<20 {
            sender.enqueue([UInt8(round), 0], to: receiver.address)
            sender.enqueue([9], to: nobody)
            sender.enqueue([UInt8(round), 1], to: receiver.address)
            sender.flush()
            while let report = sender.engine.nextErrorReport(on: sender.socket) {
                #expect(report.destination == nobody && report.isRefusal)
                named += 1
            }
        }
        let received = receiver.collect(40).map(\.bytes)
        #expect(received == (0..<20).flatMap { [[UInt8($0), 0], [UInt8($0), 1]] })
        expectEqual(sender.statistics.dropped, 0)
        // Kernels send a burst of them, then a few a second.
        #expect(named >= 1)
        // What came after the last look is seen by a wait, and is gone with the next look.
        _ = sender.collectPresent()
        while sender.engine.nextErrorReport(on: sender.socket) != nil {}
        _ = sender.collectPresent()
        var events = 0
        sender.engine.wait(until: .zero)
        while sender.engine.nextEvent() != nil { events += 1 }
        #expect(events == 0)
        // Without asking, nothing is said.
        var silent = try Endpoint(engine, boundTo: address)
        silent.send([9], to: nobody)
        #expect(silent.engine.nextErrorReport(on: silent.socket) == nil)
    }

    /// An IPv4 socket cannot reach an IPv6 address, and nothing takes 65,500 bytes to an unroutable port 0: those datagrams are
    /// counted under their error, and their neighbours arrive.
    @Test(arguments: engines)
    func `a datagram that cannot be sent is counted and its neighbours are sent`(engine: EngineKind) throws {
        var sender = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var receiver = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        sender.enqueue([1], to: receiver.address)
        sender.enqueue([2], to: SocketAddress(.v6Loopback, port: 9))
        sender.enqueue([3], to: receiver.address)
        sender.enqueue([4], to: SocketAddress(.v4Loopback, port: 0))
        sender.enqueue([5], to: receiver.address)
        sender.flush()
        #expect(receiver.collect(3).map(\.bytes) == [[1], [3], [5]])
        #expect(sender.statistics.sent == 3)
        #expect(sender.statistics.dropped == 2)
        let failures = sender.outgoing.failures(.invalidArgument)
        #expect(failures >= 1)
        let destination = try #require(sender.statistics.lastFailedDestination)
        #expect(destination == SocketAddress(.v4Loopback, port: 0))
    }
}

@Suite struct PauseTests {
    /// Pauses for `length`, again where a signal of another test has ended it; true when a socket has ended it.
    private func pause(_ engine: inout DatagramEngine, for length: Interval, hearsAlarms: Bool) -> Bool {
        let end = MonotonicClock.now() + length
        while MonotonicClock.now() < end {
            if engine.pause(until: end, hearsAlarms: hearsAlarms) { return true }
        }
        return false
    }

    /// A pause lasts, whatever comes, unless it may hear of this socket; over io_uring it lasts in any case. What came is received afterwards.
    @Test(arguments: engines)
    func `a pause ends early for a socket that may end it, and for no other`(engine: EngineKind) throws {
        var client = try Endpoint(engine, boundTo: SocketAddress(.v4Loopback, port: 0))
        var server = try DatagramEngine(engine, socketCapacity: 2, descriptorCapacity: 4)
        var quiet = ReceiveBatch(capacity: 4)
        var loud = ReceiveBatch(capacity: 4)
        let quietSocket = try server.add(DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0)), receivingInto: quiet, tag: 1)
        var canHear = server.hasAlarms
        #expect(!canHear)
        let loudSocket = try server.add(
            DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0)), receivingInto: loud, tag: 2, endsPauses: true)
        let hears = engine == .epoll
        canHear = server.hasAlarms
        #expect(canHear == hears)

        client.send([1], to: server.localAddress(of: quietSocket))
        var wasEnded = pause(&server, for: .milliseconds(5), hearsAlarms: true)
        #expect(!wasEnded)
        client.send([2], to: server.localAddress(of: loudSocket))
        wasEnded = pause(&server, for: .milliseconds(5), hearsAlarms: false)
        #expect(!wasEnded)
        wasEnded = pause(&server, for: hears ? .seconds(600) : .milliseconds(1), hearsAlarms: true)
        #expect(wasEnded == hears)

        // Without a wait before.
        let counts = [server.receive(from: loudSocket, into: &loud), server.receive(from: quietSocket, into: &quiet)]
        try #require(counts == [1, 1])
        let bytes = [loud.bytes(0).byte(0), quiet.bytes(0).byte(0)]
        #expect(bytes == [2, 1])

        // A socket that is no longer read ends nothing.
        server.stopReceiving(on: loudSocket)
        client.send([3], to: server.localAddress(of: loudSocket))
        wasEnded = pause(&server, for: .milliseconds(1), hearsAlarms: true)
        #expect(!wasEnded)
    }
}
