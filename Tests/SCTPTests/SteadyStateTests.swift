import CLinux
import Glibc
import Primitives
import SCTP
import Testing

@Suite struct SteadyState {
    @Test func `after a first burst, thousands of messages cost not a byte of heap`() async {
        await #expect(processExitsWith: .success) {
            var pair = Pair()
            var heap = 0
            for round in 0..<400 {
                // The first bursts let the stores grow.
                if round == 50 { heap = Int(mallinfo2().uordblks) }
                for _ in 0..<20 { pair.exchange() }
            }
            precondition(pair.received == 400 * 20 * 2, "\(pair.received)")
            let grown = Int(mallinfo2().uordblks)
            precondition(grown == heap, "the heap grew from \(heap) to \(grown) bytes")
        }
    }

    @Test func `an idle association takes less than 20 KiB`() {
        let pair = Pair()
        let memory = pair.a.memory
        #expect(memory < 20_480)
    }
}

/// Two associations and one buffer, nothing else: what a media worker has.
struct Pair: ~Copyable {
    var a: SCTPAssociation
    var b: SCTPAssociation
    private var packet = ByteSlab(count: 1, slotSize: 1216)
    private var message = ByteSlab(count: 1, slotSize: 4096)
    private var now = Instant.zero + .seconds(3600)
    private(set) var received = 0

    init() {
        a = SCTPAssociation(peerMaxMessageSize: 0, isClientOfDTLS: true, seed: 1, at: now)
        b = SCTPAssociation(peerMaxMessageSize: 0, isClientOfDTLS: false, seed: 2, at: now)
        precondition(a.openNegotiatedChannel(id: 0, isOrdered: true) && b.openNegotiatedChannel(id: 0, isOrdered: true))
        for _ in 0..<10 { turn() }
        precondition(a.isEstablished && b.isEstablished)
    }

    /// One message each way, 1,000 and 3,000 bytes, and all packets that follow.
    mutating func exchange() {
        Self.send(&a, message, 1000)
        Self.send(&b, message, 3000)
        for _ in 0..<3 { turn() }
    }

    private mutating func turn() {
        now = now + .milliseconds(1)
        Self.carry(&a, &b, &packet, now)
        Self.carry(&b, &a, &packet, now)
        received += Self.take(&a, &message) + Self.take(&b, &message)
        a.advance(to: now)
        b.advance(to: now)
    }

    private static func send(_ side: inout SCTPAssociation, _ message: borrowing ByteSlab, _ length: Int) {
        let result = side.send(message.bytes(0, length), isBinary: true, on: 0)
        precondition(result == .sent)
    }

    private static func carry(_ from: inout SCTPAssociation, _ to: inout SCTPAssociation, _ packet: inout ByteSlab, _ now: Instant) {
        while true {
            let count = packet.write(0, 0..<1216) { _ = from.nextTransmit(into: &$0, at: now) }
            if count == 0 { return }
            let reason = to.receive(packet.bytes(0, count), at: now)
            precondition(reason == nil || reason == .unexpectedChunk)
        }
    }

    private static func take(_ side: inout SCTPAssociation, _ message: inout ByteSlab) -> Int {
        var taken = 0
        while let event = side.nextEvent() {
            guard case .message(_, _, let byteCount) = event else { continue }
            let count = message.write(0, 0..<4096) { _ = side.takeMessage(into: &$0) }
            precondition(count == byteCount)
            taken += 1
        }
        return taken
    }
}
