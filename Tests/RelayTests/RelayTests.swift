// Packets in, packets out: what the relay does with each kind of datagram, and what it then knows.
import Crypto
import Primitives
import RelayCore
import RoutingHint
import TestSupport
import Testing
import Trunk

/// One relay worker with a transceiver side that is only looked at.
final class Bench {
    static let transceiver: UInt32 = 0x0A00_0003
    static let trunkAddress = SocketAddress("10.0.0.3:4000")!
    static let publicAddress = SocketAddress("203.0.113.1:3478")!
    static let start = WallClock(secondsSince1970: 1_800_000_000)

    var relay: Relay
    var codec: HintCodec
    var now = Instant(nanoseconds: 5_000_000_000_000)
    var ring = wellKnownKeyRing()
    private var buffer = ByteSlab(count: 1, slotSize: 65_536)

    init(
        capacity: Int = 1024, directory: TransceiverDirectory? = nil, unconfirmedPerHint: Int = 16, cluster: UInt16 = 7,
        relayID: UInt16 = 9, relays: RelayDirectory = RelayDirectory(), parking: ParkingLimits? = nil, watch: WatchLimits? = nil
    ) {
        let direct = try! TransceiverDirectory(parsingDirect: "10.0.0.0/8:4000")
        var configuration = RelayConfiguration(
            cluster: cluster, relayID: relayID, worker: 2, transceivers: directory ?? direct, ownAddresses: [Self.publicAddress],
            flowCapacity: capacity)
        configuration.relays = relays
        configuration.flowLimits.unconfirmedPerHint = unconfirmedPerHint
        configuration.parking = parking
        configuration.watchLimits = watch
        relay = Relay(configuration, keys: ring, hashKey: SipKey(k0: 1, k1: 2), wall: Self.start, now: now)
        codec = HintCodec(ring)
    }

    func mint(
        session: UInt32 = 1, cluster: UInt16 = 7, transceiver: UInt32 = Bench.transceiver, worker: UInt8 = 5,
        mintedAt: UInt32 = 1_800_000_000
    ) -> (ufrag: String, password: String) {
        let ufrag = codec.mint(
            RoutingHint(cluster: cluster, transceiver: transceiver, worker: worker, mintedAt: mintedAt, session: session))
        return (ufrag.description, codec.icePassword(for: ufrag).text)
    }

    func check(_ credentials: (ufrag: String, password: String), _ client: ClientCheck = ClientCheck.all[0]) -> [UInt8] {
        client.request(ufrag: credentials.ufrag, password: credentials.password)
    }

    func receive(_ datagram: [UInt8], _ source: SocketAddress) -> RelayDisposition {
        relay.receive(datagram.bytes, from: source, at: now)
    }

    func advance(_ span: Interval) {
        now = now + span
        relay.advance(to: now)
    }

    /// Everything that leaves for the trunk, record by record.
    func drain() -> [(destination: SocketAddress, header: TrunkHeader, record: Delivery)] {
        var result: [(SocketAddress, TrunkHeader, Delivery)] = []
        while true {
            var transmit: TrunkTransmit?
            let length = buffer.write(0, 0..<65_536) { transmit = relay.nextTransmit(into: &$0) }
            guard let transmit else { return result }
            let size = transmit.segmentSize == 0 ? length : transmit.segmentSize
            for start in stride(from: 0, to: length, by: size) {
                let bytes = buffer.bytes(0, start..<min(start + size, length)).array
                guard let (header, records) = try? deliveries(bytes, key: ring.trunkKey) else { continue }
                for record in records { result.append((transmit.destination, header, record)) }
            }
        }
    }

    /// A frame as the transceiver would send it; what comes out towards clients.
    func downlink(_ records: [Delivery]) -> [Delivery] { downlink(.transceiverData, records) }

    func downlink(_ kind: TrunkKind, relay id: UInt16 = 9, _ records: [Delivery]) -> [Delivery] {
        let header = TrunkHeader(
            kind: kind, worker: 2, cluster: 7, transceiver: Self.transceiver, ingressRelay: id, ingressWorker: 2)
        return downlink(bytes: trunkFrame(header, records, key: ring.trunkKey))
    }

