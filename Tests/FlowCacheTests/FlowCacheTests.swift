import FlowCache
import Primitives
import TestSupport
import Testing

/// The cache and the smallest Redis: commands are parsed, kept in a dictionary, answered.
private struct Rig: ~Copyable {
    var cache: FlowCache
    var now = Instant(nanoseconds: 1_000_000_000)
    var stored: [String: [UInt8]] = [:]
    var commands: [[String]] = []
    /// What came before all else.
    var greeting: [[String]] = []
    /// Instead of a proper answer.
    var answer: [UInt8]?

    init(_ change: (inout FlowCacheSettings) -> Void = { _ in }) {
        var settings = FlowCacheSettings()
        change(&settings)
        cache = FlowCache(settings: settings, key: Array(repeating: 7, count: 32), now: now)
    }

    mutating func connect() -> [FlowCacheConnection] {
        cache.advance(to: now)
        let orders = orders()
        cache.connected(at: now)
        let kept = answer
        answer = nil
        serve()
        answer = kept
        greeting = commands
        commands = []
        return orders
    }

    mutating func orders() -> [FlowCacheConnection] {
        var orders: [FlowCacheConnection] = []
        while let order = cache.nextOrder() { orders.append(order) }
        return orders
    }

    mutating func events() -> [FlowCacheEvent] {
        var events: [FlowCacheEvent] = []
        while let event = cache.nextEvent() { events.append(event) }
        return events
    }

    mutating func pass(_ span: Interval) {
        now = now + span
        cache.advance(to: now)
    }

    /// The server reads all that waits and answers it.
    mutating func serve() {
        while true {
            let bytes = cache.pendingOutput
            if bytes.isEmpty { return }
            cache.sent(bytes.count)
            var rest = bytes[...]
            while let command = Self.parse(&rest) {
                commands.append(command.map { String(decoding: $0, as: UTF8.self) })
                let reply: [UInt8]
                if let answer {
                    reply = answer
                } else {
                    switch commands.last?.first {
                    case "SET":
                        stored[commands.last![1]] = command[2]
                        reply = Array("+OK\r\n".utf8)
                    case "GET":
                        if let value = stored[commands.last![1]] {
                            reply = Array("$\(value.count)\r\n".utf8) + value + Array("\r\n".utf8)
                        } else {
                            reply = Array("$-1\r\n".utf8)
                        }
                    case "PING": reply = Array("+PONG\r\n".utf8)
                    default: reply = Array("+OK\r\n".utf8)
                    }
                }
                // One byte at a time: a stream has no message boundaries.
                for byte in reply { cache.receive([byte].span.bytes, at: now) }
            }
        }
    }

    static func parse(_ rest: inout ArraySlice<UInt8>) -> [[UInt8]]? {
        func line(_ rest: inout ArraySlice<UInt8>) -> String? {
            guard let end = rest.firstIndex(of: 13) else { return nil }
            let text = String(decoding: rest[rest.startIndex..<end], as: UTF8.self)
            rest = rest[(end + 2)...]
            return text
        }
        guard let head = line(&rest), head.hasPrefix("*"), let count = Int(head.dropFirst()) else { return nil }
        var arguments: [[UInt8]] = []
        for _ in 0..<count {
            guard let length = line(&rest).flatMap({ Int($0.dropFirst()) }) else { return nil }
            arguments.append(Array(rest.prefix(length)))
            rest = rest.dropFirst(length + 2)
        }
        return arguments
    }
}

private let client = SocketAddress("192.0.2.7:40000")!
private let other = SocketAddress("[2001:db8::7]:40000")!
private let ufrag = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345".utf8)

@Suite struct FlowCacheTests {
    @Test func `what one relay remembered another one finds`() {
        var rig = Rig()
        #expect(rig.connect() == [.connect])
        rig.cache.remember(client, ufrag: ufrag, at: rig.now)
        rig.serve()
        let written = rig.commands[0]
        #expect(written[0] == "SET" && written[1] == "swiftlet:flow:192.0.2.7:40000" && written[3] == "EX" && written[4] == "120")
        rig.cache.lookUp(client, at: rig.now)
        rig.serve()
        #expect(rig.events() == [.found(client, ufrag: ufrag)])
        rig.cache.lookUp(other, at: rig.now)
        rig.serve()
        #expect(rig.events() == [.missed(other)])
    }

