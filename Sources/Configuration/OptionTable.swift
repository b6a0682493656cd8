import Primitives

/// One option of a program.
public struct OptionDefinition: Sendable {
    /// What holds when nobody gives the option.
    public enum Default: Sendable, Equatable {
        /// It must be given.
        case none
        /// This text, read as if it had been given.
        case text(String)
        /// The program decides; in words, for `--help`.
        case decided(String)
    }

    /// Without dashes: `key-file`.
    public let name: String
    /// What the value looks like, for `--help`: `HOST:PORT`.
    public let argument: String
    /// One line of help, without the default.
    public let help: String
    public let fallback: Default
    /// May be given several times; in the environment, separated by commas; in a file, as an array.
    public let isRepeatable: Bool
    /// Given without a value it is `yes`; `no` is the default.
    public var isSwitch = false

    public init(_ name: String, _ argument: String, _ help: String, default fallback: Default = .none, isRepeatable: Bool = false) {
        self.name = name
        self.argument = argument
        self.help = help
        self.fallback = fallback
        self.isRepeatable = isRepeatable
    }

    /// Something that is so or not.
    public static func toggle(_ name: String, _ help: String) -> OptionDefinition {
        var option = OptionDefinition(name, "", help, default: .text("no"))
        option.isSwitch = true
        return option
    }

    /// `SWIFTLET_KEY_FILE`
    public var variable: String { "SWIFTLET_" + String(name.uppercased().map { $0 == "-" ? "_" : $0 }) }

    /// `default 0, repeatable`
    fileprivate var remark: String {
        let words: String =
            switch fallback {
            case .none: "required"
            case .text(let text): "default \(text)"
            case .decided(let words): "default: \(words)"
            }
        return words + (isRepeatable ? "; repeatable" : "")
    }
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
        self.definitions =
            definitions + [OptionDefinition("config", "FILE", "JSON object; keys are names above", default: .decided("none"))]
        assert(Set(definitions.map(\.name)).count == definitions.count, "an option is in the table twice")
    }

    public var help: String {
        let width = definitions.map { $0.name.count + $0.argument.count }.max() ?? 0
        var text = "\(program): \(summary)\n\nusage: \(program) [options]\n\n"
        for option in definitions {
            let left = option.isSwitch ? "--\(option.name)" : "--\(option.name) \(option.argument)"
            text += "  " + left + String(repeating: " ", count: width + 5 - left.count) + "\(option.help) (\(option.remark))\n"
        }
        text += "  --help, --version\n\n"
        text += "HOST is an IPv4 address, or an IPv6 address in brackets.\n"
        text +=
            "Every option can also come from the environment (--key-file is SWIFTLET_KEY_FILE; several values are separated by commas)\n"
        text +=
            "or from the file of --config (several values are an array). A flag wins over the environment, the environment over the file."
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
        for option in definitions where !values.isGiven(option.name) {
            // An empty variable is as good as none: that is how compose files and unit files leave one out.
            guard let text = environment[option.variable], !text.isEmpty else { continue }
            let parts = option.isRepeatable ? text.split(separator: ",").map { trimmed($0) } : [text]
            for part in parts { values.add(option.name, part, from: .environment(option.variable)) }
        }
        if let (path, source) = values.configurationFile {
            guard let bytes = readFile(path) else { throw ConfigurationError("\(source): the file \(path) cannot be read") }
            try readObject(bytes, path, &values)
        }
        for option in definitions where !values.isGiven(option.name) {
            if case .text(let text) = option.fallback { values.add(option.name, text, from: .standard(option.name)) }
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
            let option = try definition(parts[0], given: "--" + parts[0], suggestionPrefix: "--")
            guard option.isRepeatable || !values.isGiven(option.name) else { throw ConfigurationError("--\(option.name) is given twice") }
            if parts.count == 2 {
                values.add(option.name, parts[1], from: .flag(option.name))
            } else if option.isSwitch {
                values.add(option.name, "yes", from: .flag(option.name))
            } else {
                index += 1
                guard index < arguments.count else { throw ConfigurationError("--\(option.name) needs a value: \(option.argument)") }
                values.add(option.name, arguments[index], from: .flag(option.name))
            }
            index += 1
        }
        return nil
    }

    private static func words(_ error: JSONError, _ bytes: [UInt8]) -> String {
        switch error {
        case .tooLarge(let count): "\(count) bytes are too many"
        case .tooDeep(let place): "line \(line(place, bytes)): nested too deep"
        case .tooManyValues(let place): "line \(line(place, bytes)): too many values"
        case .truncated(let place): "line \(line(place, bytes)): it ends too early"
        case .unexpected(let place): "line \(line(place, bytes)): something else must stand here"
        case .badString(let place): "line \(line(place, bytes)): no good string"
        case .badNumber(let place): "line \(line(place, bytes)): no good number"
        case .duplicateMember(let place): "line \(line(place, bytes)): a name that was there before"
        }
    }

    private static func line(_ place: Int, _ bytes: [UInt8]) -> Int { 1 + bytes.prefix(place).count { $0 == 0x0A } }

    private func readObject(_ bytes: [UInt8], _ path: String, _ values: inout OptionValues) throws(ConfigurationError) {
        let root: JSONValue
        do throws(JSONError) { root = try JSONValue(parsing: bytes.span.bytes) } catch {
            throw ConfigurationError("\(path) is not JSON: \(Self.words(error, bytes))")
        }
        guard case .object(let object) = root else { throw ConfigurationError("\(path): the outermost value must be an object") }
        for member in object.members {
            let option = try definition(member.name, given: "\(path): \"\(member.name)\"", suggestionPrefix: "")
            guard option.name != "config" else { throw ConfigurationError("\(path): \"config\" cannot stand in a file") }
            let source = OptionSource.file(path: path, key: option.name)
            let items = option.isRepeatable ? member.value.array ?? [member.value] : [member.value]
            var texts: [String] = []
            for item in items {
                guard let text = Self.text(of: item, option) else {
                    throw ConfigurationError(
                        "\(source): must be \(option.isSwitch ? "true or false" : "text or a number")\(option.isRepeatable ? ", or an array of them" : "")"
                    )
                }
                texts.append(text)
            }
            // Flags and environment win; what they leave out comes from here.
            guard !values.isGiven(option.name) else { continue }
            for text in texts { values.add(option.name, text, from: source) }
        }
    }

    private static func text(of value: JSONValue, _ option: OptionDefinition) -> String? {
        if option.isSwitch, let flag = value.bool { return flag ? "yes" : "no" }
        return value.string ?? (value.double != nil ? value.text : nil)
    }

    private func definition(_ name: String, given: String, suggestionPrefix: String) throws(ConfigurationError) -> OptionDefinition {
        if let found = definitions.first(where: { $0.name == name }) { return found }
        let nearest = definitions.min { distance($0.name, name) < distance($1.name, name) }
        let hint = nearest.flatMap { distance($0.name, name) <= 3 ? "; did you mean \(suggestionPrefix)\($0.name)?" : nil }
        throw ConfigurationError("\(given) is not an option of \(program)\(hint ?? "; --help lists the options")")
    }
}

private func trimmed(_ text: Substring) -> String {
    var text = text
    while text.first == " " { text.removeFirst() }
    while text.last == " " { text.removeLast() }
    return String(text)
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
