// The agent of one session.

import Primitives
import STUN

/// A lite agent (RFC 8445 §2.5), always controlled. It allocates when it is made and never after, except for `restart`'s arguments.
///
/// The owner calls `receive` for each STUN datagram, `noteAuthenticated` for each datagram of the other kinds that proved authentic and
/// fresh, and `advance` at `nextDeadline`; after any of them it drains `nextTransmit` and `nextEvent`.
public struct ICELiteAgent: ~Copyable {
    private var credentials = CredentialStore()
    /// The slot of the generation in use; the other one waits for its nomination if `isRestarting`.
    private var current: UInt8 = 0
    private var isRestarting = false

    private var paths = PathTable()
    private var selected: Int?
    /// Whether something replay-protected was received on the selected path, which ends the power of nominations.
    private var isSettled = false

    /// Whether some path has ever proved itself; before that, which is before the keys, nothing is counted.
    private var hasProof = false
    private var isSelectionProved = true
    /// When the downlink goes back if the selected path has not proved itself by then.
    private var proofDue = Instant.never
    private var nextProofCheck = Instant.never
    /// The last selected path that had proved itself, while the present one has not.
    private var wayBack: NetworkPath?

    private var recent = RecentChecks()
    private var answers = AnswerQueue()
    private var checks = SentChecks()
    private var isCheckDue = false
    private let tieBreaker: UInt64
    private var random: SeededGenerator

    /// When anything authentic was last received.
    private var heardAt: Instant
    /// When the selected path last gave consent.
    private var consentAt: Instant
    private var nextCheck = Instant.never
    private let silence: Interval
    private var told = Told()

    /// Whether data may be sent on the selected path.
    public private(set) var hasConsent = false
    private var isSilent = false

    /// What the owner was told last; events are the differences.
    private struct Told {
        var selection = true
        var consent = false
        var silence = false
    }

    /// The most that a packet of ours needs: a check with the longest USERNAME.
    public static let packetSizeMax = 592

    /// - Parameters:
    ///   - local: ours, at most 256 bytes each; traps otherwise.
    ///   - remote: the peer's; if they are empty or longer than 256 bytes no check will be accepted.
    ///   - entropy: the seed of the transaction ids of our own checks.
    ///   - silence: until `ICEEvent.silent`.
    public init(
        local: ICECredentials, remote: ICECredentials, tieBreaker: UInt64, entropy: UInt64, silence: Interval = ICETiming.silence,
        at now: Instant
    ) {
        self.silence = silence
        credentials.set(0, local: local, remote: remote)
        self.tieBreaker = tieBreaker
        random = SeededGenerator(seed: entropy)
        heardAt = now
        consentAt = now
    }

    /// Where the downlink goes: set by the first nomination. It stays when consent is lost.
    public var selectedPath: NetworkPath? {
        guard let selected else { return nil }
        return paths[selected].path
    }

    /// Whether an authentic check of a live generation came from `path.client`, and was answered.
    public func isValidated(_ path: NetworkPath) -> Bool { paths.index(ofClient: path.client) != nil }

    /// The same for every packet. An agent that may be changed is used where it lies; one that is only read is copied.
    public var pathInUse: NetworkPath? {
        mutating get {
            guard let selected else { return nil }
            return paths[selected].path
        }
    }

    /// Whether `nextEvent` has something to tell.
    public var hasEvents: Bool {
        mutating get { paths.unannounced > 0 || !told.selection || told.consent != hasConsent || told.silence != isSilent }
    }

    /// The next event, oldest kind first; nil: none. Transitions that were undone before they were asked for do not show.
    public mutating func nextEvent() -> ICEEvent? {
        if let path = paths.nextUnannounced() { return .pathValidated(path) }
        if !told.selection, let path = selectedPath {
            told.selection = true
            return .selected(path)
        }
        if told.consent != hasConsent {
            told.consent = hasConsent
            return hasConsent ? .consentRegained : .consentLost
        }
        if told.silence != isSilent {
            told.silence = isSilent
            if isSilent { return .silent }
        }
        return nil
    }
}

