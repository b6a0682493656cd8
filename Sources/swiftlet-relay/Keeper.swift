// The keeper: opens what must outlive a worker, starts the worker, and starts it again when it dies. It reads no packet and has no
// thread. Its turn waits for the operator's signals, its worker, and a successor (Takeover.swift).

import Configuration
import EventLoop
import Glibc
import Primitives

struct Keeper: ~Copyable {
    /// What the sockets are doing.
    enum Phase: Equatable {
        /// The worker is starting, or reads.
        case serving
        /// A successor has the sockets and gets ready; our worker still reads.
        case offering(successor: pid_t)
        /// Our worker was told to stop, for the successor.
        case releasing(successor: pid_t)
        /// The successor's worker reads, or is about to.
        case released(successor: pid_t)
        case stopping
    }

    let arguments: [String]
    var settings: RelaySettings
    /// The same, for workers.
    var storedSettings: SharedMemory
    var tableStamp: RelaySettings.TableStamp
    /// The worker has older ones, and is told when it reads.
    var workerIsBehind = false
    let folder: String?
    let manager: ServiceManager
    var estate: RelayEstate
    var shape: FlowTableShape
    var phase = Phase.serving
    var reactor: Reactor
    let signals: SignalSource

    var worker: KeptWorker?
    /// Ready to go on where the worker dies.
    var spare: KeptWorker?
    var spareAt = Instant.never
    var history = DeathHistory()
    var hasRun = false
    var workerIsReading = false

    var listener: MessageListener?
    var listenerToken: ReactorToken?
    var successor: MessageSocket?
    var successorToken: ReactorToken?
    /// When patience with whatever is under way ends.
    var deadline = Instant.never

    static let signalTag: UInt64 = 1
    static let channelTag: UInt64 = 2
    static let spareTag: UInt64 = 5
    static let listenerTag: UInt64 = 3
    static let successorTag: UInt64 = 4
    /// A worker that says nothing for this long hangs.
    static let silenceMax = Interval.seconds(10)
    static let stopPatience = Interval.seconds(5)

    /// Runs a relay until it is told to end; the exit status.
    static func run(_ options: RelayOptions, _ arguments: [String]) throws(ConfigurationError) -> CInt {
        let environment = environment()
        let folder = options.runtimeFolder ?? environment["RUNTIME_DIRECTORY"]?.split(separator: ":").first.map(String.init)
        let settings = try RelaySettings.read(arguments, members: KeptMembers(in: folder).read())
        settings.warnAboutKeyFile()
        _ = try? Machine.raiseOpenFilesLimit()
        var signals: SignalSource? = try orFail("signals") { () throws(Errno) in try SignalSource() }
        if options.takeover {
            guard let folder else { throw ConfigurationError("--takeover needs --runtime-folder: that of the relay that runs") }
            if var keeper = try succeed(settings, arguments, folder, &signals, ServiceManager(environment)) { return keeper.run() }
        }
        guard let signals = signals.take() else { return 1 }
        var keeper = try open(settings, arguments, folder, signals, environment)
        keeper.startWorker()
        return keeper.run()
    }

    init(
        _ settings: RelaySettings, _ arguments: [String], _ folder: String?, _ signals: consuming SignalSource,
        _ manager: consuming ServiceManager,
        _ estate: consuming RelayEstate, _ shape: FlowTableShape
    ) throws(ConfigurationError) {
        var reactor = try orFail("epoll") { () throws(Errno) in try Reactor(capacity: 16, eventsPerTurn: 16) }
        _ = try orFail("signals") { () throws(Errno) in try reactor.register(signals.descriptor, for: .readable, tag: Self.signalTag) }
        storedSettings = try settings.store()
        tableStamp = settings.tableStamp
        self.settings = settings
        self.arguments = arguments
        self.folder = folder
        self.manager = manager
        self.estate = estate
        self.shape = shape
        self.reactor = reactor
        self.signals = signals
    }