    @Test func `login and database come before anything else`() {
        var rig = Rig {
            $0.user = "relay"
            $0.password = "secret"
            $0.database = 3
        }
        rig.cache.remember(client, ufrag: ufrag, at: rig.now)
        rig.cache.advance(to: rig.now)
        rig.cache.connected(at: rig.now)
        let isOpen = rig.cache.isOpen
        #expect(!isOpen)
        rig.serve()
        #expect(
            rig.commands.map { $0.prefix(2).joined(separator: " ") } == [
                "AUTH relay", "SELECT 3", "PING", "SET swiftlet:flow:192.0.2.7:40000",
            ])
    }

    @Test(arguments: [
        "-WRONGPASS invalid\r\n", "-LOADING Redis is loading the dataset in memory\r\n", "-NOPERM no\r\n", "$-1\r\n", "*0\r\n",
        "HTTP/1.1 400\r\n",
    ])
    func `whoever does not greet is not asked`(answer: String) {
        var rig = Rig { $0.password = "wrong" }
        rig.cache.advance(to: rig.now)
        _ = rig.orders()
        rig.cache.connected(at: rig.now)
        rig.answer = Array(answer.utf8)
        rig.serve()
        #expect(rig.orders() == [.close])
        rig.cache.lookUp(client, at: rig.now)
        #expect(rig.events() == [.unanswered(client)])
    }

    @Test func `a server that accepts and says nothing is tried ever less often`() {
        var rig = Rig()
        var connects: [Instant] = []
        while rig.now < Instant(nanoseconds: 121_000_000_000) {
            for order in rig.orders() where order == .connect {
                connects.append(rig.now)
                rig.cache.connected(at: rig.now)
            }
            rig.pass(.milliseconds(50))
        }
        let gaps = zip(connects.dropFirst(), connects).map { ($0 - $1).milliseconds }
        #expect((7...11).contains(connects.count) && gaps == gaps.sorted(), "\(gaps)")
        let isOpen = rig.cache.isOpen
        #expect(!isOpen)
    }

    @Test func `what waits during an outage is written afterwards, the oldest given up`() {
        var rig = Rig { $0.writesMax = 64 }
        for port in 1...100 { rig.cache.remember(SocketAddress(client.ip, port: UInt16(port)), ufrag: ufrag, at: rig.now) }
        _ = rig.connect()
        rig.serve()
        let kept = rig.stored.count
        let counters = rig.cache.counters
        #expect(kept <= 64 && kept >= 56 && rig.stored["swiftlet:flow:192.0.2.7:100"] != nil)
        #expect(counters.writes == UInt64(kept) && counters.writesDropped == UInt64(100 - kept))
    }

    /// A true answer, cut at every byte and gone on with something else: never a flow that was not stored, never a trap, and the
    /// connection either lives or is made again.
    @Test func `nonsense at every byte of an answer is harmless`() {
        var codec = FlowRecordCodec(key: Array(repeating: 7, count: 32))
        let value = codec.seal(ufrag, of: client)
        let answer = Array("$49\r\n".utf8) + value + Array("\r\n".utf8)
        let tails: [[UInt8]] = [
            [], [0], [0xFF], Array("\r\n".utf8), Array("$-1\r\n".utf8), Array("*9\r\n".utf8), Array(repeating: 65, count: 70_000),
        ]
        for cut in 0...answer.count {
            for tail in tails {
                var rig = Rig()
                _ = rig.connect()
                rig.cache.lookUp(client, at: rig.now)
                let bytes = Array(answer[..<cut]) + tail
                rig.cache.receive(bytes.span.bytes, at: rig.now)
                rig.pass(.milliseconds(60))
                let events = rig.events()
                #expect(events.count == 1)
                // hiredis counts the line end behind a value and does not look at it: the MAC says what is true.
                if case .found(_, let found) = events.first { #expect(found == ufrag && cut >= answer.count - 2) }
                if cut == answer.count, tail.isEmpty { #expect(events == [.found(client, ufrag: ufrag)]) }
                rig.pass(.seconds(2))
                rig.pass(.seconds(2))
                let isOpen = rig.cache.isOpen
                let orders = rig.orders()
                #expect(isOpen || orders.contains(.connect))
            }
        }
    }

    /// A value under another source's key, a cut one, a flipped bit, another type: all are misses, and counted as forged.
    @Test func `a value that is not ours about this source is a miss`() {
        var codec = FlowRecordCodec(key: Array(repeating: 7, count: 32))
        var flipped = codec.seal(ufrag, of: client)
        flipped[20] ^= 1
        var foreign = FlowRecordCodec(key: Array(repeating: 8, count: 32))
        let values = [
            codec.seal(ufrag, of: other), Array(codec.seal(ufrag, of: client).dropLast()), flipped, foreign.seal(ufrag, of: client), [],
        ]
        for value in values {
            var rig = Rig()
            _ = rig.connect()
            rig.stored["swiftlet:flow:192.0.2.7:40000"] = value
            rig.cache.lookUp(client, at: rig.now)
            rig.serve()
            let events = rig.events()
            let counters = rig.cache.counters
            #expect(events == [.missed(client)] && counters.forged == 1 && counters.hits == 0)
        }
    }

    @Test(arguments: [":5\r\n", "-WRONGTYPE x\r\n", "+OK\r\n", "$-1\r\n"])
    func `an answer of another kind is a miss and the connection lives`(answer: String) {
        var rig = Rig()
        _ = rig.connect()
        rig.answer = Array(answer.utf8)
        rig.cache.lookUp(client, at: rig.now)
        rig.serve()
        #expect(rig.events() == [.missed(client)])
        let open = rig.cache.isOpen
        #expect(open)
    }

    @Test(arguments: [
        "hello\r\n", "$99999999999999999999\r\n", "*2147483647\r\n", "*1\r\n$1\r\na\r\n", "\u{0}\u{1}\u{2}", "HTTP/1.1 400 Bad\r\n",
        "$5\r\nabcdefgh",
    ])
    func `nonsense closes the connection without harm`(answer: String) {
        var rig = Rig()
        _ = rig.connect()
        rig.answer = Array(answer.utf8)
        rig.cache.lookUp(client, at: rig.now)
        rig.serve()
        rig.pass(.milliseconds(60))
        let events = rig.events()
        #expect(events == [.unanswered(client)] || events == [.missed(client)], "\(events)")
        rig.pass(.seconds(2))
        rig.pass(.seconds(2))
        #expect(rig.orders().contains(.connect))
    }

    @Test func `a hung server costs each lookup its deadline and then nothing`() {
        var rig = Rig()
        _ = rig.connect()
        rig.cache.lookUp(client, at: rig.now)
        let deadline = rig.cache.nextDeadline.instant
        #expect(deadline == rig.now + .milliseconds(50))
        rig.pass(.milliseconds(49))
        #expect(rig.events().isEmpty)
        rig.pass(.milliseconds(1))
        #expect(rig.events() == [.unanswered(client)])
        rig.pass(.seconds(1))
        #expect(rig.orders() == [.close])
        rig.cache.lookUp(other, at: rig.now)
        #expect(rig.events() == [.unanswered(other)])
    }

    @Test func `a server that hangs is found out while questions keep coming, and while there are none`() {
        for pause in [20, 60, 0] {
            var rig = Rig()
            _ = rig.connect()
            var passed = 0
            while rig.cache.isOpen && passed < 10_000 {
                if pause > 0, passed % pause == 0 { rig.cache.lookUp(SocketAddress(client.ip, port: UInt16(passed + 1)), at: rig.now) }
                rig.cache.sent(rig.cache.pendingOutput.count)
                rig.pass(.milliseconds(1))
                passed += 1
            }
            #expect(passed < (pause == 0 ? 6_100 : 1_100), "after \(passed) ms")
        }
    }

    @Test func `reconnecting backs off and a late answer to an old lookup is not believed`() {
        var rig = Rig()
        var gaps: [Int64] = []
        for _ in 0..<12 {
            let before = rig.now
            rig.cache.advance(to: rig.now)
            while rig.orders().last != .connect { rig.pass(.milliseconds(100)) }
            gaps.append((rig.now - before).milliseconds)
            rig.cache.disconnected(at: rig.now)
        }
        #expect(gaps.prefix(4) == [0, 100, 200, 400] && gaps.last == 30_000)
    }

    @Test func `lookups are limited by rate, and a source that was not found is not asked for again at once`() {
        var rig = Rig { $0.lookupsPerSecond = 10 }
        _ = rig.connect()
        for port in 1...40 { rig.cache.lookUp(SocketAddress(client.ip, port: UInt16(port)), at: rig.now) }
        rig.serve()
        let gets = rig.commands.count
        #expect(gets == 10 && rig.events().count == 40)
        rig.pass(.seconds(1))
        rig.cache.lookUp(SocketAddress(client.ip, port: 1), at: rig.now)
        let counters = rig.cache.counters
        #expect(counters.refusedByNegative == 1)
    }

    @Test func `writes that nobody reads are bounded`() {
        var rig = Rig { $0.writesMax = 64 }
        _ = rig.connect()
        for port in 1...20_000 { rig.cache.remember(SocketAddress(client.ip, port: UInt16(port)), ufrag: ufrag, at: rig.now) }
        let pending = rig.cache.pendingOutput.count
        let counters = rig.cache.counters
        #expect(pending < 256_000 && counters.writesDropped > 0)
    }

    @Test func `random bytes from the server never trap`() {
        let seeds = ["$49\r\n", "+OK\r\n", "*3\r\n$1\r\na\r\n", "-ERR\r\n", ":1\r\n", "$-1\r\n"].map { Array($0.utf8) }
        mutate(seeds, count: mutationCount / 10) { bytes in
            var rig = Rig()
            _ = rig.connect()
            for port in 1...4 { rig.cache.lookUp(SocketAddress(client.ip, port: UInt16(port)), at: rig.now) }
            rig.cache.receive(bytes, at: rig.now)
            rig.pass(.milliseconds(60))
            let events = rig.events()
            precondition(events.count == 4 && !events.contains { if case .found = $0 { true } else { false } })
        }
    }
}
