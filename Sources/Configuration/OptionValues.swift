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

    func has(_ name: String) -> Bool { given[name] != nil }
    mutating func add(_ name: String, _ text: String, from source: OptionSource) {
        given[name, default: []].append(Given(text: text, source: source))
    }

    private func first(_ name: String) -> Given? {
        assert(table.definitions.contains { $0.name == name }, "\(name) is not in the table")
        return given[name]?.first
    }

    private func missing(_ name: String) -> ConfigurationError {
        let argument = table.definitions.first { $0.name == name }?.argument ?? ""
        return ConfigurationError("--\(name) \(argument) is missing; it has no default")
    }

    private func refused(_ value: Given, _ allowed: String) -> ConfigurationError {
        ConfigurationError("\(value.source): '\(value.text)' is not allowed; it must be \(allowed)")
    }
}

extension OptionValues {
    public func text(_ name: String) -> String? { first(name)?.text }

    public func requiredText(_ name: String) throws(ConfigurationError) -> String {
        guard let value = first(name), !value.text.isEmpty else { throw missing(name) }
        return value.text
    }

    /// A whole number in `range`; `fallback` when it is not given.
    public func number<Value: FixedWidthInteger>(_ name: String, in range: ClosedRange<Value>, default fallback: Value)
        throws(ConfigurationError)
        -> Value
    { try number(name, in: range) ?? fallback }

    public func number<Value: FixedWidthInteger>(_ name: String, in range: ClosedRange<Value>) throws(ConfigurationError) -> Value? {
        guard let value = first(name) else { return nil }
        guard let number = Value(value.text), range.contains(number) else {
            throw refused(value, "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// One of the cases of an enum of texts.
    public func choice<Choice: RawRepresentable & CaseIterable>(_ name: String, default fallback: Choice) throws(ConfigurationError)
        -> Choice
    where Choice.RawValue == String {
        guard let value = first(name) else { return fallback }
        guard let choice = Choice(rawValue: value.text) else {
            throw refused(value, Choice.allCases.map(\.rawValue).joined(separator: " or "))
        }
        return choice
    }

    public func address(_ name: String) throws(ConfigurationError) -> SocketAddress? {
        guard let value = first(name) else { return nil }
        return try address(value)
    }

    public func requiredAddress(_ name: String) throws(ConfigurationError) -> SocketAddress {
        guard let address = try address(name) else { throw missing(name) }
        return address
    }

    /// All values of a repeatable option, at least one and at most `limit`.
    public func requiredAddresses(_ name: String, atMost limit: Int) throws(ConfigurationError) -> [SocketAddress] {
        guard let all = given[name], !all.isEmpty else { throw missing(name) }
        guard all.count <= limit else { throw ConfigurationError("--\(name) is given \(all.count) times; \(limit) are allowed") }
        var addresses: [SocketAddress] = []
        for value in all { addresses.append(try address(value)) }
        return addresses
    }

    private func address(_ value: Given) throws(ConfigurationError) -> SocketAddress {
        // The one name that needs no resolver.
        let text = value.text.hasPrefix("localhost:") ? "127.0.0.1:" + value.text.dropFirst(10) : value.text
        guard let address = SocketAddress(text) else {
            throw refused(value, "an IP address and a port, such as 192.0.2.1:3478 or [2001:db8::1]:3478; port 0 lets the kernel choose")
        }
        return address
    }

    /// What clients are told: an address that somebody can send to.
    public func reachableAddresses(_ name: String, atMost limit: Int) throws(ConfigurationError) -> [SocketAddress] {
        let addresses = try requiredAddresses(name, atMost: limit)
        for (address, value) in zip(addresses, given[name] ?? []) {
            guard !address.ip.isAny, !address.ip.isMulticast, address.port != 0 else {
                throw refused(value, "an address that clients can send to: no wildcard, no multicast, no port 0")
            }
        }
        return addresses
    }

    /// `A.B.C.D` or a number.
    public func transceiverID(_ name: String) throws(ConfigurationError) -> UInt32? {
        guard let value = first(name) else { return nil }
        if let number = UInt32(value.text) { return number }
        if let ip = IPAddress(value.text), ip.isV4 { return ip.v4Bits }
        throw refused(value, "an IPv4 address, or a whole number from 0 to 4294967295")
    }
}
