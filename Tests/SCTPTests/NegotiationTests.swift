import Primitives
import SCTP
import Testing
import TestSupport

/// What is used only when both sides said so.
@Suite struct Negotiation {
    private static let zeroChecksum: [UInt8] = [0x80, 1, 0, 8, 0, 0, 0, 1]

    @Test func `between two that leave the checksum to DTLS, only the handshake carries one`() {
        let network = Network()
        var checksums: [UInt8: Set<Bool>] = [:]
        network.filter = { _, packet in
            checksums[packet[12], default: []].insert(packet[8..<12] != [0, 0, 0, 0])
            return true
        }
        let id = network.a.openChannel("x")
        network.a.send(pattern(1, 5000), on: id)
        network.run(.seconds(1))
        network.a.sctp.closeChannel(id)
        network.run(.seconds(1))
        #expect(network.b.received.map(\.bytes) == [pattern(1, 5000)])
        for type: UInt8 in [1, 2, 10] { #expect(checksums[type] == [true]) }
        for type: UInt8 in [0, 3, 130] { #expect(checksums[type] == [false]) }
    }

    @Test(arguments: [[], [0x80, 1, 0, 8, 0, 0, 0, 2], [0x80, 1, 0, 4], zeroChecksum])
    func `a peer that did not ask for it, or asked for another method, gets checksums`(parameter: [UInt8]) {
        let side = Self.established(by: Self.initiation(parameter))
        _ = side.openChannel("x")
        let packets = Self.packets(side)
        #expect(packets.count == 1)
        #expect(packets.allSatisfy { ($0[8..<12] == [0, 0, 0, 0]) == (parameter == Self.zeroChecksum) })
    }

    /// Pion of before 2024 drops a chunk with a parameter that it does not know.
    @Test(arguments: [[], zeroChecksum])
    func `INIT ACK says of checksums only what the INIT has said`(parameter: [UInt8]) {
        let now = Instant.zero + .seconds(3600)
        let side = Endpoint(SCTPAssociation(peerMaxMessageSize: 0, isClientOfDTLS: true, seed: 1, isPassive: true, at: now))
        var packet = PacketMaker(tag: 0)
        packet.chunk(1, 0, Array(Self.initiation(parameter).dropFirst(4)))
        side.receive(packet.bytes, at: now)
        let replies = Self.packets(side)
        #expect(replies.count == 1 && replies[0][12] == 2)
        // Behind the cookie, which may hold any bytes: 12 of the packet, 20 of the chunk, 68.
        let parameters = replies[0].dropFirst(100)
        #expect(parameters.indices.contains { parameters[$0...].starts(with: Self.zeroChecksum) } == (parameter == Self.zeroChecksum))
    }

    @Test func `INIT and COOKIE ECHO without a checksum are dropped`() {
        let network = Network(bIsPassive: true)
        network.filter = { _, packet in packet[12] != 10 }
        network.run(.milliseconds(100))
        for type: UInt8 in [1, 10] {
            var packet = PacketMaker(tag: 0)
            packet.chunk(type, 0, [UInt8](repeating: 1, count: 64))
            var bytes = packet.bytes
            bytes.replaceSubrange(8..<12, with: [0, 0, 0, 0])
            network.b.receive(bytes, at: network.now)
            #expect(network.b.drops.popLast() == .wrongChecksum)
        }
    }

    @Test func `an INIT chunk of SDP that is broken is refused, and the handshake goes on without it`() {
        let good = Self.initiation([])
        var bad: [[UInt8]] = (0..<20).map { Array(good.prefix($0)) }
        // Another chunk; lengths that do not fit; no tag; no streams; no window; a parameter that sticks out.
        for (place, value) in [(0, 2), (3, 19), (3, 24), (3, 16), (2, 1)] as [(Int, UInt8)] {
            var chunk = good
            chunk[place] = value
            bad.append(chunk)
        }
        for range in [4..<8, 8..<12, 12..<14, 14..<16] {
            var chunk = good
            chunk.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
            bad.append(chunk)
        }
        bad += [Self.initiation([0x80, 8, 0, 40]), Self.initiation([0x80, 8, 0, 3]), good + [0, 0, 0, 0]]
        let network = Network()
        for chunk in bad {
            let taken = network.a.sctp.establish(withPeerInit: chunk.span.bytes, at: network.now)
            #expect(!taken, "\(chunk)")
        }
        #expect(network.establish())
        // Too late for any.
        let taken = network.a.sctp.establish(withPeerInit: good.span.bytes, at: network.now)
        #expect(!taken)
        #expect(network.a.events == [.established])
    }

    @Test func `our INIT chunk for SDP stays the same, and is the one that is sent`() {
        let network = Network()
        let chunk = network.a.sctp.initChunk()
        let (first, again) = (network.a.transmit(at: network.now), network.a.sctp.initChunk())
        #expect(chunk == again)
        #expect(first?.dropFirst(12).prefix(chunk.count) == chunk[...])
        #expect(chunk[0] == 1 && Int(chunk[2]) << 8 | Int(chunk[3]) == chunk.count)
    }

    @Test(arguments: [0, 0.2]) func `without a handshake, a channel both agreed on carries messages at once, and can be closed`(
        loss: Double
    ) {
        let network = Network(seed: 5, weather: .init(loss: loss))
        for (side, chunk) in [(network.a, network.b.sctp.initChunk()), (network.b, network.a.sctp.initChunk())] {
            let done = side.sctp.establish(withPeerInit: chunk.span.bytes, at: network.now)
            let opened = side.sctp.openNegotiatedChannel(id: 9, isOrdered: true)
            #expect(done && opened)
            side.send(pattern(1, 250 * 1024), on: 9)
        }
        var handshakes = 0
        network.filter = { _, packet in
            if [1, 2, 10, 11].contains(packet[12]) { handshakes += 1 }
            return true
        }
        #expect(network.run(.seconds(300)) { network.a.received.count == 1 && network.b.received.count == 1 })
        #expect(network.a.received[0].bytes == pattern(1, 250 * 1024) && network.b.received[0].bytes == pattern(1, 250 * 1024))
        network.b.sctp.closeChannel(9)
        #expect(
            network.run(.seconds(60)) {
                network.a.events.contains(.channelClosed(id: 9)) && network.b.events.contains(.channelClosed(id: 9))
            })
        #expect(handshakes == 0)
    }

    @Test(arguments: [0, 0.3]) func `a peer that never took our INIT from SDP, and sends its own, comes to the same association`(
        loss: Double
    ) {
        let network = Network(seed: 6, weather: .init(loss: loss))
        let chunk = network.b.sctp.initChunk()
        let taken = network.a.sctp.establish(withPeerInit: chunk.span.bytes, at: network.now)
        #expect(taken)
        let own = network.a.openChannel("from the start")
        network.a.send([7], on: own)
        #expect(network.run(.seconds(30)) { network.b.sctp.isEstablished })
        let id = network.b.openChannel("x")
        network.b.send([1, 2], on: id)
        #expect(network.run(.seconds(30)) { network.a.received.map(\.bytes) == [[1, 2]] && network.b.received.map(\.bytes) == [[7]] })
        // Once for each side: nothing was replaced.
        #expect(network.a.events.filter { $0 == .established }.count == 1)
    }

    private static func initiation(_ parameters: [UInt8]) -> [UInt8] {
        [1, 0, 0, UInt8(20 + parameters.count), 1, 2, 3, 4, 0, 16, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 16] + parameters
    }

    private static func established(by chunk: [UInt8]) -> Endpoint {
        let now = Instant.zero + .seconds(3600)
        var sctp = SCTPAssociation(peerMaxMessageSize: 0, isClientOfDTLS: true, seed: 1, at: now)
        precondition(sctp.establish(withPeerInit: chunk.span.bytes, at: now))
        return Endpoint(sctp)
    }

    private static func packets(_ side: Endpoint) -> [[UInt8]] {
        var packets: [[UInt8]] = []
        while let packet = side.transmit(at: Instant.zero + .seconds(3600)) { packets.append(packet) }
        return packets
    }
}
