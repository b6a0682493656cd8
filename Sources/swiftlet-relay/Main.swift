// swiftlet-relay: the only part of Swiftlet on the public internet. This file wires: options → sockets → workers → control.

import Configuration
import Crypto
import EventLoop
import Glibc
import Primitives
import RelayCore
import RoutingHint

/// The keys, shared by reference until every worker has made its contexts.
final class KeyRingBox: Sendable {
    let ring: KeyRing
    init(_ ring: KeyRing) { self.ring = ring }
}

@main struct Program {
    static func main() {
        do throws(ConfigurationError) {
            let invocation = try RelayOptions.parse(CommandLine.arguments.dropFirst(), environment: environment()) {
                readFile($0, limit: Limits.configurationFileBytes)
            }
            switch invocation {
            case .help(let text), .version(let text): say(text)
            case .run(let options): try run(options)
            }
        } catch {
            log("\(error)")
            exit(2)
        }
    }

    static func run(_ options: RelayOptions) throws(ConfigurationError) {
        let trunkAddress = options.trunk
        let keys = try loadKeys(options.keyFile)
        let engine = try engine(options.io)
        let (directory, stamp) = try TransceiverDirectory.load(options.transceivers)
        let processors = Machine.processors
        let workers = options.workers ?? min(processors.count, 64)
        // Latencies that nobody can ask for are not measured.
        let measures = options.metrics != nil
        // Before any thread starts: threads inherit the blocked signals.
        let signals: SignalSource
        do throws(Errno) { signals = try SignalSource() } catch { throw ConfigurationError("signals: \(error)") }

        var entropy = Crypto.SystemEntropy()
        let steering = AddressSteering(workers: workers, key: UInt32(truncatingIfNeeded: entropy.next()))
        var groups = Slab<DatagramSocketGroup?>(count: options.listen.count) { _ in nil }
        var own: [SocketAddress] = []
        for (index, address) in options.listen.enumerated() {
            let group = try orFail("--listen \(address)") { () throws(Errno) in
                try DatagramSocket.group(
                    count: workers, boundTo: address,
                    options: .init(receiveBufferSize: WorkerLimits.receiveBuffer, timestamps: measures),
                    steeredBy: .bySource(steering))
            }
            own.append(group.localAddress)
            groups[index] = consume group
        }
        var trunkGroup = try orFail("--trunk \(trunkAddress)") { () throws(Errno) in
            try DatagramSocket.group(
                count: workers, boundTo: trunkAddress,
                options: .init(receiveBufferSize: WorkerLimits.receiveBuffer, coalesces: true, timestamps: measures),
                steeredBy: .byWorkerByte(workers: workers))
        }
        let listenAddresses = own
        own.append(trunkGroup.localAddress)
        for address in own { log("listening on \(address)\(address == trunkGroup.localAddress ? " (trunk)" : "")") }
        var listener: StreamListener?
        if let metrics = options.metrics {
            let made = try orFail("--metrics \(metrics)") { () throws(Errno) in try StreamListener(boundTo: metrics) }
            log("metrics on http://\(made.localAddress ?? metrics)/metrics")
            log("dashboard on http://\(made.localAddress ?? metrics)/")
            listener = consume made
        }

        var configuration = RelayConfiguration(
            cluster: options.cluster, relayID: options.relayID, worker: 0, transceivers: directory, ownAddresses: expanded(own),
            flowCapacity: (options.flows + workers - 1) / workers)
        configuration.trunkMTU = options.trunkMTU
        report(configuration, workers: workers, publicSockets: options.listen.count)

        var commands: [WorkerCommands] = []
        var threads = Slab<WorkerThread?>(count: workers) { _ in nil }
        for number in 0..<workers {
            configuration.worker = UInt8(number)
            var sockets = Slab<DatagramSocket?>(count: groups.count) { _ in nil }
            for index in 0..<groups.count { sockets[index] = groups[index]?.take(number) }
            let trunkSocket = trunkGroup.take(number)
            if number == 0 {
                log(
                    "offloads: UDP_SEGMENT \(trunkSocket.supportsSegmentation ? "yes" : "no, trains leave as single datagrams")"
                        + ", UDP_GRO \(trunkSocket.coalesces ? "yes" : "no"); receive buffer \(trunkSocket.receiveBufferSize / 1024) KiB")
            }
            let command = try orFail("worker \(number)") { () throws(Errno) in try WorkerCommands() }
            commands.append(command)
            let start = WorkerStart(
                publicSockets: sockets, trunkSocket: trunkSocket, engine: engine, configuration: configuration, keys: keys,
                commands: command)
            // Pinned where each worker can have a processor of its own.
            let processor = workers <= processors.count ? processors[number] : nil
            threads[number] = try launch(start, number, processor)
        }
        log("\(workers) workers, \(engine == .ring ? "io_uring" : "epoll"), \(libcryptoVersion)")

        var control: ControlServer
        do throws(Errno) {
            control = try ControlServer(
                signals: signals, listener: listener, workers: commands, transceivers: options.transceivers, stamp: stamp)
        } catch { throw ConfigurationError("control thread: \(error)") }
        // On standard output, for whoever started us: the one line that a supervisor waits for.
        let listening = listenAddresses.map(\.description).joined(separator: " ")
        say("swiftlet-relay ready: public \(listening), trunk \(trunkGroup.localAddress), \(workers) workers")
        control.run()
        log("stopping")
        for command in commands { command.stop() }
        for number in 0..<workers { threads[number].take()?.join() }
    }

