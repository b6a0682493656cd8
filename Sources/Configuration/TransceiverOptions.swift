import Primitives

/// Which SRTP implementation protects packets.
public enum SRTPChoice: String, CaseIterable, Sendable { case own, libsrtp }

/// What answers calls.
public enum BackendOption: Sendable, Equatable {
    case parrot, echo
    /// `wss://…`, or `ws://…` on this machine.
    case realtime(url: String)
    /// `grpcs://…`, or `grpc://…` without TLS.
    case grpc(url: String)

    static let realtimePrefix = "realtime:"

    init?(_ text: String) {
        switch text {
        case "embedded:parrot": self = .parrot
        case "embedded:echo": self = .echo
        case let text where text.hasPrefix("grpc://") || text.hasPrefix("grpcs://"): self = .grpc(url: text)
        default:
            guard text.hasPrefix(Self.realtimePrefix + "ws") else { return nil }
            self = .realtime(url: String(text.dropFirst(Self.realtimePrefix.count)))
        }
    }

    /// As the option has it.
    public var text: String {
        switch self {
        case .parrot: "embedded:parrot"
        case .echo: "embedded:echo"
        case .realtime(let url): Self.realtimePrefix + url
        case .grpc(let url): url
        }
    }
}

extension OptionValues {
    func backend() throws(ConfigurationError) -> BackendOption {
        let text = try text("backend")
        guard let option = BackendOption(text) else {
            throw ConfigurationError(
                "--backend: '\(text)' is not allowed; it must be embedded:parrot, embedded:echo, realtime:wss://HOST[:PORT]/PATH or "
                    + "grpcs://HOST[:PORT]")
        }
        return option
    }
}

/// Everything that an operator can say to `swiftlet-transceiver`.
public struct TransceiverOptions: ProgramOptions {
    public var signaling: SocketAddress
    public var access: AccessOptions
    public var trunk: SocketAddress
    public var advertise: [SocketAddress]
    public var steering: SteeringOptions
    /// Where to find the transceivers that own other calls; nil: such calls are not found here.
    public var members: MembersSource?
    public var owner: OwnerChoice
    public var keyFile: String
    public var cluster: UInt16
    /// nil: the trunk's IPv4 address.
    public var id: UInt32?
    /// nil: one per processor.
    public var workers: Int?
    public var backend: BackendOption
    /// nil: `SWIFTLET_BACKEND_KEY`, or none.
    public var backendKeyFile: String?
    /// A PEM file; nil: the system's.
    public var backendAuthorities: String?
    public var echoDelay: Interval
    public var srtp: SRTPChoice
    public var io: IOChoice
    public var trunkMTU: Int
    /// How long running calls may go on after SIGTERM.
    public var drainTime: Interval
    /// How long a call is kept whose client says nothing.
    public var keepSilent: Interval
    /// Sessions at most, per worker.
    public var sessions: Int

    public static var table: OptionTable {
        OptionTable(
            program: "swiftlet-transceiver", summary: "the WebRTC endpoint behind the relays",
            [
                .signaling,
                .apiKeys,
                .allowAnonymous,
                OptionDefinition("trunk", "HOST:PORT", "internal UDP address, towards relays"),
                OptionDefinition(
                    "advertise", "HOST:PORT", "where clients reach the relays: a candidate of every answer", isRepeatable: true),
                .ingressFile,
                .geoIPDatabase,
                .trustedProxies,
                .geoCountryHeader,
                .geoLatitudeHeader,
                .geoLongitudeHeader,
                .members,
                .owner,
                OptionDefinition("key-file", "FILE", "written by `swiftlet keys generate`"),
                .cluster,
                OptionDefinition(
                    "id", "A.B.C.D|N", "this transceiver in routing hints", default: .decided("the trunk's IPv4 address")),
                .workers,
                OptionDefinition("sessions", "N", "\(words(Limits.sessions)) calls at most, per worker", default: .text("4096")),
                .backend,
                .backendKey,
                .backendAuthorities,
                .echoDelay,
                .srtp,
                .drainTime,
                OptionDefinition(
                    "keep-silent", "SECONDS", "\(words(Limits.keepSilent)): how long a call is kept whose client says nothing",
                    default: .text("60")),
                .io,
                .trunkMTU,
            ])
    }

