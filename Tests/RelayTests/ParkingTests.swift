// Packets of unknown sources while a cache is asked: in virtual time, with bounds that hold whatever comes.
import Primitives
import RelayCore
import RoutingHint
import TestSupport
import Testing
import Trunk

private func source(_ number: Int) -> SocketAddress {
    SocketAddress(IPAddress(v4: 0xC633_6400 | UInt32(number >> 8 & 0xFF)), port: UInt16(1024 + number % 60_000))
}

private let rtp: [UInt8] = [0x80, 0x6F, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xAA]

private struct Yard: ~Copyable {
    var lot: ParkingLot
    var now = Instant(nanoseconds: 1_000_000_000)

    init(_ change: (inout ParkingLimits) -> Void = { _ in }) {
        var limits = ParkingLimits()
        change(&limits)
        lot = ParkingLot(limits, key: SipKey(k0: 3, k1: 4), now: now)
    }

    mutating func park(_ number: Int, _ bytes: [UInt8] = rtp) -> Parking { lot.park(bytes.bytes, from: source(number), on: 1, at: now) }
    mutating func questions() -> [SocketAddress] {
        var all: [SocketAddress] = []
        while let next = lot.nextQuestion() { all.append(next) }
        return all
    }
}

@Suite struct `The parking lot` {
    @Test func `four packets of a source wait, in order, and make one question`() {
        var yard = Yard()
        for number in 0..<4 { #expect(yard.park(1, rtp + [UInt8(number)]) == .parked) }
        #expect(yard.park(1) == .tooMany)
        #expect(yard.questions() == [source(1)])
        let place = yard.lot.find(source(1))
        #expect(place != nil)
        for number in 0..<4 {
            let packet = yard.lot.packet(number, of: place ?? 0).array
            #expect(packet == rtp + [UInt8(number)])
        }
        let cleared = yard.lot.clear(place ?? 0)
        let left = yard.lot.count
        #expect(cleared == 4 && left == 0)
        #expect(yard.lot.find(source(1)) == nil)
    }

    @Test func `nobody waits for longer than the patience`() {
        var yard = Yard()
        _ = yard.park(1)
        yard.now = yard.now + .milliseconds(30)
        _ = yard.park(1)
        _ = yard.park(2)
        let first = yard.lot.nextDeadline
        #expect(first == Instant(nanoseconds: 1_050_000_000))
        yard.now = yard.now + .milliseconds(19)
        #expect(yard.lot.expire(at: yard.now) == 0)
        yard.now = yard.now + .milliseconds(1)
        #expect(yard.lot.expire(at: yard.now) == 2)
        let second = yard.lot.nextDeadline
        #expect(second == Instant(nanoseconds: 1_080_000_000))
        yard.now = second
        #expect(yard.lot.expire(at: yard.now) == 1)
        let last = yard.lot.nextDeadline
        #expect(last == .never)
    }

    @Test func `a source that nobody knows is left alone for a while, and then asked for again`() {
        var yard = Yard()
        _ = yard.park(1)
        #expect(yard.lot.refuse(source(1), at: yard.now) == 1)
        #expect(yard.park(1) == .negative)
        #expect(yard.park(2) == .parked)
        yard.now = yard.now + .milliseconds(1_999)
        #expect(yard.park(1) == .negative)
        yard.now = yard.now + .milliseconds(1)
        #expect(yard.park(1) == .parked)
    }

    @Test func `an unanswered source may ask again at once`() {
        var yard = Yard()
        _ = yard.park(1)
        #expect(yard.lot.drop(source(1)) == 1)
        #expect(yard.park(1) == .parked)
        #expect(yard.lot.drop(source(7)) == 0)
    }

    @Test func `questions cost, and time pays for them`() {
        var yard = Yard {
            $0.questionsPerSecond = 100
            $0.burst = 5
            $0.sources = 4096
        }
        let first = (0..<20).count { yard.park($0) == .parked }
        #expect(first == 5)
        yard.now = yard.now + .milliseconds(20)
        let second = (100..<120).count { yard.park($0) == .parked }
        #expect(second == 2)
        yard.now = yard.now + .seconds(3600)
        let third = (200..<220).count { yard.park($0) == .parked }
        #expect(third == 5)
    }

    @Test func `what is longer than a slot does not wait`() {
        var yard = Yard()
        #expect(yard.park(1, [UInt8](repeating: 0x80, count: ParkingLot.packetSize + 1)) == .tooMany)
        #expect(yard.park(1, [UInt8](repeating: 0x80, count: ParkingLot.packetSize)) == .parked)
    }

    @Test func `a flood of sources fills the lot and nothing else, and the lot is as good as new afterwards`() {
        var yard = Yard {
            $0.sources = 64
            $0.questionsPerSecond = 1_000_000
            $0.burst = 1_000_000
        }
        var random = SeededGenerator(seed: 5)
        var parked = 0
        var gone = 0
        for _ in 0..<50_000 {
            yard.now = yard.now + .microseconds(Int64(random.next() % 200))
            gone += yard.lot.expire(at: yard.now)
            if yard.park(Int(random.next() % 500)) == .parked { parked += 1 }
            if random.next() % 64 == 0, let asked = yard.lot.nextQuestion() { gone += yard.lot.refuse(asked, at: yard.now) }
            if random.next() % 8 == 0 { gone += yard.lot.drop(source(Int(random.next() % 500))) }
            let count = yard.lot.count
            #expect(count <= 64)
        }
        #expect(parked > 1_000)
        yard.now = yard.now + .seconds(10)
        gone += yard.lot.expire(at: yard.now)
        let left = yard.lot.count
        #expect(left == 0 && gone == parked)
        _ = yard.questions()
        #expect(yard.park(1) == .parked)
        #expect(yard.questions() == [source(1)])
    }
}

// MARK: - The relay with a cache

private let client = source(9)

extension Bench {
    fileprivate func questions() -> [SocketAddress] {
        var all: [SocketAddress] = []
        while let next = relay.nextQuestion() { all.append(next) }
        return all
    }

