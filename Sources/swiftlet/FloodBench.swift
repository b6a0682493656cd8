import EventLoop
import Primitives

/// `swiftlet bench flood` and `bench bad`: a relay among strangers.
enum FloodBench {
    static let sources = 200_000

    /// Calls alone, then calls with a flood beside them, in turns.
    static func flood(_ arguments: [String]) throws {
        guard var plan = try LoadPlan(arguments, flows: 500) else { return }
        plan.against = plan.against.filter { $0.hasPrefix("relay") }.map { $0 + "+metrics=127.0.0.1:0" }
        let floodRate = plan.rate == Double(plan.flows * 50) ? 100_000 : plan.rate
        plan.rate = Double(plan.flows * 50)
        var field = try LoadField.start(plan)
        defer { field.end() }
        guard let target = field.targets.first, let metrics = target.metrics else { throw CommandError("no relay to flood", status: 1) }
        var rubbish = Rubbish(
            [.forged, .truncated, .huge, .unsigned, .oversized], first: plan.flows, sources: sources, maker: field.maker)
        // Everything once, so that what is set aside is in use.
        _ = field.run(0, LoadPattern.calls(plan, .milliseconds(200)))
        _ = field.run(0, .calls(plan, .milliseconds(500)), among: &rubbish, rate: floodRate)
        let before = try Fetch.metrics(metrics)
        let memory = ProcessUsage.memory(target.worker)
        var alone: [LoadSlice] = []
        var among: [LoadSlice] = []
        for _ in 0..<plan.rounds {
            alone.append(field.run(0, .calls(plan, plan.duration)))
            among.append(field.run(0, .calls(plan, plan.duration), among: &rubbish, rate: floodRate))
        }
        let after = try Fetch.metrics(metrics)
        let memoryAfter = ProcessUsage.memory(target.worker)
        let report = FloodReport(
            calls: plan.flows, rate: floodRate, alone: alone, among: among, memory: (memory.now, memoryAfter.now),
            drops: after.growth(since: before, of: "swiftlet_relay_dropped_total"),
            queueDropped: after.sum("swiftlet_relay_public_queue_dropped_total") - before.sum("swiftlet_relay_public_queue_dropped_total"),
            truncated: after.sum("swiftlet_relay_receive_truncated_total") - before.sum("swiftlet_relay_receive_truncated_total"),
            flowsMade: after.sum("swiftlet_relay_flows_made_total") - before.sum("swiftlet_relay_flows_made_total"))
        if plan.json { say(report.json.text) } else { report.print() }
    }

    /// What a bad packet of each kind costs beside a good one, in the same bursts.
    static func bad(_ arguments: [String]) throws {
        guard var plan = try LoadPlan(arguments, flows: 1000) else { return }
        plan.against = Array(plan.against.filter { $0.hasPrefix("relay") }.prefix(1))
        plan.way = .up
        plan.spacing = .bursts(32)
        var field = try LoadField.start(plan)
        defer { field.end() }
        guard !field.targets.isEmpty else { throw CommandError("no relay to measure: \(field.absent.joined(separator: "; "))", status: 1) }
        var good: [Double] = []
        var bad = Rubbish.Kind.allCases.map { _ in [Double]() }
        var rubbish = Rubbish.Kind.allCases.map { Rubbish([$0], first: plan.flows, sources: sources, maker: field.maker) }
        var nothing = plan.pattern
        nothing.rate = 0
        for _ in 0..<plan.rounds {
            good.append(field.run(0, plan.pattern).timePerPacket)
            for index in bad.indices {
                let slice = field.run(0, nothing, among: &rubbish[index], rate: plan.rate)
                bad[index].append(Double(slice.time) / Double(max(1, slice.rubbish)))
            }
        }
        let names = Rubbish.Kind.allCases.map(\.rawValue)
        if plan.json {
            let rows = zip(names, bad).map { name, costs -> JSONValue in
                ["kind": .string(name), "cpu_ns": .number(costs.median), "ratio": .number(zip(costs, good).map { $0 / $1 }.median)]
            }
            let result: JSONValue = ["good_cpu_ns": .number(good.median), "bad": .array(rows)]
            return say(result.text)
        }
        say(
            "relay, \(Int(plan.rate)) packets/s in bursts of 32, bad ones of \(sources) sources, \(plan.rounds) rounds of \(plan.duration.milliseconds) ms"
        )
        var lines = [["", "CPU/packet", "× good"], ["good, client → trunk", "\(decimals(good.median, 0)) ns", "1.00"]]
        for (name, costs) in zip(names, bad) {
            lines.append([name, "\(decimals(costs.median, 0)) ns", decimals(zip(costs, good).map { $0 / $1 }.median, 2)])
        }
        printTable(lines)
    }
}

