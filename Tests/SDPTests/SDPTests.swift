import Primitives
import SDP
import Testing
import TestSupport

// An offer is 2 KB of text: unoptimized, an eighth of the inputs takes as long as another parser's all.
#if DEBUG
    private let inputCount = mutationCount / 8
#else
    private let inputCount = mutationCount
#endif

@Suite struct AnyInput {
    @Test func `the corpus and its mutations never trap, and every answer reads back`() {
        let corpus = Corpus.files(in: "sdp").map(\.bytes)
        #expect(!corpus.isEmpty)
        for file in corpus { fuzzSDP(file.span.bytes) }
        mutate(corpus, count: inputCount, maximumLength: 8_192) { fuzzSDP($0) }
    }

    @Test func `whole lines moved, doubled and taken from other clients never trap either`() {
        let files = Corpus.files(in: "sdp").map { String(decoding: $0.bytes, as: UTF8.self).split(separator: "\r\n") }
        var random = SeededGenerator(seed: 2)
        for _ in 0..<inputCount / 4 {
            var lines = files.randomElement(using: &random) ?? []
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                let place = Int.random(in: 0..<max(lines.count, 1), using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0 where !lines.isEmpty: lines.remove(at: place)
                case 1 where !lines.isEmpty: lines.append(lines[place])
                case 2 where !lines.isEmpty: lines.swapAt(place, lines.count - 1)
                default:
                    guard let line = files.randomElement(using: &random)?.randomElement(using: &random) else { continue }
                    lines.insert(line, at: min(place, lines.count))
                }
            }
            let text = Array(lines.joined(separator: "\r\n").utf8)
            fuzzSDP(text.span.bytes)
        }
    }
}
