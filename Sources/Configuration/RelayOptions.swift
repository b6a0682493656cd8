import Primitives

/// Where a relay finds transceivers.
public enum TransceiverSource: Sendable, Equatable {
    /// Every IPv4 address inside the prefix, at this port: `PREFIX:PORT`.
    case direct(IPPrefix, port: UInt16)
    /// Lines of `ID ADDRESS:PORT`, read again when the file changes.
    case table(path: String)
    /// Transceivers write themselves there.
    case registry(RedisAddress)
}

/// How datagrams are moved.
public enum IOChoice: String, CaseIterable, Sendable {
    case epoll
    case ring = "io_uring"
    /// For a relay what was measured to cost less (Perf/RESULTS.md), for a transceiver io_uring where the kernel lets us.
    case auto

    /// `uring` is a second spelling of `io_uring`.
    public init?(rawValue: String) {
        switch rawValue {
        case "epoll": self = .epoll
        case "io_uring", "uring": self = .ring
        case "auto": self = .auto
        default: return nil
        }
    }
}

/// Everything that an operator can say to `swiftlet-relay`.
public struct RelayOptions: ProgramOptions {
    public var listen: [SocketAddress]
    /// For clients whose network blocks UDP; often empty.
    public var listenTCP: [SocketAddress]
    /// Of the whole relay, and of one client address; each worker has its share.
    public var tcpConnections: Int
    public var tcpConnectionsPerAddress: Int
    public var trunk: SocketAddress
    public var keyFile: String
    public var cluster: UInt16
    public var relayID: UInt16
    /// nil: one per processor.
    public var workers: Int?
    public var transceivers: TransceiverSource
    /// The file with the other relays; nil: hints of other clusters are dropped.
    public var relays: String?
    public var metrics: SocketAddress?
    public var io: IOChoice
    /// Microseconds that a busy worker lets datagrams come before it looks again.
    public var gather: Int
    public var trunkMTU: Int
    /// Flows of the whole relay; each worker has its share.
    public var flows: Int
    /// Where the flow table outlives everything but the machine, and where a successor asks for the sockets.
    public var runtimeFolder: String?
    public var takeover: Bool
    /// Where flows are remembered outside this machine.
    public var redis: RedisAddress?
    /// A PEM file: whom to trust about Redis' certificate; nil: the system's authorities.
    public var redisAuthorities: String?

    public static var table: OptionTable {
        OptionTable(
            program: "swiftlet-relay", summary: "the public UDP port in front of the transceivers",
            [
                OptionDefinition("listen", "HOST:PORT", "public UDP address; [::]:3478 takes IPv4 too", isRepeatable: true),
                .listenTCP,
                OptionDefinition(
                    "tcp-connections", "N", "\(words(Limits.tcpConnections)) connections over TCP at most",
                    default: .text("\(Limits.tcpConnectionsDefault)")),
                OptionDefinition(
                    "tcp-per-address", "N", "the same from one IPv4 address or IPv6 /64",
                    default: .text("\(Limits.tcpConnectionsPerAddressDefault)")),
                OptionDefinition("trunk", "HOST:PORT", "internal UDP address, towards transceivers"),
                OptionDefinition("key-file", "FILE", "written by `swiftlet keys generate`"),
                OptionDefinition(
                    "transceivers", "WHERE",
                    "direct:PREFIX:PORT (hints carry IPv4 addresses), table:FILE (ID ADDRESS:PORT lines), or redis://…"),
                .cluster,
                OptionDefinition(
                    "relays", "FILE", "other relays, ID CLUSTER ADDRESS:PORT lines: they get what is for transceivers of their clusters",
                    default: .decided("none")),
                OptionDefinition("relay-id", "N", "0…65535, unique among relays", default: .text("0")),
                .workers,
                OptionDefinition("flows", "N", "\(words(Limits.flows)) client addresses at most", default: .text("262144")),
                OptionDefinition("metrics", "HOST:PORT", "HTTP: dashboard, /metrics, /healthz, /readyz", default: .decided("off")),
                .io,
                OptionDefinition(
                    "gather-us", "N", "\(words(Limits.gather)) microseconds that a worker under load lets a batch grow; 0 for never",
                    default: .text("\(Limits.gatherDefault)")),
                .trunkMTU,
                OptionDefinition(
                    "runtime-folder", "FOLDER", "keeps the flow table through restarts, and is where --takeover looks; best in /run",
                    default: .decided("$RUNTIME_DIRECTORY, else none")),
                OptionDefinition(
                    "redis", "URL",
                    "redis[s]://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]: remembers flows for when this machine is lost",
                    default: .decided("off")),
                .redisAuthorities,
                .toggle("takeover", "take sockets and flows from the relay that runs with this folder; no packet is lost"),
            ])
    }

