import Crypto
import Primitives
import SRTP
import Testing
import TestSupport

@Suite struct AnyBytes {
    @Test(arguments: Corpus.files(in: "srtp")) func `the corpus passes`(file: CorpusFile) {
        fuzzSRTP(file.bytes.bytes)
    }

    @Test func `mutations of it never trap`() {
        mutate(Corpus.files(in: "srtp").map(\.bytes)) { fuzzSRTP($0) }
    }

    static let kinds = SRTPProfile.allCases.flatMap { profile in SRTPEngine.allCases.map { (profile, $0) } }

    @Test(arguments: kinds) func `mutations of packets under the right keys are read as they were sent or not at all`(
        profile: SRTPProfile, engine: SRTPEngine
    ) throws {
        var client = try Calls.client(profile, engine)
        var server = try Calls.server(profile, engine)
        var sent: Set<[UInt8]> = []
        var corpus: [[UInt8]] = []
        for number in 0..<8 as Range<UInt16> {
            var plain = rtp(number, payload: [UInt8](repeating: UInt8(number), count: Int(number) * 5))
            if number % 2 == 1 {
                plain = plain[..<12] + [0xBE, 0xDE, 0, 1, 0x10, 1, 0, 0] + plain[12...]
                plain[0] |= 0x10
            }
            sent.formUnion([plain, rtcp(payload: [UInt8](repeating: UInt8(number), count: 8))])
            corpus.append(try Verb.protectRTP.run(&client, plain))
            corpus.append(try Verb.protectRTCP.run(&client, rtcp(payload: [UInt8](repeating: UInt8(number), count: 8))))
        }
        mutate(corpus, seed: 5, count: min(mutationCount, 5_000)) { bytes in
            for verb in [Verb.unprotectRTP, .unprotectRTCP] {
                if case .success(let plain) = verb.outcome(&server, bytes.array) {
                    if !sent.contains(plain) { Issue.record("\(hex(plain)) was never sent") }
                }
            }
        }
    }
}
