import EventLoop
import Primitives

/// Known flows over real sockets, both ways.
///
/// Everything runs in one thread, turn by turn: 64 datagrams are put into one socket, one contestant moves them, the receivers are
/// emptied. Only the contestant's own part is on the clock, which is the thread's CPU time; so neither the other processor nor a neighbour on
/// the machine is in it, but the kernel's delivery into the receiver's socket is: on loopback the sender pays for it. The contestants take
/// turns of the same run, so that what disturbs one disturbs all.
enum RelayBench {
    enum Contestant: String, CaseIterable {
        case relay = "swiftlet relay"
        case bare = "bare recvmmsg/sendmmsg"
        case plain = "recvfrom/sendto each"
    }

    private struct Tally {
        var contestant: Contestant
        var packets = 0
        /// Nanoseconds per packet of each slice of the run: the median of these is what is printed.
        var slices: [Double] = []
        var median: Double { slices.sorted()[slices.count / 2] }
    }

    private static let slices = 21

    static func run(_ plan: BenchPlan, _ directions: [BenchPlan.Direction]) throws {
        var rig = try BenchRig(plan)
        guard rig.open() else { throw CommandError("the relay did not take its clients", status: 1) }
        say(
            "\(plan.flows) known flows of \(plan.transceivers) transceiver\(plan.transceivers == 1 ? "" : "s"), \(plan.size) B, bursts of "
                + "\(BenchPlan.batch), loopback, UDP_SEGMENT \(rig.segments ? "on" : "off")")
        for direction in directions {
            report(direction, measure(direction, plan.packets, &rig))
        }
        if rig.lost > 0 { say("  \(rig.lost) datagrams did not arrive: a socket's buffer is too small, the figures are not to be trusted") }
    }

    private static func measure(_ direction: BenchPlan.Direction, _ packets: Int, _ rig: inout BenchRig) -> [Tally] {
        var tallies = Contestant.allCases.map { Tally(contestant: $0, slices: []) }
        let rounds = max(1, packets / (BenchPlan.batch * slices))
        for _ in 0..<slices {
            rig.refreshStranger()
            var time = [Interval](repeating: .zero, count: tallies.count)
            var moved = [Int](repeating: 0, count: tallies.count)
            for _ in 0..<rounds {
                for (index, contestant) in Contestant.allCases.enumerated() {
                    rig.fill(direction, contestant)
                    let before = threadProcessorTime()
                    moved[index] += rig.turn(direction, contestant)
                    time[index] = time[index] + (threadProcessorTime() - before)
                    rig.empty(direction)
                }
            }
            for index in tallies.indices where moved[index] > 0 {
                tallies[index].packets += moved[index]
                tallies[index].slices.append(Double(time[index].nanoseconds) / Double(moved[index]))
            }
        }
        return tallies
    }

    private static func report(_ direction: BenchPlan.Direction, _ tallies: [Tally]) {
        guard tallies.allSatisfy({ !$0.slices.isEmpty }) else { return say("  \(direction.rawValue): nothing was moved") }
        let bare = tallies.first { $0.contestant == .bare }?.median ?? 1
        for tally in tallies {
            let name = tally.contestant.rawValue + String(repeating: " ", count: 24 - tally.contestant.rawValue.count)
            let cost = tally.median
            let ratio = Double((100 * cost / bare).rounded()) / 100
            say("  \(direction.rawValue)  \(name) \(Int(cost.rounded())) ns of CPU per packet, \(ratio) × bare, \(tally.packets) packets")
        }
    }
}
