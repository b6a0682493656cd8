// The relay under random traffic, beside a model of what it must know: who has a flow, to which session, and for how long.
import Primitives
import RelayCore
import RoutingHint
import TestSupport
import Testing
import Trunk

/// One random day of a small relay: few sources, few sessions, two ufrags each, a table that is easily full.
private struct RandomDay {
    struct Entry {
        var session: Int
        var ufrag: String
        var isConfirmed = false
        var since: Instant
        var seen: Instant
    }
    struct Stream: Hashable {
        let client: SocketAddress
        let session: UInt32
    }

    static let sources =
        (1...4).map { SocketAddress(IPAddress(v4: 0xC633_6400 + UInt32($0)), port: 4000) }
        + (1...3).map { SocketAddress(IPAddress(high: 0x2001_0DB8_0000_0000, low: UInt64($0)), port: 4000) }
    static let sessions = 4
    static let capacity = 5
    static let cap = 3

    let bench = Bench(capacity: capacity, unconfirmedPerHint: cap)
    let seed: Int
    var random: SeededGenerator
    var model: [SocketAddress: Entry] = [:]
    var expected: [Stream: [[UInt8]]] = [:]
    var waiting = 0
    var serial: UInt32 = 0
    let credentials: [[(ufrag: String, password: String)]]

    init(seed: Int) {
        self.seed = seed
        random = SeededGenerator(seed: UInt64(seed))
        let bench = bench
        credentials = (0..<Self.sessions).map { session in
            (0..<2).map { Self.mint(session, restart: UInt32($0), bench) }
        }
    }

    static func transceiver(_ session: Int) -> UInt32 { Bench.transceiver + UInt32(session / 2) }
    static func mint(_ session: Int, restart: UInt32, _ bench: Bench) -> (ufrag: String, password: String) {
        bench.mint(
            session: UInt32(session), transceiver: transceiver(session), worker: UInt8(session), mintedAt: 1_800_000_000 - restart)
    }

    mutating func step() {
        let source = Self.sources.randomElement(using: &random)!
        let session = Int.random(in: 0..<Self.sessions, using: &random)
        switch Int.random(in: 0..<12, using: &random) {
        case 0..<3: check(source, session)
        case 3..<6: media(source)
        case 6: forgery(source, session)
        case 7: feedback(.confirm, source, session)
        case 8: feedback(.gone, source, session)
        case 9: downlink(source, session)
        default:
            bench.advance(.milliseconds(random.chance(1, in: 20) ? 30_000 : Int64.random(in: 0...1500, using: &random)))
            for (source, entry) in model where bench.relay.flows.find(source) != nil {
                #expect(age(entry) < limit(entry) + .milliseconds(1_100), "a flow outlived its time")
            }
        }
        reconcile()
        if waiting > 40 || random.chance(1, in: 8) { drain() }
    }

    func age(_ entry: Entry) -> Interval { bench.now - (entry.isConfirmed ? entry.seen : entry.since) }
    func limit(_ entry: Entry) -> Interval { entry.isConfirmed ? .seconds(60) : .seconds(10) }

    /// Flows may end when they are due, and only then.
    mutating func reconcile() {
        for (source, entry) in model where bench.relay.flows.find(source) == nil {
            #expect(age(entry) >= limit(entry), "a flow ended before its time")
            model[source] = nil
        }
        #expect(bench.flowCount == model.count)
        #expect(bench.confirmedCount == model.values.filter(\.isConfirmed).count)
    }

    mutating func expect(_ payload: [UInt8], _ source: SocketAddress, _ session: Int) {
        expected[Stream(client: source, session: UInt32(session)), default: []].append(payload)
        waiting += 1
    }

    mutating func check(_ source: SocketAddress, _ session: Int) {
        let chosen = credentials[session].randomElement(using: &random)!
        let request = bench.check(chosen, ClientCheck.all.randomElement(using: &random)!)
        let unconfirmed = model.values.count { $0.ufrag == chosen.ufrag && !$0.isConfirmed }
        switch bench.receive(request, source) {
        case .forwarded:
            var entry = model[source] ?? Entry(session: session, ufrag: "", since: bench.now, seen: bench.now)
            if entry.ufrag != chosen.ufrag {
                entry.isConfirmed = entry.isConfirmed && entry.session == session
                entry.session = session
                entry.ufrag = chosen.ufrag
                entry.since = bench.now
            }
            entry.seen = bench.now
            model[source] = entry
            expect(request, source, session)
        case .parked: Issue.record("a check waits for nobody")
        case .dropped(.unconfirmedFlowsOfHint): #expect(unconfirmed >= Self.cap)
        case .dropped(.flowTableFull): #expect(model[source] == nil && bench.flowCount == Self.capacity)
        case .dropped(let reason): Issue.record("an authentic check was dropped: \(reason)")
        }
    }

