// Threads' performance counters as metrics.

extension PrometheusText {
    /// Writes the counters of `threads` (name and snapshot) as `<prefix>_thread_…_total`. A counter that cannot be read gives no
    /// sample but one of `<prefix>_thread_event_unavailable` with the reason.
    public mutating func threads(_ threads: [(name: String, snapshot: PerfSnapshot)], prefix: String) {
        for event in PerfEvent.allCases {
            let samples = threads.compactMap { thread in event.sample(thread.snapshot[event]).map { (thread.name, $0) } }
            guard !samples.isEmpty else { continue }
            let name = "\(prefix)_thread_\(event.metric)_total"
            family(name, event.help, .counter)
            for (thread, (value, space)) in samples {
                let labels = [("thread", thread), ("space", space)]
                if event == .taskClock { sample(name, labels, Double(value) / 1e9) } else { sample(name, labels, value) }
            }
        }
        unavailable(threads, "\(prefix)_thread_event_unavailable")
    }

    private mutating func unavailable(_ threads: [(name: String, snapshot: PerfSnapshot)], _ name: String) {
        var begun = false
        for thread in threads {
            for event in PerfEvent.allCases {
                guard case .unavailable(let refusal) = thread.snapshot[event] else { continue }
                if !begun { family(name, "Counters that cannot be read here, and why.", .gauge) }
                begun = true
                sample(name, [("thread", thread.name), ("event", event.metric), ("reason", refusal.description)], 1)
            }
        }
    }
}

extension PerfEvent {
    /// The middle of the metric's name, with its unit.
    public var metric: String {
        switch self {
        case .taskClock: "cpu_seconds"
        case .contextSwitches: "context_switches"
        case .migrations: "migrations"
        case .pageFaults: "page_faults"
        case .cycles: "cycles"
        case .instructions: "instructions"
        case .cacheMisses: "cache_misses"
        case .branchMisses: "branch_misses"
        }
    }

    var help: String {
        switch self {
        case .taskClock: "Processor time of the thread."
        case .contextSwitches: "Times the thread lost its processor."
        case .migrations: "Times the thread moved to another processor."
        case .pageFaults: "Page faults of the thread."
        case .cycles: "Processor cycles of the thread."
        case .instructions: "Instructions of the thread."
        case .cacheMisses: "Reads of the thread that the last level of cache did not have."
        case .branchMisses: "Branches of the thread that the processor guessed wrong."
        }
    }

    func sample(_ reading: PerfReading) -> (UInt64, String)? {
        switch reading {
        case .value(let value): (value, "all")
        case .userSpaceOnly(let value): (value, "user")
        case .unavailable: nil
        }
    }
}
