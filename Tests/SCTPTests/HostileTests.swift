import Primitives
import SCTP
import Testing
import TestSupport

/// One association, and a peer made of bytes: tag 0x01020304, first TSN 16.
final class Hostage {
    let side: Endpoint
    var now = Instant.zero + .seconds(3600)
    static let peerInit: [UInt8] = [
        1, 0, 0, 30, 1, 2, 3, 4, 0, 16, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 16, 0xC0, 0, 0, 4, 0x80, 8, 0, 6, 0x82, 0xC0,
    ]
    let tag: UInt32
    let tsn: UInt32

    init(isUp: Bool = true, isPassive: Bool = false, maxMessageSize: Int = 262_144) {
        var sctp = SCTPAssociation(
            maxMessageSize: maxMessageSize, peerMaxMessageSize: 0, isClientOfDTLS: true, seed: 1, isPassive: isPassive, at: now)
        let own = sctp.initChunk()
        (tag, tsn) = (own.span.bytes.u32(4), own.span.bytes.u32(16))
        if isUp { precondition(sctp.establish(withPeerInit: Self.peerInit.span.bytes, at: now)) }
        side = Endpoint(sctp)
        side.look()
        _ = answers()
    }

    /// What comes back for a packet of these chunks.
    @discardableResult
    func send(tag: UInt32? = nil, _ make: (inout PacketMaker) -> Void) -> [[UInt8]] {
        var packet = PacketMaker(tag: tag ?? self.tag)
        make(&packet)
        side.receive(packet.bytes, at: now)
        return answers()
    }

    func answers() -> [[UInt8]] {
        var packets: [[UInt8]] = []
        while let packet = side.transmit(at: now) { packets.append(packet) }
        return packets
    }

    func wait(_ span: Interval) -> [[UInt8]] {
        now = now + span
        side.sctp.advance(to: now)
        side.look()
        return answers()
    }

    /// The chunks of packets: type and value.
    static func chunks(_ packets: [[UInt8]]) -> [(type: UInt8, value: [UInt8])] {
        packets.flatMap { packet in
            var chunks: [(UInt8, [UInt8])] = []
            var offset = 12
            while offset + 4 <= packet.count {
                let length = Int(packet[offset + 2]) << 8 | Int(packet[offset + 3])
                chunks.append((packet[offset], Array(packet[offset + 4..<offset + length])))
                offset += (length + 3) & ~3
            }
            return chunks
        }
    }

    static func types(_ packets: [[UInt8]]) -> [UInt8] { chunks(packets).map(\.type) }
}

@Suite struct HostilePackets {
    private var opening: [UInt8] { [3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0x78] }

    @Test func `short packets, wrong ports, tags and checksums are dropped, each with its reason`() {
        let hostage = Hostage()
        var good = PacketMaker(tag: hostage.tag)
        good.data(16, stream: 1, protocolID: 50, opening)
        let bytes = good.bytes
        for length in 0..<16 { hostage.side.receive(Array(bytes.prefix(length)), at: hostage.now) }
        #expect(hostage.side.drops == Array(repeating: .malformed, count: 16))
        hostage.side.drops = []
        for (place, reason) in [
            (0, SCTPDropReason.wrongPort), (3, .wrongPort), (4, .wrongChecksum), (9, .wrongChecksum), (40, .wrongChecksum),
        ] {
            var bad = bytes
            bad[place] ^= 1
            hostage.side.receive(bad, at: hostage.now)
            #expect(hostage.side.drops.popLast() == reason)
        }
        hostage.send(tag: hostage.tag ^ 1) { $0.data(16, stream: 1, protocolID: 50, opening) }
        #expect(hostage.side.drops.popLast() == .wrongVerificationTag)
        hostage.send(tag: hostage.tag ^ 1) { $0.chunk(6) }
        #expect(hostage.side.drops.popLast() == .wrongVerificationTag)
        #expect(hostage.side.events == [.established])
        // Without a checksum, as our INIT allows.
        var unsummed = bytes
        unsummed.replaceSubrange(8..<12, with: [0, 0, 0, 0])
        hostage.side.receive(unsummed, at: hostage.now)
        #expect(hostage.side.events.last == .channelOpened(id: 1, label: "x", protocol: ""))
    }

