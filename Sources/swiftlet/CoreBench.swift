import Crypto
import EventLoop
import Primitives
import RelayCore
import RoutingHint
import STUN
import Trunk

/// A relay core with flows that its own hints have opened, and packets for them.
struct CoreBench: ~Copyable {
    private var relay: Relay
    private let clients: [SocketAddress]
    private let packet: [UInt8]
    private var train = ByteSlab(count: 1, slotSize: 65_536)
    private(set) var forwarded = 0
    private(set) var trains = 0

    static let batch = 64

    init(flows: Int, size: Int) {
        let maker = FlowMaker()
        relay = maker.relay(trunk: SocketAddress(IPAddress(v4: 0x0A00_0101), port: 3480), flows: flows)
        clients = (0..<flows).map { SocketAddress(IPAddress(v4: 0xCB00_7100 + UInt32($0 >> 8)), port: UInt16(10_000 + ($0 & 0xFF))) }
        packet = FlowMaker.voice(size)
        var checks = maker
        for client in clients {
            let check = checks.check()
            _ = relay.receive(check.span.bytes, from: client, at: MonotonicClock.now())
            drain()
        }
        forwarded = 0
        trains = 0
    }

    mutating func run(packets: Int) {
        let now = MonotonicClock.now()
        let clients = clients
        let packet = packet
        var index = 0
        for _ in 0..<(packets / Self.batch) {
            for _ in 0..<Self.batch {
                if relay.receive(packet.span.bytes, from: clients[index], at: now) == .forwarded { forwarded += 1 }
                index += 1
                if index == clients.count { index = 0 }
            }
            drain()
        }
    }

    private mutating func drain() { Self.drain(&relay, &train, &trains) }

    private static func drain(_ relay: inout Relay, _ train: inout ByteSlab, _ trains: inout Int) {
        while relay.peekTransmit() != nil {
            _ = train.write(0, 0..<65_536) { _ = relay.nextTransmit(into: &$0) }
            trains += 1
        }
    }
}

/// Keys, hints and checks of a small world of one cluster and one transceiver.
struct FlowMaker {
    let ring: KeyRing
    private var random = SeededGenerator(seed: 1)
    private var session: UInt32 = 0

    init() { ring = KeyRing.generate(random: &random) }

    func relay(trunk: SocketAddress, flows: Int) -> Relay {
        Relay(
            RelayConfiguration(
                cluster: 1, relayID: 1, worker: 0, transceivers: .table([TransceiverEntry(id: 1, address: trunk)]), ownAddresses: [],
                flowCapacity: max(1024, flows * 2)), keys: ring, hashKey: SipKey(k0: 1, k1: 2), wall: wallClock(), now: MonotonicClock.now()
        )
    }

    /// An authentic Binding request for a session of its own.
    mutating func check() -> [UInt8] {
        session += 1
        var codec = HintCodec(ring)
        let ufrag = codec.mint(
            RoutingHint(
                cluster: 1, transceiver: 1, worker: 0, mintedAt: UInt32(truncatingIfNeeded: wallClock().secondsSince1970), session: session)
        )
        let theirs = Array(ufrag.description.utf8)
        let ours = Array("bnch".utf8)
        let key = Array(codec.icePassword(for: ufrag).text.utf8)
        var slab = ByteSlab(count: 1, slotSize: 256)
        let id = STUNTransactionID(high: session, low: random.next())
        let length = slab.write(0, 0..<256) { packet in
            var writer = STUNWriter(.request, id, to: &packet)
            writer.append(usernameFor: theirs.span.bytes, from: ours.span.bytes, to: &packet)
            writer.append(iceControlling: 1, to: &packet)
            _ = writer.finish(key: key.span.bytes, to: &packet)
        }
        return slab.bytes(0, length).array
    }

    /// What looks like SRTP.
    static func voice(_ size: Int) -> [UInt8] { [0x80, 111] + [UInt8](repeating: 0x5A, count: size - 2) }
}
