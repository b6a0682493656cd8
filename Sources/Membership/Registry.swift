import Crypto
public import Primitives
public import Redis

/// How a registry behaves; every number is a bound.
public struct RegistrySettings: Sendable {
    public var redis = RedisSettings()
    /// In front of the hash's name, so that a server can have other uses.
    public var prefix = "swiftlet:members:"
    /// Between two writings of ourselves, and between two readings of all.
    public var interval = Interval.seconds(3)
    /// A member that has not been written for so long, of time in which Redis could be read, counts as gone.
    public var timeToLive = Interval.seconds(15)
    /// Members of one reading; a hash with more is not ours.
    public var membersMax = 16_384
    /// Fields removed after one reading.
    public var removalsMax = 64
    public init() {}
}

public struct RegistryCounters: Sendable, Equatable {
    public var readings: UInt64 = 0
    /// Answers that were no reading: an error, or another type.
    public var readingsFailed: UInt64 = 0
    public var writings: UInt64 = 0
    /// Fields that are not ours: length, version, MAC or name.
    public var forged: UInt64 = 0
    /// Values older than what is known already: somebody put them back.
    public var replayed: UInt64 = 0
    /// Fields that a transceiver removed: of members that are gone, and what is not ours.
    public var removed: UInt64 = 0
    public var serverErrors: UInt64 = 0
    public var failures: UInt64 = 0
    public init() {}
}

/// The members as Redis has them: one hash, in which every transceiver writes its own field, and which everybody reads.
///
/// A machine without I/O. Nothing that Redis does takes a member away from those who know it: see `MemberBook`.
public struct Registry: ~Copyable, RedisMachine {
    private enum Asked { case writing, reading, removal, none }

    /// What is known of a field's life.
    private struct Sighting {
        var beat: UInt64
        /// For how long, of time with readings, it has said nothing new.
        var silentFor = Interval.zero
        var member: Member
    }

    private let settings: RegistrySettings
    private let name: [UInt8]
    private var codec: MemberRecordCodec
    private var client: RedisClient<Asked>
    private var own: Member?
    private var beat: UInt64
    private var nextTurn: Instant
    private var isReading = false
    private var sightings: [MemberID: Sighting] = [:]
    private var tally = RegistryCounters()
    /// Everybody of the last good reading, and those of before.
    public private(set) var book: MemberBook
    /// When Redis last told all.
    public private(set) var readAt: Instant?

    /// - Parameters:
    ///   - key: known to all transceivers and relays of the deployment, and to nobody else; 32 bytes.
    ///   - own: who writes itself; nil for one who only reads.
    ///   - known: members of an earlier life; they count as lost until Redis tells of them.
    public init(settings: RegistrySettings, key: [UInt8], own: Member?, known: [Member] = [], wall: WallClock, now: Instant) {
        var redis = settings.redis
        redis.retryDelayMax = settings.interval * 2
        redis.replies.elements = 2 * settings.membersMax
        redis.replies.bytes = 8 << 20
        self.settings = settings
        codec = MemberRecordCodec(key: key)
        // What is not ours in a hash that only we have a name for may be removed.
        let digest = HMACSHA256.tag(key: key.span.bytes, Array("name".utf8).span.bytes)
        name = Array((settings.prefix + hex((0..<8).map { digest[$0] })).utf8)
        client = RedisClient(settings: redis, now: now)
        self.own = own
        beat = wall.secondsSince1970 &* 1000
        nextTurn = now
        book = MemberBook(capacity: settings.membersMax)
        if !known.isEmpty {
            book.read(known, at: now)
            book.read([], at: now)
        }
    }

    public var isOpen: Bool { client.isOpen }
    /// Why Redis does not let us in, in its own words.
    public var refusal: String? { client.refusal }

    public var counters: RegistryCounters {
        var counters = tally
        counters.serverErrors = client.serverErrors
        counters.failures = client.failures
        return counters
    }

    /// How we are now. Another state is told at once, another load with the next writing.
    public mutating func describe(load: UInt32, _ state: MemberState, at now: Instant) {
        guard let own, own.load != load || own.state != state else { return }
        if own.state != state { nextTurn = min(nextTurn, now) }
        self.own?.load = load
        self.own?.state = state
    }
}

// MARK: - Turns

