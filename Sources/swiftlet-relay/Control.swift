// The control thread: operator's signals, changed files, and HTTP for probes, Prometheus and the dashboard. Never on a media worker.

import Configuration
import EventLoop
import HTTP
import Membership
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
    private let arguments: [String]
    private let keeper: MessageSocket
    private let cache: CacheStatus?
    private var members: MemberReader?
    /// Whom the workers know.
    private var known: [Member]
    /// When the workers were last asked for a sign of life, and how often each had published until then.
    private var pulseAt: Instant
    private var published: [UInt64] = []
    private var drops = DropLog()

    private static let signalTag: UInt64 = 2
    private static let keeperTag: UInt64 = 3
    private static let membersTag: UInt64 = 4

    init(
        signals: consuming SignalSource, listener: consuming StreamListener?, keeper: consuming MessageSocket, workers: [WorkerCommands],
        arguments: [String], cache: CacheStatus?, members: MemberReader?, known: [Member]
    ) throws(Errno) {
        var reactor = try Reactor(capacity: Self.connectionsMax + 16, eventsPerTurn: 64)
        _ = try reactor.register(signals.descriptor, for: .readable, tag: Self.signalTag)
        _ = try reactor.register(keeper.descriptor, for: .readable, tag: Self.keeperTag)
        if let members { _ = try reactor.register(members.waker.descriptor, for: .readable, tag: Self.membersTag) }
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
        self.arguments = arguments
        self.keeper = keeper
        self.cache = cache
        self.members = members
        self.known = known
        pulseAt = MonotonicClock.now()
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
            // Without a listener nobody asks for the dashboard, and its deadline would stay in the past.
            let dashboardDue = connections == nil ? Instant.never : dashboard.nextDeadline
            reactor.wait(until: min(MonotonicClock.now() + .seconds(1), dashboardDue))
            let now = MonotonicClock.now()
            while let event = reactor.nextEvent() {
                switch event.tag {
                case Self.signalTag:
                    while let signal = signals.next() {
                        // Files are the keeper's.
                        if signal != .hangup { return }
                    }
                case Self.keeperTag: hearKeeper()
                case Self.membersTag:
                    members?.waker.acknowledge()
                    members?.tell(keeper, who: known)
                case Connections.listenerTag: connections?.accept(&reactor, at: now)
                default: serve(event.tag, now)
                }
            }
            connections?.advance(to: now, &reactor)
            showDashboard(now)
            tellKeeper(now)
        }
    }

    /// Once a second: that every worker has turned since the last time. A keeper that hears nothing ends us.
    private mutating func tellKeeper(_ now: Instant) {
        guard now >= pulseAt else { return }
        pulseAt = now + .seconds(1)
        let current = workers.map(\.counters.page.generation)
        let allTurn = published.isEmpty || zip(published, current).allSatisfy { $0 != $1 }
        if allTurn { try? keeper.send([RelayMessage.alive.rawValue]) }
        published = current
        for worker in workers { worker.poke() }
        let readings = workers.map { $0.counters.snapshot() }
        drops.advance(to: now) { reason in readings.reduce(0) { $0 &+ $1[reason] } }
        members?.tell(keeper, who: known)
    }

    private mutating func hearKeeper() {
        while true {
            // Its end is ours.
            guard var message = try? keeper.receive() else { return }
            switch RelayMessage(rawValue: message.bytes[0]) {
            case .settings: if let descriptor = message.descriptors.take(0) { take(descriptor) }
            case .settingsRefused: dashboard.mark("settings not taken", at: wallClock())
            default: break
            }
        }
    }

    private mutating func take(_ descriptor: consuming FileDescriptor) {
        do throws(ConfigurationError) {
            let settings = try WorkerProcess.adopt(descriptor, arguments)
            for worker in workers { worker.replace(settings) }
            known = settings.members
            dashboard.mark("settings read again", at: wallClock())
        } catch { log("the keeper's settings: \(error)") }
    }
}

extension ControlServer {
    private mutating func serve(_ tag: UInt64, _ now: Instant) {
        guard var connections = connections.take() else { return }
        let http = connections.counters
        let uptime = dashboard.uptime(at: now)
        let members = members
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
            let text = metricsText(readings, http, uptime: uptime) + cacheText(cache) + memberText(members, now)
            return .response(.text(200, text, type: PrometheusText.contentType))
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
            let peers = PublishedPeers.read(workers[index].counters.peers)
            return WorkerReading(
                counters: workers[index].counters.snapshot(), vitals: vitals, perf: panel.read(index, vitals), peers: peers.relays,
                transceivers: peers.transceivers, streams: workers[index].counters.streams.snapshot())
        }
    }
}

private func memberText(_ members: MemberReader?, _ now: Instant) -> String {
    guard let members else { return "" }
    var text = PrometheusText()
    members.board.current.write(to: &text, prefix: "swiftlet_relay", at: now)
    return text.string
}
