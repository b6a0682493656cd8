// The control thread: signaling, page, metrics and the operator's signals. Never on a media worker.

import EventLoop
import HTTP
import Primitives
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
    private var desk: SignalingDesk
    private let signals: SignalSource
    private let waker: Waker
    private let workers: [WorkerLink]
    private let startedAt: Instant
    private let drainTime: Interval
    /// Set while draining: when calls that still run are ended.
    private var drainEnds: Instant?

    private static let signalTag: UInt64 = 2
    private static let wakerTag: UInt64 = 3

    init(
        listener: consuming StreamListener, desk: consuming SignalingDesk, signals: consuming SignalSource, waker: Waker,
        workers: [WorkerLink], limits: HTTPLimits, connectionsMax: Int, drainTime: Interval
    ) throws(Errno) {
        var reactor = try Reactor(capacity: connectionsMax + 16)
        _ = try reactor.register(signals.descriptor, for: .readable, tag: Self.signalTag)
        _ = try reactor.register(waker.descriptor, for: .readable, tag: Self.wakerTag)
        connections = try Connections(listener, capacity: connectionsMax, limits: limits, reactor: &reactor)
        self.reactor = reactor
        self.desk = desk
        self.signals = signals
        self.waker = waker
        self.workers = workers
        self.drainTime = drainTime
        startedAt = MonotonicClock.now()
    }

    /// Serves until the operator wants an end, then tells the workers to say goodbye to everybody.
    ///
    /// SIGINT ends at once. SIGTERM drains: new offers get 503, `/readyz` turns away, running calls go on until they end or the drain time is
    /// over; a second SIGTERM ends at once.
    mutating func run() {
        while turn() {}
        desk.drain()
        for worker in workers { worker.send(.endAll(reason: .shutdown)) }
    }

    /// Takes the operator's signals; false when it is time to end.
    private mutating func obeySignals(_ now: Instant) -> Bool {
        while let signal = signals.next() {
            switch signal {
            case .hangup: continue
            case .interrupt: return false
            case .terminate:
                guard drainEnds == nil else { return false }
                drainEnds = now + drainTime
                desk.drain()
                for worker in workers { worker.send(.drain) }
                say("swiftlet-transceiver: draining \(desk.callCount) calls, \(drainTime.milliseconds / 1000) s at most")
            }
        }
        return true
    }

    private func isDrained(_ now: Instant) -> Bool {
        guard let drainEnds else { return false }
        return desk.callCount == 0 || now >= drainEnds
    }

    /// One turn; false when it is time to end.
    private mutating func turn() -> Bool {
        // Timeouts of idle connections are coarse: a look twice a second is enough.
        reactor.wait(until: MonotonicClock.now() + .milliseconds(workers.contains { $0.hasWaiting } ? 10 : 500))
        let now = MonotonicClock.now()
        while let event = reactor.nextEvent() {
            switch event.tag {
            case Self.signalTag:
                guard obeySignals(now) else { return false }
            case Self.wakerTag: waker.acknowledge()
            case Connections.listenerTag: connections.accept(&reactor, at: now)
            default: serve(event.tag, now)
            }
        }
        hearWorkers()
        while let next = desk.nextCommand() { workers[next.worker].send(next.command) }
        for worker in workers { worker.flush() }
        connections.advance(to: now, &reactor)
        return !isDrained(now)
    }

    private mutating func hearWorkers() {
        for (index, worker) in workers.enumerated() {
            while let event = worker.nextEvent() { desk.receive(event, from: index) }
        }
    }

    private mutating func serve(_ tag: UInt64, _ now: Instant) {
        Self.serve(tag, now, &connections, &reactor, &desk, workers, startedAt)
    }

    private static func serve(
        _ tag: UInt64, _ now: Instant, _ connections: inout Connections, _ reactor: inout Reactor, _ desk: inout SignalingDesk,
        _ workers: [WorkerLink], _ startedAt: Instant
    ) {
        let http = connections.counters
        connections.serve(tag, &reactor, at: now) { request in
            if let answer = desk.answer(request, at: wallClock()) { return answer }
            if let page = Page.answer(request) { return page }
            let probes = ["/healthz", "/readyz", "/metrics"]
            if probes.contains(request.path), !request.isRead { return .onlyGet(request) }
            switch request.path {
            case "/healthz": return .text(200, "ok\n")
            case "/readyz": return desk.acceptsCalls ? .text(200, "ready\n") : .text(503, "not ready: full or draining\n")
            case "/metrics":
                return .text(
                    200, metricsText(workers.map { $0.counters.snapshot() }, desk, http, uptime: now - startedAt),
                    type: "text/plain; version=0.0.4; charset=utf-8")
            default: return .error(404, "There is nothing at \(request.path).", code: "not_found")
            }
        }
    }
}