    @Test(arguments: [0, 1, 2, 3, 60, 400, 65_532, 65_535] as [UInt16]) func `a chunk length that does not fit ends the packet`(
        length: UInt16
    ) {
        for type: UInt8 in [0, 1, 2, 3, 4, 5, 7, 9, 10, 130, 192, 255] {
            let hostage = Hostage()
            hostage.send(tag: type == 1 ? 0 : nil) { $0.chunk(type, 0, [UInt8](repeating: 0, count: 16), length: length) }
            #expect(hostage.side.drops == [type == 10 && length < 4 ? .malformed : .malformed])
            let isUp = hostage.side.sctp.isEstablished
            #expect(isUp)
        }
    }

    @Test func `what stands before a broken chunk counts`() {
        let hostage = Hostage()
        hostage.send {
            $0.data(16, stream: 1, protocolID: 50, opening)
            $0.chunk(0, 3, [0, 0], length: 2)
        }
        #expect(hostage.side.drops == [.malformed])
        #expect(hostage.side.events.last == .channelOpened(id: 1, label: "x", protocol: ""))
    }

    @Test func `unknown chunks are treated as their highest bits ask`() {
        for (type, goesOn, isReported) in [(UInt8(0x3F), false, false), (0x7F, false, true), (0xBF, true, false), (0xFF, true, true)] {
            let hostage = Hostage()
            let answers = hostage.send {
                $0.chunk(type, 0, [1, 2, 3])
                $0.chunk(4, 0, [0, 1, 0, 8, 9, 9, 9, 9])
            }
            let chunks = Hostage.chunks(answers)
            #expect(chunks.contains(where: { $0.type == 5 }) == goesOn)
            #expect(chunks.contains { $0.type == 9 && $0.value == [0, 6, 0, 11, type, 0, 0, 7, 1, 2, 3] } == isReported)
        }
    }

    @Test func `unknown parameters of INIT are treated as their highest bits ask`() throws {
        for (type, goesOn, isReported) in [(UInt8(0x3F), false, false), (0x7F, false, true), (0xBF, true, false), (0xFF, true, true)] {
            let hostage = Hostage(isUp: false)
            let fixed = Array(Hostage.peerInit[4..<20])
            let answers = hostage.send(tag: 0) { $0.chunk(1, 0, fixed + [type, 1, 0, 5, 7, 0, 0, 0] + [0xFF, 2, 0, 4]) }
            let reply = try #require(Hostage.chunks(answers).first)
            #expect(reply.type == 2)
            let report: [UInt8] = [0, 8, 0, UInt8(4 + (isReported ? 8 : 0) + (goesOn ? 4 : 0))]
            let reported = (isReported ? [type, 1, 0, 5, 7, 0, 0, 0] : []) + (goesOn ? [0xFF, 2, 0, 4] : [])
            #expect(reply.value.suffix(4 + reported.count) == (reported.isEmpty ? reply.value.suffix(4) : ArraySlice(report + reported)))
        }
    }

    @Test func `an INIT that nobody may send gets no answer`() {
        let bad: [[UInt8]] = [
            [0, 0, 0, 0, 0, 16, 0, 0, 0, 9, 0, 9, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0, 5, 0xDB, 0, 9, 0, 9, 0, 0, 0, 1],
            [0, 0, 0, 1, 0, 16, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1], [0, 0, 0, 1, 0, 16, 0, 0, 0, 9, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1],
            Array(Hostage.peerInit[4..<20]) + [0xC0, 0, 0, 3], Array(Hostage.peerInit[4..<20]) + [0xC0, 0, 0, 5],
        ]
        for value in bad {
            let hostage = Hostage(isUp: false, isPassive: true)
            let answers = hostage.send(tag: 0) { $0.chunk(1, 0, value) }
            #expect(answers.isEmpty && hostage.side.drops == [.malformed])
        }
        let hostage = Hostage(isUp: false, isPassive: true)
        let answers = hostage.send(tag: 0) {
            $0.chunk(1, 0, Array(Hostage.peerInit[4..<20]))
            $0.chunk(11)
        }
        #expect(answers.isEmpty && hostage.side.drops == [.malformed])
    }

