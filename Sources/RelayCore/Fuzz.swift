// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import Crypto
import Primitives
import RoutingHint
import Trunk

/// A small relay that is fed anything on both sides, and checked after each datagram.
public struct RelayFuzzer: ~Copyable {
    private var relay: Relay
    private var now = Instant(nanoseconds: 1_000_000_000_000)
    private var output = ByteSlab(count: 1, slotSize: 65_536)
    private var steps: UInt16 = 0

    public init() {
        guard let directory = try? TransceiverDirectory(parsingDirect: "10.0.0.0/8:4000") else { preconditionFailure("a constant") }
        var configuration = RelayConfiguration(
            cluster: 7, relayID: 9, worker: 2, transceivers: directory, ownAddresses: [], flowCapacity: 64, batch: 4)
        configuration.parking = ParkingLimits()
        relay = Relay(
            configuration, keys: wellKnownKeyRing(), hashKey: SipKey(k0: 1, k1: 2), wall: WallClock(secondsSince1970: 1_800_000_000),
            now: now)
    }

    /// Feeds `bytes` to the public side from a few addresses, and to the trunk side. Everything received is forwarded or counted as
    /// dropped, and what leaves can be read again.
    public mutating func feed(_ bytes: RawSpan) {
        steps &+= 1
        now = now + .milliseconds(37)
        let source = SocketAddress(IPAddress(v4: 0xC633_6400 | UInt32(steps & 7)), port: 1000 &+ (steps >> 3 & 15))
        let before = relay.counters
        switch relay.receive(bytes, from: source, at: now) {
        case .forwarded: precondition(relay.counters.forwarded == before.forwarded + 1)
        case .parked: precondition(relay.counters.parked == before.parked + 1)
        case .dropped(let reason): precondition(relay.counters[reason] == before[reason] + 1)
        }
        if var frame = relay.openTrunk(bytes, from: source, at: now) {
            while let record = relay.nextDelivery(of: &frame, at: now) { precondition(record.payload.byteCount > 0) }
        }
        answer(bytes)
        relay.advance(to: now)
        precondition(relay.flows.confirmedCount <= relay.flows.count && relay.flows.count <= 64)
        precondition(relay.flows.count == 0 || relay.nextDeadline.instant != .never)
        drain()
    }

    /// As a cache that knows nothing, says nothing, or says anything.
    private mutating func answer(_ bytes: RawSpan) {
        while let source = relay.nextQuestion() {
            switch steps % 3 {
            case 0: relay.refuse(source, at: now)
            case 1: relay.leaveUnanswered(source)
            default: if bytes.byteCount >= 32, let ufrag = Ufrag(bytes.bytes(0..<32)) { relay.recall(source, ufrag: ufrag, at: now) }
            }
        }
        while relay.nextMemory() != nil {}
    }

    private mutating func drain() {
        while true {
            var transmit: TrunkTransmit?
            let length = output.write(0, 0..<65_536) { transmit = relay.nextTransmit(into: &$0) }
            guard let transmit else { return }
            precondition(length > 0 && (transmit.segmentSize == 0) == (transmit.frames == 1))
            let first = transmit.segmentSize == 0 ? length : transmit.segmentSize
            let readable = (try? TrunkFrame(parsing: output.bytes(0, first), key: wellKnownKeyRing().trunkKey).recordCount) ?? 0
            precondition(readable > 0, "a frame that we sent cannot be read")
        }
    }
}

/// One datagram for a fresh relay.
public func fuzzRelay(_ bytes: RawSpan) {
    var fuzzer = RelayFuzzer()
    fuzzer.feed(bytes)
}

/// A relays file.
public func fuzzRelayDirectory(_ bytes: RawSpan) {
    guard let directory = try? RelayDirectory(parsing: String(decoding: bytes.array, as: UTF8.self)) else { return }
    for (one, other) in zip(directory.entries, directory.entries.dropFirst()) { precondition(one.id < other.id) }
}

/// A stream of frames (RFC 4571): in whatever pieces it arrives, the same datagrams come out, and framing them again gives the stream.
public func fuzzStreamFrames(_ bytes: RawSpan) {
    guard bytes.byteCount <= 8192 else { return }
    let whole = frames(bytes, pieces: bytes.byteCount)
    precondition(whole == frames(bytes, pieces: 1), "byte by byte it is another stream")
    precondition(whole == frames(bytes, pieces: 1 + bytes.byteCount % 7), "in pieces it is another stream")
    var writer = StreamFrameWriter(connections: 1)
    var again: [UInt8] = []
    for datagram in whole.datagrams {
        unsafe precondition(writer.make(datagram.span.bytes), "a datagram that was read is too long to write")
        // Half of it at first, as a full buffer takes it.
        let half = max(1, writer.bytes.byteCount / 2)
        again += writer.bytes.bytes(0..<half).array
        guard writer.sent(half, to: 0) else { continue }
        again += writer.rest(0).array
        precondition(!writer.sentOfRest(writer.rest(0).byteCount, to: 0) && !writer.hasRest(0))
    }
    unsafe precondition(again.count <= bytes.byteCount && bytes.bytes(0..<again.count).elementsEqual(again.span.bytes), "a stream changes")
    precondition(whole.isTooLong || bytes.byteCount - again.count < StreamFraming.frameMax, "a frame was held back")
}

private struct ReadFrames: Equatable {
    var datagrams: [[UInt8]] = []
    var isTooLong = false
}

private func frames(_ bytes: RawSpan, pieces: Int) -> ReadFrames {
    var reader = StreamFrameReader(connections: 2)
    var result = ReadFrames()
    var offset = 0
    while offset < bytes.byteCount, !result.isTooLong {
        let count = min(max(pieces, 1), bytes.byteCount - offset)
        reader.begin(1)
        var room = reader.room
        room.copy(bytes.bytes(offset..<offset + count), to: 0)
        reader.received(count)
        offset += count
        reading: while true {
            switch reader.next() {
            case .datagram(let range): result.datagrams.append(reader.bytes(range).array)
            case .incomplete: break reading
            case .tooLong:
                result.isTooLong = true
                break reading
            }
        }
        if !result.isTooLong { reader.end(1) }
    }
    return result
}
