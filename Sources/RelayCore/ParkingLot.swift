// The parking lot: where a few packets of unknown sources wait while somebody outside is asked whom they belong to. Its memory is fixed,
// its time is short, and whoever fills it with noise harms nobody but those who would have to wait for their next STUN check without it.

import Primitives

/// How much may wait, and how often somebody is asked. Every number is a bound of one worker.
public struct ParkingLimits: Hashable, Sendable {
    /// Sources that may wait at once: a power of two, 4…4096.
    public var sources = 256
    /// What is not answered by then is dropped.
    public var patience = Interval.milliseconds(50)
    /// Questions a second, 1…1,000,000, and in one burst.
    public var questionsPerSecond = 4_000
    public var burst = 256
    /// A source that nobody knows is not asked for again for this long.
    public var negativeLifetime = Interval.seconds(2)
    /// Such sources remembered: a power of two. A newer one takes an older one's place.
    public var negatives = 4_096
    public init() {}
}

/// What the lot made of a packet.
@frozen public enum Parking: Hashable, Sendable {
    /// It waits; the first one of its source is a question.
    case parked
    /// Its source has as many packets here as it may, or the packet is too long.
    case tooMany
    case full
    /// Nobody knew the source a moment ago.
    case negative
    /// Too many questions.
    case rate
}

public struct ParkingLot: ~Copyable {
    /// Packets of one source, and the longest one.
    public static let packetsPerSource = 4
    public static let packetSize = 1_536
    /// A source may wait at one of so many places only, so that nothing is searched.
    private static let ways = 4

    public let limits: ParkingLimits
    /// Sources that wait now.
    public private(set) var count = 0
    /// When `expire` may find something.
    public private(set) var nextDeadline = Instant.never

    private var places: Slab<ParkedSource>
    private var packets: ByteSlab
    /// Upper half: part of the hash; lower half: until when, in milliseconds modulo 2^32.
    private var negatives: Slab<UInt64>
    /// What is to be asked: a ring, never longer than there are places.
    private var questions: Slab<SocketAddress>
    private var firstQuestion = 0
    private var questionCount = 0
    /// Time that has not been spent on questions.
    private var credit: Interval
    private var creditAt: Instant
    private let price: Interval
    private let key: SipKey

    /// - Parameter key: random; it decides who shares places with whom.
    public init(_ limits: ParkingLimits = ParkingLimits(), key: SipKey, now: Instant) {
        precondition((4...4096).contains(limits.sources) && limits.sources & (limits.sources - 1) == 0)
        precondition(limits.negatives >= 1 && limits.negatives & (limits.negatives - 1) == 0)
        precondition((1...1_000_000).contains(limits.questionsPerSecond) && (1...1_000_000).contains(limits.burst))
        self.limits = limits
        self.key = key
        places = Slab(count: limits.sources) { _ in ParkedSource() }
        packets = ByteSlab(count: limits.sources * Self.packetsPerSource, slotSize: Self.packetSize)
        negatives = Slab(zeros: limits.negatives)
        questions = Slab(count: limits.sources) { _ in SocketAddress(.v4Any, port: 0) }
        price = .seconds(1) / Int64(limits.questionsPerSecond)
        credit = price * Int64(limits.burst)
        creditAt = now
    }

    /// Bytes that a lot takes.
    public static func byteCount(_ limits: ParkingLimits) -> Int {
        limits.sources * (packetsPerSource * packetSize + MemoryLayout<ParkedSource>.stride + MemoryLayout<SocketAddress>.stride)
            + limits.negatives * 8
    }
}

/// A source with packets. Not nested: importers need its metadata.
struct ParkedSource {
    var source = SocketAddress(.v4Any, port: 0)
    var deadline = Instant.never
    var lengths = InlineArray<4, UInt16>(repeating: 0)
    /// 0: a free place.
    var count = 0
    var socket: UInt8 = 0
}

extension ParkingLot {
    /// Keeps a copy of `datagram`, if there is room, hope and time.
    public mutating func park(_ datagram: RawSpan, from source: SocketAddress, on socket: UInt8, at now: Instant) -> Parking {
        guard datagram.byteCount <= Self.packetSize else { return .tooMany }
        let hash = hash(of: source)
        if let place = find(source, hash) {
            guard places[place].count < Self.packetsPerSource else { return .tooMany }
            add(datagram, to: place)
            return .parked
        }
        guard !isNegative(hash, now) else { return .negative }
        guard let place = freePlace(hash), questionCount < questions.count else { return .full }
        guard pay(now) else { return .rate }
        let deadline = now + limits.patience
        places[place].source = source
        places[place].socket = socket
        places[place].deadline = deadline
        add(datagram, to: place)
        count += 1
        nextDeadline = min(nextDeadline, deadline)
        questions[(firstQuestion &+ questionCount) & (questions.count &- 1)] = source
        questionCount += 1
        return .parked
    }

