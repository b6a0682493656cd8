// Clients over TCP: framing, addresses that say so, and which connections there may be.
import Crypto
import Primitives
import RelayCore
import RoutingHint
import TestSupport
import Testing
import Trunk

/// Reads a stream as one connection's, in pieces; nil where it ends in a datagram that is too long.
private func datagrams(_ pieces: [[UInt8]]) -> [[UInt8]]? {
    var reader = StreamFrameReader(connections: 3)
    var result: [[UInt8]] = []
    for piece in pieces {
        reader.begin(2)
        var room = reader.room
        room.copy(piece.bytes, to: 0)
        reader.received(piece.count)
        var isWhole = false
        while !isWhole {
            switch reader.next() {
            case .datagram(let range): result.append(reader.bytes(range).array)
            case .incomplete: isWhole = true
            case .tooLong: return nil
            }
        }
        reader.end(2)
    }
    return result
}

extension StreamFrameReader {
    fileprivate mutating func bring(_ bytes: [UInt8]) {
        var room = room
        room.copy(bytes.bytes, to: 0)
        received(bytes.count)
    }
    fileprivate mutating func datagram() -> [UInt8]? {
        guard case .datagram(let range) = next() else { return nil }
        return bytes(range).array
    }
}

extension StreamFrameWriter {
    fileprivate func frame() -> [UInt8] { bytes.array }
    fileprivate func waiting(_ connection: Int) -> [UInt8] { rest(connection).array }
}

/// What expectations can look into: they take no values that cannot be copied.
private final class Reading {
    var reader: StreamFrameReader
    init(_ connections: Int) { reader = StreamFrameReader(connections: connections) }

    /// Brings `bytes` for `connection`.
    func begin(_ connection: Int, _ bytes: [UInt8] = []) {
        reader.begin(connection)
        if !bytes.isEmpty { reader.bring(bytes) }
    }
    func next() -> StreamFrameStep { reader.next() }
    /// The next datagram.
    func datagram() -> [UInt8]? { reader.datagram() }
}

private final class Writing {
    var writer: StreamFrameWriter
    init(_ connections: Int) { writer = StreamFrameWriter(connections: connections) }
    func make(_ datagram: [UInt8]) -> Bool { writer.make(datagram.bytes) }
    var bytes: [UInt8] { writer.frame() }
    func rest(_ connection: Int) -> [UInt8] { writer.waiting(connection) }
    func sent(_ count: Int, to connection: Int) -> Bool { writer.sent(count, to: connection) }
    func sentOfRest(_ count: Int, to connection: Int) -> Bool { writer.sentOfRest(count, to: connection) }
    func hasRest(_ connection: Int) -> Bool { writer.hasRest(connection) }
}

final class Connections {
    var clients: StreamClients
    init(_ connections: Int, perSource: Int) { clients = StreamClients(StreamLimits(connections: connections, perSource: perSource)) }

    func admit(_ address: SocketAddress) throws -> Int { try clients.admit(address, at: StreamClientTable.now).get() }
    /// Why somebody is not taken; nil when he is.
    func refusal(_ address: SocketAddress) -> StreamEnd? {
        guard case .failure(let refusal) = clients.admit(address, at: StreamClientTable.now) else { return nil }
        return refusal.end
    }
    /// Numbers of connections that are closed.
    func close() -> [Int] {
        var numbers: [Int] = []
        while let ended = clients.nextEnding() { numbers.append(ended.number) }
        return numbers.sorted()
    }
    func review(_ span: Interval, hasFlow: Bool) { clients.review(at: StreamClientTable.now + span) { _ in hasFlow } }
    subscript(end: StreamEnd) -> UInt64 { clients.counters[end] }
    var hasEnding: Bool { clients.hasEnding }
    func isOpen(_ number: Int) -> Bool { clients.isOpen(number) }
}

private func frame(_ datagram: [UInt8]) -> [UInt8] { [UInt8(datagram.count >> 8), UInt8(datagram.count & 255)] + datagram }

@Suite struct StreamFrames {
    static let check = stunHeader()
    static let longest = [UInt8](repeating: 0x80, count: StreamFraming.payloadMax)

