import Primitives
import SCTP
import Testing
import TestSupport

@Suite struct Checksums {
    @Test func `the checksum gives the values of RFC 3720 appendix B and the check value of the catalogues`() {
        let ascending = (0..<32).map { UInt8($0) }
        #expect(CRC32c.checksum([UInt8](repeating: 0, count: 32).span.bytes) == 0x8A91_36AA)
        #expect(CRC32c.checksum([UInt8](repeating: 0xFF, count: 32).span.bytes) == 0x62A8_AB43)
        #expect(CRC32c.checksum(ascending.span.bytes) == 0x46DD_794E)
        #expect(CRC32c.checksum(Array(ascending.reversed()).span.bytes) == 0x113F_DB5C)
        #expect(CRC32c.checksum(Array("123456789".utf8).span.bytes) == 0xE306_9283)
    }
}

@Suite struct Opening {
    @Test func `both sides send INIT at once and there is one association`() {
        let network = Network()
        #expect(network.establish())
        #expect(network.a.events == [.established] && network.b.events == [.established])
    }

    @Test func `a passive side answers`() {
        let network = Network(bIsPassive: true)
        #expect(network.establish())
    }

    @Test(arguments: 0..<40) func `any handshake packet may be lost, twice or late`(seed: Int) {
        let weather = Network.Weather(loss: 0.3, duplication: 0.3, jitter: .milliseconds(200))
        let network = Network(seed: UInt64(seed), weather: weather, bIsPassive: seed % 3 == 0)
        #expect(network.establish())
        network.run(.seconds(20))
        let events = (network.a.events, network.b.events)
        #expect(events.0 == [.established] && events.1 == [.established])
    }

    @Test func `nobody there is a failure after nine INITs`() {
        let network = Network()
        var packets = 0
        network.filter = { fromA, _ in
            packets += fromA ? 1 : 0
            return false
        }
        network.run(.seconds(300))
        #expect(network.a.events == [.failed(.handshakeTimeout)])
        #expect(packets == 9)
        #expect(network.a.sctp.nextDeadline == .never)
    }

    @Test func `a channel is opened by either side, with parity by the DTLS role`() {
        let network = Network()
        let first = network.a.openChannel("oai-events")
        let second = network.b.openChannel("grüße 🌍", isOrdered: false)
        network.run(.seconds(2))
        #expect(first == 0 && second == 1)
        let expected: [SCTPEvent] = [
            .channelOpened(id: 0, label: "oai-events", protocol: ""), .channelOpened(id: 1, label: "grüße 🌍", protocol: ""),
        ]
        for side in [network.a, network.b] {
            #expect(side.events.contains(expected[0]) && side.events.contains(expected[1]) && side.events.count == 3)
        }
    }

    @Test func `with both INITs known from SDP there is no handshake`() {
        let network = Network()
        let (fromA, fromB) = (network.a.sctp.initChunk(), network.b.sctp.initChunk())
        let taken = (
            network.a.sctp.establish(withPeerInit: fromB.span.bytes, at: network.now),
            network.b.sctp.establish(withPeerInit: fromA.span.bytes, at: network.now)
        )
        #expect(taken == (true, true))
        let isUp = network.a.sctp.isEstablished && network.b.sctp.isEstablished
        #expect(isUp)
        let id = network.a.openChannel("x")
        network.a.send([1, 2, 3], on: id)
        network.run(.milliseconds(21))
        #expect(network.b.received.map(\.bytes) == [[1, 2, 3]])
    }

    @Test func `Chromium's INIT from its SDP is taken`() throws {
        let chunk = try #require(Base64.decode("AQAAHoWN4vAAUAAA/////96LoqnAAAAEgAgABoLA"))
        let network = Network()
        let taken = network.a.sctp.establish(withPeerInit: chunk.span.bytes, at: network.now)
        #expect(taken)
    }

    @Test func `a channel both sides agreed on needs no words`() {
        let network = Network()
        let added = (
            network.a.sctp.openNegotiatedChannel(id: 77, isOrdered: true), network.b.sctp.openNegotiatedChannel(id: 77, isOrdered: true),
            network.b.sctp.openNegotiatedChannel(id: 77, isOrdered: true)
        )
        #expect(added == (true, true, false))
        network.b.send(Array("hello".utf8), isBinary: false, on: 77)
        network.run(.seconds(1))
        #expect(network.a.received.count == 1)
        #expect(network.a.received.first?.isBinary == false)
        #expect(network.a.events == [.established, .message(id: 77, isBinary: false, byteCount: 5)])
    }
}

@Suite struct Messages {
    @Test(arguments: [0, 1, 2, 1131, 1132, 1134, 1135, 1136, 1200, 4096, 65_536, 250 * 1024, 262_144])
    func `a message of any size goes through both ways`(size: Int) {
        let (network, id) = Network.connected()
        let message = pattern(size, size)
        #expect(network.a.send(message, isBinary: true, on: id) == .sent)
        #expect(network.b.send(message, isBinary: false, on: id) == .sent)
        network.run(.seconds(20)) { network.a.received.count == 1 && network.b.received.count == 1 }
        #expect(network.b.received.first?.bytes == message && network.b.received.first?.isBinary == true)
        #expect(network.a.received.first?.bytes == message && network.a.received.first?.isBinary == false)
        network.run(.seconds(1))
        let buffered = network.a.sctp.bufferedAmount
        #expect(buffered == 0)
    }

