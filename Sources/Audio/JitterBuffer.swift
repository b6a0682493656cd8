// Packets come when the network likes; sound goes out every 20 ms. Between them stands a wait that is as short as the measured jitter allows.
//
// The stream's clock is `nextDue`: the moment at which `playhead`, a point of the sender's media time, has its turn. Their distance to the
// fastest packet is the delay. It grows when a packet comes after its turn (what was concealed meanwhile becomes an insertion, and the packet
// still has its turn), and shrinks by skipping packets, in a pause if one comes soon.

import Primitives

/// A packet that waits.
struct JitterEntry {
    /// `Int64.min` is an empty place.
    var sequence = Int64.min
    var timestamp: Int64 = 0
    var samples = 0
    var frameSamples = 0
    var carriesFEC = false
    var isSilence = false
    var packet = PacketStore.Packet()
}

/// Takes the packets of one Opus stream as they come and says every 20 ms what to decode.
public struct JitterBuffer: ~Copyable {
    public struct Settings: Sendable, Equatable {
        public var minimumDelay = Interval.milliseconds(20)
        public var maximumDelay = Interval.milliseconds(200)
        /// Before anything is known of the network.
        public var initialDelay = Interval.milliseconds(40)
        /// The share of packets that shall come before their turn, 0.5…0.999.
        public var percentile = 0.97
        /// A packet that is next in order does not wait for its turn: only what is missing is waited for. For listeners that mind no uneven pace:
        /// machines.
        public var handsOnAtOnce = false
        public init() {}
    }

    /// Packets that can wait: 2.5 s of 20 ms.
    private static let window = 128
    /// Blocks of 128 bytes: 16 KiB, half a second at 256 kbit/s.
    private static let blockCount = 128
    /// Beyond it a packet belongs to another time line.
    private static let jump = Interval.seconds(1)
    /// A sender whose packets have all been late for so long has stopped its clock for a while.
    private static let lateForGood = Interval.milliseconds(250)
    private static let lag = Interval.seconds(1)
    /// Excess delay is given back in a pause; when none comes for so long, in the middle of speech.
    private static let patience = Interval.seconds(2)
    /// Repairs are waited for as long as they took in the last 10…20 s.
    private static let repairWindow = Interval.seconds(10)
    /// After a loss that only the sender can repair, such repairs are waited for so long.
    private static let lossMemory = Interval.seconds(10)
    /// 2.5 ms: media time is handed out in multiples of it, and closer packets are neighbours.
    private static let unit: Int64 = 120
    private static let concealmentMax = 5_760
    /// Concealment sounds like what was said before for so long; then it fades.
    private static let convincing = 2 * MediaClock.frame

    private let settings: Settings
    private var store: PacketStore
    private var entries: Slab<JitterEntry>
    private var estimator: DelayEstimator
    private var counters = JitterStatistics()

    private var source: UInt32?
    private var highest: Int64 = 0
    /// Sequence numbers below it have had their turn; of the last 64, bit n of `played` tells whether `nextSequence − 1 − n` was played.
    private var nextSequence: Int64 = 0
    private var played: UInt64 = 0
    private var waiting = 0
    /// The newest packet's timestamp without its wraps.
    private var newestTimestamp: Int64 = 0
    private var playhead: Int64 = 0
    private var nextDue = Instant.never
    private var concealing = 0
    private var senderIsSilent = false
    private var lateSince: Instant?
    private var excessSince: Instant?
    /// How late what repaired a loss came at most, in this spell of `repairWindow` and in the one before.
    private var repair = Interval.zero
    private var repairBefore = Interval.zero
    private var repairSpellEnd = Instant.zero
    private var retransmissionUntil = Instant.zero
    private var packetSamples = MediaClock.frame
    /// How far back copies in the last packet reached, and in the one before.
    private var copies = 0
    private var copiesBefore = 0
    private var target: Interval
    /// From noticing a loss to the retransmitted packet; nil when there are no retransmissions.
    var repairTime: Interval?
    /// Whether the newest packet repairs the one before it.
    private(set) var newestCarriesFEC = false

