// An upgrade without a lost packet. The successor asks at a unix socket in the runtime folder and gets the descriptors; it gets ready while
// the old worker still reads; then the old worker ends, and only when it has does the successor's worker begin. Between the two, packets
// wait in the sockets. Never do two read: so nothing is lost, and nothing is sent twice.
//
//     successor                    keeper
//     request            ─────▶
//                        ◀─────   estate, descriptors, table      (or: refused, why)
//     prepared           ─────▶   stops its worker
//                        ◀─────   released
//     running            ─────▶   ends
//
// Whoever dies on the way leaves the other with all it needs: the keeper starts its worker again, the successor goes on alone.

import Configuration
import EventLoop
import Glibc
import Primitives

// MARK: - The keeper that is asked

extension Keeper {
    static func path(in folder: String) -> String { folder + "/takeover" }
    private static let offerPatience = Interval.seconds(30)
    private static let releasePatience = Interval.seconds(10)

    mutating func listenForSuccessors() throws(ConfigurationError) {
        guard let folder else { return }
        let path = Self.path(in: folder)
        let made = try orFail("--runtime-folder: \(path)") { () throws(Errno) in try MessageListener(path: path) }
        listenerToken = try orFail("epoll") { () throws(Errno) in
            try reactor.register(made.descriptor, for: .readable, tag: Self.listenerTag)
        }
        listener = consume made
    }

    mutating func meetSuccessor(_ now: Instant) {
        guard let socket = listener?.accept() else { return }
        // It asked before it could be ready to read: what it says is there, or nearly.
        guard let message = try? socket.receive(until: now + .milliseconds(200)), message.bytes.count == 6,
            message.bytes[0] == RelayMessage.request.rawValue
        else { return }
        let number = pid_t(bitPattern: message.bytes.span.bytes.u32(2))
        if let reason = refusal {
            log("process \(number) asked for our place: refused, \(reason)")
            try? socket.send([RelayMessage.refused.rawValue] + Array(reason.utf8))
            return
        }
        do throws(Errno) {
            try Self.offer(estate, of: workerNumber, to: socket)
            successorToken = try reactor.register(socket.descriptor, for: .readable, tag: Self.successorTag)
        } catch {
            log("process \(number) asked for our place, but cannot be told: \(error)")
            return
        }
        log("process \(number) takes over")
        successor = consume socket
        phase = .offering(successor: number)
        deadline = now + Self.offerPatience
    }

    private static func offer(_ estate: borrowing RelayEstate, of worker: pid_t, to socket: borrowing MessageSocket) throws(Errno) {
        try estate.send(over: socket)
        var words: [UInt8] = [RelayMessage.go.rawValue]
        words.append(UInt32(bitPattern: worker))
        var table: [CInt] = []
        if let number = estate.tableNumber { table.append(number) }
        try socket.send(words, descriptors: table)
    }

    private var refusal: String? {
        switch phase {
        case .serving: workerIsReading ? nil : "the worker is just starting; try again"
        case .offering(let successor), .releasing(let successor), .released(let successor):
            "process \(successor) is taking over already"
        case .stopping: "it is stopping"
        }
    }

    mutating func hearSuccessor(_ now: Instant) -> CInt? {
        while true {
            let bytes: [UInt8]?
            do throws(Errno) { bytes = try successor?.receive()?.bytes } catch {
                if error == .wouldBlock { return nil }
                bytes = nil
            }
            guard let bytes else {
                loseSuccessor(now, "has ended")
                return nil
            }
            switch (RelayMessage(rawValue: bytes[0]), phase) {
            case (.prepared, .offering(let successor)):
                phase = .releasing(successor: bytes.count == 5 ? pid_t(bitPattern: bytes.span.bytes.u32(1)) : successor)
                deadline = now + Self.stopPatience
                if worker == nil { return release(now) }
                dropSpare()
                spareAt = .never
                signalWorker(SIGTERM)
            case (.running, .released):
                log("process \(phase.successor) reads; ending")
                return 0
            default: break
            }
        }
    }

