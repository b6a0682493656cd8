// The control thread: operator's signals, changed files, and HTTP for probes, Prometheus and the dashboard. Never on a media worker.

import Configuration
import EventLoop
import HTTP
import Primitives
import RelayCore
import Serving
import Telemetry

struct ControlServer: ~Copyable {
    private static let connectionsMax = 64

    private var reactor: Reactor
    private let signals: SignalSource
    private var connections: Connections?
    private var dashboard: Dashboard
    private var panel: ThreadPanel
    private let workers: [WorkerCommands]
    private let transceivers: TransceiverSource
    private var stamp: FileStamp?

    private static let signalTag: UInt64 = 2

    init(
        signals: consuming SignalSource, listener: consuming StreamListener?, workers: [WorkerCommands], transceivers: TransceiverSource,
        stamp: FileStamp?
    ) throws(Errno) {
        var reactor = try Reactor(capacity: Self.connectionsMax + 16, eventsPerTurn: 64)
        _ = try reactor.register(signals.descriptor, for: .readable, tag: Self.signalTag)
        var connections: Connections?
        if let listener = consume listener {
            connections = try Connections(listener, capacity: Self.connectionsMax, limits: Self.limits, reactor: &reactor)
        }
        self.connections = consume connections
        self.reactor = reactor
        self.signals = signals
        dashboard = Dashboard(at: MonotonicClock.now(), wall: wallClock())
        panel = ThreadPanel(count: workers.count)
        self.workers = workers
        self.transceivers = transceivers
        self.stamp = stamp
    }

    /// Nothing here has a body.
    private static var limits: HTTPLimits {
        var limits = HTTPLimits()
        limits.bodyBytes = 1024
        limits.headTime = .seconds(5)
        limits.bodyTime = .seconds(5)
        limits.idleTime = .seconds(15)
        return limits
    }

    /// Serves until SIGTERM or SIGINT.
    mutating func run() {
        while true {
            reactor.wait(until: min(MonotonicClock.now() + .seconds(1), dashboard.nextDeadline))
            let now = MonotonicClock.now()
            while let event = reactor.nextEvent() {
                switch event.tag {
                case Self.signalTag:
                    while let signal = signals.next() {
                        if signal != .hangup { return }
                        reloadTransceivers(always: true)
                    }
                case Connections.listenerTag: connections?.accept(&reactor, at: now)
                default: serve(event.tag, now)
                }
            }
            connections?.advance(to: now, &reactor)
            showDashboard(now)
            reloadTransceivers(always: false)
        }
    }

    /// Reads the table again when its file has changed. A table with an error changes nothing: the old one stays.
    private mutating func reloadTransceivers(always: Bool) {
        guard case .table(let path) = transceivers else { return }
        let current = FileStamp(path)
        guard always || current != stamp else { return }
        stamp = current
        do throws(ConfigurationError) {
            let loaded = try TransceiverDirectory.load(transceivers)
            for worker in workers { worker.replaceTransceivers(loaded.directory) }
            log("transceiver table read again")
            dashboard.mark("transceiver table reloaded", at: wallClock())
        } catch {
            log("transceiver table not taken: \(error)")
            dashboard.mark("transceiver table not taken", at: wallClock())
        }
    }
}

extension ControlServer {
    private mutating func serve(_ tag: UInt64, _ now: Instant) {
        guard var connections = connections.take() else { return }
        let http = connections.counters
        let uptime = dashboard.uptime(at: now)
        connections.serve(tag, &reactor, at: now) { request in
            if let answer = Dashboard.answer(request, page: "/") { return answer }
            switch request.path {
            case "/healthz", "/readyz", "/metrics": break
            default:
                return .response(.error(404, "There are /, /metrics, /healthz and /readyz, not \(request.path).", code: "not_found"))
            }
            guard request.isRead else { return .response(.onlyGet(request)) }
            guard request.path == "/metrics" else { return .response(.text(200, "ok\n")) }
            let readings = Self.read(workers, &panel)
            return .response(.text(200, metricsText(readings, http, uptime: uptime), type: PrometheusText.contentType))
        }
        self.connections = consume connections
    }

    private mutating func showDashboard(_ now: Instant) {
        guard var connections = connections.take() else { return }
        dashboard.advance(to: now, &connections, &reactor) { dashboardReport(Self.read(workers, &panel)) }
        self.connections = consume connections
    }

    private static func read(_ workers: [WorkerCommands], _ panel: inout ThreadPanel) -> [WorkerReading] {
        workers.indices.map { index in
            let vitals = PublishedVitals(workers[index].counters.vitals)
            return WorkerReading(counters: workers[index].counters.snapshot(), vitals: vitals, perf: panel.read(index, vitals))
        }
    }
}
