// swiftlet-transceiver: the WebRTC endpoint. This file wires: options → sockets → workers → control thread.

import Configuration
import Crypto
import DTLS
import EventLoop
import Glibc
import HTTP
import Primitives
import RTP
import RoutingHint
import SRTP
import TransceiverCore
import Trunk

@main struct Program {
    static func main() {
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
        let engine = try engine(options.io)
        let workers = options.workers ?? min(Machine.processors.count, 64)
        let certificate = try DTLSCertificate.generate(at: wallClock())

        let listener = try bind("--signaling", options.signaling) { () throws(Errno) in
            try StreamListener(boundTo: options.signaling)
        }
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
                socket: sockets.take(index), engine: engine, identity: identity, settings: settings(options), trunkKey: keys.trunkKey,
                certificate: certificate, sessions: options.sessions, trunkMTU: options.trunkMTU, commands: commands.receiver,
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

        let desk = SignalingDesk(
            settings: SignalingDesk.Settings(
                cluster: options.cluster, transceiver: id, workers: workers, advertise: options.advertise,
                fingerprint: certificate.fingerprint, callsMax: options.sessions * workers),
            codec: HintCodec(keys), random: Crypto.SystemEntropy())
        var control = try ControlLoop(
            listener: listener, desk: desk, signals: signals, waker: waker, workers: links, limits: HTTPLimits(), connectionsMax: 1024,
            drainTime: options.drainTime)
        say("swiftlet-transceiver ready: signaling http://\(signaling)/, trunk \(trunk), \(workers) workers")
        control.run()
        for index in 0..<workers { if let thread = threads[index].take() { thread.join() } }
        say("swiftlet-transceiver: stopped")
    }

    /// io_uring only where the kernel lets us; `auto` takes what there is.
    private static func engine(_ choice: IOChoice) throws -> EngineKind {
        guard choice != .epoll else { return .epoll }
        guard let problem = EngineKind.ring.unavailability else { return .ring }
        guard choice == .auto else { throw ConfigurationError("--io: 'io_uring' is not possible: \(problem); use epoll or auto") }
        complain("swiftlet-transceiver: epoll, because \(problem)")
        return .epoll
    }

    private static func settings(_ options: TransceiverOptions) -> SessionSettings {
        return SessionSettings(
            backend: .echo(delay: options.echoDelay), srtpEngine: options.srtp == .libsrtp ? .libsrtp : .own,
            clock: NTPClock(wall: wallClock(), at: MonotonicClock.now()))
    }

    private static func readKeyRing(_ path: String) throws -> KeyRing {
        guard let content = readFile(path, limit: Limits.keyFileBytes) else { throw ConfigurationError("--key-file: cannot read \(path)") }
        if isReadableByOthers(path) { complain("swiftlet-transceiver: warning: \(path) is readable by everybody; chmod 600 it") }
        do { return try KeyRing(parsingJSON: content.span.bytes) } catch { throw ConfigurationError("--key-file: \(path): \(error)") }
    }

    private static func bind<Socket: ~Copyable>(_ option: String, _ address: SocketAddress, _ body: () throws(Errno) -> Socket) throws
        -> Socket
    {
        do throws(Errno) { return try body() } catch { throw ConfigurationError("\(option) \(address): \(error)") }
    }
}
