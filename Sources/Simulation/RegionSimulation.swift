// Many regions: relays of several clusters, each of them the first hop of some calls and the second hop of others, light transceivers, and
// thousands of clients. Time goes in milliseconds, so that what happens within one is done in one go.

import Crypto
import Primitives
import RelayCore
import RoutingHint
import STUN
import Trunk

public struct RegionSimulation: ~Copyable {
    let plan: RegionPlan
    let faults: [RegionFaultEvent]
    var now = RegionSimulation.beginning
    var network: VirtualNetwork
    var random: SeededGenerator
    var relays: Slab<Relay?>
    var owners: [RegionOwner]
    var clients: [RegionClient] = []
    /// By number; the first is nobody's.
    var calls: [RegionCall] = []
    /// Whose call an address is, by the address's number.
    var callOfAddress: [UInt32] = []
    var wheel: [[Int32]]

    // What the files say, and what relays have read of them.
    var ring: KeyRing
    var isRotating = false
    var minting: HintCodec
    let trunkKey: TrunkKey
    var directory: RelayDirectory
    let entries: [[TransceiverEntry]]
    var clockOffsets: [Int64]
    var orders: [(at: Instant, order: Order)] = []
    var nextSecond = RegionSimulation.beginning

    // What goes wrong now.
    var phase = Phase.dialing
    var phaseSince = RegionSimulation.beginning
    var nextFault = 0
    var repairs: [(at: Instant, kind: RegionFault)] = []
    var access = LinkProfile()
    var trunk = LinkProfile()
    var trunkCalmSince = RegionSimulation.beginning
    var partitions: [(Int, Int)] = []
    var loops: [(cluster: Int, transceiver: Int)] = []
    var visits: [UInt64: Int] = [:]
    var upSince: [Instant]
    /// By relay that sends and relay that is dead: since when.
    var sentToDead: [Int: Instant] = [:]
    /// When anything last changed that relays need a moment for: files, partitions.
    var unsettledUntil = Instant.zero
    var attackUntil = Instant.zero
    var nextAttack = Instant.never
    var recordings: [FlyingDatagram] = []

    var report = RegionReport()
    var buffer = ByteSlab(count: 1, slotSize: 65_536)

    enum Phase { case dialing, faulty, calm, leaving, over }
    /// What a relay does when it looks at its files.
    enum Order { case readKeys(relay: Int, KeyRing), readRelays(relay: Int), promote }

    static let beginning = Instant(nanoseconds: 100_000_000_000)
    static let wall = WallClock(secondsSince1970: 1_800_000_000)
    static let tick = Interval.milliseconds(1)
    static let wheelSize = 16_384

    public init(_ plan: RegionPlan) {
        precondition(plan.clusters >= 1 && plan.relays >= 2 * plan.clusters && plan.transceivers >= plan.clusters)
        var random = SeededGenerator(seed: plan.seed &* 5 &+ 3)
        self.plan = plan
        faults = plan.faults(&random)
        ring = KeyRing.generate(random: &random)
        minting = HintCodec(ring)
        trunkKey = TrunkKey(ring.trunkKey)
        network = VirtualNetwork(seed: random.next())
        relays = Slab(count: plan.relays) { _ in nil }
        owners = (0..<plan.transceivers).map { RegionOwner(cluster: $0 % plan.clusters, id: 100 + UInt32($0)) }
        wheel = Array(repeating: [], count: Self.wheelSize)
        directory = Self.directory(plan, without: [])
        entries = (0..<plan.clusters).map { cluster in
            stride(from: cluster, to: plan.transceivers, by: plan.clusters).map {
                TransceiverEntry(id: 100 + UInt32($0), address: RegionPlace.ownerTrunk($0))
            }
        }
        clockOffsets = Array(repeating: 0, count: plan.clusters)
        upSince = Array(repeating: Self.beginning, count: plan.relays)
        self.random = random
        calls.append(RegionCall(owner: -1, client: -1, isAlive: false))
        report.faults = faults.count
        for relay in 0..<plan.relays { startRelay(relay) }
        for number in 0..<plan.calls { welcome(number) }
    }

    func cluster(ofRelay relay: Int) -> Int { relay % plan.clusters }

    static func directory(_ plan: RegionPlan, without unlisted: Set<Int>) -> RelayDirectory {
        let lines = (0..<plan.relays).filter { !unlisted.contains($0) }.map {
            "\(1 + $0) \(1 + $0 % plan.clusters) \(RegionPlace.relayTrunk($0))"
        }
        guard let directory = try? RelayDirectory(parsing: lines.joined(separator: "\n")) else { preconditionFailure("our own lines") }
        return directory
    }

    func wallNow(_ cluster: Int) -> WallClock {
        let seconds = Int64(Self.wall.secondsSince1970) + (now - Self.beginning).milliseconds / 1000 + clockOffsets[cluster]
        return WallClock(secondsSince1970: UInt64(seconds))
    }

