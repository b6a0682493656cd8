// The trunk's codec: vectors of a separate implementation, every way to be dropped, trains.
import Crypto
import Primitives
import TestSupport
import Testing
import Trunk

/// A record outside its frame, for comparing.
struct Delivery: Hashable, CustomStringConvertible {
    let client: SocketAddress
    let session: UInt32
    let payload: [UInt8]
    var description: String { "\(client) session \(session): \(hex(payload))" }
}

func deliveries(_ bytes: [UInt8], key: SipKey = wellKnownTrunkKey) throws(TrunkError) -> (header: TrunkHeader, records: [Delivery]) {
    var frame = try TrunkFrame(parsing: bytes.bytes, key: key)
    var records: [Delivery] = []
    while let record = frame.nextRecord() {
        records.append(Delivery(client: record.client, session: record.session, payload: record.payload.array))
    }
    return (frame.header, records)
}

func trunkFrame(_ header: TrunkHeader, _ records: [Delivery], key: SipKey = wellKnownTrunkKey) -> [UInt8] {
    var buffer = [UInt8](repeating: 0, count: 65_507)
    var writer = TrunkWriter(limit: buffer.count)
    var span = buffer.mutableSpan
    var target = span.mutableBytes
    for record in records {
        precondition(writer.append(client: record.client, session: record.session, payload: record.payload.bytes, to: &target))
    }
    writer.finish(header, key: key, in: &target)
    return Array(buffer.prefix(writer.length))
}

struct TrunkVector: Sendable {
    let header: TrunkHeader
    let frame: [UInt8]
    let records: [Delivery]

    static let all: [TrunkVector] = {
        let text = String(decoding: Corpus.read("\(Corpus.testsFolder)/RelayTests/Vectors/trunk.txt"), as: UTF8.self)
        return text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { line in
            let f = line.split(separator: " ").map(String.init)
            let header = TrunkHeader(
                kind: TrunkKind(rawValue: UInt8(f[0])!)!, worker: UInt8(f[1])!, cluster: UInt16(f[2])!, transceiver: UInt32(f[3])!,
                ingressRelay: UInt16(f[4])!, ingressWorker: UInt8(f[5])!, hops: UInt8(f[6])!)
            let records = stride(from: 8, to: f.count, by: 4).map { at in
                let address = bytes(hex: f[at])!
                let ip = IPAddress(high: address.bytes.u64(0), low: address.bytes.u64(8))
                return Delivery(
                    client: SocketAddress(ip, port: UInt16(f[at + 1])!), session: UInt32(f[at + 2])!,
                    payload: f[at + 3] == "-" ? [] : bytes(hex: f[at + 3])!)
            }
            return TrunkVector(header: header, frame: bytes(hex: f[7])!, records: records)
        }
    }()
}

@Suite struct `Trunk frame` {
    let header = TrunkHeader(kind: .clientData, worker: 3, cluster: 1, transceiver: 0x0A00_0001, ingressRelay: 7, ingressWorker: 2)
    let client = SocketAddress("192.0.2.1:50000")!

    func refusal(_ bytes: [UInt8], key: SipKey = wellKnownTrunkKey) -> TrunkError? {
        do {
            _ = try deliveries(bytes, key: key)
            return nil
        } catch { return error }
    }

    @Test func `vectors of a separate implementation are read and written`() throws {
        #expect(TrunkVector.all.count == 16)
        for vector in TrunkVector.all {
            let (header, records) = try deliveries(vector.frame)
            #expect(header == vector.header)
            #expect(records == vector.records)
            let written = trunkFrame(vector.header, vector.records)
            #expect(written == Array(vector.frame.prefix(written.count)))
            #expect(vector.frame.dropFirst(written.count).allSatisfy { $0 == 0 })
        }
    }

