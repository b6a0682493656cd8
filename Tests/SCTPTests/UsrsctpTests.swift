import Primitives
import SCTP
import Testing
import TestSupport

/// Against an implementation that is not ours.
@Suite(.serialized) struct WithUsrsctp {
    struct Opening: Sendable, CustomStringConvertible {
        let weInitiate: Bool
        let both: Bool
        var description: String { both ? "both initiate" : weInitiate ? "we initiate" : "usrsctp initiates" }
        static let all = [
            Opening(weInitiate: true, both: false), Opening(weInitiate: false, both: false), Opening(weInitiate: true, both: true),
        ]
    }

    @Test(arguments: Opening.all) func `the handshake ends well whoever begins`(opening: Opening) {
        let network = MixedNetwork(weInitiate: opening.weInitiate, both: opening.both)
        #expect(network.establish())
        network.run(.seconds(2))
        #expect(network.ours.events == [.established])
        #expect(!network.theirs.isDown)
    }

    @Test(arguments: Opening.all) func `channels open and carry messages of all kinds both ways`(opening: Opening) throws {
        let network = MixedNetwork(weInitiate: opening.weInitiate, both: opening.both)
        #expect(network.establish())
        let id = network.ours.openChannel("from us")
        network.ours.send(Array("text".utf8), isBinary: false, on: id)
        network.ours.send([], isBinary: false, on: id)
        network.ours.send([], isBinary: true, on: id)
        network.ours.send([1, 2, 3], on: id)
        let opened = network.theirs.openChannel("from them", stream: 1)
        #expect(opened)
        network.run(.seconds(1))
        let protocols = network.theirs.received.map(\.protocolID)
        #expect(protocols == [50, 51, 56, 57, 53, 50])
        let open = try #require(network.theirs.received.first)
        #expect(open.bytes == [3, 0, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0] + Array("from us".utf8))
        #expect(network.theirs.received[5].bytes == [2] && network.theirs.received[5].stream == 1)
        #expect(network.ours.events.contains(.channelOpened(id: 1, label: "from them", protocol: "")))
        // Their ACK of ours.
        let accepted = network.theirs.send([2], protocolID: 50, stream: id)
        let sent = (
            network.theirs.send(Array("hi".utf8), protocolID: 51, stream: 1), network.theirs.send([0], protocolID: 57, stream: 1),
            network.theirs.send([9], protocolID: 53, stream: id)
        )
        #expect(accepted && sent == (true, true, true))
        network.run(.seconds(1))
        #expect(network.ours.events.contains(.channelOpened(id: id, label: "from us", protocol: "")))
        #expect(network.ours.received.map(\.bytes) == [Array("hi".utf8), [], [9]])
        #expect(network.ours.received.map(\.isBinary) == [false, true, true])
    }

    struct Traffic: Sendable, CustomStringConvertible {
        let loss: Double
        let isOrdered: Bool
        let seed: UInt64
        var description: String { "\(Int(loss * 100)) % loss, \(isOrdered ? "ordered" : "unordered"), seed \(seed)" }
        static let all = [0, 0.02, 0.1].flatMap { loss in
            [true, false].flatMap { isOrdered in
                (1...(loss == 0 ? 1 : 4)).map { Traffic(loss: loss, isOrdered: isOrdered, seed: UInt64($0)) }
            }
        }
    }

    @Test(arguments: Traffic.all)
    func `messages of 1 B, 64 KiB and 250 KiB and ten thousand small ones go both ways, under loss and reordering`(traffic: Traffic) {
        let network = MixedNetwork(weInitiate: true, both: true, seed: UInt64(traffic.loss * 100) + 4 + traffic.seed)
        #expect(network.establish())
        let opened = network.theirs.openChannel("x", stream: 1, type: traffic.isOrdered ? 0 : 0x80)
        #expect(opened && network.run(.seconds(5)) { network.ours.opened("x") == 1 })
        network.loss = traffic.loss
        network.reordering = traffic.loss > 0 ? 0.1 : 0
        let sizes = [1, 65_536, 250 * 1024, 1, 262_144] + (0..<10_000).map { 1 + $0 % 200 }
        var (ours, theirs) = (0, 0)
        let done = network.run(.seconds(1200)) {
            while ours < sizes.count, network.ours.send(pattern(ours, sizes[ours]), on: 1) == .sent { ours += 1 }
            while theirs < sizes.count,
                network.theirs.send(
                    pattern(theirs, sizes[theirs]), protocolID: 53, stream: 1, isUnordered: !traffic.isOrdered)
            {
                theirs += 1
            }
            return network.ours.received.count == sizes.count && network.theirs.messages.count == sizes.count
        }
        #expect(done)
        let expected = sizes.indices.map { pattern($0, sizes[$0]) }
        let (us, them) = (network.ours.received.map(\.bytes), network.theirs.messages)
        if traffic.isOrdered {
            #expect(us == expected && them == expected)
        } else {
            #expect(Set(us) == Set(expected) && Set(them) == Set(expected))
        }
        #expect(network.ours.drops.allSatisfy { $0 == .unexpectedChunk })
    }

