// Acknowledgements: what the peer has of ours, and when it is told what we have of its own (RFC 9260 sections 6.2, 6.3 and 7.2.4).

import Primitives

/// When to acknowledge: every second packet, at once after a gap or a duplicate or when asked, else within 200 ms.
struct Acknowledging: BitwiseCopyable {
    static let delay = Interval.milliseconds(200)
    static let duplicatesMax = 8

    /// Packets with data since the last acknowledgement.
    var packets = 0
    var isUrgent = false
    /// The peer's last acknowledgement had gap blocks.
    var peerHasGaps = false
    /// Our last a_rwnd.
    var announced = Int.max
    private(set) var duplicates = InlineArray<8, UInt32>(repeating: 0)
    private(set) var duplicateCount = 0

    var isDue: Bool { isUrgent || packets >= 2 }

    mutating func noteDuplicate(_ tsn: UInt32) {
        isUrgent = true
        guard duplicateCount < Self.duplicatesMax else { return }
        duplicates[duplicateCount] = tsn
        duplicateCount &+= 1
    }

    mutating func sent(announcing available: Int) {
        packets = 0
        isUrgent = false
        duplicateCount = 0
        announced = available
    }
}

extension SCTPAssociation {
    /// A packet carried data.
    mutating func acknowledgeLater() {
        acknowledging.packets &+= 1
        lastBusy = clock
        if window.hasGap { acknowledging.isUrgent = true }
        if state == .shutdownSent {
            acknowledging.isUrgent = true
            pending.insert(.shutdown)
        }
        if !acknowledging.isDue && timers[.acknowledgement] == .never {
            timers[.acknowledgement] = clock + Acknowledging.delay
        }
    }

    /// The owner took a message: a peer that was held back must hear of it.
    mutating func announceWindow() {
        guard state.mayReceiveData else { return }
        if acknowledging.announced < window.capacity / 4 && window.available >= window.capacity / 2 { acknowledging.isUrgent = true }
    }

    /// SACK.
    mutating func receiveSelectiveAck(_ chunk: RawSpan) -> SCTPDropReason? {
        guard chunk.byteCount >= 16 else { return .malformed }
        let gaps = Int(chunk.u16(12))
        guard 16 &+ 4 &* (gaps &+ Int(chunk.u16(14))) <= chunk.byteCount else { return .malformed }
        let cumulative = chunk.u32(4)
        // An older one that was overtaken says nothing.
        guard !isBefore(cumulative, sending.cumulativeAck) else { return nil }
        guard !isBefore(sending.highestSent, cumulative) else { return .badAcknowledgement }
        // Blocks must rise and lie within what was sent, so that all of them together cost one walk over the queue.
        let reach = sending.highestSent &- cumulative
        var last: UInt16 = 0
        for block in 0..<gaps {
            let start = chunk.u16(16 &+ 4 &* block)
            let end = chunk.u16(18 &+ 4 &* block)
            guard start > last, end >= start, UInt32(end) <= reach else { return .badAcknowledgement }
            last = end
        }
        var news = News()
        let wasFull = sending.flight &+ fragmentSize >= congestion.window
        let moved = acknowledge(to: cumulative, &news)
        acknowledgeGaps(chunk, gaps, &news)
        peerWindow = Int(chunk.u32(8))
        settle(news, moved: moved, wasFull: wasFull)
        return nil
    }

    /// SHUTDOWN carries a cumulative acknowledgement.
    mutating func receiveCumulativeAck(_ cumulative: UInt32) {
        guard isBefore(sending.cumulativeAck, cumulative), !isBefore(sending.highestSent, cumulative) else { return }
        var news = News()
        let wasFull = sending.flight &+ fragmentSize >= congestion.window
        let moved = acknowledge(to: cumulative, &news)
        settle(news, moved: moved, wasFull: wasFull)
    }
}

/// What one acknowledgement brought.
private struct News {
    var bytes = 0
    /// The highest TSN that was not acknowledged before.
    var highest: UInt32?
    /// When the youngest chunk left that was sent only once: the evidence for round trip and losses.
    var youngest: Instant?

