// FlowCache: a relay's memory outside itself. When a host is lost, the next relay that sees one of its clients asks Redis which session the
// source address belonged to, instead of waiting for the client's next STUN check.
//
// Redis is a hint, never the truth. A value is authentic (MAC under a key that only relays have) and carries the ufrag it was made from; the
// relay opens that ufrag like one from a STUN check and believes nothing else. Slow, wrong, flushed or gone: a miss, and no packet waits
// for longer than the lookup's deadline.
//
// `FlowCache` is a machine without I/O: bytes from the connection in, bytes for the connection out, found and missed flows as events. The
// protocol itself is hiredis's reader and formatter.

import CHiredis
import Crypto
public import Primitives

/// How the cache behaves; every number is a bound.
public struct FlowCacheSettings: Sendable {
    /// In front of every key, so that deployments can share a server.
    public var prefix = "swiftlet:flow:"
    /// How long Redis keeps an entry, in seconds; refreshed at half of it.
    public var timeToLive = 120
    /// A lookup without answer by then is a miss.
    public var lookupDeadline = Interval.milliseconds(50)
    /// Lookups under way at once.
    public var lookupsMax = 1_024
    /// Lookups a second, and in one burst.
    public var lookupsPerSecond = 10_000
    /// Writes that wait for the connection; the oldest is dropped first.
    public var writesMax = 4_096
    /// How long a source that was not found is not asked for again.
    public var negativeLifetime = Interval.seconds(2)
    /// Sources remembered as not found.
    public var negativesMax = 4_096
    /// After a failure the connection is tried again after this long, doubling up to 30 s.
    public var retryDelay = Interval.milliseconds(100)
    /// No answer at all for this long while something is asked: the server hangs.
    public var silenceMax = Interval.seconds(1)
    /// Nothing to ask for this long: the server is asked whether it lives.
    public var pingInterval = Interval.seconds(5)
    public var user: String?
    public var password: String?
    public var database = 0
    public init() {}
}

/// What comes out of the machine.
public enum FlowCacheEvent: Sendable, Equatable {
    /// The cache knows the source. `ufrag` (32 ice-chars) is authentic as a cache entry; the relay still opens it as a hint.
    case found(SocketAddress, ufrag: [UInt8])
    /// It does not: no entry, or one that is not ours.
    case missed(SocketAddress)
    /// Nobody could say: no connection, too many lookups, or no answer in time.
    case unanswered(SocketAddress)
}

/// What the owner of the connection is to do.
public enum FlowCacheConnection: Sendable, Equatable {
    case connect
    case close
}

public struct FlowCacheCounters: Sendable, Equatable {
    public var hits: UInt64 = 0
    public var misses: UInt64 = 0
    public var timeouts: UInt64 = 0
    /// Values that were not ours: wrong type, length, version or MAC.
    public var forged: UInt64 = 0
    public var refusedByRate: UInt64 = 0
    public var refusedByNegative: UInt64 = 0
    public var writes: UInt64 = 0
    public var writesDropped: UInt64 = 0
    /// Errors that Redis answered with: READONLY, OOM, NOAUTH, WRONGTYPE, …
    public var serverErrors: UInt64 = 0
    public var failures: UInt64 = 0
    public init() {}
}

/// The machine. One per relay, on the control thread; workers reach it by mailboxes.
public struct FlowCache: ~Copyable {
    enum State {
        case idle(until: Instant)
        case connecting(since: Instant)
        /// Connected, but it has not answered yet: a stopped process accepts connections too.
        case greeting(since: Instant)
        case open
    }

    /// Commands under way: replies come in their order.
    struct Pipeline {
        private var commands: [Asked] = []
        private var answered = 0
        var count: Int { commands.count - answered }
        var isEmpty: Bool { count == 0 }
        mutating func append(_ command: Asked) { commands.append(command) }
        /// Not for an empty one.
        mutating func next() -> Asked {
            answered += 1
            let command = commands[answered - 1]
            if answered == commands.count || answered >= 1_024 {
                commands.removeFirst(answered)
                answered = 0
            }
            return command
        }
    }

    enum Asked {
        case setup
        case greeting
        case write
        case lookup(SocketAddress)
    }

