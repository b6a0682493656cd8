// swiftlet-transceiver: the WebRTC endpoint. This file wires: options → sockets → workers → control thread.

import Backend
import Configuration
import Crypto
import DTLS
import EventLoop
import Glibc
import HTTP
import Membership
import Primitives
import RTP
import RoutingHint
import SRTP
import TLS
import TransceiverCore
import Trunk

@main struct Program {
    static func main() {
        guard Machine.endWithSupervisor() else { return }
        do {
            let invocation = try TransceiverOptions.parse(CommandLine.arguments.dropFirst(), environment: environment()) {
                readFile($0, limit: Limits.configurationFileBytes)
            }
            switch invocation {
            case .help(let text), .version(let text): say(text)
            case .run(let options): try run(options)
            }
        } catch {
            complain("swiftlet-transceiver: \(error)")
            exit(2)
        }
    }

    static func run(_ options: TransceiverOptions) throws {
        // Before any thread starts: threads inherit the blocked signals.
        let signals = try SignalSource()
        let keys = try readKeyRing(options.keyFile)
        let access = AccessControl(keys: try options.access.keyFile.map { try readAPIKeys($0) }, secrets: ClientSecrets(keys))
        let engine = try engine(options.io)
        let workers = options.workers ?? min(Machine.processors.count, 64)
        let (backend, route) = try backend(options)
        let certificate = try DTLSCertificate.generate(at: wallClock())

        let listener = try bind("--signaling", options.signaling) { () throws(Errno) in
            try StreamListener(boundTo: options.signaling)
        }
        let admin = try adminListener(options)
        let adminAddress = address(of: admin)
        var sockets = try bind("--trunk", options.trunk) { () throws(Errno) in
            try DatagramSocket.group(
                count: workers, boundTo: options.trunk,
                options: .init(receiveBufferSize: MediaLimits.receiveBuffer, coalesces: true, timestamps: true),
                steeredBy: .byWorkerByte(workers: workers))
        }
        let trunk = sockets.localAddress
        let signaling = listener.localAddress ?? options.signaling
        let id = options.id ?? (trunk.ip.isV4 ? trunk.ip.v4Bits : 1)

        let waker = try Waker()
        var links: [WorkerLink] = []
        var threads = Slab<WorkerThread?>(count: workers) { _ in nil }
        let processors = Machine.processors
        for index in 0..<workers {
            let identity = TransceiverWorker.Identity(
                cluster: options.cluster, transceiver: id, worker: UInt8(truncatingIfNeeded: index))
            let counters = PublishedCounters()
            let commandWaker = try Waker()
            let commands = Mailbox.make(of: WorkerCommand.self, capacity: MediaLimits.mailbox, waking: commandWaker)
            let events = Mailbox.make(of: WorkerEvent.self, capacity: MediaLimits.mailbox, waking: waker)
            links.append(WorkerLink(commands.sender, events.receiver, counters))
            let start = MediaWorkerStart(
                socket: sockets.take(index), engine: engine, identity: identity, settings: settings(options, backend), route: route,
                trunkKey: keys.trunkKey, acceptedTrunkKey: keys.acceptedTrunkKey, certificate: certificate, sessions: options.sessions,
                trunkMTU: options.trunkMTU, commands: commands.receiver,
                events: events.sender, waker: commandWaker,
                counters: counters)
            threads[index] = try WorkerThread.start(
                name: "media-\(index)", processor: processors[index % processors.count], stackSize: 4 << 20, with: start
            ) { start in
                do {
                    var worker = try MediaWorker(start)
                    worker.run()
                } catch {
                    complain("swiftlet-transceiver: a media worker cannot start: \(error)")
                    exit(1)
                }
            }
        }

        let steerer = try Steerer(
            options.steering, fallback: options.candidates, cluster: options.cluster, transceiver: id, on: trunk.ip, keys: keys)
        // A wildcard is everywhere, so also where the trunk is.
        let reachable = signaling.ip.isAny ? SocketAddress(trunk.ip, port: signaling.port) : signaling
        var own = Member(id: MemberID(cluster: options.cluster, transceiver: id), trunk: trunk, signaling: reachable)
        own.capacity = UInt32(clamping: options.sessions * workers)
        let owners = try OwnerDoor(
            options.members, options.owner,
            Registration(own: own, passwordKey: keys.passwordKey, authorities: try Registration.authorities(options.redisAuthorities)),
            at: MonotonicClock.now())
        var settings = SignalingDesk.Settings(
            cluster: options.cluster, transceiver: id, workers: workers, advertise: options.candidates,
            fingerprint: certificate.fingerprint, callsMax: options.sessions * workers)
        settings.abilities = backend.abilities
        let desk = SignalingDesk(settings: settings, codec: HintCodec(keys), access: access, random: Crypto.SystemEntropy())
        var control = try ControlLoop(
            listener: listener, admin: admin,
            office: Office(desk: desk, steerer: steerer, owners: owners, workers: links), signals: signals,
            waker: waker,
            workers: links, limits: httpLimits, connectionsMax: 1024,
            drainTime: options.drainTime, apiKeyFile: options.access.keyFile, keyFile: options.keyFile, ring: keys)
        let adminPart = adminAddress.map { ", admin http://\($0)/" } ?? ""
        say(
            "swiftlet-transceiver ready: signaling http://\(signaling)/, trunk \(trunk), \(workers) workers\(adminPart), \(HandshakeLibrary.name)"
        )
        control.run()
        for index in 0..<workers { if let thread = threads[index].take() { thread.join() } }
        say("swiftlet-transceiver: stopped")
    }