    mutating func note(_ tsn: UInt32, _ chunk: OutgoingChunk, _ length: Int) {
        guard length > 0 else { return }
        bytes &+= length
        highest = tsn
        if chunk.sends == 1 { youngest = max(youngest ?? .zero, chunk.sentAt) }
    }
}

extension SCTPAssociation {
    private mutating func acknowledge(to cumulative: UInt32, _ news: inout News) -> Bool {
        let moved = sending.cumulativeAck != cumulative
        while sending.cumulativeAck != cumulative && !sending.isEmpty {
            let tsn = sending.firstTSN
            let chunk = sending.chunks[0]
            news.note(tsn, chunk, sending.markAcknowledged(0))
            let removed = sending.removeFirst()
            if let slot = slot(of: removed.stream), channels[slot].pendingChunks > 0 { channels[slot].pendingChunks &-= 1 }
        }
        if isBefore(skipPoint, sending.cumulativeAck) { skipPoint = sending.cumulativeAck }
        return moved
    }

    private mutating func acknowledgeGaps(_ chunk: RawSpan, _ gaps: Int, _ news: inout News) {
        guard gaps > 0 || acknowledging.peerHasGaps else { return }
        acknowledging.peerHasGaps = gaps > 0
        var index = 0
        for block in 0..<gaps {
            let start = Int(chunk.u16(16 &+ 4 &* block)) &- 1
            let end = Int(chunk.u16(18 &+ 4 &* block)) &- 1
            while index < start {
                sending.takeBackAcknowledgement(index)
                index &+= 1
            }
            while index <= end {
                let sent = sending.chunks[index]
                news.note(sending.tsn(index), sent, sending.markAcknowledged(index))
                index &+= 1
            }
        }
        while index < sending.sentCount {
            sending.takeBackAcknowledgement(index)
            index &+= 1
        }
    }

    private mutating func settle(_ news: News, moved: Bool, wasFull: Bool) {
        lastHeard = clock
        if let youngest = news.youngest { roundTrip.sample(clock - youngest) }
        // A peer that has no room answers, so it lives, however often its window is probed.
        if news.bytes > 0 || moved || peerWindow < mtu { errors = 0 }
        if moved {
            congestion.acknowledged(news.bytes, to: sending.cumulativeAck, wasFull: wasFull, nothingLeft: sending.flight == 0)
        }
        if let highest = news.highest { countMisses(below: highest, youngest: news.youngest, moved: moved) }
        // What the peer has may end where something was given up.
        if moved { moveSkipPoint() }
        if moved || sending.flight == 0 {
            timers[.retransmission] = sending.flight > 0 || skipPoint != sending.cumulativeAck ? clock + roundTrip.timeout : .never
        }
        if moved && skipPoint != sending.cumulativeAck { pending.insert(.forwardTSN) }
        progressShutdown()
    }

    /// Three acknowledgements of younger chunks, and a chunk counts as lost. One that was sent again is measured against chunks that
    /// left after that, so that it can be found missing once more without waiting for the timer.
    private mutating func countMisses(below highest: UInt32, youngest: Instant?, moved: Bool) {
        let reach = Int(Int32(bitPattern: highest &- sending.firstTSN))
        let end = congestion.inRecovery && moved ? sending.sentCount : min(max(reach, 0), sending.sentCount)
        var found = false
        for index in 0..<end where sending.chunks[index].state == .inFlight {
            if sending.chunks[index].sends > 1 {
                guard let youngest, sending.chunks[index].sentAt < youngest else { continue }
            } else if index >= reach {
                continue
            }
            sending.chunks[index].misses &+= 1
            if sending.chunks[index].misses >= 3 {
                sending.markLost(index)
                found = true
            }
        }
        guard found else { return }
        congestion.fastRetransmit(highestSent: sending.highestSent)
        pending.insert(.fastRetransmission)
    }
}