    @Test(arguments: [0, 0.2]) func `a channel closed by either side is closed on both, and its id can be used again`(loss: Double) {
        let network = MixedNetwork(weInitiate: true, both: true, seed: 3)
        #expect(network.establish())
        network.loss = loss
        let opened = network.theirs.openChannel("theirs", stream: 1) && network.theirs.openChannel("other", stream: 3)
        #expect(opened && network.run(.seconds(60)) { network.ours.opened("other") == 3 })
        // They close: the last message before it still comes.
        let closed = network.theirs.send([7], protocolID: 53, stream: 1) && network.theirs.resetOutgoing(1)
        #expect(closed)
        #expect(network.run(.seconds(60)) { network.ours.events.contains(.channelClosed(id: 1)) && network.theirs.incomingResets == [1] })
        #expect(network.ours.received.map(\.bytes) == [[7]])
        #expect(network.ours.send([1], on: 1) == .noChannel)
        // Once more on the same stream, whose numbers begin anew.
        let reopened = network.theirs.openChannel("again", stream: 1)
        #expect(reopened && network.run(.seconds(60)) { network.ours.opened("again") == 1 })
        // We close: what was sent before still arrives.
        network.ours.send(pattern(5, 100_000), on: 1)
        network.ours.sctp.closeChannel(1)
        #expect(network.run(.seconds(60)) { network.theirs.incomingResets == [1, 1] })
        #expect(network.theirs.messages == [pattern(5, 100_000)])
        let answered = network.theirs.resetOutgoing(1)
        #expect(answered)
        network.run(.seconds(20))
        #expect(network.ours.events.filter { $0 == .channelClosed(id: 1) }.count == 2)
        #expect(network.theirs.outgoingResets == [1, 1])
        // The other channel noticed nothing.
        network.ours.send([42], on: 3)
        network.run(.seconds(20))
        #expect(network.theirs.messages.last == [42])
    }

    @Test(arguments: [true, false]) func `messages that are given up are skipped, by them and by us`(isOrdered: Bool) {
        let network = MixedNetwork(weInitiate: true, both: true, seed: 9)
        #expect(network.establish())
        let opened = network.theirs.openChannel("lossy", stream: 1, type: isOrdered ? 1 : 0x81, limit: 0)
        #expect(opened && network.run(.seconds(5)) { network.ours.opened("lossy") == 1 })
        network.loss = 0.2
        let count = 400
        var sent = 0
        network.run(.seconds(60)) {
            guard sent < count else { return false }
            network.ours.send(pattern(sent, 3000), on: 1)
            _ = network.theirs.send(pattern(sent, 3000), protocolID: 53, stream: 1, isUnordered: !isOrdered, retransmissions: 0)
            sent += 1
            return false
        }
        network.loss = 0
        network.run(.seconds(20))
        // Reliable again, by having nothing to repeat: what comes last arrives on both sides.
        network.ours.send([1], on: 1)
        let last = network.theirs.send([1], protocolID: 53, stream: 1, retransmissions: 0)
        #expect(last)
        network.run(.seconds(5))
        let known = Dictionary(uniqueKeysWithValues: (0..<count).map { (pattern($0, 3000), $0) })
        for messages in [network.theirs.messages, network.ours.received.map(\.bytes)] {
            let numbers = messages.compactMap { known[$0] }
            #expect(numbers.count == messages.count - 1 && messages.last == [1])
            #expect(numbers.count > count / 5 && numbers.count < count)
            #expect(Set(numbers).count == numbers.count)
            if isOrdered { #expect(numbers == numbers.sorted()) }
        }
        let buffered = network.ours.sctp.bufferedAmount
        #expect(buffered == 0)
    }

    @Test(arguments: [true, false]) func `SHUTDOWN by either side ends both, after all data`(byUs: Bool) {
        let network = MixedNetwork(weInitiate: true, both: true, seed: 4)
        #expect(network.establish())
        let opened = network.theirs.openChannel("x", stream: 1)
        #expect(opened && network.run(.seconds(5)) { network.ours.opened("x") == 1 })
        network.ours.send(pattern(1, 200_000), on: 1)
        let sent = network.theirs.send(pattern(2, 200_000), protocolID: 53, stream: 1)
        #expect(sent)
        network.run(.milliseconds(20))
        if byUs { network.ours.sctp.close() } else { network.theirs.shutdown() }
        #expect(network.run(.seconds(30)) { network.ours.sctp.isOver && network.theirs.isDown })
        #expect(network.ours.events.last == .closed)
        #expect(network.theirs.messages == [pattern(1, 200_000)])
        #expect(network.ours.received.map(\.bytes) == [pattern(2, 200_000)])
    }

    @Test func `ABORT reaches them, and theirs reaches us`() {
        let network = MixedNetwork(weInitiate: true, both: true, seed: 4)
        #expect(network.establish())
        network.ours.sctp.abort()
        #expect(network.run(.seconds(1)) { network.theirs.isDown })
        let other = MixedNetwork(weInitiate: true, both: true, seed: 5)
        #expect(other.establish())
        other.theirs.abort()
        #expect(other.run(.seconds(1)) { other.ours.events.last == .failed(.abortedByPeer) })
    }

    @Test func `both sides' heartbeats are answered for ten minutes of silence`() {
        let network = MixedNetwork(weInitiate: true, both: true, seed: 4)
        #expect(network.establish())
        network.run(.seconds(600))
        let isUp = network.ours.sctp.isEstablished
        #expect(isUp && !network.theirs.isDown)
        #expect(network.ours.packetsSent > 40)
    }
}
