// The handshake, its collisions and restarts (RFC 9260 section 5).

import Primitives

extension SCTPAssociation {
    /// Our INIT chunk, for `a=sctp-init` in SDP: when both sides have the other's, the handshake can be left out (SNAP).
    public func initChunk() -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: 64) { buffer, count in
            var output = unsafe OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
            writeInitiation(ChunkType.initiate, localTag, localTSN, to: &output)
            // Without its padding, as the browsers write it.
            output.removeLast(2)
            count = unsafe output.finalize(for: UnsafeMutableRawBufferPointer(buffer))
        }
    }

    /// The same chunk for an association that does not exist yet: tag and TSN come from the seed alone. With the default window.
    /// - Parameter seed: what the association will be made with.
    public static func initChunk(seed: UInt64) -> [UInt8] {
        let association = SCTPAssociation(peerMaxMessageSize: 0, isClientOfDTLS: false, seed: seed, at: .zero)
        return association.initChunk()
    }

    /// Whether `establish(withPeerInit:at:)` would take it.
    public static func isInitChunk(_ chunk: RawSpan) -> Bool {
        var report = ReportBuffer()
        return parseInit(chunk, &report) != nil
    }

    private static func parseInit(_ chunk: RawSpan, _ report: inout ReportBuffer) -> Initiation? {
        guard chunk.byteCount >= Initiation.fixedSize, chunk.byte(0) == ChunkType.initiate, case let length = Int(chunk.u16(2)),
            length >= Initiation.fixedSize, length <= chunk.byteCount, chunk.byteCount <= length + 3
        else { return nil }
        return Initiation(chunk.bytes(0..<length), report: &report)
    }

    /// Takes the peer's INIT chunk as SDP gave it, and is established at once. Only before anything was received; false: the chunk is
    /// malformed, or it is too late.
    public mutating func establish(withPeerInit chunk: RawSpan, at now: Instant) -> Bool {
        var report = ReportBuffer()
        guard state == .cookieWait || state == .listening, let peer = Self.parseInit(chunk, &report) else { return false }
        clock = max(clock, now)
        establish(peer)
        return true
    }

    mutating func startHandshakeTimer() {
        handshakeSentAt = clock
        timers[.handshake] = clock + min(roundTrip.timeout, RoundTrip.mostHandshakeTimeout)
    }

    /// An answer that is not one of several gives the first round trip; what the timer had grown to is forgotten.
    private mutating func noteHandshakeAnswer() {
        let isFirst = errors == 0
        errors = 0
        timers[.handshake] = .never
        if !isFirst { roundTrip = RoundTrip() } else { roundTrip.sample(clock - handshakeSentAt) }
    }

    /// INIT. Whatever our state is, the answer carries a cookie and nothing changes until that comes back.
    mutating func receiveInit(_ chunk: RawSpan) -> SCTPDropReason? {
        var report = ReportBuffer()
        guard let peer = Initiation(chunk, report: &report) else { return .malformed }
        var reply = InitReply()
        reply.peer = peer
        switch state {
        case .listening, .cookieWait, .cookieEchoed:
            // Both sides opened (section 5.2.1): the same tag and TSN as in our INIT.
            reply.localTag = localTag
            reply.localTSN = localTSN
            if state == .cookieEchoed { (reply.tieLocal, reply.tiePeer) = (localTag, peerTag) }
        case .established where isUntouched(by: peer):
            // It was established by SDP alone, and the peer never took our INIT from there: as if both had opened.
            reply.localTag = localTag
            reply.localTSN = localTSN
            (reply.tieLocal, reply.tiePeer) = (localTag, peerTag)
        case .established, .shutdownPending, .shutdownSent, .shutdownReceived:
            // The peer may have restarted (section 5.2.2): a new tag, and the cookie tells which association would be replaced.
            reply.localTag = Self.tag(key, &drawn)
            reply.localTSN = UInt32(truncatingIfNeeded: Self.draw(key, &drawn))
            (reply.tieLocal, reply.tiePeer) = (localTag, peerTag)
        case .shutdownAckSent:
            pending.insert(.shutdownAck)
            return nil
        case .over: return .closed
        }
        initReply = reply
        unsafe setControl(.unrecognizedParameters, report.bytes.span.bytes.bytes(0..<report.count))
        pending.insert(.initiateAck)
        return nil
    }

    /// Nothing has come from the peer, or been acknowledged by it, since this very INIT of its began the association.
    private func isUntouched(by peer: Initiation) -> Bool {
        peer.tag == peerTag && window.cumulative == peer.tsn &- 1 && !window.hasGap && sending.cumulativeAck == localTSN &- 1
    }

    mutating func receiveInitAck(_ chunk: RawSpan) -> SCTPDropReason? {
        guard state == .cookieWait else { return .unexpectedChunk }
        var report = ReportBuffer()
        guard let peer = Initiation(chunk, report: &report), peer.cookieEnd > peer.cookieStart else {
            fail(.protocolViolation, abort: ErrorCause.invalidParameter)
            return .malformed
        }
        // One that does not fit into a packet cannot be echoed.
        guard peer.cookieEnd &- peer.cookieStart <= mtu - commonHeaderSize - 4 else {
            fail(.limitExceeded, abort: ErrorCause.userAbort)
            return .malformed
        }
        adopt(peer)
        cookie = chunk.bytes(peer.cookieStart..<peer.cookieEnd).array
        unsafe setError(ErrorCause.unrecognizedParameters, report.bytes.span.bytes.bytes(0..<report.count))
        noteHandshakeAnswer()
        state = .cookieEchoed
        pending.remove(.initiate)
        pending.insert(.cookieEcho)
        return nil
    }

    /// COOKIE ECHO, with the table of section 5.2.4.
    /// - Parameter tag: the packet's verification tag, which no one has checked yet.
    mutating func receiveCookieEcho(_ chunk: RawSpan, tag: UInt32) -> SCTPDropReason? {
        guard let cookie = StateCookie(chunk.bytes(4..<chunk.byteCount), key: key), tag == cookie.reply.localTag else { return .badCookie }
        let reply = cookie.reply
        let isOurs = reply.localTag == localTag
        let isTheirs = reply.peer.tag == peerTag
        let isFresh = clock - cookie.madeAt <= StateCookie.lifetime
        switch (isOurs, isTheirs) {
        case (true, true):
            // D: our own association, perhaps by a second copy.
            if state == .cookieEchoed || state == .cookieWait || state == .listening { establish(reply.peer) }
        case (true, false):
            // B, and the plain case: the peer's tag is news.
            guard state == .listening || state == .cookieWait || state == .cookieEchoed else { return .unexpectedChunk }
            guard isFresh else { return .badCookie }
            establish(reply.peer)
        case (false, true):
            // C: a late cookie of an attempt that is over.
            return .unexpectedChunk
        case (false, false):
            // A: the peer has restarted.
            guard isFresh, state.isUp, reply.tieLocal == localTag, reply.tiePeer == peerTag else { return .badCookie }
            if state == .shutdownAckSent {
                setError(ErrorCause.cookieWhileShuttingDown, RawSpan())
                pending.insert(.shutdownAck)
                return nil
            }
            restart(reply)
        }
        pending.insert(.cookieAck)
        return nil
    }

    mutating func receiveCookieAck() -> SCTPDropReason? {
        guard state == .cookieEchoed else { return .unexpectedChunk }
        noteHandshakeAnswer()
        establish(nil)
        return nil
    }

    /// What the peer's INIT or INIT ACK settles.
    private mutating func adopt(_ peer: Initiation) {
        peerTag = peer.tag
        peerWindow = Int(peer.window)
        peerStreams = peer.incomingStreams
        peerSkips = peer.skips
        peerResetsStreams = peer.resetsStreams
        peerTakesZeroChecksum = peer.takesZeroChecksum
        congestion = Congestion(mtu: mtu, peerWindow: peerWindow)
        window.restart(first: peer.tsn)
        resetting = StreamResets(localTSN: localTSN, peerTSN: peer.tsn)
        resetting.isWanted = true
    }

    private mutating func establish(_ peer: Initiation?) {
        if let peer { adopt(peer) }
        state = .established
        cookie = []
        errors = 0
        pending.remove(.initiate)
        pending.remove(.cookieEcho)
        timers[.handshake] = .never
        timers[.heartbeat] = clock + heartbeatInterval
        lastHeard = clock
        report(Item(kind: .established))
        for slot in 0..<channels.count where channels[slot].state != .free && channels[slot].id >= peerStreams { closeAtOnce(slot) }
    }

    /// The peer lost its state and came back: so do we. What was queued is gone, and so are the channels.
    private mutating func restart(_ reply: InitReply) {
        for slot in 0..<channels.count where channels[slot].state != .free { closeAtOnce(slot) }
        guard state != .over else { return }
        localTag = reply.localTag
        localTSN = reply.localTSN
        sending = SendQueue(firstTSN: localTSN)
        skipPoint = localTSN &- 1
        acknowledging = Acknowledging()
        roundTrip = RoundTrip()
        pending = PendingChunks()
        heartbeatIsOut = false
        timers = TimerTable()
        establish(reply.peer)
    }

    private mutating func closeAtOnce(_ slot: Int) {
        window.store.remove(channels[slot].open)
        reportClosed(slot)
        channels[slot] = Channel()
    }
}
