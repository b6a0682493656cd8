import Primitives

/// Where a relay finds transceivers.
public enum TransceiverSource: Sendable, Equatable {
    /// Every IPv4 address inside the prefix, at this port: `PREFIX:PORT`.
    case direct(String)
    /// Lines of `ID ADDRESS:PORT`, read again when the file changes.
    case table(path: String)
}

/// How datagrams are moved.
public enum IOChoice: String, CaseIterable, Sendable { case epoll }

/// Everything that an operator can say to `swiftlet-relay`.
public struct RelayOptions: Sendable {
    public var listen: [SocketAddress]
    public var trunk: SocketAddress
    public var keyFile: String
    public var cluster: UInt16
    public var relayID: UInt16
    /// nil: one per processor.
    public var workers: Int?
    public var transceivers: TransceiverSource
    public var metrics: SocketAddress?
    public var io: IOChoice
    public var trunkMTU: Int
    /// Flows of the whole relay; each worker has its share.
    public var flows: Int

    static let table = OptionTable(
        program: "swiftlet-relay", summary: "the public UDP port in front of the transceivers",
        [
            OptionDefinition("listen", "HOST:PORT", "public UDP address; [::]:3478 takes IPv4 too", isRepeatable: true),
            OptionDefinition("trunk", "HOST:PORT", "internal UDP address, towards transceivers"),
            OptionDefinition("key-file", "FILE", "written by `swiftlet keys generate`"),
            OptionDefinition(
                "transceivers", "WHERE", "direct:PREFIX:PORT (hints carry IPv4 addresses) or table:FILE (ID ADDRESS:PORT lines)"),
            OptionDefinition("cluster", "N", "0…65535, as in the hints (0)"),
            OptionDefinition("relay-id", "N", "0…65535, unique among relays (0)"),
            OptionDefinition("workers", "N", "1…64 threads (one per processor)"),
            OptionDefinition("flows", "N", "1024…16777216 client addresses at most (262144)"),
            OptionDefinition("metrics", "HOST:PORT", "HTTP: /metrics, /healthz, /readyz (off)"),
            OptionDefinition("io", "ENGINE", "how datagrams are moved: epoll (epoll)"),
            OptionDefinition("trunk-mtu", "BYTES", "256…9000: the longest trunk frame (1400)"),
        ])

    init(_ values: OptionValues) throws(ConfigurationError) {
        listen = try values.requiredAddresses("listen", atMost: 8)
        trunk = try values.requiredAddress("trunk")
        guard !trunk.ip.isAny else {
            throw ConfigurationError("--trunk: \(trunk) is every address; it must be the internal one, which transceivers answer to")
        }
        keyFile = try values.requiredText("key-file")
        let source = try values.requiredText("transceivers")
        if source.hasPrefix("direct:") {
            transceivers = .direct(String(source.dropFirst(7)))
        } else if source.hasPrefix("table:") {
            transceivers = .table(path: String(source.dropFirst(6)))
        } else {
            throw ConfigurationError("--transceivers: '\(source)' is not allowed; it must be direct:PREFIX:PORT or table:FILE")
        }
        cluster = try values.number("cluster", in: 0...UInt16.max, default: 0)
        relayID = try values.number("relay-id", in: 0...UInt16.max, default: 0)
        workers = try values.number("workers", in: 1...64)
        flows = try values.number("flows", in: 1024...16_777_216, default: 262_144)
        metrics = try values.address("metrics")
        io = try values.choice("io", default: .epoll)
        trunkMTU = try values.number("trunk-mtu", in: 256...9000, default: 1400)
    }

    /// Reads what the operator has said; `readFile` as in `OptionTable.gather`.
    public static func parse(
        _ arguments: some Sequence<String>, environment: [String: String], readFile: (String) -> [UInt8]?
    ) throws(ConfigurationError) -> Invocation<RelayOptions> {
        switch try table.gather(arguments, environment: environment, readFile: readFile) {
        case .help: .help(table.help)
        case .version: .version("swiftlet-relay \(swiftletVersion)")
        case .values(let values): .run(try RelayOptions(values))
        }
    }
}
