import Primitives
import RelayCore
import RoutingHint
import TestSupport
import Testing

/// Memory that outlives its tables, as a mapping outlives workers.
private final class Mapping {
    let capacity: Int
    let base: UnsafeMutableRawPointer
    let byteCount: Int
    private let key = SipKey(k0: 3, k1: 4)
    var limits = FlowLimits()

    init(capacity: Int, filledWith byte: UInt8 = 0) {
        self.capacity = capacity
        byteCount = FlowMemory.byteCount(capacity: capacity)
        base = .allocate(byteCount: byteCount, alignment: 64)
        base.initializeMemory(as: UInt8.self, repeating: byte, count: byteCount)
    }
    deinit { base.deallocate() }

    func table(at now: Instant) -> FlowTable {
        FlowTable(memory: FlowMemory(mapped: base, capacity: capacity), limits: limits, key: key, now: now)
    }
    subscript(offset: Int) -> UInt8 {
        get { base.load(fromByteOffset: offset, as: UInt8.self) }
        set { base.storeBytes(of: newValue, toByteOffset: offset, as: UInt8.self) }
    }
}

@Suite struct `Flow adoption` {
    private let start = Instant(nanoseconds: 5_000_000_000_000)

    private func source(_ number: Int) -> SocketAddress { SocketAddress(IPAddress(v4: 0x0A00_0000 + UInt32(number)), port: 4000) }
    private func route(_ number: Int) -> Route { Route(cluster: 1, transceiver: 7, worker: UInt8(number & 3), session: UInt32(number)) }

    /// Three flows of which one is confirmed, in memory that the table then leaves.
    private func leave(_ mapping: Mapping) {
        var table = mapping.table(at: start)
        for number in 1...3 { _ = table.insert(source(number), route(number), `Flow table`.ufrag(UInt32(number)), at: start) }
        if let flow = table.find(source(2)) { table.confirm(flow, at: start) }
    }

    @Test func `the next table has every flow with its route, ufrag, confirmation and time`() {
        let mapping = Mapping(capacity: 8)
        leave(mapping)
        var table = mapping.table(at: start + .seconds(1))
        let adoption = table.adoption
        #expect(adoption.adopted == 3 && adoption.torn == 0 && adoption.expired == 0)
        let counts = (table.count, table.confirmedCount)
        #expect(counts == (3, 1))
        for number in 1...3 {
            guard let flow = table.find(source(number)) else {
                Issue.record("flow \(number) is lost")
                continue
            }
            let found = table.route(flow)
            #expect(found == route(number))
            let isConfirmed = table.isConfirmed(flow)
            #expect(isConfirmed == (number == 2))
        }
        // Unconfirmed flows end ten seconds after they were made, not after they were adopted.
        let early = table.expire(at: start + .milliseconds(9_900))
        #expect(early == (0, 0))
        let due = table.expire(at: start + .seconds(13))
        #expect(due == (2, 0))
        let idle = table.expire(at: start + .seconds(63))
        #expect(idle == (0, 1))
    }

    @Test func `flows whose time was over while nobody looked are not adopted`() {
        let mapping = Mapping(capacity: 8)
        leave(mapping)
        let adoption = mapping.table(at: start + .seconds(30)).adoption
        #expect(adoption.adopted == 1 && adoption.expired == 2 && adoption.torn == 0)
    }

    @Test func `a connection over TCP has ended with the worker that had it`() {
        let mapping = Mapping(capacity: 8)
        leave(mapping)
        var last = mapping.table(at: start)
        _ = last.insert(source(2).overTCP, route(4), `Flow table`.ufrag(4), at: start)
        if let flow = last.find(source(2).overTCP) { last.confirm(flow, at: start) }
        let next = mapping.table(at: start)
        let facts = (next.adoption.adopted, next.adoption.expired, next.find(source(2)) == nil, next.find(source(2).overTCP) == nil)
        #expect(facts == (3, 1, false, true))
    }

    @Test func `a flow that was half written is dropped and counted, the others live`() {
        // Every byte of identity and route of the second flow, one at a time.
        let stride = (FlowMemory.byteCount(capacity: 2) - 64) / 2
        var torn = 0
        for offset in 0..<stride {
            let mapping = Mapping(capacity: 8)
            leave(mapping)
            mapping[64 + stride + offset] ^= 0x55
            let table = mapping.table(at: start)
            let adoption = table.adoption
            #expect(adoption.adopted + adoption.torn + adoption.expired == 3)
            #expect(adoption.adopted >= 2)
            torn += adoption.torn
            let others = (table.find(source(1)) != nil, table.find(source(3)) != nil)
            #expect(others == (true, true))
        }
        // 16 address, 24 ufrag, 8 lane, 4 session, 4 check, 2 port.
        #expect(torn == 58)
    }

    @Test(arguments: [UInt8(0xFF), 0x00, 0x5A]) func `memory full of one byte is an empty table that works`(byte: UInt8) {
        let mapping = Mapping(capacity: 64, filledWith: byte)
        var table = mapping.table(at: start)
        let empty = (table.count, table.adoption.adopted)
        #expect(empty == (0, 0))
        for number in 0..<64 {
            let inserted = table.insert(source(number), route(number), `Flow table`.ufrag(UInt32(number)), at: start)
            guard case .inserted = inserted else {
                Issue.record("place \(number): \(inserted)")
                return
            }
        }
        let full = table.insert(source(64), route(64), `Flow table`.ufrag(64), at: start)
        #expect(full == .tableFull)
    }

    @Test(arguments: 0..<8) func `random memory never traps and never makes two flows of one source`(seed: Int) {
        var random = SeededGenerator(seed: UInt64(seed))
        let mapping = Mapping(capacity: 32)
        var table = mapping.table(at: start)
        for number in 0..<32 { _ = table.insert(source(number), route(number), `Flow table`.ufrag(UInt32(number)), at: start) }
        // Whole places copied over others, and noise.
        let stride = (FlowMemory.byteCount(capacity: 2) - 64) / 2
        for _ in 0..<8 {
            let from = Int(random.next() % 32), to = Int(random.next() % 32)
            for offset in 0..<stride { mapping[64 + to * stride + offset] = mapping[64 + from * stride + offset] }
            mapping[Int(random.next() % UInt64(mapping.byteCount))] = UInt8(truncatingIfNeeded: random.next())
        }
        var next = mapping.table(at: start + .seconds(1))
        let adopted = next.count
        var removed = 0
        for number in 0..<32 {
            if let flow = next.find(source(number)) {
                next.remove(flow)
                removed += 1
                let again = next.find(source(number))
                #expect(again == nil)
            }
        }
        #expect(removed == adopted)
    }
}
