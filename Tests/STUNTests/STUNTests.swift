import Crypto
import Primitives
import STUN
import Testing
import TestSupport

/// What a client's check says, and the server password it was made with. The packets are in Tests/Corpus/stun, as captured.
struct ClientCheck: Sendable, CustomStringConvertible {
    let file: String
    let serverUfrag: String
    let password: String
    let nominates: Bool
    var carriesDTLS = 0
    var description: String { file }

    static let all = [
        ClientCheck(file: "chromium-156-1.hex", serverUfrag: "ZX/p", password: "ZBaj/XEyPDlN990qCJloQOA5", nominates: true),
        ClientCheck(file: "chromium-156-2.hex", serverUfrag: "ZX/p", password: "ZBaj/XEyPDlN990qCJloQOA5", nominates: true),
        ClientCheck(file: "firefox-153-1.hex", serverUfrag: "eyeh", password: "Gpy/qR972oHqMa4tFdzTrlNn", nominates: true),
        ClientCheck(file: "firefox-153-2.hex", serverUfrag: "eyeh", password: "Gpy/qR972oHqMa4tFdzTrlNn", nominates: false),
        ClientCheck(file: "aiortc-1.16-1.hex", serverUfrag: "45k8", password: "Ckb5J6VIXK96+vdCOf87jAxU", nominates: true),
        ClientCheck(file: "aiortc-1.16-2.hex", serverUfrag: "45k8", password: "Ckb5J6VIXK96+vdCOf87jAxU", nominates: true),
        ClientCheck(file: "libwebrtc-m152-1.hex", serverUfrag: "JwYC", password: "FiqZl1nLURf54oagWSDWvP9e", nominates: true),
        ClientCheck(file: "libwebrtc-m152-2.hex", serverUfrag: "JwYC", password: "FiqZl1nLURf54oagWSDWvP9e", nominates: true),
        ClientCheck(file: "gstreamer-1.22-1.hex", serverUfrag: "jQGN", password: "Hjh7J6935d6X7trVNXLJGLmt", nominates: false),
        ClientCheck(file: "gstreamer-1.22-2.hex", serverUfrag: "jQGN", password: "Hjh7J6935d6X7trVNXLJGLmt", nominates: true),
        ClientCheck(file: "libdatachannel-0.22-1.hex", serverUfrag: "tIAq", password: "R+oAV8a0CVyySoD0R5ajsLAy", nominates: false),
        ClientCheck(file: "libdatachannel-0.22-2.hex", serverUfrag: "tIAq", password: "R+oAV8a0CVyySoD0R5ajsLAy", nominates: true),
        ClientCheck(
            file: "chromium-156-warp-1.hex", serverUfrag: "/uqE", password: "4GiGpZBpV3GmjHNmWFY9611w", nominates: true, carriesDTLS: 900),
        ClientCheck(file: "chromium-156-warp-2.hex", serverUfrag: "/uqE", password: "4GiGpZBpV3GmjHNmWFY9611w", nominates: true),
        ClientCheck(
            file: "chromium-156-warp-nopqc-1.hex", serverUfrag: "z57Z", password: "ypMWl7oJwMsx95hVTsAYm2im", nominates: true,
            carriesDTLS: 216),
        ClientCheck(file: "chromium-156-warp-nopqc-2.hex", serverUfrag: "z57Z", password: "ypMWl7oJwMsx95hVTsAYm2im", nominates: true),
        ClientCheck(
            file: "libwebrtc-warp-1.hex", serverUfrag: "QpSG", password: "5H+bhTi76vxui7JrJYqoC9bj", nominates: true, carriesDTLS: 216),
        ClientCheck(file: "libwebrtc-warp-2.hex", serverUfrag: "QpSG", password: "5H+bhTi76vxui7JrJYqoC9bj", nominates: true),
    ]
}

func stun(_ file: String) -> [UInt8] {
    guard let found = Corpus.files(in: "stun").first(where: { $0.name == file }) else { fatalError("no \(file) in the corpus") }
    return found.bytes
}

func text(_ span: RawSpan?) -> String? {
    guard let span else { return nil }
    return String(decoding: span.array, as: UTF8.self)
}

