// What the control thread's connections are about: signaling, its WebSockets, pages and numbers. It knows who may be told what; the loop knows
// sockets and time.

import EventLoop
import HTTP
import Primitives
import Registrar
import Serving
import Telemetry
import TransceiverCore

struct Office: ~Copyable {
    var desk: SignalingDesk
    var steerer: Steerer?
    var owners: OwnerDoor
    var ledger = IngressLedger()
    private var sockets = SocketBoard()
    private let workers: [WorkerLink]
    private var panel: ThreadPanel

    init(desk: consuming SignalingDesk, steerer: consuming Steerer?, owners: consuming OwnerDoor, workers: [WorkerLink]) {
        self.desk = desk
        self.steerer = steerer
        self.owners = owners
        self.workers = workers
        panel = ThreadPanel(count: workers.count)
    }

    mutating func readings() -> [WorkerReading] {
        workers.indices.map { index in
            let vitals = PublishedVitals(workers[index].counters.vitals)
            return WorkerReading(counters: workers[index].counters.snapshot(), vitals: vitals, perf: panel.read(index, vitals))
        }
    }

    /// The sockets that speak with a session.
    func tags(worker: Int, session: UInt32) -> [UInt64] { sockets.tags(worker: worker, session: session) }
}

// MARK: - Requests

extension Office {
    mutating func respond(
        to request: HTTPRequest, of tag: UInt64, _ http: ConnectionCounters, uptime: Interval, at now: Instant
    ) -> Answer {
        if let answer = owners.answer(request, of: tag, &desk, steerer) { return answer }
        if let answer = signal(request, at: now) { return .response(answer) }
        switch desk.openSocket(request, at: wallClock()) {
        case .refused(let response): return .response(response)
        case .opened(let headers, let target):
            sockets.insert(tag, target)
            return .webSocket(headers)
        case nil: break
        }
        if let page = Page.answer(request) { return .response(page) }
        if let answer = Dashboard.answer(request) { return answer }
        return .response(probe(request, http, uptime: uptime, at: now))
    }

    /// Signaling, with the relays that this client shall find in its answer.
    private mutating func signal(_ request: HTTPRequest, at now: Instant) -> HTTPResponse? {
        guard SignalingDesk.tellsCandidates(request), let choice = steerer?.choose(for: request) else {
            return desk.answer(request, at: wallClock())
        }
        guard var response = desk.answer(request, at: wallClock(), candidates: choice.addresses) else { return nil }
        steerer?.note(choice, on: &response, at: now)
        return response
    }

    mutating func probe(_ request: HTTPRequest, _ http: ConnectionCounters, uptime: Interval, at now: Instant) -> HTTPResponse {
        let probes = ["/healthz", "/readyz", "/metrics"]
        if probes.contains(request.path), !request.isRead { return .onlyGet(request) }
        switch request.path {
        case "/healthz": return .text(200, "ok\n")
        case "/readyz": return desk.acceptsCalls ? .text(200, "ready\n") : .text(503, "not ready: full or draining\n")
        case "/metrics":
            var text = PrometheusText()
            writeMetrics(&text, readings(), desk, http, owners.counters, uptime: uptime)
            owners.registry?.write(to: &text, prefix: "swiftlet_transceiver", at: now)
            ledger.write(to: &text, steerer?.table)
            if let counters = steerer?.counters { writeSteering(&text, counters, steerer?.reports ?? [:]) }
            return .text(200, text.string, type: PrometheusText.contentType)
        default: return .error(404, "There is nothing at \(request.path).", code: "not_found")
        }
    }
}

// MARK: - WebSockets

extension Office {
    mutating func hear(_ tag: UInt64, _ event: SocketEvent, at now: Instant) {
        guard let target = sockets[tag] else { return owners.hear(event, of: tag, at: now) }
        switch event {
        case .opened: desk.begin(target)
        case .text(let text): desk.receive(text, from: target)
        case .isSlow(let isSlow): desk.pause(target, isSlow)
        case .closed: if let last = sockets.remove(tag) { desk.end(last) }
        }
    }
}