    /// Turns until the relay ends.
    mutating func run() -> CInt {
        while true {
            reactor.wait(until: min(deadline, min(history.restartAt, phase == .serving ? spareAt : .never)))
            let now = MonotonicClock.now()
            var end: CInt?
            while let event = reactor.nextEvent() {
                switch event.tag {
                case Self.signalTag: end = takeSignals() ?? end
                case Self.channelTag: end = hearWorker(now) ?? end
                case Self.spareTag: hearSpare(now)
                case Self.listenerTag: meetSuccessor(now)
                case Self.successorTag: end = hearSuccessor(now) ?? end
                default: break
                }
            }
            if now >= history.restartAt { startWorker() }
            if now >= spareAt, phase == .serving { startSpare(now) }
            if now >= deadline { losePatience(now) }
            if let end { return end }
        }
    }
}

// MARK: - Workers

/// A worker process and the channel to it.
struct KeptWorker: ~Copyable {
    var process: ChildProcess
    let channel: MessageSocket
    let token: ReactorToken
    /// It has read and checked all that it needs, and waits for the table.
    var isPrepared = false

    init(process: consuming ChildProcess, channel: consuming MessageSocket, token: ReactorToken) {
        self.process = process
        self.channel = channel
        self.token = token
    }

    /// The same under another registration.
    init(_ other: consuming KeptWorker, _ token: ReactorToken) {
        self.process = other.process
        self.channel = other.channel
        self.token = token
    }
}

extension Keeper {
    /// Has the spare read, or a new worker as soon as it can.
    mutating func startWorker() {
        history.restartAt = .never
        do throws(Errno) {
            if !(try promoteSpare()) {
                dropSpare()
                worker = try launch(tag: Self.channelTag)
            }
            workerIsBehind = false
            try sendGo()
            history.startedAt = MonotonicClock.now()
            deadline = history.startedAt + Self.silenceMax
        } catch {
            log("cannot start a worker: \(error)")
            dropWorker()
            history.restartAt = MonotonicClock.now() + .seconds(1)
        }
    }

    /// A spare saves the time in which a program is loaded and reads its files: nobody hears that a worker died.
    private mutating func promoteSpare() throws(Errno) -> Bool {
        guard let kept = spare.take() else { return false }
        guard kept.isPrepared else {
            forget(kept)
            return false
        }
        reactor.deregister(kept.token)
        let token = try reactor.register(kept.channel.descriptor, for: .readable, tag: Self.channelTag)
        worker = KeptWorker(kept, token)
        return true
    }

    mutating func startSpare(_ now: Instant) {
        spareAt = .never
        do throws(Errno) { spare = try launch(tag: Self.spareTag) } catch {
            log("cannot start a spare worker: \(error)")
            spareAt = now + .seconds(5)
        }
    }

    /// Starts a worker that gets ready and waits.
    mutating func launch(tag: UInt64) throws(Errno) -> KeptWorker {
        let pair = try MessageSocket.pair()
        let end = pair.first
        let child = try ChildProcess.startSelf(
            ["swiftlet-relay", "--worker", "\(Machine.processNumber)"] + arguments, channel: pair.second)
        try end.send([RelayMessage.settings.rawValue], descriptors: [storedSettings.descriptor.rawValue])
        try estate.send(over: end)
        let token = try reactor.register(end.descriptor, for: .readable, tag: tag)
        return KeptWorker(process: child, channel: end, token: token)
    }

    var workerNumber: pid_t {
        switch worker {
        case .some(let worker): worker.process.number
        case .none: 0
        }
    }

    func signalWorker(_ number: CInt) { if workerNumber > 0 { kill(workerNumber, number) } }

    func sendGo() throws(Errno) {
        guard let table = estate.tableNumber else { throw .badDescriptor }
        switch worker {
        case .some(let worker): try worker.channel.send([RelayMessage.go.rawValue], descriptors: [table])
        case .none: break
        }
    }

    /// The next words of a worker; nil when it is gone.
    static func words(of worker: borrowing KeptWorker?, until deadline: Instant = .zero) throws(Errno) -> [UInt8]? {
        switch worker {
        case .some(let worker): try worker.channel.receive(until: deadline)?.bytes
        case .none: nil
        }
    }

