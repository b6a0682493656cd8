// The control thread: signaling, page, metrics and the operator's signals. Never on a media worker.

import Configuration
import EventLoop
import HTTP
import Primitives
import RoutingHint
import Serving
import Telemetry
import TransceiverCore

/// The control thread's end of one worker.
final class WorkerLink {
    private var commands: MailboxSender<WorkerCommand>
    private var events: MailboxReceiver<WorkerEvent>
    private var waiting: [WorkerCommand] = []
    let counters: PublishedCounters

    init(
        _ commands: consuming MailboxSender<WorkerCommand>, _ events: consuming MailboxReceiver<WorkerEvent>, _ counters: PublishedCounters
    ) {
        self.commands = commands
        self.events = events
        self.counters = counters
    }

    /// Queues a command behind those that the worker had no room for.
    func send(_ command: WorkerCommand) {
        waiting.append(command)
        flush()
    }

    func flush() {
        while let command = waiting.first, commands.send(command) == nil { waiting.removeFirst() }
    }

    func nextEvent() -> WorkerEvent? { events.next() }
    var hasWaiting: Bool { !waiting.isEmpty }
}

struct ControlLoop: ~Copyable {
    private var reactor: Reactor
    private var connections: Connections
    private var admin: AdminDoor
    private var office: Office
    private let signals: SignalSource
    private let waker: Waker
    private let workers: [WorkerLink]
    private let apiKeyFile: String?
    private let keyFile: String
    private var ring: KeyRing
    private var draining: Draining
    private var dashboard: Dashboard
    private var drops = DropLog()

    private static let signalTag: UInt64 = 2
    private static let wakerTag: UInt64 = 3

    init(
        listener: consuming StreamListener, admin: consuming StreamListener?, office: consuming Office, signals: consuming SignalSource,
        waker: Waker, workers: [WorkerLink], limits: HTTPLimits, connectionsMax: Int, drainTime: Interval, apiKeyFile: String?,
        keyFile: String, ring: KeyRing
    ) throws(Errno) {
        var reactor = try Reactor(capacity: connectionsMax + OwnerDoor.capacity + AdminDoor.capacity + 16)
        _ = try reactor.register(signals.descriptor, for: .readable, tag: Self.signalTag)
        _ = try reactor.register(waker.descriptor, for: .readable, tag: Self.wakerTag)
        let connections = try Connections(listener, capacity: connectionsMax, limits: limits, reactor: &reactor)
        let admin = try AdminDoor(admin, reactor: &reactor)
        self.connections = connections
        self.admin = admin
        self.reactor = reactor
        self.office = office
        self.signals = signals
        self.waker = waker
        self.workers = workers
        draining = Draining(time: drainTime)
        self.apiKeyFile = apiKeyFile
        self.keyFile = keyFile
        self.ring = ring
        dashboard = Dashboard(at: MonotonicClock.now(), wall: wallClock())
    }

    /// Serves until the operator wants an end, then tells the workers to say goodbye to everybody.
    ///
    /// SIGINT ends at once. SIGTERM and `POST /admin/drain` drain: new offers get 503, `/readyz` turns away, trunk pongs say so, running calls
    /// go on until they end or the drain time is over, of which they are told before. A second SIGTERM ends at once.
    mutating func run() {
        while turn() {}
        draining.finish()
        office.desk.drain()
        for worker in workers { worker.send(.endAll(reason: .shutdown)) }
        // WebSockets hear their goodbye through this thread.
        let patience = MonotonicClock.now() + .milliseconds(500)
        while office.desk.callCount > 0, MonotonicClock.now() < patience { _ = turn() }
    }

    /// Takes the operator's signals; false when it is time to end.
    private mutating func obeySignals(_ now: Instant) -> Bool {
        while let signal = signals.next() {
            switch signal {
            case .hangup:
                readRingAgain()
                readKeysAgain()
                office.steerer?.readAgain()
            case .interrupt: return false
            case .terminate:
                // After `POST /admin/drain` the first one is a service manager's, who does what he always does.
                guard !draining.wasTerminated else { return false }
                draining.wasTerminated = true
                drain(now)
            }
        }
        return true
    }