    fileprivate func memories() -> [(source: SocketAddress, ufrag: String)] {
        var all: [(SocketAddress, String)] = []
        while let next = relay.nextMemory() { all.append((next.source, next.ufrag.description)) }
        return all
    }

    fileprivate func confirm(_ source: SocketAddress, session: UInt32 = 1) {
        _ = downlink(.confirm, [Delivery(client: source, session: session, payload: [])])
    }
}

@Suite struct `Relay with a cache` {
    @Test func `media of an unknown source waits, and goes where the cache says`() {
        let bench = Bench(parking: ParkingLimits())
        let ufrag = bench.mint(session: 77).ufrag
        for number in 0..<3 { #expect(bench.receive(rtp + [UInt8(number)], client) == .parked) }
        #expect(bench.drain().isEmpty)
        #expect(bench.questions() == [client])
        bench.relay.recall(client, ufrag: Ufrag(ufrag)!, at: bench.now)
        let sent = bench.drain()
        #expect(sent.map(\.record) == (0..<3).map { Delivery(client: client, session: 77, payload: rtp + [UInt8($0)]) })
        #expect(sent.first?.header.worker == 5)
        #expect(bench.flowCount == 1 && bench.confirmedCount == 0)
        #expect(bench.receive(rtp, client) == .forwarded)
        let counters = bench.relay.counters
        #expect(counters.parked == 3 && counters.flowsRecalled == 1 && counters.forwarded == 4 && counters.questions == 1)
    }

    @Test func `without a cache nothing waits and nothing is remembered`() {
        let bench = Bench()
        #expect(bench.receive(rtp, client) == .dropped(.noFlow))
        _ = bench.receive(bench.check(bench.mint()), client)
        bench.confirm(client)
        #expect(bench.confirmedCount == 1 && bench.memories().isEmpty && bench.questions().isEmpty)
        bench.relay.recall(other, ufrag: Ufrag(bench.mint().ufrag)!, at: bench.now)
        #expect(bench.flowCount == 1)
    }

    private let other = source(10)

    @Test func `only media and DTLS wait: no check, no noise, nothing from nobody`() {
        let bench = Bench(parking: ParkingLimits())
        #expect(bench.receive(stunHeader(0x0101), client) == .dropped(.noFlow))
        #expect(bench.receive(stunHeader(), client) == .dropped(.noUsername))
        #expect(bench.receive(Array("GET / HTTP/1.1\r\n".utf8), client) == .dropped(.noFlow))
        #expect(bench.receive(rtp, Bench.publicAddress) == .dropped(.noFlow))
        #expect(bench.receive(rtp, SocketAddress(client.ip, port: 0)) == .dropped(.noFlow))
        #expect(bench.receive([0x16, 0xFE, 0xFF, 0, 0], client) == .parked)
        #expect(bench.questions() == [client])
    }

    @Test func `a check wins over what the cache says afterwards`() {
        let bench = Bench(parking: ParkingLimits())
        let old = bench.mint(session: 1).ufrag
        _ = bench.receive(rtp, client)
        let request = bench.check(bench.mint(session: 2))
        #expect(bench.receive(request, client) == .forwarded)
        bench.relay.recall(client, ufrag: Ufrag(old)!, at: bench.now)
        let sent = bench.drain()
        #expect(sent.map(\.record.session) == [2, 2])
        #expect(bench.flowCount == 1 && bench.relay.counters.flowsRecalled == 0)
    }

    @Test func `a check moves a flow that came from the cache`() {
        let bench = Bench(parking: ParkingLimits())
        _ = bench.receive(rtp, client)
        bench.relay.recall(client, ufrag: Ufrag(bench.mint(session: 1).ufrag)!, at: bench.now)
        #expect(bench.receive(bench.check(bench.mint(session: 2)), client) == .forwarded)
        #expect(bench.receive(rtp, client) == .forwarded)
        #expect(bench.drain().map(\.record.session) == [1, 2, 2])
    }

    @Test(arguments: ["expired", "cluster", "transceiver", "forged"])
    func `a ufrag that no check could bring is a miss`(kind: String) {
        let bench = Bench(parking: ParkingLimits())
        let text =
            switch kind {
            case "expired": bench.mint(mintedAt: 1_800_000_000 - 176_401).ufrag
            case "cluster": bench.mint(cluster: 8).ufrag
            case "transceiver": bench.mint(transceiver: 0xC0A8_0001).ufrag
            default: "B" + bench.mint().ufrag.dropFirst()
            }
        _ = bench.receive(rtp, client)
        bench.relay.recall(client, ufrag: Ufrag(text)!, at: bench.now)
        #expect(bench.flowCount == 0 && bench.dropped(.noFlow) == 1 && bench.drain().isEmpty)
    }

    @Test func `no answer, a late answer and an answer to nothing make no flow`() {
        let bench = Bench(parking: ParkingLimits())
        let ufrag = Ufrag(bench.mint().ufrag)!
        bench.relay.recall(client, ufrag: ufrag, at: bench.now)
        _ = bench.receive(rtp, client)
        let deadline = bench.relay.nextDeadline.instant
        #expect(deadline == bench.now + .milliseconds(50))
        bench.advance(.milliseconds(50))
        bench.relay.recall(client, ufrag: ufrag, at: bench.now)
        #expect(bench.flowCount == 0 && bench.dropped(.noFlow) == 1)
        #expect(bench.receive(rtp, client) == .parked)
        bench.relay.refuse(client, at: bench.now)
        #expect(bench.receive(rtp, client) == .dropped(.noFlow))
        #expect(bench.dropped(.noFlow) == 3)
        bench.advance(.seconds(2))
        #expect(bench.receive(rtp, client) == .parked)
        bench.relay.leaveUnanswered(client)
        #expect(bench.receive(rtp, client) == .parked)
    }

    @Test func `a confirmed flow is remembered, and again while it lives, an unconfirmed one never`() {
        let bench = Bench(parking: ParkingLimits())
        let credentials = bench.mint()
        _ = bench.receive(bench.check(credentials), client)
        _ = bench.receive(bench.check(bench.mint(session: 3)), other)
        #expect(bench.memories().isEmpty)
        bench.confirm(client)
        let first = bench.memories()
        #expect(first.count == 1 && first[0].source == client && first[0].ufrag == credentials.ufrag)
        bench.confirm(client)
        #expect(bench.memories().isEmpty)
        // Ten minutes of media: told again at least every idle time, and not much more often.
        var told = 0
        for _ in 0..<600 {
            bench.advance(.seconds(1))
            _ = bench.receive(rtp, client)
            told += bench.memories().count
            _ = bench.drain()
        }
        #expect((9...12).contains(told), "\(told) times in ten minutes")
        bench.advance(.seconds(70))
        bench.advance(.seconds(70))
        #expect(bench.flowCount == 0 && bench.memories().isEmpty)
    }

    @Test func `an ICE restart is remembered under its new ufrag`() {
        let bench = Bench(parking: ParkingLimits())
        _ = bench.receive(bench.check(bench.mint()), client)
        bench.confirm(client)
        _ = bench.memories()
        let restarted = bench.mint(mintedAt: 1_800_000_000 - 5)
        _ = bench.receive(bench.check(restarted), client)
        #expect(bench.confirmedCount == 1)
        #expect(bench.memories().map(\.ufrag) == [restarted.ufrag])
    }

    @Test func `more confirmed flows than the list holds are told later, none is told wrongly`() {
        let bench = Bench(capacity: 4096, parking: ParkingLimits())
        for number in 0..<3000 {
            _ = bench.receive(bench.check(bench.mint(session: UInt32(number))), source(number))
            bench.confirm(source(number), session: UInt32(number))
            if number % 50 == 0 { _ = bench.drain() }
        }
        #expect(bench.confirmedCount == 3000)
        var told = Set(bench.memories().map(\.source))
        #expect(told.count == 2048)
        for _ in 0..<75 {
            bench.advance(.seconds(1))
            for number in 0..<3000 {
                _ = bench.receive(rtp, source(number))
                if number % 50 == 0 { _ = bench.drain() }
            }
            told.formUnion(bench.memories().map(\.source))
        }
        #expect(told.count == 3000)
    }
}
