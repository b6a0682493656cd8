// A hint that the relay has opened before is not opened again. Nobody may get anything by that.
import Primitives
import RelayCore
import RoutingHint
import TestSupport
import Testing
import Trunk

@Suite struct `Relay, hints seen before` {
    let thief = SocketAddress("192.0.2.66:6666")!

    /// A check of `credentials` that whoever has seen it has signed anew, without the key.
    func missigned(_ bench: Bench, _ credentials: (ufrag: String, password: String)) -> [UInt8] {
        bench.check((credentials.ufrag, String(credentials.password.reversed())))
    }

    func source(_ number: Int) -> SocketAddress { SocketAddress(IPAddress(v4: 0xC633_6400), port: UInt16(1000 + number)) }

    @Test func `a wrong signature stays wrong, before and after the right one`() {
        let bench = Bench()
        let credentials = bench.mint()
        for _ in 0..<3 { #expect(bench.receive(missigned(bench, credentials), thief) == .dropped(.wrongIntegrity)) }
        #expect(bench.receive(bench.check(credentials), source(1)) == .forwarded)
        for _ in 0..<3 { #expect(bench.receive(missigned(bench, credentials), thief) == .dropped(.wrongIntegrity)) }
        #expect(bench.flowCount == 1)
    }

    @Test func `each of more hints than are kept has its own password and its own way`() {
        let bench = Bench(capacity: 8192)
        let hints = (0..<1500).map { bench.mint(session: UInt32($0), transceiver: 0x0A00_0000 + UInt32($0)) }
        for round in 0..<2 {
            for (number, credentials) in hints.enumerated() {
                let neighbour = hints[(number + 1) % hints.count]
                #expect(
                    bench.receive(bench.check((credentials.ufrag, neighbour.password)), thief) == .dropped(.wrongIntegrity))
                #expect(bench.receive(bench.check(credentials), source(2 * number + round)) == .forwarded)
                let sent = bench.drain()
                #expect(sent.map(\.record.session) == [UInt32(number)])
                #expect(sent.map(\.header.transceiver) == [0x0A00_0000 + UInt32(number)])
            }
        }
    }

    @Test func `it grows old like any other`() {
        let bench = Bench()
        let credentials = bench.mint()
        #expect(bench.receive(bench.check(credentials), source(1)) == .forwarded)
        bench.advance(.seconds(3 * 86_400))
        #expect(bench.receive(bench.check(credentials), source(2)) == .dropped(.expiredHint))
    }

    @Test func `when its key is gone it is unknown`() {
        let bench = Bench()
        let credentials = bench.mint()
        #expect(bench.receive(bench.check(credentials), source(1)) == .forwarded)
        var random = SeededGenerator(seed: 7)
        var ring = bench.ring
        ring.rotate(keeping: 1, random: &random)
        bench.relay.replaceKeys(ring, trunkMTU: TrunkFormat.defaultMTU)
        #expect(bench.receive(bench.check(credentials), source(2)) == .dropped(.unknownHintKey))
    }

    @Test func `one of a transceiver that has left the table is refused`() throws {
        let table = try TransceiverDirectory(parsingTable: "3 10.0.0.3:4000")
        let bench = Bench(directory: table)
        let credentials = bench.mint(transceiver: 3)
        #expect(bench.receive(bench.check(credentials), source(1)) == .forwarded)
        bench.relay.replaceTransceivers(try TransceiverDirectory(parsingTable: "4 10.0.0.4:4000"))
        #expect(bench.receive(bench.check(credentials), source(2)) == .dropped(.unknownTransceiver))
    }

    @Test func `a message of more attributes than any client sends is malformed, however well it is signed`() {
        let bench = Bench()
        let request = bench.check(bench.mint())
        // Before all others, and of an unknown kind that may be passed over.
        func padded(_ count: Int) -> [UInt8] {
            var message = Array(request[..<20])
            for _ in 0..<count { message += [0x80, 0x7F, 0, 0] }
            message += request[20...]
            let length = message.count - 20
            message[2] = UInt8(length >> 8)
            message[3] = UInt8(length & 0xFF)
            return message
        }
        #expect(bench.receive(padded(20), thief) == .dropped(.wrongIntegrity))
        #expect(bench.receive(padded(40), thief) == .dropped(.malformedSTUN))
    }
}
