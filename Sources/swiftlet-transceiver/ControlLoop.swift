// The control thread: signaling, page, metrics and the operator's signals. Never on a media worker.

import EventLoop
import HTTP
import Primitives
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
    private var desk: SignalingDesk
    private let signals: SignalSource
    private let waker: Waker
    private let workers: [WorkerLink]
    private let drainTime: Interval
    /// Set while draining: when calls that still run are ended.
    private var drainEnds: Instant?
    private var dashboard: Dashboard
    private var panel: ThreadPanel

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
        dashboard = Dashboard(at: MonotonicClock.now(), wall: wallClock())
        panel = ThreadPanel(count: workers.count)
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
                dashboard.mark("draining", at: wallClock())
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
        reactor.wait(
            until: min(dashboard.nextDeadline, MonotonicClock.now() + .milliseconds(workers.contains { $0.hasWaiting } ? 10 : 500)))
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
        Self.show(&dashboard, &connections, &reactor, desk, &panel, workers, now)
        return !isDrained(now)
    }

    private mutating func hearWorkers() {
        for (index, worker) in workers.enumerated() {
            while let event = worker.nextEvent() { desk.receive(event, from: index) }
        }
    }

    private static func show(
        _ dashboard: inout Dashboard, _ connections: inout Connections, _ reactor: inout Reactor, _ desk: borrowing SignalingDesk,
        _ panel: inout ThreadPanel, _ workers: [WorkerLink], _ now: Instant
    ) {
        let (calls, connected, callsMax) = (desk.callCount, desk.connectedCount, desk.callsMax)
        dashboard.advance(to: now, &connections, &reactor) {
            dashboardReport(read(workers, &panel), calls: calls, connected: connected, callsMax: callsMax)
        }
    }

    private static func read(_ workers: [WorkerLink], _ panel: inout ThreadPanel) -> [WorkerReading] {
        workers.indices.map { index in
            let vitals = PublishedVitals(workers[index].counters.vitals)
            return WorkerReading(counters: workers[index].counters.snapshot(), vitals: vitals, perf: panel.read(index, vitals))
        }
    }

    private mutating func serve(_ tag: UInt64, _ now: Instant) {
        Self.serve(tag, now, &connections, &reactor, &desk, workers, &panel, dashboard.uptime(at: now))
    }

    private static func serve(
        _ tag: UInt64, _ now: Instant, _ connections: inout Connections, _ reactor: inout Reactor, _ desk: inout SignalingDesk,
        _ workers: [WorkerLink], _ panel: inout ThreadPanel, _ uptime: Interval
    ) {
        let http = connections.counters
        connections.serve(tag, &reactor, at: now) { request in
            if let answer = desk.answer(request, at: wallClock()) { return .response(answer) }
            if let page = Page.answer(request) { return .response(page) }
            if let answer = Dashboard.answer(request) { return answer }
            let probes = ["/healthz", "/readyz", "/metrics"]
            if probes.contains(request.path), !request.isRead { return .response(.onlyGet(request)) }
            switch request.path {
            case "/healthz": return .response(.text(200, "ok\n"))
            case "/readyz":
                return .response(desk.acceptsCalls ? .text(200, "ready\n") : .text(503, "not ready: full or draining\n"))
            case "/metrics":
                let text = metricsText(read(workers, &panel), desk, http, uptime: uptime)
                return .response(.text(200, text, type: PrometheusText.contentType))
            default: return .response(.error(404, "There is nothing at \(request.path).", code: "not_found"))
            }
        }
    }
}
