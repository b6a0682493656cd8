// Packets that came in: header, chunks, and which of them a state takes.

import Primitives

/// What a packet has had so far. Acknowledgements and skips walk over tables: one of each is all that an honest packet has.
struct PacketNotes {
    var carriedData = false
    var carriedAck = false
    var carriedSkip = false
}

/// What a chunk asks of the rest of its packet.
enum ChunkOutcome {
    case next
    /// This chunk was dropped; the next one is looked at.
    case dropped(SCTPDropReason)
    /// The rest of the packet is dropped.
    case stop(SCTPDropReason?)
}

extension SCTPAssociation {
    /// Takes one packet as DTLS gave it. Nil: all of it was used.
    public mutating func receive(_ packet: RawSpan, at now: Instant) -> SCTPDropReason? {
        clock = max(clock, now)
        guard packet.byteCount >= commonHeaderSize + 4 else { return .malformed }
        guard packet.u16(0) == remotePort, packet.u16(2) == localPort else { return .wrongPort }
        let checksum = packet.u32(8)
        // Zero means that DTLS vouches for the packet: we said in INIT that this is enough (RFC 9653). Its exceptions carry a checksum.
        let type = packet.byte(commonHeaderSize)
        let needsChecksum = type == ChunkType.initiate || type == ChunkType.cookieEcho
        guard (checksum == 0 && !needsChecksum) || checksum == CRC32c.ofPacket(packet) else { return .wrongChecksum }
        let tag = packet.u32(4)
        guard isValid(tag, packet) else { return .wrongVerificationTag }
        if state == .over { return receiveAfterEnd(type) }
        return receiveChunks(packet, tag)
    }

    private mutating func receiveChunks(_ packet: RawSpan, _ tag: UInt32) -> SCTPDropReason? {
        var reason: SCTPDropReason?
        var notes = PacketNotes()
        var offset = commonHeaderSize
        loop: while offset < packet.byteCount {
            guard offset &+ 4 <= packet.byteCount else {
                reason = reason ?? .malformed
                break
            }
            let length = Int(packet.u16(offset &+ 2))
            guard length >= 4, offset &+ length <= packet.byteCount else {
                reason = reason ?? .malformed
                break
            }
            let chunk = packet.bytes(offset..<offset &+ length)
            let isFirst = offset == commonHeaderSize
            offset &+= length &+ padding(length)
            switch receive(chunk, tag, isFirst: isFirst, isAlone: isFirst && offset >= packet.byteCount, &notes) {
            case .next: break
            case .dropped(let why): reason = reason ?? why
            case .stop(let why):
                reason = reason ?? why
                break loop
            }
            if state == .over { break }
        }
        if notes.carriedData && state != .over { acknowledgeLater() }
        return reason
    }

    /// Section 8.5.
    private func isValid(_ tag: UInt32, _ packet: RawSpan) -> Bool {
        switch packet.byte(commonHeaderSize) {
        case ChunkType.initiate: tag == 0
        // Its cookie says which tag it must have.
        case ChunkType.cookieEcho: true
        // T bit: the sender had no tag of ours, and reflects the one that we use.
        case ChunkType.abort, ChunkType.shutdownComplete:
            packet.byte(commonHeaderSize + 1) & 1 == 0 ? tag == localTag : tag == peerTag && peerTag != 0
        default: tag == localTag
        }
    }

