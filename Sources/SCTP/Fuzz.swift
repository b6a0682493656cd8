// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import Primitives

/// A peer may send anything, in any state: nothing traps, memory stays bounded, and every answer is finite.
///
/// The first byte chooses the state and how packets come: bits 0 to 2, the state; bit 3, headers are mended so that chunks are reached;
/// bit 4, the owner takes no messages; bit 5, time passes between packets. Then packets, each after its length in two bytes.
public func fuzzSCTP(_ bytes: RawSpan) {
    guard bytes.byteCount >= 1 else { return }
    var fuzzed = FuzzedAssociation(mode: bytes.byte(0))
    var offset = 1
    while offset &+ 2 <= bytes.byteCount {
        let length = min(Int(bytes.u16(offset)), bytes.byteCount &- offset &- 2, 2048)
        offset &+= 2
        fuzzed.receive(bytes.bytes(offset..<offset &+ length))
        offset &+= length
    }
    fuzzed.end()
}

private struct FuzzedAssociation: ~Copyable {
    /// Tag 0x01020304, TSN 16, FORWARD TSN and RE-CONFIG.
    private static let peerInit: [UInt8] = [
        1, 0, 0, 30, 1, 2, 3, 4, 0, 16, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 16, 0xC0, 0, 0, 4, 0x80, 8, 0, 6, 0x82, 0xC0,
    ]
    private var sctp: SCTPAssociation
    private var now = Instant.zero + .seconds(3600)
    private let mode: UInt8
    private var output = ByteSlab(count: 1, slotSize: 2048)
    private var input = ByteSlab(count: 1, slotSize: 2048)

    init(mode: UInt8) {
        self.mode = mode
        let state = mode & 7
        sctp = SCTPAssociation(
            maxMessageSize: 16_384, peerMaxMessageSize: 0, isClientOfDTLS: true, seed: 1, isPassive: state == 0, at: now)
        drain()
        guard state >= 2 else { return }
        let isUp = unsafe sctp.establish(withPeerInit: Self.peerInit.span.bytes, at: now)
        precondition(isUp)
        drain()
        guard state >= 3 else { return }
        let channel = sctp.openChannel(label: "fuzz", isOrdered: state != 4)
        precondition(channel == 0)
        let zeros = InlineArray<1600, UInt8>(repeating: 0)
        for _ in 0..<8 { _ = unsafe sctp.send(zeros.span.bytes, isBinary: true, on: 0) }
        // Only with this state are messages given up: no API asks for it, only a peer's OPEN does.
        if state == 4 { sctp.channels[0].reliability = .retransmissions }
        drain()
        switch state {
        case 5: sctp.closeChannel(0)
        case 6: sctp.close()
        case 7:
            for _ in 0..<3 {
                let all = sctp.sending.highestSent
                sctp.receiveCumulativeAck(all)
                drain()
            }
            sctp.close()
        default: break
        }
        drain()
    }

    mutating func receive(_ packet: RawSpan) {
        let isMended = mode & 8 != 0 && packet.byteCount >= commonHeaderSize + 4
        Self.deliver(packet, isMended, &sctp, &input, now)
        drain()
        guard mode & 32 != 0 else { return }
        now = max(now, min(sctp.nextDeadline, now + .seconds(60)))
        sctp.advance(to: now)
        precondition(sctp.nextDeadline > now, "a timer that has run out still runs")
        drain()
    }

    private static func deliver(
        _ packet: RawSpan, _ isMended: Bool, _ sctp: inout SCTPAssociation, _ input: inout ByteSlab, _ now: Instant
    ) {
        var copy = input.mutableBytes(0, 0..<packet.byteCount)
        if packet.byteCount > 0 { copy.copy(packet, to: 0) }
        if isMended { mend(&copy, sctp) }
        _ = sctp.receive(input.bytes(0, packet.byteCount), at: now)
    }

    /// Ports, tag and checksum as the association wants them.
    private static func mend(_ packet: inout MutableRawSpan, _ sctp: borrowing SCTPAssociation) {
        packet.set(UInt16(5000), at: 0)
        packet.set(UInt16(5000), at: 2)
        packet.set(packet.byte(commonHeaderSize) == ChunkType.initiate ? 0 : sctp.localTag, at: 4)
        sealCookie(&packet, sctp)
        let checksum = CRC32c.ofPacket(packet.bytes)
        packet.set(checksum, at: 8)
    }

    /// Everything out, as the owner would do it.
    private mutating func drain() {
        var packets = 0
        while transmit() {
            packets &+= 1
            precondition(packets < 2000, "no end of packets")
        }
        if mode & 16 == 0 {
            while let event = sctp.nextEvent() {
                guard case .message(_, _, let byteCount) = event else { continue }
                let message = sctp.takeMessage()
                precondition(message?.count == byteCount)
            }
        }
        precondition(sctp.memory < 2 << 20, "memory")
        precondition(sctp.bufferedAmount <= sendBufferLimit)
        precondition(sctp.sending.flight >= 0 && sctp.sending.lostCount >= 0)
    }

    private mutating func transmit() -> Bool {
        var wrote = false
        let count = Self.write(&sctp, &output, now, &wrote)
        precondition(wrote ? count >= 16 && count <= sctp.mtu && count & 3 == 0 : count == 0)
        return wrote
    }

    /// A cookie gets our seal; 1 and 2 stand for the tags of the association.
    private static func sealCookie(_ packet: inout MutableRawSpan, _ sctp: borrowing SCTPAssociation) {
        let start = commonHeaderSize + 4
        guard packet.byte(commonHeaderSize) == ChunkType.cookieEcho, packet.byteCount >= start + StateCookie.size else { return }
        for offset in [8, 16, 20, 24] {
            let value = packet.u32(start + offset)
            if value == 1 { packet.set(sctp.localTag, at: start + offset) }
            if value == 2 { packet.set(sctp.peerTag, at: start + offset) }
        }
        packet.set(packet.u32(start + 8), at: 4)
        var hash = SipHash(key: sctp.key)
        hash.update(packet.bytes.bytes(start..<start + StateCookie.size - 8))
        packet.set(hash.finalize(), at: start + StateCookie.size - 8)
    }

    private static func write(_ sctp: inout SCTPAssociation, _ output: inout ByteSlab, _ now: Instant, _ wrote: inout Bool) -> Int {
        output.write(0, 0..<2048) { wrote = sctp.nextTransmit(into: &$0, at: now) }
    }

    /// Left alone, every association comes to rest or ends.
    mutating func end() {
        for _ in 0..<200 {
            let deadline = sctp.nextDeadline
            guard deadline != .never else { break }
            now = max(now, deadline)
            sctp.advance(to: now)
            drain()
        }
        sctp.abort()
        drain()
        precondition(sctp.isOver && sctp.nextDeadline == .never)
    }
}