    private mutating func drain(_ now: Instant) {
        guard draining.begin(at: now) else { return }
        office.desk.drain()
        dashboard.mark("draining", at: wallClock())
        for worker in workers { worker.send(.drain) }
        say("swiftlet-transceiver: draining \(office.desk.callCount) calls, \(draining.time.milliseconds / 1000) s at most")
    }

    /// Tells calls of their end, once; true when there is nothing left to wait for.
    private mutating func advanceDrain(_ now: Instant) -> Bool {
        if let seconds = draining.announcement(at: now) {
            for worker in workers { worker.send(.announceEnd(seconds: seconds)) }
        }
        guard draining.isOver(calls: office.desk.callCount, at: now) else { return false }
        if office.desk.callCount > 0 { say("swiftlet-transceiver: the drain time is over; ending \(office.desk.callCount) calls") }
        return true
    }

    /// SIGHUP: a file that cannot be used changes nothing.
    private mutating func readKeysAgain() {
        guard let apiKeyFile else { return }
        do throws(APIKeyProblem) {
            let keys = try readAPIKeyFile(apiKeyFile)
            office.desk.replace(keys: keys)
            say("swiftlet-transceiver: \(keys.count) API keys read from \(apiKeyFile)")
        } catch {
            complain("swiftlet-transceiver: \(error); the keys of before stay")
        }
    }

    private mutating func readRingAgain() {
        do throws(ConfigurationError) {
            let fresh = try readKeyRing(keyFile)
            // Relays, and calls that run, know the old ones.
            if let problem = fresh.problem(following: ring) { throw ConfigurationError("--key-file: \(keyFile): \(problem)") }
            office.desk.replace(ring: fresh)
            ring = fresh
            for worker in workers { worker.send(.replaceTrunkKeys(fresh.trunkKey, accepted: fresh.acceptedTrunkKey)) }
            office.steerer?.replace(keys: fresh)
            let trunk = fresh.acceptedTrunkKey == nil ? "" : " and 2 trunk keys"
            say("swiftlet-transceiver: \(fresh.hintKeys.count) hint keys\(trunk) read from \(keyFile)")
        } catch {
            complain("swiftlet-transceiver: \(error); the keys of before stay")
        }
    }

    /// One turn; false when it is time to end.
    private mutating func turn() -> Bool {
        // Timeouts of idle connections are coarse: a look twice a second is enough.
        let patience = MonotonicClock.now() + .milliseconds(workers.contains { $0.hasWaiting } ? 10 : 500)
        reactor.wait(until: min(dashboard.nextDeadline, office.owners.nextDeadline, draining.nextDeadline, patience))
        let now = MonotonicClock.now()
        let uptime = dashboard.uptime(at: now)
        while let event = reactor.nextEvent() {
            switch event.tag {
            case Self.signalTag:
                guard obeySignals(now) else { return false }
            case Self.wakerTag: waker.acknowledge()
            case Connections.listenerTag: connections.accept(&reactor, at: now)
            case AdminDoor.listenerTag, AdminDoor.tags: serveAdmin(event.tag, now)
            case OwnerDoor.firstTag...: office.owners.serve(event, &reactor, at: now)
            default: Self.serve(event.tag, now, &connections, &reactor, &office, uptime)
            }
        }
        hearWorkers(now)
        office.steerer?.advance(to: now)
        drops.advance(to: now, workers)
        office.owners.describe(load: office.desk.callCount, isDraining: draining.isDraining)
        office.owners.advance(to: now, &reactor)
        while let outcome = office.owners.nextOutcome() { Self.deliver(outcome, now, &connections, &reactor, &office, uptime) }
        Self.advance(&connections, &reactor, &office, now)
        admin.advance(to: now, &reactor)
        while let next = office.desk.nextCommand() { workers[next.worker].send(next.command) }
        let isDrained = advanceDrain(now)
        for worker in workers { worker.flush() }
        Self.show(&dashboard, &connections, &reactor, &office, now)
        return !isDrained
    }

    private mutating func serveAdmin(_ tag: UInt64, _ now: Instant) {
        let isAsked = Self.serveAdmin(tag, &admin, &reactor, &office, draining, connections.counters, dashboard.uptime(at: now), now)
        if isAsked { drain(now) }
    }