    @Test func `clients over TCP are in the vectors, told apart from those over UDP by one bit`() {
        let clients = Set(TrunkVector.all.flatMap(\.records).map(\.client))
        for text in ["192.0.2.1:50000", "[2001:db8::1]:50001"] { #expect(clients.contains(SocketAddress(text)!.overTCP)) }
        #expect(clients.contains(client) && client.overTCP.ip == IPAddress(high: 1 << 63, low: 0xFFFF_C000_0201))
    }

    @Test func `every changed bit of a header is refused, of hops, payload and padding not`() throws {
        let vector = TrunkVector.all[2]
        var headers = Set(0..<24).subtracting([12])
        var offset = 24
        for record in vector.records {
            headers.formUnion(offset..<offset + 24)
            offset += 24 + record.payload.count
        }
        for place in vector.frame.indices {
            for bit in 0..<8 {
                var changed = vector.frame
                changed[place] ^= 1 << UInt8(bit)
                let refused = refusal(changed) != nil
                if place == 12 {
                    #expect(refused == (changed[12] > 4))
                } else {
                    #expect(refused == headers.contains(place), "byte \(place), bit \(bit)")
                }
            }
        }
    }

    @Test func `every truncation is refused`() {
        let frame = trunkFrame(header, [Delivery(client: client, session: 1, payload: [1, 2, 3])])
        for length in 0..<frame.count { #expect(refusal(Array(frame.prefix(length))) != nil) }
        #expect(refusal(frame) == nil)
        #expect(refusal(frame + [0, 0, 0]) == nil)
    }

    @Test func `a refusal says why`() {
        let frame = trunkFrame(header, [Delivery(client: client, session: 1, payload: [1, 2, 3])])
        func changing(_ place: Int, _ value: UInt8) -> [UInt8] {
            var changed = frame
            changed[place] = value
            return changed
        }
        #expect(refusal([]) == .truncated)
        #expect(refusal(changing(0, 0x21)) == .unknownVersion)
        #expect(refusal(changing(0, 0x10)) == .unknownKind)
        #expect(refusal(changing(0, 0x12)) == .wrongTag)
        #expect(refusal(changing(0, 0x13)) == .unexpectedPayload)
        #expect(refusal(changing(11, 0)) == .wrongRecordCount)
        #expect(refusal(changing(11, 2)) == .recordOverrun)
        #expect(refusal(changing(12, 5)) == .tooManyHops)
        #expect(refusal(changing(42, 0xFF)) == .recordOverrun)
        #expect(refusal(changing(1, 9)) == .wrongTag)
        #expect(refusal(frame, key: SipKey(k0: 0, k1: 0)) == .wrongTag)
        #expect(refusal(changing(45, 9)) == .wrongTag)
        #expect(
            refusal(
                trunkFrame(
                    TrunkVector.all[6].header,
                    [Delivery(client: client, session: 1, payload: [])] + [
                        Delivery(client: client, session: 1, payload: [])
                    ])) == .wrongRecordCount)
    }

    @Test func `a probe comes back as it was`() throws {
        let probe = TrunkProbe(sentAt: 123_456_789_012_345, sequence: 42, state: .draining)
        let header = TrunkVector.all[7].header
        var buffer = [UInt8](repeating: 0xAA, count: 64)
        var span = buffer.mutableSpan
        var target = span.mutableBytes
        let length = TrunkWriter.write(probe, header, key: wellKnownTrunkKey, to: &target)
        #expect(Array(buffer.prefix(length)) == TrunkVector.all[7].frame)
        let pong = TrunkVector.all[7].frame
        let read = (try TrunkFrame(parsing: pong.bytes, key: wellKnownTrunkKey)).probe
        #expect(read == probe)
        let data = TrunkVector.all[0].frame
        let none = (try TrunkFrame(parsing: data.bytes, key: wellKnownTrunkKey)).probe
        #expect(none == nil)
    }
}

@Suite struct `Trunk trains` {
    let header = TrunkHeader(kind: .clientData, worker: 3, cluster: 1, transceiver: 0x0A00_0001, ingressRelay: 7, ingressWorker: 2)
    let peer = SocketAddress("10.0.0.1:4000")!
    let client = SocketAddress("192.0.2.1:50000")!

    /// Everything that waits, with the bytes of each train.
    func drain(_ trains: inout TrunkTrains) -> [(transmit: TrunkTransmit, bytes: [UInt8])] {
        var result: [(TrunkTransmit, [UInt8])] = []
        var buffer = ByteSlab(count: 1, slotSize: 65_536)
        while true {
            var transmit: TrunkTransmit?
            let length = buffer.write(0, 0..<65_536) { transmit = trains.nextTransmit(into: &$0) }
            guard let transmit else { return result }
            result.append((transmit, buffer.bytes(0, length).array))
        }
    }

