public import Configuration
import Crypto
public import EventLoop
public import Membership
import Primitives
import Redis

/// Everything the thread starts with.
public struct RegistryStart: Sendable {
    let address: RedisAddress
    /// PEM; nil: the system's.
    let authorities: [UInt8]?
    let key: [UInt8]
    let own: Member?
    let known: [Member]
    let board: RegistryBoard
    let log: @Sendable (String) -> Void

    /// - Parameters:
    ///   - authorities: whom to trust about Redis' certificate, in PEM; nil: the system's.
    ///   - passwordKey: of the key file; whoever can write to Redis must not be able to make members.
    ///   - own: who writes itself; nil for one who only reads.
    ///   - known: members of an earlier life, which stay usable.
    public init(
        _ address: RedisAddress, authorities: [UInt8]?, passwordKey: [UInt8], own: Member?, known: [Member] = [], board: RegistryBoard,
        log: @escaping @Sendable (String) -> Void
    ) {
        self.address = address
        self.authorities = authorities
        let digest = HMACSHA256.tag(key: passwordKey.span.bytes, Array("swiftlet members".utf8).span.bytes)
        key = (0..<32).map { digest[$0] }
        self.own = own
        self.known = known
        self.board = board
        self.log = log
    }
}

public struct RegistryThread: ~Copyable {
    private let start: RegistryStart
    private var registry: Registry
    private var reactor: Reactor
    private var socket: RedisSocket
    private var wasOpen = false
    private var redisNews: RedisNews
    private var readAt: Instant?
    private var told: RegistryCounters?
    private var news: MemberNews

    private static let wakerTag: UInt64 = 1
    private static let socketTag: UInt64 = 2

    /// Begins to connect, on a thread of its own, which ends with the process.
    public static func start(_ start: RegistryStart) throws(Errno) -> WorkerThread {
        try WorkerThread.start(name: "members", with: start) { (start: RegistryStart) in
            do throws(Errno) {
                var thread = try RegistryThread(start)
                thread.run()
            } catch { start.log("members: \(error); who is known stays") }
        }
    }

    private init(_ start: RegistryStart) throws(Errno) {
        var reactor = try Reactor(capacity: 4, eventsPerTurn: 4)
        _ = try reactor.register(start.board.waker.descriptor, for: .readable, tag: Self.wakerTag)
        var settings = RegistrySettings()
        settings.redis.user = start.address.user
        settings.redis.password = start.address.password
        settings.redis.database = start.address.database
        let now = MonotonicClock.now()
        registry = Registry(settings: settings, key: start.key, own: start.own, known: start.known, wall: wallClock(), now: now)
        socket = RedisSocket(to: start.address, authorities: start.authorities, tag: Self.socketTag)
        redisNews = RedisNews(of: start.address, log: start.log)
        news = MemberNews(registry.book)
        self.reactor = reactor
        self.start = start
        publish(now)
    }

    private mutating func run() {
        while true {
            reactor.wait(until: registry.nextDeadline.instant)
            let now = MonotonicClock.now()
            while let event = reactor.nextEvent() {
                if event.tag == Self.wakerTag {
                    start.board.waker.acknowledge()
                } else {
                    socket.serve(event, &registry, &reactor, at: now)
                }
            }
            let (load, state) = start.board.described
            registry.describe(load: load, state, at: now)
            registry.advance(to: now)
            socket.proceed(&registry, &reactor, at: now)
            publish(now)
        }
    }

    private mutating func publish(_ now: Instant) {
        let isOpen = registry.isOpen
        redisNews.tell(
            isOpen: isOpen, hasFailed: registry.counters.failures > 0,
            (open: "members are read from \(start.address)", closed: "does not answer; who is known stays"), refusal: registry.refusal,
            complaint: socket.complaint)
        if isOpen != wasOpen {
            wasOpen = isOpen
        } else if registry.readAt == readAt, registry.counters == told {
            return
        }
        readAt = registry.readAt
        told = registry.counters
        if let line = news.line(about: registry.book, at: now) { start.log(line) }
        var view = RegistryBoard.View()
        view.book = registry.book
        view.isOpen = isOpen
        view.readAt = readAt
        view.counters = registry.counters
        start.board.show(view)
    }
}

/// Says who has come, gone or changed since the last line: one line in ten seconds, whatever happens.
struct MemberNews {
    private var told: [MemberID: Member]
    private var nextLine = Instant.zero
    private static let interval = Interval.seconds(10)

    init(_ book: MemberBook) { told = Self.members(of: book) }

    private static func members(of book: MemberBook) -> [MemberID: Member] {
        Dictionary(uniqueKeysWithValues: book.present.map { ($0.id, $0) })
    }

    mutating func line(about book: MemberBook, at now: Instant) -> String? {
        guard now >= nextLine else { return nil }
        let present = Self.members(of: book)
        var changes: [String] = []
        for (id, member) in present {
            guard let old = told[id] else {
                changes.append("+\(id)")
                continue
            }
            if old.trunk != member.trunk || old.signaling != member.signaling { changes.append("\(id) moved") }
            if old.state != member.state { changes.append("\(id) \(member.state.rawValue)") }
        }
        changes += told.keys.filter { present[$0] == nil }.map { "-\($0)" }
        guard !changes.isEmpty else { return nil }
        told = present
        nextLine = now + Self.interval
        let shown = changes.sorted().prefix(8).joined(separator: ", ")
        let rest = changes.count > 8 ? " and \(changes.count - 8) more" : ""
        return "\(present.count) members: \(shown)\(rest)"
    }
}