    public init(_ settings: Settings = Settings()) {
        precondition(settings.minimumDelay > .zero && settings.minimumDelay <= settings.maximumDelay)
        self.settings = settings
        store = PacketStore(blockCount: Self.blockCount)
        entries = Slab(count: Self.window) { _ in JitterEntry() }
        estimator = DelayEstimator(percentile: min(max(settings.percentile, 0.5), 0.999), initial: settings.initialDelay)
        target = min(max(settings.initialDelay, settings.minimumDelay), settings.maximumDelay)
    }

    public var statistics: JitterStatistics {
        var statistics = counters
        statistics.targetDelay = target
        statistics.currentDelay = nextDue == .never ? .zero : delay(of: playhead)
        return statistics
    }

    /// When the next frame is due: never before the first packet.
    public var nextDeadline: Deadline { Deadline(nextTurn, "playout") }

    private var nextTurn: Instant {
        guard settings.handsOnAtOnce, waiting > 0, entries[slot(nextSequence)].sequence == nextSequence else { return nextDue }
        return .zero
    }
}

// MARK: - Packets in

extension JitterBuffer {
    /// Takes one packet.
    /// - Parameters:
    ///   - payload: the Opus packet.
    ///   - sequence: the RTP sequence number without its wraps (`RTPReceiveStream.extended`).
    ///   - timestamp: of the RTP header.
    ///   - source: the RTP SSRC; another one starts a new time line.
    ///   - redundant: a second copy that travelled in a later packet (RFC 2198): its arrival says nothing of jitter, and that it is a
    ///     duplicate is the rule.
    public mutating func receive(
        _ payload: RawSpan, sequence: Int64, timestamp: UInt32, source: UInt32, at now: Instant, redundant: Bool = false
    ) -> JitterArrival {
        guard payload.byteCount <= 1_500, let packet = try? OpusPacket(parsing: payload) else {
            counters.malformed += 1
            return .malformed
        }
        counters.received += 1
        if self.source != source {
            guard !redundant else { return refuse(.late) }
            return restart(payload, packet, sequence: sequence, timestamp: timestamp, source: source, at: now)
        }

        let unwrapped = newestTimestamp + Int64(Int32(bitPattern: timestamp &- UInt32(truncatingIfNeeded: newestTimestamp)))
        let transit = Self.transit(unwrapped, at: now)
        let lateness = Interval.nanoseconds(transit &- estimator.base)
        let isNewest = sequence > highest
        if jumped(sequence, lateness, isNewest: isNewest) {
            guard !redundant, isNewest else {
                if !redundant { noteLate(at: now) }
                return refuse(.late)
            }
            return restart(payload, packet, sequence: sequence, timestamp: timestamp, source: source, at: now)
        }
        if redundant { noteCopy(sequence) }
        if isHere(sequence) { return refuse(redundant ? nil : .duplicate) }
        if redundant {
            noteRepair(.nanoseconds(transit &- estimator.base))
        } else {
            noteGap(sequence, packet, at: now)
            // A packet later than the longest wait teaches nothing but that.
            estimator.note(transit: transit, at: now)
        }
        // The one before it is inside.
        if packet.carriesFEC, !isHere(sequence - 1) {
            noteRepair(.nanoseconds(transit &- estimator.base) + MediaClock.interval(packet.sampleCount))
        }
        retarget(at: now)
        guard isInTime(sequence, unwrapped, redundant: redundant) else {
            if isNewest {
                noteLate(at: now)
                highest = sequence
            }
            return refuse(redundant ? nil : .late)
        }
        guard insert(payload, packet, sequence: sequence, timestamp: unwrapped) else { return refuse(.overflow) }
        lateSince = nil
        if isNewest {
            highest = sequence
            newestTimestamp = unwrapped
        }
        return .accepted
    }

    /// Until when packet `sequence`, which is missing, may come and still get its turn.
    func latestArrival(of sequence: Int64) -> Instant {
        guard sequence >= nextSequence, nextDue != .never else { return .zero }
        let back = Int(truncatingIfNeeded: highest - sequence) &* packetSamples
        let timestamp = newestTimestamp - Int64(back)
        let turn = nextDue + MediaClock.interval(Int(timestamp - playhead))
        return turn + max(target - delay(of: playhead), .zero)
    }

