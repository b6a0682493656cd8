import EventLoop
import Primitives
import Simulation

/// `swiftlet bench session`: the transceiver's core with callers around it, to be run under valgrind as Perf/budgets.sh does.
enum SessionBench {
    static let help = """
        usage: swiftlet bench session [--packets N] [--prepared N] [--calls N] [--batch N] [--size BYTES] [--delay MS] [--data-channel yes|no]

        A media worker's core without sockets: real calls (ICE, DTLS, SRTP) whose packets come in frames of a relay, are echoed, and leave in
        trains. To be run under valgrind: `Perf/budgets.sh` counts instructions of a packet there and back. Virtual time: each caller says 50
        packets a second.

          --packets N            0…10000000 that are echoed (10000)
          --prepared N           … that callers have made before: the same for two runs whose difference is to be the echo's (packets)
          --calls N              1…10000 (16)
          --batch N              1…400 packets of one turn, each of another caller (16)
          --size BYTES           20…1000 of Opus in a packet (80)
          --delay MS             0…5000 that the echo waits (500)
          --data-channel yes|no  (no)
        """

    private static let names = ["--packets", "--prepared", "--calls", "--batch", "--size", "--delay", "--data-channel"]

    static func run(_ arguments: [String]) throws {
        guard let given = try Arguments(arguments, names: names, help: help) else { return }
        guard ["yes", "no", nil].contains(given["--data-channel"]) else { throw CommandError("--data-channel: must be yes or no") }
        let packets = try given.number("--packets", 0...10_000_000, default: 10_000)
        let prepared = try given.number("--prepared", packets...10_000_000, default: packets)
        let calls = try given.number("--calls", 1...10_000, default: 16)
        let plan = SessionRig.Plan(
            calls: calls, batch: try given.number("--batch", 1...400, default: 16),
            size: try given.number("--size", 20...1_000, default: 80),
            echoDelay: .milliseconds(try given.number("--delay", 0...5_000, default: 500)),
            hasDataChannel: given["--data-channel"] == "yes")
        var rig = try SessionRig(plan)
        guard rig.connect() else { throw CommandError("the calls were not set up", status: 1) }
        // What comes first fills the echo's queues and makes what a session makes once.
        let warmUp = max(1, calls * 50 / plan.batch)
        rig.prepare(turns: warmUp + prepared / plan.batch)
        rig.run(turns: warmUp)
        let before = rig.echoed
        rig.measure(turns: packets / plan.batch)
        say("session: \(rig.echoed - before) packets echoed")
    }
}