    private static func launch(_ start: consuming WorkerStart, _ number: Int, _ processor: Int?) throws(ConfigurationError) -> WorkerThread
    {
        do throws(Errno) {
            return try WorkerThread.start(name: "relay-\(number)", processor: processor, with: start) { state in
                do throws(Errno) {
                    var worker = try RelayWorker(state)
                    worker.run()
                } catch {
                    log("a worker cannot start: \(error)")
                    exit(1)
                }
            }
        } catch { throw ConfigurationError("worker \(number): \(error)") }
    }

    private static func loadKeys(_ path: String) throws(ConfigurationError) -> KeyRingBox {
        guard let content = readFile(path, limit: Limits.keyFileBytes) else { throw ConfigurationError("--key-file: cannot read \(path)") }
        if isReadableByOthers(path) { log("warning: \(path) is readable by everybody; chmod 600 it") }
        do throws(KeyFileError) { return KeyRingBox(try KeyRing(parsingJSON: content.bytes)) } catch {
            throw ConfigurationError("--key-file: \(path): \(error)")
        }
    }

    /// Prints what the process has set aside; nothing is added after this.
    private static func report(_ configuration: RelayConfiguration, workers: Int, publicSockets: Int) {
        let flows = FlowTable.byteCount(capacity: configuration.flowCapacity)
        var budget = MemoryBudget()
        budget.add(workers, "\(configuration.flowCapacity) flows", bytesEach: flows)
        budget.add(
            workers, "packets in flight", bytesEach: WorkerLimits.byteCount(configuration, publicSockets: publicSockets) - flows)
        log(budget.description)
    }

    /// io_uring only where the kernel lets us; `auto` takes what there is.
    private static func engine(_ choice: IOChoice) throws(ConfigurationError) -> EngineKind {
        guard choice != .epoll else { return .epoll }
        guard let problem = EngineKind.ring.unavailability else { return .ring }
        guard choice == .auto else { throw ConfigurationError("--io: 'io_uring' is not possible: \(problem); use epoll or auto") }
        log("epoll, because \(problem)")
        return .epoll
    }

    private static func orFail<Value: ~Copyable>(_ what: String, _ body: () throws(Errno) -> Value) throws(ConfigurationError) -> Value {
        do throws(Errno) { return try body() } catch { throw ConfigurationError("\(what): \(error)") }
    }
}