    /// The same, with a descriptor that came with them.
    private static func words(of worker: borrowing KeptWorker?, with descriptor: inout FileDescriptor?) throws(Errno) -> [UInt8]? {
        switch worker {
        case .some(let worker):
            guard var message = try worker.channel.receive() else { return nil }
            descriptor = message.descriptors.take(0)
            return message.bytes
        case .none: return nil
        }
    }

    mutating func dropWorker() {
        guard let kept = worker.take() else { return }
        forget(kept)
        workerIsReading = false
        deadline = .never
    }

    mutating func dropSpare() { if let kept = spare.take() { forget(kept) } }

    private mutating func forget(_ kept: consuming KeptWorker) { reactor.deregister(kept.token) }

    private mutating func hearSpare(_ now: Instant) {
        while true {
            let bytes: [UInt8]?
            do throws(Errno) { bytes = try Self.words(of: spare) } catch {
                if error == .wouldBlock { return }
                bytes = nil
            }
            guard let bytes else {
                // It said why. What is wrong now would be wrong when it is needed, so it must be known now.
                log("the spare worker has ended; trying again in 5 s")
                dropSpare()
                spareAt = now + .seconds(5)
                return
            }
            if bytes[0] == RelayMessage.prepared.rawValue { spare?.isPrepared = true }
        }
    }

    /// Everything that the worker has said. A status when the relay ends with it.
    private mutating func hearWorker(_ now: Instant) -> CInt? {
        while true {
            let bytes: [UInt8]?
            var descriptor: FileDescriptor?
            do throws(Errno) { bytes = try Self.words(of: worker, with: &descriptor) } catch {
                if error == .wouldBlock { return nil }
                bytes = nil
            }
            guard let bytes else { return mourn(now) }
            if phase == .serving { deadline = now + Self.silenceMax }
            switch RelayMessage(rawValue: bytes[0]) {
            case .running where bytes.count == 13: noteRunning(bytes.span.bytes)
            case .alive:
                manager.tell("WATCHDOG=1")
                readTableIfItHasChanged()
            case .members: if let descriptor = descriptor.take() { takeMembers(descriptor) }
            default: break
            }
        }
    }

    mutating func noteRunning(_ words: RawSpan) {
        workerIsReading = true
        if workerIsBehind { sendSettings() }
        spareAt = MonotonicClock.now() + .milliseconds(100)
        let (adopted, expired, torn) = (words.u32(1), words.u32(5), words.u32(9))
        if hasRun || adopted > 0 || torn > 0 {
            log("worker process \(workerNumber) goes on with \(adopted) flows; \(expired) had ended, \(torn) were half written")
        }
        guard !hasRun else { return }
        hasRun = true
        announce()
    }

    /// The worker has ended.
    private mutating func mourn(_ now: Instant) -> CInt? {
        let number = workerNumber
        guard let end = reapWorker() else { return nil }
        switch phase {
        case .stopping: return 0
        case .releasing: return release(now)
        case .serving, .offering, .released: break
        }
        guard hasRun else {
            // It said why. What it could not use at the start is the operator's to mend.
            if case .exited(let status) = end { return status == 0 ? 1 : status }
            log("the worker \(end) before it was ready")
            return 1
        }
        if history.note(end, at: now) {
            log("worker process \(number) \(end), again and again: starting with an empty flow table")
            emptyTable()
        } else {
            log("worker process \(number) \(end); starting it again")
        }
        if history.restartAt <= now { startWorker() }
        return nil
    }

    private mutating func reapWorker() -> ChildEnd? {
        guard var kept = worker.take() else { return nil }
        let end = kept.process.waitForEnd()
        reactor.deregister(kept.token)
        workerIsReading = false
        deadline = .never
        return end
    }

    private mutating func emptyTable() {
        guard let table = estate.table.take() else { return }
        if let fresh = try? shape.remake(table) { estate.table = consume fresh } else { estate.table = try? shape.makeAnonymous() }
    }
}

/// How often workers died lately.
struct DeathHistory {
    var startedAt = Instant.zero
    var restartAt = Instant.never
    private var crashes = 0
    private var kills = 0