    @Test func `many frames of one segment come out one by one`() {
        let stream = frame(Self.check) + frame([0x80]) + frame([]) + frame(Self.longest)
        #expect(datagrams([stream]) == [Self.check, [0x80], [], Self.longest])
    }

    @Test func `byte by byte the same comes out`() {
        let stream = frame(Self.check) + frame([]) + frame(Self.longest)
        #expect(datagrams(stream.map { [$0] }) == [Self.check, [], Self.longest])
    }

    @Test func `half a frame waits for the other half`() {
        #expect(datagrams([[0]]) == [])
        #expect(datagrams([[0, 20] + Self.check.prefix(7)]) == [])
        #expect(datagrams([[0, 20] + Self.check.prefix(7), Array(Self.check.dropFirst(7)) + [0]]) == [Self.check])
    }

    @Test func `a datagram longer than any of ours ends it`() {
        #expect(datagrams([[8, 1]]) == nil)
        #expect(datagrams([frame(Self.check) + [0xFF, 0xFF]]) == nil)
        #expect(datagrams([Array("GET / HTTP/1.1\r\n".utf8)]) == nil)
        #expect(datagrams([[0x16, 3, 1, 2, 0, 1]]) == nil)
    }

    @Test func `connections do not see each other's halves`() {
        let reading = Reading(2)
        for (connection, bytes, wanted) in [
            (0, [UInt8(0), 1], nil), (1, [0, 2], nil), (0, [0xAA], [UInt8(0xAA)]), (1, [0xBB], nil), (1, [0xCC], [0xBB, 0xCC]),
        ] {
            reading.begin(connection, bytes)
            #expect(reading.datagram() == wanted)
            if wanted != nil { #expect(reading.next() == .incomplete) }
            reading.reader.end(connection)
        }
    }

    @Test func `a place that begins anew has nothing of the one before`() {
        let reading = Reading(1)
        reading.begin(0, [0, 5, 1])
        #expect(reading.next() == .incomplete)
        reading.reader.end(0)
        reading.reader.forget(0)
        reading.begin(0)
        #expect(reading.next() == .incomplete)
        reading.begin(0, [0, 1, 9])
        #expect(reading.next() == .datagram(2..<3))
    }

    @Test func `the rest of a frame goes on where it stopped`() {
        let writing = Writing(2)
        #expect(writing.make(Self.check))
        #expect(writing.bytes == frame(Self.check))
        #expect(writing.sent(5, to: 1))
        // Another's frame in between.
        #expect(writing.make([7]))
        #expect(!writing.sent(3, to: 0))
        #expect(writing.rest(1) == Array(frame(Self.check).dropFirst(5)))
        #expect(writing.sentOfRest(4, to: 1))
        #expect(writing.rest(1) == Array(frame(Self.check).dropFirst(9)))
        #expect(!writing.sentOfRest(13, to: 1))
        #expect(!writing.hasRest(1))
        #expect(!writing.make([UInt8](repeating: 0, count: StreamFraming.payloadMax + 1)))
    }

    @Test(arguments: Corpus.files(in: "stream-frames")) func corpus(file: CorpusFile) { fuzzStreamFrames(file.bytes.bytes) }
    @Test func `mutations of the corpus`() {
        mutate(Corpus.files(in: "stream-frames").map(\.bytes), count: mutationCount / 10) { fuzzStreamFrames($0) }
    }
}

@Suite struct StreamAddresses {
    static let real = ["192.0.2.1:5000", "127.0.0.1:1", "[2001:db8::1]:5000", "[::1]:7", "[fd00::1]:9", "[fe80::1]:9", "[64:ff9b::1]:2"]

    @Test(arguments: real) func `every address of a host has one over TCP that no host has`(text: String) throws {
        let address = try #require(SocketAddress(text))
        let client = address.overTCP
        #expect(client.isOverTCP && !address.isOverTCP)
        #expect(client != address && client.withoutTransport == address && address.withoutTransport == address)
        #expect(!client.ip.isV4 && !client.ip.isMulticast && !client.ip.isAny && !client.ip.isLoopback)
        for other in Self.real { #expect(SocketAddress(other)!.overTCP != address) }
    }
}

@Suite struct StreamClientTable {
    static let now = Instant(nanoseconds: 1_000_000_000_000)