func message<R>(_ bytes: [UInt8], _ body: (borrowing STUNMessage) -> R) throws -> R { try body(STUNMessage(parsing: bytes.bytes)) }

@Suite struct ReadingSTUN {
    @Test(arguments: ClientCheck.all)
    func `every client's first checks are read and verify under the server's password`(check: ClientCheck) throws {
        try message(stun(check.file)) { message in
            let key = Array(check.password.utf8)
            let wrong = Array("WrongPasswordOfTheSameLen".utf8)
            let verdicts = (
                message.isBindingRequest, message.verifiesIntegrity(key: key.bytes), message.verifiesIntegrity(key: wrong.bytes),
                message.verifiesFingerprint()
            )
            #expect(verdicts == (true, true, false, true))
            #expect(text(message.receiverUfrag) == check.serverUfrag)
            #expect((text(message.senderUfrag)?.count ?? 0) >= 4)
            #expect(message.useCandidate == check.nominates)
            #expect(message.priority != nil)
            #expect(message.iceControlling != nil)
            #expect(message.iceControlled == nil)
            #expect(message.unknownAttributeCount == 0)
            #expect(message.dtls?.byteCount ?? 0 == check.carriesDTLS)
            #expect((message.dtlsAcknowledgement != nil) == (check.carriesDTLS > 0))
        }
    }

    @Test(arguments: ClientCheck.all)
    func `a check with any one bit flipped no longer verifies`(check: ClientCheck) {
        let key = Array(check.password.utf8)
        let original = stun(check.file)
        for bit in 0..<original.count * 8 {
            var bytes = original
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            guard let message = try? STUNMessage(parsing: bytes.bytes) else { continue }
            let verdict = (message.verifiesIntegrity(key: key.bytes), message.verifiesFingerprint())
            // The last 32 bits are the fingerprint's value: integrity does not cover them, nor its header.
            #expect(!verdict.0 || bit / 8 >= original.count - 8)
            #expect(!verdict.1)
        }
    }

    @Test func `the sample request of RFC 5769 §2.1`() throws {
        try message(stun("rfc5769-request.hex")) { message in
            let key = Array("VOkJxbRl1RmTxUk/WvJxBt".utf8)
            let verdicts = (message.verifiesIntegrity(key: key.bytes), message.verifiesFingerprint())
            #expect(verdicts == (true, true))
            #expect(message.transactionID == STUNTransactionID(high: 0xb7e7_a701, low: 0xbc34_d686_fa87_dfae))
            #expect(text(message.username) == "evtj:h6vY")
            #expect(message.priority == 0x6e00_01ff)
            #expect(message.iceControlled == 0x932f_f9b1_5126_3b36)
            #expect(message.iceControlling == nil)
        }
    }

    @Test(arguments: [
        ("rfc5769-response-v4.hex", "192.0.2.1:32853"), ("rfc5769-response-v6.hex", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ])
    func `the sample responses of RFC 5769 §2.2 and §2.3`(file: String, address: String) throws {
        try message(stun(file)) { message in
            let key = Array("VOkJxbRl1RmTxUk/WvJxBt".utf8)
            let verdicts = (message.verifiesIntegrity(key: key.bytes), message.verifiesFingerprint())
            #expect(verdicts == (true, true))
            #expect(message.messageClass == .success)
            #expect(message.xorMappedAddress == SocketAddress(address))
        }
    }

    @Test func `the sample request with long-term credentials of RFC 5769 §2.4`() throws {
        // MD5 of "マトリックス:example.org:TheMatrIX".
        let key = try #require(bytes(hex: "e8ca7ad59d5eb0518e312911d2dab2a9"))
        try message(stun("rfc5769-long-term.hex")) { message in
            let verdicts = (message.verifiesIntegrity(key: key.bytes), message.hasFingerprint, message.verifiesFingerprint())
            #expect(verdicts == (true, false, false))
            #expect(text(message.username) == "マトリックス")
        }
    }

    @Test func `Chromium's network info is read`() throws {
        try message(stun("libwebrtc-m152-1.hex")) { message in
            let info = message.networkInfo
            #expect(info?.id == 1)
            #expect(info?.cost == 50)
        }
    }

    @Test func `an error answer gives its code`() throws {
        try message(stun("error-420.hex")) { message in
            #expect(message.messageClass == .error)
            #expect(message.errorCode == 420)
        }
    }

    @Test func `libnice's indication is no request and has no integrity`() throws {
        try message(stun("libnice-indication.hex")) { message in
            let facts = (message.messageClass == .indication, message.isBindingRequest, message.hasIntegrity, message.verifiesFingerprint())
            #expect(facts == (true, false, false, true))
        }
    }
}

@Suite struct RefusingSTUN {
    func error(_ hexadecimal: String) -> STUNParseError? {
        guard let input = bytes(hex: hexadecimal) else { fatalError("not hexadecimal: \(hexadecimal)") }
        do {
            _ = try STUNMessage(parsing: input.bytes)
            return nil
        } catch { return error }
    }
    let transaction = "2112a442 000102030405060708090a0b"