    /// Arrival less media time, in nanoseconds.
    private static func transit(_ timestamp: Int64, at now: Instant) -> Int64 {
        Int64(truncatingIfNeeded: now.nanoseconds) &- MediaClock.interval(Int(timestamp)).nanoseconds
    }

    private func slot(_ sequence: Int64) -> Int { Int(sequence & Int64(Self.window - 1)) }

    private func delay(of timestamp: Int64) -> Interval {
        .nanoseconds(Self.transit(timestamp, at: nextDue) &- estimator.base)
    }

    /// Whether the packet waits or was played.
    private func isHere(_ sequence: Int64) -> Bool { entries[slot(sequence)].sequence == sequence || wasPlayed(sequence) }

    private func wasPlayed(_ sequence: Int64) -> Bool {
        let back = nextSequence - 1 - sequence
        return back >= 0 && back < 64 && played >> UInt64(back) & 1 == 1
    }

    /// Counts a refusal; nil is a second copy of what is here, which costs nothing.
    private mutating func refuse(_ reason: JitterArrival?) -> JitterArrival {
        switch reason {
        case .late: counters.late += 1
        case .overflow: counters.overflows += 1
        case .duplicate: counters.duplicates += 1
        default: break
        }
        return reason ?? .duplicate
    }

    /// Whether the packet cannot belong to the time line as it is known.
    private mutating func jumped(_ sequence: Int64, _ lateness: Interval, isNewest: Bool) -> Bool {
        let ahead = sequence - nextSequence
        if ahead >= Int64(Self.window) {
            if waiting > 0 { return true }
            // Nothing waits: after an outage the time line goes on, a few late ones may still come.
            moveOn(to: sequence - 16)
        }
        if ahead < -4 * Int64(Self.window) { return true }
        if lateness < .zero - Self.jump { return true }
        // Contiguous and yet more than three seconds late: not the network, the sender's clock stood still.
        return isNewest && sequence == highest + 1 && lateness > .seconds(3)
    }

    /// Whether the packet still gets its turn. One that comes after it moves the play-head back, as long as the longest delay allows; a copy, as
    /// long as the delay that copies are waited for.
    private mutating func isInTime(_ sequence: Int64, _ timestamp: Int64, redundant: Bool) -> Bool {
        guard sequence >= nextSequence else { return false }
        guard timestamp + Self.unit <= playhead else { return true }
        guard delay(of: timestamp) <= (redundant ? target + MediaClock.interval(packetSamples) : settings.maximumDelay) else {
            if waiting == 0, !redundant { moveOn(to: sequence + 1) }
            return false
        }
        counters.insertedSamples += Int(playhead - timestamp)
        playhead = timestamp
        return true
    }

    private mutating func noteLate(at now: Instant) {
        guard let since = lateSince else {
            lateSince = now
            return
        }
        // The next packet finds no source, and starts a time line.
        if now - since >= Self.lateForGood { source = nil }
    }

    /// Learns how far back copies reach.
    private mutating func noteCopy(_ sequence: Int64) {
        if highest > sequence, highest - sequence <= 8 { copies = max(copies, Int(highest - sequence)) }
    }

    /// Learns from a packet whether something was lost that nothing but a retransmission can bring.
    private mutating func noteGap(_ sequence: Int64, _ packet: OpusPacket, at now: Instant) {
        packetSamples = packet.sampleCount
        newestCarriesFEC = packet.carriesFEC
        let gap = Int(sequence - highest) - 1
        let reach = max(copies, copiesBefore) + (packet.carriesFEC ? 1 : 0)
        if gap > reach, gap <= 16, repairTime != nil { retransmissionUntil = now + Self.lossMemory }
        copiesBefore = copies
        copies = 0
    }

    /// Learns how late a lost packet was brought back.
    private mutating func noteRepair(_ lateness: Interval) {
        guard lateness <= settings.maximumDelay else { return }
        repair = max(repair, lateness)
    }

