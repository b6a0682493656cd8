import CBench
import EventLoop
import Primitives

/// What is measured, and with how much.
struct BenchPlan {
    /// Which way the packets go.
    enum Direction: String, CaseIterable {
        case up = "client → trunk"
        case down = "trunk → client"
    }
    var packets: Int
    var flows: Int
    var size: Int
    /// How many transceivers the flows are spread over.
    var transceivers: Int
    /// Packets in a frame that comes from another relay, at most.
    var perFrame = Int.max
    static let batch = 64
}

/// `swiftlet bench`: what a packet costs.
enum Bench {
    static let help = """
        usage: swiftlet bench relay [--packets N] [--flows N] [--transceivers N] [--size BYTES] [--direction up|down]
               swiftlet bench core  [--packets N] [--flows N] [--transceivers N] [--size BYTES] [--direction up|down|hop|KIND]

        relay  known flows over loopback sockets, both ways, beside a bare recvmmsg/sendmmsg loop and beside one recvfrom and one sendto
               per packet, in one thread, turn by turn: CPU time per packet of each
        core   the relay's core alone, without sockets: to be run under valgrind, as Perf/bench.sh does
        load, rate, memory, bad and flood
               whole programs under load, beside others: `swiftlet bench load --help`
        calls  whole calls through a relay to a transceiver: what setting up, keeping and speaking cost: `swiftlet bench calls --help`
        srtp   protecting and unprotecting packets, beside libsrtp2: `swiftlet bench srtp --help`
        session  the transceiver's core without sockets, packets there and back: `swiftlet bench session --help`
        steady known flows through a relay that somebody else starts, kills and replaces: `swiftlet bench steady --help`
        hold   whole calls of a transceiver that somebody else drains or kills: `swiftlet bench hold --help`

          --packets N       64…100000000 each way (1000000)
          --flows N         1…20000 client addresses; relay: 1…512 (256)
          --transceivers N  1…64 transceivers that they are spread over (1)
          --size BYTES      20…1200 of payload (160)
          --direction WAY   up: client → trunk, or down (relay: both; core: up); core also hop: from another relay to the transceiver,
                            and what it drops: forged, unsigned, truncated, huge, oversized, media or noise
          --per-frame N     1…64 packets in each of that relay's frames, at most (what fits)
        """

    static func run(_ arguments: [String]) throws(CommandError) {
        var rest = arguments
        let verb = rest.isEmpty ? "--help" : rest.removeFirst()
        do {
            switch verb {
            case "load": return try LoadBench.run(rest)
            case "rate": return try RateBench.run(rest)
            case "memory": return try MemoryBench.run(rest)
            case "bad": return try FloodBench.bad(rest)
            case "flood": return try FloodBench.flood(rest)
            case "calls": return try CallBench.run(rest)
            case "srtp": return try SRTPBench.run(rest)
            case "session": return try SessionBench.run(rest)
            case "steady": return try SteadyBench.run(rest)
            case "hold": return try HoldBench.run(rest)
            case "yardstick": return try yardstick(rest)
            default: break
            }
        } catch let error as CommandError { throw error } catch { throw CommandError("bench: \(error)", status: 1) }
        guard verb == "relay" || verb == "core" else {
            if verb == "--help" || verb == "-h" { return say(help) }
            throw CommandError("there is no 'bench \(verb)'; `swiftlet bench --help` lists them")
        }
        let names = ["--packets", "--flows", "--transceivers", "--size", "--direction", "--per-frame"]
        guard let given = try Arguments(rest, names: names, help: help) else { return }
        let direction: BenchPlan.Direction?
        let rubbish = verb == "core" ? given["--direction"].flatMap(Rubbish.Kind.init) : nil
        switch given["--direction"] {
        case nil: direction = nil
        case "up": direction = .up
        case "down": direction = .down
        case "hop" where verb == "core": direction = nil
        case _? where rubbish != nil: direction = nil
        case let text?:
            throw CommandError("--direction: '\(text)' is not allowed; it must be up or down, or for the core hop or a kind of rubbish")
        }
        let plan = BenchPlan(
            packets: try given.number("--packets", 64...100_000_000, default: 1_000_000),
            flows: try given.number("--flows", 1...(verb == "relay" ? 512 : 20_000), default: 256),
            size: try given.number("--size", 20...1200, default: 160),
            transceivers: try given.number("--transceivers", 1...64, default: 1),
            perFrame: try given.number("--per-frame", 1...64, default: 64))
        if verb == "core" {
            var bench = CoreBench(plan)
            if let rubbish {
                bench.refuse(rubbish, packets: plan.packets)
                say("core: \(bench.moved) packets dropped, \(rubbish)")
            } else if given["--direction"] == "hop" {
                bench.passOn(packets: plan.packets)
                say("core: \(bench.moved) packets moved, trunk → trunk")
            } else {
                bench.run(direction ?? .up, packets: plan.packets)
                say("core: \(bench.moved) packets moved, \((direction ?? .up).rawValue)")
            }
        } else {
            let directions = direction.map { [$0] } ?? BenchPlan.Direction.allCases
            do { try RelayBench.run(plan, directions) } catch { throw CommandError("bench: \(error)", status: 1) }
        }
    }

    /// Not for people: the process in which a yardstick of `bench load` runs.
    private static func yardstick(_ arguments: [String]) throws(CommandError) {
        guard arguments.count == 2, ["bare", "plain"].contains(arguments[0]), let peer = SocketAddress(arguments[1]) else {
            throw CommandError("usage: swiftlet bench yardstick bare|plain HOST:PORT")
        }
        _ = yardstick_run(arguments[0] == "bare" ? yardstick_bare : yardstick_plain, peer.ip.v4Bits, peer.port)
        throw CommandError("the yardstick has ended", status: 1)
    }
}
