// Measures of the Audio module: what is heard under loss, and what a frame costs.
//
//   audio-bench loss --input speech.raw [--loss 10 --pattern random|burst --jitter 30 --rtt 40 --red 1 --fec --nack --seed 1 --output heard.raw]
//   audio-bench cpu [--seconds 20]
//   audio-bench spin decode|pipe|encode|both --seconds N         for callgrind: one contestant alone
import Glibc

struct Arguments {
    var values: [String: String] = [:]

    init(_ words: some Sequence<String>) {
        var name: String?
        for word in words {
            if word.hasPrefix("--") {
                name = String(word.dropFirst(2))
                values[name ?? ""] = ""
            } else if let key = name {
                values[key] = word
                name = nil
            }
        }
    }

    func number(_ name: String, _ otherwise: Double) -> Double { values[name].flatMap(Double.init) ?? otherwise }
    func has(_ name: String) -> Bool { values[name] != nil }
}

func fail(_ message: String) -> Never {
    print("audio-bench: \(message)")
    exit(2)
}

@main struct Main {
    static func main() {
        let words = CommandLine.arguments.dropFirst()
        let arguments = Arguments(words)
        switch words.first {
        case "loss": LossRun(arguments).run()
        case "cpu": compareCPU(seconds: Int(arguments.number("seconds", 20)))
        case "spin":
            guard let contestant = words.dropFirst().first.flatMap(Contestant.init(rawValue:)) else { fail("spin what?") }
            var bench = CPUBench()
            bench.run(contestant, frames: Int(arguments.number("seconds", 10)) * 50)
        default: fail("loss, cpu or spin; see the head of Perf/AudioBench/Main.swift")
        }
    }
}
