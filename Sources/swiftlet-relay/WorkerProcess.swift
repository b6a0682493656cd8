// The worker process: gets the estate from its keeper, starts one thread per socket of a group, and serves the operator's HTTP. It holds
// nothing that the next one could not do without. One process with all threads, not one per socket: they share keys, libraries, one
// metrics page and one connection to the flow cache, and what a death costs the others is the time of one start with every packet queued.

import Configuration
import Crypto
import EventLoop
import Glibc
import Primitives
import RelayCore
import Synchronization

enum WorkerProcess {
    private static let patience = Interval.seconds(10)

    static func run(_ arguments: [String], keeper: pid_t) throws(ConfigurationError) {
        guard Machine.dieWithParent(keeper) else { return }
        Machine.setProcessName("relay-spare")
        let channel = try orFail("keeper's channel") { () throws(Errno) in
            try MessageSocket(adopting: FileDescriptor(owning: ChildProcess.channelDescriptor))
        }
        // Before any thread starts: threads inherit the blocked signals.
        let signals = try orFail("signals") { () throws(Errno) in try SignalSource() }
        let settings = try receiveSettings(channel, arguments)
        let options = settings.options
        var estate = try receiveEstate(channel)

        let engine = try engine(options.io)
        var own: [SocketAddress] = []
        for group in 0...estate.publicCount {
            guard let address = estate.address(ofGroup: group) else {
                throw ConfigurationError("the keeper's sockets are not what they were")
            }
            own.append(address)
        }
        var configuration = RelayConfiguration(
            cluster: options.cluster, relayID: options.relayID, worker: 0, transceivers: settings.directory, ownAddresses: expanded(own),
            flowCapacity: estate.flowsPerWorker)
        configuration.relays = settings.relays
        configuration.trunkMTU = options.trunkMTU
        var streams = StreamLimits(options, workers: estate.workers)
        // Whatever the options say: what listens here is what the keeper has.
        if estate.streamCount == 0 { streams.connections = 0 }
        if options.redis != nil { configuration.parking = ParkingLimits() }
        var listener: StreamListener?
        if let descriptor = estate.listener.take() {
            do throws(Errno) { listener = try StreamListener(adopting: descriptor) } catch { throw failed("--metrics", error) }
        }

        let table = try waitForGo(channel)
        Machine.setProcessName("relay-worker")
        var starts = Slab<WorkerStart?>(count: estate.workers) { _ in nil }
        var commands: [WorkerCommands] = []
        let shape = FlowTableShape(workers: estate.workers, flowsPerWorker: estate.flowsPerWorker, steeringKey: 0, deployment: 0)
        guard table.byteCount == shape.byteCount else { throw ConfigurationError("the keeper's flow table has another size") }
        var cache = try cacheStart(settings, estate.workers)
        let cacheStatus = cache?.status
        for number in 0..<estate.workers {
            configuration.worker = UInt8(number)
            let command = try orFail("worker \(number)") { () throws(Errno) in try WorkerCommands() }
            commands.append(command)
            starts[number] = try prepare(
                number, &estate, configuration, engine, settings.keys, command, table, shape, gather: .microseconds(Int64(options.gather)),
                streams: streams, measures: options.metrics != nil)
            starts[number]?.cache = cache?.connect(number, waking: command.waker)
        }
        if let cache = cache.take() {
            do throws(Errno) { _ = try CacheThread.start(cache) } catch { throw failed("flow cache", error) }
        }
        let threads = try start(&starts, commands)
        let adoption = waitUntilAllRun(commands)
        var words: [UInt8] = [RelayMessage.running.rawValue]
        for number in [adoption.adopted, adoption.expired, adoption.torn] { words.append(UInt32(clamping: number)) }
        try orFail("keeper") { () throws(Errno) in try channel.send(words) }

        let members = try MemberReader.start(settings)
        var control: ControlServer
        do throws(Errno) {
            control = try ControlServer(
                signals: signals, listener: listener, keeper: channel, workers: commands, arguments: arguments, cache: cacheStatus,
                members: members, known: settings.members)
        } catch { throw ConfigurationError("control thread: \(error)") }
        control.run()
        for command in commands { command.stop() }
        join(threads)
    }

    private static func receiveSettings(_ channel: borrowing MessageSocket, _ arguments: [String]) throws(ConfigurationError)
        -> RelaySettings
    {
        guard var message = try? channel.receive(until: MonotonicClock.now() + patience),
            message.bytes == [RelayMessage.settings.rawValue], let descriptor = message.descriptors.take(0)
        else { throw ConfigurationError("the keeper says nothing") }
        return try adopt(descriptor, arguments)
    }

    /// What the keeper has read.
    static func adopt(_ descriptor: consuming FileDescriptor, _ arguments: [String]) throws(ConfigurationError) -> RelaySettings {
        let memory: SharedMemory
        do throws(Errno) { memory = try SharedMemory(adopting: descriptor) } catch { throw failed("settings", error) }
        return try RelaySettings(arguments, from: memory)
    }

    private static func cacheStart(_ settings: RelaySettings, _ workers: Int) throws(ConfigurationError) -> CacheStart? {
        guard let address = settings.options.redis else { return nil }
        return try orFail("flow cache") { () throws(Errno) in
            try CacheStart(address, authorities: settings.redisAuthorities, keys: settings.keys.ring, workers: workers)
        }
    }

