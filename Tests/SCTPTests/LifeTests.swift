import Primitives
import SCTP
import Testing
import TestSupport

@Suite struct Ending {
    @Test(arguments: [0, 0.2]) func `close waits for all data, both ways, and both sides see it`(loss: Double) {
        let (network, id) = Network.connected(11, .init(loss: loss))
        network.a.send(pattern(1, 200_000), on: id)
        network.b.send(pattern(2, 200_000), on: id)
        network.run(.milliseconds(30))
        network.a.sctp.close()
        #expect(network.a.send([1], on: id) == .noChannel)
        #expect(network.run(.seconds(120)) { network.a.sctp.isOver && network.b.sctp.isOver })
        #expect(network.a.events.last == .closed && network.b.events.last == .closed)
        #expect(network.b.received.map(\.bytes) == [pattern(1, 200_000)])
        #expect(network.a.received.map(\.bytes) == [pattern(2, 200_000)])
    }

    @Test func `both sides may close at once`() {
        let (network, _) = Network.connected(12)
        network.a.sctp.close()
        network.b.sctp.close()
        #expect(network.run(.seconds(20)) { network.a.sctp.isOver && network.b.sctp.isOver })
        #expect(network.a.events.last == .closed && network.b.events.last == .closed)
    }

    @Test func `a lost SHUTDOWN COMPLETE is sent again`() {
        let (network, _) = Network.connected(13)
        var lost = 0
        network.filter = { _, packet in
            guard packet[12] == 14, lost == 0 else { return true }
            lost += 1
            return false
        }
        network.a.sctp.close()
        #expect(network.run(.seconds(20)) { network.a.sctp.isOver && network.b.sctp.isOver })
        #expect(lost == 1 && network.b.events.last == .closed)
    }

    @Test func `ABORT ends the other side at once`() {
        let (network, id) = Network.connected(14)
        network.a.send(pattern(1, 200_000), on: id)
        network.a.sctp.abort()
        network.run(.seconds(1))
        #expect(network.a.events.last == .failed(.abortedLocally) && network.b.events.last == .failed(.abortedByPeer))
        let deadlines = (network.a.sctp.nextDeadline, network.b.sctp.nextDeadline)
        #expect(deadlines == (.never, .never))
        #expect(network.a.send([1], on: id) == .noChannel)
    }

    @Test func `a silent peer is given up: with data after eleven timeouts, without it by heartbeats`() {
        let (busy, id) = Network.connected(15)
        busy.filter = { _, _ in false }
        busy.a.send([1], on: id)
        let start = busy.now
        #expect(busy.run(.seconds(300)) { busy.a.events.last == .failed(.peerUnreachable) })
        #expect(busy.now - start < .seconds(80))

        let (idle, _) = Network.connected(16)
        idle.run(.seconds(5))
        idle.filter = { _, _ in false }
        #expect(idle.run(.seconds(400)) { idle.a.events.last == .failed(.peerUnreachable) && idle.b.sctp.isOver })
    }

    @Test func `an hour of silence costs a heartbeat every quarter of a minute`() {
        let (network, id) = Network.connected(17)
        let before = network.a.packetsSent
        network.run(.seconds(3600))
        #expect(network.a.packetsSent - before < 3600 / 15 * 2 + 10)
        network.b.send([5], on: id)
        network.run(.seconds(1))
        #expect(network.a.received.map(\.bytes) == [[5]])
    }

    @Test func `a peer that comes back with nothing replaces the association`() {
        let (network, id) = Network.connected(18)
        network.b.send(pattern(1, 50_000), on: id)
        // The same DTLS association, a new SCTP one behind it.
        network.a.sctp = SCTPAssociation(peerMaxMessageSize: 262_144, isClientOfDTLS: true, seed: 777, at: network.now)
        network.a.events = []
        network.a.received = []
        let again = network.a.openChannel("again")
        #expect(network.run(.seconds(20)) { network.a.opened("again") != nil })
        #expect(network.b.events.filter { $0 == .established }.count == 2)
        #expect(network.b.events.contains(.channelClosed(id: id)))
        network.a.send(pattern(2, 50_000), on: again)
        network.b.send(pattern(3, 50_000), on: again)
        network.run(.seconds(5))
        #expect(network.b.received.last?.bytes == pattern(2, 50_000))
        #expect(network.a.received.map(\.bytes) == [pattern(3, 50_000)])
    }
}