    mutating func media(_ source: SocketAddress) {
        serial += 1
        let length = Int.random(in: 5...1500, using: &random)
        let first: UInt8 = random.chance(1, in: 2) ? 0x80 : 0x16
        var payload = [first] + (0..<4).map { UInt8(truncatingIfNeeded: serial >> (8 * UInt32($0))) }
        payload += [UInt8](repeating: 0xEE, count: length - 5)
        let disposition = bench.receive(payload, source)
        guard let entry = model[source] else {
            #expect(disposition == .dropped(.noFlow))
            return
        }
        #expect(disposition == .forwarded)
        model[source]?.seen = bench.now
        expect(payload, source, entry.session)
    }

    /// Right but for one thing: nothing may come of it, for strangers and acquaintances alike.
    mutating func forgery(_ source: SocketAddress, _ session: Int) {
        let fresh = Self.mint(session, restart: 2, bench)
        let before = bench.relay.counters.forwarded
        let reason: RelayDropReason
        let request: [UInt8]
        switch Int.random(in: 0..<4, using: &random) {
        case 0:
            reason = .wrongIntegrity
            request = bench.check((fresh.ufrag, credentials[session][0].password))
        case 1:
            reason = .expiredHint
            request = bench.check(
                bench.mint(session: UInt32(session), mintedAt: 1_800_000_000 - 180_000))
        case 2:
            reason = .unknownCluster
            request = bench.check(bench.mint(session: UInt32(session), cluster: 8))
        default:
            reason = .wrongHintTag
            request = bench.check((String(fresh.ufrag.dropLast()) + (fresh.ufrag.last == "A" ? "B" : "A"), fresh.password))
        }
        #expect(bench.receive(request, source) == .dropped(reason))
        #expect(bench.relay.counters.forwarded == before)
    }

    mutating func feedback(_ kind: TrunkKind, _ source: SocketAddress, _ session: Int) {
        #expect(bench.downlink(kind, [Delivery(client: source, session: UInt32(session), payload: [])]).isEmpty)
        guard model[source]?.session == session else { return }
        if kind == .gone { model[source] = nil } else { confirm(source) }
    }

    mutating func confirm(_ source: SocketAddress) {
        guard model[source]?.isConfirmed == false else { return }
        model[source]?.isConfirmed = true
        model[source]?.seen = bench.now
    }

    mutating func downlink(_ source: SocketAddress, _ session: Int) {
        let payload: [UInt8] = random.chance(1, in: 2) ? [0x80, 1, 2, 3] : stunHeader(0x0101)
        let record = Delivery(client: source, session: UInt32(session), payload: payload)
        #expect(bench.downlink([record]) == [record])
        if payload[0] >= 20, model[source]?.session == session { confirm(source) }
    }

    /// What leaves is what was taken: to the right worker, unchanged, nothing twice; each session's in order, but that datagrams too
    /// long for a frame of the MTU travel apart.
    mutating func drain() {
        var sent: [Stream: [[UInt8]]] = [:]
        for (destination, header, record) in bench.drain() {
            let session = Int(record.session)
            #expect(header.worker == UInt8(session) && header.transceiver == Self.transceiver(session))
            #expect(destination == SocketAddress(IPAddress(v4: Self.transceiver(session)), port: 4000))
            sent[Stream(client: record.client, session: record.session), default: []].append(record.payload)
        }
        let isRight = Self.inTwo(sent) == Self.inTwo(expected)
        #expect(isRight, "seed \(seed): \(sent.mapValues { $0.map(\.count) }), not \(expected.mapValues { $0.map(\.count) })")
        expected = [:]
        waiting = 0
    }

    static func inTwo(_ streams: [Stream: [[UInt8]]]) -> [[Stream: [[UInt8]]]] {
        [streams.mapValues { $0.filter { $0.count <= 1352 } }, streams.mapValues { $0.filter { $0.count > 1352 } }]
    }

    /// No datagram and no flow is unaccounted for.
    func settle() {
        let counters = bench.relay.counters
        let dropped = RelayDropReason.allCases.filter { $0.rawValue < RelayDropReason.trunkTruncated.rawValue }
            .reduce(UInt64(0)) { $0 + counters[$1] }
        #expect(counters.publicDatagrams == counters.forwarded + dropped)
        let ended = counters.flowsExpiredUnconfirmed + counters.flowsExpiredIdle + counters.flowsGone
        #expect(counters.flowsMade == UInt64(bench.flowCount) + ended)
    }
}