extension LoadPattern {
    /// Calls as they come: one packet after the other, there and back.
    static func calls(_ plan: LoadPlan, _ duration: Interval) -> LoadPattern {
        LoadPattern(way: .echo, spacing: .bursts(1), rate: plan.rate, train: 1, duration: duration)
    }
}

extension Dictionary where Key == String, Value == Double {
    fileprivate func sum(_ name: String) -> Double { reduce(0) { $1.key.hasPrefix(name) ? $0 + $1.value : $0 } }

    /// What has counted up, by the label `reason`.
    fileprivate func growth(since earlier: Self, of name: String) -> [(reason: String, count: Double)] {
        compactMap { key, value -> (reason: String, count: Double)? in
            guard key.hasPrefix(name), value > earlier[key] ?? 0 else { return nil }
            let parts = key.split(separator: "\"")
            return (parts.count > 1 ? String(parts[1]) : key, value - (earlier[key] ?? 0))
        }.sorted { $0.count > $1.count }
    }
}

struct FloodReport {
    let calls: Int
    let rate: Double
    let alone: [LoadSlice]
    let among: [LoadSlice]
    let memory: (before: Int, after: Int)
    let drops: [(reason: String, count: Double)]
    let queueDropped: Double
    let truncated: Double
    let flowsMade: Double

    private func loss(_ slices: [LoadSlice]) -> Double {
        let sent = slices.reduce(0) { $0 + $1.sent }
        return sent == 0 ? 1 : 1 - Double(slices.reduce(0) { $0 + $1.arrived }) / Double(sent)
    }
    private var rubbish: Int { among.reduce(0) { $0 + $1.rubbish } }
    private var answered: Int { among.reduce(0) { $0 + $1.strange } }
    private func share(_ slices: [LoadSlice]) -> Double { slices.map(\.share).median }

    func print() {
        say("\(calls) calls of 50 packets/s, echoed; \(rubbish) bad packets of \(FloodBench.sources) sources at \(Int(rate))/s beside them")
        say("  calls lose  \(decimals(100 * loss(alone), 3)) % alone, \(decimals(100 * loss(among), 3)) % in the flood")
        say(
            "  round trip  p50 \(decimals(alone.map { $0.latency(0.5) }.median, 0)) µs, p99 \(decimals(alone.map { $0.latency(0.99) }.median, 0)) µs alone; "
                + "p50 \(decimals(among.map { $0.latency(0.5) }.median, 0)) µs, p99 \(decimals(among.map { $0.latency(0.99) }.median, 0)) µs in the flood"
        )
        say("  CPU         \(decimals(100 * share(alone), 0)) % alone, \(decimals(100 * share(among), 0)) % in the flood")
        say("  memory      \(memory.before) KiB before, \(memory.after) KiB after")
        say("  answers     \(answered) to strangers; \(Int(flowsMade)) flows made")
        say("  dropped     " + drops.map { "\($0.reason) \(Int($0.count))" }.joined(separator: ", "))
        say("  kernel      \(Int(queueDropped)) lost in the socket's queue, \(Int(truncated)) longer than a slot")
    }

    var json: JSONValue {
        var reasons: [JSONValue] = []
        for drop in drops { reasons.append(["reason": .string(drop.reason), "count": .integer(Int64(drop.count))]) }
        return [
            "calls": .integer(Int64(calls)), "bad_packets": .integer(Int64(rubbish)), "loss_alone": .number(loss(alone)),
            "loss_in_flood": .number(loss(among)), "sent_in_flood": .integer(Int64(among.reduce(0) { $0 + $1.sent })),
            "rss_before_kib": .integer(Int64(memory.before)),
            "rss_after_kib": .integer(Int64(memory.after)), "answered": .integer(Int64(answered)),
            "flows_made": .integer(Int64(flowsMade)), "dropped": .array(reasons), "queue_dropped": .integer(Int64(queueDropped)),
            "truncated": .integer(Int64(truncated)), "cpu_alone": .number(share(alone)), "cpu_in_flood": .number(share(among)),
            "skipped": .integer(Int64((alone + among).reduce(0) { $0 + $1.skipped })),
        ]
    }
}