    public init(_ values: OptionValues) throws(ConfigurationError) {
        listen = try values.addresses("listen")
        listenTCP = try values.addresses("listen-tcp")
        tcpConnections = try values.number("tcp-connections", in: Limits.tcpConnections)
        tcpConnectionsPerAddress = try values.number("tcp-per-address", in: Limits.tcpConnections)
        trunk = try values.address("trunk")
        guard !trunk.ip.isAny else {
            throw ConfigurationError("--trunk: \(trunk) is every address; it must be the internal one, which transceivers answer to")
        }
        keyFile = try values.text("key-file")
        transceivers = try values.transceivers("transceivers")
        cluster = try values.number("cluster", in: 0...UInt16.max)
        relayID = try values.number("relay-id", in: 0...UInt16.max)
        workers = try values.optionalNumber("workers", in: Limits.workers)
        flows = try values.number("flows", in: Limits.flows)
        relays = try values.optionalText("relays")
        metrics = try values.optionalAddress("metrics")
        io = try values.choice("io")
        gather = try values.number("gather-us", in: Limits.gather)
        trunkMTU = try values.number("trunk-mtu", in: Limits.trunkMTU)
        runtimeFolder = try values.optionalText("runtime-folder")
        takeover = try values.isSet("takeover")
        redis = try values.redis("redis")
        redisAuthorities = try values.optionalText("redis-ca")
        var usesTLS = redis?.usesTLS == true
        if case .registry(let address) = transceivers { usesTLS = usesTLS || address.usesTLS }
        guard redisAuthorities == nil || usesTLS else {
            throw ConfigurationError("--redis-ca: there is no certificate to check without a Redis at rediss://…")
        }
        // Workers share ports, so the kernel would let both bind and then mix them.
        for address in listen where address.port != 0 && address.port == trunk.port && (address.ip == trunk.ip || address.ip.isAny) {
            throw ConfigurationError("--trunk: \(trunk) is also a public address (--listen \(address)); they must differ")
        }
        if let metrics, metrics.port != 0, listenTCP.contains(where: { $0 == metrics || ($0.ip.isAny && $0.port == metrics.port) }) {
            throw ConfigurationError("--metrics: \(metrics) is also a public address (--listen-tcp); they must differ")
        }
    }
}

// MARK: - Options of several programs

extension OptionDefinition {
    static let cluster = OptionDefinition("cluster", "N", "0…65535, the same everywhere in a cluster", default: .text("0"))
    static let listenTCP = OptionDefinition(
        "listen-tcp", "HOST:PORT", "public TCP address for clients whose network blocks UDP", default: .decided("off"),
        isRepeatable: true)
    static let workers = OptionDefinition(
        "workers", "N", "\(words(Limits.workers)) threads that move packets", default: .decided("one per processor"))
    static let io = OptionDefinition("io", "ENGINE", "how datagrams are moved: epoll, io_uring or auto", default: .text("epoll"))
    static let trunkMTU = OptionDefinition(
        "trunk-mtu", "BYTES", "\(words(Limits.trunkMTU)): the longest trunk frame", default: .text("\(Limits.trunkMTUDefault)"))
    static let backend = OptionDefinition(
        "backend", "NAME", "what answers: embedded:parrot, embedded:echo, realtime:wss://HOST/PATH, grpcs://HOST:PORT",
        default: .text(BackendOption.parrot.text))
    static let backendKey = OptionDefinition(
        "backend-key", "FILE", "the key that a backend elsewhere wants",
        default: .decided("SWIFTLET_BACKEND_KEY of the environment, if set"))
    static let backendAuthorities = OptionDefinition(
        "backend-ca", "FILE", "PEM: whom to trust about a backend's certificate", default: .decided("the system's authorities"))
    static let echoDelay = OptionDefinition(
        "echo-delay", "MS", "\(words(Limits.echoDelay)) milliseconds that embedded:echo waits", default: .text("500"))
    static let srtp = OptionDefinition("srtp", "ENGINE", "own or libsrtp", default: .text("own"))
    static let redisAuthorities = OptionDefinition(
        "redis-ca", "FILE", "PEM: whom to trust about the certificate of a Redis at rediss://",
        default: .decided("the system's authorities"))
    static let drainTime = OptionDefinition(
        "drain-time", "SECONDS", "\(words(Limits.drainTime)): how long calls may go on after SIGTERM", default: .text("600"))
}
