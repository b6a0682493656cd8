// Timers, heartbeats, and the ways to end.

import Primitives

enum AssociationTimer: Int, CaseIterable {
    /// T1: INIT or COOKIE ECHO unanswered.
    case handshake
    /// T3: data unacknowledged.
    case retransmission
    case acknowledgement
    case heartbeat
    /// A stream reset unanswered.
    case reset
    /// T2: SHUTDOWN or SHUTDOWN ACK unanswered.
    case shutdown
    /// T5: closing has taken too long in all.
    case shutdownGuard
}

/// When each timer runs out; `.never` when it does not run.
struct TimerTable: BitwiseCopyable {
    private var deadlines = InlineArray<7, Instant>(repeating: .never)

    subscript(timer: AssociationTimer) -> Instant {
        get { deadlines[timer.rawValue] }
        set { deadlines[timer.rawValue] = newValue }
    }

    var soonest: Instant {
        var soonest = Instant.never
        for index in deadlines.indices { soonest = min(soonest, deadlines[index]) }
        return soonest
    }

    /// Stops the timer if it has run out; whether it had.
    mutating func expire(_ timer: AssociationTimer, at now: Instant) -> Bool {
        guard self[timer] <= now else { return false }
        self[timer] = .never
        return true
    }
}

/// RFC 9260 section 16.
private let handshakeRetransmissionsMax = 8
private let retransmissionsMax = 10
/// The RFC's 30 s, halved: a conversation should know sooner.
let heartbeatInterval = Interval.seconds(15)
private let shutdownLimit = RoundTrip.mostTimeout * 5

extension SCTPAssociation {
    /// When `advance` is wanted; `.never` when no timer runs.
    public var nextDeadline: Instant { timers.soonest }

    /// Lets timers run.
    public mutating func advance(to now: Instant) {
        clock = max(clock, now)
        guard timers.soonest <= clock else { return }
        if timers.expire(.handshake, at: clock) { handshakeTimedOut() }
        if timers.expire(.acknowledgement, at: clock) { acknowledging.isUrgent = true }
        if timers.expire(.retransmission, at: clock) { retransmissionTimedOut() }
        if timers.expire(.reset, at: clock) {
            resetting.requestIsDue = true
            if resetting.isPutOff { resetting.isPutOff = false } else { countError(.peerUnreachable) }
        }
        if timers.expire(.shutdown, at: clock) {
            pending.insert(state == .shutdownSent ? .shutdown : .shutdownAck)
            countError(.shutdownTimeout)
        }
        if timers.expire(.shutdownGuard, at: clock) { fail(.shutdownTimeout, abort: ErrorCause.userAbort) }
        if timers.expire(.heartbeat, at: clock) { heartbeatTick() }
    }

    private mutating func handshakeTimedOut() {
        errors += 1
        guard errors <= handshakeRetransmissionsMax else {
            fail(.handshakeTimeout, abort: nil)
            return
        }
        roundTrip.backOff()
        pending.insert(state == .cookieWait ? .initiate : .cookieEcho)
    }

    private mutating func retransmissionTimedOut() {
        countError(.peerUnreachable)
        guard state != .over else { return }
        congestion.timedOut()
        for index in 0..<sending.sentCount where sending.chunks[index].state == .inFlight { sending.markLost(index) }
        if skipPoint != sending.cumulativeAck { pending.insert(.forwardTSN) }
    }

    private mutating func countError(_ failure: SCTPFailure) {
        guard state != .over else { return }
        errors += 1
        roundTrip.backOff()
        if errors > retransmissionsMax { fail(failure, abort: ErrorCause.userAbort) }
    }

    /// The path is probed when data has not done so (section 8.3).
    private mutating func heartbeatTick() {
        guard state.isUp else { return }
        if heartbeatIsOut { countError(.peerUnreachable) }
        guard state != .over else { return }
        if clock - lastBusy >= heartbeatInterval { shrink() }
        if heartbeatIsOut || clock - lastHeard >= heartbeatInterval {
            heartbeatIsOut = true
            heartbeatNonce = Self.draw(key, &drawn)
            pending.insert(.heartbeat)
            timers[.heartbeat] = clock + heartbeatInterval + roundTrip.timeout
        } else {
            timers[.heartbeat] = lastHeard + heartbeatInterval
        }
    }

    /// After a while without data, what a burst needed is given back.
    private mutating func shrink() {
        sending.shrink()
        window.shrink()
        items.shrink()
    }

    func writeHeartbeat(to packet: inout OutputRawSpan) {
        packet.append(UInt16(ChunkType.heartbeat) << 8)
        packet.append(UInt16(24))
        packet.append(UInt16(1))
        packet.append(UInt16(20))
        packet.append(clock.nanoseconds)
        packet.append(heartbeatNonce)
    }

