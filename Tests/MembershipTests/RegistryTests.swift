import Membership
import Primitives
import Redis
import TestSupport
import Testing

private let key = Array("thirty-two bytes of a shared key".utf8)

private func member(_ number: UInt32, _ state: MemberState = .serving) -> Member {
    var member = Member(
        id: MemberID(cluster: 1, transceiver: number), trunk: SocketAddress(.v4Loopback, port: UInt16(100 + number)),
        signaling: SocketAddress(.v4Loopback, port: UInt16(number)))
    member.capacity = 10
    member.state = state
    return member
}

/// The smallest Redis: one hash, and whatever else a test wants it to answer.
private struct Server {
    var fields: [String: [UInt8]] = [:]
    var commands: [[String]] = []
    /// Instead of a proper answer to HGETALL.
    var reading: [UInt8]?
    var isHung = false
    var isWrongType = false

    mutating func answer(_ command: [[UInt8]]) -> [UInt8] {
        let words = command.map { String(decoding: $0, as: UTF8.self) }
        commands.append(words)
        let wrongType = Array("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n".utf8)
        switch words[0] {
        case "HSET":
            if isWrongType { return wrongType }
            fields[words[2]] = command[3]
            return Array(":1\r\n".utf8)
        case "HDEL":
            for word in words.dropFirst(2) { fields[word] = nil }
            return Array(":1\r\n".utf8)
        case "HGETALL":
            if isWrongType { return wrongType }
            if let reading { return reading }
            var reply = Array("*\(2 * fields.count)\r\n".utf8)
            for (field, value) in fields.sorted(by: { $0.key < $1.key }) {
                reply += Array("$\(field.utf8.count)\r\n\(field)\r\n$\(value.count)\r\n".utf8) + value + Array("\r\n".utf8)
            }
            return reply
        case "DEL":
            isWrongType = false
            fields = [:]
            return Array(":1\r\n".utf8)
        case "PING": return Array("+PONG\r\n".utf8)
        default: return Array("+OK\r\n".utf8)
        }
    }
}

/// Registries around one server, in virtual time.
private final class Rig {
    var server = Server()
    var registries: Slab<Registry?>
    var isUp = true
    private var connected: [Bool]
    private var input: [[UInt8]]
    var now = Instant(nanoseconds: 1_000_000_000)

    init(_ own: [Member?], known: [Member] = []) {
        let now = now
        registries = Slab(count: own.count) {
            Registry(
                settings: RegistrySettings(), key: key, own: own[$0], known: known, wall: WallClock(secondsSince1970: 1000), now: now)
        }
        connected = own.map { _ in false }
        input = own.map { _ in [] }
    }

    func restart(_ number: Int, _ own: Member, secondsSince1970 seconds: UInt64) {
        registries[number] = Registry(
            settings: RegistrySettings(), key: key, own: own, wall: WallClock(secondsSince1970: seconds), now: now)
        connected[number] = false
        input[number] = []
    }

    func stop(_ number: Int) { registries[number] = nil }

    /// Lets time pass in steps of 100 ms.
    func pass(_ span: Interval) {
        let end = now + span
        while now < end {
            now = now + .milliseconds(100)
            for number in 0..<registries.count { turn(number) }
        }
    }

    private func turn(_ number: Int) {
        registries[number]?.advance(to: now)
        if !isUp, connected[number] {
            connected[number] = false
            registries[number]?.disconnected(at: now)
        }
        for _ in 0..<8 {
            while let order = registries[number]?.nextOrder() {
                connected[number] = order == .connect && isUp
                input[number] = []
                if connected[number] {
                    registries[number]?.connected(at: now)
                } else if order == .connect {
                    registries[number]?.disconnected(at: now)
                }
            }
            guard connected[number], let bytes = registries[number]?.pendingOutput, !bytes.isEmpty else { return }
            registries[number]?.sent(bytes.count)
            input[number] += bytes
            while let command = Self.parse(&input[number]) {
                let reply = server.answer(command)
                guard !server.isHung else { continue }
                // A stream has no message boundaries.
                for start in stride(from: 0, to: reply.count, by: 7) {
                    registries[number]?.receive(reply.span.bytes.bytes(start..<min(start + 7, reply.count)), at: now)
                }
            }
        }
    }