extension ICELiteAgent {
    /// One datagram of class STUN that came by `path`. nil: it was used, and may have left an answer for `nextTransmit`.
    public mutating func receive(_ datagram: RawSpan, on path: NetworkPath, at now: Instant) -> ICEDropReason? {
        guard let message = try? STUNMessage(parsing: datagram) else { return .malformed }
        guard message.method == STUN.bindingMethod else { return .notForUs }
        if message.hasFingerprint && !message.verifiesFingerprint() { return .badFingerprint }
        switch message.messageClass {
        case .request:
            let reason = receiveRequest(message, on: path, at: now)
            if reason == nil { paths.noteReceived(datagram.byteCount, on: path) }
            return reason
        case .success, .error: return receiveResponse(message, on: path, at: now)
        case .indication: return .notForUs
        }
    }

    private mutating func receiveRequest(_ request: borrowing STUNMessage, on path: NetworkPath, at now: Instant) -> ICEDropReason? {
        guard let receiver = request.receiverUfrag, let sender = request.senderUfrag else { return .noUsername }
        guard let slot = slot(receiver: receiver, sender: sender) else { return .wrongUfrag }
        guard request.verifiesIntegrity(key: credentials.bytes(Int(slot), .localPassword)) else { return .badIntegrity }
        var answer = PendingAnswer(transactionID: request.transactionID, path: path, slot: slot)
        if request.unknownAttributeCount > 0 {
            answer.kind = .unknownAttributes
            answer.unknown = request.unknownAttributes
        } else if request.iceControlled != nil {
            // RFC 8445 §7.3.1.1 would compare tie-breakers; a lite agent cannot take the other role.
            answer.kind = .roleConflict
        } else {
            accept(path, slot: slot, nominated: request.useCandidate, isNew: recent.note(request.transactionID), at: now)
        }
        answers.push(answer)
        return nil
    }

    /// The live generation that a request is for.
    private func slot(receiver: RawSpan, sender: RawSpan) -> UInt8? {
        if credentials.matches(Int(current), receiver: receiver, sender: sender) { return current }
        if isRestarting, credentials.matches(Int(current ^ 1), receiver: receiver, sender: sender) { return current ^ 1 }
        return nil
    }

    /// An authentic check: its way is valid, may be selected, and consents if it is.
    private mutating func accept(_ path: NetworkPath, slot: UInt8, nominated: Bool, isNew: Bool, at now: Instant) {
        let index = paths.note(path, slot: slot, at: now, keeping: selected)
        // Our answer was lost, or somebody plays a recording: it is answered, and is no sign of life.
        guard isNew || !isSettled else { return }
        let isNewGeneration = isRestarting && slot != current
        // Only forward: a late check of the old generation does not take a path back.
        if isNewGeneration { paths[index].slot = slot }
        noteHeard(at: now)
        if nominated {
            if isNewGeneration {
                select(index, at: now)
                isSettled = false
                retireOldGeneration()
            } else if selected == nil || (selected != index && !isSettled) {
                select(index, at: now)
            }
        }
        if selected == index { noteConsent(at: now) }
    }

    private mutating func receiveResponse(_ response: borrowing STUNMessage, on path: NetworkPath, at now: Instant) -> ICEDropReason? {
        guard let index = checks.index(of: response.transactionID, from: path.client) else { return .unknownResponse }
        // RFC 8445 §7.2.5: under the password that our request was made with.
        guard response.verifiesIntegrity(key: credentials.bytes(checks.slot(index), .remotePassword)) else {
            return response.messageClass == .error ? .refused : .badIntegrity
        }
        checks.close(index)
        guard response.messageClass == .success else { return .refused }
        noteHeard(at: now)
        noteProved(path, at: now)
        if let selected, paths[selected].path.client == path.client {
            if paths[selected].path.isSameWay(as: path) { paths[selected].path = path }
            noteConsent(at: now)
        }
        return nil
    }

    /// The way that `path` is; one that no check came by is that of its client.
    private func entry(for path: NetworkPath) -> Int? {
        if let index = paths.index(of: path) { return index }
        if let selected, paths[selected].path.client == path.client { return selected }
        return paths.index(ofClient: path.client)
    }