    mutating func receiveHeartbeat(_ chunk: RawSpan) -> SCTPDropReason? {
        guard state.isUp || state == .cookieEchoed else { return .unexpectedChunk }
        guard chunk.byteCount >= 8, setControl(.heartbeat, chunk.bytes(4..<chunk.byteCount)) else { return .malformed }
        pending.insert(.heartbeatAck)
        return nil
    }

    mutating func receiveHeartbeatAck(_ chunk: RawSpan) -> SCTPDropReason? {
        guard state.isUp, heartbeatIsOut else { return .unexpectedChunk }
        guard chunk.byteCount == 24, chunk.u64(16) == heartbeatNonce else { return .malformed }
        heartbeatIsOut = false
        lastHeard = clock
        errors = 0
        roundTrip.sample(clock - Instant(nanoseconds: chunk.u64(8)))
        return nil
    }

    /// ERROR: only a stale cookie asks for anything, and that is a new INIT (section 5.2.6).
    mutating func receiveError(_ chunk: RawSpan) -> SCTPDropReason? {
        guard state == .cookieEchoed, chunk.byteCount >= 8, chunk.u16(4) == 3 else { return nil }
        state = .cookieWait
        pending.remove(.cookieEcho)
        timers[.handshake] = clock
        return nil
    }
}

// The end.
extension SCTPAssociation {
    /// Ends the association once all that was sent has arrived (SHUTDOWN); `.closed` or `.failed` follows.
    public mutating func close() {
        switch state {
        case .listening, .cookieWait, .cookieEchoed:
            if peerTag != 0 {
                setError(ErrorCause.userAbort, RawSpan())
                pending.insert(.abort)
            }
            end(Item(kind: .closed))
        case .established:
            state = .shutdownPending
            timers[.shutdownGuard] = clock + shutdownLimit
            progressShutdown()
        case .shutdownPending, .shutdownSent, .shutdownReceived, .shutdownAckSent, .over: break
        }
    }

    /// Ends the association at once (ABORT): what browsers do, and what makes a browser close its channels at once.
    public mutating func abort() {
        guard state != .over else { return }
        fail(.abortedLocally, abort: ErrorCause.userAbort)
    }

    mutating func fail(_ failure: SCTPFailure, abort cause: UInt16?) {
        guard state != .over else { return }
        let reachesPeer = peerTag != 0
        end(Item(kind: .failed, failure: failure.rawValue))
        guard let cause, reachesPeer else { return }
        setError(cause, RawSpan())
        pending = .abort
    }

    private mutating func end(_ item: Item) {
        state = .over
        pending.formIntersection([.abort, .shutdownComplete])
        timers = TimerTable()
        report(item)
    }

    /// Takes the next step when nothing of ours is under way any more.
    mutating func progressShutdown() {
        guard sending.isEmpty else { return }
        if state == .shutdownPending {
            state = .shutdownSent
            pending.insert(.shutdown)
        } else if state == .shutdownReceived {
            state = .shutdownAckSent
            pending.insert(.shutdownAck)
        }
    }

    mutating func receiveShutdown(_ chunk: RawSpan) -> SCTPDropReason? {
        guard state.isUp else { return .unexpectedChunk }
        guard chunk.byteCount == 8 else { return .malformed }
        receiveCumulativeAck(chunk.u32(4))
        switch state {
        case .established, .shutdownPending:
            state = .shutdownReceived
            timers[.shutdownGuard] = clock + shutdownLimit
            progressShutdown()
        case .shutdownSent, .shutdownAckSent:
            state = .shutdownAckSent
            pending.insert(.shutdownAck)
        case .shutdownReceived, .listening, .cookieWait, .cookieEchoed, .over: break
        }
        return nil
    }

    mutating func receiveShutdownAck() -> SCTPDropReason? {
        guard state == .shutdownSent || state == .shutdownAckSent else { return .unexpectedChunk }
        end(Item(kind: .closed))
        pending.insert(.shutdownComplete)
        return nil
    }

    mutating func receiveShutdownComplete() -> SCTPDropReason? {
        guard state == .shutdownAckSent else { return .unexpectedChunk }
        end(Item(kind: .closed))
        return nil
    }

    /// Our SHUTDOWN COMPLETE may have been lost: a peer that still asks gets another one.
    mutating func receiveAfterEnd(_ type: UInt8) -> SCTPDropReason? {
        guard type == ChunkType.shutdownAck else { return .closed }
        pending.insert(.shutdownComplete)
        return nil
    }
}
