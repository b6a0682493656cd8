// Whether a transceiver lives: what the relay learns by pings and by ICMP, and what it then drops.
import Primitives
import RelayCore
import RoutingHint
import TestSupport
import Testing
import Trunk

private let client = SocketAddress("198.51.100.7:50001")!
private let other = SocketAddress("198.51.100.8:50001")!
private let rtp: [UInt8] = [0x80, 0x6F, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xAA]
private let elsewhere: UInt32 = 0x0A00_0004

/// A ping that has left.
private struct Ping {
    var destination: SocketAddress
    var header: TrunkHeader
    var probe: TrunkProbe
}

extension Bench {
    /// What leaves, only pings.
    fileprivate func pings() -> [Ping] {
        var found: [Ping] = []
        var slot = ByteSlab(count: 1, slotSize: 65_536)
        while true {
            var transmit: TrunkTransmit?
            let length = slot.write(0, 0..<65_536) { transmit = relay.nextTransmit(into: &$0) }
            guard let transmit else { return found }
            guard let frame = try? TrunkFrame(parsing: slot.bytes(0, length), key: TrunkKey(ring.trunkKey)), let probe = frame.probe,
                frame.header.kind == .ping
            else { continue }
            found.append(Ping(destination: transmit.destination, header: frame.header, probe: probe))
        }
    }

    fileprivate func answer(_ ping: Ping, _ state: TrunkProbe.State = .serving, from address: SocketAddress? = nil) {
        var header = ping.header
        header.kind = .pong
        header.worker = header.ingressWorker
        var probe = ping.probe
        probe.state = state
        var bytes = [UInt8](repeating: 0, count: 64)
        var span = bytes.mutableSpan
        var target = span.mutableBytes
        let length = TrunkWriter.write(probe, header, key: TrunkKey(ring.trunkKey), to: &target)
        _ = relay.openTrunk(Array(bytes.prefix(length)).bytes, from: address ?? ping.destination, at: now)
    }

    /// A second of a call whose client speaks; the pings that leave.
    fileprivate func second(answering state: TrunkProbe.State? = .serving) -> [Ping] {
        var found: [Ping] = []
        for _ in 0..<50 {
            advance(.milliseconds(20))
            _ = receive(rtp, client)
            let pings = pings()
            if let state { for ping in pings { answer(ping, state) } }
            found += pings
        }
        return found
    }

    /// A confirmed flow of `client` at `transceiver`.
    fileprivate func call(_ client: SocketAddress, session: UInt32, transceiver: UInt32 = Bench.transceiver) {
        _ = receive(check(mint(session: session, transceiver: transceiver)), client)
        _ = downlink([Delivery(client: client, session: session, payload: rtp)])
    }
}

@Suite struct `Transceivers that live and die` {
    @Test func `who is sent to is asked once a second, at a worker that has sessions of ours`() throws {
        let bench = Bench(watch: WatchLimits())
        #expect(bench.second().isEmpty, "nobody is known yet")
        bench.call(client, session: 1)
        let pings = (0..<5).flatMap { _ in bench.second() }
        #expect((4...6).contains(pings.count))
        for ping in pings {
            #expect(ping.destination == Bench.trunkAddress)
            #expect(ping.header.worker == 5 && ping.header.transceiver == Bench.transceiver && ping.header.cluster == 7)
            #expect(ping.header.ingressRelay == 9 && ping.header.ingressWorker == 2)
        }
        #expect(bench.relay.watchedTransceivers.serving == 1)
    }

    @Test func `a pong that says draining is heard, and one that serves again`() {
        let bench = Bench(watch: WatchLimits())
        bench.call(client, session: 1)
        for _ in 0..<3 { _ = bench.second(answering: .draining) }
        #expect(bench.relay.watchedTransceivers == tally(draining: 1))
        #expect(bench.flowCount == 1, "its calls go on")
        for _ in 0..<3 { _ = bench.second() }
        #expect(bench.relay.watchedTransceivers == tally(serving: 1))
    }

    @Test func `how far away it is, and how many pings were answered, is known of each`() {
        let bench = Bench(watch: WatchLimits())
        bench.call(client, session: 1)
        var asked = 0
        for _ in 0..<3 {
            let pings = bench.second(answering: nil)
            bench.advance(.milliseconds(3))
            for ping in pings { bench.answer(ping) }
            asked += pings.count
        }
        let health = bench.relay.transceiverHealth(0)
        #expect(bench.relay.watchedCount == 1 && health.id == Bench.transceiver && health.state == .serving)
        #expect(health.pings == UInt64(asked) && health.pongs == UInt64(asked))
        // A second's pings are answered after that second.
        #expect(health.roundTrip.map { $0 >= .milliseconds(3) && $0 <= .milliseconds(1003) } == true)
    }

    @Test func `who has never answered a ping is not lost for it`() {
        let bench = Bench(watch: WatchLimits())
        bench.call(client, session: 1)
        for _ in 0..<30 { _ = bench.second(answering: nil) }
        #expect(bench.flowCount == 1 && bench.relay.watchedTransceivers == tally(serving: 1))
    }