extension Registry {
    private mutating func takeTurn(at now: Instant) {
        guard client.isOpen, now >= nextTurn, !isReading else { return }
        nextTurn = now + settings.interval
        // Not before the first reading: what is there of a life before says where our beat goes on.
        if let own, readAt != nil {
            beat &+= 1
            tally.writings += 1
            client.ask(.writing, ["HSET".utf8Bytes, name, own.id.description.utf8Bytes, codec.seal(own, beat: beat)], at: now)
            // When the last of us is gone, so is the hash.
            let lifetime = 4 * settings.timeToLive.milliseconds / 1000
            client.ask(.none, ["EXPIRE".utf8Bytes, name, String(max(lifetime, 1)).utf8Bytes], at: now)
        }
        isReading = true
        client.ask(.reading, ["HGETALL".utf8Bytes, name], at: now)
    }

    private mutating func take(at now: Instant) {
        while let event = client.nextEvent() {
            switch event {
            case .failed: isReading = false
            case .answer(.reading, .array(let fields)):
                isReading = false
                read(fields, at: now)
            case .answer(.reading, let reply):
                isReading = false
                tally.readingsFailed += 1
                heal(reply, at: now)
            case .answer(.writing, let reply): heal(reply, at: now)
            case .answer(.removal, _), .answer(.none, _): break
            }
        }
        takeTurn(at: now)
    }

    /// Somebody has put something else where the hash belongs.
    private mutating func heal(_ reply: RedisReply, at now: Instant) {
        guard own != nil, case .error(let text) = reply, text.hasPrefix("WRONGTYPE") else { return }
        client.ask(.none, ["DEL".utf8Bytes, name], at: now)
    }

    private mutating func read(_ fields: [[UInt8]], at now: Instant) {
        // Of the time before, only so much: while nobody could read, nobody could write.
        let elapsed = readAt.map { min(now - $0, settings.interval * 2) } ?? .zero
        var present: [Member] = []
        var removals: [[UInt8]] = []
        var seen: Set<MemberID> = []
        for index in stride(from: 0, to: fields.count - 1, by: 2) {
            guard let (member, beat) = codec.open(fields[index + 1], of: fields[index]) else {
                tally.forged += 1
                removals.append(fields[index])
                continue
            }
            seen.insert(member.id)
            let sighting = look(at: member, beat, after: elapsed)
            // We know best how we are.
            if member.id == own?.id { continue }
            if sighting.silentFor < settings.timeToLive { present.append(sighting.member) } else { removals.append(fields[index]) }
        }
        if let own { present.append(own) }
        sightings = sightings.filter { seen.contains($0.key) }
        if readAt == nil, own != nil { nextTurn = now }
        book.read(present, at: now)
        readAt = now
        tally.readings += 1
        guard own != nil, !removals.isEmpty else { return }
        removals = Array(removals.prefix(settings.removalsMax))
        tally.removed += UInt64(removals.count)
        client.ask(.removal, ["HDEL".utf8Bytes, name] + removals, at: now)
    }

    private mutating func look(at member: Member, _ beat: UInt64, after elapsed: Interval) -> Sighting {
        if member.id == own?.id, beat > self.beat {
            // Of a life before, whose clock was ahead: ours must not look old.
            self.beat = beat
        }
        guard var known = sightings[member.id] else {
            let new = Sighting(beat: beat, member: member)
            sightings[member.id] = new
            return new
        }
        // Who has been silent for long may have come back with a clock that is behind.
        if beat > known.beat || (beat != known.beat && known.silentFor >= settings.timeToLive) {
            known = Sighting(beat: beat, member: member)
        } else {
            if beat < known.beat { tally.replayed += 1 }
            known.silentFor = known.silentFor + elapsed
        }
        sightings[member.id] = known
        return known
    }
}

// MARK: - From the connection, and time

extension Registry {
    public mutating func connected(at now: Instant) { client.connected(at: now) }

    public mutating func disconnected(at now: Instant) {
        client.disconnected(at: now)
        take(at: now)
    }

    public mutating func receive(_ bytes: RawSpan, at now: Instant) {
        client.receive(bytes, at: now)
        take(at: now)
    }

    public mutating func advance(to now: Instant) {
        client.advance(to: now)
        take(at: now)
    }

    public mutating func nextOrder() -> RedisOrder? { client.nextOrder() }
    public var pendingOutput: [UInt8] { client.pendingOutput }
    public mutating func sent(_ count: Int) { client.sent(count) }

    public var nextDeadline: Deadline {
        guard client.isOpen, !isReading else { return client.nextDeadline }
        return .soonest(Deadline(nextTurn, "members"), client.nextDeadline)
    }
}

extension String {
    fileprivate var utf8Bytes: [UInt8] { Array(utf8) }
}