    @Test func `INIT in an association changes nothing, however often it comes`() {
        let hostage = Hostage()
        for _ in 0..<1000 {
            let answers = hostage.send(tag: 0) { $0.chunk(1, 0, Array(Hostage.peerInit[4..<20])) }
            #expect(Hostage.types(answers) == [2])
        }
        hostage.send { $0.data(16, stream: 1, protocolID: 50, opening) }
        #expect(hostage.side.events.last == .channelOpened(id: 1, label: "x", protocol: ""))
        #expect(hostage.side.peakMemory < 32_768)
    }

    @Test func `a cookie that is forged or too old is refused`() throws {
        let hostage = Hostage(isUp: false, isPassive: true)
        let reply = try #require(Hostage.chunks(hostage.send(tag: 0) { $0.chunk(1, 0, Array(Hostage.peerInit[4...])) }).first)
        let cookie = Array(reply.value[20..<84])
        for place in cookie.indices {
            var forged = cookie
            forged[place] ^= 0x10
            hostage.send { $0.chunk(10, 0, forged) }
            #expect(hostage.side.drops.popLast() == .badCookie)
        }
        hostage.send { $0.chunk(10, 0, []) }
        #expect(hostage.side.drops.popLast() == .badCookie)
        hostage.now = hostage.now + .seconds(61)
        hostage.send { $0.chunk(10, 0, cookie) }
        #expect(hostage.side.drops.popLast() == .badCookie)
        #expect(hostage.side.events.isEmpty)
        // The true one, in time.
        let again = try #require(Hostage.chunks(hostage.send(tag: 0) { $0.chunk(1, 0, Array(Hostage.peerInit[4...])) }).first)
        let answers = hostage.send { $0.chunk(10, 0, Array(again.value[20..<84])) }
        #expect(Hostage.types(answers) == [11])
        #expect(hostage.side.events == [.established])
    }

    @Test func `acknowledgements of what was never sent, or that make no sense, are refused`() {
        let hostage = Hostage()
        let id = hostage.side.openChannel("x")
        hostage.side.send(pattern(1, 5000), on: id)
        #expect(!hostage.answers().isEmpty)
        func ack(_ cumulative: UInt32, _ blocks: [(UInt16, UInt16)] = [], count: UInt16? = nil) -> SCTPDropReason? {
            hostage.side.drops = []
            hostage.send {
                $0.chunk(
                    3, 0,
                    PacketMaker.big(cumulative) + PacketMaker.big(UInt32(100_000)) + PacketMaker.big(count ?? UInt16(blocks.count)) + [
                        0, 0,
                    ]
                        + blocks.flatMap { PacketMaker.big($0.0) + PacketMaker.big($0.1) })
            }
            return hostage.side.drops.first
        }
        #expect(ack(hostage.tsn &+ 100) == .badAcknowledgement)
        #expect(ack(hostage.tsn, [(2, 1)]) == .badAcknowledgement)
        #expect(ack(hostage.tsn, [(0, 1)]) == .badAcknowledgement)
        #expect(ack(hostage.tsn, [(1, 2), (2, 3)]) == .badAcknowledgement)
        #expect(ack(hostage.tsn, [(1, 60_000)]) == .badAcknowledgement)
        #expect(ack(hostage.tsn, [], count: 2) == .malformed)
        #expect(ack(hostage.tsn &- 50) == nil)
        #expect(ack(hostage.tsn, [(2, 2)]) == nil)
        let isUp = hostage.side.sctp.isEstablished
        #expect(isUp)
    }

