import Primitives

/// One option of a program.
public struct OptionDefinition: Sendable {
    /// Without dashes: `key-file`.
    public let name: String
    /// What the value looks like, for `--help`: `HOST:PORT`.
    public let argument: String
    /// One line of help; says the default.
    public let help: String
    /// May be given several times; in the environment, separated by commas; in a file, as an array.
    public let isRepeatable: Bool

    public init(_ name: String, _ argument: String, _ help: String, isRepeatable: Bool = false) {
        self.name = name
        self.argument = argument
        self.help = help
        self.isRepeatable = isRepeatable
    }

    /// `SWIFTLET_KEY_FILE`
    public var variable: String { "SWIFTLET_" + String(name.uppercased().map { $0 == "-" ? "_" : $0 }) }
}

/// All options of one program.
public struct OptionTable: Sendable {
    public let program: String
    public let summary: String
    public let definitions: [OptionDefinition]

    /// `--config`, `--help` and `--version` are everybody's.
    public init(program: String, summary: String, _ definitions: [OptionDefinition]) {
        self.program = program
        self.summary = summary
        self.definitions = definitions + [OptionDefinition("config", "FILE", "JSON object whose keys are the names above")]
    }

    public var help: String {
        let width = definitions.map { $0.name.count + $0.argument.count }.max() ?? 0
        var text = "\(program): \(summary)\n\nusage: \(program) [options]\n\n"
        for option in definitions {
            let left = "--\(option.name) \(option.argument)"
            text += "  " + left + String(repeating: " ", count: width + 5 - left.count) + option.help
            text += (option.isRepeatable ? " (repeatable)" : "") + "\n"
        }
        text += "  --help, --version\n\n"
        text += "Every option can also come from the environment (--key-file is SWIFTLET_KEY_FILE) or from the file of --config.\n"
        text += "A flag wins over the environment, the environment over the file."
        return text
    }
}

/// What a command line comes to before any value is looked at.
public enum Gathered: Sendable {
    case help, version
    case values(OptionValues)
}

extension OptionTable {
    /// Fills the table. `readFile` gets the path of `--config`; nil means that it cannot be read.
    public func gather(
        _ arguments: some Sequence<String>, environment: [String: String], readFile: (String) -> [UInt8]?
    ) throws(ConfigurationError) -> Gathered {
        var values = OptionValues(self)
        if let asked = try readFlags(Array(arguments), &values) { return asked }
        for option in definitions where !values.has(option.name) {
            guard let text = environment[option.variable] else { continue }
            let parts = option.isRepeatable ? text.split(separator: ",").map(String.init) : [text]
            for part in parts { values.add(option.name, part, from: .environment(option.variable)) }
        }
        if let path = values.text("config") {
            guard let bytes = readFile(path) else { throw ConfigurationError("--config: the file \(path) cannot be read") }
            try readObject(bytes, path, &values)
        }
        return .values(values)
    }

    private func readFlags(_ arguments: [String], _ values: inout OptionValues) throws(ConfigurationError) -> Gathered? {
        var index = 0
        while index < arguments.count {
            let argument = arguments[index]
            if argument == "--help" || argument == "-h" { return .help }
            if argument == "--version" { return .version }
            guard argument.hasPrefix("--") else { throw ConfigurationError("'\(argument)' is not an option; options begin with --") }
            let parts = argument.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let option = try definition(parts[0], given: "--" + parts[0])
            guard option.isRepeatable || !values.has(option.name) else { throw ConfigurationError("--\(option.name) is given twice") }
            if parts.count == 2 {
                values.add(option.name, parts[1], from: .flag(option.name))
            } else {
                index += 1
                guard index < arguments.count else { throw ConfigurationError("--\(option.name) needs a value: \(option.argument)") }
                values.add(option.name, arguments[index], from: .flag(option.name))
            }
            index += 1
        }
        return nil
    }

    private func readObject(_ bytes: [UInt8], _ path: String, _ values: inout OptionValues) throws(ConfigurationError) {
        let root: JSONValue
        do { root = try JSONValue(parsing: bytes.span.bytes) } catch { throw ConfigurationError("\(path) is not JSON: \(error)") }
        guard case .object(let object) = root else { throw ConfigurationError("\(path): the outermost value must be an object") }
        for member in object.members {
            let option = try definition(member.name, given: "\(path): \"\(member.name)\"")
            // Flags and environment win; what they leave out comes from here.
            guard !values.has(option.name) else { continue }
            let source = OptionSource.file(path: path, key: option.name)
            let items = option.isRepeatable ? member.value.array ?? [member.value] : [member.value]
            for item in items {
                guard let text = Self.text(of: item) else {
                    throw ConfigurationError("\(source): must be text or a number\(option.isRepeatable ? ", or an array of them" : "")")
                }
                values.add(option.name, text, from: source)
            }
        }
    }

    private static func text(of value: JSONValue) -> String? {
        if let text = value.string { return text }
        if let number = value.integer { return String(number) }
        return nil
    }

    private func definition(_ name: String, given: String) throws(ConfigurationError) -> OptionDefinition {
        if let found = definitions.first(where: { $0.name == name }) { return found }
        let nearest = definitions.min { distance($0.name, name) < distance($1.name, name) }
        let hint = nearest.flatMap { distance($0.name, name) <= 3 ? "; did you mean \($0.name)?" : nil } ?? "; --help lists the options"
        throw ConfigurationError("\(given) is not an option of \(program)\(hint)")
    }
}

/// How many letters apart two words are (Levenshtein).
private func distance(_ a: String, _ b: String) -> Int {
    let a = Array(a.utf8)
    let b = Array(b.utf8)
    guard a.count < 40, b.count < 40 else { return 40 }
    var row = Array(0...b.count)
    for i in 0..<a.count {
        var diagonal = row[0]
        row[0] = i + 1
        for j in 0..<b.count {
            let substituted = diagonal + (a[i] == b[j] ? 0 : 1)
            diagonal = row[j + 1]
            row[j + 1] = min(substituted, row[j] + 1, diagonal + 1)
        }
    }
    return row[b.count]
}
