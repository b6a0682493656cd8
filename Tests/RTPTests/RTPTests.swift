// RTP packets: reading and writing them, their extensions, and the arithmetic of numbers that wrap.
import Primitives
import RTP
import TestSupport
import Testing

/// Runs `body` on an output of `capacity` bytes and gives back what was written.
func written(_ capacity: Int, _ body: (inout OutputRawSpan) -> Void) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
        let raw = UnsafeMutableRawBufferPointer(buffer)
        var output = OutputRawSpan(buffer: raw, initializedCount: 0)
        body(&output)
        count = output.finalize(for: raw)
    }
}

/// The bytes of `text`, which may hold spaces.
func packet(_ text: String) -> [UInt8] { bytes(hex: text)! }

/// The error that parsing `bytes` gives; nil if it succeeds.
func rtpError(_ bytes: [UInt8]) -> RTPError? {
    do throws(RTPError) {
        _ = try RTPHeader(parsing: bytes.span.bytes)
        return nil
    } catch { return error }
}

@Suite struct SequenceNumbers {
    @Test(arguments: [(1, 0, 1), (0, 65535, 1), (65535, 0, -1), (100, 65500, 136), (7, 7, 0), (32767, 0, 32767), (32768, 0, -32768)])
    func `distance wraps`(a: UInt16, b: UInt16, distance: Int) {
        #expect(a.distance(from: b) == distance)
        #expect(a.isNewer(than: b) == (distance > 0))
    }

    @Test func `timestamps wrap the same way`() {
        #expect(UInt32(5).distance(from: .max) == 6)
        #expect(UInt32(5).isNewer(than: .max) && !UInt32.max.isNewer(than: 5))
        #expect(UInt32(0x8000_0000).distance(from: 0) == Int(Int32.min))
    }
}

@Suite struct RTPHeaders {
    /// As aiortc 1.16 put it on the wire: an extension that holds nothing but padding, and three bytes of Opus.
    @Test func `reads a packet of aiortc`() throws {
        let bytes = packet("90e00640d09765b2a333612ebede00011030207ffcfffe")
        let header = try RTPHeader(parsing: bytes.span.bytes)
        #expect(header.payloadType == 96 && header.marker)
        #expect(header.sequenceNumber == 1600)
        #expect(header.timestamp == 3_499_582_898)
        #expect(header.ssrc == 2_738_053_422)
        #expect(header.payload == 20..<23)
        #expect(header.extensions.value(id: 1, in: bytes.span.bytes) == 17..<18)
        #expect(header.extensions.value(id: 2, in: bytes.span.bytes) == 19..<20)
        #expect(header.extensions.value(id: 3, in: bytes.span.bytes) == nil)
    }

    @Test func `contributors, extension and padding are taken off the payload`() throws {
        let bytes = packet("b2ef7fff ffffff00 cafebabe 00000001 00000002 10000003 0102abcd 0700 00 05 03 010203 fcfffe 0003")
        let header = try RTPHeader(parsing: bytes.span.bytes)
        #expect(header.contributorCount == 2 && header.payloadType == 0x6F && header.marker)
        #expect(header.payload.count == 2 && header.payload.lowerBound == 36)
        #expect(header.extensions.profile == 0x1000)
        #expect(header.extensions.value(id: 1, in: bytes.span.bytes) == 26..<28)
        #expect(header.extensions.value(id: 7, in: bytes.span.bytes) == 30..<30)
        #expect(header.extensions.value(id: 5, in: bytes.span.bytes) == 33..<36)
        #expect(header.extensions.value(id: 0, in: bytes.span.bytes) == nil)
    }

    @Test func `a packet may have no payload`() throws {
        #expect(try RTPHeader(parsing: packet("8060ffff00000000deadbeef").span.bytes).payload == 12..<12)
        #expect(try RTPHeader(parsing: packet("a060ffff00000000deadbeef00000004").span.bytes).payload == 12..<12)
    }

    @Test func `everything malformed has its error`() {
        #expect(rtpError([]) == .truncated)
        #expect(rtpError(packet("8060ffff00000000deadbe")) == .truncated)
        #expect(rtpError(packet("4060ffff00000000deadbeef")) == .version)
        #expect(rtpError(packet("8160ffff00000000deadbeef000000")) == .contributors)
        #expect(rtpError(packet("9060ffff00000000deadbeefbede00")) == .headerExtension)
        #expect(rtpError(packet("9060ffff00000000deadbeefbede0001000000")) == .headerExtension)
        #expect(rtpError(packet("a060ffff00000000deadbeef")) == .padding)
        #expect(rtpError(packet("a060ffff00000000deadbeef00")) == .padding)
        #expect(rtpError(packet("a060ffff00000000deadbeef0003")) == .padding)
    }

    @Test func `an offset is not looked up in a shorter packet`() throws {
        let bytes = packet("90e00640d09765b2a333612ebede00011030207ffcfffe")
        let header = try RTPHeader(parsing: bytes.span.bytes)
        #expect(header.extensions.value(id: 1, in: bytes.span.bytes.bytes(0..<18)) == nil)
    }