    static func address(_ number: Int) -> SocketAddress { SocketAddress(IPAddress(v4: 0xC000_0200 | UInt32(number)), port: 5000) }

    @Test func `no more than there may be, in all and of one source`() throws {
        let book = Connections(4, perSource: 2)
        let v6 = (0..<3).map { SocketAddress(IPAddress(high: 0x2001_0DB8_0000_0000, low: UInt64($0)), port: 9) }
        let first = try book.admit(v6[0])
        _ = try book.admit(v6[1])
        // The same /64.
        #expect(book.refusal(v6[2]) == .sourceFull)
        _ = try book.admit(Self.address(1))
        _ = try book.admit(Self.address(2))
        #expect(book.refusal(Self.address(3)) == .full)
        #expect(book.clients.count == 4 && book[.full] == 1 && book[.sourceFull] == 1)
        book.clients.end(first, .closedByClient)
        #expect(book.close() == [first])
        #expect(try book.admit(v6[2]) == first)
        #expect(book.clients.find(v6[2].overTCP) == first && book.clients.find(v6[0].overTCP) == nil && book.clients.find(v6[2]) == nil)
    }

    @Test func `one address and port is one client`() throws {
        let book = Connections(4, perSource: 4)
        let number = try book.admit(Self.address(1))
        #expect(book.refusal(Self.address(1)) == .sameSource)
        book.clients.end(number, .failed)
        _ = book.close()
        _ = try book.admit(Self.address(1))
        for text in ["0.0.0.0:5", "[ff02::1]:5", "[a000::1]:5", "[4000::1]:5"] {
            #expect(book.refusal(SocketAddress(text)!) == .impossibleSource)
        }
    }

    @Test func `who brings no authentic check in time has to go`() throws {
        let book = Connections(4, perSource: 4)
        let idle = try book.admit(Self.address(1))
        let good = try book.admit(Self.address(2))
        // A check that is refused for what our tables know may come again.
        book.clients.note(.dropped(.unknownTransceiver), on: good)
        book.clients.note(.forwarded, on: good)
        book.clients.note(.dropped(.empty), on: idle)
        #expect(book.clients.authenticatedCount == 1)
        book.review(.seconds(9), hasFlow: true)
        #expect(!book.hasEnding)
        book.review(.seconds(10), hasFlow: true)
        #expect(book.close() == [idle] && book[.unauthenticated] == 1)
        #expect(book.clients.count == 1 && book.clients.nextDeadline != .never)
        // Its flow ends.
        book.review(.seconds(100), hasFlow: false)
        #expect(book.close() == [good] && book[.flowEnded] == 1)
        #expect(book.clients.count == 0 && book.clients.authenticatedCount == 0 && book.clients.nextDeadline == .never)
    }

    @Test(arguments: [RelayDropReason.noFlow, .malformedSTUN, .unknownClass])
    func `what does not begin with a check is closed at once`(reason: RelayDropReason) throws {
        let book = Connections(4, perSource: 4)
        let number = try book.admit(Self.address(1))
        book.clients.note(.dropped(reason), on: number)
        #expect(!book.isOpen(number) && book.close() == [number] && book[.notICE] == 1)
        let other = try book.admit(Self.address(1))
        book.clients.note(.forwarded, on: other)
        book.clients.note(.dropped(reason), on: other)
        #expect(book.isOpen(other))
    }

    @Test func `who takes nothing for too long has to go, and who takes little may stay`() throws {
        let book = Connections(4, perSource: 4)
        let stuck = try book.admit(Self.address(1))
        let slow = try book.admit(Self.address(2))
        for number in [stuck, slow] {
            book.clients.note(.forwarded, on: number)
            book.clients.noteStuck(number, at: Self.now)
        }
        book.clients.noteStuck(stuck, at: Self.now + .seconds(3))
        book.clients.noteTaken(slow, waits: true, at: Self.now + .seconds(3))
        book.review(.seconds(5), hasFlow: true)
        #expect(book.close() == [stuck] && book[.stalled] == 1)
        book.clients.noteTaken(slow, waits: false, at: Self.now + .seconds(6))
        book.review(.seconds(60), hasFlow: true)
        #expect(!book.hasEnding)
    }

