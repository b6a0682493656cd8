import Primitives

/// The texts that were given, and the typed values that they must be.
public struct OptionValues: Sendable {
    private struct Given: Sendable {
        var text: String
        var source: OptionSource
    }
    private let table: OptionTable
    private var given: [String: [Given]] = [:]

    init(_ table: OptionTable) { self.table = table }

    /// Whether a flag, the environment or the file has said it, or the table has a text for it.
    func isGiven(_ name: String) -> Bool { given[name] != nil }

    mutating func add(_ name: String, _ text: String, from source: OptionSource) {
        given[name, default: []].append(Given(text: text, source: source))
    }

    var configurationFile: (path: String, source: OptionSource)? { given["config"]?.first.map { ($0.text, $0.source) } }

    private func all(_ name: String) -> [Given] {
        assert(table.definitions.contains { $0.name == name }, "\(name) is not in the table")
        return given[name] ?? []
    }

    private func required(_ name: String) throws(ConfigurationError) -> Given {
        guard let value = all(name).first else { throw missing(name) }
        return value
    }

    private func missing(_ name: String) -> ConfigurationError {
        let argument = table.definitions.first { $0.name == name }?.argument ?? ""
        return ConfigurationError("--\(name) \(argument) is missing; it has no default")
    }

    private func isLeftToProgram(_ name: String) -> Bool {
        guard case .decided? = table.definitions.first(where: { $0.name == name })?.fallback else { return false }
        return true
    }

    private func refused(_ value: Given, _ allowed: String) -> ConfigurationError {
        ConfigurationError("\(value.source): '\(value.text)' is not allowed; it must be \(allowed)")
    }
}

// MARK: - Texts and numbers

extension OptionValues {
    public func text(_ name: String) throws(ConfigurationError) -> String {
        let value = try required(name)
        guard !value.text.isEmpty else { throw refused(value, "a text that is not empty") }
        return value.text
    }

    /// The same, or nil where nobody has said it.
    public func optionalText(_ name: String) throws(ConfigurationError) -> String? { all(name).isEmpty ? nil : try text(name) }

    /// `yes` or `no`.
    public func isSet(_ name: String) throws(ConfigurationError) -> Bool {
        let value = try required(name)
        switch value.text {
        case "yes", "true", "1": return true
        case "no", "false", "0": return false
        default: throw refused(value, "yes or no")
        }
    }

    /// A whole number in `range`.
    public func number<Value: FixedWidthInteger>(_ name: String, in range: ClosedRange<Value>) throws(ConfigurationError) -> Value {
        try number(required(name), in: range)
    }

    /// A whole number in `range`, or nil where the program decides.
    public func optionalNumber<Value: FixedWidthInteger>(_ name: String, in range: ClosedRange<Value>) throws(ConfigurationError) -> Value?
    {
        guard let value = all(name).first else { return nil }
        return try number(value, in: range)
    }