    /// Something authentic and replay-protected arrived there: SRTP, SRTCP or DTLS, never a check. Takes the downlink there if the path
    /// was validated and the datagram is not one that somebody has held back, and takes over the hop by which it came; also the ingress, where
    /// a client's address is validated by another one and the network has led it elsewhere.
    ///
    /// - Parameter isNewest: nothing that was sent later has come before it.
    public mutating func noteAuthenticated(on path: NetworkPath, isNewest: Bool = true, at now: Instant) {
        noteHeard(at: now)
        guard let selected else { return }
        if paths[selected].path.isSameWay(as: path) {
            paths[selected].path = path
        } else if isNewest, let index = paths.index(of: path) {
            paths[index].path = path
            select(index, at: now)
        } else if isNewest, paths[selected].path.client == path.client {
            paths[selected].path = path
            told.selection = false
        } else if isNewest, let index = paths.index(ofClient: path.client) {
            paths[index].path = path
            select(index, at: now)
        } else {
            return
        }
        isSettled = true
        noteConsent(at: now)
    }

    private mutating func select(_ index: Int, at now: Instant) {
        guard selected != index else { return }
        told.selection = false
        if let selected {
            if paths[selected].isProved { wayBack = paths[selected].path }
        } else {
            // The first selection is consent, and no news.
            told.consent = true
        }
        selected = index
        demandProof(at: now)
        if isSelectionProved { wayBack = nil }
    }

    /// Somebody there has answered what only somebody there could have read: a check of ours, or, says the owner, a handshake.
    public mutating func noteProved(_ path: NetworkPath, at now: Instant) {
        let isFirst = !hasProof
        hasProof = true
        let index = entry(for: path)
        if let index { paths[index].isProved = true }
        if selected != nil, selected == index {
            wayBack = nil
        } else if isFirst, selected != nil {
            wayBack = path
        } else {
            return
        }
        demandProof(at: now)
    }

    /// The selected path has two seconds, if it is not proved.
    private mutating func demandProof(at now: Instant) {
        guard let selected else { return }
        isSelectionProved = paths[selected].isProved || !hasProof
        proofDue = isSelectionProved ? .never : now + ICETiming.proof
        nextProofCheck = isSelectionProved ? .never : now
    }

    /// The selected path has not proved itself in time.
    private mutating func goBack(at now: Instant) {
        proofDue = .never
        nextProofCheck = .never
        if let wayBack, let index = paths.index(of: wayBack), paths[index].isProved { select(index, at: now) }
        wayBack = nil
    }

    /// `byteCount` bytes other than STUN have come by `path`, whatever they are.
    public mutating func noteReceived(_ byteCount: Int, on path: NetworkPath) {
        if isSelectionProved, let selected, paths[selected].path.isSameWay(as: path) { return }
        paths.noteReceived(byteCount, on: path)
    }

    /// Where a datagram other than STUN may go that is meant for the selected path: there, or by the old way while the new one has yet
    /// to prove itself; nil: it must not be sent.
    public mutating func admit(_ byteCount: Int, to path: NetworkPath) -> NetworkPath? {
        guard !isSelectionProved, let selected else { return path }
        return paths.spend(byteCount, on: selected) ? path : wayBack
    }

    private mutating func noteHeard(at now: Instant) {
        heardAt = max(heardAt, now)
        isSilent = false
    }

    private mutating func noteConsent(at now: Instant) {
        consentAt = max(consentAt, now)
        hasConsent = true
        isCheckDue = false
        nextCheck = consentAt + ICETiming.silenceBeforeChecks
    }
}

extension ICELiteAgent {
    /// Begins an ICE restart (RFC 8445 §9): checks of both generations are accepted until the new one nominates a path. A restart
    /// before that replaces the one that waits.
    public mutating func restart(local: ICECredentials, remote: ICECredentials, at now: Instant) {
        // Media may have moved to the new generation without a nomination: then it is the one in use.
        if isRestarting, let selected, paths[selected].slot != current { retireOldGeneration() }
        let next = current ^ 1
        paths.removeAll(of: next)
        answers.removeAll()
        credentials.set(Int(next), local: local, remote: remote)
        isRestarting = true
        noteHeard(at: now)
    }