    private mutating func insert(_ payload: RawSpan, _ packet: OpusPacket, sequence: Int64, timestamp: Int64) -> Bool {
        guard entries[slot(sequence)].sequence == Int64.min, let stored = store.insert(payload) else { return false }
        entries[slot(sequence)] = JitterEntry(
            sequence: sequence, timestamp: timestamp, samples: packet.sampleCount, frameSamples: packet.frameSamples,
            carriesFEC: packet.carriesFEC, isSilence: packet.isSilence, packet: stored)
        waiting += 1
        return true
    }

    /// A new time line: its first packet is played after the target delay, and until then the stream's clock goes on in silence.
    private mutating func restart(
        _ payload: RawSpan, _ packet: OpusPacket, sequence: Int64, timestamp: UInt32, source: UInt32, at now: Instant
    ) -> JitterArrival {
        let isFirst = nextDue == .never
        removeAll()
        self.source = source
        highest = sequence
        nextSequence = sequence
        // Nothing before it is missed.
        played = .max
        newestTimestamp = Int64(timestamp)
        estimator.restart(transit: Self.transit(newestTimestamp, at: now), at: now)
        lateSince = nil
        excessSince = nil
        senderIsSilent = false
        let due = now + target
        if isFirst { nextDue = due }
        let ahead = max(0, Int64(MediaClock.samples(due - nextDue)))
        playhead = newestTimestamp - ahead / Self.unit * Self.unit
        concealing = Self.concealmentMax
        _ = insert(payload, packet, sequence: sequence, timestamp: newestTimestamp)
        guard !isFirst else { return .accepted }
        counters.restarts += 1
        return .restarted
    }

    private mutating func removeAll() {
        for index in 0..<Self.window where entries[index].sequence != Int64.min { remove(index) }
    }

    private mutating func remove(_ index: Int) {
        store.remove(entries[index].packet)
        entries[index].sequence = Int64.min
        waiting -= 1
    }

    /// Lets everything before `sequence` have had its turn.
    private mutating func moveOn(to sequence: Int64) {
        let steps = sequence - nextSequence
        guard steps > 0 else { return }
        played = steps < 64 ? played << UInt64(steps) : 0
        nextSequence = sequence
    }

    private mutating func retarget(at now: Instant) {
        var wait = estimator.wait
        if now >= repairSpellEnd {
            repairBefore = repair
            repair = .zero
            repairSpellEnd = now + Self.repairWindow
        }
        if now < retransmissionUntil, let repairTime {
            // The answer has its own jitter; beyond the longest delay it is not waited for at all.
            let answered = wait + MediaClock.interval(packetSamples) + repairTime
            if answered <= settings.maximumDelay { wait = max(wait, answered) }
        }
        wait = max(wait, repair, repairBefore)
        target = min(max(wait, settings.minimumDelay), settings.maximumDelay)
    }
}

// MARK: - Frames out

extension JitterBuffer {
    /// The next frame that is due; nil when none is. Call until nil.
    /// - Parameters:
    ///   - output: gets the packet to decode, if the frame has one; room for 1,500 bytes is always enough.
    ///   - quiet: nobody speaks in what was decoded last, so that a skipped packet is not missed.
    public mutating func nextFrame(into output: inout OutputRawSpan, at now: Instant, quiet: Bool = false) -> JitterFrame? {
        guard nextTurn <= now else { return nil }
        if now - nextDue > Self.lag {
            counters.skippedSamples += MediaClock.samples(now - nextDue)
            nextDue = now
        }
        guard let head = firstWaiting() else { return withoutPacket() }
        let gap = entries[head].timestamp - playhead
        guard gap < Self.unit else { return before(head, gap: gap, into: &output, at: now) }
        return play(head, into: &output, at: now, quiet: quiet)
    }

    /// The place of the packet that has its turn first.
    private func firstWaiting() -> Int? {
        guard waiting > 0 else { return nil }
        for offset in 0..<Int64(Self.window) {
            let index = slot(nextSequence + offset)
            if entries[index].sequence == nextSequence + offset { return index }
        }
        return nil
    }

