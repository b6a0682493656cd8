import EventLoop
import Primitives
import RelayCore
import Trunk

/// A relay core with flows that its own hints have opened, and packets for them.
struct CoreBench: ~Copyable {
    private var relay: Relay
    private var maker: FlowMaker
    private let clients: [SocketAddress]
    private let packet: [UInt8]
    private let frames: [UInt8]
    private let frameSize: Int
    /// The same packets as another ingress relay sends them here.
    private let passing: [UInt8]
    private let passingSize: Int
    /// In all but the last.
    private let packetsPerFrame: Int
    private(set) var moved = 0

    init(_ plan: BenchPlan) {
        maker = FlowMaker(transceivers: plan.transceivers)
        relay = maker.relay(trunk: SocketAddress(IPAddress(v4: 0x0A00_0101), port: 3480), flows: plan.flows)
        clients = (0..<plan.flows).map {
            SocketAddress(IPAddress(v4: 0xCB00_7100 + UInt32($0 >> 8)), port: UInt16(10_000 + ($0 & 0xFF)))
        }
        packet = FlowMaker.voice(plan.size)
        (frames, frameSize) = maker.frames(packet, to: clients, from: 0, count: max(BenchPlan.batch, plan.flows))
        (passing, passingSize) = maker.frames(
            packet, to: clients, from: 0, count: max(BenchPlan.batch, plan.flows), ingress: FlowMaker.relayID + 1, most: plan.perFrame)
        packetsPerFrame = (passingSize - TrunkFormat.frameHeaderSize) / (TrunkFormat.recordHeaderSize + plan.size)
        for client in clients {
            let check = maker.check()
            _ = relay.receive(check.span.bytes, from: client, at: MonotonicClock.now())
            drain()
        }
        // One client that no transceiver has confirmed, as there always is one.
        let check = maker.check()
        let now = MonotonicClock.now()
        _ = relay.receive(check.span.bytes, from: SocketAddress(IPAddress(v4: 0xC000_0201), port: 9), at: now)
        drain()
        deliver(now, limit: .max)
        moved = 0
    }

    mutating func run(_ direction: BenchPlan.Direction, packets: Int) {
        let now = MonotonicClock.now()
        switch direction {
        case .up: forward(packets / BenchPlan.batch, now)
        case .down: while moved < packets { deliver(now, limit: packets) }
        }
    }

    /// Passes on what another relay has sent, as the second hop.
    mutating func passOn(packets: Int) {
        let now = MonotonicClock.now()
        while moved < packets { passOn(now, limit: packets) }
    }

    /// Gives the relay what it drops, each datagram from a source of its own.
    mutating func refuse(_ kind: Rubbish.Kind, packets: Int) {
        let now = MonotonicClock.now()
        let rubbish = Rubbish([kind], first: 0, sources: 1, maker: maker).packets
        // Laid end to end: what an array costs when it is taken out of another one would count as the relay's.
        let bytes = Array(rubbish.joined())
        let ends = rubbish.indices.map { place in rubbish[...place].reduce(0) { $0 + $1.count } }
        var number = 0
        while number < packets {
            for place in ends.indices {
                let source = SocketAddress(IPAddress(v4: 0x0B00_0000 + UInt32(number & 0xFF_FFFF)), port: 40_000)
                let start = place == 0 ? 0 : ends[place - 1]
                if case .dropped = relay.receive(bytes.span.bytes.bytes(start..<ends[place]), from: source, at: now) { moved += 1 }
                number += 1
            }
            relay.advance(to: now)
            drain()
        }
    }

    private mutating func forward(_ batches: Int, _ now: Instant) {
        let clients = clients
        let packet = packet
        var index = 0
        for _ in 0..<batches {
            for _ in 0..<BenchPlan.batch {
                if relay.receive(packet.span.bytes, from: clients[index], at: now) == .forwarded { moved += 1 }
                index += 1
                if index == clients.count { index = 0 }
            }
            relay.advance(to: now)
            drain()
        }
    }

    /// All frames once, up to `limit` packets.
    private mutating func deliver(_ now: Instant, limit: Int) {
        let frames = frames
        var start = 0
        while start < frames.count, moved < limit {
            let end = min(start + frameSize, frames.count)
            moved += Self.deliver(frames.span.bytes.bytes(start..<end), &relay, now)
            start = end
            relay.advance(to: now)
        }
    }

    /// All frames of the other relay's once, up to `limit` packets, sixteen to a turn.
    private mutating func passOn(_ now: Instant, limit: Int) {
        let passing = passing
        var start = 0
        var inTurn = 0
        while start < passing.count, moved < limit {
            let end = min(start + passingSize, passing.count)
            moved += packetsPerFrame * Self.take(passing.span.bytes.bytes(start..<end), &relay, now)
            start = end
            inTurn += 1
            if inTurn == 16 || start >= passing.count || moved >= limit {
                relay.advance(to: now)
                drain()
                inTurn = 0
            }
        }
    }

    /// How many frames were passed on.
    private static func take(_ bytes: RawSpan, _ relay: inout Relay, _ now: Instant) -> Int {
        let before = relay.counters.framesPassedOn
        _ = relay.openTrunk(bytes, from: SocketAddress(.v4Loopback, port: 1), at: now)
        return Int(relay.counters.framesPassedOn - before)
    }

    /// As the worker does: what is delivered is sent from where it lies.
    private static func deliver(_ bytes: RawSpan, _ relay: inout Relay, _ now: Instant) -> Int {
        guard var frame = relay.openTrunk(bytes, from: SocketAddress(.v4Loopback, port: 1), at: now) else { return 0 }
        var count = 0
        while relay.nextDelivery(of: &frame, at: now) != nil { count += 1 }
        return count
    }

    private mutating func drain() { Self.drain(&relay) }

    /// As the worker does: it sends every train from where it lies.
    private static func drain(_ relay: inout Relay) { while relay.nextDeparture() != nil {} }
}
