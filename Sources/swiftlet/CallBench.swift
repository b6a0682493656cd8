import CBench
import EventLoop
import Glibc
import Primitives

/// What callers do.
enum CallMode: String, CaseIterable {
    /// Packets go back as they came (`embedded:echo`).
    case echo
    /// Audio is decoded and nobody answers (`embedded:parrot`, turns end when the client says so, which it does not).
    case decode
    /// Audio is decoded, and answers are spoken over it nearly all the time (`embedded:parrot`).
    case converse

    var backend: String { self == .echo ? "embedded:echo" : "embedded:parrot" }

    var session: String? {
        switch self {
        case .echo: nil
        case .decode: #"{"type":"realtime","audio":{"input":{"turn_detection":null}}}"#
        case .converse:
            #"{"type":"realtime","audio":{"input":{"turn_detection":{"type":"server_vad","silence_duration_ms":200,"#
                + #""interrupt_response":false}}}}"#
        }
    }

    /// Milliseconds of speech and of pause that repeat.
    var voice: (speech: Int, pause: Int) {
        switch self {
        case .echo, .decode: (5000, 0)
        case .converse: (4000, 600)
        }
    }
}

struct CallBenchPlan {
    var mode: CallMode
    var calls: Int
    var hasDataChannel: Bool
    var rate: Int
    var idle: Interval
    var speaking: Interval
    var relayProgram: String?
    var transceiverProgram: String?
    var serverProgram: String?
    var relayOptions: [String]
    var transceiverOptions: [String]
    var isSlow: Bool
    var json: Bool
    var realtime: Bool

    static let help = """
        usage: swiftlet bench calls [--mode echo|decode|converse] [--calls N] [--seconds S] …

        Whole calls: offers over HTTP to a transceiver, checks, handshakes and audio through a relay, both real processes with one worker each.
        Callers are WebRTC clients of our own in one thread (ICE, DTLS, SRTP, a data channel; Chromium's offer). Processor time is each
        program's own, kernel included; on loopback it has the receiver's part of every send in it. Memory is what the transceiver has grown by.

          --mode MODE             echo: packets go back as they came; decode: audio is heard and not answered; converse: answers nearly always (echo)
          --calls N               1…20000 (1000)
          --data-channel yes|no   (yes)
          --rate N                1…2000 calls set up a second (100)
          --idle-seconds S        0…600 of connected calls that say nothing (5)
          --seconds S             0…600 of 50 packets a second each way (10)
          --relay-program F, --transceiver-program F
                                  other builds; a transceiver may be a script that runs it under something else
          --relay-options O, --transceiver-options O
                                  NAME=VALUE with commas between them
          --server-program F      another server instead of both: it prints 'ready: http://HOST:PORT, media HOST:PORT', with ', process ID' where it is
                                  not itself what is measured, and answers offers at /v1/realtime/calls (Perf/Peers)
          --slow yes              a program that runs a hundred times slower: patience is longer
          --json yes              JSON instead of a table
          --realtime yes          nothing else runs on these processors meanwhile: for machines with other work
        """

    static let names = [
        "--mode", "--calls", "--data-channel", "--rate", "--idle-seconds", "--seconds", "--relay-program", "--transceiver-program",
        "--server-program", "--relay-options", "--transceiver-options", "--slow", "--json", "--realtime",
    ]