    /// Our worker has ended for the successor's sake.
    mutating func release(_ now: Instant) -> CInt? {
        phase = .released(successor: phase.successor)
        deadline = now + Self.releasePatience
        // The path is the successor's from now on.
        closeListener()
        do throws(Errno) { try successor?.send([RelayMessage.released.rawValue]) } catch { loseSuccessor(now, "cannot be told") }
        return nil
    }

    private mutating func closeListener() {
        if let token = listenerToken.take() { reactor.deregister(token) }
        listener = nil
    }

    /// The successor will not make it: we go on as if nobody had asked.
    mutating func loseSuccessor(_ now: Instant, _ reason: String) {
        let number = phase.successor
        log("process \(number), which was taking over, \(reason); going on")
        if let token = successorToken.take() { reactor.deregister(token) }
        successor = nil
        switch phase {
        case .released, .releasing:
            // Its worker may read until it is gone, and two must never read.
            if number > 0 {
                kill(number, SIGKILL)
                var tries = 0
                while Machine.isRunning(number), tries < 1000 {
                    usleep(1000)
                    tries += 1
                }
            }
        case .serving, .offering, .stopping: break
        }
        let hadNone = worker == nil
        if phase != .stopping { phase = .serving }
        if listener == nil { try? listenForSuccessors() }
        deadline = now + Self.silenceMax
        if hadNone { startWorker() } else { spareAt = now }
    }
}

extension Keeper.Phase {
    var successor: pid_t {
        switch self {
        case .offering(let number), .releasing(let number), .released(let number): number
        case .serving, .stopping: 0
        }
    }
}

// MARK: - The successor

extension Keeper {
    /// Takes the place of the relay that runs with `folder`; nil when none does.
    static func succeed(
        _ settings: RelaySettings, _ arguments: [String], _ folder: String, _ signals: inout SignalSource?,
        _ manager: consuming ServiceManager
    ) throws(ConfigurationError) -> Keeper? {
        let options = settings.options
        guard let socket = connect(path(in: folder)) else { return nil }
        var request: [UInt8] = [RelayMessage.request.rawValue, RelayMessage.version]
        request.append(UInt32(bitPattern: Machine.processNumber))
        try orFail("--takeover") { () throws(Errno) in try socket.send(request) }

        let deadline = MonotonicClock.now() + .seconds(10)
        guard let head = try? socket.receive(until: deadline)?.bytes else { throw ConfigurationError("--takeover: no answer") }
        if head[0] == RelayMessage.refused.rawValue {
            throw ConfigurationError("--takeover: refused: \(String(decoding: head.dropFirst(), as: UTF8.self))")
        }
        var estate = try RelayEstate.receive(head, from: socket, until: deadline)
        guard var message = try? socket.receive(until: deadline), message.bytes.count == 5, let descriptor = message.descriptors.take(0)
        else { throw ConfigurationError("--takeover: the flow table is missing") }
        let oldWorker = pid_t(bitPattern: message.bytes.span.bytes.u32(1))
        do throws(Errno) { estate.table = try SharedMemory(adopting: descriptor) } catch { throw failed("--takeover: flow table", error) }
        try check(estate, options)
        try fitListener(&estate, options)
        // Connections end with the old worker; listeners that fit keep those that wait in them.
        if !estate.hasStreams(for: options.listenTCP) { try openStreams(&estate, options, besideAnother: true) }

        guard let signals = signals.take() else { return nil }
        let shape = FlowTableShape(
            workers: estate.workers, flowsPerWorker: estate.flowsPerWorker, steeringKey: estate.steeringKey,
            deployment: FlowTableShape.deployment(of: settings.keys.ring))
        var keeper = try Keeper(settings, arguments, folder, signals, manager, estate, shape)
        try keeper.replace(socket, oldWorker)
        try keeper.listenForSuccessors()
        return keeper
    }

