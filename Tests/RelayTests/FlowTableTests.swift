// The flow table against a Dictionary that does the same slowly, driven by a seed.
import Primitives
import RelayCore
import RoutingHint
import TestSupport
import Testing

/// What the table must be: the same rules without any cleverness.
struct FlowModel {
    struct Entry {
        var route: Route
        var hint: UInt32
        var confirmed = false
        var since: UInt64
        var seen: UInt64
    }
    var entries: [SocketAddress: Entry] = [:]

    func unconfirmed(of hint: UInt32) -> Int { entries.values.filter { $0.hint == hint && !$0.confirmed }.count }
}

@Suite struct `Flow table` {
    static func ufrag(_ number: UInt32) -> Ufrag {
        var codec = HintCodec(wellKnownKeyRing())
        return codec.mint(RoutingHint(cluster: 1, transceiver: 2, worker: 3, mintedAt: 4, session: number))
    }

    @Test func `a flow takes at most 96 bytes with its share of the index`() {
        #expect(FlowTable.byteCount(capacity: 262_144) <= 262_144 * 97)
    }

    /// A thousand steps a seed with few addresses, so that chains form, wrap around and are closed again.
    @Test(arguments: 1...40) func `the table agrees with a dictionary`(seed: Int) {
        var random = SeededGenerator(seed: UInt64(seed))
        let capacity = [1, 7, 32, 100][seed % 4]
        let cap = 5
        var limits = FlowLimits()
        limits.unconfirmedPerHint = cap
        var milliseconds: UInt64 = seed % 3 == 0 ? (1 << 32) - 100_000 : 7_000_000  // some cross the 2^32 of the stored times
        func now() -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }
        var table = FlowTable(capacity: capacity, limits: limits, key: SipKey(k0: UInt64(seed), k1: 2), now: now())
        var model = FlowModel()
        let ufrags = (0..<40).map { Self.ufrag(UInt32($0)) }

        for _ in 0..<1000 {
            milliseconds += UInt64.random(in: 0...400, using: &random)
            let source = SocketAddress(
                IPAddress(v4: 0x0A00_0000 | UInt32.random(in: 0...20, using: &random)), port: UInt16.random(in: 1...8, using: &random))
            let found = table.find(source)
            // Expiry is late by up to a second: until then both may still have it, and the table decides.
            if found == nil, let entry = model.entries[source] {
                let age = milliseconds - (entry.confirmed ? entry.seen : entry.since)
                #expect(age >= (entry.confirmed ? 60_000 : 10_000))
                model.entries[source] = nil
            }
            #expect((found != nil) == (model.entries[source] != nil))
            let hint = UInt32.random(in: 0..<40, using: &random)
            let route = Route(cluster: 1, transceiver: hint, worker: UInt8(hint), session: hint)
            switch (Int.random(in: 0..<10, using: &random), found) {
            case (0..<6, nil):
                switch table.insert(source, route, ufrags[Int(hint)], at: now()) {
                case .inserted(let number):
                    #expect(table.route(number) == route)
                    model.entries[source] = .init(route: route, hint: hint, since: milliseconds, seen: milliseconds)
                case .tableFull: #expect(table.count == capacity)
                case .hintExhausted: #expect(model.unconfirmed(of: hint) >= cap)
                }
            case (0..<3, let number?):
                table.touch(number, at: now())
                model.entries[source]?.seen = milliseconds
            case (3..<5, let number?):
                if !table.isConfirmed(number) { model.entries[source]?.seen = milliseconds }
                table.confirm(number, at: now())
                model.entries[source]?.confirmed = true
            case (5, let number?):
                if table.move(number, to: route, ufrags[Int(hint)], at: now()) {
                    let stays = model.entries[source]?.confirmed == true && model.entries[source]?.route == route
                    model.entries[source]?.confirmed = stays
                    model.entries[source]?.route = route
                    model.entries[source]?.hint = hint
                    model.entries[source]?.since = milliseconds
                } else {
                    #expect(model.unconfirmed(of: hint) >= cap)
                }
            case (6, let number?):
                table.remove(number)
                model.entries[source] = nil
            default:
                let budget = Int.random(in: 1...50, using: &random)
                _ = table.expire(at: now(), budget: budget)
                // Whoever is gone must have been due.
                for (source, entry) in model.entries where table.find(source) == nil {
                    let age = milliseconds - (entry.confirmed ? entry.seen : entry.since)
                    #expect(age >= (entry.confirmed ? 60_000 : 10_000))
                    model.entries[source] = nil
                }
            }
            #expect(table.count == model.entries.count)
            #expect(table.confirmedCount == model.entries.values.filter(\.confirmed).count)
            if let number = table.find(source), let entry = model.entries[source] {
                #expect(table.route(number) == entry.route)
                #expect(table.isConfirmed(number) == entry.confirmed)
            }
        }
        for source in model.entries.keys { #expect(table.find(source) != nil) }

        // In the end everybody is due, and the table is as new.
        milliseconds += 62_000
        _ = table.expire(at: now(), budget: .max)
        #expect(table.count == 0)
        for number in 0..<capacity {
            #expect(
                table.insert(
                    SocketAddress(.v4Loopback, port: UInt16(number + 1)), Route(cluster: 1, transceiver: 1, worker: 1, session: 1),
                    ufrags[number % 40], at: now()) != .tableFull)
        }
    }

    @Test func `expiry is never early and at most a second late, even at the end of the stored clock`() {
        for start: UInt64 in [7_000_000, (1 << 32) - 5_000, (1 << 32) - 1] {
            func at(_ offset: UInt64) -> Instant { Instant(nanoseconds: (start + offset) * 1_000_000) }
            var table = FlowTable(capacity: 4, key: SipKey(k0: 1, k1: 2), now: at(0))
            let source = SocketAddress(.v4Loopback, port: 1)
            _ = table.insert(source, Route(cluster: 1, transceiver: 1, worker: 1, session: 1), Self.ufrag(1), at: at(0))
            #expect(table.expire(at: at(9_999)) == (0, 0))
            #expect(table.expire(at: at(11_100)) == (1, 0))
            #expect(table.nextDeadline == .never)
        }
    }

    @Test func `a stop of many rounds costs one sweep`() {
        let now = Instant(nanoseconds: 1_000_000_000_000)
        var table = FlowTable(capacity: 100, key: SipKey(k0: 1, k1: 2), now: now)
        for port in 1...50 {
            _ = table.insert(
                SocketAddress(.v4Loopback, port: UInt16(port)), Route(cluster: 1, transceiver: 1, worker: 1, session: 1),
                Self.ufrag(UInt32(port)), at: now)
        }
        let later = now + .seconds(100_000)
        #expect(table.expire(at: later, budget: 20) == (20, 0))
        #expect(table.nextDeadline < later)
        #expect(table.expire(at: later, budget: 100) == (30, 0))
        #expect(table.count == 0)
    }
}