    init?(_ arguments: [String]) throws(CommandError) {
        guard let given = try Arguments(arguments, names: Self.names, help: Self.help) else { return nil }
        guard let mode = CallMode(rawValue: given["--mode"] ?? "echo") else {
            throw CommandError("--mode: must be \(CallMode.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        self.mode = mode
        guard ["yes", "no", nil].contains(given["--data-channel"]) else { throw CommandError("--data-channel: must be yes or no") }
        hasDataChannel = given["--data-channel"] != "no"
        calls = try given.number("--calls", 1...20_000, default: 1000)
        rate = try given.number("--rate", 1...2000, default: 100)
        idle = .seconds(try given.number("--idle-seconds", 0...600, default: 5))
        speaking = .seconds(try given.number("--seconds", 0...600, default: 10))
        relayProgram = given["--relay-program"]
        transceiverProgram = given["--transceiver-program"]
        serverProgram = given["--server-program"]
        relayOptions = (given["--relay-options"] ?? "").split(separator: ",").map(String.init)
        transceiverOptions = (given["--transceiver-options"] ?? "").split(separator: ",").map(String.init)
        isSlow = given["--slow"] != nil
        json = given["--json"] != nil
        realtime = given["--realtime"] != nil
    }

    /// For one request, and for whatever must come in the end.
    var patience: Interval { isSlow ? .seconds(120) : .seconds(10) }
}

/// `swiftlet bench calls`.
enum CallBench {
    /// Calls that come and go before anything is counted, so that what a process sets aside once is there.
    private static let warmUp = 16

    static func run(_ arguments: [String]) throws {
        guard let plan = try CallBenchPlan(arguments) else { return }
        if crowd_hurry(plan.realtime ? 1 : 0) == 0, plan.realtime { complain("swiftlet: --realtime is not allowed here") }
        let launcher = try LoadLauncher(flows: plan.calls, program: plan.relayProgram)
        defer { launcher.end() }
        if let program = plan.serverProgram {
            let server = try launcher.server(program)
            defer { server.end() }
            return try run(plan, CallPrograms(relay: nil, transceiver: server))
        }
        let trunk = try LoadLauncher.freeAddress()
        let relay = try launcher.start((["relay"] + plan.relayOptions).joined(separator: "+"), peer: trunk)
        defer { relay.end() }
        let transceiver = try launcher.transceiver(
            plan.transceiverProgram, backend: plan.mode.backend, sessions: plan.calls + warmUp + 64, trunk: trunk, relay: relay.publicSide,
            plan.transceiverOptions)
        defer { transceiver.end() }
        try run(plan, CallPrograms(relay: relay, transceiver: transceiver))
    }

    private static func run(_ plan: CallBenchPlan, _ programs: CallPrograms) throws {
        guard let signaling = programs.transceiver.metrics else { throw CommandError("the server has no address", status: 1) }
        let voice = CallVoice(speechMilliseconds: plan.mode.voice.speech, pauseMilliseconds: plan.mode.voice.pause)
        var rig = try CallRig(
            relay: programs.transceiver.publicSide, signaling: signaling, calls: plan.calls, hasDataChannel: plan.hasDataChannel,
            session: plan.mode.session, voice: voice)
        let report = try measure(plan, &rig, programs)
        if plan.json { say(report.json.text) } else { report.print(plan, octets: voice.averageSize) }
    }

    private static func measure(_ plan: CallBenchPlan, _ rig: inout CallRig, _ programs: CallPrograms) throws -> CallBenchReport {
        let warm = min(warmUp, plan.calls)
        try connect(0..<warm, plan, &rig)
        rig.startSpeaking()
        rig.run(plan.isSlow ? .zero : .milliseconds(500))
        rig.stopSpeaking()
        for number in 0..<warm { try rig.hangUp(number, patience: plan.patience) }
        rig.run(.milliseconds(500))

        var report = CallBenchReport()
        report.atStart = CallMoment(programs, rig.heard)
        try connect(0..<plan.calls, plan, &rig)
        report.connected = CallMoment(programs, rig.heard)
        report.ready = rig.ready
        // What handshakes leave behind is given back some time later.
        rig.run(plan.isSlow ? .zero : .seconds(2))
        report.idleBegins = CallMoment(programs, rig.heard)
        rig.run(plan.idle)
        report.idleEnds = CallMoment(programs, rig.heard)

        rig.startSpeaking()
        rig.run(plan.speaking.nanoseconds > 0 ? .seconds(plan.mode == .converse ? 6 : 2) : .zero)
        let said = rig.said
        report.speakingBegins = CallMoment(programs, rig.heard)
        rig.run(plan.speaking)
        report.speakingEnds = CallMoment(programs, rig.heard)
        report.said = rig.said - said
        rig.stopSpeaking()
        rig.run(.milliseconds(500))
        report.saidInAll = rig.said
        report.heardInAll = rig.heard
        report.failed = rig.failed

        report.endBegins = CallMoment(programs, 0)
        for number in 0..<plan.calls {
            try rig.hangUp(number, patience: plan.patience)
            if number % 20 == 0 { rig.run(.zero) }
        }
        rig.run(.seconds(plan.isSlow ? 0 : 2))
        report.ended = CallMoment(programs, 0)
        report.calls = plan.calls
        report.overflow = rig.overflow
        return report
    }

    private static func connect(_ numbers: Range<Int>, _ plan: CallBenchPlan, _ rig: inout CallRig) throws {
        let start = MonotonicClock.now()
        for number in numbers {
            try rig.place(number, patience: plan.patience)
            let due = start + .microseconds(Int64((number - numbers.lowerBound + 1) * 1_000_000 / plan.rate))
            rig.run(max(.zero, due - MonotonicClock.now()))
        }
        let count = numbers.count
        rig.run(plan.patience) { $0.ready == count }
        guard rig.ready == count else { throw CommandError("only \(rig.ready) of \(count) calls were set up", status: 1) }
        // Nobody has anything left to say to anybody.
        rig.run(.milliseconds(300))
    }
}