    @Test func `ten seconds without an answer and its flows are dropped and counted; those of others stay`() {
        let bench = Bench(watch: WatchLimits())
        bench.call(client, session: 1)
        bench.call(other, session: 2, transceiver: elsewhere)
        for second in 0..<15 {
            for _ in 0..<50 {
                bench.advance(.milliseconds(20))
                _ = bench.receive(rtp, client)
                _ = bench.receive(rtp, other)
                for ping in bench.pings() where second < 2 || ping.header.transceiver == elsewhere { bench.answer(ping) }
            }
            if second == 10 { #expect(bench.flowCount == 2, "a trunk that is away for so long comes back") }
        }
        #expect(bench.flowCount == 1)
        #expect(bench.relay.watchedTransceivers == tally(serving: 1, lost: 1))
        #expect(bench.relay.counters.transceiversLost == 1 && bench.relay.counters.flowsOfLost == 1)
        #expect(bench.receive(rtp, client) == .dropped(.noFlow))
        #expect(bench.receive(rtp, other) == .forwarded)
    }

    @Test func `two ICMP messages with time between them, and no answer, are a death; one alone is not`() {
        let bench = Bench(watch: WatchLimits())
        bench.call(client, session: 1)
        _ = bench.second()
        bench.relay.noteUnreachable(Bench.trunkAddress, at: bench.now)
        bench.relay.noteUnreachable(Bench.trunkAddress, at: bench.now)
        for _ in 0..<3 { _ = bench.second() }
        #expect(bench.flowCount == 1, "it answered the ping that followed")

        bench.relay.noteUnreachable(Bench.trunkAddress, at: bench.now)
        bench.advance(.milliseconds(50))
        #expect(bench.pings().count == 1, "asked at once, not at the next second")
        bench.relay.noteUnreachable(Bench.trunkAddress, at: bench.now)
        bench.advance(.milliseconds(1))
        #expect(bench.flowCount == 0)
        #expect(bench.relay.counters.flowsOfLost == 1)
        #expect(bench.relay.watchedTransceivers == tally(lost: 1))
    }

    @Test func `checks still go to who is lost, and its first answer makes it one like any other`() {
        let bench = Bench(watch: WatchLimits())
        bench.call(client, session: 1)
        for second in 0..<15 { _ = bench.second(answering: second < 2 ? .serving : nil) }
        #expect(bench.flowCount == 0)
        #expect(bench.receive(bench.check(bench.mint(session: 3)), client) == .forwarded)
        #expect(bench.flowCount == 1)
        for _ in 0..<2 { _ = bench.second() }
        #expect(bench.relay.watchedTransceivers == tally(serving: 1))
        #expect(bench.flowCount == 1)
    }

    @Test func `pongs from elsewhere, from before and of nobody change nothing`() throws {
        let bench = Bench(watch: WatchLimits())
        bench.call(client, session: 1)
        for _ in 0..<2 { _ = bench.second() }
        var last: Ping?
        for _ in 0..<13 {
            for ping in bench.second(answering: nil) {
                bench.answer(ping, from: SocketAddress("10.0.0.9:4000")!)
                last = ping
            }
        }
        #expect(bench.relay.watchedTransceivers == tally(lost: 1))
        var forged = try #require(last)
        forged.probe.sequence += 1
        bench.answer(forged)
        forged = try #require(last)
        forged.probe.sentAt = bench.now.nanoseconds + 1
        bench.answer(forged)
        forged = try #require(last)
        forged.header.transceiver = 77
        bench.answer(forged)
        forged = try #require(last)
        forged.header.cluster = 8
        bench.answer(forged)
        #expect(bench.relay.watchedTransceivers == tally(lost: 1))
        bench.answer(try #require(last))
        #expect(bench.relay.watchedTransceivers == tally(serving: 1))
    }

    @Test func `a transceiver that nothing is sent to any more is forgotten, with its flows gone before`() {
        let bench = Bench(watch: WatchLimits())
        bench.call(client, session: 1)
        _ = bench.second()
        for _ in 0..<140 {
            bench.advance(.seconds(1))
            for ping in bench.pings() { bench.answer(ping) }
        }
        #expect(bench.flowCount == 0 && bench.relay.watchedTransceivers == tally())
        #expect(bench.relay.nextDeadline.instant == .never)
    }

    @Test func `a thousand transceivers and more: the rest is sent to and not watched`() {
        let bench = Bench(capacity: 4096, watch: WatchLimits())
        for number in 0..<1_100 {
            let address = SocketAddress(IPAddress(v4: 0xC633_0000 + UInt32(number)), port: 4000)
            _ = bench.receive(bench.check(bench.mint(session: UInt32(number), transceiver: 0x0A00_0100 + UInt32(number))), address)
            _ = bench.pings()
        }
        #expect(bench.relay.watchedTransceivers == tally(serving: 1_024))
        bench.advance(.seconds(2))
        var asked: Set<SocketAddress> = []
        for _ in 0..<40 {
            bench.advance(.zero)
            asked.formUnion(bench.pings().map(\.destination))
        }
        #expect(asked.count == 1_024)
    }

    @Test func `flows of who is lost are dropped a part at a time`() {
        let bench = Bench(capacity: 8192, watch: WatchLimits())
        for number in 0..<5_000 {
            let address = SocketAddress(IPAddress(v4: 0xC633_0000 + UInt32(number)), port: 4000)
            _ = bench.receive(bench.check(bench.mint(session: UInt32(number))), address)
            _ = bench.pings()
        }
        #expect(bench.flowCount == 5_000)
        bench.relay.noteUnreachable(Bench.trunkAddress, at: bench.now)
        bench.now = bench.now + .milliseconds(60)
        bench.relay.noteUnreachable(Bench.trunkAddress, at: bench.now)
        #expect(bench.flowCount == 5_000)
        bench.advance(.zero)
        #expect(bench.flowCount == 5_000 - 2_048)
        #expect(bench.relay.nextDeadline.instant <= bench.now)
        for _ in 0..<2 { bench.advance(.zero) }
        #expect(bench.flowCount == 0 && bench.relay.counters.flowsOfLost == 5_000)
    }

    private func tally(serving: Int = 0, draining: Int = 0, lost: Int = 0) -> WatchedTransceivers {
        var tally = WatchedTransceivers()
        tally.serving = serving
        tally.draining = draining
        tally.lost = lost
        return tally
    }
}
