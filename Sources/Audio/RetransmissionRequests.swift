// Which lost packets to ask for again (RFC 4585 §6.2.1), and when it is worth it.

import Primitives

/// One generic NACK: `packet`, and for bit n of `following` packet + n + 1.
public struct RetransmissionRequest: Sendable, Equatable {
    public var packet: UInt16
    public var following: UInt16

    public init(packet: UInt16, following: UInt16) {
        self.packet = packet
        self.following = following
    }
}

/// What is missing in a stream of packets. A packet is asked for when a newer one has come and it has had the time that reordering lately took, and
/// once more when the answer is overdue; never when the answer would come too late to be heard.
struct RetransmissionRequests: ~Copyable {
    private static let window: Int64 = 64
    /// A longer gap is an outage: asking for it all would make it worse.
    private static let gapMax: Int64 = 16
    private static let asksMax: UInt8 = 2
    /// Between two requests.
    private static let pace = Interval.milliseconds(10)
    private static let reorderingMax = Interval.milliseconds(40)

    struct Missing {
        /// `Int64.min` is an empty place.
        var sequence = Int64.min
        var since = Instant.zero
        var ask = Instant.zero
        var asked = Instant.zero
        var asks: UInt8 = 0
    }

    private var missing: Slab<Missing>
    private var missingCount = 0
    private var highest: Int64?
    private var nextAllowed = Instant.zero
    /// How much later than its successor a packet lately came.
    private var reordering = Interval.zero
    private var roundTrip = Interval.zero
    private(set) var requested = 0

    init() { missing = Slab(count: Int(Self.window)) { _ in Missing() } }

    /// Takes note of a packet, or of a copy of it; true when it had been asked for.
    mutating func note(_ sequence: Int64, at now: Instant) -> Bool {
        let entry = missing[slot(sequence)]
        if entry.sequence == sequence {
            forget(slot(sequence))
            // Sooner than an answer can come: it was on its way.
            guard entry.asks == 0 || now - entry.asked < roundTrip * 3 / 4 else { return true }
            reordering = min(max(reordering, now - entry.since), Self.reorderingMax)
            return false
        }
        guard let highest else {
            restart(at: sequence)
            return false
        }
        guard sequence > highest else {
            // The stream began anew, far behind.
            if highest - sequence > Self.window { restart(at: sequence) }
            return false
        }
        guard sequence - highest - 1 <= Self.gapMax else {
            restart(at: sequence)
            return false
        }
        for lost in (highest + 1)..<sequence { miss(lost, at: now) }
        self.highest = sequence
        // Forgets a spell of reordering in some 500 packets.
        reordering = .nanoseconds(reordering.nanoseconds / 256 * 255)
        return false
    }

    /// The packet has been recovered without asking.
    mutating func recovered(_ sequence: Int64) {
        if missing[slot(sequence)].sequence == sequence { forget(slot(sequence)) }
    }

    /// When there may be something to ask.
    var nextDeadline: Deadline {
        guard missingCount > 0 else { return .none }
        var soonest = Instant.never
        for index in 0..<Int(Self.window) where missing[index].sequence != Int64.min { soonest = min(soonest, missing[index].ask) }
        return soonest == .never ? .none : Deadline(max(soonest, nextAllowed), "retransmission request")
    }

    /// The next request that is due; nil when none is. Call until nil.
    /// - Parameter isUseful: whether a packet that comes at this moment is still heard.
    mutating func next(at now: Instant, roundTrip: Interval, isUseful: (Int64, Instant) -> Bool) -> RetransmissionRequest? {
        guard missingCount > 0, now >= nextAllowed, let highest else { return nil }
        self.roundTrip = roundTrip
        var request: RetransmissionRequest?
        var first: Int64 = 0
        for sequence in (highest - Self.window + 1)..<highest where missing[slot(sequence)].sequence == sequence {
            guard isUseful(sequence, now + roundTrip) else {
                // One that was asked for is still known as such when it comes.
                if missing[slot(sequence)].asks == 0 { forget(slot(sequence)) } else { missing[slot(sequence)].ask = .never }
                continue
            }
            guard missing[slot(sequence)].ask <= now else { continue }
            if request == nil {
                request = RetransmissionRequest(packet: UInt16(truncatingIfNeeded: sequence), following: 0)
                first = sequence
            } else {
                guard sequence - first <= 16 else { break }
                request?.following |= 1 << UInt16(sequence - first - 1)
            }
            asked(slot(sequence), at: now, roundTrip)
        }
        if request != nil { nextAllowed = now + Self.pace }
        return request
    }

    private mutating func asked(_ index: Int, at now: Instant, _ roundTrip: Interval) {
        requested += 1
        missing[index].asks += 1
        missing[index].asked = now
        let again = now + roundTrip * 5 / 4 + .milliseconds(10)
        missing[index].ask = missing[index].asks < Self.asksMax ? again : .never
    }

    private mutating func miss(_ sequence: Int64, at now: Instant) {
        let index = slot(sequence)
        if missing[index].sequence != Int64.min { forget(index) }
        missing[index] = Missing(sequence: sequence, since: now, ask: now + reordering)
        missingCount += 1
    }

    private mutating func forget(_ index: Int) {
        missing[index].sequence = Int64.min
        missingCount -= 1
    }

    private mutating func restart(at sequence: Int64) {
        for index in 0..<Int(Self.window) where missing[index].sequence != Int64.min { forget(index) }
        highest = sequence
    }

    private func slot(_ sequence: Int64) -> Int { Int(sequence & (Self.window - 1)) }
}
