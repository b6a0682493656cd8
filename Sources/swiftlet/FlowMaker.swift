import Crypto
import EventLoop
import Primitives
import RelayCore
import RoutingHint
import STUN
import Trunk

/// Keys, hints, checks and frames of a small world of one cluster, for `swiftlet bench`.
struct FlowMaker {
    let ring: KeyRing
    let transceivers: Int
    private var random = SeededGenerator(seed: 1)
    private var session: UInt32 = 0

    static let cluster: UInt16 = 1
    static let relayID: UInt16 = 1

    init(transceivers: Int) {
        ring = KeyRing.generate(random: &random)
        self.transceivers = transceivers
    }

    /// The world of a relay that has its keys from a file.
    init(ring: KeyRing) {
        self.ring = ring
        transceivers = 1
    }

    /// A relay for whom every transceiver lives at `trunk`.
    func relay(trunk: SocketAddress, flows: Int) -> Relay {
        let table = (1...transceivers).map { TransceiverEntry(id: UInt32($0), address: trunk) }
        let configuration = RelayConfiguration(
            cluster: Self.cluster, relayID: Self.relayID, worker: 0, transceivers: .table(table), ownAddresses: [],
            flowCapacity: max(1024, flows * 2))
        return Relay(configuration, keys: ring, hashKey: SipKey(k0: 1, k1: 2), wall: wallClock(), now: MonotonicClock.now())
    }

    /// An authentic Binding request for a session of its own: 1, 2, 3 and so on.
    mutating func check() -> [UInt8] {
        session += 1
        return check(session: session)
    }

    /// The same for a session that the caller has numbered.
    mutating func check(session: UInt32) -> [UInt8] {
        var codec = HintCodec(ring)
        let ufrag = codec.mint(
            RoutingHint(
                cluster: Self.cluster, transceiver: 1 + session % UInt32(transceivers), worker: 0,
                mintedAt: UInt32(truncatingIfNeeded: wallClock().secondsSince1970), session: session))
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

    /// The frames in which a transceiver sends `payload` to each of `clients`, whose sessions are `1 + client's place`: all of one
    /// length, but the last may be shorter.
    ///
    /// - Parameters:
    ///   - ingress: another relay's id, and the frames are client data that it sends to this one to be passed on.
    ///   - most: records per frame, where fewer than fit.
    func frames(
        _ payload: [UInt8], to clients: [SocketAddress], from first: Int, count: Int, ingress: UInt16? = nil, most: Int = .max
    ) -> (bytes: [UInt8], size: Int) {
        let record = TrunkFormat.recordHeaderSize + payload.count
        let perFrame = max(1, min(most, (TrunkFormat.defaultMTU - TrunkFormat.frameHeaderSize) / record))
        let header = TrunkHeader(
            kind: ingress == nil ? .transceiverData : .clientData, worker: 0, cluster: Self.cluster, transceiver: 1,
            ingressRelay: ingress ?? Self.relayID, ingressWorker: 0)
        var result: [UInt8] = []
        var frame = [UInt8](repeating: 0, count: TrunkFormat.frameHeaderSize + perFrame * record)
        for start in stride(from: 0, to: count, by: perFrame) {
            var writer = TrunkWriter(limit: frame.count)
            var span = frame.mutableSpan
            var target = span.mutableBytes
            for number in start..<min(start + perFrame, count) {
                let place = (first + number) % clients.count
                _ = writer.append(client: clients[place], session: UInt32(place + 1), payload: payload.span.bytes, to: &target)
            }
            writer.finish(header, key: ring.trunkKey, in: &target)
            result += frame.prefix(writer.length)
        }
        return (result, frame.count)
    }

    /// What looks like SRTP.
    static func voice(_ size: Int) -> [UInt8] { [0x80, 111] + [UInt8](repeating: 0x5A, count: size - 2) }
}
