// swiftlet-relay: the only part of Swiftlet on the public internet. Two processes of this one program: the keeper (Keeper.swift) owns the
// sockets and the memory of the flows and does nothing else; the worker (WorkerProcess.swift) does everything else and may die at any
// instruction. This file chooses.

import Configuration
import EventLoop
import Glibc
import Primitives

@main struct Program {
    static func main() {
        do throws(ConfigurationError) {
            // The keeper starts us as `--worker KEEPER …` with the operator's own options.
            let words = CommandLine.arguments
            guard Machine.endWithSupervisor() else { return }
            if words.count >= 3, words[1] == "--worker" {
                return try WorkerProcess.run(Array(words.dropFirst(3)), keeper: pid_t(words[2]) ?? 0)
            }
            let invocation = try RelayOptions.parse(words.dropFirst(), environment: environment()) {
                readFile($0, limit: Limits.configurationFileBytes)
            }
            switch invocation {
            case .help(let text), .version(let text): say(text)
            case .run(let options):
                exit(try Keeper.run(options, Array(words.dropFirst())))
            }
        } catch {
            log("\(error)")
            exit(2)
        }
    }
}

/// `what` failed, as words for the operator.
func failed(_ what: String, _ error: Errno) -> ConfigurationError { ConfigurationError("\(what): \(error)") }

func orFail<Value: ~Copyable>(_ what: String, _ body: () throws(Errno) -> Value) throws(ConfigurationError) -> Value {
    do throws(Errno) { return try body() } catch { throw failed(what, error) }
}
