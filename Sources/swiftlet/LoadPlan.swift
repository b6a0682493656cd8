import CBench
import EventLoop
import Primitives

/// What `swiftlet bench load` and its relatives are told.
struct LoadPlan {
    var against: [String]
    var flows: Int
    var rate: Double
    var way: LoadPattern.Way
    var spacing: LoadPattern.Spacing
    var train: Int
    var sizes: [Int]
    var rounds: Int
    var duration: Interval
    var json: Bool
    var program: String?
    var realtime: Bool

    static let names = [
        "--against", "--flows", "--rate", "--way", "--pattern", "--train", "--size", "--rounds", "--milliseconds", "--json",
        "--relay-program", "--relay-option", "--realtime",
    ]

    static let help = """
        usage: swiftlet bench load   [--against NAMES] [--flows N] [--rate PPS] [--way up|down|echo] [--pattern even|burst:N|saturation] …
               swiftlet bench rate   [--against NAMES] [--way up|down|echo] …        the highest rate without loss
               swiftlet bench memory [--flows N] [--relay-option …]                 what open flows take
               swiftlet bench bad    [--rounds N] [--relay-option …]                what rubbish costs beside a good packet
               swiftlet bench flood  [--rate PPS] [--milliseconds MS] …             calls through a flood of rubbish

        A load generator on one processor, never sleeping, and real processes on another, taking turns: relays with flows opened by
        authentic checks, and what they are compared with. CPU time is the contestant's, kernel included.

          --against NAMES    relay, relay-uring, second-hop, bare, plain, nginx, coturn, with commas between them; options of a relay follow
                             a plus: relay+gather-us=500 (relay,bare,plain). second-hop: a relay behind another one, whose packets are frames
          --relay-option O   options for every relay, NAME=VALUE with commas between them
          --relay-program F  another build of swiftlet-relay
          --flows N          1…200000 (400)
          --rate PPS         packets per second of all flows (50 a flow)
          --way WAY          up: client → trunk, down: trunk → client, echo: up and back (echo)
          --pattern P        even: one by one; burst:N: N at once, of as many flows; saturation: as fast as it can (even)
          --train N          1…64 packets of one flow in one send of the generator's (1; saturation: 32)
          --size BYTES|opus  20…1200, or what Opus makes of speech (160)
          --rounds N         1…99 turns of each (7)
          --milliseconds MS  50…60000 of each turn (500)
          --json yes         JSON instead of a table
          --realtime yes     nothing else runs on these processors meanwhile: for machines with other work
        """

    init?(_ arguments: [String], flows: Int = 400) throws(CommandError) {
        guard let given = try Arguments(arguments, names: Self.names, help: Self.help) else { return nil }
        let options = given["--relay-option"].map { "+" + $0.split(separator: ",").joined(separator: "+") } ?? ""
        against = (given["--against"] ?? "relay,bare,plain").split(separator: ",").map { name in
            name.hasPrefix("relay") || name.hasPrefix("second-hop") ? name + options : String(name)
        }
        for name in against where !LoadLauncher.names.contains(String(name.prefix { $0 != "+" })) {
            throw CommandError("--against: '\(name)' is not known; there are \(LoadLauncher.names.joined(separator: ", "))")
        }
        self.flows = try given.number("--flows", 1...200_000, default: flows)
        rate = Double(try given.number("--rate", 1...5_000_000, default: self.flows * 50))
        guard let way = LoadPattern.Way(rawValue: given["--way"] ?? "echo") else { throw CommandError("--way: must be up, down or echo") }
        self.way = way
        let pattern = given["--pattern"] ?? "even"
        switch pattern.split(separator: ":").map(String.init) {
        case ["even"]: spacing = .bursts(1)
        case ["saturation"]: spacing = .saturation
        case let parts where parts.count == 2 && parts[0] == "burst" && (1...1024).contains(Int(parts[1]) ?? 0):
            spacing = .bursts(Int(parts[1]) ?? 1)
        default: throw CommandError("--pattern: '\(pattern)' is none of even, saturation and burst:N with N from 1 to 1024")
        }
        train = try given.number("--train", 1...64, default: pattern == "saturation" ? 32 : 1)
        if given["--size"] == "opus" {
            // Octets of 20 ms of speech at about 32 kbit/s with variable rate, with RTP header and SRTP tag.
            sizes = [71, 84, 92, 103, 110, 88, 97, 121, 134, 76, 99, 108, 115, 93, 147, 82]
        } else {
            sizes = [try given.number("--size", LoadRig.stampSize...1200, default: 160)]
        }
        if train * ((sizes.max() ?? 0) + 4) > 60_000 { throw CommandError("--train times --size must be at most 60000") }
        rounds = try given.number("--rounds", 1...99, default: 7)
        duration = .milliseconds(try given.number("--milliseconds", 50...60_000, default: 500))
        json = given["--json"] != nil
        program = given["--relay-program"]
        realtime = given["--realtime"] != nil
    }

