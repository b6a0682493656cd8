// How a keeper comes by its estate: anew, or from the service manager that kept the descriptors of the last one.

import Configuration
import Crypto
import EventLoop
import Glibc
import Primitives
import RelayCore
import RoutingHint

extension Keeper {
    /// What another relay of this user may still hold when its processes have just been killed.
    private static let patience = Interval.seconds(2)

    static func open(
        _ settings: RelaySettings, _ arguments: [String], _ folder: String?, _ signals: consuming SignalSource,
        _ environment: [String: String]
    ) throws(ConfigurationError) -> Keeper {
        let options = settings.options
        let manager = ServiceManager(environment)
        let workers = options.workers ?? min(Machine.processors.count, 64)
        var entropy = Crypto.SystemEntropy()
        var shape = FlowTableShape(
            workers: workers, flowsPerWorker: (options.flows + workers - 1) / workers,
            steeringKey: UInt32(truncatingIfNeeded: entropy.next()),
            deployment: FlowTableShape.deployment(of: settings.keys.ring))
        var kept = KeptDescriptors(environment)
        let table = try Self.openTable(&kept, folder, &shape)
        var estate = RelayEstate(
            workers: workers, publicCount: options.listen.count, flowsPerWorker: shape.flowsPerWorker, steeringKey: shape.steeringKey)
        estate.table = consume table
        let isRestored = kept.fill(&estate, options)
        if !isRestored {
            kept.forget(manager)
            try Self.openSockets(&estate, options)
        }
        let areStreamsRestored = isRestored && kept.fillStreams(&estate, options)
        if !areStreamsRestored {
            if isRestored { kept.forget(manager) }
            try Self.openStreams(&estate, options)
        }
        for group in 0...estate.publicCount {
            guard let address = estate.address(ofGroup: group) else { continue }
            log(
                "listening on \(address)\(group == estate.publicCount ? " (trunk)" : "")\(isRestored ? ", kept by the service manager" : "")"
            )
        }
        for group in 0..<estate.streamCount {
            if let address = estate.address(ofStreamGroup: group) { log("listening on \(address) (TCP)") }
        }
        if let metrics = options.metrics { try Self.openListener(&estate, metrics) }
        Self.report(options, workers, shape)
        if manager.isPresent && !isRestored { Self.store(estate, manager) }
        if manager.isPresent && !areStreamsRestored { Self.storeStreams(estate, manager) }
        var keeper = try Keeper(settings, arguments, folder, signals, manager, estate, shape)
        try keeper.listenForSuccessors()
        return keeper
    }

    private static func openTable(_ kept: inout KeptDescriptors, _ folder: String?, _ shape: inout FlowTableShape)
        throws(ConfigurationError) -> SharedMemory
    {
        let place: String
        let memory: SharedMemory
        if let folder {
            if mkdir(folder, 0o700) != 0, errno != EEXIST {
                throw ConfigurationError("--runtime-folder: \(folder): \(String(cString: strerror(errno)))")
            }
            place = folder + "/flows"
            memory = try lockTable(place)
        } else if let found = kept.takeTable() {
            place = "the table that the service manager kept"
            memory = consume found
        } else {
            let shape = shape
            return try orFail("flow table") { () throws(Errno) in try shape.makeAnonymous() }
        }
        let lock = folder == nil ? -1 : fcntl(memory.descriptor.rawValue, F_DUPFD_CLOEXEC, 0)
        let table = try Self.usable(memory, place, &shape)
        guard folder != nil else { return table }
        do throws(Errno) {
            try table.reserve()
            close(lock)
            return table
        } catch {
            // `lock` stays open: the folder is ours all the same.
            log(
                "--runtime-folder: \(place) has no room for the flow table (\(shape.byteCount >> 20) MiB: \(error)); flows outlive workers, but not "
                    + "this process")
            let shape = shape
            return try orFail("flow table") { () throws(Errno) in try shape.makeAnonymous() }
        }
    }

    /// `memory` as it is when it fits `shape`, which takes its steering key; else emptied.
    static func usable(_ memory: consuming SharedMemory, _ place: String, _ shape: inout FlowTableShape) throws(ConfigurationError)
        -> SharedMemory
    {
        let head = (try? memory.head(FlowTableShape.headBytes)) ?? []
        let byteCount = memory.byteCount
        if byteCount > 0 {
            guard let problem = shape.adopt(head, byteCount: byteCount) else { return memory }
            log("\(place): \(problem); flows begin anew")
        }
        let wanted = shape
        do throws(Errno) { return try wanted.remake(memory) } catch {
            // Somebody's memory that cannot be made shorter.
            return try orFail("flow table") { () throws(Errno) in try wanted.makeAnonymous() }
        }
    }

