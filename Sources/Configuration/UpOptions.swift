import Primitives

/// Everything that an operator can say to `swiftlet up`, which starts one relay and one transceiver that fit together.
public struct UpOptions: ProgramOptions {
    public var signaling: SocketAddress
    public var access: AccessOptions
    public var listen: [SocketAddress]
    /// Empty: the relay's addresses as they were bound.
    public var advertise: [SocketAddress]
    /// The same over TCP.
    public var listenTCP: [SocketAddress]
    public var advertiseTCP: [SocketAddress]
    public var metrics: SocketAddress
    /// Threads of each program; nil: one per processor.
    public var workers: Int?
    public var backend: BackendOption
    public var backendKeyFile: String?
    public var backendAuthorities: String?
    public var echoDelay: Interval
    public var srtp: SRTPChoice
    public var io: IOChoice
    public var drainTime: Interval

    public static var table: OptionTable {
        OptionTable(
            program: "swiftlet up", summary: "relay and transceiver on this machine, under one supervisor",
            [
                .signaling,
                .apiKeys,
                .allowAnonymous,
                OptionDefinition(
                    "listen", "HOST:PORT", "the relay's public UDP address", default: .text("0.0.0.0:3478"), isRepeatable: true),
                OptionDefinition(
                    "advertise", "HOST:PORT", "what answers tell clients",
                    default: .decided("the --listen addresses; for a wildcard, this machine's first one"), isRepeatable: true),
                .listenTCP,
                OptionDefinition(
                    "advertise-tcp", "HOST:PORT", "the same for TCP",
                    default: .decided("the --listen-tcp addresses"), isRepeatable: true),
                OptionDefinition(
                    "metrics", "HOST:PORT", "the relay's HTTP: dashboard, /metrics, /healthz, /readyz", default: .text("127.0.0.1:9090")),
                .workers,
                .backend,
                .backendKey,
                .backendAuthorities,
                .echoDelay,
                .srtp,
                .drainTime,
                .io,
            ])
    }

    public init(_ values: OptionValues) throws(ConfigurationError) {
        signaling = try values.address("signaling")
        access = try AccessOptions(values, signaling: signaling)
        listen = try values.addresses("listen")
        advertise = try values.reachableAddresses("advertise")
        listenTCP = try values.addresses("listen-tcp")
        advertiseTCP = try values.reachableAddresses("advertise-tcp")
        metrics = try values.address("metrics")
        workers = try values.optionalNumber("workers", in: Limits.workers)
        backend = try values.backend()
        backendKeyFile = try values.optionalText("backend-key")
        backendAuthorities = try values.optionalText("backend-ca")
        echoDelay = .milliseconds(Int64(try values.number("echo-delay", in: Limits.echoDelay)))
        srtp = try values.choice("srtp")
        io = try values.choice("io")
        drainTime = .seconds(Int64(try values.number("drain-time", in: Limits.drainTime)))
    }
}
