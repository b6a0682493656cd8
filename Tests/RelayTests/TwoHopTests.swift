// Two hops: an ingress relay, a relay of the cluster that the hint names, and its transceiver. Frames travel between real cores.
import Primitives
import RelayCore
import RoutingHint
import TestSupport
import Testing
import Trunk

private let client = SocketAddress("198.51.100.7:50001")!
private let rtp: [UInt8] = [0x80, 0x6F, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xAA]

/// Two ingress relays of clusters 1 and 2, and two relays of cluster 7.
private let relaysFile = """
    1   1  192.0.2.1:4000
    2   2  192.0.2.2:4000
    11  7  192.0.2.11:4000
    12  7  192.0.2.12:4000
    """

private final class Network {
    struct Frame {
        var bytes: [UInt8]
        var from: SocketAddress
        var to: SocketAddress
    }
    let directory = try! RelayDirectory(parsing: relaysFile)
    let relays: [UInt16: Bench]
    var dead: Set<UInt16> = []
    /// What reached addresses that are no relay's.
    var atTransceivers: [Frame] = []
    private var slot = ByteSlab(count: 1, slotSize: 65_536)

    init() {
        let directory = directory
        relays = Dictionary(
            uniqueKeysWithValues: directory.entries.map { ($0.id, Bench(cluster: $0.cluster, relayID: $0.id, relays: directory)) })
    }

    subscript(id: UInt16) -> Bench { relays[id]! }
    func address(_ id: UInt16) -> SocketAddress { directory.entries.first { $0.id == id }!.address }

    /// Carries frames until nobody has one. The network takes no time.
    func settle() {
        while true {
            let frames = relays.keys.sorted().flatMap { departures($0) }
            if frames.isEmpty { return }
            for frame in frames { deliver(frame) }
        }
    }

    func deliver(_ frame: Frame) {
        guard let id = directory.entries.first(where: { $0.address == frame.to })?.id else { return atTransceivers.append(frame) }
        guard !dead.contains(id) else { return }
        let bench = self[id]
        guard var opened = bench.relay.openTrunk(frame.bytes.bytes, from: frame.from, at: bench.now) else { return }
        while let record = bench.relay.nextDelivery(of: &opened, at: bench.now) {
            delivered.append(Delivery(client: record.client, session: record.session, payload: record.payload.array))
        }
    }
    var delivered: [Delivery] = []
    /// Trains that each relay has sent.
    var trains: [UInt16: [TrunkTransmit]] = [:]

    private func departures(_ id: UInt16) -> [Frame] {
        let bench = self[id]
        var frames: [Frame] = []
        while true {
            var transmit: TrunkTransmit?
            let length = slot.write(0, 0..<65_536) { transmit = bench.relay.nextTransmit(into: &$0) }
            guard let transmit else { return dead.contains(id) ? [] : frames }
            trains[id, default: []].append(transmit)
            let size = transmit.segmentSize == 0 ? max(length, 1) : transmit.segmentSize
            for start in stride(from: 0, to: length, by: size) {
                frames.append(
                    Frame(bytes: slot.bytes(0, start..<min(start + size, length)).array, from: address(id), to: transmit.destination))
            }
        }
    }

    /// Lets time pass in steps of 10 ms.
    func advance(milliseconds: Int) {
        for _ in 0..<(milliseconds / 10) {
            for id in relays.keys.sorted() { self[id].advance(.milliseconds(10)) }
            settle()
        }
    }

    /// The records that reached transceivers since the last call, with the hop that they came from.
    func arrived() -> [(hop: SocketAddress, header: TrunkHeader, record: Delivery)] {
        defer { atTransceivers = [] }
        return atTransceivers.flatMap { frame in
            guard let (header, records) = try? deliveries(frame.bytes, key: wellKnownKeyRing().trunkKey) else {
                return [(hop: SocketAddress, header: TrunkHeader, record: Delivery)]()
            }
            return records.map { (frame.from, header, $0) }
        }
    }

    /// An answer of the transceiver to what came by `hop`.
    func answer(_ header: TrunkHeader, by hop: SocketAddress, _ records: [Delivery], kind: TrunkKind = .transceiverData) {
        var answer = header
        answer.kind = kind
        answer.worker = header.ingressWorker
        answer.hops = 0
        deliver(Frame(bytes: trunkFrame(answer, records, key: wellKnownKeyRing().trunkKey), from: Bench.trunkAddress, to: hop))
        settle()
    }
}