    private static func parse(_ input: inout [UInt8]) -> [[UInt8]]? {
        var rest = input[...]
        func line() -> String? {
            guard let end = rest.firstIndex(of: 13) else { return nil }
            let text = String(decoding: rest[rest.startIndex..<end], as: UTF8.self)
            rest = rest[(end + 2)...]
            return text
        }
        guard let head = line(), head.hasPrefix("*"), let count = Int(head.dropFirst()) else { return nil }
        var arguments: [[UInt8]] = []
        for _ in 0..<count {
            guard let length = line().flatMap({ Int($0.dropFirst()) }), rest.count >= length + 2 else { return nil }
            arguments.append(Array(rest.prefix(length)))
            rest = rest.dropFirst(length + 2)
        }
        input = Array(rest)
        return arguments
    }

    func present(_ number: Int) -> [UInt32] { registries[number]?.book.present.map(\.id.transceiver) ?? [] }
    func knows(_ number: Int, _ member: Member) -> Bool { registries[number]?.book[member.id] != nil }
    var counters: RegistryCounters { registries[0]?.counters ?? RegistryCounters() }
}

@Suite struct RegistryTests {
    @Test func `transceivers write themselves and everybody reads them`() {
        var rig = Rig([nil, member(1), member(2)])
        rig.pass(.seconds(4))
        for reader in 0..<3 { #expect(rig.present(reader) == [1, 2]) }
        #expect(rig.registries[0]?.book[member(2).id]?.trunk == member(2).trunk)
        let expiry = rig.server.commands.first { $0[0] == "EXPIRE" }
        #expect(expiry?[2] == "60")
        // A relay writes nothing.
        rig = Rig([nil])
        rig.pass(.seconds(10))
        #expect(Set(rig.server.commands.map { $0[0] }) == ["PING", "HGETALL"])
    }

    @Test func `load is told with the next writing and draining at once`() {
        let rig = Rig([nil, member(1)])
        rig.pass(.seconds(4))
        rig.registries[1]?.describe(load: 7, .serving, at: rig.now)
        rig.pass(.seconds(7))
        #expect(rig.registries[0]?.book[member(1).id]?.load == 7)
        let before = rig.server.commands.count { $0[0] == "HSET" }
        rig.registries[1]?.describe(load: 7, .draining, at: rig.now)
        rig.pass(.milliseconds(200))
        #expect(rig.server.commands.count { $0[0] == "HSET" } == before + 1)
        rig.pass(.seconds(3))
        #expect(rig.registries[0]?.book[member(1).id]?.state == .draining)
    }

    @Test func `the entry of a dead transceiver goes, and who knew it still does`() {
        let rig = Rig([nil, member(1), member(2)])
        rig.pass(.seconds(5))
        rig.stop(2)
        rig.pass(.seconds(10))
        #expect(rig.present(0) == [1, 2])
        rig.pass(.seconds(15))
        #expect(rig.present(0) == [1])
        let knowsTwo = rig.knows(0, member(2))
        #expect(knowsTwo)
        #expect(Array(rig.server.fields.keys) == ["1/1"])
    }

    @Test func `a transceiver whose clock is behind is heard again after a restart`() {
        let rig = Rig([nil, member(1)])
        rig.pass(.seconds(5))
        rig.restart(1, member(1, .draining), secondsSince1970: 10)
        rig.pass(.seconds(9))
        #expect(rig.registries[0]?.book[member(1).id]?.state == .draining)
    }

    @Test(arguments: ["killed", "hung", "flushed", "another type", "garbage", "nonsense", "error"])
    func `whatever befalls Redis nobody is forgotten and all is well afterwards`(fault: String) {
        let rig = Rig([nil, member(1), member(2)])
        rig.pass(.seconds(5))
        func harm(_ isOn: Bool) {
            switch fault {
            case "killed": rig.isUp = !isOn
            case "hung": rig.server.isHung = isOn
            case "flushed": if isOn { rig.server.fields = [:] }
            case "another type": if isOn { rig.server.isWrongType = true }
            case "garbage":
                if isOn { for number in 0..<200 { rig.server.fields["1/\(number)"] = Array(repeating: UInt8(number), count: number) } }
            case "nonsense": rig.server.reading = isOn ? Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8) : nil
            default: rig.server.reading = isOn ? Array("-LOADING Redis is loading the dataset in memory\r\n".utf8) : nil
            }
        }
        harm(true)
        for _ in 0..<60 {
            rig.pass(.seconds(1))
            for reader in 0..<3 {
                #expect(rig.knows(reader, member(1)) && rig.knows(reader, member(2)), "\(fault)")
                // Time in which nobody could write makes nobody old.
                if fault != "flushed", fault != "another type", fault != "garbage" { #expect(rig.present(reader) == [1, 2], "\(fault)") }
            }
        }
        harm(false)
        rig.pass(.seconds(40))
        for reader in 0..<3 { #expect(rig.present(reader) == [1, 2], "\(fault)") }
        #expect(Set(rig.server.fields.keys) == ["1/1", "1/2"], "\(fault)")
    }

    @Test func `a member of an earlier life is there before Redis says anything`() {
        let rig = Rig([nil], known: [member(9)])
        rig.isUp = false
        rig.pass(.seconds(5))
        let knowsNine = rig.knows(0, member(9))
        #expect(knowsNine)
        #expect(rig.present(0) == [])
    }

    @Test func `an old value that somebody puts back changes nothing`() {
        let rig = Rig([nil, member(1)])
        rig.pass(.seconds(5))
        let old = rig.server.fields["1/1"]
        rig.registries[1]?.describe(load: 1, .draining, at: rig.now)
        rig.pass(.seconds(7))
        rig.stop(1)
        rig.server.fields["1/1"] = old
        rig.pass(.seconds(4))
        #expect(rig.registries[0]?.book[member(1).id]?.state == .draining)
        #expect(rig.counters.replayed > 0)
    }

    @Test func `a hash that claims to be huge is no hash of ours`() {
        let rig = Rig([nil, member(1)])
        rig.pass(.seconds(5))
        for reply in ["*2147483647\r\n", "*4\r\n*4\r\n", "*-7\r\n", "*40000\r\n"] {
            rig.server.reading = Array(reply.utf8)
            rig.pass(.seconds(10))
            let knowsOne = rig.knows(0, member(1))
            #expect(knowsOne, "\(reply)")
        }
        #expect(rig.counters.failures > 0)
        rig.server.reading = nil
        rig.pass(.seconds(40))
        #expect(rig.present(0) == [1])
    }

    @Test func `nobody without the key makes a member`() {
        var ours = MemberRecordCodec(key: key)
        var theirs = MemberRecordCodec(key: key.reversed())
        let field = Array("1/1".utf8)
        #expect(ours.open(ours.seal(member(1), beat: 5), of: field)?.beat == 5)
        #expect(ours.open(theirs.seal(member(1), beat: 5), of: field) == nil)
        #expect(ours.open(ours.seal(member(1), beat: 5), of: Array("1/2".utf8)) == nil)
        let sealed = ours.seal(member(1), beat: 5)
        for place in sealed.indices {
            var forged = sealed
            forged[place] ^= 0x20
            #expect(ours.open(forged, of: field) == nil)
            #expect(ours.open(Array(sealed[..<place]), of: field) == nil)
        }
    }

    @Test func `values survive every mutation`() {
        let corpus = Corpus.files(in: "member-records").map(\.bytes)
        #expect(corpus.count >= 2)
        for bytes in corpus { fuzzMemberRecords(bytes.span.bytes) }
        mutate(corpus) { fuzzMemberRecords($0) }
    }

    @Test func `a registry survives every answer`() {
        let corpus = Corpus.files(in: "registry").map(\.bytes)
        #expect(corpus.count >= 4)
        for bytes in corpus { fuzzRegistry(bytes.span.bytes) }
        mutate(corpus) { fuzzRegistry($0) }
    }
}

@Suite struct PlaceTests {
    private func book(_ members: [Member]) -> MemberBook {
        var book = MemberBook()
        book.read(members, at: Instant(nanoseconds: 1))
        return book
    }

    @Test func `a new call goes to the emptiest that serves, near before far`() {
        var (one, two, far) = (member(1), member(2), member(3))
        (one.load, two.load) = (5, 4)
        far.id.cluster = 2
        let all = book([one, two, far])
        let me = MemberID(cluster: 1, transceiver: 9)
        #expect(all.leastLoaded(in: 1, but: me)?.id == two.id)
        #expect(all.leastLoaded(in: 1, but: two.id)?.id == one.id)
        #expect(all.leastLoaded(in: 1, but: me, given: [two.id: 2])?.id == one.id)
        #expect(all.leastLoaded(in: 2, but: me)?.id == far.id)
        #expect(all.leastLoaded(in: 1, but: me, given: [one.id: 5, two.id: 6])?.id == far.id)
        two.state = .draining
        #expect(book([one, two]).leastLoaded(in: 1, but: me)?.id == one.id)
        var gone = book([one])
        gone.read([], at: Instant(nanoseconds: 2))
        #expect(gone.leastLoaded(in: 1, but: me) == nil)
    }
}