    private static func address(of listener: borrowing StreamListener?) -> SocketAddress? {
        switch listener {
        case .some(let listener): listener.localAddress
        case .none: nil
        }
    }

    private static func adminListener(_ options: TransceiverOptions) throws -> StreamListener? {
        guard let address = options.admin else { return nil }
        return try bind("--admin", address) { () throws(Errno) in try StreamListener(boundTo: address) }
    }

    /// io_uring only where the kernel lets us; `auto` takes what there is.
    private static func engine(_ choice: IOChoice) throws -> EngineKind {
        guard choice != .epoll else { return .epoll }
        guard let problem = EngineKind.ring.unavailability else { return .ring }
        guard choice == .auto else { throw ConfigurationError("--io: 'io_uring' is not possible: \(problem); use epoll or auto") }
        complain("swiftlet-transceiver: epoll, because \(problem)")
        return .epoll
    }

    /// What answers calls, and the way to it where it is elsewhere.
    private static func backend(_ options: TransceiverOptions) throws -> (BackendChoice, BackendRoute?) {
        switch options.backend {
        case .parrot: return (.parrot, nil)
        case .echo: return (.echo(delay: options.echoDelay), nil)
        case .realtime(let url):
            guard let endpoint = RealtimeEndpoint(url) else {
                throw ConfigurationError("--backend: '\(url)' must be wss://HOST[:PORT]/PATH, or ws:// on this machine")
            }
            let key = try backendKey(options)
            let route = try route(options, endpoint.host, endpoint.port, isSecure: endpoint.isSecure, protocolName: nil)
            return (.realtime(RealtimeBackendSettings(endpoint: endpoint, key: key)), route)
        case .grpc(let url):
            guard let endpoint = GRPCEndpoint(url) else {
                throw ConfigurationError("--backend: '\(url)' must be grpcs://HOST[:PORT], or grpc://HOST[:PORT] without TLS")
            }
            let key = try backendKey(options)
            let isHere = endpoint.host == "localhost" || IPAddress(endpoint.host)?.isLoopback == true
            guard key == nil || endpoint.isSecure || isHere else {
                throw ConfigurationError("--backend: a key is not sent without TLS; use grpcs://, or give no key")
            }
            let route = try route(options, endpoint.host, endpoint.port, isSecure: endpoint.isSecure, protocolName: "h2")
            return (.grpc(GRPCBackendSettings(endpoint: endpoint, key: key)), route)
        }
    }

    private static func backendKey(_ options: TransceiverOptions) throws(ConfigurationError) -> String? {
        guard let path = options.backendKeyFile else { return environment()["SWIFTLET_BACKEND_KEY"] }
        guard let content = readFile(path, limit: 4096) else { throw ConfigurationError("--backend-key: cannot read \(path)") }
        return String(decoding: content, as: UTF8.self).split(whereSeparator: \.isWhitespace).first.map(String.init)
    }

    private static func route(
        _ options: TransceiverOptions, _ host: String, _ port: UInt16, isSecure: Bool, protocolName: String?
    ) throws -> BackendRoute {
        let authorities = options.backendAuthorities.map { TLSAuthorities.file(path: $0) } ?? .system
        // Here, so that a file that cannot be read is told before any call is answered.
        do { _ = try TLSClientContext(authorities: authorities) } catch {
            throw ConfigurationError("--backend-ca: \(options.backendAuthorities ?? "the system's"): \(error)")
        }
        let addresses = try BackendAddresses(host: host, port: port)
        return BackendRoute(host: host, isSecure: isSecure, protocolName: protocolName, addresses: addresses, authorities: authorities)
    }

    private static func settings(_ options: TransceiverOptions, _ backend: BackendChoice) -> SessionSettings {
        var settings = SessionSettings(
            backend: backend, srtpEngine: options.srtp == .libsrtp ? .libsrtp : .own,
            clock: NTPClock(wall: wallClock(), at: MonotonicClock.now()))
        settings.keptSilent = options.keepSilent
        return settings
    }

    /// A client secret carries its session in one header field.
    private static var httpLimits: HTTPLimits {
        var limits = HTTPLimits()
        limits.fieldBytes = 2 * ClientSecrets.sessionBytesMax
        limits.headBytes = limits.fieldBytes + 16_384
        return limits
    }

    private static func readAPIKeys(_ path: String) throws(ConfigurationError) -> APIKeys {
        do throws(APIKeyProblem) { return try readAPIKeyFile(path) } catch { throw ConfigurationError("--api-keys: \(error)") }
    }

    private static func bind<Socket: ~Copyable>(_ option: String, _ address: SocketAddress, _ body: () throws(Errno) -> Socket) throws
        -> Socket
    {
        do throws(Errno) { return try body() } catch { throw ConfigurationError("\(option) \(address): \(error)") }
    }
}