    private mutating func receive(
        _ chunk: RawSpan, _ tag: UInt32, isFirst: Bool, isAlone: Bool, _ notes: inout PacketNotes
    ) -> ChunkOutcome {
        let type = chunk.byte(0)
        switch type {
        case ChunkType.data: return state.isUp ? receiveData(chunk, &notes) : .dropped(.unexpectedChunk)
        case ChunkType.selectiveAck:
            guard state.isUp, !notes.carriedAck else { return .dropped(.unexpectedChunk) }
            notes.carriedAck = true
            return outcome(receiveSelectiveAck(chunk))
        case ChunkType.initiate: return isAlone ? .stop(receiveInit(chunk)) : .stop(.malformed)
        case ChunkType.initiateAck: return isAlone ? .stop(receiveInitAck(chunk)) : .stop(.malformed)
        case ChunkType.cookieEcho:
            guard isFirst else { return .stop(.unexpectedChunk) }
            if let reason = receiveCookieEcho(chunk, tag: tag) { return .stop(reason) }
            return .next
        case ChunkType.cookieAck: return outcome(receiveCookieAck())
        case ChunkType.heartbeat: return outcome(receiveHeartbeat(chunk))
        case ChunkType.heartbeatAck: return outcome(receiveHeartbeatAck(chunk))
        case ChunkType.abort:
            fail(.abortedByPeer, abort: nil)
            return .stop(nil)
        case ChunkType.error: return outcome(receiveError(chunk))
        case ChunkType.shutdown: return outcome(receiveShutdown(chunk))
        case ChunkType.shutdownAck: return outcome(receiveShutdownAck())
        case ChunkType.shutdownComplete: return outcome(receiveShutdownComplete())
        case ChunkType.forwardTSN:
            guard state.isUp, !notes.carriedSkip else { return .dropped(.unexpectedChunk) }
            notes.carriedSkip = true
            return outcome(receiveForwardTSN(chunk, &notes))
        case ChunkType.reconfiguration: return outcome(state.isUp ? receiveReconfiguration(chunk) : .unexpectedChunk)
        case ChunkType.padding: return .next
        default: return receiveUnknown(chunk)
        }
    }

    private func outcome(_ reason: SCTPDropReason?) -> ChunkOutcome {
        if let reason { return .dropped(reason) }
        return .next
    }

    /// The two highest bits say what to do with a type that is not known (section 3.2).
    private mutating func receiveUnknown(_ chunk: RawSpan) -> ChunkOutcome {
        let type = chunk.byte(0)
        if type & 0x40 != 0 && state.isUp { setError(ErrorCause.unrecognizedChunk, chunk) }
        return type & 0x80 == 0 ? .stop(.unknownChunk) : .dropped(.unknownChunk)
    }
}

// DATA, and skipping it.
extension SCTPAssociation {
    private mutating func receiveData(_ chunk: RawSpan, _ notes: inout PacketNotes) -> ChunkOutcome {
        guard chunk.byteCount > dataHeaderSize else {
            guard chunk.byteCount == dataHeaderSize else { return .stop(.malformed) }
            fail(.protocolViolation, abort: ErrorCause.noUserData)
            return .stop(.malformed)
        }
        guard state.mayReceiveData else { return .dropped(.unexpectedChunk) }
        let header = DataHeader(chunk)
        notes.carriedData = true
        if header.flags & DataFlag.immediate != 0 { acknowledging.isUrgent = true }
        switch window.insert(header, chunk.bytes(dataHeaderSize..<chunk.byteCount)) {
        case .accepted: break
        case .duplicate:
            acknowledging.noteDuplicate(header.tsn)
            return .next
        case .dropped:
            acknowledging.isUrgent = true
            return .next
        }
        if window.hasGap && header.tsn != window.cumulative &+ 1 {
            let expected = slot(of: header.stream).map { channels[$0].expectedSequence } ?? 0
            if let message = window.overtakingMessage(around: header.tsn, expected: expected) { deliver(message) }
            return .next
        }
        return drain()
    }

    /// Delivers what became whole in order.
    private mutating func drain() -> ChunkOutcome {
        while true {
            switch window.advance() {
            case .nothing: return .next
            case .message(let message): deliver(message)
            case .violation:
                fail(.protocolViolation, abort: ErrorCause.protocolViolation)
                return .stop(.malformed)
            case .tooLarge:
                fail(.limitExceeded, abort: ErrorCause.protocolViolation)
                return .stop(.malformed)
            }
            if state == .over { return .stop(nil) }
        }
    }

    /// FORWARD TSN (RFC 3758 section 3.2).
    private mutating func receiveForwardTSN(_ chunk: RawSpan, _ notes: inout PacketNotes) -> SCTPDropReason? {
        guard chunk.byteCount >= 8, chunk.byteCount & 3 == 0 else { return .malformed }
        // Answered at once, also when it says nothing new: our acknowledgement was lost then.
        notes.carriedData = true
        acknowledging.isUrgent = true
        guard window.skip(to: chunk.u32(4)) else { return nil }
        if case .stop(let reason) = drain() { return reason }
        var offset = 8
        while offset &+ 4 <= chunk.byteCount {
            if let slot = slot(of: chunk.u16(offset)) {
                let next = chunk.u16(offset &+ 2) &+ 1
                if Int16(bitPattern: next &- channels[slot].expectedSequence) > 0 { channels[slot].expectedSequence = next }
            }
            offset &+= 4
        }
        return nil
    }
}
