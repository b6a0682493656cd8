import Primitives

/// Which SRTP implementation protects packets.
public enum SRTPChoice: String, CaseIterable, Sendable { case own, libsrtp }

/// What answers calls.
public enum BackendName: String, CaseIterable, Sendable { case echo = "embedded:echo" }

/// Everything that an operator can say to `swiftlet-transceiver`.
public struct TransceiverOptions: Sendable {
    public var signaling: SocketAddress
    public var trunk: SocketAddress
    public var advertise: [SocketAddress]
    public var keyFile: String
    public var cluster: UInt16
    /// nil: the trunk's IPv4 address.
    public var id: UInt32?
    /// nil: one per processor.
    public var workers: Int?
    public var backend: BackendName
    public var echoDelay: Interval
    public var srtp: SRTPChoice
    public var trunkMTU: Int
    /// How long running calls may go on after SIGTERM.
    public var drainTime: Interval
    /// Sessions at most, per worker.
    public var sessions: Int

    static let table = OptionTable(
        program: "swiftlet-transceiver", summary: "the WebRTC endpoint behind the relays",
        [
            OptionDefinition("signaling", "HOST:PORT", "HTTP: API, page, /metrics, /healthz, /readyz (127.0.0.1:8080)"),
            OptionDefinition("trunk", "HOST:PORT", "internal UDP address, towards relays"),
            OptionDefinition("advertise", "HOST:PORT", "where clients reach the relays: a candidate of every answer", isRepeatable: true),
            OptionDefinition("key-file", "FILE", "written by `swiftlet keys generate`"),
            OptionDefinition("cluster", "N", "0…65535, as the relays' (0)"),
            OptionDefinition("id", "A.B.C.D|N", "this transceiver in routing hints (the trunk's IPv4 address)"),
            OptionDefinition("workers", "N", "1…64 media threads (one per processor)"),
            OptionDefinition("sessions", "N", "1…65536 calls at most, per worker (4096)"),
            OptionDefinition("backend", "NAME", "what answers calls: embedded:echo (embedded:echo)"),
            OptionDefinition("echo-delay", "MS", "0…5000 milliseconds that embedded:echo waits (500)"),
            OptionDefinition("srtp", "ENGINE", "own or libsrtp (own)"),
            OptionDefinition("drain-time", "SECONDS", "0…86400: how long calls may go on after SIGTERM (30)"),
            OptionDefinition("trunk-mtu", "BYTES", "256…9000: the longest trunk frame (1400)"),
        ])

    init(_ values: OptionValues) throws(ConfigurationError) {
        signaling = try values.address("signaling") ?? SocketAddress(.v4Loopback, port: 8080)
        trunk = try values.requiredAddress("trunk")
        advertise = try values.reachableAddresses("advertise", atMost: 8)
        keyFile = try values.requiredText("key-file")
        cluster = try values.number("cluster", in: 0...UInt16.max, default: 0)
        id = try values.transceiverID("id")
        if id == nil, trunk.ip.isAny || !trunk.ip.isV4 {
            throw ConfigurationError("--id is missing; it has a default only when --trunk is an IPv4 address of this machine")
        }
        workers = try values.number("workers", in: 1...64)
        sessions = try values.number("sessions", in: 1...65_536, default: 4096)
        backend = try values.choice("backend", default: .echo)
        echoDelay = .milliseconds(try values.number("echo-delay", in: 0...5000, default: 500))
        srtp = try values.choice("srtp", default: .own)
        drainTime = .seconds(try values.number("drain-time", in: 0...86_400, default: 30))
        trunkMTU = try values.number("trunk-mtu", in: 256...9000, default: 1400)
    }

    /// Reads what the operator has said; `readFile` as in `OptionTable.gather`.
    public static func parse(
        _ arguments: some Sequence<String>, environment: [String: String], readFile: (String) -> [UInt8]?
    ) throws(ConfigurationError) -> Invocation<TransceiverOptions> {
        switch try table.gather(arguments, environment: environment, readFile: readFile) {
        case .help: .help(table.help)
        case .version: .version("swiftlet-transceiver \(swiftletVersion)")
        case .values(let values): .run(try TransceiverOptions(values))
        }
    }
}
