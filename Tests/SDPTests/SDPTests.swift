import Primitives
import SDP
import Testing
import TestSupport

@Suite struct AnyInput {
    @Test func `the corpus and its mutations never trap and every answer reads back`() {
        let corpus = Corpus.files(in: "sdp").map(\.bytes)
        #expect(!corpus.isEmpty)
        for file in corpus { fuzzSDP(file.span.bytes) }
        mutate(corpus, count: max(2_000, mutationCount / 10), maximumLength: 8_192) { fuzzSDP($0) }
    }
}