    @Test func `what is malformed is named`() {
        #expect(error("00010000") == .truncated(need: 20, have: 4))
        #expect(error("") == .truncated(need: 20, have: 0))
        #expect(error("80010000" + transaction) == .notSTUN)
        #expect(error("00010000 2112a443 000102030405060708090a0b") == .wrongCookie)
        #expect(error("00010004" + transaction) == .lengthMismatch)
        #expect(error("00010002" + transaction + "0000") == .lengthMismatch)
        #expect(error("00010000" + transaction + "00") == .lengthMismatch)
        #expect(error("00010008" + transaction + "0006000541414141") == .attributeOverrun(type: 6))
        #expect(error("00010004" + transaction + "0006ffff") == .attributeOverrun(type: 6))
        #expect(error("00010008" + transaction + "0024000341414100") == .attributeSize(type: 0x24))
        #expect(error("00010008" + transaction + "0025000441414141") == .attributeSize(type: 0x25))
        #expect(error("00010008" + transaction + "0008000441414141") == .attributeSize(type: 8))
        #expect(error("0001000c" + transaction + "8028000400000000 00250000") == .fingerprintNotLast)
        #expect(error("00010000" + transaction) == nil)
    }

    @Test func `a message of nothing but attributes ends at the bound`() {
        func attributes(_ count: Int) -> String {
            let length = String(count * 4, radix: 16)
            return "0001" + String(repeating: "0", count: 4 - length.count) + length + transaction
                + String(repeating: "80220000", count: count)
        }
        #expect(error(attributes(STUN.attributesMax)) == nil)
        #expect(error(attributes(STUN.attributesMax + 1)) == .tooManyAttributes)
    }

    @Test func `what follows MESSAGE-INTEGRITY is not looked at`() throws {
        // PRIORITY 1, MESSAGE-INTEGRITY, then USE-CANDIDATE, USERNAME and an unknown required attribute, then FINGERPRINT.
        let input = try #require(
            bytes(
                hex: "00010040" + transaction + "0024000400000001" + "00080014" + String(repeating: "00", count: 20)
                    + "00250000" + "00060004613a6263" + "00770000" + "8022000400000000" + "8028000400000000"))
        let message = try STUNMessage(parsing: input.bytes)
        let facts = (message.priority, message.useCandidate, message.username == nil, message.unknownAttributeCount, message.hasFingerprint)
        #expect(facts == (1, false, true, 0, true))
    }

