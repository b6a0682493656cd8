import Primitives
import Testing

@Suite struct HashAndTextTests {
    /// The reference vectors of the SipHash paper: key 00…0f, message 00, 01, … of length n.
    @Test(
        arguments: [
            (0, 0x726f_db47_dd0e_0e31), (1, 0x74f8_39c5_93dc_67fd), (8, 0x93f5_f579_9a93_2462), (15, 0xa129_ca61_49be_45e5),
        ] as [(Int, UInt64)])
    func `SipHash-2-4 gives the paper's values`(length: Int, expected: UInt64) {
        let keyBytes = (0..<16).map { UInt8($0) }
        let message = (0..<length).map { UInt8($0) }
        var sip = SipHash(key: SipKey(keyBytes.span.bytes)!)
        sip.update(message.span.bytes)
        #expect(sip.finalize() == expected)
    }

    @Test func `words and bytes hash alike at any alignment`() {
        let key = SipKey(k0: 1, k1: 2)
        var byWord = SipHash(key: key)
        byWord.update(byte: 7)
        byWord.update(word: 0x0807_0605_0403_0201)
        var byByte = SipHash(key: key)
        for byte in [7, 1, 2, 3, 4, 5, 6, 7, 8] as [UInt8] { byByte.update(byte: byte) }
        #expect(byWord.finalize() == byByte.finalize())
    }

    @Test(arguments: [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")])
    func `base64 gives the vectors of RFC 4648`(plain: String, coded: String) {
        #expect(Base64.encode(plain.utf8) == coded)
        #expect(Base64.decode(coded) == Array(plain.utf8))
        #expect(Base64.decode(coded.filter { $0 != "=" }) == Array(plain.utf8))
    }

    @Test(arguments: ["Z", "Zg=", "Zh==", "Zm9=v", "Zm 9v", "Zg===", "====", "Zm9v-"])
    func `base64 with a flaw is refused`(text: String) { #expect(Base64.decode(text) == nil) }
}
