import Primitives
import SCTP
import Testing
import TestSupport

@Suite struct Garbage {
    @Test func `the corpus and its mutations are survived in every state`() {
        let corpus = Corpus.files(in: "sctp").map(\.bytes)
        #expect(!corpus.isEmpty)
        for mode in UInt8(0)..<64 {
            for file in corpus {
                let input = [mode] + file.dropFirst()
                fuzzSCTP(input.span.bytes)
            }
        }
        mutate(corpus) { fuzzSCTP($0) }
    }

    @Test func `noise is survived`() {
        var random = SeededGenerator(seed: 5)
        for _ in 0..<2000 {
            let noise = (0..<Int.random(in: 0...300, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            fuzzSCTP(noise.span.bytes)
        }
    }
}
