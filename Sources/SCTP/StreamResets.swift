// Stream reset (RFC 6525): how a data channel is closed (RFC 8831 section 6.7).

import Primitives

private enum ResetResult {
    static let nothingToDo: UInt32 = 0
    static let performed: UInt32 = 1
    static let denied: UInt32 = 2
    static let alreadyInProgress: UInt32 = 4
    static let badSequence: UInt32 = 5
    static let inProgress: UInt32 = 6
}

struct StreamResets: BitwiseCopyable {
    static let streamsMax = 16

    /// Our next request's number; requests begin with the first TSN.
    var nextRequest: UInt32 = 0
    /// The number of the peer's next request, and our answer to the last one.
    var expectedRequest: UInt32 = 0
    var lastResult: UInt32 = 0
    var hasAnswered = false

    /// A channel may wait to be reset.
    var isWanted = false
    /// Our request that waits for an answer: there is at most one.
    var requestIsOut = false
    var requestIsDue = false
    /// The answer was "not yet".
    var isPutOff = false
    var lastTSN: UInt32 = 0
    var streams = InlineArray<16, UInt16>(repeating: 0)
    var streamCount = 0

    /// Answers that wait to be sent; a chunk has at most two requests.
    var answers = InlineArray<2, UInt64>(repeating: 0)
    var answerCount = 0

    init() {}

    init(localTSN: UInt32, peerTSN: UInt32) {
        nextRequest = localTSN
        expectedRequest = peerTSN
    }

    mutating func answer(_ sequence: UInt32, _ result: UInt32) {
        guard answerCount < 2 else { return }
        answers[answerCount] = UInt64(sequence) << 32 | UInt64(result)
        answerCount &+= 1
    }
}

extension SCTPAssociation {
    /// RE-CONFIG.
    mutating func receiveReconfiguration(_ chunk: RawSpan) -> SCTPDropReason? {
        guard chunk.byteCount >= 8 else { return .malformed }
        var offset = 4
        var count = 0
        while offset &+ 4 <= chunk.byteCount && count < 2 {
            let type = chunk.u16(offset)
            let length = Int(chunk.u16(offset &+ 2))
            guard length >= 8, offset &+ length <= chunk.byteCount else { return .malformed }
            let parameter = chunk.bytes(offset..<offset &+ length)
            switch type {
            case ParameterType.outgoingReset:
                guard length >= 16 else { return .malformed }
                receiveRequest(parameter)
            case ParameterType.incomingReset, ParameterType.associationReset, ParameterType.addOutgoingStreams,
                ParameterType.addIncomingStreams:
                receiveRequest(parameter)
            case ParameterType.response:
                guard length >= 12 else { return .malformed }
                receiveResponse(parameter.u32(4), parameter.u32(8))
            default: return .malformed
            }
            guard state != .over else { return nil }
            offset &+= length &+ padding(length)
            count &+= 1
        }
        return nil
    }

    private mutating func receiveRequest(_ parameter: RawSpan) {
        let sequence = parameter.u32(4)
        let isNext = sequence == resetting.expectedRequest
        let isLast = resetting.hasAnswered && sequence == resetting.expectedRequest &- 1
        guard isNext || isLast else {
            resetting.answer(sequence, ResetResult.badSequence)
            return
        }
        // The last one again: the answer was lost, unless it was to be asked again.
        if isNext || resetting.lastResult == ResetResult.inProgress { resetting.lastResult = perform(parameter) }
        if isNext { resetting.expectedRequest &+= 1 }
        resetting.hasAnswered = true
        resetting.answer(sequence, resetting.lastResult)
    }

    private mutating func perform(_ parameter: RawSpan) -> UInt32 {
        switch parameter.u16(0) {
        case ParameterType.outgoingReset:
            // Not before all that the peer sent on the stream is here.
            guard !isBefore(window.cumulative, parameter.u32(12)) else { return ResetResult.inProgress }
            forEachChannel(in: parameter, from: 16) { association, slot in
                association.channels[slot].expectedSequence = 0
                association.channels[slot].incomingIsReset = true
                if association.channels[slot].isLive {
                    association.reportClosed(slot)
                    association.startClosing(slot)
                }
                association.releaseIfDone(slot)
            }
            return ResetResult.performed
        case ParameterType.incomingReset:
            forEachChannel(in: parameter, from: 8) { association, slot in
                if association.channels[slot].isLive { association.startClosing(slot) }
            }
            return ResetResult.performed
        default: return ResetResult.denied
        }
    }

