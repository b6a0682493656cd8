import EventLoop

/// The arguments of a small subcommand: `--name value`, `--name=value`, each once, and nothing else.
struct Arguments {
    private var values: [String: String] = [:]

    /// - Parameter help: what `--help` prints; nil is returned after it was asked for.
    init?(_ arguments: [String], names: [String], help: String) throws(CommandError) {
        var index = 0
        while index < arguments.count {
            let argument = arguments[index]
            if argument == "--help" || argument == "-h" {
                say(help)
                return nil
            }
            let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts[0].hasPrefix("--"), names.contains(parts[0]) else {
                throw CommandError("\(argument) is not known here; allowed are \(names.joined(separator: ", "))")
            }
            guard values[parts[0]] == nil else { throw CommandError("\(parts[0]) is given twice") }
            if parts.count == 2 {
                values[parts[0]] = parts[1]
            } else {
                index += 1
                guard index < arguments.count else { throw CommandError("\(argument) needs a value") }
                values[parts[0]] = arguments[index]
            }
            index += 1
        }
    }

    subscript(name: String) -> String? { values[name] }

    func required(_ name: String) throws(CommandError) -> String {
        guard let value = values[name] else { throw CommandError("\(name) is missing") }
        return value
    }

    /// A number in `range`.
    func number<Value: FixedWidthInteger>(_ name: String, _ range: ClosedRange<Value>, default fallback: Value?) throws(CommandError)
        -> Value
    {
        guard let text = values[name] else {
            guard let fallback else { throw CommandError("\(name) is missing") }
            return fallback
        }
        guard let value = Value(text), range.contains(value) else {
            throw CommandError("\(name): '\(text)' is not a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }
}