    private let settings: FlowCacheSettings
    private var codec: FlowRecordCodec
    private var state: State
    private var reader: ReplyReader
    private var retryDelay: Interval
    private var output: [UInt8] = []
    /// Commands whose replies are still to come, in order.
    private var asked = Pipeline()
    private var lookups: [SocketAddress: Instant] = [:]
    private var writes: [(source: SocketAddress, ufrag: [UInt8])] = []
    private var negatives: [SocketAddress: Instant] = [:]
    private var tokens: Double
    private var tokensAt: Instant
    private var heardAt: Instant
    /// The time of the last call.
    private var clock: Instant
    private var events: [FlowCacheEvent] = []
    private var eventsTaken = 0
    private var orders: [FlowCacheConnection] = []
    public private(set) var counters = FlowCacheCounters()

    /// - Parameter key: known to all relays of the deployment, 16 bytes or more.
    public init(settings: FlowCacheSettings, key: [UInt8], now: Instant) {
        self.settings = settings
        codec = FlowRecordCodec(key: key)
        state = .idle(until: now)
        reader = ReplyReader()
        retryDelay = settings.retryDelay
        tokens = Double(settings.lookupsPerSecond)
        tokensAt = now
        heardAt = now
        clock = now
    }

    /// Whether a lookup has any chance now: while false, every one is unanswered at once.
    public var isOpen: Bool {
        if case .open = state { return true }
        return false
    }
}

// MARK: - From the relay

extension FlowCache {
    /// A flow was confirmed, or is still alive: written behind.
    public mutating func remember(_ source: SocketAddress, ufrag: [UInt8], at now: Instant) {
        clock = now
        negatives[source] = nil
        if writes.count >= settings.writesMax {
            writes.removeFirst(settings.writesMax / 8)
            counters.writesDropped += UInt64(settings.writesMax / 8)
        }
        writes.append((source, ufrag))
        flush()
    }

    /// Asks for an unknown source. The answer is an event, at the latest at the lookup's deadline.
    public mutating func lookUp(_ source: SocketAddress, at now: Instant) {
        if lookups[source] != nil { return }
        if let until = negatives[source], now < until {
            counters.refusedByNegative += 1
            events.append(.missed(source))
            return
        }
        refill(at: now)
        guard isOpen, lookups.count < settings.lookupsMax, tokens >= 1 else {
            counters.refusedByRate += 1
            events.append(.unanswered(source))
            return
        }
        tokens -= 1
        clock = now
        lookups[source] = now + settings.lookupDeadline
        ask(.lookup(source), ["GET".utf8Bytes, key(of: source)])
    }

    private mutating func refill(at now: Instant) {
        let rate = Double(settings.lookupsPerSecond)
        tokens = min(rate, tokens + (now - tokensAt).seconds * rate)
        tokensAt = now
    }

    private func key(of source: SocketAddress) -> [UInt8] { Array((settings.prefix + source.description).utf8) }
}

// MARK: - From the connection

extension FlowCache {
    /// The connection stands: log in, choose the database, and go on.
    public mutating func connected(at now: Instant) {
        guard case .connecting = state else { return }
        state = .greeting(since: now)
        clock = now
        if let password = settings.password {
            ask(
                .setup,
                settings.user.map { ["AUTH".utf8Bytes, Array($0.utf8), Array(password.utf8)] } ?? ["AUTH".utf8Bytes, Array(password.utf8)])
        }
        if settings.database != 0 { ask(.setup, ["SELECT".utf8Bytes, Array(String(settings.database).utf8)]) }
        ask(.greeting, ["PING".utf8Bytes])
    }

    /// The connection failed or was closed by the other side.
    public mutating func disconnected(at now: Instant) { fail(at: now, close: false) }

    /// Bytes from the connection, in any pieces.
    public mutating func receive(_ bytes: RawSpan, at now: Instant) {
        guard isConnected else { return }
        heardAt = now
        clock = now
        guard reader.feed(bytes) else {
            fail(at: now, close: true)
            return
        }
        defer { flush() }
        while true {
            switch reader.next() {
            case .incomplete: return
            case .broken:
                fail(at: now, close: true)
                return
            case .reply(let reply):
                guard !asked.isEmpty else {
                    fail(at: now, close: true)
                    return
                }
                take(reply, for: asked.next(), at: now)
                guard isConnected else { return }
            }
        }
    }

