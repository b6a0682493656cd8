// The dashboard: a page of three files compiled into the program, and once a second a message for everybody who looks at it.

public import EventLoop
public import HTTP
public import Primitives
public import Telemetry

/// Something that happened, to be seen beside the curves.
struct Mark: Sendable {
    let time: WallClock
    let text: String
}

public struct Dashboard: ~Copyable {
    private let startedAt: Instant
    private var marks: [Mark] = []
    private var next: Instant

    private static let interval = Interval.seconds(1)
    private static let marksMax = 50

    public init(at now: Instant, wall: WallClock) {
        startedAt = now
        next = now
        mark("started", at: wall)
    }

    public func uptime(at now: Instant) -> Interval { now - startedAt }

    /// Notes that something happened: a word or two.
    public mutating func mark(_ text: String, at wall: WallClock) {
        if marks.count == Self.marksMax { marks.removeFirst() }
        marks.append(Mark(time: wall, text: text))
    }

    /// When the next message is due; only worth waking up for when somebody listens.
    public var nextDeadline: Instant { next }

    /// Sends a message when one is due and somebody listens.
    public mutating func advance(
        to now: Instant, _ connections: inout Connections, _ reactor: inout Reactor, _ report: () -> DashboardReport
    ) {
        guard next <= now else { return }
        next = now + Self.interval
        guard connections.listenerCount > 0 else { return }
        let message = report().json(marks: marks, uptime: now - startedAt, at: wallClock())
        connections.broadcast(message.utf8, &reactor, at: now)
    }
}

extension Dashboard {
    /// The answer to a request for the page, one of its files or its events; nil for any other path. `page` is where the page is;
    /// it is at `/dashboard` in any case.
    public static func answer(_ request: HTTPRequest, page: String = "/dashboard") -> Answer? {
        let file: (type: String, body: [UInt8])
        switch request.path {
        case page, "/dashboard": file = ("text/html; charset=utf-8", PackageResources.dashboard_html)
        case "/dashboard.js": file = ("text/javascript; charset=utf-8", PackageResources.dashboard_js)
        case "/dashboard.css": file = ("text/css; charset=utf-8", PackageResources.dashboard_css)
        case "/events": return request.isRead ? .events : .response(.onlyGet(request))
        default: return nil
        }
        guard request.isRead else { return .response(.onlyGet(request)) }
        var response = HTTPResponse(status: 200, type: file.type, body: file.body)
        response.headers.set("Cache-Control", "no-cache")
        response.headers.set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'")
        response.headers.set("X-Content-Type-Options", "nosniff")
        return .response(response)
    }
}

/// The kernel's counters of worker threads: opened when a worker has told its number, read when somebody asks.
public struct ThreadPanel: ~Copyable {
    private var counters: Slab<PerfCounters?>
    private var threads: [Int32]

    public init(count: Int) {
        counters = Slab(count: count) { _ in nil }
        threads = [Int32](repeating: 0, count: count)
    }

    /// What is counted for worker `index`; nil as long as it has not told its thread.
    public mutating func read(_ index: Int, _ vitals: PublishedVitals) -> PerfSnapshot? {
        guard vitals.usage.thread != 0 else { return nil }
        if threads[index] != vitals.usage.thread {
            counters[index] = PerfCounters(thread: vitals.usage.thread)
            threads[index] = vitals.usage.thread
        }
        switch counters[index] {
        case .some(let open): return open.read()
        case .none: return nil
        }
    }
}