    private static func lockTable(_ path: String) throws(ConfigurationError) -> SharedMemory {
        let deadline = MonotonicClock.now() + patience
        while true {
            do throws(Errno) { return try SharedMemory(lockedFile: path) } catch {
                guard error == .wouldBlock else { throw ConfigurationError("--runtime-folder: \(path): \(error)") }
                guard MonotonicClock.now() < deadline else {
                    throw ConfigurationError("--runtime-folder: another relay runs with \(path); --takeover takes its place")
                }
                usleep(1000)
            }
        }
    }

    private static func openSockets(_ estate: inout RelayEstate, _ options: RelayOptions) throws(ConfigurationError) {
        let steering = AddressSteering(workers: estate.workers, key: estate.steeringKey)
        for (index, address) in (options.listen + [options.trunk]).enumerated() {
            let isTrunk = index == options.listen.count
            let what = isTrunk ? "--trunk \(address)" : "--listen \(address)"
            if address.port != 0 { try waitUntilFree(what) { () throws(Errno) in _ = try DatagramSocket(boundTo: address) } }
            let workers = estate.workers
            var group = try orFail(what) { () throws(Errno) in
                try DatagramSocket.group(
                    count: workers, boundTo: address, options: .init(receiveBufferSize: WorkerLimits.receiveBuffer),
                    steeredBy: isTrunk ? .byWorkerByte(workers: workers) : .bySource(steering))
            }
            for worker in 0..<workers {
                estate.setSocket(group.take(worker).releaseDescriptor(), group: index, worker: worker)
            }
        }
    }

    /// One listener per worker on each public TCP address. The kernel deals connections out among them, and whoever takes one keeps it.
    ///
    /// - Parameter besideAnother: a relay that we succeed may still listen there.
    static func openStreams(_ estate: inout RelayEstate, _ options: RelayOptions, besideAnother: Bool = false) throws(ConfigurationError) {
        estate.setStreamCount(options.listenTCP.count)
        for (group, wanted) in options.listenTCP.enumerated() {
            var address = wanted
            if !besideAnother, address.port != 0 {
                try waitUntilFree("--listen-tcp \(wanted)") { () throws(Errno) in _ = try StreamListener(boundTo: wanted) }
            }
            for worker in 0..<estate.workers {
                let made = try orFail("--listen-tcp \(wanted)") { () throws(Errno) in
                    try StreamListener(boundTo: address, sharesPort: true)
                }
                // The port that the kernel chose for the first one is everybody's.
                address = made.localAddress ?? address
                let descriptor = try orFail("--listen-tcp \(wanted)") { () throws(Errno) in try made.descriptor.duplicate() }
                estate.setStream(descriptor, group: group, worker: worker)
            }
        }
    }

    /// The kernel would let us bind beside another relay of this user, and then deal packets out among both.
    private static func waitUntilFree(_ what: String, _ bind: () throws(Errno) -> Void) throws(ConfigurationError) {
        let deadline = MonotonicClock.now() + patience
        while true {
            do throws(Errno) { return try bind() } catch {
                guard error == .addressInUse, MonotonicClock.now() < deadline else { throw ConfigurationError("\(what): \(error)") }
                usleep(1000)
            }
        }
    }

    static func openListener(_ estate: inout RelayEstate, _ metrics: SocketAddress) throws(ConfigurationError) {
        let made = try orFail("--metrics \(metrics)") { () throws(Errno) in try StreamListener(boundTo: metrics) }
        estate.listener = try orFail("--metrics \(metrics)") { () throws(Errno) in try made.descriptor.duplicate() }
        log("metrics on http://\(made.localAddress ?? metrics)/metrics")
        log("dashboard on http://\(made.localAddress ?? metrics)/")
    }

    /// Prints what the processes have set aside; nothing is added after this.
    private static func report(_ options: RelayOptions, _ workers: Int, _ shape: FlowTableShape) {
        var configuration = RelayConfiguration(
            cluster: options.cluster, relayID: options.relayID, worker: 0, transceivers: .table([]), ownAddresses: [],
            flowCapacity: shape.flowsPerWorker)
        if options.redis != nil { configuration.parking = ParkingLimits() }
        let streams = StreamLimits(options, workers: workers)
        let flows = FlowTable.byteCount(capacity: shape.flowsPerWorker)
        var budget = MemoryBudget()
        budget.add(workers, "\(shape.flowsPerWorker) flows", bytesEach: flows)
        budget.add(
            workers, "packets in flight", bytesEach: WorkerLimits.byteCount(configuration, publicSockets: options.listen.count) - flows)
        if streams.connections > 0 {
            budget.add(
                workers, "\(streams.connections) connections over TCP", bytesEach: StreamSide.byteCount(connections: streams.connections))
        }
        log(budget.description)
    }
}