    private static func receiveEstate(_ channel: borrowing MessageSocket) throws(ConfigurationError) -> RelayEstate {
        let deadline = MonotonicClock.now() + patience
        guard let message = try? channel.receive(until: deadline) else { throw ConfigurationError("the keeper says nothing") }
        return try RelayEstate.receive(message.bytes, from: channel, until: deadline)
    }

    /// Says that all is ready, and waits for the table: with it, the sockets are ours to read.
    private static func waitForGo(_ channel: borrowing MessageSocket) throws(ConfigurationError) -> SharedMemory {
        try orFail("keeper") { () throws(Errno) in try channel.send([RelayMessage.prepared.rawValue]) }
        guard var message = try? channel.receive(until: .never), message.bytes == [RelayMessage.go.rawValue],
            let descriptor = message.descriptors.take(0)
        else { exit(0) }
        do throws(Errno) { return try SharedMemory(adopting: descriptor) } catch { throw failed("flow table", error) }
    }

    private static func prepare(
        _ number: Int, _ estate: inout RelayEstate, _ configuration: RelayConfiguration, _ engine: EngineKind, _ keys: KeyRingBox,
        _ commands: WorkerCommands, _ table: borrowing SharedMemory, _ shape: FlowTableShape,
        gather: Interval, streams: StreamLimits, measures: Bool
    ) throws(ConfigurationError) -> WorkerStart {
        var sockets = Slab<DatagramSocket?>(count: estate.publicCount) { _ in nil }
        for group in 0..<estate.publicCount {
            sockets[group] = try orFail("public socket \(number)") { () throws(Errno) in
                try estate.takeSocket(
                    group: group, worker: number,
                    .init(receiveBufferSize: WorkerLimits.receiveBuffer, timestamps: measures, leavesWhole: true))
            }
        }
        var listeners = Slab<StreamListener?>(count: estate.streamCount) { _ in nil }
        for group in 0..<estate.streamCount {
            listeners[group] = try orFail("TCP listener \(number)") { () throws(Errno) in
                try estate.takeStream(group: group, worker: number)
            }
        }
        let trunk = try orFail("trunk socket \(number)") { () throws(Errno) in
            try estate.takeSocket(
                group: estate.publicCount, worker: number,
                .init(
                    receiveBufferSize: WorkerLimits.receiveBuffer, coalesces: true, timestamps: measures, leavesWhole: true,
                    reportsErrors: true))
        }
        if number == 0 {
            log(
                "offloads: UDP_SEGMENT \(trunk.supportsSegmentation ? "yes" : "no, trains leave as single datagrams")"
                    + ", UDP_GRO \(trunk.coalesces ? "yes" : "no"); receive buffer \(trunk.receiveBufferSize / 1024) KiB")
        }
        let base = try orFail("flow table") { () throws(Errno) in try table.map(shape.section(number)) }
        return WorkerStart(
            publicSockets: sockets, trunkSocket: trunk, listeners: listeners, streams: streams,
            flows: FlowMemory(mapped: base, capacity: configuration.flowCapacity),
            engine: engine, gather: gather, configuration: configuration, keys: keys, commands: commands)
    }

    /// Pinned where each worker can have a processor of its own.
    private static func start(_ starts: inout Slab<WorkerStart?>, _ commands: [WorkerCommands]) throws(ConfigurationError)
        -> Slab<WorkerThread?>
    {
        let processors = Machine.processors
        var threads = Slab<WorkerThread?>(count: starts.count) { _ in nil }
        for number in 0..<starts.count {
            guard let start = starts[number].take() else { continue }
            let processor = starts.count <= processors.count ? processors[number] : nil
            do throws(Errno) {
                threads[number] = try WorkerThread.start(name: "relay-\(number)", processor: processor, with: start, turn)
            } catch { throw failed("worker \(number)", error) }
        }
        return threads
    }

    @Sendable private static func turn(_ state: consuming WorkerStart) {
        do throws(Errno) {
            var worker = try RelayWorker(state)
            worker.run()
        } catch {
            log("a worker cannot start: \(error)")
            exit(1)
        }
    }

    private static func join(_ threads: consuming Slab<WorkerThread?>) {
        for number in 0..<threads.count { threads[number].take()?.join() }
    }

    private static func waitUntilAllRun(_ commands: [WorkerCommands]) -> FlowAdoption {
        var sum = FlowAdoption()
        for command in commands {
            while true {
                if let adoption = command.adoption {
                    sum.adopted += adoption.adopted
                    sum.expired += adoption.expired
                    sum.torn += adoption.torn
                    break
                }
                usleep(200)
            }
        }
        return sum
    }

    /// io_uring only where the kernel lets us. `auto` is epoll: in every row of Perf/RESULTS.md it costs as much or less.
    static func engine(_ choice: IOChoice) throws(ConfigurationError) -> EngineKind {
        switch choice {
        case .epoll: return .epoll
        case .auto:
            log("io: epoll, which was measured to cost a relay no more than io_uring (Perf/RESULTS.md)")
            return .epoll
        case .ring:
            guard let problem = EngineKind.ring.unavailability else { return .ring }
            throw ConfigurationError("--io: 'io_uring' is not possible: \(problem); use epoll or auto")
        }
    }
}