    /// The next source to ask about.
    public mutating func nextQuestion() -> SocketAddress? {
        guard questionCount > 0 else { return nil }
        let source = questions[firstQuestion]
        firstQuestion = (firstQuestion &+ 1) & (questions.count &- 1)
        questionCount -= 1
        return source
    }

    /// Where the packets of `source` wait: for `packetCount`, `packet`, `socket` and `clear`.
    public func find(_ source: SocketAddress) -> Int? { find(source, hash(of: source)) }

    public func packetCount(_ place: Int) -> Int { places[place].count }
    public func socket(_ place: Int) -> UInt8 { places[place].socket }
    /// Packet `number` of a place, the oldest first.
    @_lifetime(borrow self)
    public func packet(_ number: Int, of place: Int) -> RawSpan {
        packets.bytes(place * Self.packetsPerSource + number, Int(places[place].lengths[number]))
    }

    /// Frees a place; how many packets were there.
    @discardableResult
    public mutating func clear(_ place: Int) -> Int {
        let cleared = places[place].count
        guard cleared > 0 else { return 0 }
        places[place].count = 0
        places[place].deadline = .never
        count -= 1
        return cleared
    }

    /// Nobody knows `source`: its packets go, and it is not asked for again for a while. How many packets went.
    public mutating func refuse(_ source: SocketAddress, at now: Instant) -> Int {
        let hash = hash(of: source)
        let until = UInt32(truncatingIfNeeded: (now + limits.negativeLifetime).nanoseconds / 1_000_000)
        negatives[negativePlace(hash)] = hash & 0xFFFF_FFFF_0000_0000 | UInt64(until)
        guard let place = find(source, hash) else { return 0 }
        return clear(place)
    }

    /// Nobody can say anything about `source` now. How many packets went.
    public mutating func drop(_ source: SocketAddress) -> Int {
        guard let place = find(source) else { return 0 }
        return clear(place)
    }

    /// Drops what has waited for too long; how many packets.
    public mutating func expire(at now: Instant) -> Int {
        guard now >= nextDeadline else { return 0 }
        var dropped = 0
        nextDeadline = .never
        for place in 0..<places.count where places[place].count > 0 {
            if places[place].deadline <= now {
                dropped += clear(place)
            } else {
                nextDeadline = min(nextDeadline, places[place].deadline)
            }
        }
        return dropped
    }
}

extension ParkingLot {
    private mutating func add(_ datagram: RawSpan, to place: Int) {
        let number = places[place].count
        _ = packets.write(place * Self.packetsPerSource + number, 0..<datagram.byteCount) { $0.append(contentsOf: datagram) }
        places[place].lengths[number] = UInt16(truncatingIfNeeded: datagram.byteCount)
        places[place].count = number + 1
    }

    private func hash(of source: SocketAddress) -> UInt64 { SipHash.hash(source, key: key) }

    private func firstPlace(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash) & (places.count &- 1) & ~(Self.ways - 1) }

    private func find(_ source: SocketAddress, _ hash: UInt64) -> Int? {
        let first = firstPlace(hash)
        for place in first..<first + Self.ways where places[place].count > 0 && places[place].source == source { return place }
        return nil
    }

    private func freePlace(_ hash: UInt64) -> Int? {
        let first = firstPlace(hash)
        for place in first..<first + Self.ways where places[place].count == 0 { return place }
        return nil
    }

    private func negativePlace(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash >> 8) & (negatives.count &- 1) }

    private func isNegative(_ hash: UInt64, _ now: Instant) -> Bool {
        let entry = negatives[negativePlace(hash)]
        guard entry != 0, entry >> 32 == hash >> 32 else { return false }
        let milliseconds = UInt32(truncatingIfNeeded: now.nanoseconds / 1_000_000)
        return Int32(bitPattern: UInt32(truncatingIfNeeded: entry) &- milliseconds) > 0
    }

    private mutating func pay(_ now: Instant) -> Bool {
        if now > creditAt {
            let most = price * Int64(limits.burst)
            credit = min(most, credit + min(max(now - creditAt, .zero), most))
            creditAt = now
        }
        guard credit >= price else { return false }
        credit = credit - price
        return true
    }
}