    /// Notes a death and when to start again: at once, unless many died young. True when what it finds in the table may be the reason.
    mutating func note(_ end: ChildEnd, at now: Instant) -> Bool {
        let wasYoung = now - startedAt < .seconds(1)
        let wasKilled = end == .killed(by: SIGKILL)
        crashes = wasYoung && !wasKilled ? crashes + 1 : 0
        kills = wasYoung ? kills + 1 : 0
        restartAt = crashes < 2 && kills < 20 ? now : now + .milliseconds(Int64(50 << min(max(crashes, 1), 5)))
        return crashes == 3
    }
}

// MARK: - The operator

extension Keeper {
    /// Says that all is there: to whoever reads our output, and to the service manager.
    func announce() {
        var addresses: [String] = []
        for group in 0..<estate.publicCount { if let address = estate.address(ofGroup: group) { addresses.append("\(address)") } }
        let trunk = estate.address(ofGroup: estate.publicCount).map { "\($0)" } ?? "?"
        var streams: [String] = []
        for group in 0..<estate.streamCount { if let address = estate.address(ofStreamGroup: group) { streams.append("\(address)") } }
        let tcp = streams.isEmpty ? "" : ", tcp \(streams.joined(separator: " "))"
        say("swiftlet-relay ready: public \(addresses.joined(separator: " ")), trunk \(trunk)\(tcp), \(estate.workers) workers")
        manager.tell("READY=1\nMAINPID=\(Machine.processNumber)\nSTATUS=\(estate.workers) workers")
    }

    private mutating func takeSignals() -> CInt? {
        while let signal = signals.next() {
            switch signal {
            case .hangup: readSettings()
            case .terminate, .interrupt:
                if phase == .stopping { continue }
                log("stopping")
                manager.tell("STOPPING=1")
                phase = .stopping
                dropSpare()
                spareAt = .never
                history.restartAt = .never
                if worker == nil { return 0 }
                signalWorker(SIGTERM)
                deadline = MonotonicClock.now() + Self.stopPatience
            }
        }
        return nil
    }

    private mutating func losePatience(_ now: Instant) {
        deadline = .never
        switch phase {
        case .serving:
            log("worker process \(workerNumber) says nothing; ending it")
            signalWorker(SIGKILL)
        case .stopping, .releasing: signalWorker(SIGKILL)
        case .offering, .released: loseSuccessor(now, "is too slow")
        }
    }
}

// MARK: - Settings

extension Keeper {
    /// Reads all files again. One that cannot be used changes nothing, and nothing is taken of the others either.
    mutating func readSettings() {
        do throws(ConfigurationError) {
            // Also of one that is refused: it is told of once.
            tableStamp = RelaySettings.stamp(settings.options)
            let fresh = try RelaySettings.read(arguments, members: lines(of: settings.members))
            try fresh.checkThatTheyCanFollow(settings)
            fresh.warnAboutKeyFile()
            storedSettings = try fresh.store()
            settings = fresh
            tableStamp = fresh.tableStamp
        } catch {
            log("\(error); what was read before stays in use")
            if workerIsReading { sendToWorker([RelayMessage.settingsRefused.rawValue]) }
            return
        }
        log("read again: \(settings.summary)")
        useSettings()
    }

    /// Workers get what we have.
    mutating func useSettings() {
        if workerIsReading { sendSettings() } else { workerIsBehind = true }
        // It has old ones.
        dropSpare()
        if phase == .serving, workerIsReading { spareAt = MonotonicClock.now() + .milliseconds(100) }
    }

    private mutating func readTableIfItHasChanged() {
        if RelaySettings.stamp(settings.options) != tableStamp { readSettings() }
    }

    private mutating func sendSettings() {
        workerIsBehind = false
        sendToWorker([RelayMessage.settings.rawValue], descriptors: [storedSettings.descriptor.rawValue])
    }

    /// A worker that takes no message hangs, and will be replaced by one that has all there is.
    private func sendToWorker(_ bytes: [UInt8], descriptors: [CInt] = []) {
        switch worker {
        case .some(let worker): try? worker.channel.send(bytes, descriptors: descriptors)
        case .none: break
        }
    }
}