    /// Against a model: numbers, counts and sources are right after anything.
    @Test func `random connections leave nothing behind`() {
        let book = Connections(16, perSource: 5)
        var random = SeededGenerator(seed: 5)
        var model: [SocketAddress: Int] = [:]
        for step in 0..<20_000 {
            let ip = IPAddress(v4: 0x0A00_0000 | UInt32(random.next() % 4))
            let address = SocketAddress(ip, port: 1 + UInt16(random.next() % 8))
            switch (book.clients.admit(address, at: Self.now), model[address]) {
            case (.success(let number), nil):
                #expect(!model.values.contains(number))
                model[address] = number
            case (.failure(let refusal), let known):
                let ofSource = model.keys.count { $0.ip == ip }
                #expect((known != nil) == (refusal.end == .sameSource) || model.count == 16)
                #expect(known != nil || ofSource == 5 || model.count == 16)
            default: Issue.record("taken twice")
            }
            if step % 3 != 0, let (address, number) = model.randomElement(using: &random) {
                book.clients.end(number, .closedByClient)
                book.clients.end(number, .failed)
                model[address] = nil
                #expect(book.close() == [number])
            }
            #expect(book.clients.count == model.count)
        }
        for (address, number) in model { #expect(book.clients.find(address.overTCP) == number) }
    }
}

@Suite struct StreamRelay {
    static let place = SocketAddress("192.0.2.1:50000")!

    func receive(_ bench: Bench, _ datagram: [UInt8]) -> RelayDisposition {
        bench.relay.receive(datagram.bytes, from: Self.place.overTCP, on: Relay.streamSocket, at: bench.now)
    }

    @Test func `the same address over UDP and over TCP are two clients`() throws {
        let bench = Bench()
        let one = bench.mint(session: 1), two = bench.mint(session: 2)
        #expect(bench.receive(bench.check(one), Self.place) == .forwarded)
        #expect(receive(bench, bench.check(two)) == .forwarded)
        #expect(bench.relay.flows.count == 2)
        let rtp: [UInt8] = [0x80] + (0..<20).map { UInt8($0) }
        #expect(receive(bench, rtp) == .forwarded)
        let sent = bench.drain().map(\.record)
        #expect(sent.map(\.client) == [Self.place, Self.place.overTCP, Self.place.overTCP])
        #expect(sent.map(\.session) == [1, 2, 2])
        // And back.
        let back = bench.downlink([
            Delivery(client: Self.place.overTCP, session: 2, payload: [20, 1]), Delivery(client: Self.place, session: 1, payload: [20, 2]),
        ])
        #expect(back.map(\.client) == [Self.place.overTCP, Self.place] && back.map(\.payload) == [[20, 1], [20, 2]])
        #expect(bench.relay.flows.confirmedCount == 2)
    }

    @Test func `an address over TCP is nobody's over UDP, and the other way about`() {
        let bench = Bench()
        let check = bench.check(bench.mint())
        #expect(bench.receive(check, Self.place.overTCP) == .dropped(.impossibleSource))
        #expect(
            bench.relay.receive(check.bytes, from: Self.place, on: Relay.streamSocket, at: bench.now) == .dropped(.impossibleSource))
        #expect(bench.relay.flows.count == 0)
    }

    @Test func `a connection that ends takes its flow along`() {
        let bench = Bench()
        #expect(receive(bench, bench.check(bench.mint())) == .forwarded)
        #expect(bench.relay.hasFlow(Self.place.overTCP) && !bench.relay.hasFlow(Self.place))
        bench.relay.disconnect(Self.place.overTCP)
        bench.relay.disconnect(Self.place.overTCP)
        #expect(bench.relay.counters.flowsDisconnected == 1 && bench.relay.flows.count == 0)
    }

    @Test func `a cache is neither told of a connection nor asked about one`() {
        let bench = Bench(parking: ParkingLimits())
        #expect(receive(bench, [0x80, 1, 2, 3]) == .dropped(.noFlow))
        #expect(bench.relay.nextQuestion() == nil)
        #expect(receive(bench, bench.check(bench.mint(session: 3))) == .forwarded)
        _ = bench.downlink(.confirm, [Delivery(client: Self.place.overTCP, session: 3, payload: [])])
        #expect(bench.relay.flows.confirmedCount == 1 && bench.relay.nextMemory() == nil)
    }
}
