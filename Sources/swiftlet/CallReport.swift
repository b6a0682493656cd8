import EventLoop
import Primitives

/// The programs that calls go through.
struct CallPrograms {
    /// nil where one server is all there is.
    let relay: LoadTarget?
    let transceiver: LoadTarget
}

/// What both have used until now.
struct CallMoment {
    var at = MonotonicClock.now()
    var relay: Int64 = 0
    var transceiver: Int64 = 0
    /// Of the transceiver, by the name of the thread.
    var threads: [String: Int64] = [:]
    /// KiB of the transceiver, and of the relay.
    var memory = 0
    var relayMemory = 0
    var heard = 0

    init() {}

    init(_ programs: CallPrograms, _ heard: Int) {
        self.heard = heard
        let process = programs.transceiver.measured ?? programs.transceiver.process
        transceiver = ProcessUsage(process).time
        threads = ProcessUsage.threadTimes(process)
        memory = ProcessUsage.memory(process).now
        guard let worker = programs.relay?.worker else { return }
        relay = ProcessUsage(worker).time
        relayMemory = ProcessUsage.memory(worker).now
    }
}

struct CallBenchReport {
    var calls = 0
    var ready = 0
    var failed = 0
    var said = 0
    var saidInAll = 0
    var heardInAll = 0
    var overflow = 0
    var atStart = CallMoment()
    var connected = CallMoment()
    var idleBegins = CallMoment()
    var idleEnds = CallMoment()
    var speakingBegins = CallMoment()
    var speakingEnds = CallMoment()
    var endBegins = CallMoment()
    var ended = CallMoment()

    /// Microseconds of processor time per call.
    private func perCall(_ from: CallMoment, _ to: CallMoment, _ time: (CallMoment) -> Int64) -> Double {
        Double(time(to) - time(from)) / 1000 / Double(max(1, calls))
    }

    /// Microseconds of processor time per call and second: 10 are a thousandth of one per cent of a core.
    private func perSecond(_ from: CallMoment, _ to: CallMoment, _ time: (CallMoment) -> Int64) -> Double {
        let seconds = Double((to.at - from.at).microseconds) / 1_000_000
        return seconds > 0 ? perCall(from, to, time) / seconds : .nan
    }

    private func memory(_ moment: CallMoment, _ value: (CallMoment) -> Int) -> Double {
        Double(value(moment) - value(atStart)) / Double(max(1, calls))
    }

    private var heard: Int { speakingEnds.heard - speakingBegins.heard }
    private var threadNames: [String] { speakingEnds.threads.keys.sorted() }

    func print(_ plan: CallBenchPlan, octets: Int) {
        let channel = plan.hasDataChannel ? "with a data channel" : "audio alone"
        say("\(calls) calls, \(plan.mode.rawValue), \(channel), Opus of \(octets) B on average; \(plan.rate) calls set up a second")
        let isAlone = plan.serverProgram != nil
        let server = isAlone ? "server" : "transceiver"
        var lines = [["processor time"] + (isAlone ? [server] : [server, "relay", "both"])]
        for (name, from, to, each) in phases {
            let value = { (time: (CallMoment) -> Int64) in each ? self.perSecond(from, to, time) : self.perCall(from, to, time) }
            let (a, b) = (value(\.transceiver), value(\.relay))
            let text = { (microseconds: Double) in
                each ? "\(decimals(microseconds / 10_000, 4)) %" : "\(decimals(microseconds, 0)) µs"
            }
            lines.append([name] + (isAlone ? [text(a)] : [text(a), text(b), text(a + b)]))
        }
        // While calls are set up one after the other, those that are there already are checked upon and report: on average for half of the time.
        let others = { (time: (CallMoment) -> Int64) in
            self.perSecond(self.idleBegins, self.idleEnds, time) * Double((self.connected.at - self.atStart.at).microseconds) / 2_000_000
        }
        let (a, b) = (others(\.transceiver), others(\.relay))
        if a.isFinite { lines.insert(["  of it, calls that were there"] + [a, b, a + b].map { "\(decimals($0, 0)) µs" }, at: 2) }
        printTable(lines)
        for name in threadNames {
            let set = perCall(atStart, connected) { $0.threads[name] ?? 0 }
            let speak = perSecond(speakingBegins, speakingEnds) { $0.threads[name] ?? 0 }
            say("  thread \(name): \(decimals(set, 0)) µs for each set-up, \(decimals(speak / 10_000, 4)) % of a core while speaking")
        }
        let kib = { (moment: CallMoment) in "\(decimals(self.memory(moment, \.memory), 1)) KiB" }
        say(
            "  memory per call: \(kib(connected)) when all are connected, \(kib(idleEnds)) idle, \(kib(speakingEnds)) while speaking, \(kib(ended)) after the end"
        )
        let relayMemory = isAlone ? "" : "; the relay per call: \(decimals(memory(speakingEnds, \.relayMemory), 1)) KiB"
        say("  the \(server) at the start: \(decimals(Double(atStart.memory) / 1024, 1)) MiB\(relayMemory)")
        say("  said \(saidInAll) packets, heard \(heardInAll); while measured \(said) and \(heard); calls that failed: \(failed)")
        if overflow > 0 { say("  \(overflow) packets were lost because the generator did not take them in time") }
    }

    private var phases: [(String, CallMoment, CallMoment, Bool)] {
        [
            ("each call: set-up", atStart, connected, false), ("each call: end", endBegins, ended, false),
            ("idle, of a core per call", idleBegins, idleEnds, true),
            ("speaking, of a core per call", speakingBegins, speakingEnds, true),
        ]
    }

    var json: JSONValue {
        var row = JSONObject()
        let numbers = [
            ("calls", calls), ("ready", ready), ("failed", failed), ("said", saidInAll), ("heard", heardInAll), ("overflow", overflow),
        ]
        for (name, value) in numbers { row[name] = .integer(Int64(value)) }
        row["rss_start_kib"] = .integer(Int64(atStart.memory))
        for (name, moment) in [("idle_kib", idleEnds), ("speaking_kib", speakingEnds), ("ended_kib", ended)] {
            row[name] = number(memory(moment, \.memory))
        }
        let names = ["setup_us", "end_us", "idle_share", "speaking_share"]
        for (name, phase) in zip(names, phases) {
            for (program, time) in [("transceiver", \CallMoment.transceiver), ("relay", \CallMoment.relay)] {
                let value =
                    phase.3
                    ? perSecond(phase.1, phase.2) { $0[keyPath: time] } / 1_000_000 : perCall(phase.1, phase.2) { $0[keyPath: time] }
                row["\(program)_\(name)"] = number(value.isFinite ? value : nil)
            }
        }
        return .object(row)
    }
}