    public init(_ values: OptionValues) throws(ConfigurationError) {
        signaling = try values.address("signaling")
        access = try AccessOptions(values, signaling: signaling)
        trunk = try values.address("trunk")
        advertise = try values.reachableAddresses("advertise")
        steering = try SteeringOptions(values)
        members = try values.members("members")
        owner = try values.choice("owner")
        keyFile = try values.text("key-file")
        cluster = try values.number("cluster", in: 0...UInt16.max)
        id = try values.transceiverID("id")
        if id == nil, trunk.ip.isAny || !trunk.ip.isV4 {
            throw ConfigurationError("--id is missing; it has a default only when --trunk is an IPv4 address of this machine")
        }
        workers = try values.optionalNumber("workers", in: Limits.workers)
        sessions = try values.number("sessions", in: Limits.sessions)
        backend = try values.backend()
        backendKeyFile = try values.optionalText("backend-key")
        backendAuthorities = try values.optionalText("backend-ca")
        echoDelay = .milliseconds(Int64(try values.number("echo-delay", in: Limits.echoDelay)))
        srtp = try values.choice("srtp")
        drainTime = .seconds(Int64(try values.number("drain-time", in: Limits.drainTime)))
        keepSilent = .seconds(Int64(try values.number("keep-silent", in: Limits.keepSilent)))
        io = try values.choice("io")
        trunkMTU = try values.number("trunk-mtu", in: Limits.trunkMTU)
        try checkThatItCanRegister()
    }
}

extension TransceiverOptions {
    /// What is registered must be what others reach.
    private func checkThatItCanRegister() throws(ConfigurationError) {
        guard case .registry = members else { return }
        guard !trunk.ip.isAny else {
            throw ConfigurationError(
                "--trunk: \(trunk) is every address; --members redis:// tells it to relays, so it must be the internal one")
        }
        guard !signaling.ip.isLoopback || trunk.ip.isLoopback else {
            throw ConfigurationError(
                "--signaling: \(signaling) is for this machine alone; --members redis:// tells it to other transceivers, so it must be one that "
                    + "they reach, or a wildcard for that of --trunk")
        }
    }
}

extension OptionDefinition {
    static let signaling = OptionDefinition(
        "signaling", "HOST:PORT", "HTTP: API, page, dashboard, /metrics, /healthz, /readyz", default: .text("127.0.0.1:8080"))
}

/// Who may use the API.
public struct AccessOptions: Sendable, Equatable {
    /// A file of project keys; nil opens the API to everybody who reaches it.
    public var keyFile: String?
    /// Everybody may come in although the listener is not for this machine alone. Without effect beside a key file.
    public var allowsAnonymous: Bool

    public init(keyFile: String?, allowsAnonymous: Bool) {
        self.keyFile = keyFile
        self.allowsAnonymous = allowsAnonymous
    }

    init(_ values: OptionValues, signaling: SocketAddress) throws(ConfigurationError) {
        keyFile = try values.optionalText("api-keys")
        allowsAnonymous = try values.isSet("allow-anonymous")
        guard keyFile != nil || allowsAnonymous || signaling.ip.isLoopback else {
            throw ConfigurationError(
                "--signaling: \(signaling) can be reached from other machines, so the API needs keys: give --api-keys FILE, or "
                    + "--allow-anonymous if everybody may make calls")
        }
    }
}

extension OptionDefinition {
    static let apiKeys = OptionDefinition(
        "api-keys", "FILE", "project keys, one a line, then a name; read again on SIGHUP",
        default: .decided("none, for a loopback --signaling only"))
    static let allowAnonymous = OptionDefinition.toggle(
        "allow-anonymous", "everybody may use the API of a --signaling that other machines reach")
}