@Suite struct Channels {
    @Test(arguments: [0, 0.2]) func `closing is seen on both sides, after all messages, and the id is free again`(loss: Double) {
        let (network, id) = Network.connected(21, .init(loss: loss, jitter: .milliseconds(5)))
        for number in 0..<50 { network.a.send(pattern(number, 3000), on: id) }
        network.a.sctp.closeChannel(id)
        #expect(network.a.send([1], on: id) == .noChannel)
        let closed = SCTPEvent.channelClosed(id: id)
        #expect(network.run(.seconds(120)) { network.a.events.contains(closed) && network.b.events.contains(closed) })
        #expect(network.b.received.map(\.bytes) == (0..<50).map { pattern($0, 3000) })
        network.run(.seconds(10))
        let again = network.a.openChannel("again")
        #expect(again == id)
        network.a.send([1, 2], on: again)
        #expect(network.run(.seconds(60)) { network.b.opened("again") == id && network.b.received.last?.bytes == [1, 2] })
        #expect(network.a.events.filter { $0 == closed }.count == 1 && network.b.events.filter { $0 == closed }.count == 1)
    }

    @Test func `opened and closed a thousand times`() {
        let (network, _) = Network.connected(22)
        for round in 0..<1000 {
            let id = network.b.openChannel("round \(round)")
            network.b.send(pattern(round, 100), on: id)
            network.b.sctp.closeChannel(id)
            #expect(
                network.run(.seconds(10)) {
                    network.b.events.last == .channelClosed(id: id) && network.a.events.last == .channelClosed(id: id)
                })
        }
        #expect(network.a.received.map(\.bytes) == (0..<1000).map { pattern($0, 100) })
        let memory = network.a.sctp.memory
        #expect(memory < 20_000)
    }

    @Test func `the table is bounded, and what does not fit is closed again`() {
        let (network, _) = Network.connected(23)
        var ids: [UInt16] = []
        while let id = network.a.sctp.openChannel(label: "n", isOrdered: true) { ids.append(id) }
        #expect(ids.count == 47)
        // The other side's own count towards its table.
        for _ in 0..<47 { _ = network.b.openChannel("m") }
        network.run(.seconds(10))
        let (a, b) = (network.a.events, network.b.events)
        #expect(a.contains { if case .channelClosed = $0 { true } else { false } })
        #expect(b.contains { if case .channelClosed = $0 { true } else { false } })
        let isUp = network.a.sctp.isEstablished && network.b.sctp.isEstablished
        #expect(isUp)
    }

    @Test func `unordered messages overtake a lost one, ordered ones do not`() {
        for isOrdered in [true, false] {
            let (network, id) = Network.connected(24, isOrdered: isOrdered)
            network.run(.seconds(1))
            var lost = false
            network.filter = { fromA, packet in
                guard fromA, packet[12] == 0, !lost else { return true }
                lost = true
                return false
            }
            network.a.send([0], on: id)
            network.flush()
            network.a.send([1], on: id)
            network.a.send(pattern(9, 3000), on: id)
            network.run(.milliseconds(25))
            #expect(network.b.received.count == (isOrdered ? 0 : 2))
            network.run(.seconds(2))
            #expect(network.b.received.count == 3)
            #expect(network.b.received.first?.bytes == (isOrdered ? [0] : [1]))
        }
    }

    @Test func `a stream overtakes another one's lost message`() {
        let (network, first) = Network.connected(25)
        let second = network.a.openChannel("second")
        network.run(.seconds(1))
        var lost = false
        network.filter = { fromA, packet in
            guard fromA, packet[12] == 0, !lost else { return true }
            lost = true
            return false
        }
        network.a.send([0], on: first)
        network.flush()
        network.a.send([1], on: second)
        network.run(.milliseconds(25))
        #expect(network.b.received.map(\.id) == [second])
        network.run(.seconds(2))
        #expect(network.b.received.map(\.id) == [second, first])
    }
}
