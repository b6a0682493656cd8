import Primitives

/// One picture: lines of text, each at most as wide as the terminal.
struct TopFrame {
    let width: Int
    let colours: Bool

    func lines(of source: TopSource) -> [String] {
        let title = source.name.uppercased()
        guard let interval = TopInterval(source) else {
            let text = "\(source.address)  \(source.problem ?? "waiting for two reports …")"
            return [bold(title) + "  " + (source.problem == nil ? text : red(cut(text, width - title.count - 2)))]
        }
        let head = "  \(source.address)  up \(duration(interval.last["uptime"]?.double ?? 0))  " + fill(interval)
        var lines = [bold(title) + cut(head, width - title.count)]
        lines += workers(interval)
        lines += threads(interval)
        if let drops = drops(interval) { lines.append(drops) }
        if let marks = interval.last["marks"]?.array, let mark = marks.last, let text = mark["text"]?.string {
            lines.append(cut("  last event: \(text)", width))
        }
        return lines
    }

    private func fill(_ interval: TopInterval) -> String {
        guard let fill = interval.last["fill"], let used = fill["used"]?.double, let capacity = fill["capacity"]?.double else { return "" }
        let share = capacity > 0 ? used / capacity : 0
        let blocks = Int((share * 20).rounded())
        let bar = String(repeating: "█", count: min(20, max(0, blocks))) + String(repeating: "·", count: max(0, 20 - blocks))
        let text = "\(fill["name"]?.string ?? "") \(short(used)) of \(short(capacity)), \(short(fill["confirmed"]?.double)) confirmed"
        return "\(text) \(bar)"
    }

    /// A table of workers: what comes and goes, and what it costs.
    private func workers(_ interval: TopInterval) -> [String] {
        var rows: [[String]] = []
        var names: [String] = []
        for index in 0..<interval.workerCount {
            guard let pair = interval.worker(index) else { continue }
            let ways = pair.now["traffic"]?.array ?? []
            let before = pair.before?["traffic"]?.array ?? []
            names = ways.map { $0["name"]?.string ?? "" }
            var row = [pair.now["name"]?.string ?? "\(index)"]
            var packets = 0.0
            for (number, way) in ways.enumerated() {
                let both = (now: way, before: number < before.count ? before[number] : nil)
                let rate = interval.rate(both, "packets")
                packets += rate ?? 0
                row += [short(rate), short(interval.rate(both, "bytes").map { $0 * 8 })]
                let batches = interval.rate(both, "batches") ?? 0
                row.append(batches > 0 ? decimals((rate ?? 0) / batches, 1) : "–")
            }
            let time = interval.rate(pair, "cpu", "total") ?? 0
            row.append(decimals(time / 1e7, 1))
            row.append(packets > 0 ? decimals(time / packets, 0) : "–")
            let latency = interval.histogram(pair, "latency")
            for q in [0.5, 0.99] { row.append(TopInterval.quantile(q, latency).map { decimals($0 / 1000, 0) } ?? "–") }
            row.append(short(interval.rate(pair, "switches", "voluntary")))
            row.append(short(interval.rate(pair, "switches", "involuntary")))
            rows.append(row)
        }
        let header =
            ["worker"] + names.flatMap { ["\($0)/s", "bit/s", "batch"] } + ["CPU %", "ns/pkt", "p50 µs", "p99 µs", "sleeps/s", "preempt/s"]
        return table([header] + rows)
    }

    /// What the kernel counts for each worker; why not, where it does not.
    private func threads(_ interval: TopInterval) -> [String] {
        var rows: [[String]] = []
        var header = [""]
        var reasons: [String: [String]] = [:]
        for index in 0..<interval.workerCount {
            guard let pair = interval.worker(index) else { continue }
            let before = pair.before?["perf"]?.array ?? []
            var row = [pair.now["name"]?.string ?? "\(index)"]
            header = [""]
            for (number, counter) in (pair.now["perf"]?.array ?? []).enumerated() {
                // The processor time is above, from where it is always known.
                guard let name = counter["name"]?.string, name != "cpu_seconds" else { continue }
                if let reason = counter["unavailable"]?.string {
                    if index == 0 { reasons[reason, default: []].append(name) }
                    continue
                }
                header.append("\(name)/s")
                row.append(short(interval.rate((now: counter, before: number < before.count ? before[number] : nil), "value")))
            }
            rows.append(row)
        }
        let known = header.count > 1 ? table([header] + rows) : []
        return known
            + reasons.sorted { $0.key < $1.key }.map { cut("  unavailable: \($0.value.joined(separator: ", ")), because \($0.key)", width) }
    }

    private func drops(_ interval: TopInterval) -> String? {
        let before = interval.previous["drops"]?.array ?? []
        let drops = (interval.last["drops"]?.array ?? []).compactMap { drop -> (name: String, count: Double, rate: Double)? in
            guard let name = drop["reason"]?.string, let count = drop["count"]?.double else { return nil }
            let old = before.first { $0["reason"]?.string == name }?["count"]?.double ?? 0
            return (name, count, max(0, count - old) / interval.seconds)
        }
        guard !drops.isEmpty else { return nil }
        let sorted = drops.sorted { ($0.rate, $0.count) > ($1.rate, $1.count) }
        let text =
            "  dropped: "
            + sorted.map { "\($0.name) \(short($0.count))\($0.rate > 0 ? " (\(short($0.rate))/s)" : "")" }.joined(separator: ", ")
        return drops.contains { $0.rate > 0 } ? red(cut(text, width)) : cut(text, width)
    }
}

// MARK: - Text

extension TopFrame {
    private func table(_ rows: [[String]]) -> [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
        return rows.map { row in
            let cells = row.enumerated().map { column, cell in
                let space = String(repeating: " ", count: widths[column] - cell.count)
                return column == 0 ? cell + space : space + cell
            }
            return cut("  " + cells.joined(separator: "  "), width)
        }
    }

    private func cut(_ text: String, _ width: Int) -> String { text.count <= width ? text : text.prefix(max(0, width - 1)) + "…" }

    private func bold(_ text: String) -> String { colours ? "\u{1B}[1m\(text)\u{1B}[0m" : text }
    private func red(_ text: String) -> String { colours ? "\u{1B}[31m\(text)\u{1B}[0m" : text }

    /// Three or four digits and a unit; a dash for what is not known.
    private func short(_ value: Double?) -> String {
        guard let value, value.isFinite else { return "–" }
        for (limit, divisor, unit) in [(1e4, 1.0, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M")] where value < limit {
            let scaled = value / divisor
            return decimals(scaled, unit.isEmpty || scaled >= 100 ? 0 : 1) + unit
        }
        return decimals(value / 1e9, 1) + "G"
    }

    private func duration(_ seconds: Double) -> String {
        let total = Int(min(seconds, 1e9))
        let (hours, minutes) = (total / 3600, total / 60 % 60)
        return hours > 0 ? "\(hours) h \(minutes) min" : minutes > 0 ? "\(minutes) min \(total % 60) s" : "\(total) s"
    }
}