    func frames(_ train: (transmit: TrunkTransmit, bytes: [UInt8])) -> [[UInt8]] {
        let size = train.transmit.segmentSize == 0 ? train.bytes.count : train.transmit.segmentSize
        return stride(from: 0, to: train.bytes.count, by: size).map { Array(train.bytes[$0..<min($0 + size, train.bytes.count)]) }
    }

    func append(_ count: Int, _ number: Int, _ header: TrunkHeader, _ trains: inout TrunkTrains) -> Bool {
        let payload = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: count)
        return trains.append(payload.bytes, client: client, session: UInt32(number), header: header, to: peer)
    }

    @Test func `datagrams to one worker share a frame, others do not`() throws {
        var trains = TrunkTrains(capacity: 8, key: wellKnownTrunkKey)
        var other = header
        other.worker = 4
        for number in 0..<6 { #expect(append(100, number, number % 3 == 0 ? other : header, &trains)) }
        let sent = drain(&trains)
        #expect(sent.map(\.transmit.records) == [2, 4])
        #expect(sent.map(\.transmit.frames) == [1, 1])
        #expect(sent.map(\.transmit.segmentSize) == [0, 0])
        #expect(try deliveries(sent[0].bytes).records.map(\.session) == [0, 3])
        #expect(try deliveries(sent[1].bytes).header == header)
        let waiting = trains.waiting
        #expect(waiting == 0)
        #expect(drain(&trains).isEmpty)
    }

    @Test func `all frames of a train but the last have the length of the MTU, and no record is lost or reordered`() throws {
        var random = SeededGenerator(seed: 5)
        var trains = TrunkTrains(capacity: 8, key: wellKnownTrunkKey)
        for _ in 0..<20 {
            let lengths = (0..<64).map { _ in Int.random(in: 0...1352, using: &random) }
            for (number, length) in lengths.enumerated() { #expect(append(length, number, header, &trains)) }
            let sent = drain(&trains)
            var seen: [Delivery] = []
            for train in sent {
                #expect(train.bytes.count <= 65_507 && train.transmit.frames <= 64)
                let frames = frames(train)
                #expect(frames.count == train.transmit.frames)
                for frame in frames {
                    #expect(frame.count <= 1400)
                    seen += try deliveries(frame).records
                }
            }
            #expect(seen.map(\.session) == Array(0..<64))
            #expect(seen.map(\.payload.count) == lengths)
        }
    }

    @Test func `padding is zero, whatever the slot held before`() throws {
        var trains = TrunkTrains(capacity: 1, key: wellKnownTrunkKey)
        for number in 0..<30 { #expect(append(1300, 0xEE + number % 2, header, &trains)) }
        _ = drain(&trains)
        #expect(append(700, 0, header, &trains))
        #expect(append(800, 0, header, &trains))
        let sent = drain(&trains)
        #expect(sent[0].transmit.segmentSize == 1400)
        #expect(sent[0].bytes[(48 + 700)..<1400].allSatisfy { $0 == 0 })
    }

    @Test func `a datagram longer than the MTU travels alone`() throws {
        var trains = TrunkTrains(capacity: 4, key: wellKnownTrunkKey)
        #expect(append(100, 1, header, &trains))
        #expect(append(1353, 2, header, &trains))
        #expect(append(1352, 3, header, &trains))
        let sent = drain(&trains)
        #expect(sent.map(\.transmit.records) == [2, 1])
        #expect(sent.map(\.bytes.count) == [1400 + 1400, 1401])
    }

    @Test func `when all trains are taken the newcomer is refused and the others leave`() throws {
        var trains = TrunkTrains(capacity: 2, key: wellKnownTrunkKey)
        for worker in 0..<3 {
            var to = header
            to.worker = UInt8(worker)
            #expect(append(10, worker, to, &trains) == (worker < 2))
        }
        let full = trains.isFull
        #expect(full)
        #expect(drain(&trains).count == 2)
        #expect(append(10, 9, header, &trains))
        #expect(drain(&trains).count == 1)
    }
}

@Suite struct `Trunk under mutation` {
    @Test(arguments: Corpus.files(in: "trunk")) func `trunk corpus`(file: CorpusFile) { fuzzTrunk(file.bytes.bytes) }
    @Test func `mutated frames never trap and are written as they were read`() {
        mutate(Corpus.files(in: "trunk").map(\.bytes)) { fuzzTrunk($0) }
    }
}
