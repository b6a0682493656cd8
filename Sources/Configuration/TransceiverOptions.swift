import Primitives

/// Which SRTP implementation protects packets.
public enum SRTPChoice: String, CaseIterable, Sendable { case own, libsrtp }

/// What answers calls.
public enum BackendName: String, CaseIterable, Sendable { case echo = "embedded:echo" }

/// Everything that an operator can say to `swiftlet-transceiver`.
public struct TransceiverOptions: ProgramOptions {
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
    public var io: IOChoice
    public var trunkMTU: Int
    /// How long running calls may go on after SIGTERM.
    public var drainTime: Interval
    /// Sessions at most, per worker.
    public var sessions: Int

    public static var table: OptionTable {
        OptionTable(
            program: "swiftlet-transceiver", summary: "the WebRTC endpoint behind the relays",
            [
                .signaling,
                OptionDefinition("trunk", "HOST:PORT", "internal UDP address, towards relays"),
                OptionDefinition(
                    "advertise", "HOST:PORT", "where clients reach the relays: a candidate of every answer", isRepeatable: true),
                OptionDefinition("key-file", "FILE", "written by `swiftlet keys generate`"),
                .cluster,
                OptionDefinition(
                    "id", "A.B.C.D|N", "this transceiver in routing hints", default: .decided("the trunk's IPv4 address")),
                .workers,
                OptionDefinition("sessions", "N", "\(words(Limits.sessions)) calls at most, per worker", default: .text("4096")),
                .backend,
                .echoDelay,
                .srtp,
                .drainTime,
                .io,
                .trunkMTU,
            ])
    }

    public init(_ values: OptionValues) throws(ConfigurationError) {
        signaling = try values.address("signaling")
        trunk = try values.address("trunk")
        advertise = try values.reachableAddresses("advertise")
        keyFile = try values.text("key-file")
        cluster = try values.number("cluster", in: 0...UInt16.max)
        id = try values.transceiverID("id")
        if id == nil, trunk.ip.isAny || !trunk.ip.isV4 {
            throw ConfigurationError("--id is missing; it has a default only when --trunk is an IPv4 address of this machine")
        }
        workers = try values.optionalNumber("workers", in: Limits.workers)
        sessions = try values.number("sessions", in: Limits.sessions)
        backend = try values.choice("backend")
        echoDelay = .milliseconds(Int64(try values.number("echo-delay", in: Limits.echoDelay)))
        srtp = try values.choice("srtp")
        drainTime = .seconds(Int64(try values.number("drain-time", in: Limits.drainTime)))
        io = try values.choice("io")
        trunkMTU = try values.number("trunk-mtu", in: Limits.trunkMTU)
    }
}

extension OptionDefinition {
    static let signaling = OptionDefinition(
        "signaling", "HOST:PORT", "HTTP: API, page, dashboard, /metrics, /healthz, /readyz", default: .text("127.0.0.1:8080"))
}