@Suite struct `Two hops` {
    @Test func `a hint of another cluster leads through one of its relays to the transceiver, and the answer back to the client`() throws {
        let network = Network()
        let ingress = network[1]
        let check = ingress.check(ingress.mint(session: 77, cluster: 7))
        #expect(ingress.receive(check, client) == .forwarded)
        #expect(ingress.receive(rtp, client) == .forwarded)
        network.settle()
        let arrived = network.arrived()
        try #require(arrived.count == 2)
        #expect(
            arrived.map(\.record) == [
                Delivery(client: client, session: 77, payload: check), Delivery(client: client, session: 77, payload: rtp),
            ])
        let header = arrived[0].header
        #expect(header.cluster == 7 && header.worker == 5 && header.ingressRelay == 1 && header.ingressWorker == 2 && header.hops == 1)
        #expect([network.address(11), network.address(12)].contains(arrived[0].hop))

        network.answer(header, by: arrived[0].hop, [Delivery(client: client, session: 77, payload: rtp)])
        #expect(network.delivered == [Delivery(client: client, session: 77, payload: rtp)])
        // Media towards the client confirms its flow; the cluster's relays know nothing of it.
        #expect(ingress.confirmedCount == 1)
        #expect(network[11].flowCount + network[12].flowCount == 0)
        network.answer(header, by: arrived[0].hop, [Delivery(client: client, session: 77, payload: [])], kind: .gone)
        #expect(ingress.flowCount == 0)
    }

    @Test func `every ingress chooses the same relay for a transceiver, and transceivers are shared among the relays`() {
        var shares: [SocketAddress: Int] = [:]
        for number in 0..<64 {
            let network = Network()
            var hops: Set<SocketAddress> = []
            for id: UInt16 in [1, 2] {
                let transceiver = Bench.transceiver + UInt32(number)
                _ = network[id].receive(network[id].check(network[id].mint(cluster: 7, transceiver: transceiver)), client)
                network.settle()
                hops.formUnion(network.arrived().map(\.hop))
            }
            #expect(hops.count == 1)
            for hop in hops { shares[hop, default: 0] += 1 }
        }
        #expect(shares.count == 2 && shares.values.allSatisfy { (16...48).contains($0) })
    }

    @Test func `the death of a cluster relay moves its calls to the other within 150 ms, and back when it returns`() throws {
        let network = Network()
        let ingress = network[1]
        _ = ingress.receive(ingress.check(ingress.mint(session: 5, cluster: 7)), client)
        network.settle()
        let hop = try #require(network.arrived().first?.hop)
        let first: UInt16 = hop == network.address(11) ? 11 : 12
        // In steady state it is asked often.
        for _ in 0..<20 {
            _ = ingress.receive(rtp, client)
            network.advance(milliseconds: 20)
        }
        #expect(network.arrived().allSatisfy { $0.hop == hop })

        network.dead = [first]
        var silent = 0
        while silent < 1_000 {
            _ = ingress.receive(rtp, client)
            network.advance(milliseconds: 20)
            if !network.arrived().isEmpty { break }
            silent += 20
        }
        #expect(silent <= 140)
        for _ in 0..<20 {
            _ = ingress.receive(rtp, client)
            network.advance(milliseconds: 20)
            let hops = Set(network.arrived().map(\.hop))
            #expect(hops == [network.address(first == 11 ? 12 : 11)])
        }

        network.dead = []
        network.advance(milliseconds: 2_000)
        _ = ingress.receive(rtp, client)
        network.settle()
        #expect(network.arrived().map(\.hop) == [hop])
    }

    @Test func `with all relays of a cluster gone, frames still go where they would belong`() throws {
        let network = Network()
        let ingress = network[1]
        _ = ingress.receive(ingress.check(ingress.mint(cluster: 7)), client)
        network.settle()
        let hop = try #require(network.arrived().first?.hop)
        network.dead = [11, 12]
        network.advance(milliseconds: 6_000)
        #expect(ingress.receive(rtp, client) == .forwarded)
        let sent = ingress.drain().filter { $0.header.kind == .clientData }
        #expect(sent.map(\.destination) == [hop])
    }

    @Test func `a train of frames leaves as a train`() throws {
        let network = Network()
        let ingress = network[1]
        _ = ingress.receive(ingress.check(ingress.mint(session: 5, cluster: 7)), client)
        for _ in 0..<60 { _ = ingress.receive([0x80] + [UInt8](repeating: 7, count: 170), client) }
        network.settle()
        let arrived = network.arrived()
        #expect(arrived.count == 61)
        let relay: UInt16 = arrived.first?.hop == network.address(11) ? 11 : 12
        let trains = try #require(network.trains[relay]?.filter { $0.destination == Bench.trunkAddress })
        #expect(trains.count == 1)
        #expect(trains.first?.frames ?? 0 > 5 && trains.first?.segmentSize == 1400 && trains.first?.records == 61)
    }

    @Test func `an unknown cluster, an unknown transceiver and an unknown ingress are counted`() {
        let network = Network()
        let ingress = network[1]
        #expect(ingress.receive(ingress.check(ingress.mint(cluster: 99)), client) == .dropped(.unknownCluster))
        #expect(ingress.receive(ingress.check(ingress.mint(cluster: 7, transceiver: 0xC000_0201)), client) == .forwarded)
        network.settle()
        #expect(network.arrived().isEmpty)
        #expect(network[11].dropped(.unknownTransceiver) + network[12].dropped(.unknownTransceiver) == 1)
        let header = TrunkHeader(
            kind: .transceiverData, worker: 0, cluster: 7, transceiver: Bench.transceiver, ingressRelay: 500, ingressWorker: 0)
        network.answer(header, by: network.address(11), [Delivery(client: client, session: 1, payload: rtp)])
        #expect(network[11].dropped(.unknownIngress) == 1)
    }

    @Test func `frames of another cluster are not passed on, and one that comes back to its ingress is a loop`() {
        let network = Network()
        let header = TrunkHeader(
            kind: .clientData, worker: 0, cluster: 7, transceiver: Bench.transceiver, ingressRelay: 1, ingressWorker: 0)
        let bytes = trunkFrame(header, [Delivery(client: client, session: 1, payload: rtp)], key: wellKnownKeyRing().trunkKey)
        for id: UInt16 in [1, 2] { network.deliver(Network.Frame(bytes: bytes, from: network.address(11), to: network.address(id))) }
        #expect(network[1].dropped(.trunkLoop) == 1)
        #expect(network[2].dropped(.trunkNotForUs) == 1)
    }

    @Test func `a frame goes through no more relays than it may`() {
        let network = Network()
        for hops: UInt8 in 0...6 {
            let header = TrunkHeader(
                kind: .clientData, worker: 0, cluster: 7, transceiver: Bench.transceiver, ingressRelay: 1, ingressWorker: 0, hops: hops)
            let bytes = trunkFrame(header, [Delivery(client: client, session: 1, payload: rtp)], key: wellKnownKeyRing().trunkKey)
            network.deliver(Network.Frame(bytes: bytes, from: network.address(1), to: network.address(11)))
        }
        network.settle()
        // The transceiver reads hops 1…4 as it should, and has its own look at 5.
        #expect(network.atTransceivers.map { $0.bytes[12] } == [1, 2, 3, 4, 5])
        #expect(network[11].dropped(.trunkLoop) == 2)
    }

    @Test func `a forged frame is not passed on`() {
        let network = Network()
        let header = TrunkHeader(
            kind: .clientData, worker: 0, cluster: 7, transceiver: Bench.transceiver, ingressRelay: 1, ingressWorker: 0)
        var bytes = trunkFrame(header, [Delivery(client: client, session: 1, payload: rtp)], key: wellKnownKeyRing().trunkKey)
        bytes[20] ^= 1
        network.deliver(Network.Frame(bytes: bytes, from: network.address(1), to: network.address(11)))
        network.settle()
        #expect(network.atTransceivers.isEmpty)
        #expect(network[11].dropped(.trunkTag) == 1)
    }

    @Test func `while the trunk key is rotated, relay by relay, every packet arrives and all relays answer each other`() throws {
        let network = Network()
        var random = SeededGenerator(seed: 9)
        var ring = wellKnownKeyRing()
        _ = network[1].receive(network[1].check(network[1].mint(session: 77, cluster: 7)), client)
        network.settle()
        network.atTransceivers = []
        var sent: UInt8 = 0
        for step in 0..<3 {
            let before = ring
            let isDone = step == 0 ? ring.addTrunkKey(random: &random) : step == 1 ? ring.promoteTrunkKey() : ring.retireTrunkKey()
            #expect(isDone)
            for id: UInt16 in [11, 1, 12, 2] {
                // What waits when the key changes arrives as well.
                for isTaken in [false, true] {
                    if isTaken { network[id].relay.replaceKeys(ring, trunkMTU: TrunkFormat.defaultMTU) }
                    sent += 1
                    #expect(network[1].receive(rtp + [sent], client) == .forwarded)
                }
                network.advance(milliseconds: 300)
                for index in 0..<network[id].relay.peerCount {
                    #expect(network[id].relay.peerHealth(index).isAlive, "step \(step), relay \(id)")
                }
                // A transceiver that has not taken the file yet, and one that has.
                for keys in [before, ring] {
                    let both = TrunkKeys(keys.trunkKey, accepted: keys.acceptedTrunkKey)
                    for frame in network.atTransceivers { _ = try both.read(frame.bytes.bytes) }
                }
                let texts = try network.atTransceivers.flatMap { frame in
                    var opened = try TrunkKeys(ring.trunkKey, accepted: ring.acceptedTrunkKey).read(frame.bytes.bytes)
                    var last: [UInt8?] = []
                    while let record = opened.nextRecord() { last.append(record.payload.array.last) }
                    return last
                }
                #expect(texts == [sent - 1, sent])
                network.atTransceivers = []
            }
        }
        for id: UInt16 in [1, 2, 11, 12] { #expect(network[id].dropped(.trunkTag) == 0) }
        #expect(network[11].relay.counters.trunkFramesAcceptedKey + network[12].relay.counters.trunkFramesAcceptedKey > 0)
    }

    @Test func `the round trip to every other relay is known`() {
        let network = Network()
        network.advance(milliseconds: 1_500)
        let ingress = network[1]
        let peers = (0..<ingress.relay.peerCount).map { ingress.relay.peerHealth($0) }
        #expect(peers.map(\.id) == [2, 11, 12])
        #expect(peers.allSatisfy { $0.isAlive && $0.roundTrip == .zero && $0.pongs >= 2 })
    }

    @Test func `a new relays file keeps what is known of those that stay`() throws {
        let network = Network()
        let ingress = network[1]
        network.dead = [12]
        network.advance(milliseconds: 5_000)
        ingress.relay.replaceRelays(try RelayDirectory(parsing: "12 7 192.0.2.12:4000\n13 7 192.0.2.13:4000"), at: ingress.now)
        let peers = (0..<ingress.relay.peerCount).map { ingress.relay.peerHealth($0) }
        #expect(peers.map(\.id) == [12, 13])
        #expect(peers.map(\.isAlive) == [false, true])
        #expect(ingress.receive(ingress.check(ingress.mint(cluster: 2)), client) == .dropped(.unknownCluster))
    }

    @Test(arguments: [
        ("1 1", "line 1: 2 fields"), ("\n70000 1 192.0.2.1:1", "line 2: \"70000\" is not a relay's id"),
        ("1 -1 192.0.2.1:1", "not a cluster"),
        ("1 1 192.0.2.1", "ADDRESS:PORT"), ("1 1 0.0.0.0:4000", "ADDRESS:PORT"),
        ("1 1 192.0.2.1:4\n1 1 192.0.2.2:4", "relay 1 is given twice"),
    ]) func `a mistake in a relays file is named`(_ text: String, _ words: String) {
        #expect { _ = try RelayDirectory(parsing: text) } throws: { ($0 as? RelayDirectoryError)?.description.contains(words) == true }
    }

    @Test(arguments: Corpus.files(in: "relays")) func `relays file corpus`(file: CorpusFile) { fuzzRelayDirectory(file.bytes.bytes) }
    @Test func `mutated relays files never trap`() {
        mutate(Corpus.files(in: "relays").map(\.bytes), count: mutationCount / 4) { fuzzRelayDirectory($0) }
    }
}
