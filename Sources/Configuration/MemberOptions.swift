import Primitives

/// Where a transceiver learns of the others.
public enum MembersSource: Sendable, Equatable {
    /// A file that somebody keeps.
    case file(path: String)
    /// Transceivers write themselves there, this one too.
    case registry(RedisAddress)
    /// No list: the number is the IPv4 address, which must lie inside the prefix, and signaling has the same port everywhere.
    case direct(IPPrefix, port: UInt16)
}

/// What becomes of a request about a call that lives elsewhere.
public enum OwnerChoice: String, CaseIterable, Sendable {
    /// It is sent on, and its answer comes back.
    case forward
    /// The client is sent there.
    case redirect
}

extension OptionValues {
    func members(_ name: String) throws(ConfigurationError) -> MembersSource? {
        guard let text = try optionalText(name) else { return nil }
        if let address = try redisAmongOthers(name) { return .registry(address) }
        if text.hasPrefix("file:"), text.utf8.count > 5 { return .file(path: String(text.dropFirst(5))) }
        let rest = text.dropFirst(7)
        guard text.hasPrefix("direct:"), let colon = rest.lastIndex(of: ":"), let prefix = IPPrefix(rest[..<colon]), prefix.base.isV4,
            let port = UInt16(rest[rest.index(after: colon)...]), port != 0
        else {
            throw ConfigurationError(
                "--\(name): '\(text)' is not allowed; it must be file:PATH, redis://HOST, or direct:PREFIX:PORT with an IPv4 prefix, such "
                    + "as direct:10.0.0.0/8:8080")
        }
        return .direct(prefix, port: port)
    }
}

extension OptionDefinition {
    static let members = OptionDefinition(
        "members", "SOURCE", "other transceivers: redis://… (registers this one too), file:PATH, or direct:PREFIX:PORT",
        default: .decided("none"))
    static let owner = OptionDefinition(
        "owner", "HOW", "requests about calls that live elsewhere: forward or redirect", default: .text("forward"))
}
