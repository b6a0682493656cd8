// Configuration: what an operator says becomes a validated struct, or an error that tells what to change.
//
// One table of options per program. Flags (`--name value`, `--name=value`), environment (`SWIFTLET_NAME`) and a JSON file (`--config FILE`)
// fill the same table, in this order of precedence; what nobody says has the table's default. Then the program's struct reads typed values
// out of it. `--help` is made from the table, so that it cannot lie.
//
//     OptionTable.swift         the table, and the three ways to fill it
//     OptionValues.swift        typed values, and what is refused
//     RelayOptions.swift, TransceiverOptions.swift, UpOptions.swift    the structs
//     Limits.swift              capacities; MemoryBudget.swift adds up what they cost

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
    /// Nobody has given it; the table's own value.
    case standard(String)

    public var description: String {
        switch self {
        case .flag(let name), .standard(let name): "--\(name)"
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

/// The options of one program: a table, and what its values must be.
public protocol ProgramOptions: Sendable {
    static var table: OptionTable { get }
    init(_ values: OptionValues) throws(ConfigurationError)
}

extension ProgramOptions {
    /// Reads what the operator has said; `readFile` as in `OptionTable.gather`.
    public static func parse(
        _ arguments: some Sequence<String>, environment: [String: String], readFile: (String) -> [UInt8]?
    ) throws(ConfigurationError) -> Invocation<Self> {
        let table = Self.table
        switch try table.gather(arguments, environment: environment, readFile: readFile) {
        case .help: return .help(table.help)
        case .version: return .version("\(table.program) \(swiftletVersion)")
        case .values(let values): return .run(try Self(values))
        }
    }
}

/// One for all programs of the package.
public let swiftletVersion = "0.1.0"
