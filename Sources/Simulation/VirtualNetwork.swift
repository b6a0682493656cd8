// The network of the simulator: datagrams in flight in virtual time, and everything that can befall them, from one seed.

import Primitives

/// What a link does to datagrams. Probabilities are parts per million, so that a plan is exact integers and replays exactly.
public struct LinkProfile: Sendable {
    public var delay: Interval
    /// Added to `delay`, uniform in 0…jitter: more jitter than the packet spacing reorders.
    public var jitter: Interval
    public var lossPPM: UInt64
    /// Once a datagram is lost, how likely the next one is lost as well (Gilbert's model); 0 makes losses independent.
    public var burstPPM: UInt64
    public var duplicatePPM: UInt64
    public var corruptPPM: UInt64
    /// A datagram that overtakes others: its delay is `delay` divided by four.
    public var reorderPPM: UInt64
    /// UDP payloads larger than this vanish (a path that drops fragments).
    public var mtu: Int

    public init(
        delay: Interval = .milliseconds(1), jitter: Interval = .zero, lossPPM: UInt64 = 0, burstPPM: UInt64 = 0, duplicatePPM: UInt64 = 0,
        corruptPPM: UInt64 = 0, reorderPPM: UInt64 = 0, mtu: Int = 1472
    ) {
        self.delay = delay
        self.jitter = jitter
        self.lossPPM = lossPPM
        self.burstPPM = burstPPM
        self.duplicatePPM = duplicatePPM
        self.corruptPPM = corruptPPM
        self.reorderPPM = reorderPPM
        self.mtu = mtu
    }

    /// A line for a trace.
    var summary: String {
        var words = ["\(delay.microseconds) µs + \(jitter.milliseconds) ms"]
        let chances = [
            ("lost", lossPPM), ("in bursts", burstPPM), ("doubled", duplicatePPM), ("corrupt", corruptPPM), ("overtaking", reorderPPM),
        ]
        for (name, chance) in chances where chance > 0 { words.append("\(name) \(chance / 10_000) %") }
        if mtu < 1472 { words.append("at most \(mtu) bytes") }
        return words.joined(separator: ", ")
    }

    public static let perfect = LinkProfile()
    public static let lossyWiFi = LinkProfile(
        delay: .milliseconds(15), jitter: .milliseconds(30), lossPPM: 30_000, burstPPM: 300_000, duplicatePPM: 1_000, reorderPPM: 20_000)
}

/// A datagram on its way.
public struct FlyingDatagram: Sendable {
    public var source: SocketAddress
    public var destination: SocketAddress
    public var bytes: [UInt8]
    var arrival: Instant
    var order: UInt64
}

/// All datagrams in flight, ordered by arrival.
public struct VirtualNetwork {
    /// Counts of what happened, for traces and for "did the fault really occur" assertions.
    public struct Counters: Sendable {
        public var sent = 0
        public var lost = 0
        public var duplicated = 0
        public var corrupted = 0
        public var overtook = 0
        public var tooLarge = 0
        public var cut = 0

        public init() {}
    }

    private var random: SeededGenerator
    private var heap: [FlyingDatagram] = []
    private var order: UInt64 = 0
    private var lastLost: Set<SocketAddress> = []
    public private(set) var counters = Counters()
    /// Addresses that nothing reaches and nothing leaves: a partition, or a host that is off.
    public var unreachable: Set<SocketAddress> = []

    public init(seed: UInt64) { random = SeededGenerator(seed: seed) }

    public mutating func send(
        _ bytes: [UInt8], from source: SocketAddress, to destination: SocketAddress, over link: LinkProfile, at now: Instant
    ) {
        counters.sent += 1
        if unreachable.contains(source) || unreachable.contains(destination) {
            counters.cut += 1
            return
        }
        if bytes.count > link.mtu {
            counters.tooLarge += 1
            return
        }
        let likelihood = lastLost.contains(source) && link.burstPPM > 0 ? link.burstPPM : link.lossPPM
        if random.chance(likelihood, in: 1_000_000) {
            counters.lost += 1
            lastLost.insert(source)
            return
        }
        lastLost.remove(source)
        var copies = 1
        if random.chance(link.duplicatePPM, in: 1_000_000) {
            counters.duplicated += 1
            copies = 2
        }
        for _ in 0..<copies {
            var delay = link.delay
            if link.jitter > .zero { delay = delay + .nanoseconds(Int64(random.next() % UInt64(link.jitter.nanoseconds))) }
            if random.chance(link.reorderPPM, in: 1_000_000) {
                counters.overtook += 1
                delay = link.delay / 4
            }
            var copy = bytes
            if !copy.isEmpty, random.chance(link.corruptPPM, in: 1_000_000) {
                counters.corrupted += 1
                copy[Int(random.next() % UInt64(copy.count))] ^= UInt8(1 << (random.next() % 8))
            }
            order += 1
            push(FlyingDatagram(source: source, destination: destination, bytes: copy, arrival: now + delay, order: order))
        }
    }

    /// When the next datagram arrives.
    public var nextArrival: Instant { heap.first?.arrival ?? .never }

    /// The next datagram that has arrived by `now`; datagrams to unreachable hosts vanish here.
    public mutating func nextArrived(by now: Instant) -> FlyingDatagram? {
        while let first = heap.first, first.arrival <= now {
            pop()
            if unreachable.contains(first.destination) {
                counters.cut += 1
                continue
            }
            return first
        }
        return nil
    }

    // A binary heap: (arrival, order), so that equal times keep the order of sending and a seed replays exactly.
    private func before(_ a: FlyingDatagram, _ b: FlyingDatagram) -> Bool { (a.arrival, a.order) < (b.arrival, b.order) }

    private mutating func push(_ datagram: FlyingDatagram) {
        heap.append(datagram)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard before(heap[child], heap[parent]) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func pop() {
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && before(heap[child], heap[least]) { least = child }
            if least == parent { return }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}