    private static func serveAdmin(
        _ tag: UInt64, _ admin: inout AdminDoor, _ reactor: inout Reactor, _ office: inout Office, _ draining: Draining,
        _ http: ConnectionCounters, _ uptime: Interval, _ now: Instant
    ) -> Bool {
        admin.serve(tag, &reactor, at: now, calls: office.desk.callCount, draining) { office.probe($0, http, uptime: uptime, at: now) }
    }

    private mutating func hearWorkers(_ now: Instant) {
        for (index, worker) in workers.enumerated() {
            while let event = worker.nextEvent() {
                office.desk.receive(event, from: index)
                Self.tellSockets(event, index, &connections, &reactor, &office, now)
            }
        }
    }
}

// MARK: - Connections. Static: the loop lends out its parts one by one.

extension ControlLoop {
    private static func serve(
        _ tag: UInt64, _ now: Instant, _ connections: inout Connections, _ reactor: inout Reactor, _ office: inout Office,
        _ uptime: Interval
    ) {
        let http = connections.counters
        connections.serve(tag, &reactor, at: now) { request in
            office.respond(to: request, of: tag, http, uptime: uptime, at: now)
        } socket: {
            office.hear($0, $1, at: now)
        }
    }

    /// A session's events go to every socket that speaks with it; its end is theirs.
    private static func tellSockets(
        _ event: WorkerEvent, _ worker: Int, _ connections: inout Connections, _ reactor: inout Reactor, _ office: inout Office,
        _ now: Instant
    ) {
        switch event {
        case .connected: return
        case .path(let report): office.ledger.note(report)
        case .serverEvent(let session, let text):
            for tag in office.tags(worker: worker, session: session) {
                connections.send(text, to: tag, &reactor, at: now) { office.hear($0, $1, at: now) }
            }
        case .ended(let session, let reason):
            for tag in office.tags(worker: worker, session: session) {
                let goesAway = reason == .shutdown || reason == .tableFull
                connections.endSocket(
                    tag, code: goesAway ? 1001 : 1000, reason: "The session has ended: \(reason).", &reactor, at: now
                ) { office.hear($0, $1, at: now) }
            }
        }
    }

    /// What another transceiver has said, to the client that waits for it.
    private static func deliver(
        _ outcome: ForwardOutcome, _ now: Instant, _ connections: inout Connections, _ reactor: inout Reactor, _ office: inout Office,
        _ uptime: Interval
    ) {
        let http = connections.counters
        func reply(_ client: UInt64, _ answer: Answer) -> Bool {
            connections.reply(to: client, answer, &reactor, at: now) { request in
                office.respond(to: request, of: client, http, uptime: uptime, at: now)
            } socket: {
                office.hear($0, $1, at: now)
            }
        }
        switch outcome {
        case .response(let client, let response): _ = reply(client, .response(response))
        case .opened(let client, let headers):
            if !reply(client, .webSocket(headers)) { office.hear(client, .closed, at: now) }
        case .text(let client, let text): connections.send(text, to: client, &reactor, at: now) { office.hear($0, $1, at: now) }
        case .closed(let client, let code, let reason):
            connections.endSocket(client, code: code, reason: reason, &reactor, at: now) { office.hear($0, $1, at: now) }
        }
    }

    private static func advance(_ connections: inout Connections, _ reactor: inout Reactor, _ office: inout Office, _ now: Instant) {
        connections.advance(to: now, &reactor) { office.hear($0, $1, at: now) }
    }

    private static func show(
        _ dashboard: inout Dashboard, _ connections: inout Connections, _ reactor: inout Reactor, _ office: inout Office, _ now: Instant
    ) {
        let (calls, connected, callsMax) = (office.desk.callCount, office.desk.connectedCount, office.desk.callsMax)
        let ingresses = office.steerer?.reports ?? [:]
        dashboard.advance(to: now, &connections, &reactor) {
            dashboardReport(
                office.readings(), calls: calls, connected: connected, callsMax: callsMax, ingresses: ingresses)
        }
    }
}
