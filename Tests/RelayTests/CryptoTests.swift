// Published vectors: FIPS 180-4 and FIPS 197 examples, RFC 2202, RFC 4231, the CRC-32 check value.
import Crypto
import Primitives
import TestSupport
import Testing

@Suite struct `Crypto primitives` {
    let abc = Array("abc".utf8)

    @Test func `digests match the standard's example`() {
        #expect(hex(SHA1.digest(abc.span.bytes).array) == "a9993e364706816aba3e25717850c26c9cd0d89d")
        #expect(hex(SHA256.digest(abc.span.bytes).array) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        #expect(hex(SHA384.digest(abc.span.bytes).array).hasPrefix("cb00753f45a35e8bb5a03d699ac65007272c32ab0eded163"))
        #expect(hex(SHA512.digest(abc.span.bytes).array).hasPrefix("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"))
        #expect(hex(SHA256.digest(RawSpan()).array).hasPrefix("e3b0c44298fc1c149afbf4c8996fb924"))
    }

    @Test func `a message in pieces has the digest of the whole`() {
        let bytes = abc.span.bytes
        let whole = SHA256.digest(bytes)
        #expect(hex(SHA256.digest(bytes.bytes(0..<1), bytes.bytes(1..<1), bytes.bytes(1..<3)).array) == hex(whole.array))
    }

    @Test func `HMAC matches RFC 2202 and RFC 4231`() {
        let key = Array("Jefe".utf8)
        let text = Array("what do ya want for nothing?".utf8)
        #expect(hex(HMACSHA1.tag(key: key.span.bytes, text.span.bytes).array) == "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")
        #expect(
            hex(HMACSHA256.tag(key: key.span.bytes, text.span.bytes).array)
                == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        let long = [UInt8](repeating: 0xAA, count: 131)
        let second = Array("Test Using Larger Than Block-Size Key - Hash Key First".utf8)
        #expect(
            hex(HMACSHA256.tag(key: long.span.bytes, second.span.bytes).array)
                == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
    }

    @Test func `a reused HMAC object gives the same tag again, and another for another key`() {
        let key = Array("Jefe".utf8)
        let text = Array("what do ya want for nothing?".utf8)
        let bytes = text.span.bytes
        var hmac = HMACSHA1(key: key.span.bytes)
        let first = hex(hmac.tag(bytes).array)
        #expect(first == "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")
        #expect(hex(hmac.tag(bytes.bytes(0..<5), bytes.bytes(5..<20), bytes.bytes(20..<28)).array) == first)
        let other = hex(hmac.tag(key: abc.span.bytes, bytes).array)
        #expect(other != first)
        #expect(hex(hmac.tag(bytes).array) == other)
        #expect(hex(HMACSHA1.tag(key: abc.span.bytes, bytes).array) == other)
        // The empty key is a key, not "the one before".
        #expect(hex(HMACSHA1.tag(key: RawSpan(), RawSpan()).array) == "fbdb1d1b18aa6c08324b7d64b71fb76370690e1d")
    }

    @Test func `AES-128 matches FIPS 197 and comes back`() {
        var key = AESBlockBytes(repeating: 0)
        for index in 0..<16 { key[index] = UInt8(index) }
        var cipher = AES128Block(key: key)
        var block = AESBlockBytes(repeating: 0)
        for index in 0..<16 { block[index] = UInt8(index) * 0x11 }
        for _ in 0..<2 {
            let encrypted = cipher.encrypt(block)
            #expect(hex(encrypted.array) == "69c4e0d86a7b0430d8cdb78070b4c55a")
            #expect(hex(cipher.decrypt(encrypted).array) == hex(block.array))
        }
    }

    @Test func `CRC-32 matches the check value at every split`() {
        let digits = Array("123456789123456789".utf8)
        let nine = digits.span.bytes.bytes(0..<9)
        #expect(CRC32.checksum(nine) == 0xCBF4_3926)
        let whole = CRC32.checksum(digits.span.bytes)
        for cut in 0...18 {
            #expect(CRC32.checksum(digits.span.bytes.bytes(0..<cut), digits.span.bytes.bytes(cut..<18)) == whole)
        }
    }

    @Test func `entropy fills every length and does not repeat`() {
        let first = SystemEntropy.bytes(600)
        #expect(first.count == 600)
        #expect(first != SystemEntropy.bytes(600))
        #expect(first[560...].contains { $0 != 0 })
    }
}

@Suite struct SealingMessages {
    private static let key = bytes(hex: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308") ?? []
    private static let nonce = bytes(hex: "cafebabefacedbaddecaf888") ?? []

    private func seal(_ message: [UInt8], _ context: [UInt8] = []) -> [UInt8] {
        AES256GCM.seal(
            message.bytes, key: Digest32 { Self.key[$0] }, nonce: AES256GCM.Nonce { Self.nonce[$0] }, context: context.bytes)
    }

    private func open(_ sealed: [UInt8], _ context: [UInt8] = []) -> [UInt8]? {
        AES256GCM.open(
            sealed.bytes, key: Digest32 { Self.key[$0] }, nonce: AES256GCM.Nonce { Self.nonce[$0] }, context: context.bytes)
    }

    /// Test case 16 of the GCM specification (McGrew and Viega).
    @Test func `AES-256-GCM gives the specification's ciphertext`() {
        let context = bytes(hex: "feedfacedeadbeeffeedfacedeadbeefabaddad2") ?? []
        let plaintext =
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        let ciphertext =
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        let sealed = seal(bytes(hex: plaintext) ?? [], context)
        #expect(hex(sealed) == ciphertext + "76fc6ece0f4e1768cddf8853bb2d551b")
        #expect(open(sealed, context).map { hex($0) } == plaintext)
        #expect(open(sealed) == nil && open(Array(sealed.dropLast()), context) == nil)
    }

    @Test func `an empty message opens, and less than a tag does not`() {
        #expect(open(seal([])) == [])
        for length in 0..<16 { #expect(open([UInt8](repeating: 0, count: length)) == nil) }
    }
}
