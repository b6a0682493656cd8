import Primitives
import SCTP
import TestSupport

/// What a side has seen so far.
final class Endpoint {
    var sctp: SCTPAssociation
    var events: [SCTPEvent] = []
    var received: [(id: UInt16, isBinary: Bool, bytes: [UInt8])] = []
    var drops: [SCTPDropReason] = []
    var packetsSent = 0
    var peakMemory = 0
    /// Messages are left where they are, as by an owner that is busy.
    var isBusy = false

    init(_ sctp: consuming SCTPAssociation) { self.sctp = sctp }

    func receive(_ packet: [UInt8], at now: Instant) {
        if let reason = sctp.receive(packet.span.bytes, at: now) { drops.append(reason) }
        peakMemory = max(peakMemory, sctp.memory)
        look()
    }

    func look() {
        if isBusy { return }
        while let event = sctp.nextEvent() {
            events.append(event)
            if case .message(let id, let isBinary, let byteCount) = event {
                let bytes = sctp.takeMessage() ?? [0xDE, 0xAD]
                precondition(bytes.count == byteCount)
                received.append((id, isBinary, bytes))
            }
        }
    }

    func transmit(at now: Instant) -> [UInt8]? {
        var packet = [UInt8](repeating: 0, count: 2048)
        let count = packet.withUnsafeMutableBytes { buffer in
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            let wrote = sctp.nextTransmit(into: &output, at: now)
            precondition(wrote == (output.byteCount > 0))
            return output.finalize(for: buffer)
        }
        guard count > 0 else { return nil }
        precondition(count <= 1163 && count % 4 == 0)
        packetsSent += 1
        return Array(packet[..<count])
    }

    func openChannel(_ label: String, isOrdered: Bool = true) -> UInt16 { sctp.openChannel(label: label, isOrdered: isOrdered) ?? .max }

    @discardableResult
    func send(_ bytes: [UInt8], isBinary: Bool = true, on id: UInt16) -> SCTPSendResult {
        sctp.send(bytes.span.bytes, isBinary: isBinary, on: id)
    }

    func opened(_ label: String) -> UInt16? {
        for case .channelOpened(let id, label, _) in events { return id }
        return nil
    }
}

/// Two endpoints and a network between them that loses, repeats and reorders as its seed says.
final class Network {
    struct Weather {
        var loss = 0.0
        var duplication = 0.0
        var delay = Interval.milliseconds(20)
        var jitter = Interval.zero
    }

    let a: Endpoint
    let b: Endpoint
    var now: Instant
    var weather: Weather
    var random: SeededGenerator
    /// Sees every packet before the weather does; false loses it.
    var filter: (_ fromA: Bool, _ packet: [UInt8]) -> Bool = { _, _ in true }
    private var underWay: [(at: Instant, order: Int, toA: Bool, packet: [UInt8])] = []
    private var order = 0

    init(
        seed: UInt64 = 1, weather: Weather = Weather(), bIsPassive: Bool = false, maxMessageSize: Int = 262_144,
        peerMaxMessageSize: Int = 262_144
    ) {
        now = Instant(nanoseconds: 3_600_000_000_000)
        self.weather = weather
        random = SeededGenerator(seed: seed)
        a = Endpoint(
            SCTPAssociation(
                maxMessageSize: maxMessageSize, peerMaxMessageSize: peerMaxMessageSize, isClientOfDTLS: true, seed: seed &* 2 &+ 1, at: now)
        )
        b = Endpoint(
            SCTPAssociation(
                maxMessageSize: maxMessageSize, peerMaxMessageSize: peerMaxMessageSize, isClientOfDTLS: false, seed: seed &* 2 &+ 2,
                isPassive: bIsPassive, at: now))
    }

    func flush() {
        while let packet = a.transmit(at: now) { post(packet, fromA: true) }
        while let packet = b.transmit(at: now) { post(packet, fromA: false) }
    }

