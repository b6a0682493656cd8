// Packets that leave: control chunks first, then an acknowledgement, then data.

import Primitives

/// Chunks that wait to be written.
struct PendingChunks: OptionSet {
    let rawValue: UInt16
    static let initiate = PendingChunks(rawValue: 1 << 0)
    static let initiateAck = PendingChunks(rawValue: 1 << 1)
    static let cookieEcho = PendingChunks(rawValue: 1 << 2)
    static let cookieAck = PendingChunks(rawValue: 1 << 3)
    static let heartbeat = PendingChunks(rawValue: 1 << 4)
    static let heartbeatAck = PendingChunks(rawValue: 1 << 5)
    static let error = PendingChunks(rawValue: 1 << 6)
    static let abort = PendingChunks(rawValue: 1 << 7)
    static let shutdown = PendingChunks(rawValue: 1 << 8)
    static let shutdownAck = PendingChunks(rawValue: 1 << 9)
    static let shutdownComplete = PendingChunks(rawValue: 1 << 10)
    static let forwardTSN = PendingChunks(rawValue: 1 << 11)
    /// One packet of lost chunks may leave whatever the congestion window says (RFC 9260 section 7.2.4).
    static let fastRetransmission = PendingChunks(rawValue: 1 << 12)
}

/// Where the bytes of control chunks wait; one of each kind, so that a flood costs one answer.
enum ControlSlot: Int {
    case heartbeat, error, unrecognizedParameters
    static let count = 3
    static let size = 512
}

/// The packet being written.
struct PacketFrame {
    let start: Int
    let end: Int

    func room(_ output: borrowing OutputRawSpan) -> Int { end &- output.byteCount }
}

extension SCTPAssociation {
    /// Writes the next packet, at most the MTU long, at the end of `packet`; false: nothing to send, or no room for an MTU.
    public mutating func nextTransmit(into packet: inout OutputRawSpan, at now: Instant) -> Bool {
        clock = max(clock, now)
        guard packet.freeCapacity >= mtu else { return false }
        if let wrote = writeAlone(to: &packet) { return wrote }
        guard state != .over, peerTag != 0 else { return false }
        let frame = begin(peerTag, to: &packet)
        var mayOmitChecksum = peerTakesZeroChecksum && state.isUp
        if pending.contains(.cookieEcho) && state == .cookieEchoed {
            mayOmitChecksum = false
            unsafe writeChunk(ChunkType.cookieEcho, 0, cookie.span.bytes, frame, to: &packet)
            pending.remove(.cookieEcho)
            startHandshakeTimer()
        }
        writeControl(frame, to: &packet)
        if state.isUp { writeTraffic(frame, to: &packet) }
        guard packet.byteCount > frame.start + commonHeaderSize else {
            packet.removeLast(commonHeaderSize)
            return false
        }
        finish(frame, omitChecksum: mayOmitChecksum, to: &packet)
        return true
    }

    /// Chunks that have a packet, and a tag, for themselves. Nil: none of these waits.
    private mutating func writeAlone(to packet: inout OutputRawSpan) -> Bool? {
        if take(.abort) {
            guard peerTag != 0 else { return false }
            let frame = begin(peerTag, to: &packet)
            writeChunk(ChunkType.abort, 0, controlBytes(.error), frame, to: &packet)
            finish(frame, omitChecksum: false, to: &packet)
            return true
        }
        if take(.shutdownComplete) {
            let frame = begin(peerTag, to: &packet)
            writeChunk(ChunkType.shutdownComplete, 0, RawSpan(), frame, to: &packet)
            finish(frame, omitChecksum: false, to: &packet)
            return true
        }
        guard state != .over else { return false }
        if take(.initiate) {
            let frame = begin(0, to: &packet)
            writeInitiation(ChunkType.initiate, localTag, localTSN, to: &packet)
            finish(frame, omitChecksum: false, to: &packet)
            startHandshakeTimer()
            return true
        }
        if take(.initiateAck) {
            let frame = begin(initReply.peer.tag, to: &packet)
            writeInitiation(ChunkType.initiateAck, initReply.localTag, initReply.localTSN, to: &packet)
            finish(frame, omitChecksum: false, to: &packet)
            return true
        }
        return nil
    }

