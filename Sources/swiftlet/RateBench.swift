import EventLoop
import Primitives

/// `swiftlet bench rate`: how much a contestant takes before it loses a packet, by bisection.
enum RateBench {
    private enum Verdict { case lossless, loss, generatorTooSlow }

    struct Limit {
        var rate: Double
        /// The generator could not do more.
        var isOurs: Bool
    }

    /// Rates are told apart to this.
    private static let precision = 1.03
    private static let lowest = 5_000.0
    /// A packet lost to somebody else's work on the machine is not the contestant's: it may try again.
    private static let tries = 3

    static func run(_ arguments: [String]) throws {
        guard let plan = try LoadPlan(arguments) else { return }
        var field = try LoadField.start(plan)
        defer { field.end() }
        let burst = if case .bursts(let count) = plan.spacing, count > 1 { count } else { 64 }
        let ways: [LoadPattern.Way] = arguments.contains { $0.hasPrefix("--way") } ? [plan.way] : LoadPattern.Way.allCases
        var rows: [JSONValue] = []
        if !plan.json {
            say(
                "highest rate without loss, bursts of \(burst), \(plan.flows) flows, \(plan.duration.milliseconds) ms each, medians of \(plan.rounds)"
            )
        }
        for way in ways {
            var limits = field.names.map { _ in [Limit]() }
            for _ in 0..<plan.rounds {
                for index in field.names.indices { limits[index].append(search(&field, index, way, burst, plan)) }
            }
            let medians = limits.map { $0.map(\.rate).median }
            let bare = field.names.firstIndex(of: "bare").map { medians[$0] }
            var lines = [["\(way.rawValue)", "packets/s each way", "× bare"]]
            for (index, name) in field.names.enumerated() {
                let isOurs = limits[index].contains { $0.isOurs }
                lines.append([
                    name, "\(isOurs ? "≥ " : "")\(decimals(medians[index], 0))", bare.map { decimals(medians[index] / $0, 2) } ?? "–",
                ])
                rows.append([
                    "way": .string(way.rawValue), "name": .string(name), "packets_per_second": .number(medians[index]),
                    "limited_by_generator": .bool(isOurs), "ratio_to_bare": number(bare.map { medians[index] / $0 }),
                ])
            }
            if !plan.json { printTable(lines) }
        }
        guard plan.json else {
            for line in field.absent { say("  left out: \(line)") }
            return
        }
        let result: JSONValue = ["rates": .array(rows)]
        say(result.text)
    }

    private static func search(_ field: inout LoadField, _ index: Int, _ way: LoadPattern.Way, _ burst: Int, _ plan: LoadPlan) -> Limit {
        field.reopen(index)
        var low = lowest
        var high = 4_000_000.0
        // Up by doubling: what is far too much for a contestant tells nothing.
        var isOurs = false
        while low * 2 < high {
            switch probe(&field, index, way, low * 2, burst, plan) {
            case .lossless: low *= 2
            case .loss: high = low * 2
            case .generatorTooSlow:
                high = low * 2
                isOurs = true
            }
        }
        while high / low > precision {
            let middle = (low * high).squareRoot()
            switch probe(&field, index, way, middle, burst, plan) {
            case .lossless: low = middle
            case .loss:
                high = middle
                isOurs = false
            case .generatorTooSlow:
                high = middle
                isOurs = true
            }
        }
        return Limit(rate: low, isOurs: isOurs)
    }

    private static func probe(
        _ field: inout LoadField, _ index: Int, _ way: LoadPattern.Way, _ rate: Double, _ burst: Int, _ plan: LoadPlan
    ) -> Verdict {
        var verdict = Verdict.loss
        for _ in 0..<tries {
            let train = min(burst, plan.train > 1 ? plan.train : 16)
            let slice = field.run(
                index, LoadPattern(way: way, spacing: .bursts(burst), rate: rate, train: train, duration: plan.duration))
            if slice.overflow == 0, slice.arrived >= slice.sent, slice.skipped == 0 { return .lossless }
            // Less than a thousandth left out is a pause, not a limit.
            verdict = slice.overflow > 0 || slice.skipped * 1000 > slice.sent ? .generatorTooSlow : .loss
            if verdict == .loss, slice.loss > 0.05 { return .loss }
        }
        return verdict
    }
}

/// `swiftlet bench memory`: what a relay takes with all its flows open.
enum MemoryBench {
    static func run(_ arguments: [String]) throws {
        guard var plan = try LoadPlan(arguments, flows: 200_000) else { return }
        plan.against = Array(plan.against.filter { $0.hasPrefix("relay") }.prefix(1))
        let count = plan.flows
        let launcher = try LoadLauncher(flows: count, program: plan.program)
        defer { launcher.end() }
        let socket = try LoadRig.trunkSocket()
        let target = try launcher.start((plan.against.first ?? "relay") + "+metrics=127.0.0.1:0", peer: socket.localAddress)
        defer { target.end() }
        let empty = ProcessUsage.memory(target.worker).now
        var rig = try LoadRig(target, socket, flows: count, sizes: plan.sizes, maker: launcher.maker)
        let works = rig.open()
        let open = ProcessUsage.memory(target.worker).now
        // Another packet through every one of them.
        let used = rig.useAll()
        let memory = ProcessUsage.memory(target.worker)
        let confirmed = try target.metrics.map { (address) throws(CommandError) in try Fetch.metrics(address) } ?? [:]
        let flows = confirmed.reduce(0) { $1.key.hasPrefix("swiftlet_relay_flows_confirmed{") ? $0 + $1.value : $0 }
        if plan.json {
            let result: JSONValue = [
                "flows": .integer(Int64(works)), "confirmed": .integer(Int64(flows)), "rss_empty_kib": .integer(Int64(empty)),
                "rss_open_kib": .integer(Int64(open)), "rss_used_kib": .integer(Int64(memory.now)),
                "rss_peak_kib": .integer(Int64(memory.peak)), "used": .integer(Int64(used)),
            ]
            return say(result.text)
        }
        say("relay, \(works) of \(count) flows work, \(Int(flows)) are confirmed")
        let sizes = [empty, open, memory.now, memory.peak].map { decimals(Double($0) / 1024, 1) + " MiB" }
        say(
            "  resident: \(sizes[0]) at start, \(sizes[1]) with all flows open, \(sizes[2]) after another packet through \(used), \(sizes[3]) at most"
        )
    }
}
