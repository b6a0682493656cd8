// DATA that leaves, and messages that are given up (RFC 3758).

import Primitives

extension SCTPAssociation {
    /// Whether the windows let at least one chunk go.
    func mayTransmitData() -> Bool {
        if sending.lostCount > 0 { return pending.contains(.fastRetransmission) || sending.flight < congestion.window }
        guard sending.hasUnsent else { return false }
        let length = Int(sending.chunks[sending.sentCount].length)
        return mayTransmit(length) && hasPeerRoom(length)
    }

    /// With nothing under way one chunk may always go: else a small window, or a full peer, would be the end.
    private func mayTransmit(_ length: Int) -> Bool { sending.flight == 0 || sending.flight &+ length <= congestion.window }

    private func hasPeerRoom(_ length: Int) -> Bool { sending.flight == 0 || sending.flight &+ length <= peerWindow }

    mutating func writeData(_ frame: PacketFrame, to packet: inout OutputRawSpan) {
        if sending.flight == 0 && clock - lastSent > roundTrip.timeout { congestion.idled() }
        writeLost(frame, to: &packet)
        guard sending.lostCount == 0 else { return }
        while true {
            sending.skipAbandoned()
            guard sending.hasUnsent else { return }
            let index = sending.sentCount
            if giveUpIfStale(index) { continue }
            let length = Int(sending.chunks[index].length)
            guard mayTransmit(length), hasPeerRoom(length), write(index, frame, to: &packet) else { return }
        }
    }

    private mutating func writeLost(_ frame: PacketFrame, to packet: inout OutputRawSpan) {
        guard sending.lostCount > 0 else { return }
        let isFast = take(.fastRetransmission)
        var next = 0
        while let index = sending.nextLost(from: next) {
            if giveUpIfStale(index) { continue }
            guard isFast || mayTransmit(Int(sending.chunks[index].length)), write(index, frame, to: &packet) else { return }
            next = index &+ 1
            // The oldest chunk begins its wait anew.
            if index == 0 { timers[.retransmission] = clock + roundTrip.timeout }
        }
    }

    /// False: it does not fit into this packet any more.
    private mutating func write(_ index: Int, _ frame: PacketFrame, to packet: inout OutputRawSpan) -> Bool {
        let chunk = sending.chunks[index]
        let length = dataHeaderSize &+ Int(chunk.length)
        guard length &+ padding(length) <= frame.room(packet) else { return false }
        var flags = chunk.flags
        if index == sending.chunks.count &- 1 || chunk.state == .lost { flags |= DataFlag.immediate }
        packet.append(UInt16(ChunkType.data) << 8 | UInt16(flags))
        packet.append(UInt16(truncatingIfNeeded: length))
        packet.append(sending.tsn(index))
        packet.append(chunk.stream)
        packet.append(chunk.has.unordered ? 0 : chunk.sequence)
        packet.append(chunk.protocolID)
        sending.copyPayload(index, to: &packet)
        packet.append(zeros: padding(length))
        sending.markSent(index, at: clock)
        lastBusy = clock
        if timers[.retransmission] == .never { timers[.retransmission] = clock + roundTrip.timeout }
        return true
    }
}

// Partial reliability: only on channels that the peer opened so.
extension SCTPAssociation {
    private mutating func giveUpIfStale(_ index: Int) -> Bool {
        let chunk = sending.chunks[index]
        guard chunk.protocolID != PayloadProtocol.control, let slot = slot(of: chunk.stream) else { return false }
        let limit = channels[slot].reliabilityLimit
        switch channels[slot].reliability {
        case .reliable: return false
        case .retransmissions: guard UInt32(chunk.sends) > limit else { return false }
        case .lifetime: guard clock - chunk.queuedAt > .milliseconds(Int64(limit)) else { return false }
        }
        giveUpMessage(around: index)
        return true
    }

    /// All of the message goes, also what was not sent yet.
    private mutating func giveUpMessage(around index: Int) {
        var first = index
        while first > 0 && !sending.chunks[first].has.beginning { first &-= 1 }
        var last = index
        while last &+ 1 < sending.chunks.count && !sending.chunks[last].has.end { last &+= 1 }
        for each in first...last { sending.abandon(each) }
        sending.skipAbandoned()
        moveSkipPoint()
    }

    /// The skip point goes over all given-up chunks that follow the cumulative acknowledgement.
    mutating func moveSkipPoint() {
        var index = 0
        while index < sending.sentCount && sending.chunks[index].state == .abandoned { index &+= 1 }
        let point = sending.tsn(index) &- 1
        guard isBefore(skipPoint, point) else { return }
        skipPoint = point
        pending.insert(.forwardTSN)
    }

    /// FORWARD TSN, with the last sequence number that is skipped on each ordered stream.
    mutating func writeForwardTSN(_ frame: PacketFrame, to packet: inout OutputRawSpan) {
        moveSkipPoint()
        guard skipPoint != sending.cumulativeAck else {
            pending.remove(.forwardTSN)
            return
        }
        var streams = InlineArray<16, UInt16>(repeating: 0)
        var sequences = InlineArray<16, UInt16>(repeating: 0)
        var count = 0
        var index = 0
        // With more streams than places, the rest is skipped after the next acknowledgement.
        while isBefore(sending.tsn(index) &- 1, skipPoint) {
            let chunk = sending.chunks[index]
            if !chunk.has.unordered {
                var place = 0
                while place < count && streams[place] != chunk.stream { place &+= 1 }
                guard place < 16 else { break }
                count = max(count, place &+ 1)
                streams[place] = chunk.stream
                sequences[place] = chunk.sequence
            }
            index &+= 1
        }
        guard frame.room(packet) >= 8 &+ 4 &* count else { return }
        pending.remove(.forwardTSN)
        packet.append(UInt16(ChunkType.forwardTSN) << 8)
        packet.append(UInt16(truncatingIfNeeded: 8 &+ 4 &* count))
        packet.append(sending.tsn(index) &- 1)
        for place in 0..<count {
            packet.append(streams[place])
            packet.append(sequences[place])
        }
        if timers[.retransmission] == .never { timers[.retransmission] = clock + roundTrip.timeout }
    }
}