    private mutating func writeControl(_ frame: PacketFrame, to packet: inout OutputRawSpan) {
        if take(.cookieAck) { writeChunk(ChunkType.cookieAck, 0, RawSpan(), frame, to: &packet) }
        if pending.contains(.error), writeChunk(ChunkType.error, 0, controlBytes(.error), frame, to: &packet) { pending.remove(.error) }
        if pending.contains(.heartbeatAck), writeChunk(ChunkType.heartbeatAck, 0, controlBytes(.heartbeat), frame, to: &packet) {
            pending.remove(.heartbeatAck)
        }
        if pending.contains(.heartbeat), frame.room(packet) >= 24 {
            pending.remove(.heartbeat)
            writeHeartbeat(to: &packet)
        }
        writeStreamResets(frame, to: &packet)
    }

    private mutating func writeTraffic(_ frame: PacketFrame, to packet: inout OutputRawSpan) {
        let hasData = state.maySendData && mayTransmitData()
        if acknowledging.isDue || (hasData && acknowledging.packets > 0) { writeSelectiveAck(frame, to: &packet) }
        if pending.contains(.forwardTSN) { writeForwardTSN(frame, to: &packet) }
        if state.maySendData { writeData(frame, to: &packet) }
        if state == .shutdownSent, pending.contains(.shutdown), frame.room(packet) >= 8 {
            pending.remove(.shutdown)
            packet.append(UInt16(ChunkType.shutdown) << 8)
            packet.append(UInt16(8))
            packet.append(window.cumulative)
            timers[.shutdown] = clock + roundTrip.timeout
        }
        if state == .shutdownAckSent, pending.contains(.shutdownAck), frame.room(packet) >= 4 {
            pending.remove(.shutdownAck)
            writeChunk(ChunkType.shutdownAck, 0, RawSpan(), frame, to: &packet)
            timers[.shutdown] = clock + roundTrip.timeout
        }
    }

    private mutating func writeSelectiveAck(_ frame: PacketFrame, to packet: inout OutputRawSpan) {
        let duplicates = acknowledging.duplicateCount
        let fixed = 16 + 4 * duplicates
        guard frame.room(packet) >= fixed else { return }
        let at = packet.byteCount
        packet.append(UInt16(ChunkType.selectiveAck) << 8)
        packet.append(UInt16(0))
        packet.append(window.cumulative)
        packet.append(UInt32(truncatingIfNeeded: window.available))
        packet.append(UInt32(0))
        // Half the packet is enough to say what is missing.
        let most = min(frame.room(packet) &- 4 &* duplicates, mtu / 2) / 4
        var gaps = 0
        window.forEachGapBlock { start, end in
            guard gaps < most else { return false }
            packet.append(start)
            packet.append(end)
            gaps &+= 1
            return true
        }
        for index in 0..<duplicates { packet.append(acknowledging.duplicates[index]) }
        let length = packet.byteCount &- at
        var written = packet.mutableBytes
        written.set(UInt16(truncatingIfNeeded: length), at: at &+ 2)
        written.set(UInt16(truncatingIfNeeded: gaps), at: at &+ 12)
        written.set(UInt16(truncatingIfNeeded: duplicates), at: at &+ 14)
        acknowledging.sent(announcing: window.available)
        timers[.acknowledgement] = .never
    }
}

// The frame of a packet.
extension SCTPAssociation {
    mutating func take(_ chunk: PendingChunks) -> Bool { pending.remove(chunk) != nil }

    private func begin(_ tag: UInt32, to packet: inout OutputRawSpan) -> PacketFrame {
        let start = packet.byteCount
        packet.append(localPort)
        packet.append(remotePort)
        packet.append(tag)
        packet.append(UInt32(0))
        return PacketFrame(start: start, end: start &+ mtu)
    }

    private mutating func finish(_ frame: PacketFrame, omitChecksum: Bool, to packet: inout OutputRawSpan) {
        assert(packet.byteCount <= frame.end && (packet.byteCount - frame.start) & 3 == 0)
        lastSent = clock
        guard !omitChecksum else { return }
        let checksum = CRC32c.ofPacket(packet.bytes.bytes(frame.start..<packet.byteCount))
        var written = packet.mutableBytes
        written.set(checksum, at: frame.start &+ 8)
    }

