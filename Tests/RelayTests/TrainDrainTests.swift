// Trains that are drained and filled again: the ways of a caller who looks before it takes, who takes until nil, and who takes some.
import Primitives
import TestSupport
import Testing
import Trunk

@Suite struct TrainDrainTests {
    static let destination = SocketAddress("10.0.0.1:4000")!
    static let client = SocketAddress("203.0.113.5:40000")!

    static func header(_ worker: UInt8) -> TrunkHeader {
        TrunkHeader(kind: .clientData, worker: worker, cluster: 1, transceiver: 7, ingressRelay: 1, ingressWorker: 0)
    }

    static func append(_ text: String, worker: UInt8, to trains: inout TrunkTrains) -> Bool {
        trains.append(Array(text.utf8).span.bytes, client: client, session: 1, header: header(worker), to: destination)
    }

    static func take(_ trains: inout TrunkTrains) throws -> [String] {
        var buffer = ByteSlab(count: 1, slotSize: 65_536)
        let length = buffer.write(0, 0..<65_536) { _ = trains.nextTransmit(into: &$0) }
        return try deliveries(buffer.bytes(0, length).array).records.map { String(decoding: $0.payload, as: UTF8.self) }
    }

    @Test func `drained by looking first and filled again, trains give the new records`() throws {
        var trains = TrunkTrains(capacity: 2, key: wellKnownTrunkKey)
        for round in 0..<5 {
            // Both trains, so that one that was not given back would be missed.
            #expect(Self.append("a\(round)", worker: 1, to: &trains))
            #expect(Self.append("b\(round)", worker: 2, to: &trains))
            var given: [[String]] = []
            while trains.peek() != nil { given.append(try Self.take(&trains)) }
            #expect(given == [["a\(round)"], ["b\(round)"]])
            let isEmpty = trains.isEmpty
            let isFull = trains.isFull
            #expect(isEmpty && !isFull)
        }
    }

    @Test func `drained until nil and filled again, trains give the new records`() throws {
        var trains = TrunkTrains(capacity: 1, key: wellKnownTrunkKey)
        for round in 0..<5 {
            #expect(Self.append("a\(round)", worker: 1, to: &trains))
            var given: [[String]] = []
            var buffer = ByteSlab(count: 1, slotSize: 65_536)
            while true {
                var transmit: TrunkTransmit?
                let length = buffer.write(0, 0..<65_536) { transmit = trains.nextTransmit(into: &$0) }
                if transmit == nil { break }
                given.append(try deliveries(buffer.bytes(0, length).array).records.map { String(decoding: $0.payload, as: UTF8.self) })
            }
            #expect(given == [["a\(round)"]])
        }
    }

    /// Blocks that are whole and not yet added up, records after the last one, and frames that are whole already.
    @Test(arguments: [14, 15, 16, 30, 31, 40, 700]) func `a train under way goes on under another key, and loses nothing`(count: Int) throws
    {
        let other = SipKey(k0: 5, k1: 6)
        var trains = TrunkTrains(capacity: 2, key: wellKnownTrunkKey)
        for number in 0..<count { #expect(Self.append("\(number)", worker: 1, to: &trains)) }
        #expect(Self.append("to another", worker: 2, to: &trains))
        trains.replaceKey(other)
        for number in count..<2 * count { #expect(Self.append("\(number)", worker: 1, to: &trains)) }
        var buffer = ByteSlab(count: 1, slotSize: 65_536)
        let keys = TrunkKeys(other, accepted: wellKnownTrunkKey)
        var (texts, old): ([String], Int) = ([], 0)
        while let next = trains.peek() {
            let length = buffer.write(0, 0..<65_536) { _ = trains.nextTransmit(into: &$0) }
            let size = next.segmentSize == 0 ? length : next.segmentSize
            for start in stride(from: 0, to: length, by: size) {
                let bytes = buffer.bytes(0, start..<min(start + size, length))
                if (try? TrunkFrame(parsing: bytes, key: other)) == nil { old += 1 }
                var frame = try keys.read(bytes)
                while let record = frame.nextRecord() { texts.append(String(decoding: record.payload.array, as: UTF8.self)) }
            }
        }
        #expect(texts == (0..<2 * count).map(String.init) + ["to another"])
        // Only frames that were whole before.
        #expect(old == (count == 700 ? 13 : 0))
    }

    @Test(arguments: [14, 15, 16, 30, 31, 32, 254, 255, 256, 600]) func `a frame has whole blocks or not, and at most 255 records`(
        count: Int
    ) throws {
        var trains = TrunkTrains(capacity: 1, mtu: 9000, key: wellKnownTrunkKey)
        for number in 0..<count { #expect(Self.append("\(number % 10)", worker: 1, to: &trains)) }
        let waiting = trains.peek()
        let next = try #require(waiting)
        #expect(next.records == count)
        var buffer = ByteSlab(count: 1, slotSize: 65_536)
        let length = buffer.write(0, 0..<65_536) { _ = trains.nextTransmit(into: &$0) }
        var (lengths, texts): ([Int], [String]) = ([], [])
        for start in stride(from: 0, to: length, by: next.segmentSize == 0 ? length : next.segmentSize) {
            let frame = try deliveries(buffer.bytes(0, start..<min(start + 9000, length)).array)
            lengths.append(frame.records.count)
            texts += frame.records.map { String(decoding: $0.payload, as: UTF8.self) }
        }
        #expect(lengths == stride(from: 0, to: count, by: 255).map { min(255, count - $0) })
        #expect(texts == (0..<count).map { "\($0 % 10)" })
    }

    @Test func `a record for a train that has left waits for the next one`() throws {
        var trains = TrunkTrains(capacity: 3, key: wellKnownTrunkKey)
        #expect(Self.append("a", worker: 1, to: &trains))
        #expect(Self.append("b", worker: 2, to: &trains))
        let first = try Self.take(&trains)
        #expect(Self.append("a again", worker: 1, to: &trains))
        #expect(Self.append("b again", worker: 2, to: &trains))
        var given: [[String]] = []
        while trains.peek() != nil { given.append(try Self.take(&trains)) }
        #expect(first == ["a"])
        #expect(given == [["b", "b again"], ["a again"]])
    }
}
