// Configuration: what an operator says becomes a validated struct, or an error that tells what to change.
//
// One table of options per program. Flags (`--name value`, `--name=value`), environment (`SWIFTLET_NAME`) and a JSON file (`--config FILE`) fill
// the same table, in this order of precedence; then the program's struct reads typed values out of it. `--help` is made from the table, so
// that it cannot lie.
//
//     OptionTable.swift         the table, and the three ways to fill it
//     OptionValues.swift        typed values, and what is refused
//     RelayOptions.swift, TransceiverOptions.swift    the structs

import Primitives

/// What an operator has given that cannot be used.
public struct ConfigurationError: Error, Sendable, Equatable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// Where a value was found.
public enum OptionSource: Sendable, Equatable, CustomStringConvertible {
    case flag(String)
    case environment(String)
    case file(path: String, key: String)

    public var description: String {
        switch self {
        case .flag(let name): "--\(name)"
        case .environment(let variable): variable
        case .file(let path, let key): "\(path): \"\(key)\""
        }
    }
}

/// What a command line asks for.
public enum Invocation<Options: Sendable>: Sendable {
    case run(Options)
    /// Print it and end.
    case help(String)
    case version(String)
}

/// One for all programs of the package.
public let swiftletVersion = "0.1.0"