    private mutating func take(_ reply: Reply, for asked: Asked, at now: Instant) {
        if case .error = reply { counters.serverErrors += 1 }
        switch asked {
        case .write: break
        case .setup:
            // Without login or database every answer would be about something else.
            if case .error = reply { fail(at: now, close: true) }
        case .greeting:
            // LOADING, NOPERM, MASTERDOWN, …: later perhaps.
            guard case .other = reply else { return fail(at: now, close: true) }
            state = .open
            retryDelay = settings.retryDelay
        case .lookup(let source):
            guard lookups.removeValue(forKey: source) != nil else { return }  // answered after its deadline
            guard case .string(let value) = reply, let ufrag = codec.open(value, of: source) else {
                if case .string = reply { counters.forged += 1 }
                if case .other = reply { counters.forged += 1 }
                miss(source, at: now)
                return
            }
            counters.hits += 1
            events.append(.found(source, ufrag: ufrag))
        }
    }

    private mutating func miss(_ source: SocketAddress, at now: Instant) {
        counters.misses += 1
        if negatives.count >= settings.negativesMax { negatives.removeAll(keepingCapacity: true) }
        negatives[source] = now + settings.negativeLifetime
        events.append(.missed(source))
    }

    private mutating func fail(at now: Instant, close: Bool) {
        counters.failures += 1
        if close { orders.append(.close) }
        state = .idle(until: now + retryDelay)
        retryDelay = min(retryDelay * 2, .seconds(30))
        reader = ReplyReader()
        output = []
        asked = Pipeline()
        for source in lookups.keys.sorted(by: { $0.description < $1.description }) { events.append(.unanswered(source)) }
        lookups = [:]
    }
}

// MARK: - Time and output

extension FlowCache {
    public mutating func advance(to now: Instant) {
        clock = now
        switch state {
        case .idle(let until):
            guard now >= until else { return }
            state = .connecting(since: now)
            orders.append(.connect)
        case .connecting(let since), .greeting(let since):
            if now - since >= settings.silenceMax { fail(at: now, close: true) }
        case .open:
            for (source, deadline) in lookups.sorted(by: { ($0.value, $0.key.description) < ($1.value, $1.key.description) })
            where deadline <= now {
                lookups[source] = nil
                counters.timeouts += 1
                events.append(.unanswered(source))
            }
            if !asked.isEmpty, now - heardAt >= settings.silenceMax {
                fail(at: now, close: true)
            } else if asked.isEmpty, now - heardAt >= settings.pingInterval {
                ask(.write, ["PING".utf8Bytes])
            }
        }
    }

    public var nextDeadline: Deadline {
        switch state {
        case .idle(let until): return Deadline(until, "redis reconnect")
        case .connecting(let since), .greeting(let since): return Deadline(since + settings.silenceMax, "redis connect")
        case .open:
            let lookup = Deadline(lookups.values.min() ?? .never, "redis lookup")
            let silence =
                asked.isEmpty
                ? Deadline(heardAt + settings.pingInterval, "redis ping") : Deadline(heardAt + settings.silenceMax, "redis silence")
            return .soonest(lookup, silence)
        }
    }

    public mutating func nextEvent() -> FlowCacheEvent? {
        guard eventsTaken < events.count else {
            events.removeAll(keepingCapacity: true)
            eventsTaken = 0
            return nil
        }
        eventsTaken += 1
        return events[eventsTaken - 1]
    }
    public mutating func nextOrder() -> FlowCacheConnection? { orders.isEmpty ? nil : orders.removeFirst() }

    /// Bytes for the connection. `sent(_:)` tells how many of them it took.
    public var pendingOutput: [UInt8] { output }
    public mutating func sent(_ count: Int) {
        output.removeFirst(min(count, output.count))
        flush()
    }

    /// Moves waiting writes into the pipeline while it is short: a server that does not read cannot make it grow.
    private mutating func flush() {
        guard isOpen else { return }
        let lifetime = Array(String(settings.timeToLive).utf8)
        var written = 0
        while written < writes.count, output.count < 65_536, asked.count < 1_024 {
            let (source, ufrag) = writes[written]
            written += 1
            ask(.write, ["SET".utf8Bytes, key(of: source), codec.seal(ufrag, of: source), "EX".utf8Bytes, lifetime])
        }
        writes.removeFirst(written)
        counters.writes += UInt64(written)
    }

    private var isConnected: Bool {
        switch state {
        case .greeting, .open: true
        case .idle, .connecting: false
        }
    }

    private mutating func ask(_ kind: Asked, _ command: [[UInt8]]) {
        if asked.isEmpty { heardAt = clock }
        asked.append(kind)
        formatCommand(command, into: &output)
    }
}

extension String {
    var utf8Bytes: [UInt8] { Array(utf8) }
}
