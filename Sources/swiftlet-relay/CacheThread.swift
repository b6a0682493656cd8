// The thread that speaks with Redis. It owns the connection and may wait for it, for a name server, or for ever: workers only look into
// mailboxes, and what does not fit into one is dropped. Nobody waits for this thread, neither at the start nor at the end.

import Configuration
import Crypto
import EventLoop
import FlowCache
import Primitives
import Registrar
import RelayCore
import RoutingHint
import Synchronization
import Telemetry

/// One message between a worker and the cache's thread; the ufrag of a question or a refusal is nobody's.
struct CacheMessage: Sendable {
    enum Kind: UInt8 { case remember, lookUp, found, missed, unanswered }
    var kind: Kind
    var source: SocketAddress
    var ufrag: Ufrag
}

/// What everybody may know of the cache.
final class CacheStatus: Sendable {
    let isOpen = Atomic<Bool>(false)
    let page = CounterPage(count: CacheStatus.wordCount)
    static let wordCount = 11
}

/// A worker's ends of its mailboxes.
struct CacheAccess: ~Copyable, Sendable {
    var requests: MailboxSender<CacheMessage>
    var answers: MailboxReceiver<CacheMessage>
    let status: CacheStatus
}

/// The thread's ends of the same.
struct CacheClient: ~Copyable, Sendable {
    var requests: MailboxReceiver<CacheMessage>
    var answers: MailboxSender<CacheMessage>
}

/// Everything the thread starts with.
struct CacheStart: ~Copyable, Sendable {
    let address: RedisAddress
    /// PEM; nil: the system's.
    let authorities: [UInt8]?
    let key: [UInt8]
    let waker: Waker
    let status = CacheStatus()
    var clients: Slab<CacheClient?>
    /// Requests and answers of one worker that may wait.
    private static let capacity = 4_096

    init(_ address: RedisAddress, authorities: [UInt8]?, keys: KeyRing, workers: Int) throws(Errno) {
        self.address = address
        self.authorities = authorities
        // Whoever can write to Redis must not be able to make flows: this needs the key file.
        let digest = HMACSHA256.tag(key: keys.passwordKey.span.bytes, Array("swiftlet flow cache".utf8).span.bytes)
        key = (0..<32).map { digest[$0] }
        waker = try Waker()
        clients = Slab(count: workers) { _ in nil }
    }

    /// The mailboxes of worker `number`; `waker` is how it is woken.
    mutating func connect(_ number: Int, waking worker: Waker) -> CacheAccess {
        let requests = Mailbox.make(of: CacheMessage.self, capacity: Self.capacity, waking: waker)
        let answers = Mailbox.make(of: CacheMessage.self, capacity: Self.capacity, waking: worker)
        clients[number] = CacheClient(requests: requests.receiver, answers: answers.sender)
        return CacheAccess(requests: requests.sender, answers: answers.receiver, status: status)
    }
}

struct CacheThread: ~Copyable {
    private let address: RedisAddress
    private let status: CacheStatus
    private let waker: Waker
    private var clients: Slab<CacheClient?>
    private var cache: FlowCache
    private var reactor: Reactor
    private var socket: RedisSocket
    private var news: RedisNews
    /// Which worker asked.
    private var askers: [SocketAddress: Int] = [:]

    private static let wakerTag: UInt64 = 1
    private static let socketTag: UInt64 = 2

    /// Begins to connect, on a thread of its own.
    static func start(_ start: consuming CacheStart) throws(Errno) -> WorkerThread {
        try WorkerThread.start(name: "relay-cache", with: start) { (start: consuming CacheStart) in
            do throws(Errno) {
                var thread = try CacheThread(start)
                thread.run()
            } catch { log("redis: \(error); flows are not remembered") }
        }
    }

    private init(_ start: consuming CacheStart) throws(Errno) {
        var reactor = try Reactor(capacity: 4, eventsPerTurn: 4)
        _ = try reactor.register(start.waker.descriptor, for: .readable, tag: Self.wakerTag)
        var settings = FlowCacheSettings()
        settings.user = start.address.user
        settings.password = start.address.password
        settings.database = start.address.database
        address = start.address
        socket = RedisSocket(to: start.address, authorities: start.authorities, tag: Self.socketTag)
        news = RedisNews(of: start.address) { log($0) }
        status = start.status
        waker = start.waker
        cache = FlowCache(settings: settings, key: start.key, now: MonotonicClock.now())
        self.reactor = reactor
        clients = start.clients
    }