    func downlink(bytes: [UInt8]) -> [Delivery] {
        var result: [Delivery] = []
        guard var frame = relay.openTrunk(bytes.bytes, from: Self.trunkAddress, at: now) else { return [] }
        while let record = relay.nextDelivery(of: &frame, at: now) {
            result.append(Delivery(client: record.client, session: record.session, payload: record.payload.array))
        }
        return result
    }

    var flowCount: Int { relay.flows.count }
    var confirmedCount: Int { relay.flows.confirmedCount }
    func dropped(_ reason: RelayDropReason) -> UInt64 { relay.counters[reason] }
}

private let client = SocketAddress("198.51.100.7:50001")!
private let other = SocketAddress("[2001:db8::5]:40000")!
private let rtp: [UInt8] = [0x80, 0x6F, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xAA]
private let dtls: [UInt8] = [0x16, 0xFE, 0xFF, 0, 0]

@Suite struct `Relay, from a client` {
    @Test(arguments: ClientCheck.all) func `a real client's first check makes a flow and reaches its transceiver unchanged`(
        check: ClientCheck
    ) {
        let bench = Bench()
        let request = bench.check(bench.mint(session: 77), check)
        #expect(bench.receive(request, client) == .forwarded)
        let sent = bench.drain()
        #expect(sent.count == 1)
        #expect(sent.first?.destination == Bench.trunkAddress)
        #expect(
            sent.first?.header
                == TrunkHeader(kind: .clientData, worker: 5, cluster: 7, transceiver: Bench.transceiver, ingressRelay: 9, ingressWorker: 2))
        #expect(sent.first?.record == Delivery(client: client, session: 77, payload: request))
        #expect(bench.flowCount == 1)
    }

    @Test func `media and DTLS follow the check, in order and in one frame`() {
        let bench = Bench()
        let request = bench.check(bench.mint())
        for datagram in [request, dtls, rtp, request] { #expect(bench.receive(datagram, client) == .forwarded) }
        let sent = bench.drain()
        #expect(sent.map(\.record.payload) == [request, dtls, rtp, request])
        #expect(bench.relay.counters.framesSent == 1)
    }

    /// A row of the table: what comes from an address that has no flow, and what must become of it.
    struct Row: Sendable, CustomStringConvertible {
        let description: String
        let datagram: @Sendable (Bench) -> [UInt8]
        let expected: RelayDropReason
        init(_ description: String, _ expected: RelayDropReason, _ datagram: @escaping @Sendable (Bench) -> [UInt8]) {
            self.description = description
            self.datagram = datagram
            self.expected = expected
        }
    }

    static let rows: [Row] = [
        Row("nothing", .empty) { _ in [] },
        Row("media before any check", .noFlow) { _ in rtp },
        Row("DTLS before any check", .noFlow) { _ in dtls },
        Row("HTTP rubbish", .noFlow) { _ in Array("GET / HTTP/1.1\r\n\r\n".utf8) },
        Row("one byte of STUN", .malformedSTUN) { _ in [0] },
        Row("a check cut short", .malformedSTUN) { Array($0.check($0.mint()).dropLast()) },
        Row("a check with the wrong cookie", .malformedSTUN) {
            var bytes = $0.check($0.mint())
            bytes[4] ^= 1
            return bytes
        },
        Row("an attribute that overruns", .malformedSTUN) { _ in
            var bytes = stunHeader()
            append(0x0006, [1, 2, 3, 4], to: &bytes)
            bytes[23] = 5
            return bytes
        },
        Row("a Binding response", .noFlow) { _ in stunHeader(0x0101) },
        Row("a TURN Allocate request", .noFlow) { _ in stunHeader(0x0003) },
        Row("a request without attributes", .noUsername) { _ in stunHeader() },
        Row("a request without integrity", .noIntegrity) {
            var bytes = stunHeader()
            append(0x0006, Array("\($0.mint().ufrag):abcd".utf8), to: &bytes)
            return bytes
        },
        Row("a username after the integrity", .noUsername) {
            let credentials = $0.mint()
            var bytes = stunHeader()
            appendIntegrity(credentials.password, to: &bytes)
            append(0x0006, Array("\(credentials.ufrag):abcd".utf8), to: &bytes)
            return bytes
        },
        Row("two usernames: the first counts", .notAHint) {
            let credentials = $0.mint()
            var bytes = stunHeader()
            append(0x0006, Array("abcd:efgh".utf8), to: &bytes)
            append(0x0006, Array("\(credentials.ufrag):abcd".utf8), to: &bytes)
            appendIntegrity(credentials.password, to: &bytes)
            return bytes
        },
        Row("another server's ufrag", .notAHint) { $0.check(("vzMJ", "HDy7IeZ9stUlvkDMjV1b1heT")) },
        Row("a username without a colon", .notAHint) {
            let credentials = $0.mint()
            var bytes = stunHeader()
            append(0x0006, Array(credentials.ufrag.utf8), to: &bytes)
            appendIntegrity(credentials.password, to: &bytes)
            return bytes
        },
        Row("32 characters that nobody minted", .wrongHintTag) {
            $0.check((String(repeating: "A", count: 32), "HDy7IeZ9stUlvkDMjV1b1heT"))
        },
        Row("a key id that nobody has", .unknownHintKey) { $0.check(("H" + String(repeating: "A", count: 31), "x")) },
        Row("the right hint, the wrong password", .wrongIntegrity) { $0.check(($0.mint().ufrag, $0.mint(session: 2).password)) },
        Row("a changed transaction id", .wrongIntegrity) {
            var bytes = $0.check($0.mint())
            bytes[12] ^= 1
            return bytes
        },
        Row("a hint of the day before yesterday", .expiredHint) { $0.check($0.mint(mintedAt: 1_800_000_000 - 176_401)) },
        Row("a hint of the day after tomorrow", .hintFromTheFuture) { $0.check($0.mint(mintedAt: 1_800_000_000 + 90_001)) },
        Row("another cluster", .unknownCluster) { $0.check($0.mint(cluster: 8)) },
        Row("a transceiver outside the allowed prefix", .unknownTransceiver) { $0.check($0.mint(transceiver: 0xC0A8_0001)) },
        Row("the loopback address", .unknownTransceiver) { $0.check($0.mint(transceiver: 0x7F00_0001)) },
    ]

    @Test(arguments: rows) func `what an unknown source sends is dropped without an answer`(row: Row) {
        let bench = Bench()
        #expect(bench.receive(row.datagram(bench), client) == .dropped(row.expected))
        #expect(bench.drain().isEmpty)
        #expect(bench.flowCount == 0)
        #expect(bench.dropped(row.expected) == 1)
    }

    @Test func `a check from one of our own addresses, from port 0 or from nobody makes no flow`() {
        let bench = Bench()
        let request = bench.check(bench.mint())
        #expect(bench.receive(request, Bench.publicAddress) == .dropped(.ownAddress))
        #expect(bench.receive(request, SocketAddress(.v4Loopback, port: 0)) == .dropped(.impossibleSource))
        #expect(bench.receive(request, SocketAddress("224.0.0.1:5")!) == .dropped(.impossibleSource))
        #expect(bench.receive(request, SocketAddress(.v6Any, port: 5)) == .dropped(.impossibleSource))
        #expect(bench.flowCount == 0)
    }

    @Test func `a known source may not send what belongs to no session`() {
        let bench = Bench()
        #expect(bench.receive(bench.check(bench.mint()), client) == .forwarded)
        #expect(bench.receive([64, 0, 0, 0], client) == .dropped(.unknownClass))
        #expect(bench.receive([0, 1, 2], client) == .dropped(.malformedSTUN))
        #expect(bench.receive(stunHeader(), client) == .dropped(.noUsername))
        #expect(bench.receive(bench.check((String(repeating: "A", count: 32), "x")), client) == .dropped(.wrongHintTag))
        #expect(bench.receive(bench.check((bench.mint(session: 2).ufrag, "wrong")), client) == .dropped(.wrongIntegrity))
        // Answers to the transceiver's own checks go through.
        #expect(bench.receive(stunHeader(0x0101), client) == .forwarded)
        #expect(bench.flowCount == 1)
    }

    /// After an ICE restart or on a reused port, the same source names another session.
    @Test func `an authentic new ufrag from a known source moves its flow`() {
        let bench = Bench()
        _ = bench.receive(bench.check(bench.mint(session: 1)), client)
        _ = bench.downlink(.confirm, [Delivery(client: client, session: 1, payload: [])])
        _ = bench.receive(bench.check(bench.mint(session: 2, transceiver: 0x0A00_0004, worker: 1)), client)
        _ = bench.receive(rtp, client)
        let sent = bench.drain()
        #expect(sent.map(\.record.session) == [1, 2, 2])
        #expect(sent.last?.destination == SocketAddress("10.0.0.4:4000")!)
        #expect(sent.last?.header.worker == 1)
        #expect(bench.flowCount == 1)
        #expect(bench.confirmedCount == 0)
        #expect(bench.relay.counters.flowsMoved == 1)
    }

    @Test func `an ICE restart within the session keeps the flow confirmed`() {
        let bench = Bench()
        _ = bench.receive(bench.check(bench.mint(session: 1)), client)
        _ = bench.downlink(.confirm, [Delivery(client: client, session: 1, payload: [])])
        _ = bench.receive(bench.check(bench.mint(session: 1, mintedAt: 1_800_000_001)), client)
        #expect(bench.confirmedCount == 1)
    }

    /// The machine's date is set while calls run. Transceivers mint with the new date; calls of before move with hints of the old one.
    @Test(arguments: [3600, -86_400, 40 * 86_400] as [Int64]) func `hints of the old and of the new date are honoured`(shift: Int64) {
        let bench = Bench()
        bench.advance(.seconds(10))
        let date = UInt64(Int64(Bench.start.secondsSince1970) + 10 + shift)
        let other = SocketAddress("198.51.100.9:999")!
        let fresh = bench.mint(session: 2, mintedAt: UInt32(date + 5))
        bench.advance(.seconds(5))
        if shift == 40 * 86_400 { #expect(bench.receive(bench.check(fresh), other) == .dropped(.hintFromTheFuture)) }
        bench.relay.noteDate(WallClock(secondsSince1970: date + 5), at: bench.now)
        #expect(bench.receive(bench.check(fresh), other) == .forwarded)
        let old = bench.mint(session: 3, mintedAt: 1_800_000_000)
        #expect(bench.receive(bench.check(old), SocketAddress("198.51.100.10:999")!) == .forwarded)
        let ancient = bench.mint(session: 4, mintedAt: 1_700_000_000)
        #expect(bench.receive(bench.check(ancient), SocketAddress("198.51.100.11:999")!) == .dropped(.expiredHint))
    }

    @Test func `an established flow outlives its hint, and a clock that jumps`() {
        let bench = Bench()
        let request = bench.check(bench.mint(mintedAt: 1_800_000_000 - 176_390))
        #expect(bench.receive(request, client) == .forwarded)
        _ = bench.downlink(.confirm, [Delivery(client: client, session: 1, payload: [])])
        bench.advance(.seconds(30))
        #expect(bench.receive(request, client) == .forwarded)
        #expect(bench.receive(request, other) == .dropped(.expiredHint))
    }

    @Test func `one hint has a bounded number of unconfirmed flows, confirmed ones do not count`() {
        let bench = Bench(unconfirmedPerHint: 3)
        let request = bench.check(bench.mint())
        func source(_ port: UInt16) -> SocketAddress { SocketAddress(client.ip, port: port) }
        for port in 1...3 { #expect(bench.receive(request, source(UInt16(port))) == .forwarded) }
        #expect(bench.receive(request, source(4)) == .dropped(.unconfirmedFlowsOfHint))
        #expect(bench.receive(bench.check(bench.mint(session: 2)), source(5)) == .forwarded)
        _ = bench.downlink(.confirm, [Delivery(client: source(1), session: 1, payload: [])])
        #expect(bench.receive(request, source(4)) == .forwarded)
        bench.advance(.seconds(12))
        #expect(bench.flowCount == 1)
        #expect(bench.receive(request, source(2)) == .forwarded)
    }

    @Test func `a full table refuses newcomers and keeps what it has`() {
        let bench = Bench(capacity: 8)
        for number in 0..<8 {
            #expect(
                bench.receive(bench.check(bench.mint(session: UInt32(number))), SocketAddress(client.ip, port: UInt16(100 + number)))
                    == .forwarded)
        }
        #expect(bench.receive(bench.check(bench.mint(session: 9)), client) == .dropped(.flowTableFull))
        #expect(bench.receive(rtp, SocketAddress(client.ip, port: 107)) == .forwarded)
        bench.advance(.seconds(12))
        #expect(bench.receive(bench.check(bench.mint(session: 9)), client) == .forwarded)
    }

    @Test func `a table of transceivers is obeyed, and a new one too`() throws {
        let bench = Bench(directory: try TransceiverDirectory(parsingTable: "1 [2001:db8::1]:4000\n2 10.0.0.2:4001"))
        #expect(bench.receive(bench.check(bench.mint(transceiver: 1)), client) == .forwarded)
        #expect(bench.drain().first?.destination == SocketAddress("[2001:db8::1]:4000")!)
        #expect(bench.receive(bench.check(bench.mint(transceiver: 3)), other) == .dropped(.unknownTransceiver))
        bench.relay.replaceTransceivers(try TransceiverDirectory(parsingTable: "3 10.0.0.3:4000"))
        #expect(bench.receive(rtp, client) == .dropped(.unknownTransceiver))
        #expect(bench.receive(bench.check(bench.mint(transceiver: 3)), other) == .forwarded)
    }
}

@Suite struct `Relay, from a transceiver` {
    @Test func `records reach their clients as they are, without any flow`() {
        let bench = Bench()
        let records = [Delivery(client: client, session: 1, payload: rtp), Delivery(client: other, session: 2, payload: dtls)]
        #expect(bench.downlink(records) == records)
        #expect(bench.relay.counters.delivered == 2)
    }

    @Test func `nothing is sent to ourselves or to nobody`() {
        let bench = Bench()
        let forbidden = [
            Bench.publicAddress, SocketAddress(client.ip, port: 0), SocketAddress("224.0.0.1:9")!, SocketAddress(.v4Any, port: 9),
        ]
        #expect(bench.downlink(forbidden.map { Delivery(client: $0, session: 1, payload: rtp) }).isEmpty)
        #expect(bench.downlink([Delivery(client: client, session: 1, payload: [])]).isEmpty)
        #expect(bench.dropped(.trunkForbiddenClient) == 5)
    }

    @Test func `a frame with a wrong tag, for another relay, or of a relay is dropped whole`() {
        let bench = Bench()
        let records = [Delivery(client: client, session: 1, payload: rtp)]
        #expect(bench.downlink(.transceiverData, relay: 8, records).isEmpty)
        #expect(bench.dropped(.unknownIngress) == 1)
        #expect(bench.downlink(.clientData, records).isEmpty)
        #expect(bench.dropped(.trunkLoop) == 1)
        let header = TrunkHeader(kind: .transceiverData, worker: 2, cluster: 7, transceiver: 1, ingressRelay: 9, ingressWorker: 2)
        #expect(bench.downlink(bytes: trunkFrame(header, records, key: wellKnownTrunkKey)).isEmpty)
        #expect(bench.dropped(.trunkTag) == 1)
        #expect(bench.downlink(bytes: rtp).isEmpty)
        #expect(bench.dropped(.trunkTruncated) == 1)
    }

    @Test func `during a rotation frames of both trunk keys are taken, and afterwards those of the new one`() throws {
        let bench = Bench()
        let before = bench.ring
        var random = SeededGenerator(seed: 8)
        let header = TrunkHeader(kind: .transceiverData, worker: 2, cluster: 7, transceiver: 1, ingressRelay: 9, ingressWorker: 2)
        let records = [Delivery(client: client, session: 1, payload: rtp), Delivery(client: other, session: 2, payload: dtls)]
        func take(_ ring: KeyRing) {
            bench.ring = ring
            bench.relay.replaceKeys(ring, trunkMTU: TrunkFormat.defaultMTU)
        }
        /// Which of the frames of old, new and foreign key are taken.
        func taken(_ old: SipKey, _ new: SipKey) -> [Bool] {
            [old, new, SipKey(k0: 1, k1: 2)].map { bench.downlink(bytes: trunkFrame(header, records, key: $0)) == records }
        }
        var ring = before
        _ = ring.addTrunkKey(random: &random)
        let (old, new) = (before.trunkKey, try #require(ring.acceptedTrunkKey))
        #expect(taken(old, new) == [true, false, false])
        #expect(bench.dropped(.trunkTag) == 2 && bench.relay.counters.trunkFramesAcceptedKey == 0)

        take(ring)
        #expect(taken(old, new) == [true, true, false])
        #expect(bench.dropped(.trunkTag) == 3 && bench.relay.counters.trunkFramesAcceptedKey == 1)

        // A train under way, and a pong.
        _ = bench.receive(bench.check(bench.mint()), client)
        #expect(bench.receive(rtp, client) == .forwarded)
        _ = ring.promoteTrunkKey()
        take(ring)
        #expect(bench.receive(rtp, client) == .forwarded)
        var ping = header
        ping.kind = .ping
        _ = bench.downlink(bytes: trunkFrame(ping, [Delivery(client: client, session: 42, payload: [])], key: old))
        // `drain` reads under the new key alone.
        #expect(bench.drain().map(\.header.kind) == [.pong, .clientData, .clientData, .clientData])
        #expect(taken(old, new) == [true, true, false])
        #expect(bench.dropped(.trunkTag) == 4 && bench.relay.counters.trunkFramesAcceptedKey == 3)

        _ = ring.retireTrunkKey()
        take(ring)
        #expect(taken(old, new) == [false, true, false])
        #expect(bench.dropped(.trunkTag) == 6 && bench.relay.counters.trunkFramesAcceptedKey == 3)
        // What is wrong with a frame but its tag is told as it is.
        #expect(bench.downlink(bytes: rtp).isEmpty && bench.dropped(.trunkTruncated) == 1)
    }

    @Test func `an unconfirmed flow ends after ten seconds, whatever its client sends`() {
        let bench = Bench()
        let request = bench.check(bench.mint())
        _ = bench.receive(request, client)
        for _ in 0..<9 {
            bench.advance(.seconds(1))
            #expect(bench.receive(rtp, client) == .forwarded)
        }
        // A STUN answer from the transceiver proves nothing: it answers checks from anywhere.
        _ = bench.downlink([Delivery(client: client, session: 1, payload: stunHeader(0x0101))])
        bench.advance(.milliseconds(2_100))
        #expect(bench.receive(rtp, client) == .dropped(.noFlow))
        #expect(bench.relay.counters.flowsExpiredUnconfirmed == 1)
    }

    @Test(arguments: [true, false]) func `a confirmed flow ends after sixty idle seconds`(byFrame: Bool) {
        let bench = Bench()
        _ = bench.receive(bench.check(bench.mint()), client)
        let record = Delivery(client: client, session: 1, payload: byFrame ? [] : dtls)
        _ = bench.downlink(byFrame ? .confirm : .transceiverData, [record])
        #expect(bench.confirmedCount == 1)
        for _ in 0..<4 {
            bench.advance(.seconds(59))
            #expect(bench.receive(rtp, client) == .forwarded)
        }
        bench.advance(.milliseconds(59_900))
        #expect(bench.flowCount == 1)
        bench.advance(.milliseconds(1_200))
        #expect(bench.flowCount == 0)
        #expect(bench.relay.counters.flowsExpiredIdle == 1)
    }

    @Test func `feedback for another session of the address changes nothing`() {
        let bench = Bench()
        _ = bench.receive(bench.check(bench.mint(session: 1)), client)
        _ = bench.downlink(.confirm, [Delivery(client: client, session: 2, payload: []), Delivery(client: other, session: 1, payload: [])])
        _ = bench.downlink([Delivery(client: client, session: 2, payload: rtp)])
        _ = bench.downlink(.gone, [Delivery(client: client, session: 2, payload: [])])
        #expect(bench.flowCount == 1)
        #expect(bench.confirmedCount == 0)
        _ = bench.downlink(.gone, [Delivery(client: client, session: 1, payload: [])])
        #expect(bench.flowCount == 0)
        #expect(bench.relay.counters.flowsGone == 1)
    }

    @Test func `a ping is answered on the trunk`() {
        let bench = Bench()
        let header = TrunkHeader(kind: .ping, worker: 2, cluster: 7, transceiver: 3, ingressRelay: 9, ingressWorker: 2)
        let place = SocketAddress(IPAddress(high: 123, low: 0), port: 0)
        #expect(
            bench.downlink(bytes: trunkFrame(header, [Delivery(client: place, session: 42, payload: [])], key: bench.ring.trunkKey)).isEmpty
        )
        let sent = bench.drain()
        #expect(sent.map(\.header.kind) == [.pong])
        #expect(sent.first?.destination == Bench.trunkAddress)
        #expect(sent.first?.record.session == 42)
        #expect(sent.first?.record.client.ip.high == 123)
    }

    @Test func `the deadline is when the first flow may end`() {
        let bench = Bench()
        #expect(bench.relay.nextDeadline.instant == .never)
        _ = bench.receive(bench.check(bench.mint()), client)
        let wait = bench.relay.nextDeadline.instant - bench.now
        #expect(wait > .seconds(10) && wait <= .milliseconds(11_100))
        // Flows alone wake up nobody.
        #expect(bench.relay.promptDeadline.instant == .never)
        bench.now = bench.relay.nextDeadline.instant
        bench.relay.advance(to: bench.now)
        #expect(bench.flowCount == 0)
        #expect(bench.relay.nextDeadline.instant == .never)
    }
}

@Suite struct `Transceiver directory` {
    func message(direct text: String) -> String {
        do {
            _ = try TransceiverDirectory(parsingDirect: text)
            return "accepted"
        } catch { return error.description }
    }
    func message(table text: String) -> String {
        do {
            _ = try TransceiverDirectory(parsingTable: text)
            return "accepted"
        } catch { return error.description }
    }

    @Test func `direct takes an IPv4 prefix and a port`() {
        #expect(message(direct: "10.0.0.0/8:4000") == "accepted")
        #expect(message(direct: "127.0.0.1:1") == "accepted")
        #expect(message(direct: "10.0.0.0/8") == "direct: want PREFIX:PORT, such as 10.0.0.0/8:4000")
        #expect(message(direct: "10.0.0.0/33:4000").contains("\"10.0.0.0/33\" is not an address prefix"))
        #expect(message(direct: "10.0.0.0/8:0").contains("\"0\" is not a port"))
        #expect(message(direct: "10.0.0.0/8:65536").contains("\"65536\" is not a port"))
        #expect(message(direct: "2001:db8::/32:4000").contains("use table:FILE"))
    }

    @Test func `a table's refusal names line and reason`() throws {
        let table = try TransceiverDirectory(
            parsingTable: "# machines\n2 10.0.0.2:4000 # two\n\n\t1  [2001:db8::1]:4000\r\n10.0.0.9 10.0.0.9:4000\n")
        guard case .table(let entries) = table else { return }
        #expect(entries.map(\.id) == [1, 2, 0x0A00_0009])
        #expect(message(table: "\n\n1") == "line 3: 1 fields, want an id and ADDRESS:PORT")
        #expect(message(table: "1 10.0.0.1:1 x") == "line 1: 3 fields, want an id and ADDRESS:PORT")
        #expect(message(table: "4294967296 10.0.0.1:1") == "line 1: \"4294967296\" is not an id from 0 to 4294967295")
        #expect(message(table: "1 host:1") == "line 1: \"host:1\" is not ADDRESS:PORT")
        #expect(message(table: "1 0.0.0.0:1") == "line 1: 0.0.0.0 is nobody's own address")
        #expect(message(table: "1 10.0.0.1:1\n1 10.0.0.2:1") == "line 2: id 1 is given twice, first in line 1")
        // A relay that waits for its first transceiver.
        #expect(message(table: "# nothing") == "accepted")
    }
}

@Suite struct `Relay under mutation` {
    @Test(arguments: Corpus.files(in: "relay")) func `relay corpus`(file: CorpusFile) { fuzzRelay(file.bytes.bytes) }

    @Test func `mutated datagrams never trap, never forge a flow, and are all counted`() {
        var fuzzer = RelayFuzzer()
        let bench = Bench()
        let valid = [bench.check(bench.mint(session: 1)), bench.check(bench.mint(session: 2), ClientCheck.all[2])]
        mutate(Corpus.files(in: "relay").map(\.bytes) + valid) { fuzzer.feed($0) }
    }
}
