// swiftlet: the operator's tool. Each subcommand is one file; this one finds it.

import EventLoop
import Glibc
import Primitives

@main struct Program {
    /// One for all programs of the package.
    static let version = "0.1.0"

    static let help = """
        swiftlet: the operator's tool of a voice relay and its transceivers

        usage: swiftlet COMMAND …

          up              relay and transceiver on this machine, under one supervisor
          keys generate   write a new key file
          hint mint       make a routing hint: ufrag and pwd
          hint read       say what a ufrag means
          top             the dashboards' numbers in this terminal
          simulate        one call in virtual time, from a seed
          bench           what a packet costs
          --version       the version

        `swiftlet COMMAND --help` tells more.
        """

    static func main() {
        var arguments = Array(CommandLine.arguments.dropFirst())
        let command = arguments.isEmpty ? "--help" : arguments.removeFirst()
        do throws(CommandError) {
            switch command {
            case "--help", "-h", "help": say(help)
            case "--version": say("swiftlet \(version)")
            case "up": try Up.run(arguments)
            case "keys": try Keys.run(arguments)
            case "hint": try Hint.run(arguments)
            case "top": try Top.run(arguments)
            case "simulate": try Simulate.run(arguments)
            case "bench": try Bench.run(arguments)
            default: throw CommandError("there is no command '\(command)'; `swiftlet --help` lists them")
            }
        } catch {
            complain("swiftlet: \(error.message)")
            exit(error.status)
        }
    }
}

/// Why a command ends without having done its work.
struct CommandError: Error {
    var message: String
    /// 2: wrong usage; 1: everything else.
    var status: Int32
    init(_ message: String, status: Int32 = 2) {
        self.message = message
        self.status = status
    }
}