    private mutating func run() {
        while true {
            reactor.wait(until: cache.nextDeadline.instant)
            let now = MonotonicClock.now()
            while let event = reactor.nextEvent() {
                if event.tag == Self.wakerTag { waker.acknowledge() } else { socket.serve(event, &cache, &reactor, at: now) }
            }
            takeRequests(now)
            cache.advance(to: now)
            socket.proceed(&cache, &reactor, at: now)
            answer()
            publish()
        }
    }
}

// MARK: - Workers

extension CacheThread {
    private mutating func takeRequests(_ now: Instant) {
        for number in 0..<clients.count {
            // So many in a turn, that answers are not kept waiting.
            for _ in 0..<1024 {
                guard let request = clients[number]?.requests.next() else { break }
                if request.kind == .remember {
                    cache.remember(request.source, ufrag: Array(request.ufrag.description.utf8), at: now)
                } else {
                    askers[request.source] = number
                    cache.lookUp(request.source, at: now)
                }
            }
        }
    }

    private mutating func answer() {
        while let event = cache.nextEvent() {
            switch event {
            case .found(let source, let ufrag):
                guard let ufrag = Ufrag(ufrag.span.bytes) else { continue }
                send(CacheMessage(kind: .found, source: source, ufrag: ufrag))
            case .missed(let source): send(CacheMessage(kind: .missed, source: source, ufrag: .none))
            case .unanswered(let source): send(CacheMessage(kind: .unanswered, source: source, ufrag: .none))
            }
        }
    }

    private mutating func send(_ message: CacheMessage) {
        guard let number = askers.removeValue(forKey: message.source) else { return }
        // A worker that does not look finds its packets gone in time.
        _ = clients[number]?.answers.send(message)
    }

    private mutating func publish() {
        let isOpen = cache.isOpen
        news.tell(
            isOpen: isOpen, hasFailed: cache.counters.failures > 0,
            (open: "flows are remembered in \(address)", closed: "does not answer; calls go on without it"), refusal: cache.refusal,
            complaint: socket.complaint)
        status.isOpen.store(isOpen, ordering: .relaxed)
        let counters = cache.counters
        let words: InlineArray<11, UInt64> = [
            isOpen ? 1 : 0, counters.hits, counters.misses, counters.timeouts, counters.forged, counters.refusedByRate,
            counters.refusedByNegative, counters.writes, counters.writesDropped, counters.serverErrors, counters.failures,
        ]
        status.page.publish(words.span)
    }
}

// MARK: - What Prometheus reads

/// Nothing without a cache.
func cacheText(_ status: CacheStatus?) -> String {
    guard let words = status?.page.snapshot() else { return "" }
    var text = PrometheusText()
    text.gauge("swiftlet_relay_cache_open", "Whether the flow cache answers: 0 or 1.", Double(words[0]))
    let lookups = "swiftlet_relay_cache_lookups_total"
    text.family(lookups, "Sources that the flow cache was asked about, by what came of it.", .counter)
    for (index, result) in [(1, "hit"), (2, "miss"), (3, "timeout"), (5, "rate"), (6, "negative")] {
        text.sample(lookups, [("result", result)], words[index])
    }
    text.counter("swiftlet_relay_cache_forged_total", "Values in the flow cache that are not ours about their source.", words[4])
    text.counter("swiftlet_relay_cache_writes_total", "Flows written to the flow cache, or written again.", words[7])
    text.counter("swiftlet_relay_cache_writes_dropped_total", "Flows given up because the flow cache took none for too long.", words[8])
    text.counter("swiftlet_relay_cache_server_errors_total", "Errors that Redis answered with.", words[9])
    text.counter("swiftlet_relay_cache_failures_total", "Connections to Redis that failed or fell silent.", words[10])
    return text.string
}
