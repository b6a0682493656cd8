import Primitives
import SRTP
import Testing

/// The examples that the RFCs print.
private func deriveKey(_ master: SRTPMasterKey, label: UInt8, count: Int) -> [UInt8] {
    var derivation = SRTPKeyDerivation(master)
    return derivation.key(label: label, count: count)
}

@Suite struct RFCExamples {
    @Test func `session keys of RFC 3711 appendix B.3`() throws {
        let master = SRTPMasterKey(
            key: try fromHex("E1F97A0D3E018BE0D64FA32C06DE4139"), salt: try fromHex("0EC675AD498AFEEBB6960B3AABE6"))
        let keys = try SRTPSessionKeys(profile: .aes128CMHMACSHA1_80, master: master)
        #expect(hex(keys.rtpKey) == "c61e7a93744f39ee10734afe3ff7a087")
        #expect(hex(keys.rtpSalt) == "30cbbc08863d8c85d49db34a9ae1")
        #expect(hex(keys.rtpAuthenticationKey) == "cebe321f6ff7716b6fd4ab49af256a156d38baa4")
        // The example's authentication key goes on for six blocks.
        let long =
            "cebe321f6ff7716b6fd4ab49af256a156d38baa48f0a0acf3c34e2359e6cdbcee049646c43d9327ad175578ef7227098"
            + "6371c10c9a369ac2f94a8c5fbcdddc256d6e919a48b610ef17c2041e474035766b68642c59bbfc2f34db60dbdfb2"
        #expect(hex(deriveKey(master, label: 1, count: 94)) == long)
    }

    @Test func `session keys under a key of 256 bits, RFC 6188 section 7.4`() throws {
        let master = SRTPMasterKey(
            key: try fromHex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6"),
            salt: try fromHex("3b04803de51ee7c96423ab5b78d2"))
        #expect(hex(deriveKey(master, label: 0, count: 32)) == "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4")
        #expect(hex(deriveKey(master, label: 2, count: 14)) == "fa31791685ca444a9e07c6c64e93")
        #expect(hex(deriveKey(master, label: 1, count: 20)) == "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05")
    }

    struct Example: Sendable, CustomTestStringConvertible {
        let profile: SRTPProfile
        let section: String
        let plain: String
        let protected: String
        /// The index of an SRTCP packet.
        var index: UInt64?
        var isEncrypted = true
        var testDescription: String { "\(section) \(profile)" }
    }

    static let rtpPlain = "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573"
    static let rtcpPlain = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef"
    static let examples = [
        Example(
            profile: .aeadAES128GCM, section: "16.1", plain: rtpPlain,
            protected: "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833"
                + "899d7f27beb16a9152cf765ee4390cce"),
        Example(
            profile: .aeadAES256GCM, section: "16.2", plain: rtpPlain,
            protected: "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b"
                + "7aa3db36dfffd6b0f9bb7878d7a76c13"),
        Example(
            profile: .aeadAES128GCM, section: "17.1", plain: rtcpPlain,
            protected: "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275b"
                + "c84aa45896cf4d2fc5abf87245d9eade800005d4", index: 0x5D4),
        Example(
            profile: .aeadAES256GCM, section: "17.2", plain: rtcpPlain,
            protected: "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b6fad"
                + "1d1eb30c4446839f57ff6f6cb26ac3be800005d4", index: 0x5D4),
        Example(
            profile: .aeadAES128GCM, section: "17.3", plain: rtcpPlain,
            protected: rtcpPlain + "841dd9683dd78ec92ae58790125f62b3000005d4", index: 0x5D4, isEncrypted: false),
        Example(
            profile: .aeadAES256GCM, section: "17.4", plain: rtcpPlain,
            protected: rtcpPlain + "91db4afbfeee5a978fab4393ed2615fe000005d4", index: 0x5D4, isEncrypted: false),
    ]

    @Test(arguments: examples) func `packets of RFC 7714`(example: Example) throws {
        let key = (0..<UInt8(example.profile.keyLength)).map { $0 }
        let salt = Array("Quid pro quo".utf8)
        let keys = SRTPSessionKeys(rtpKey: key, rtpSalt: salt, rtcpKey: key, rtcpSalt: salt)
        var context = SRTPContext(profile: example.profile, localSession: keys, remoteSession: keys)
        let (plain, protected) = (try fromHex(example.plain), try fromHex(example.protected))

        if let index = example.index {
            try context.noteSent(ssrc: 0x4D61_7273, rtcpIndex: index - 1)
            if example.isEncrypted {
                let sent = try Verb.protectRTCP.run(&context, plain)
                #expect(hex(sent) == example.protected)
            }
            let received = try Verb.unprotectRTCP.run(&context, protected)
            #expect(received == plain)
        } else {
            let sent = try Verb.protectRTP.run(&context, plain)
            #expect(hex(sent) == example.protected)
            let received = try Verb.unprotectRTP.run(&context, protected)
            #expect(received == plain)
        }
    }
}