    mutating func startRelay(_ number: Int) {
        let cluster = cluster(ofRelay: number)
        var configuration = RelayConfiguration(
            cluster: UInt16(1 + cluster), relayID: UInt16(1 + number), worker: 0, transceivers: .table(table(of: number)),
            ownAddresses: [RegionPlace.publicAddress(number), RegionPlace.relayTrunk(number)], flowCapacity: plan.flowsPerRelay, batch: 8)
        configuration.relays = directory
        relays[number] = Relay(
            configuration, keys: ring, hashKey: SipKey(k0: random.next(), k1: random.next()), wall: wallNow(cluster), now: now)
        upSince[number] = now
        for key in Array(sentToDead.keys) where key / plan.relays == number || key % plan.relays == number { sentToDead[key] = nil }
        if report.relayBytes == 0 { report.relayBytes = Relay.byteCount(configuration) * plan.relays }
    }

    /// What a relay's table of transceivers says: the truth, but for circles that somebody has made.
    func table(of relay: Int) -> [TransceiverEntry] {
        var table = entries[cluster(ofRelay: relay)]
        for loop in loops {
            let circle = [loop.cluster, loop.cluster + plan.clusters]
            guard let place = circle.firstIndex(of: relay), let index = table.firstIndex(where: { $0.id == owners[loop.transceiver].id })
            else { continue }
            table[index] = TransceiverEntry(id: table[index].id, address: RegionPlace.relayTrunk(circle[1 - place]))
        }
        return table
    }
}

// MARK: - The run

extension RegionSimulation {
    /// Runs to the end and tells what became of it.
    public consuming func run() -> RegionReport {
        while phase != .over, report.violations.isEmpty {
            now = max(now + Self.tick, Self.roundedUp(nextMoment()))
            step()
            direct()
        }
        report.network = network.counters
        return report
    }

    private static func roundedUp(_ moment: Instant) -> Instant {
        moment == .never ? .never : Instant(nanoseconds: (moment.nanoseconds + 999_999) / 1_000_000 * 1_000_000)
    }

    private static func slot(_ moment: Instant) -> Int { Int(moment.nanoseconds / 1_000_000) % wheelSize }

    private mutating func nextMoment() -> Instant {
        // While calls are there, something is due in nearly every millisecond.
        guard phase == .leaving else { return now + Self.tick }
        var next = min(network.nextArrival, nextSecond)
        for number in 0..<relays.count { if let deadline = relays[number]?.nextDeadline.instant { next = min(next, deadline) } }
        return next
    }

    private mutating func step() {
        while let datagram = network.nextArrived(by: now) { deliver(datagram) }
        let slot = Self.slot(now)
        if !wheel[slot].isEmpty {
            let due = wheel[slot]
            wheel[slot].removeAll(keepingCapacity: true)
            for index in due where clients[Int(index)].wakesAt <= now { wake(Int(index)) }
        }
        for number in 0..<relays.count { turnRelay(number) }
        if now >= nextSecond { passSecond() }
    }

    private mutating func turnRelay(_ number: Int) {
        for _ in 0..<16 {
            guard let deadline = relays[number]?.nextDeadline.instant, deadline <= now else { return }
            relays[number]?.advance(to: now)
            drain(number)
        }
    }

    private mutating func passSecond() {
        nextSecond = now + .seconds(1)
        var flows = 0
        for number in 0..<relays.count {
            let wall = wallNow(cluster(ofRelay: number))
            relays[number]?.noteDate(wall, at: now)
            flows += relays[number]?.flows.count ?? 0
        }
        report.flowsMost = max(report.flowsMost, flows)
    }

    /// Puts a client where it will be woken.
    mutating func schedule(_ index: Int) {
        // Nothing is further away than the wheel goes round.
        let due = min(max(Self.roundedUp(clients[index].nextDeadline), now + Self.tick), now + .milliseconds(Int64(Self.wheelSize - 2)))
        guard due < clients[index].wakesAt || clients[index].wakesAt <= now else { return }
        clients[index].wakesAt = due
        wheel[Self.slot(due)].append(Int32(index))
    }

    func note(_ text: String) -> String { "\((now - Self.beginning).milliseconds) ms  \(text)" }
    mutating func tell(_ text: String) {
        report.trace.append(note(text))
        if report.trace.count > 200 { report.trace.removeFirst(100) }
    }

    mutating func violate(_ text: String) {
        guard report.violations.count < 5 else { return }
        report.violations.append("\(text), at \((now - Self.beginning).milliseconds) ms")
        tell("BROKEN: \(text)")
    }
}

// MARK: - Datagrams