    @Test func `of two usernames the first counts`() throws {
        let input = bytes(hex: "00010010" + transaction + "00060004613a6263" + "00060004783a797a")
        try message(#require(input)) { message in #expect(text(message.username) == "a:bc") }
    }

    @Test func `unknown required attributes are listed up to eight, optional ones passed over`() throws {
        let unknown = (0..<9).map { "077\($0)0000" }.joined()
        let input = try #require(bytes(hex: "00010028" + transaction + "c0990000" + unknown))
        try message(input) { message in
            #expect(message.unknownAttributeCount == 8)
            #expect(message.unknownAttribute(0) == 0x0770)
            #expect(message.unknownAttribute(7) == 0x0777)
        }
    }

    @Test(arguments: Corpus.files(in: "stun")) func `the corpus reads and writes the same`(file: CorpusFile) {
        #expect((try? STUNMessage(parsing: file.bytes.bytes)) != nil)
        fuzzSTUN(file.bytes.bytes)
    }

    @Test func `mutations of the corpus never trap`() { mutate(Corpus.files(in: "stun").map(\.bytes)) { fuzzSTUN($0) } }
}

@Suite struct WritingSTUN {
    /// Runs `body` on an output of `capacity` bytes and gives back what was written.
    static func written(_ capacity: Int, _ body: (inout OutputRawSpan) -> Void) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            var output = OutputRawSpan(buffer: raw, initializedCount: 0)
            body(&output)
            count = output.finalize(for: raw)
        }
    }
    let key = Array("VOkJxbRl1RmTxUk/WvJxBt".utf8)
    let id = STUNTransactionID(high: 0xb7e7_a701, low: 0xbc34_d686_fa87_dfae)

    @Test(arguments: ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"])
    func `an answer carries the client's address and verifies`(address: String) throws {
        let client = try #require(SocketAddress(address))
        let bytes = Self.written(200) { output in
            var writer = STUNWriter(.success, id, to: &output)
            writer.append(xorMappedAddress: client, to: &output)
            let fitted = writer.finish(key: key.bytes, to: &output)
            #expect(fitted)
        }
        // Never more than the smallest request of a client (92 bytes): no amplification.
        #expect(bytes.count == (client.ip.isV4 ? 64 : 76))
        try message(bytes) { message in
            let verdicts = (message.verifiesIntegrity(key: key.bytes), message.verifiesFingerprint(), message.messageClass == .success)
            #expect(verdicts == (true, true, true))
            #expect(message.xorMappedAddress == client)
            #expect(message.transactionID == id)
        }
    }

    @Test func `a message that does not fit leaves nothing behind, at any size`() {
        for capacity in 0..<64 {
            let bytes = Self.written(capacity) { output in
                var writer = STUNWriter(.success, id, to: &output)
                writer.append(xorMappedAddress: SocketAddress(.v4Loopback, port: 1), to: &output)
                let fitted = writer.finish(key: key.bytes, to: &output)
                #expect(!fitted)
            }
            #expect(bytes.isEmpty)
        }
    }

    @Test func `a message may begin behind other bytes`() throws {
        let bytes = Self.written(300) { output in
            output.append(UInt32(7))
            var writer = STUNWriter(.request, id, to: &output)
            writer.append(usernameFor: Array("abc".utf8).bytes, from: Array("defg".utf8).bytes, to: &output)
            writer.append(priority: 5, to: &output)
            writer.append(iceControlled: 9, to: &output)
            let fitted = writer.finish(key: key.bytes, to: &output)
            #expect(fitted)
        }
        try message(Array(bytes[4...])) { message in
            let verdicts = (message.verifiesIntegrity(key: key.bytes), message.verifiesFingerprint())
            #expect(verdicts == (true, true))
            #expect(text(message.username) == "abc:defg")
            #expect(message.priority == 5)
            #expect(message.iceControlled == 9)
        }
    }

    @Test func `a 420 answer lists what was not understood`() throws {
        let request = try #require(bytes(hex: "00010004 2112a442 000102030405060708090a0b 07700000"))
        let unknown = try message(request) { $0.unknownAttributes }
        let answer = Self.written(200) { output in
            var writer = STUNWriter(.error, id, to: &output)
            writer.append(errorCode: 420, to: &output)
            writer.append(unknownAttributes: unknown, to: &output)
            let fitted = writer.finish(key: [UInt8]().bytes, to: &output)
            #expect(fitted)
        }
        #expect(hex(answer[20..<36]) == "0009000400000414000a000207700000")
    }
}

@Suite struct TellingPacketsApart {
    @Test func `the first byte decides as RFC 7983 says`() {
        for byte in UInt8.min...UInt8.max {
            let expected: PacketClass? =
                switch byte {
                case 0...3: .stun
                case 20...63: .dtls
                case 128...191: .srtp
                default: nil
                }
            #expect(PacketClass(firstByte: byte) == expected)
        }
        #expect(PacketClass.isRTCP(secondByte: 200))
        #expect(!PacketClass.isRTCP(secondByte: 0x80 | 111))
        #expect(!PacketClass.isRTCP(secondByte: 111))
    }
}