    /// The new generation is the one in use, and on the selected path already. Ways that only the old one knew are forgotten, so that late media does not lead back.
    private mutating func retireOldGeneration() {
        paths.removeAll(of: current)
        current ^= 1
        isRestarting = false
    }

    /// Time has passed: consent ends, our own checks become due, the session falls silent.
    public mutating func advance(to now: Instant) {
        if selected != nil, hasConsent, now >= consentAt + ICETiming.consent { hasConsent = false }
        if now >= proofDue { goBack(at: now) }
        if !isSilent, now >= heardAt + silence {
            isSilent = true
            isCheckDue = false
            nextCheck = .never
        }
        if now >= nextCheck {
            isCheckDue = true
            let fifth = ICETiming.checkInterval.nanoseconds / 5
            let jitter = Int64(truncatingIfNeeded: random.next() % UInt64(2 * fifth)) - fifth
            nextCheck = now + ICETiming.checkInterval + .nanoseconds(jitter)
        }
        if now >= nextProofCheck {
            isCheckDue = true
            nextProofCheck = now + ICETiming.proofInterval
        }
    }

    /// When `advance` has something to do; `.never` when it has not.
    public var nextDeadline: Instant {
        var soonest = min(nextCheck, proofDue, nextProofCheck)
        if selected != nil, hasConsent { soonest = min(soonest, consentAt + ICETiming.consent) }
        if !isSilent { soonest = min(soonest, heardAt + silence) }
        return soonest
    }

    /// Appends one packet to `packet` and says where it goes; nil: there is none. `packet` needs `packetSizeMax` free bytes; what does
    /// not fit is lost.
    public mutating func nextTransmit(into packet: inout OutputRawSpan, at now: Instant) -> NetworkPath? {
        while let answer = answers.pop() {
            let before = packet.byteCount
            guard write(answer, to: &packet) else { continue }
            // Never longer than its request, so never refused.
            if let index = paths.index(of: answer.path) { _ = paths.spend(packet.byteCount &- before, on: index) }
            return answer.path
        }
        if now >= nextProofCheck {
            isCheckDue = true
            nextProofCheck = now + ICETiming.proofInterval
        }
        guard isCheckDue, let selected else { return nil }
        isCheckDue = false
        let before = packet.byteCount
        guard writeCheck(to: paths[selected], &packet) else { return nil }
        guard isSelectionProved || paths.spend(packet.byteCount &- before, on: selected) else {
            packet.removeLast(packet.byteCount &- before)
            return nil
        }
        return paths[selected].path
    }

    private func write(_ answer: PendingAnswer, to packet: inout OutputRawSpan) -> Bool {
        var writer = STUNWriter(answer.kind == .success ? .success : .error, answer.transactionID, to: &packet)
        switch answer.kind {
        case .success: writer.append(xorMappedAddress: answer.path.client.withoutTransport, to: &packet)
        case .unknownAttributes:
            writer.append(errorCode: 420, to: &packet)
            writer.append(unknownAttributes: answer.unknown, to: &packet)
        case .roleConflict: writer.append(errorCode: 487, to: &packet)
        }
        return writer.finish(key: credentials.bytes(Int(answer.slot), .localPassword), to: &packet)
    }

    private mutating func writeCheck(to target: ValidatedPath, _ packet: inout OutputRawSpan) -> Bool {
        let slot = Int(target.slot)
        guard credentials.isComplete(slot) else { return false }
        let id = STUNTransactionID(high: UInt32(truncatingIfNeeded: random.next()), low: random.next())
        var writer = STUNWriter(.request, id, to: &packet)
        writer.append(usernameFor: credentials.bytes(slot, .remoteUfrag), from: credentials.bytes(slot, .localUfrag), to: &packet)
        writer.append(iceControlled: tieBreaker, to: &packet)
        writer.append(priority: Self.priority, to: &packet)
        guard writer.finish(key: credentials.bytes(slot, .remotePassword), to: &packet) else { return false }
        checks.note(id, to: target.path.client, slot: target.slot)
        return true
    }

    /// Of a peer-reflexive candidate of component 1 (RFC 8445 §5.1.2.1), as PRIORITY asks for.
    private static let priority: UInt32 = 110 << 24 | 0xFFFF << 8 | 255
}