    private static func connect(_ path: String) -> MessageSocket? {
        do throws(Errno) { return try MessageSocket.connect(path: path) } catch {
            log("--takeover: no relay answers at \(path) (\(error)); starting anew")
            return nil
        }
    }

    private static func check(_ estate: borrowing RelayEstate, _ options: RelayOptions) throws(ConfigurationError) {
        let wanted = options.listen + [options.trunk]
        guard estate.publicCount == options.listen.count else {
            throw ConfigurationError("--takeover: the running relay has \(estate.publicCount) public addresses; restart it to change them")
        }
        for (group, address) in wanted.enumerated() {
            guard let bound = estate.address(ofGroup: group) else { throw ConfigurationError("--takeover: what came are not its sockets") }
            guard bound.ip == address.ip, address.port == 0 || bound.port == address.port else {
                throw ConfigurationError("--takeover: the running relay is at \(bound), not \(address); restart it to change that")
            }
        }
        if let workers = options.workers, workers != estate.workers {
            log("--workers \(workers) waits for a restart: the sockets are \(estate.workers) workers'")
        }
    }

    private static func fitListener(_ estate: inout RelayEstate, _ options: RelayOptions) throws(ConfigurationError) {
        guard let metrics = options.metrics else {
            estate.listener = nil
            return
        }
        if let number = estate.listenerNumber, let bound = StreamListener.address(ofDescriptor: number), bound.ip == metrics.ip,
            metrics.port == 0 || metrics.port == bound.port
        {
            log("metrics on http://\(bound)/metrics")
            return
        }
        try openListener(&estate, metrics)
    }

    /// Gets a worker ready, has the old one stopped, and lets ours read.
    private mutating func replace(_ old: borrowing MessageSocket, _ oldWorker: pid_t) throws(ConfigurationError) {
        do throws(Errno) { worker = try launch(tag: Self.channelTag) } catch { throw failed("worker", error) }
        guard try ask(RelayMessage.prepared, within: .seconds(20)) else {
            throw ConfigurationError("--takeover: our worker did not get ready; the running relay goes on")
        }
        var words: [UInt8] = [RelayMessage.prepared.rawValue]
        words.append(UInt32(bitPattern: workerNumber))
        try orFail("--takeover") { () throws(Errno) in try old.send(words) }
        guard let answer = try? old.receive(until: MonotonicClock.now() + .seconds(10)), answer.bytes == [RelayMessage.released.rawValue]
        else {
            // It died, and so did its worker; all that it had is ours.
            log("the old relay has ended without a word; going on")
            waitForEnd(of: oldWorker)
            return try readAndTell(old)
        }
        try readAndTell(old)
    }

    private mutating func readAndTell(_ old: borrowing MessageSocket) throws(ConfigurationError) {
        history.startedAt = MonotonicClock.now()
        deadline = history.startedAt + Self.silenceMax
        if let table = estate.table.take() { estate.table = try Self.usable(table, "the running relay's flow table", &shape) }
        try orFail("worker") { () throws(Errno) in try sendGo() }
        guard try ask(.running, within: .seconds(10)) else { throw ConfigurationError("--takeover: our worker did not start") }
        try? old.send([RelayMessage.running.rawValue])
    }

    private func waitForEnd(of process: pid_t) {
        var tries = 0
        while process > 0, Machine.isRunning(process), tries < 1000 {
            usleep(1000)
            tries += 1
        }
    }

    /// Waits for one message of our worker; false when it ends, or says nothing.
    private mutating func ask(_ wanted: RelayMessage, within time: Interval) throws(ConfigurationError) -> Bool {
        let deadline = MonotonicClock.now() + time
        while true {
            let bytes: [UInt8]?
            do throws(Errno) { bytes = try Self.words(of: worker, until: deadline) } catch { return false }
            guard let bytes else { return false }
            guard bytes[0] == wanted.rawValue else { continue }
            if wanted == .running, bytes.count == 13 { noteRunning(bytes.span.bytes) }
            return true
        }
    }
}