    private func number<Value: FixedWidthInteger>(_ value: Given, in range: ClosedRange<Value>) throws(ConfigurationError) -> Value {
        guard let number = Value(value.text), range.contains(number) else {
            throw refused(value, "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// One of the cases of an enum of texts.
    public func choice<Choice: RawRepresentable & CaseIterable>(_ name: String, of type: Choice.Type = Choice.self)
        throws(ConfigurationError) -> Choice
    where Choice.RawValue == String {
        let value = try required(name)
        guard let choice = Choice(rawValue: value.text) else {
            throw refused(value, Choice.allCases.map(\.rawValue).joined(separator: " or "))
        }
        return choice
    }
}

// MARK: - Addresses

extension OptionValues {
    /// An address to bind. Port 0 lets the kernel choose.
    public func address(_ name: String) throws(ConfigurationError) -> SocketAddress { try address(required(name)) }

    public func optionalAddress(_ name: String) throws(ConfigurationError) -> SocketAddress? {
        guard let value = all(name).first else { return nil }
        return try address(value)
    }

    /// All values of a repeatable option: addresses to bind, each once. Empty only where the program decides.
    public func addresses(_ name: String) throws(ConfigurationError) -> [SocketAddress] {
        let values = all(name)
        guard !values.isEmpty || isLeftToProgram(name) else { throw missing(name) }
        guard values.count <= Limits.addresses else {
            throw ConfigurationError("\(values[0].source) is given \(values.count) times; \(Limits.addresses) are allowed")
        }
        var addresses: [SocketAddress] = []
        for value in values {
            let address = try address(value)
            guard address.port == 0 || !addresses.contains(address) else { throw refused(value, "given once") }
            addresses.append(address)
        }
        return addresses
    }

    /// What clients are told: `addresses` that somebody can send to.
    public func reachableAddresses(_ name: String) throws(ConfigurationError) -> [SocketAddress] {
        let addresses = try addresses(name)
        for (address, value) in zip(addresses, all(name)) {
            guard !address.ip.isAny, address.port != 0 else {
                throw refused(value, "an address that clients can send to: no wildcard, no multicast, no port 0")
            }
        }
        return addresses
    }

    private func address(_ value: Given) throws(ConfigurationError) -> SocketAddress {
        // The one name that needs no resolver.
        let text = value.text.hasPrefix("localhost:") ? "127.0.0.1:" + value.text.dropFirst(10) : value.text
        guard let address = SocketAddress(text), !address.ip.isMulticast else {
            throw refused(value, "an IP address and a port, such as 192.0.2.1:3478 or [2001:db8::1]:3478; port 0 lets the kernel choose")
        }
        return address
    }

    /// All values of a repeatable option: address prefixes, or single addresses.
    public func prefixes(_ name: String) throws(ConfigurationError) -> [IPPrefix] {
        var prefixes: [IPPrefix] = []
        for value in all(name) {
            guard let prefix = IPPrefix(value.text) else { throw refused(value, "an address prefix, such as 10.0.0.0/8 or 2001:db8::/32") }
            prefixes.append(prefix)
        }
        guard prefixes.count <= Limits.prefixes else {
            throw ConfigurationError("--\(name) is given \(prefixes.count) times; \(Limits.prefixes) are allowed")
        }
        return prefixes
    }

    /// A field name of HTTP (RFC 9110 §5.1).
    public func headerName(_ name: String) throws(ConfigurationError) -> String {
        let value = try required(name)
        let isName = value.text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
            default: byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_")
            }
        }
        guard isName, (1...64).contains(value.text.utf8.count) else {
            throw refused(value, "the name of a header field, such as CF-IPCountry")
        }
        return value.text
    }

    /// `redis://…`; nil where nobody has said it. What is refused is not repeated: it may hold a password.
    public func redis(_ name: String) throws(ConfigurationError) -> RedisAddress? {
        guard let value = all(name).first else { return nil }
        return try redis(value)
    }

    private func redis(_ value: Given) throws(ConfigurationError) -> RedisAddress {
        do throws(RedisAddress.Refusal) { return try RedisAddress(parsing: value.text) } catch {
            throw ConfigurationError(
                "\(value.source): must be redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], such as redis://:p%40ss@10.0.0.9:6379/0, or "
                    + "rediss://… for TLS, with special characters of USER and PASSWORD percent-encoded")
        }
    }

    /// `redis://…` of an option that may be something else too; nil when it is.
    func redisAmongOthers(_ name: String) throws(ConfigurationError) -> RedisAddress? {
        guard let value = all(name).first, value.text.hasPrefix("redis") else { return nil }
        return try redis(value)
    }

    /// `A.B.C.D` or a number; nil where the program decides.
    public func transceiverID(_ name: String) throws(ConfigurationError) -> UInt32? {
        guard let value = all(name).first else { return nil }
        if let number = UInt32(value.text) { return number }
        if let ip = IPAddress(value.text), ip.isV4 { return ip.v4Bits }
        throw refused(value, "an IPv4 address, or a whole number from 0 to 4294967295")
    }

    /// `direct:PREFIX:PORT`, `table:FILE` or `redis://…`.
    public func transceivers(_ name: String) throws(ConfigurationError) -> TransceiverSource {
        let value = try required(name)
        let allowed = "direct:PREFIX:PORT with an IPv4 prefix, such as direct:10.0.0.0/8:4000, or table:FILE, or redis://HOST"
        if value.text.hasPrefix("redis") { return .registry(try redis(value)) }
        if value.text.hasPrefix("table:"), value.text.utf8.count > 6 { return .table(path: String(value.text.dropFirst(6))) }
        guard value.text.hasPrefix("direct:") else { throw refused(value, allowed) }
        let rest = value.text.dropFirst(7)
        guard let colon = rest.lastIndex(of: ":"), let prefix = IPPrefix(rest[..<colon]), prefix.base.isV4,
            let port = UInt16(rest[rest.index(after: colon)...]), port != 0
        else { throw refused(value, allowed) }
        return .direct(prefix, port: port)
    }
}
