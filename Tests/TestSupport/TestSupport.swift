// Shared by the test targets: corpora on disk, and a seeded mutation loop that every parser must survive.
import Glibc
import Primitives

/// Files under `Tests/Corpus/<name>`: `*.hex` (hexadecimal, white space ignored) and any other file as raw bytes.
public struct CorpusFile: Sendable, CustomStringConvertible {
    public let name: String
    public let bytes: [UInt8]
    public var description: String { name }
}

public enum Corpus {
    /// The folder `Tests` of this checkout.
    public static let testsFolder: String = {
        let parts = #filePath.split(separator: "/").dropLast(2)
        return "/" + parts.joined(separator: "/")
    }()

    public static func files(in name: String) -> [CorpusFile] {
        let folder = "\(testsFolder)/Corpus/\(name)"
        guard let directory = opendir(folder) else { fatalError("no corpus at \(folder)") }
        defer { closedir(directory) }
        var files: [CorpusFile] = []
        while let entry = readdir(directory) {
            let file = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if file.hasPrefix(".") { continue }
            let content = read("\(folder)/\(file)")
            if file.hasSuffix(".hex") {
                guard let decoded = bytes(hex: String(decoding: content, as: UTF8.self)) else { fatalError("\(file) is not hexadecimal") }
                files.append(CorpusFile(name: file, bytes: decoded))
            } else {
                files.append(CorpusFile(name: file, bytes: content))
            }
        }
        return files.sorted { $0.name < $1.name }
    }

    public static func read(_ path: String) -> [UInt8] {
        guard let file = fopen(path, "rb") else { fatalError("cannot open \(path)") }
        defer { fclose(file) }
        var content: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = fread(&chunk, 1, chunk.count, file)
            if count == 0 { return content }
            content += chunk[..<count]
        }
    }
}

/// Feeds `count` mutations of `corpus` to `body`. The same seed gives the same inputs; a trap inside `body` is a failed test run.
/// Mutations: bit flips, byte sets with telling values, truncation, growth, copied ranges, two files spliced, pure noise.
public func mutate(
    _ corpus: [[UInt8]], seed: UInt64 = 1, count: Int = mutationCount, maximumLength: Int = 2048, _ body: (RawSpan) -> Void
) {
    var random = SeededGenerator(seed: seed)
    let telling: [UInt8] = [0, 1, 0x7F, 0x80, 0xFF, 0x0D, 0x0A, 0x20, 0x2F, 0x3A, 0x30, 0x41]
    for _ in 0..<count {
        var input = corpus.randomElement(using: &random) ?? []
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            switch Int.random(in: 0..<8, using: &random) {
            case 0, 1:
                guard !input.isEmpty else { break }
                input[Int.random(in: 0..<input.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 2:
                guard !input.isEmpty else { break }
                input[Int.random(in: 0..<input.count, using: &random)] = telling.randomElement(using: &random)!
            case 3: input = Array(input.prefix(Int.random(in: 0...input.count, using: &random)))
            case 4:
                let place = Int.random(in: 0...input.count, using: &random)
                input.insert(
                    contentsOf: (0..<Int.random(in: 1...16, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) },
                    at: place)
            case 5:
                guard input.count > 2 else { break }
                let from = Int.random(in: 0..<input.count, using: &random)
                let piece = input[from..<min(input.count, from + Int.random(in: 1...64, using: &random))]
                input.insert(contentsOf: Array(piece), at: Int.random(in: 0...input.count, using: &random))
            case 6:
                guard let other = corpus.randomElement(using: &random), !other.isEmpty else { break }
                let cut = Int.random(in: 0..<other.count, using: &random)
                input = Array(input.prefix(cut)) + other[cut...]
            default:
                guard random.chance(1, in: 8) else { break }
                input = (0..<Int.random(in: 0...200, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            }
        }
        if input.count > maximumLength { input.removeLast(input.count - maximumLength) }
        body(input.span.bytes)
    }
}

/// How many mutated inputs each parser gets: `SWIFTLET_MUTATIONS`, else 20,000; CI sets 1,000,000 for the release run.
public let mutationCount: Int = {
    guard let text = getenv("SWIFTLET_MUTATIONS"), let count = Int(String(cString: text)) else { return 20_000 }
    return count
}()