    private mutating func play(_ head: Int, into output: inout OutputRawSpan, at now: Instant, quiet: Bool) -> JitterFrame? {
        let entry = entries[head]
        guard store.copy(entry.packet, into: &output) else { return nil }
        let discards = isExcess(entry, at: now, quiet: quiet)
        moveOn(to: entry.sequence + 1)
        played |= 1
        remove(head)
        playhead = entry.timestamp + Int64(entry.samples)
        concealing = 0
        senderIsSilent = entry.isSilence
        if discards {
            counters.discardedSamples += entry.samples
            return JitterFrame(kind: .discard, samples: entry.samples)
        }
        nextDue = nextDue + MediaClock.interval(entry.samples)
        counters.playedSamples += entry.samples
        return JitterFrame(kind: .packet, samples: entry.samples)
    }

    /// Whether the delay is longer than needed by at least this packet, and now is the time to say so.
    private mutating func isExcess(_ entry: JitterEntry, at now: Instant, quiet: Bool) -> Bool {
        let delay = delay(of: entry.timestamp)
        let length = MediaClock.interval(entry.samples)
        let excess = delay - target
        guard excess >= length else {
            excessSince = nil
            return false
        }
        if delay > settings.maximumDelay + length { return true }
        let since = excessSince ?? now
        excessSince = since
        guard quiet || entry.isSilence || (now - since >= Self.patience && excess >= length + length) else { return false }
        excessSince = now
        return true
    }

    /// The play-head is before the first waiting packet.
    private mutating func before(_ head: Int, gap: Int64, into output: inout OutputRawSpan, at now: Instant) -> JitterFrame? {
        let entry = entries[head]
        let whole = Int(gap / Self.unit * Self.unit)
        guard entry.sequence > nextSequence else { return pause(whole) }
        guard entry.carriesFEC, whole >= entry.frameSamples else {
            return conceal(min(whole, MediaClock.frame), holding: now < retransmissionUntil)
        }
        if whole > entry.frameSamples {
            return conceal(min(whole - entry.frameSamples, MediaClock.frame), holding: now < retransmissionUntil)
        }
        guard store.copy(entry.packet, into: &output) else { return nil }
        moveOn(to: entry.sequence)
        playhead = entry.timestamp
        nextDue = nextDue + MediaClock.interval(whole)
        counters.recoveredSamples += whole
        concealing = 0
        return JitterFrame(kind: .fec, samples: whole)
    }

    /// Nothing was lost: the sender left a gap. Here the delay is corrected without being heard.
    private mutating func pause(_ gap: Int) -> JitterFrame {
        let excess = MediaClock.samples(delay(of: playhead) - target) / Int(Self.unit) * Int(Self.unit)
        let skipped = min(max(excess, 0), gap - Int(Self.unit))
        if skipped > 0 {
            playhead += Int64(skipped)
            counters.discardedSamples += skipped
        }
        let samples = min(gap - max(skipped, 0), MediaClock.frame)
        let inserts = excess <= -samples
        emit(samples, advancing: !inserts)
        counters.silenceSamples += samples
        if inserts { counters.insertedSamples += samples }
        return JitterFrame(kind: .silence, samples: samples)
    }

    /// No packet waits: the sender is silent, or the next one is late or lost.
    private mutating func withoutPacket() -> JitterFrame {
        guard senderIsSilent else { return conceal(MediaClock.frame, holding: true) }
        emit(MediaClock.frame, advancing: true)
        counters.silenceSamples += MediaClock.frame
        return JitterFrame(kind: .silence, samples: MediaClock.frame)
    }

    /// - Parameter holding: the packet may still come: where the delay is shorter than it should be, the play-head waits.
    private mutating func conceal(_ samples: Int, holding: Bool) -> JitterFrame {
        let holds = holding && delay(of: playhead) + MediaClock.interval(samples / 2) <= target
        emit(samples, advancing: !holds)
        if holds { counters.insertedSamples += samples }
        guard concealing < Self.concealmentMax else {
            counters.silenceSamples += samples
            return JitterFrame(kind: .silence, samples: samples, isOutage: true)
        }
        let isOutage = concealing >= Self.convincing
        concealing += samples
        counters.concealedSamples += samples
        return JitterFrame(kind: .conceal, samples: samples, isOutage: isOutage)
    }

    private mutating func emit(_ samples: Int, advancing: Bool) {
        nextDue = nextDue + MediaClock.interval(samples)
        if advancing { playhead += Int64(samples) }
    }
}