@Suite struct `Relay under random traffic` {
    @Test func `flows, forwarding and counters agree with the model`() {
        // Each outcome that the model allows must really happen, or it says little.
        var sum = RelayCounters()
        var refused: UInt64 = 0
        for seed in 1...20 {
            var day = RandomDay(seed: seed)
            for _ in 0..<400 { day.step() }
            day.drain()
            day.settle()
            let counters = day.bench.relay.counters
            sum.flowsMoved += counters.flowsMoved
            sum.flowsConfirmed += counters.flowsConfirmed
            sum.flowsExpiredUnconfirmed += counters.flowsExpiredUnconfirmed
            sum.flowsExpiredIdle += counters.flowsExpiredIdle
            sum.flowsGone += counters.flowsGone
            refused += min(counters[.flowTableFull], counters[.unconfirmedFlowsOfHint])
        }
        #expect(sum.flowsMoved > 0 && sum.flowsConfirmed > 0 && sum.flowsGone > 0)
        #expect(sum.flowsExpiredUnconfirmed > 0 && sum.flowsExpiredIdle > 0 && refused > 0)
    }
}

@Suite struct `Authentic rubbish` {
    /// Mutated bytes almost never pass the tag. Here they are the content of frames that do: a transceiver gone mad.
    @Test func `frames with a right tag and any content never trap and are accounted for`() {
        let bench = Bench(capacity: 8)
        let kinds: [TrunkKind] = [.clientData, .transceiverData, .confirm, .gone, .ping, .pong]
        let check = bench.check(bench.mint())
        var frame = [UInt8](repeating: 0, count: 65_507)
        mutate(Corpus.files(in: "trunk").map(\.bytes), count: min(mutationCount, 50_000)) { bytes in
            guard bytes.byteCount > 16 else { return }
            bench.now = bench.now + .milliseconds(11)
            _ = bench.receive(check, SocketAddress(IPAddress(v4: 0x0A00_0000 | UInt32(bytes.byte(1) & 3)), port: 1))
            let header = TrunkHeader(
                kind: kinds[Int(bytes.byte(0)) % kinds.count], worker: bytes.byte(1), cluster: bytes.u16(2), transceiver: bytes.u32(4),
                ingressRelay: bytes.byte(8) & 3 == 0 ? bytes.u16(9) : 9, ingressWorker: bytes.byte(10), hops: bytes.byte(11) & 3)
            let carries = header.kind == .transceiverData || header.kind == .clientData
            var writer = TrunkWriter(limit: frame.count)
            var span = frame.mutableSpan
            var target = span.mutableBytes
            var offset = 12
            while offset + 4 <= bytes.byteCount, header.kind != .ping && header.kind != .pong || writer.recordCount == 0 {
                let word = bytes.u32(offset)
                let ip = word & 1 == 0 ? IPAddress(v4: 0x0A00_0000 | (word >> 1) & 3) : IPAddress(high: UInt64(word) << 32, low: 1)
                let size = carries ? min(Int(word >> 8 & 127), bytes.byteCount - offset - 4) : 0
                let written = writer.append(
                    client: SocketAddress(ip, port: UInt16(truncatingIfNeeded: word >> 4 & 1)), session: word >> 16 & 3,
                    payload: bytes.bytes(offset + 4..<offset + 4 + size), to: &target)
                if !written { break }
                offset += 4 + size
            }
            writer.finish(header, key: bench.ring.trunkKey, in: &target)
            let sealed = target.bytes.bytes(0..<writer.length).array
            let records = UInt64(writer.recordCount)
            let before = bench.relay.counters
            let delivered = bench.downlink(bytes: sealed)
            let after = bench.relay.counters
            #expect(after.trunkFrames == before.trunkFrames + 1)
            #expect(after.delivered == before.delivered + UInt64(delivered.count))
            let forbidden = after[.trunkForbiddenClient] - before[.trunkForbiddenClient]
            let isOurs = header.ingressRelay == 9 && header.kind == .transceiverData
            #expect(UInt64(delivered.count) + forbidden == (isOurs ? records : 0))
            for record in delivered { #expect(!record.payload.isEmpty && record.client.port != 0) }
            bench.relay.advance(to: bench.now)
            _ = bench.drain()
            let ended = after.flowsExpiredUnconfirmed + after.flowsExpiredIdle + after.flowsGone
            #expect(after.flowsMade >= ended && bench.flowCount <= 8)
        }
        #expect(bench.relay.counters.flowsGone > 0 && bench.relay.counters.flowsConfirmed > 0)
    }
}
