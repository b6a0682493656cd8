import CBench
import EventLoop
import Primitives

/// `swiftlet bench load`: contestants take turns under the same load.
enum LoadBench {
    static func run(_ arguments: [String]) throws {
        guard let plan = try LoadPlan(arguments) else { return }
        var field = try LoadField.start(plan)
        defer { field.end() }
        var results = field.names.map { LoadResult(name: $0) }
        for _ in 0..<plan.rounds {
            for index in results.indices {
                if plan.way == .down { field.reopen(index) }
                results[index].slices.append(field.run(index, plan.pattern))
            }
        }
        for index in results.indices { results[index].memory = field.memory(index).now }
        let report = LoadReport(title: plan.description, results: results, absent: field.absent)
        if plan.json { say(report.json.text) } else { report.print() }
    }
}

/// All slices of one contestant.
struct LoadResult {
    let name: String
    var slices: [LoadSlice] = []
    /// Resident, in KiB.
    var memory = 0

    func median(_ value: (LoadSlice) -> Double) -> Double { slices.map(value).median }
    /// The median of what each round says: whatever disturbs a round disturbs both.
    func ratio(to other: LoadResult?, _ value: (LoadSlice) -> Double) -> Double? {
        guard let other, other.slices.count == slices.count else { return nil }
        return zip(slices, other.slices).map { value($0) / value($1) }.median
    }
}

struct LoadReport {
    let title: String
    let results: [LoadResult]
    let absent: [String]

    private func yardstick(_ name: String) -> LoadResult? { results.first { $0.name == name } }

    func print() {
        say(title)
        var lines = [
            [
                "", "CPU/packet", "× bare", "× plain", "packets/s", "× bare", "CPU", "switches/1000", "p50", "p99", "p99.9", "loss", "RSS",
            ]
        ]
        for result in results {
            let packets = { (slice: LoadSlice) in slice.packetsPerSecond }
            lines.append([
                result.name, "\(decimals(result.median(\.timePerPacket), 0)) ns",
                text(result.ratio(to: yardstick("bare"), \.timePerPacket)), text(result.ratio(to: yardstick("plain"), \.timePerPacket)),
                decimals(result.median(packets), 0), text(result.ratio(to: yardstick("bare"), packets)),
                "\(decimals(100 * result.median(\.share), 0)) %",
                decimals(result.median { 1000 * Double($0.voluntarySwitches + $0.involuntarySwitches) / Double(max(1, $0.forwarded)) }, 1),
                "\(decimals(result.median { $0.latency(0.5) }, 0)) µs", "\(decimals(result.median { $0.latency(0.99) }, 0)) µs",
                "\(decimals(result.median { $0.latency(0.999) }, 0)) µs", "\(decimals(100 * result.median(\.loss), 3)) %",
                "\(decimals(Double(result.memory) / 1024, 1)) MiB",
            ])
        }
        printTable(lines)
        for result in results {
            let skipped = result.slices.reduce(0) { $0 + $1.skipped }
            let overflow = result.slices.reduce(0) { $0 + $1.overflow }
            if skipped > 0 { say("  \(result.name): the generator was held up and left out \(skipped) packets") }
            if overflow > 0 { say("  \(result.name): \(overflow) packets were lost because the generator did not take them in time") }
        }
        let others = results.flatMap { $0.slices.map(\.others) }.median
        let generator = results.flatMap { $0.slices.map(\.generator) }.median
        let shares = [generator, others].map { "\(decimals(100 * $0, 0)) %" }
        say("  of a processor, the generator took \(shares[0]) and other work on the machine \(shares[1])")
        for line in absent { say("  left out: \(line)") }
        say("  instructions per packet: unavailable here for other processes; Perf/bench.sh counts the core's")
    }

    var json: JSONValue {
        let rows = results.map { result -> JSONValue in
            [
                "name": .string(result.name), "cpu_ns_per_packet": .number(result.median(\.timePerPacket)),
                "ratio_to_bare": number(result.ratio(to: yardstick("bare"), \.timePerPacket)),
                "ratio_to_plain": number(result.ratio(to: yardstick("plain"), \.timePerPacket)),
                "packets_per_second": .number(result.median(\.packetsPerSecond)),
                "packets_ratio_to_bare": number(result.ratio(to: yardstick("bare"), \.packetsPerSecond)),
                "cpu_share": .number(result.median(\.share)),
                "context_switches_per_packet": .number(
                    result.median { Double($0.voluntarySwitches + $0.involuntarySwitches) / Double(max(1, $0.forwarded)) }),
                "p50_us": .number(result.median { $0.latency(0.5) }), "p99_us": .number(result.median { $0.latency(0.99) }),
                "p999_us": .number(result.median { $0.latency(0.999) }), "loss": .number(result.median(\.loss)),
                "rss_kib": .integer(Int64(result.memory)), "sent": .integer(Int64(result.slices.reduce(0) { $0 + $1.sent })),
                "others": .number(result.median(\.others)), "generator": .number(result.median(\.generator)),
                "skipped": .integer(Int64(result.slices.reduce(0) { $0 + $1.skipped })),
                "generator_overflow": .integer(Int64(result.slices.reduce(0) { $0 + $1.overflow })),
            ]
        }
        return ["load": .string(title), "results": .array(rows), "absent": .array(absent.map { .string($0) })]
    }
}

func number(_ value: Double?) -> JSONValue { value.map { .number($0) } ?? .null }

private func text(_ ratio: Double?) -> String { ratio.map { decimals($0, 2) } ?? "–" }

/// `value` with so many places behind the point; a dash for what is no number.
func decimals(_ value: Double, _ places: Int) -> String {
    guard value.isFinite, abs(value) < 1e15 else { return "–" }
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    let scaled = Int64((abs(value) * scale).rounded())
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard places > 0 else { return sign + String(scaled) }
    let digits = String(scaled)
    let padded = String(repeating: "0", count: max(0, places + 1 - digits.count)) + digits
    return sign + padded.dropLast(places) + "." + padded.suffix(places)
}

/// Columns as wide as what is in them: the first to the left, others to the right.
func printTable(_ lines: [[String]]) {
    let columns = lines.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in lines.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    for line in lines {
        let cells = line.enumerated().map { column, cell in
            let space = String(repeating: " ", count: widths[column] - cell.count)
            return column == 0 ? cell + space : space + cell
        }
        say("  " + cells.joined(separator: "  "))
    }
}
