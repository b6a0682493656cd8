// The network of the simulator: it does what its profile says, no more, and the same again for the same seed.
import Primitives
import Simulation
import Testing

@Suite struct NetworkTests {
    static let a = SocketAddress("192.0.2.1:1")!
    static let b = SocketAddress("192.0.2.2:2")!
    static let start = Instant(nanoseconds: 1_000_000_000)

    /// Sends `count` datagrams a millisecond apart; the numbers of those that arrive, in order, and when.
    static func traffic(_ count: Int, _ link: LinkProfile, seed: UInt64 = 1) -> (
        arrived: [(number: Int, at: Instant)], VirtualNetwork.Counters
    ) {
        var network = VirtualNetwork(seed: seed)
        for number in 0..<count {
            network.send([UInt8(number >> 8), UInt8(number & 255)], from: a, to: b, over: link, at: start + .milliseconds(Int64(number)))
        }
        var arrived: [(Int, Instant)] = []
        while network.nextArrival != .never {
            let now = network.nextArrival
            while let datagram = network.nextArrived(by: now) {
                arrived.append((Int(datagram.bytes[0]) << 8 | Int(datagram.bytes[1]), now))
            }
        }
        return (arrived, network.counters)
    }

    @Test func `a perfect link delivers everything in order after its delay`() {
        let (arrived, counters) = Self.traffic(1000, LinkProfile(delay: .milliseconds(7)))
        #expect(arrived.map(\.number) == Array(0..<1000))
        #expect(arrived.allSatisfy { $0.at == Self.start + .milliseconds(Int64($0.number) + 7) })
        #expect(counters.sent == 1000 && counters.lost == 0 && counters.duplicated == 0 && counters.overtook == 0)
    }

    @Test func `nothing arrives before its time`() {
        var network = VirtualNetwork(seed: 1)
        network.send([1], from: Self.a, to: Self.b, over: LinkProfile(delay: .milliseconds(5)), at: Self.start)
        let early = network.nextArrived(by: Self.start + .microseconds(4999))
        let inTime = network.nextArrived(by: Self.start + .milliseconds(5))
        #expect(early == nil && inTime != nil)
    }

    @Test func `losses are as frequent as they should be, and come in rows where they should`() {
        func longestRow(_ link: LinkProfile) -> (lost: Int, row: Int) {
            let arrived = Set(Self.traffic(20_000, link).arrived.map(\.number))
            var longest = 0
            var row = 0
            for number in 0..<20_000 {
                row = arrived.contains(number) ? 0 : row + 1
                longest = max(longest, row)
            }
            return (20_000 - arrived.count, longest)
        }
        let single = longestRow(LinkProfile(lossPPM: 50_000))
        #expect((800...1200).contains(single.lost))
        #expect(single.row <= 6)
        // In a bad state nine of ten are lost: one in three over all.
        let bursts = longestRow(LinkProfile(lossPPM: 50_000, burstPPM: 900_000))
        #expect((5000...8500).contains(bursts.lost))
        #expect(bursts.row > 25)
    }

    @Test func `jitter reorders, duplicates come twice, corruption changes one bit`() {
        let jittered = Self.traffic(1000, LinkProfile(delay: .milliseconds(5), jitter: .milliseconds(10)))
        let numbers = jittered.arrived.map(\.number)
        #expect(numbers != numbers.sorted() && numbers.sorted() == Array(0..<1000))
        #expect(jittered.arrived.allSatisfy { $0.at - (Self.start + .milliseconds(Int64($0.number))) < .milliseconds(15) })

        let doubled = Self.traffic(1000, LinkProfile(duplicatePPM: 100_000))
        #expect(doubled.arrived.count == 1000 + doubled.1.duplicated)
        #expect((60...150).contains(doubled.1.duplicated))

        let overtaking = Self.traffic(1000, LinkProfile(delay: .milliseconds(8), reorderPPM: 50_000))
        #expect(overtaking.1.overtook > 20)
        #expect(overtaking.arrived.map(\.number) != Array(0..<1000))

        let corrupted = Self.traffic(1000, LinkProfile(corruptPPM: 1_000_000))
        #expect(corrupted.1.corrupted == 1000)
        // In the order of sending: each is one bit away from what it was.
        #expect(corrupted.arrived.enumerated().allSatisfy { ($0.element.number ^ $0.offset).nonzeroBitCount == 1 })
    }

    @Test func `what is too large, or for a host that is off, vanishes and is counted`() {
        var network = VirtualNetwork(seed: 1)
        let link = LinkProfile(mtu: 100)
        network.send([UInt8](repeating: 0, count: 101), from: Self.a, to: Self.b, over: link, at: Self.start)
        network.send([UInt8](repeating: 0, count: 100), from: Self.a, to: Self.b, over: link, at: Self.start)
        // It goes off while a datagram is on its way.
        network.unreachable = [Self.b]
        network.send([1], from: Self.a, to: Self.b, over: link, at: Self.start)
        network.send([1], from: Self.b, to: Self.a, over: link, at: Self.start)
        let arrived = network.nextArrived(by: Self.start + .seconds(1))
        #expect(arrived == nil)
        #expect(network.counters.tooLarge == 1 && network.counters.cut == 3)
        network.unreachable = []
        network.send([1], from: Self.b, to: Self.a, over: link, at: Self.start)
        let again = network.nextArrived(by: Self.start + .seconds(1))
        #expect(again?.source == Self.b)
    }

    @Test func `the same seed does the same, another one does not`() {
        let first = Self.traffic(500, .lossyWiFi, seed: 3)
        let second = Self.traffic(500, .lossyWiFi, seed: 3)
        let other = Self.traffic(500, .lossyWiFi, seed: 4)
        #expect(first.arrived.map(\.number) == second.arrived.map(\.number))
        #expect(first.arrived.map(\.at) == second.arrived.map(\.at))
        #expect(first.arrived.map(\.number) != other.arrived.map(\.number))
    }
}