    @Test func `data is kept within bounds whatever its TSN and size`() {
        let hostage = Hostage(maxMessageSize: 16_384)
        var random = SeededGenerator(seed: 3)
        for _ in 0..<20_000 {
            let size = Int.random(in: 1...1100, using: &random)
            hostage.send {
                $0.data(
                    17 &+ UInt32.random(in: 0...5000, using: &random), stream: UInt16.random(in: 0...65_535, using: &random),
                    sequence: UInt16.random(in: 1...9, using: &random), flags: [0, 1, 2, 3].randomElement(using: &random)!,
                    [UInt8](repeating: 1, count: size))
            }
        }
        #expect(hostage.side.peakMemory < 700_000)
        let isOver = hostage.side.sctp.isOver
        #expect(!isOver)
    }

    @Test func `a message without an end is cut at the limit, and the association with it`() {
        let hostage = Hostage(maxMessageSize: 16_384)
        var tsn: UInt32 = 16
        var answers: [[UInt8]] = []
        while !hostage.side.sctp.isOver {
            answers = hostage.send { $0.data(tsn, flags: tsn == 16 ? 2 : 0, [UInt8](repeating: 7, count: 1000)) }
            tsn += 1
        }
        #expect(tsn == 16 + 17)
        #expect(Hostage.types(answers) == [6])
        #expect(hostage.side.events.last == .failed(.limitExceeded))
    }

    @Test func `fragments that do not fit together end the association`() {
        let cases: [[(flags: UInt8, stream: UInt16, sequence: UInt16)]] = [
            [(2, 1, 0), (2, 1, 0)], [(2, 1, 0), (3, 1, 1)], [(0, 1, 0)], [(1, 1, 0)], [(2, 1, 0), (1, 2, 0)], [(2, 1, 0), (1, 1, 1)],
            [(2, 1, 0), (5, 1, 0)],
        ]
        for fragments in cases {
            let hostage = Hostage()
            for (index, each) in fragments.enumerated() {
                hostage.send { $0.data(16 + UInt32(index), stream: each.stream, sequence: each.sequence, flags: each.flags, [1]) }
            }
            #expect(hostage.side.events.last == .failed(.protocolViolation))
        }
        let empty = Hostage()
        #expect(Hostage.chunks(empty.send { $0.data(16, []) }).map(\.value) == [[0, 9, 0, 4]])
        #expect(empty.side.events.last == .failed(.protocolViolation))
    }

    @Test func `broken OPENs open nothing`() {
        let bad: [[UInt8]] = [
            [3], [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0x78],
            [3, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1], [0], [1], [2], [4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0x78],
            [3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0] + [UInt8](repeating: 0x78, count: 1024),
        ]
        let hostage = Hostage()
        for (index, message) in bad.enumerated() {
            hostage.send { $0.data(16 + UInt32(index), stream: UInt16(index), protocolID: 50, message) }
        }
        #expect(hostage.side.events == [.established])
        // A type that does not exist, and the stream that cannot be: refused aloud, by closing them.
        hostage.send { $0.data(16 + UInt32(bad.count), stream: 100, protocolID: 50, [3, 7] + opening[2...]) }
        #expect(hostage.side.events == [.established])
        // Label bytes that are no text do not matter.
        hostage.send { $0.data(17 + UInt32(bad.count), stream: 101, protocolID: 50, opening.dropLast() + [0xFF]) }
        #expect(hostage.side.events.last == .channelOpened(id: 101, label: "\u{FFFD}", protocol: ""))
    }

    @Test func `messages where no channel is, or of unknown protocols, are taken and thrown away`() {
        let hostage = Hostage()
        for index in 0..<3000 {
            hostage.send { $0.data(16 + UInt32(index), stream: 9, sequence: UInt16(index), [UInt8](repeating: 1, count: 900)) }
        }
        #expect(hostage.side.received.isEmpty && hostage.side.peakMemory < 32_768)
        let isUp = hostage.side.sctp.isEstablished
        #expect(isUp)
    }