    @Test func `a message above the peer's maximum is refused here, and ends the association there`() {
        let (network, id) = Network.connected(maxMessageSize: 1000, peerMaxMessageSize: 1000)
        #expect(network.a.send(pattern(1, 1001), on: id) == .tooLarge)
        let (rude, rudeID) = Network.connected(maxMessageSize: 10_000, peerMaxMessageSize: 0)
        #expect(rude.a.send(pattern(1, 10_001), on: rudeID) == .sent)
        rude.run(.seconds(1))
        #expect(rude.b.events.last == .failed(.limitExceeded))
        #expect(rude.a.events.last == .failed(.abortedByPeer))
    }

    @Test func `a full send buffer blocks and frees itself`() {
        let (network, id) = Network.connected()
        var sent = 0
        while network.a.send(pattern(sent, 100_000), on: id) == .sent { sent += 1 }
        #expect(sent == 10)
        network.run(.seconds(60)) { network.b.received.count == sent }
        #expect(network.b.received.map(\.bytes) == (0..<sent).map { pattern($0, 100_000) })
        // What the burst needed is given back when the channel has been still.
        network.run(.seconds(60))
        let (buffered, memory) = (network.a.sctp.bufferedAmount, network.a.sctp.memory)
        #expect(buffered == 0)
        #expect(memory < 20_000)
    }

    @Test func `an owner that does not take its messages holds the peer back, and nothing is lost`() {
        let (network, id) = Network.connected()
        network.b.isBusy = true
        for number in 0..<10 { network.a.send(pattern(number, 100_000), on: id) }
        network.run(.seconds(100))
        #expect(network.b.peakMemory < 900_000)
        let held = network.a.sctp.bufferedAmount
        #expect(held > 300_000)
        let isUp = network.a.sctp.isEstablished && network.b.sctp.isEstablished
        #expect(isUp)
        network.b.isBusy = false
        network.run(.seconds(30)) { network.b.received.count == 10 }
        #expect(network.b.received.map(\.bytes) == (0..<10).map { pattern($0, 100_000) })
    }

    struct Run: Sendable, CustomStringConvertible {
        let loss: Double
        let isOrdered: Bool
        var description: String { "\(Int(loss * 100)) % loss, \(isOrdered ? "ordered" : "unordered")" }
    }

    @Test(arguments: [0, 0.02, 0.1, 0.2].flatMap { loss in [true, false].map { Run(loss: loss, isOrdered: $0) } })
    func `ten thousand small messages each way arrive once, under loss, repetition and reordering`(run: Run) {
        let weather = Network.Weather(loss: run.loss, duplication: 0.05, jitter: .milliseconds(run.loss == 0 ? 0 : 15))
        let (network, id) = Network.connected(UInt64(run.loss * 100) + 7, weather, isOrdered: run.isOrdered)
        let count = 10_000
        var sent = (a: 0, b: 0)
        let done = network.run(.seconds(4000)) {
            while sent.a < count, network.a.send(pattern(sent.a, 4 + sent.a % 90), on: id) == .sent { sent.a += 1 }
            while sent.b < count, network.b.send(pattern(sent.b, 4 + sent.b % 90), on: id) == .sent { sent.b += 1 }
            return network.a.received.count == count && network.b.received.count == count
        }
        #expect(done)
        let expected = (0..<count).map { pattern($0, 4 + $0 % 90) }
        for side in [network.a, network.b] {
            let got = side.received.map(\.bytes)
            if run.isOrdered {
                #expect(got == expected)
            } else {
                #expect(Set(got) == Set(expected) && got.count == count)
            }
            // A second COOKIE ACK, from the collision, is the only thing without a use.
            #expect(side.drops.allSatisfy { $0 == .unexpectedChunk } && side.drops.count < 5)
            #expect(side.peakMemory < 3_000_000)
        }
    }

    @Test(arguments: [0.02, 0.1, 0.2])
    func `large messages arrive whole and in order under loss`(loss: Double) {
        let weather = Network.Weather(loss: loss, duplication: 0.02, jitter: .milliseconds(10))
        let (network, id) = Network.connected(UInt64(loss * 1000), weather)
        let sizes = [262_144, 1, 65_536, 250 * 1024, 17, 262_144]
        var (sent, returned) = (0, 0)
        let done = network.run(.seconds(2000)) {
            while sent < sizes.count, network.a.send(pattern(sent, sizes[sent]), on: id) == .sent { sent += 1 }
            while returned < sizes.count, network.b.send(pattern(returned + 50, sizes[returned]), on: id) == .sent { returned += 1 }
            return network.a.received.count == sizes.count && network.b.received.count == sizes.count
        }
        #expect(done)
        #expect(network.b.received.map(\.bytes) == sizes.indices.map { pattern($0, sizes[$0]) })
        #expect(network.a.received.map(\.bytes) == sizes.indices.map { pattern($0 + 50, sizes[$0]) })
    }
}