extension RegionSimulation {
    private mutating func deliver(_ datagram: FlyingDatagram) {
        report.fingerprint =
            (report.fingerprint ^ UInt64(datagram.destination.ip.v4Bits) ^ UInt64(datagram.bytes.count) << 32 ^ now.nanoseconds)
            &* 0x100_0000_01B3
        record(datagram)
        switch RegionPlace(datagram.destination) {
        case .publicSide(let relay):
            _ = relays[relay]?.receive(datagram.bytes.span.bytes, from: datagram.source, at: now)
            drain(relay)
        case .relay(let relay):
            guard !isParted(datagram.source, cluster(ofRelay: relay)) else { return }
            deliver(datagram, toRelay: relay)
        case .owner(let owner):
            guard !isParted(datagram.source, owners[owner].cluster) else { return }
            receive(datagram.bytes, from: datagram.source, at: owner)
        case .client(let number): hear(datagram.bytes, at: number)
        case .stranger: break
        }
    }

    private func isParted(_ source: SocketAddress, _ cluster: Int) -> Bool {
        guard !partitions.isEmpty else { return false }
        let other: Int
        switch RegionPlace(source) {
        case .relay(let relay): other = self.cluster(ofRelay: relay)
        case .owner(let owner): other = owners[owner].cluster
        case .publicSide, .client, .stranger: return false
        }
        return partitions.contains { $0 == (other, cluster) || $0 == (cluster, other) }
    }

    private mutating func deliver(_ datagram: FlyingDatagram, toRelay relay: Int) {
        guard relays[relay] != nil else { return inspectDead(datagram, relay) }
        if !loops.isEmpty { inspectCircle(datagram.bytes) }
        guard var frame = relays[relay]!.openTrunk(datagram.bytes.span.bytes, from: datagram.source, at: now) else { return drain(relay) }
        while let record = relays[relay]!.nextDelivery(of: &frame, at: now) {
            send(record.payload.array, from: RegionPlace.publicAddress(relay), toClient: record.client)
        }
        drain(relay)
    }

    private mutating func drain(_ number: Int) {
        while let next = relays[number]?.peekTransmit() {
            let length = buffer.write(0, 0..<65_536) { _ = relays[number]?.nextTransmit(into: &$0) }
            let size = next.segmentSize == 0 ? length : next.segmentSize
            for start in stride(from: 0, to: length, by: size) {
                let frame = buffer.bytes(0, start..<min(start + size, length)).array
                sendTrunk(frame, from: RegionPlace.relayTrunk(number), in: cluster(ofRelay: number), to: next.destination)
            }
        }
    }

    mutating func sendTrunk(_ frame: [UInt8], from source: SocketAddress, in cluster: Int, to destination: SocketAddress) {
        let other: Int
        switch RegionPlace(destination) {
        case .relay(let relay): other = self.cluster(ofRelay: relay)
        case .owner(let owner): other = owners[owner].cluster
        case .publicSide, .client, .stranger: return violate("a frame is sent to \(destination), where no trunk is")
        }
        var link = trunk
        link.delay = other == cluster ? .microseconds(300) : .milliseconds(Int64(10 + 15 * abs(other - cluster)))
        network.send(frame, from: source, to: destination, over: link, at: now)
    }

    mutating func send(_ bytes: [UInt8], from source: SocketAddress, toClient destination: SocketAddress) {
        guard case .client(let number) = RegionPlace(destination) else {
            // To strangers that have replayed something: it goes nowhere.
            return
        }
        guard number < callOfAddress.count else { return violate("something is sent to \(destination), whom nobody is") }
        let client = calls[Int(callOfAddress[number])].client
        var link = access
        link.delay = clients[client].delay
        network.send(bytes, from: source, to: destination, over: link, at: now)
    }

    mutating func sendUp(_ bytes: [UInt8], of client: Int) {
        var link = access
        link.delay = clients[client].delay
        network.send(bytes, from: clients[client].address, to: RegionPlace.publicAddress(clients[client].ingress), over: link, at: now)
    }

    private mutating func record(_ datagram: FlyingDatagram) {
        guard now < attackUntil, random.next() % 16 == 0 else { return }
        if recordings.count < 256 { return recordings.append(datagram) }
        recordings[Int(random.next() % 256)] = datagram
    }

    /// On the trunk as it was, from whom it was; from outside as somebody else, to whatever relay.
    mutating func attack() {
        guard now >= nextAttack else { return }
        nextAttack = now < attackUntil ? now + .milliseconds(Int64(1 + random.next() % 20)) : .never
        guard !recordings.isEmpty else { return }
        let seen = recordings[Int(random.next() % UInt64(recordings.count))]
        report.replayed += 1
        switch RegionPlace(seen.destination) {
        case .publicSide:
            let relay = Int(random.next() % UInt64(plan.relays))
            network.send(seen.bytes, from: RegionPlace.stranger(random.next()), to: RegionPlace.publicAddress(relay), over: access, at: now)
        case .relay, .owner: network.send(seen.bytes, from: seen.source, to: seen.destination, over: trunk, at: now)
        case .client, .stranger: break
        }
    }
}