    @Test func `a packet full of heartbeats gets one answer, and a huge one none`() {
        let hostage = Hostage()
        let answers = hostage.send { packet in for _ in 0..<80 { packet.chunk(4, 0, [0, 1, 0, 8, 1, 2, 3, 4]) } }
        #expect(Hostage.types(answers) == [5])
        #expect(Hostage.types(hostage.send { $0.chunk(4, 0, [UInt8](repeating: 1, count: 1000)) }).isEmpty)
        // An answer that was not asked for.
        hostage.send { $0.chunk(5, 0, [0, 1, 0, 20] + [UInt8](repeating: 0, count: 16)) }
        #expect(hostage.side.drops.last == .unexpectedChunk)
    }

    @Test func `channels opened and closed without end are bounded by an owner that does not look`() {
        let hostage = Hostage()
        hostage.side.isBusy = true
        var tsn: UInt32 = 16
        var request: UInt32 = 16
        for _ in 0..<20_000 where !hostage.side.sctp.isOver {
            hostage.send { $0.data(tsn, stream: 1, sequence: 0, protocolID: 50, opening) }
            hostage.send {
                $0.chunk(
                    130, 0, [0, 13, 0, 18] + PacketMaker.big(request) + PacketMaker.big(UInt32(0)) + PacketMaker.big(tsn) + [0, 1])
            }
            // Our own reset is answered at once.
            hostage.send { $0.chunk(130, 0, [0, 16, 0, 12] + PacketMaker.big(hostage.tsn &+ (request - 16)) + PacketMaker.big(UInt32(1))) }
            hostage.send {
                $0.chunk(
                    3, 0, PacketMaker.big(hostage.tsn &+ (tsn - 16)) + PacketMaker.big(UInt32(100_000)) + [0, 0, 0, 0])
            }
            tsn += 1
            request += 1
        }
        #expect(hostage.side.peakMemory < 2_000_000)
    }

    @Test func `stream resets are answered by number`() {
        let hostage = Hostage()
        func reset(_ sequence: UInt32, _ last: UInt32) -> [UInt8] {
            let answers = hostage.send {
                $0.chunk(130, 0, [0, 13, 0, 18] + PacketMaker.big(sequence) + PacketMaker.big(UInt32(0)) + PacketMaker.big(last) + [0, 1])
            }
            return Hostage.chunks(answers).filter { $0.type == 130 && $0.value[1] == 16 }.map { $0.value[11] }
        }
        #expect(reset(15, 15) == [5])
        #expect(reset(18, 15) == [5])
        #expect(reset(16, 16) == [6])
        hostage.send { $0.data(16, stream: 1, protocolID: 50, opening) }
        #expect(reset(16, 16) == [1])
        #expect(hostage.side.events.last == .channelClosed(id: 1))
        #expect(reset(16, 16) == [1])
        #expect(reset(17, 16) == [1])
        for (type, length) in [(UInt8(15), UInt8(8)), (17, 12), (18, 12)] {
            let sequence = UInt32(18 + (type == 15 ? 0 : type == 17 ? 1 : 2))
            let answers = hostage.send {
                $0.chunk(130, 0, [0, type, 0, length] + PacketMaker.big(sequence) + (length == 12 ? [0, 5, 0, 0] : []))
            }
            #expect(Hostage.chunks(answers).contains { $0.type == 130 && $0.value[1] == 16 && $0.value[11] == 2 })
        }
        for value: [UInt8] in [[], [0, 13], [0, 13, 0, 8, 0, 0, 0, 21], [0, 13, 0, 200, 0, 0, 0, 21], [0, 99, 0, 8, 0, 0, 0, 21]] {
            hostage.side.drops = []
            hostage.send { $0.chunk(130, 0, value) }
            #expect(hostage.side.drops == [.malformed])
        }
    }
}
