import EventLoop
import Primitives
import Simulation

/// `swiftlet simulate`: one call in virtual time.
enum Simulate {
    static let help = """
        usage: swiftlet simulate [--seed N] [--count N] [--loss PERCENT] [--network perfect|wifi]

          --seed N         the first seed (1); the same seed gives the same run
          --count N        how many seeds, one after the other (1)
          --network NAME   perfect: 1 ms and nothing lost. wifi: 15 to 45 ms, 3 % lost in bursts, reordered, duplicated (wifi)
          --loss PERCENT   0 to 30: replaces the network's loss

        Prints what became of each call; exit status 1 when a promise was broken.
        """

    static func run(_ arguments: [String]) throws(CommandError) {
        guard let given = try Arguments(arguments, names: ["--seed", "--count", "--loss", "--network"], help: help) else { return }
        let first: UInt64 = try given.number("--seed", 0...(UInt64.max >> 1), default: 1)
        let count: UInt64 = try given.number("--count", 1...1_000_000, default: 1)
        var access: LinkProfile
        switch given["--network"] ?? "wifi" {
        case "perfect": access = .perfect
        case "wifi": access = .lossyWiFi
        case let other: throw CommandError("--network: '\(other)' is neither perfect nor wifi")
        }
        if given["--loss"] != nil {
            access.lossPPM = try given.number("--loss", 0...30, default: 0) * 10_000
            access.burstPPM = 0
        }
        var broken = 0
        for seed in first..<(first + count) {
            let report: CallReport
            do { report = try CallSimulation(CallPlan(seed: seed, access: access)).run() } catch {
                throw CommandError("seed \(seed): \(error)", status: 1)
            }
            say(describe(seed, report))
            for violation in report.violations { say("  BROKEN: \(violation)") }
            broken += report.violations.isEmpty ? 0 : 1
        }
        if broken > 0 { throw CommandError("\(broken) of \(count) runs broke a promise", status: 1) }
    }

    private static func describe(_ seed: UInt64, _ report: CallReport) -> String {
        let connected = report.connectedAfter.map { "connected after \($0.milliseconds) ms" } ?? "never connected"
        let network = report.network
        return "seed \(seed): \(connected), \(report.framesHeard) of \(report.framesSent) frames heard; datagrams \(network.sent), "
            + "lost \(network.lost), duplicated \(network.duplicated), overtook \(network.overtook); "
            + "steps \(report.steps), trace \(hex([UInt8](withUnsafeBytes(of: report.fingerprint.bigEndian) { Array($0) })))"
    }
}