    /// A chunk with `value`, padded; false: no room.
    @discardableResult
    func writeChunk(
        _ type: UInt8, _ flags: UInt8, _ value: RawSpan, _ frame: PacketFrame, to packet: inout OutputRawSpan
    ) -> Bool {
        let length = 4 &+ value.byteCount
        guard length &+ padding(length) <= frame.room(packet) else { return false }
        packet.append(UInt16(type) << 8 | UInt16(flags))
        packet.append(UInt16(truncatingIfNeeded: length))
        packet.append(contentsOf: value)
        packet.append(zeros: padding(length))
        return true
    }

    /// INIT, or INIT ACK with our cookie and the reports of the INIT it answers.
    func writeInitiation(_ type: UInt8, _ tag: UInt32, _ tsn: UInt32, to packet: inout OutputRawSpan) {
        let isReply = type == ChunkType.initiateAck
        let at = packet.byteCount
        packet.append(UInt16(type) << 8)
        packet.append(UInt16(0))
        packet.append(tag)
        packet.append(UInt32(truncatingIfNeeded: window.available))
        packet.append(streamLimit)
        packet.append(streamLimit)
        packet.append(tsn)
        if isReply {
            packet.append(ParameterType.stateCookie)
            packet.append(UInt16(4 + StateCookie.size))
            StateCookie(madeAt: clock, reply: initReply).write(to: &packet, key: key)
        }
        packet.append(ParameterType.forwardTSN)
        packet.append(UInt16(4))
        // Not to a peer that has not said it: Pion of before 2024 drops the whole chunk for a parameter that it does not know.
        if !isReply || initReply.peer.takesZeroChecksum {
            packet.append(ParameterType.zeroChecksum)
            packet.append(UInt16(8))
            packet.append(UInt32(1))
        }
        packet.append(ParameterType.supportedExtensions)
        packet.append(UInt16(6))
        packet.append(ChunkType.reconfiguration)
        packet.append(ChunkType.forwardTSN)
        packet.append(UInt16(0))
        var end = packet.byteCount &- 2
        if isReply && controlLengths[ControlSlot.unrecognizedParameters.rawValue] > 0 {
            packet.append(ParameterType.unrecognized)
            let reported = controlBytes(.unrecognizedParameters)
            packet.append(UInt16(truncatingIfNeeded: 4 &+ reported.byteCount))
            packet.append(contentsOf: reported)
            end = packet.byteCount
        }
        var written = packet.mutableBytes
        written.set(UInt16(truncatingIfNeeded: end &- at), at: at &+ 2)
    }

    @_lifetime(borrow self)
    private func controlBytes(_ slot: ControlSlot) -> RawSpan {
        control.bytes(slot.rawValue, controlLengths[slot.rawValue])
    }

    /// False: too large to be kept.
    @discardableResult
    mutating func setControl(_ slot: ControlSlot, _ bytes: RawSpan) -> Bool {
        guard bytes.byteCount <= ControlSlot.size else { return false }
        controlLengths[slot.rawValue] = bytes.byteCount
        guard bytes.byteCount > 0 else { return true }
        var target = control.mutableBytes(slot.rawValue, 0..<bytes.byteCount)
        target.copy(bytes, to: 0)
        return true
    }

    /// One error cause for ERROR or ABORT; a long value is cut off. Nothing is sent for an empty list of unrecognized parameters.
    mutating func setError(_ cause: UInt16, _ value: RawSpan) {
        if cause == ErrorCause.unrecognizedParameters && value.byteCount == 0 { return }
        let count = min(value.byteCount, 256)
        let length = 4 &+ count
        var target = control.mutableBytes(ControlSlot.error.rawValue, 0..<length &+ padding(length))
        target.set(cause, at: 0)
        target.set(UInt16(truncatingIfNeeded: length), at: 2)
        if count > 0 { target.copy(value.bytes(0..<count), to: 4) }
        for index in length..<length &+ padding(length) { target.set(UInt8(0), at: index) }
        controlLengths[ControlSlot.error.rawValue] = length
        pending.insert(.error)
    }
}
