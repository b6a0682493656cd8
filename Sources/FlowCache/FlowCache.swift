// FlowCache: a relay's memory outside itself. When a host is lost, the next relay that sees one of its clients asks Redis which session the
// source address belonged to, instead of waiting for the client's next STUN check.
//
// Redis is a hint, never the truth. A value is authentic (MAC under a key that only relays have) and carries the ufrag it was made from; the
// relay opens that ufrag like one from a STUN check and believes nothing else. Slow, wrong, flushed or gone: a miss, and no packet waits
// for longer than the lookup's deadline.
//
// `FlowCache` is a machine without I/O around a `RedisClient`: bytes from the connection in, bytes for the connection out, found and missed
// flows as events.

import Crypto
public import Primitives
public import Redis

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
public typealias FlowCacheConnection = RedisOrder

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
public struct FlowCache: ~Copyable, RedisMachine {
    enum Asked {
        case write
        case lookup(SocketAddress)
    }

    private let settings: FlowCacheSettings
    private var codec: FlowRecordCodec
    private var client: RedisClient<Asked>
    private var lookups: [SocketAddress: Instant] = [:]
    private var writes: [(source: SocketAddress, ufrag: [UInt8])] = []
    private var negatives: [SocketAddress: Instant] = [:]
    private var tokens: Double
    private var tokensAt: Instant
    /// The time of the last call.
    private var clock: Instant
    private var events: [FlowCacheEvent] = []
    private var eventsTaken = 0
    private var tally = FlowCacheCounters()
    /// Why Redis does not let us in, in its own words; nil when it does, or says nothing.
    public var refusal: String? { client.refusal }

    /// - Parameter key: known to all relays of the deployment, 16 bytes or more.
    public init(settings: FlowCacheSettings, key: [UInt8], now: Instant) {
        self.settings = settings
        codec = FlowRecordCodec(key: key)
        var redis = RedisSettings()
        redis.user = settings.user
        redis.password = settings.password
        redis.database = settings.database
        redis.retryDelay = settings.retryDelay
        redis.silenceMax = settings.silenceMax
        redis.pingInterval = settings.pingInterval
        client = RedisClient(settings: redis, now: now)
        tokens = Double(settings.lookupsPerSecond)
        tokensAt = now
        clock = now
    }

    /// Whether a lookup has any chance now: while false, every one is unanswered at once.
    public var isOpen: Bool { client.isOpen }

    public var counters: FlowCacheCounters {
        var counters = tally
        counters.serverErrors = client.serverErrors
        counters.failures = client.failures
        return counters
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
            tally.writesDropped += UInt64(settings.writesMax / 8)
        }
        writes.append((source, ufrag))
        flush()
    }

    /// Asks for an unknown source. The answer is an event, at the latest at the lookup's deadline.
    public mutating func lookUp(_ source: SocketAddress, at now: Instant) {
        if lookups[source] != nil { return }
        if let until = negatives[source], now < until {
            tally.refusedByNegative += 1
            events.append(.missed(source))
            return
        }
        refill(at: now)
        guard isOpen, lookups.count < settings.lookupsMax, tokens >= 1 else {
            tally.refusedByRate += 1
            events.append(.unanswered(source))
            return
        }
        tokens -= 1
        clock = now
        lookups[source] = now + settings.lookupDeadline
        client.ask(.lookup(source), ["GET".utf8Bytes, key(of: source)], at: now)
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
    public mutating func connected(at now: Instant) {
        clock = now
        client.connected(at: now)
    }

    public mutating func disconnected(at now: Instant) {
        client.disconnected(at: now)
        take(at: now)
    }

    public mutating func receive(_ bytes: RawSpan, at now: Instant) {
        clock = now
        client.receive(bytes, at: now)
        take(at: now)
        flush()
    }

    /// What the client has heard.
    private mutating func take(at now: Instant) {
        while let event = client.nextEvent() {
            switch event {
            case .answer(.write, _): break
            case .answer(.lookup(let source), let reply): take(reply, about: source, at: now)
            case .failed:
                for source in lookups.keys.sorted(by: { $0.description < $1.description }) { events.append(.unanswered(source)) }
                lookups = [:]
            }
        }
    }

    private mutating func take(_ reply: RedisReply, about source: SocketAddress, at now: Instant) {
        guard lookups.removeValue(forKey: source) != nil else { return }  // answered after its deadline
        guard case .string(let value) = reply, let ufrag = codec.open(value, of: source) else {
            switch reply {
            case .string, .other, .array: tally.forged += 1
            case .error, .absent: break
            }
            miss(source, at: now)
            return
        }
        tally.hits += 1
        events.append(.found(source, ufrag: ufrag))
    }

    private mutating func miss(_ source: SocketAddress, at now: Instant) {
        tally.misses += 1
        if negatives.count >= settings.negativesMax { negatives.removeAll(keepingCapacity: true) }
        negatives[source] = now + settings.negativeLifetime
        events.append(.missed(source))
    }
}

// MARK: - Time and output

extension FlowCache {
    public mutating func advance(to now: Instant) {
        clock = now
        if isOpen {
            for (source, deadline) in lookups.sorted(by: { ($0.value, $0.key.description) < ($1.value, $1.key.description) })
            where deadline <= now {
                lookups[source] = nil
                tally.timeouts += 1
                events.append(.unanswered(source))
            }
        }
        client.advance(to: now)
        take(at: now)
    }

    public var nextDeadline: Deadline {
        guard isOpen else { return client.nextDeadline }
        return .soonest(Deadline(lookups.values.min() ?? .never, "redis lookup"), client.nextDeadline)
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

    public mutating func nextOrder() -> RedisOrder? { client.nextOrder() }

    public var pendingOutput: [UInt8] { client.pendingOutput }
    public mutating func sent(_ count: Int) {
        client.sent(count)
        flush()
    }

    /// Moves waiting writes into the pipeline while it is short: a server that does not read cannot make it grow.
    private mutating func flush() {
        guard isOpen else { return }
        let lifetime = Array(String(settings.timeToLive).utf8)
        var written = 0
        while written < writes.count, client.pendingCount < 65_536, client.waitingCount < 1_024 {
            let (source, ufrag) = writes[written]
            written += 1
            client.ask(.write, ["SET".utf8Bytes, key(of: source), codec.seal(ufrag, of: source), "EX".utf8Bytes, lifetime], at: clock)
        }
        writes.removeFirst(written)
        tally.writes += UInt64(written)
    }
}

extension String {
    var utf8Bytes: [UInt8] { Array(utf8) }
}