    @Test func `one-byte elements end at id 15, at id 0 with a length, and at an overrun`() {
        let elements = RTPExtensions(profile: 0xBEDE, range: 0..<8)
        #expect(elements.value(id: 3, in: packet("0010aa0030bb0000").span.bytes) == 5..<6)
        #expect(elements.value(id: 3, in: packet("f010aa0030bb0000").span.bytes) == nil)
        #expect(elements.value(id: 15, in: packet("f010aa0030bb0000").span.bytes) == nil)
        #expect(elements.value(id: 3, in: packet("01ffff0030bb0000").span.bytes) == nil)
        #expect(elements.value(id: 3, in: packet("000000000000 32aa").span.bytes) == nil)
        #expect(elements.value(id: 1, in: packet("1f10aa0030bb0000").span.bytes) == nil)
    }

    @Test func `two-byte elements end at an overrun, and other profiles hold none`() {
        let elements = RTPExtensions(profile: 0x1005, range: 0..<8)
        #expect(elements.value(id: 200, in: packet("0000c8020102 0000").span.bytes) == 4..<6)
        #expect(elements.value(id: 200, in: packet("00000000 c8050102").span.bytes) == nil)
        #expect(elements.value(id: 200, in: packet("00000000 000000c8").span.bytes) == nil)
        #expect(RTPExtensions(profile: 0x2000, range: 0..<8).value(id: 200, in: packet("0000c80201020000").span.bytes) == nil)
    }

    @Test func `RTCP is told by its second byte`() {
        #expect(isRTCP(packet("80c8").span.bytes) && isRTCP(packet("80df").span.bytes) && isRTCP(packet("80c0").span.bytes))
        #expect(!isRTCP(packet("80e0").span.bytes) && !isRTCP(packet("806f").span.bytes) && !isRTCP(packet("80").span.bytes))
    }

    @Test(arguments: Corpus.files(in: "rtp"))
    func `the corpus is RTP`(file: CorpusFile) {
        #expect((try? RTPHeader(parsing: file.bytes.span.bytes)) != nil)
        fuzzRTP(file.bytes.span.bytes)
    }

    @Test func `mutations of the RTP corpus never trap`() { mutate(Corpus.files(in: "rtp").map(\.bytes)) { fuzzRTP($0) } }
}

@Suite struct SendStreams {
    let payload: [UInt8] = [0xFC, 0xFF, 0xFE]

    /// A stream that begins just below every wrap: sequence number and timestamp go through zero.
    @Test func `numbers wrap and stay relative to the first`() throws {
        var stream = RTPSendStream(ssrc: 7, payloadType: 111, firstSequence: 65535, firstTimestamp: 0xFFFF_FF00)
        var headers: [RTPHeader] = []
        for index in 0..<3 {
            let bytes = written(100) { output in
                #expect(
                    stream.writePacket(
                        payload: payload.span.bytes, timestamp: UInt32(index) * 960, marker: index == 0, to: &output,
                        at: Instant.zero + .milliseconds(20 * Int64(index))))
            }
            #expect(bytes.count == 15 && Array(bytes[12...]) == payload)
            headers.append(try RTPHeader(parsing: bytes.span.bytes))
        }
        #expect(headers.map(\.sequenceNumber) == [65535, 0, 1])
        #expect(headers.map(\.timestamp) == [0xFFFF_FF00, 704, 1664])
        #expect(headers.map(\.marker) == [true, false, false])
        #expect(headers.allSatisfy { $0.ssrc == 7 && $0.payloadType == 111 })
        #expect(stream.packetCount == 3 && stream.octetCount == 9 && stream.nextSequenceNumber == 2)
    }

    @Test func `a packet that does not fit leaves no trace`() {
        var stream = RTPSendStream(ssrc: 7, payloadType: 111, firstSequence: 5, firstTimestamp: 0)
        for capacity in [0, 11, 14] {
            let bytes = written(capacity) { output in
                let fitted = stream.writePacket(payload: payload.span.bytes, timestamp: 0, marker: false, to: &output, at: .zero)
                #expect(!fitted)
            }
            #expect(bytes.isEmpty)
        }
        #expect(stream.packetCount == 0 && stream.nextSequenceNumber == 5)
        #expect(stream.senderInfo(at: .zero, wall: NTPTime(rawValue: 1)) == nil)
    }

    /// The agent fell silent a second ago; the report's two clocks must still name one moment.
    @Test func `a sender report carries the timestamp of its own moment`() throws {
        var stream = RTPSendStream(ssrc: 7, payloadType: 111, clockRate: 48_000, firstSequence: 1, firstTimestamp: 0xFFFF_0000)
        let sent = Instant.zero + .seconds(3)
        _ = written(100) { output in
            _ = stream.writePacket(payload: payload.span.bytes, timestamp: 960, marker: false, to: &output, at: sent)
        }
        let info = try #require(stream.senderInfo(at: sent + .milliseconds(1_500), wall: NTPTime(rawValue: 99)))
        #expect(info.rtpTimestamp == 0xFFFF_0000 &+ 960 &+ 72_000)
        #expect(info.ntp.rawValue == 99 && info.packetCount == 1 && info.octetCount == 3)
        // A clock that went backwards is no reason to go back before the last packet.
        #expect(stream.senderInfo(at: .zero, wall: NTPTime(rawValue: 99))?.rtpTimestamp == 0xFFFF_0000 &+ 960)
    }
}
