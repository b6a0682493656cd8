import EventLoop
import Primitives

/// `swiftlet bench`: what a packet costs.
enum Bench {
    static let help = """
        usage: swiftlet bench relay [--packets N] [--flows N] [--size BYTES]
               swiftlet bench core [--packets N] [--flows N] [--size BYTES]

        relay  known flows from the public side to the trunk over loopback sockets, beside a bare recvmmsg/sendmmsg loop and beside one
               recvfrom and one sendto per packet, in one thread, turn by turn: CPU time per packet of each
        core   the relay's core alone, without sockets: to be run under valgrind, as Perf/bench.sh does

          --packets N    64…100000000 (1000000)
          --flows N      1…20000 client addresses; relay: 1…512 (256)
          --size BYTES   20…1200 of payload (160)
        """

    static func run(_ arguments: [String]) throws(CommandError) {
        var rest = arguments
        let verb = rest.isEmpty ? "--help" : rest.removeFirst()
        guard verb == "relay" || verb == "core" else {
            if verb == "--help" || verb == "-h" { return say(help) }
            throw CommandError("there is no 'bench \(verb)'; there are 'bench relay' and 'bench core'")
        }
        guard let given = try Arguments(rest, names: ["--packets", "--flows", "--size"], help: help) else { return }
        let packets = try given.number("--packets", 64...100_000_000, default: 1_000_000)
        let flows = try given.number("--flows", 1...(verb == "relay" ? 512 : 20_000), default: 256)
        let size = try given.number("--size", 20...1200, default: 160)
        if verb == "core" {
            var bench = CoreBench(flows: flows, size: size)
            bench.run(packets: packets)
            say("core: \(bench.forwarded) packets forwarded in \(bench.trains) trains")
        } else {
            do { try RelayBench.run(packets: packets, flows: flows, size: size) } catch { throw CommandError("bench: \(error)", status: 1) }
        }
    }
}