    /// The channels of the streams that are listed from `start`; all of them when the list is empty.
    private mutating func forEachChannel(in parameter: RawSpan, from start: Int, _ body: (inout SCTPAssociation, Int) -> Void) {
        if parameter.byteCount < start + 2 {
            for slot in 0..<channels.count where channels[slot].state != .free && state != .over { body(&self, slot) }
            return
        }
        var offset = start
        while offset &+ 2 <= parameter.byteCount && state != .over {
            if let slot = slot(of: parameter.u16(offset)) { body(&self, slot) }
            offset &+= 2
        }
    }

    private mutating func receiveResponse(_ sequence: UInt32, _ result: UInt32) {
        guard resetting.requestIsOut, sequence == resetting.nextRequest else { return }
        resetting.nextRequest &+= 1
        errors = 0
        lastHeard = clock
        if result == ResetResult.inProgress || result == ResetResult.alreadyInProgress {
            // Asked again after a while, as a new request.
            timers[.reset] = clock + roundTrip.timeout
            resetting.requestIsDue = false
            resetting.isPutOff = true
            return
        }
        resetting.requestIsOut = false
        timers[.reset] = .never
        for index in 0..<resetting.streamCount {
            guard let slot = slot(of: resetting.streams[index]), channels[slot].reset == .requested else { continue }
            channels[slot].reset = .done
            if result == ResetResult.nothingToDo || result == ResetResult.performed {
                releaseIfDone(slot)
            } else {
                // The peer goes on with the old sequence numbers: the id cannot be used again.
                reportClosed(slot)
                channels[slot].state = .retired
            }
        }
    }

    /// Collects the channels that can be closed now: all that was sent on them has arrived.
    private mutating func prepareReset() {
        guard resetting.isWanted, state == .established, !resetting.requestIsOut else { return }
        resetting.isWanted = false
        var count = 0
        for slot in 0..<channels.count where channels[slot].state == .closing && channels[slot].reset == .wanted {
            guard channels[slot].pendingChunks == 0, count < StreamResets.streamsMax else {
                resetting.isWanted = true
                continue
            }
            guard peerResetsStreams else {
                // Closed before it was known that the peer cannot be told.
                reportClosed(slot)
                channels[slot].state = .retired
                continue
            }
            channels[slot].reset = .requested
            resetting.streams[count] = channels[slot].id
            count &+= 1
        }
        guard count > 0 else { return }
        resetting.streamCount = count
        resetting.lastTSN = sending.highestSent
        resetting.requestIsOut = true
        resetting.requestIsDue = true
    }

    mutating func writeStreamResets(_ frame: PacketFrame, to packet: inout OutputRawSpan) {
        while resetting.answerCount > 0 && frame.room(packet) >= 16 {
            resetting.answerCount &-= 1
            let answer = resetting.answers[resetting.answerCount]
            packet.append(UInt16(ChunkType.reconfiguration) << 8)
            packet.append(UInt16(16))
            packet.append(ParameterType.response)
            packet.append(UInt16(12))
            packet.append(answer)
        }
        prepareReset()
        let length = 20 &+ 2 &* resetting.streamCount
        guard resetting.requestIsOut, resetting.requestIsDue, frame.room(packet) >= length &+ padding(length) else { return }
        resetting.requestIsDue = false
        packet.append(UInt16(ChunkType.reconfiguration) << 8)
        packet.append(UInt16(truncatingIfNeeded: length))
        packet.append(ParameterType.outgoingReset)
        packet.append(UInt16(truncatingIfNeeded: length &- 4))
        packet.append(resetting.nextRequest)
        packet.append(resetting.expectedRequest &- 1)
        packet.append(resetting.lastTSN)
        for index in 0..<resetting.streamCount { packet.append(resetting.streams[index]) }
        packet.append(zeros: padding(length))
        timers[.reset] = clock + roundTrip.timeout
    }
}