// MARK: - The service manager's store

extension Keeper {
    /// Names: `public-GROUP-WORKER`, `trunk-WORKER`, `stream-GROUP-WORKER`, `flows`.
    private static func store(_ estate: borrowing RelayEstate, _ manager: borrowing ServiceManager) {
        for group in 0...estate.publicCount {
            for worker in 0..<estate.workers {
                guard let number = estate.number(group * estate.workers + worker) else { continue }
                let name = group == estate.publicCount ? "trunk-\(worker)" : "public-\(group)-\(worker)"
                manager.tell("FDSTORE=1\nFDNAME=\(name)", descriptors: [number])
            }
        }
        if let table = estate.tableNumber { manager.tell("FDSTORE=1\nFDNAME=flows", descriptors: [table]) }
    }

    private static func storeStreams(_ estate: borrowing RelayEstate, _ manager: borrowing ServiceManager) {
        for group in 0..<estate.streamCount {
            for worker in 0..<estate.workers {
                guard let number = estate.streamNumber(group * estate.workers + worker) else { continue }
                manager.tell("FDSTORE=1\nFDNAME=stream-\(group)-\(worker)", descriptors: [number])
            }
        }
    }
}

/// What the service manager kept of an earlier keeper. What is not taken is closed.
struct KeptDescriptors: ~Copyable {
    private var byName: [String: CInt] = [:]

    init(_ environment: [String: String]) {
        for (name, number) in keptDescriptors(environment) {
            if byName[name] == nil { byName[name] = number } else { close(number) }
        }
    }

    deinit { for number in byName.values { close(number) } }

    private mutating func take(_ name: String) -> FileDescriptor? { byName.removeValue(forKey: name).map { FileDescriptor(owning: $0) } }

    mutating func takeTable() -> SharedMemory? {
        guard let descriptor = take("flows") else { return nil }
        return try? SharedMemory(adopting: descriptor)
    }

    /// Puts the sockets into `estate`; false, and none there, unless they are exactly the ones that `options` ask for.
    mutating func fill(_ estate: inout RelayEstate, _ options: RelayOptions) -> Bool {
        guard !byName.isEmpty else { return false }
        let wanted = options.listen + [options.trunk]
        for group in 0...estate.publicCount {
            for worker in 0..<estate.workers {
                let name = group == estate.publicCount ? "trunk-\(worker)" : "public-\(group)-\(worker)"
                guard let descriptor = take(name) else { return refuse(&estate, "\(name) is missing") }
                estate.setSocket(descriptor, group: group, worker: worker)
            }
            guard let address = estate.address(ofGroup: group) else { return refuse(&estate, "group \(group) is not one port's sockets") }
            guard address.ip == wanted[group].ip, wanted[group].port == 0 || address.port == wanted[group].port else {
                return refuse(&estate, "\(address) is kept, but \(wanted[group]) is asked for")
            }
        }
        let unknown = byName.keys.filter { $0.hasPrefix("public-") || $0.hasPrefix("trunk-") }
        guard unknown.isEmpty else { return refuse(&estate, "there are \(unknown.count) more than --workers and --listen ask for") }
        return true
    }

    /// The same for listeners on TCP: they hold nothing that could not be made again, so others than those of before are no failure.
    mutating func fillStreams(_ estate: inout RelayEstate, _ options: RelayOptions) -> Bool {
        estate.setStreamCount(options.listenTCP.count)
        for group in 0..<estate.streamCount {
            for worker in 0..<estate.workers {
                guard let descriptor = take("stream-\(group)-\(worker)") else { return false }
                estate.setStream(descriptor, group: group, worker: worker)
            }
        }
        return estate.hasStreams(for: options.listenTCP) && !byName.keys.contains { $0.hasPrefix("stream-") }
    }

    private func refuse(_ estate: inout RelayEstate, _ reason: String) -> Bool {
        log("the service manager's descriptors are not used: \(reason)")
        estate.closeSockets()
        return false
    }

    /// Nothing of it is of use: neither to us nor to the next one.
    mutating func forget(_ manager: borrowing ServiceManager) {
        for (name, number) in byName {
            close(number)
            manager.tell("FDSTOREREMOVE=1\nFDNAME=\(name)")
        }
        byName = [:]
    }
}