    var pattern: LoadPattern { LoadPattern(way: way, spacing: spacing, rate: rate, train: train, duration: duration) }

    var description: String {
        let spacing =
            switch spacing {
            case .saturation: "saturation, trains of \(train)"
            case .bursts(1): "\(Int(rate)) packets/s, evenly spaced"
            case .bursts(let count): "\(Int(rate)) packets/s in bursts of \(count)"
            }
        let size = sizes.count == 1 ? "\(sizes[0]) B" : "Opus-like sizes"
        return "\(way.rawValue), \(flows) flows, \(spacing), \(size), \(rounds) rounds of \(duration.milliseconds) ms each, loopback"
    }
}

/// Contestants that run, each with a world around it. Ended in `end`.
struct LoadField: ~Copyable {
    private let launcher: LoadLauncher
    private(set) var targets: [LoadTarget] = []
    var names: [String] { targets.map(\.name) }
    var rigs: Slab<LoadRig?>
    /// What was asked for and is not here, with the reason.
    private(set) var absent: [String] = []

    /// Nothing runs yet.
    init(_ plan: LoadPlan, capacity: Int) throws(CommandError) {
        launcher = try LoadLauncher(flows: plan.flows, program: plan.program)
        rigs = Slab(count: capacity) { _ in nil }
    }

    /// Starts what there is of `names` and opens its flows.
    static func start(_ plan: LoadPlan, _ names: [String]? = nil) throws -> LoadField {
        let names = names ?? plan.against
        var field = try LoadField(plan, capacity: names.count)
        if crowd_hurry(plan.realtime ? 1 : 0) == 0, plan.realtime { complain("swiftlet: --realtime is not allowed here") }
        if crowd_processors() < 2 {
            complain("swiftlet: one processor for both the generator and what it measures: only loss means something")
        }
        do {
            for name in names {
                if let reason = field.launcher.absence(of: name) {
                    field.absent.append("\(name): \(reason)")
                } else {
                    try field.add(name, plan)
                }
            }
        } catch {
            field.end()
            throw error
        }
        return field
    }

    private mutating func add(_ name: String, _ plan: LoadPlan) throws {
        let socket = try LoadRig.trunkSocket()
        let target = try launcher.start(name, peer: socket.localAddress)
        var rig = try LoadRig(target, socket, flows: plan.flows, sizes: plan.sizes, maker: launcher.maker)
        let works = rig.open()
        if works < plan.flows {
            target.end()
            absent.append("\(name): only \(works) of \(plan.flows) flows could be opened")
            return
        }
        rigs[targets.count] = consume rig
        targets.append(target)
    }

    mutating func run(_ index: Int, _ pattern: LoadPattern) -> LoadSlice {
        guard var rig = rigs[index].take() else { return LoadSlice() }
        let slice = rig.run(pattern)
        rigs[index] = consume rig
        return slice
    }

    mutating func run(_ index: Int, _ pattern: LoadPattern, among rubbish: inout Rubbish, rate: Double) -> LoadSlice {
        guard var rig = rigs[index].take() else { return LoadSlice() }
        let slice = rig.run(pattern, among: &rubbish, rate: rate)
        rigs[index] = consume rig
        return slice
    }

    /// Opens the flows of contestant `index` again.
    mutating func reopen(_ index: Int) {
        guard var rig = rigs[index].take() else { return }
        _ = rig.reopen()
        rigs[index] = consume rig
    }

    var maker: FlowMaker { launcher.maker }

    func memory(_ index: Int) -> (now: Int, peak: Int) { ProcessUsage.memory(targets[index].worker) }

    func end() {
        for target in targets { target.end() }
        launcher.end()
    }
}