    private func post(_ packet: [UInt8], fromA: Bool) {
        guard filter(fromA, packet), Double.random(in: 0..<1, using: &random) >= weather.loss else { return }
        let copies = Double.random(in: 0..<1, using: &random) < weather.duplication ? 2 : 1
        for _ in 0..<copies {
            let jitter = Int64.random(in: 0...max(weather.jitter.nanoseconds, 0), using: &random)
            order += 1
            let at = now + weather.delay + .nanoseconds(jitter)
            let place = underWay.lastIndex { ($0.at, $0.order) < (at, order) }.map { $0 + 1 } ?? 0
            underWay.insert((at, order, !fromA, packet), at: place)
        }
    }

    /// One step: the next packet or timer. False: nothing is left to wait for before `end`.
    func step(until end: Instant) -> Bool {
        flush()
        let timer = min(a.sctp.nextDeadline, b.sctp.nextDeadline)
        let next = min(timer, underWay.first?.at ?? .never)
        guard next <= end else {
            now = end
            return false
        }
        now = max(now, next)
        if let first = underWay.first, first.at <= now {
            underWay.removeFirst()
            (first.toA ? a : b).receive(first.packet, at: now)
        }
        a.sctp.advance(to: now)
        b.sctp.advance(to: now)
        a.look()
        b.look()
        return true
    }

    /// Runs for `span`, or until `done`; whether it was done.
    @discardableResult
    func run(_ span: Interval, until done: () -> Bool = { false }) -> Bool {
        let end = now + span
        repeat { if done() { return true } } while step(until: end)
        return done()
    }

    func establish() -> Bool { run(.seconds(30)) { a.sctp.isEstablished && b.sctp.isEstablished } }

    /// An established pair with one channel open on both sides.
    static func connected(
        _ seed: UInt64 = 1, _ weather: Weather = Weather(), isOrdered: Bool = true, maxMessageSize: Int = 262_144,
        peerMaxMessageSize: Int = 262_144
    ) -> (Network, UInt16) {
        let network = Network(seed: seed, weather: weather, maxMessageSize: maxMessageSize, peerMaxMessageSize: peerMaxMessageSize)
        let id = network.a.openChannel("test", isOrdered: isOrdered)
        let opened = network.run(.seconds(60)) { network.a.opened("test") != nil && network.b.opened("test") != nil }
        precondition(opened && id == 0)
        return (network, id)
    }
}

/// Bytes that tell their own place, so that a mix-up is seen.
func pattern(_ number: Int, _ count: Int) -> [UInt8] {
    var random = SeededGenerator(seed: UInt64(number))
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    while bytes.count < count {
        let word = random.next()
        for shift in 0..<8 where bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(shift * 8))) }
    }
    return bytes
}

/// Packets made by hand, with a right checksum.
struct PacketMaker {
    var tag: UInt32
    var chunks: [UInt8] = []

    init(tag: UInt32) { self.tag = tag }

    static func big(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * $0)) } }
    static func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(truncatingIfNeeded: value)] }

    mutating func chunk(_ type: UInt8, _ flags: UInt8 = 0, _ value: [UInt8] = [], length: UInt16? = nil) {
        chunks += [type, flags] + Self.big(length ?? UInt16(4 + value.count)) + value
        while chunks.count % 4 != 0 { chunks.append(0) }
    }

    mutating func data(
        _ tsn: UInt32, stream: UInt16 = 0, sequence: UInt16 = 0, protocolID: UInt32 = 53, flags: UInt8 = 3, _ payload: [UInt8]
    ) {
        chunk(0, flags, Self.big(tsn) + Self.big(stream) + Self.big(sequence) + Self.big(protocolID) + payload)
    }

    var bytes: [UInt8] {
        var packet = Self.big(UInt16(5000)) + Self.big(UInt16(5000)) + Self.big(tag) + [0, 0, 0, 0] + chunks
        let checksum = CRC32c.checksum(packet.span.bytes)
        // The checksum is written with its lowest byte first.
        for index in 0..<4 { packet[8 + index] = UInt8(truncatingIfNeeded: checksum >> UInt32(8 * index)) }
        return packet
    }
}
