// A WebRTC client small enough to read: full ICE agent with one candidate pair, DTLS, SRTP, and a voice that counts.

import Crypto
import DTLS
import ICE
import Primitives
import RTP
import SRTP
import STUN

struct SimulatedClient: ~Copyable {
    /// Whose voice it is: its frames carry the number.
    let number: UInt32
    /// Where a NAT has put it. The client itself does not know.
    var address: SocketAddress
    private var local: ICECredentials
    private var remote: ICECredentials
    /// Before the last restart: answers and checks may still be on their way.
    private var oldLocal: ICECredentials?
    private var oldRemote: ICECredentials?
    let relay: SocketAddress
    private let context: DTLSContext
    private var dtls: DTLSAssociation
    private var srtp: SRTPContext?
    private var random: SeededGenerator
    private let startedAt: Instant

    private var nextCheck: Instant
    private var sentChecks: [(id: STUNTransactionID, at: Instant)] = []
    private var isValid = false
    private var pendingAnswers: [[UInt8]] = []

    private let model: ClientModel
    private(set) var state = ClientState.checking
    private var stateSince: Instant
    private var answeredAt: Instant
    /// When anything was last received.
    private var heardAt: Instant
    private var retransmission: (id: STUNTransactionID, count: Int)?

    private var nextFrame = Instant.never
    private var sequence: UInt16
    private let framesMax: UInt32
    private let cadence: Interval
    private var watchedFrom = Instant.never
    /// When a frame was first heard that was said after the call to `watch`.
    private(set) var heardWatched: Instant?
    private var saidAt: [Instant] = []
    private var isSilent = false
    private var hasLeft = false
    private(set) var report = ClientReport()

    static let frameInterval = Interval.milliseconds(20)
    /// Of a pair that works, as Chromium has it; one that has not answered is asked twice a second.
    static let checkInterval = Interval.milliseconds(2500)
    static let checkIntervalUnanswered = Interval.milliseconds(500)
    static let checkIntervalAtFirst = Interval.milliseconds(50)

    init(
        number: UInt32, address: SocketAddress, credentials: ICECredentials, certificate: DTLSCertificate, answer: AnswerFacts,
        frames: UInt32, seed: UInt64, model: ClientModel = .steady, firstSequence: UInt16 = 100, cadence: Interval = frameInterval,
        at now: Instant
    ) throws {
        let context = try DTLSContext(certificate: certificate)
        self.context = context
        self.number = number
        self.address = address
        local = credentials
        remote = answer.remote
        relay = answer.relay
        dtls = DTLSAssociation(role: answer.weAreDTLSClient ? .client : .server, fingerprints: [answer.fingerprint])
        random = SeededGenerator(seed: seed)
        startedAt = now
        nextCheck = now
        framesMax = frames
        self.model = model
        self.cadence = cadence
        sequence = firstSequence
        stateSince = now
        answeredAt = now
        heardAt = now
    }

    var ssrc: UInt32 { Self.ssrc(of: number) }
    static func ssrc(of number: UInt32) -> UInt32 { 0x1234_5678 &+ number }
    var isConnected: Bool { srtp != nil }
    var hasSaidEverything: Bool { report.framesSaid == framesMax }
    var lastSaidAt: Instant? { saidAt.last }

    var nextDeadline: Instant {
        if hasLeft { return .never }
        if isSilent { return dtls.nextDeadline }
        let next = min(pendingAnswers.isEmpty ? .never : .zero, dtls.nextDeadline, nextStateChange)
        guard model.checks(in: state) else { return next }
        return min(next, nextCheck, uneasyAt, model.speaks(in: state) ? nextFrame : .never)
    }

    /// When it will not wait for its next check any longer.
    private var uneasyAt: Instant {
        guard state == .connected, let patience = model.uneasyAfter else { return .never }
        let due = heardAt + patience
        return sentChecks.last.map { $0.at < due } ?? true ? due : .never
    }
}

// MARK: - In

extension SimulatedClient {
    mutating func receive(_ datagram: [UInt8], at now: Instant) {
        guard !hasLeft, let first = datagram.first else { return }
        heardAt = now
        switch PacketClass(firstByte: first) {
        case .stun: receiveSTUN(datagram.span.bytes, at: now)
        case .dtls:
            startDTLS(at: now)
            _ = dtls.receive(datagram.span.bytes, at: now)
            settle(at: now)
        case .srtp: receiveMedia(datagram, at: now)
        case nil: break
        }
    }

    private mutating func receiveSTUN(_ bytes: RawSpan, at now: Instant) {
        guard let message = try? STUNMessage(parsing: bytes) else { return }
        switch message.messageClass {
        case .success:
            guard Self.key(of: message, remote, oldRemote) != nil else { return }
            noteAnswer(message.transactionID, at: now)
        case .request:
            guard let key = Self.key(of: message, local, oldLocal) else { return }
            report.checksReceived += 1
            if state == .failed, model == .chromium, !isSilent { enter(.disconnected, at: now) }
            // Who is silent does not answer either.
            if !isSilent, let answer = answer(message.transactionID, key) { pendingAnswers.append(answer) }
        case .error, .indication: break
        }
    }

    /// The password that `message` was made with.
    private static func key(of message: borrowing STUNMessage, _ new: ICECredentials, _ old: ICECredentials?) -> [UInt8]? {
        for credentials in [new, old] {
            guard let key = credentials.map({ Array($0.password.utf8) }) else { continue }
            if message.verifiesIntegrity(key: key.span.bytes) { return key }
        }
        return nil
    }

    private mutating func noteAnswer(_ id: STUNTransactionID, at now: Instant) {
        guard let check = sentChecks.first(where: { $0.id == id }) else { return }
        isValid = true
        answeredAt = max(answeredAt, check.at)
        if state != .connected, state != .failed { enter(.connected, at: now) }
        retransmission = nil
        let pace = model.checkInterval(&random)
        let paced = check.at + pace
        if sentChecks.last?.id == id, nextCheck < paced { nextCheck = paced }
        for index in report.recoveries.indices
        where report.recoveries[index].answered == nil && check.at - startedAt >= report.recoveries[index].ended {
            report.recoveries[index].answered = now - startedAt
        }
        startDTLS(at: now)
    }

    private mutating func startDTLS(at now: Instant) {
        guard isValid, !dtls.isStarted else { return }
        dtls.start(context: context, at: now)
    }

    private mutating func receiveMedia(_ datagram: [UInt8], at now: Instant) {
        guard srtp != nil else { return }
        var copy = datagram
        let isRTCP = isRTCP(copy.span.bytes)
        var span = copy.mutableSpan
        var bytes = span.mutableBytes
        let count = bytes.byteCount
        let length = isRTCP ? try? srtp?.unprotectRTCP(&bytes, length: count) : try? srtp?.unprotectRTP(&bytes, length: count)
        guard let length else { return }
        let plain = copy.span.bytes.bytes(0..<length)
        if isRTCP {
            guard var reader = try? RTCPReader(parsing: plain) else { return }
            while let item = reader.next() { if case .bye = item { report.heardGoodbye = true } }
        } else if let header = try? RTPHeader(parsing: plain), header.payload.count >= 8 {
            let tail = plain.bytes(header.payload).bytes(8..<header.payload.count)
            report.strangers += Self.isSilence(tail) ? 0 : 1
            hear(plain.u32(header.payload.lowerBound), of: plain.u32(header.payload.lowerBound + 4), at: now)
        }
    }

    private mutating func noteWatched(_ said: Instant, at now: Instant) {
        if heardWatched == nil, said >= watchedFrom { heardWatched = now }
    }

    private static func isSilence(_ bytes: RawSpan) -> Bool {
        var sum: UInt8 = 0
        for offset in 0..<bytes.byteCount { sum |= bytes.byte(offset) }
        return sum == 0
    }

    private mutating func hear(_ frame: UInt32, of speaker: UInt32, at now: Instant) {
        guard speaker == number else {
            report.strangers += 1
            return
        }
        report.heard.append(frame)
        guard frame < saidAt.count else { return }
        noteWatched(saidAt[Int(frame)], at: now)
        let said = saidAt[Int(frame)] - startedAt
        for index in report.recoveries.indices where report.recoveries[index].heard == nil && said > report.recoveries[index].ended {
            report.recoveries[index].heard = now - startedAt
        }
    }

    private mutating func settle(at now: Instant) {
        while let event = dtls.nextEvent() {
            switch event {
            case .established(let keys):
                report.handshakes += 1
                guard let profile = SRTPProfile(rawValue: keys.profile.rawValue) else { continue }
                srtp = try? SRTPContext(
                    profile: profile, local: SRTPMasterKey(key: keys.localKey, salt: keys.localSalt),
                    remote: SRTPMasterKey(key: keys.remoteKey, salt: keys.remoteSalt), engine: .own)
                report.connectedAfter = now - startedAt
                nextFrame = now
            case .closed: report.heardGoodbye = true
            case .failed: srtp = nil
            }
        }
    }

    mutating func advance(to now: Instant) {
        guard !hasLeft else { return }
        dtls.advance(to: now)
        settle(at: now)
        if now >= uneasyAt { nextCheck = now }
        if now >= nextStateChange { enter(state == .connected ? .disconnected : .failed, at: now) }
    }

    var nextStateChange: Instant { model.nextChange(from: state, since: stateSince, answered: answeredAt) }

    private mutating func enter(_ next: ClientState, at now: Instant) {
        state = next
        stateSince = now
        if next != .failed { nextCheck = next == .connected ? nextCheck : now }
        if nextFrame != .never { nextFrame = max(nextFrame, now) }
    }

    /// From now on `heardWatched` is of interest.
    mutating func watch(from now: Instant) {
        watchedFrom = now
        heardWatched = nil
    }

    /// When the other side was last known to answer.
    var lastAnswerAt: Instant { answeredAt }
    var hasClosed: Bool { hasLeft }
}

// MARK: - What befalls it

extension SimulatedClient {
    mutating func fallSilent(at now: Instant) {
        isSilent = true
        pendingAnswers = []
        noteFault(.silence, began: now, ended: .never)
    }

    /// Speaks again at once; the next check comes whenever it comes.
    mutating func wake(at now: Instant) {
        guard isSilent else { return }
        isSilent = false
        if nextFrame != .never { nextFrame = max(nextFrame, now) }
        nextCheck = now + .nanoseconds(Int64(random.next() % UInt64(Self.checkInterval.nanoseconds)))
        if let last = report.recoveries.lastIndex(where: { $0.cause == .silence }) { report.recoveries[last].ended = now - startedAt }
    }

    /// - Parameter ended: `.never` when that comes later.
    mutating func noteFault(_ cause: Recovery.Cause, began: Instant, ended: Instant) {
        let end = ended == .never ? Interval(nanoseconds: .max) : ended - startedAt
        report.recoveries.append(Recovery(cause: cause, began: began - startedAt, ended: end))
    }

    /// Both sides have new credentials.
    mutating func restartICE(local: ICECredentials, remote: ICECredentials, at now: Instant) {
        oldLocal = self.local
        oldRemote = self.remote
        self.local = local
        self.remote = remote
        nextCheck = now
        retransmission = nil
        if state == .failed || state == .disconnected { enter(.checking, at: now) }
        noteFault(.restart, began: now, ended: now)
    }

    /// The other side has its keys too.
    mutating func noteServerReady(at now: Instant) { report.serverReadyAfter = now - startedAt }

    /// Closed: not a datagram from now on.
    mutating func leave() { hasLeft = true }
}

// MARK: - Out

extension SimulatedClient {
    /// The next datagram for the relay; nil when there is none at `now`.
    mutating func nextTransmit(at now: Instant) -> [UInt8]? {
        guard !hasLeft, !isSilent else { return nil }
        if !pendingAnswers.isEmpty { return pendingAnswers.removeFirst() }
        if now >= nextCheck, model.checks(in: state) { return check(at: now) }
        if let bytes = Self.written({ dtls.nextTransmit(into: &$0) }) { return bytes }
        guard now >= nextFrame, srtp != nil, model.speaks(in: state) else { return nil }
        guard !hasSaidEverything else {
            nextFrame = .never
            return nil
        }
        let due = nextFrame
        nextFrame = nextFrame + cadence
        return voice(due, at: now)
    }

    private mutating func check(at now: Instant) -> [UInt8]? {
        // It waits for its own answer; `noteAnswer` puts the next one off.
        let id = planCheck(at: now)
        sentChecks.append((id, now))
        if sentChecks.count > 32 { sentChecks.removeFirst() }
        let ours = Array(local.ufrag.utf8)
        let theirs = Array(remote.ufrag.utf8)
        let key = Array(remote.password.utf8)
        return Self.written { packet in
            var writer = STUNWriter(.request, id, to: &packet)
            writer.append(usernameFor: theirs.span.bytes, from: ours.span.bytes, to: &packet)
            writer.append(priority: 0x6E00_1EFF, to: &packet)
            writer.append(iceControlling: 7, to: &packet)
            writer.appendUseCandidate(to: &packet)
            return writer.finish(key: key.span.bytes, to: &packet)
        }
    }

    /// When to check again if nothing answers, and the transaction of this check.
    private mutating func planCheck(at now: Instant) -> STUNTransactionID {
        let fresh = STUNTransactionID(high: UInt32(truncatingIfNeeded: random.next()), low: random.next())
        switch (model, state) {
        case (.steady, _): nextCheck = now + (isValid ? Self.checkIntervalUnanswered : Self.checkIntervalAtFirst)
        case (.chromium, .connected):
            let isUneasy = model.uneasyAfter.map { now >= heardAt + $0 } ?? false
            nextCheck = now + (isUneasy ? .milliseconds(100) : model.checkInterval(&random))
        case (.chromium, _): nextCheck = now + .milliseconds(isValid ? 100 : 50)
        case (.firefox, .checking):
            // One transaction, sent again after 100 ms, 200 ms, 400 ms ….
            let count = retransmission?.count ?? 0
            let id = retransmission?.id ?? fresh
            retransmission = (id, count + 1)
            nextCheck = now + .milliseconds(100 << Int64(min(count, 6)))
            return id
        case (.firefox, _): nextCheck = now + model.checkInterval(&random)
        }
        return fresh
    }

    private func answer(_ id: STUNTransactionID, _ key: [UInt8]) -> [UInt8]? {
        Self.written { packet in
            var writer = STUNWriter(.success, id, to: &packet)
            writer.append(xorMappedAddress: relay, to: &packet)
            return writer.finish(key: key.span.bytes, to: &packet)
        }
    }

    /// One frame whose content is its number and its speaker's. The timestamp goes on in silence (RFC 3550 §5.1).
    private mutating func voice(_ due: Instant, at now: Instant) -> [UInt8]? {
        var packet = [UInt8](repeating: 0, count: 128)
        var span = packet.mutableSpan
        var bytes = span.mutableBytes
        let frame = report.framesSaid
        bytes.set(UInt8(0x80), at: 0)
        bytes.set(UInt8(111), at: 1)
        bytes.set(sequence, at: 2)
        bytes.set(UInt32(truncatingIfNeeded: (due - startedAt).microseconds * 48 / 1000), at: 4)
        bytes.set(ssrc, at: 8)
        bytes.set(frame, at: 12)
        bytes.set(number, at: 16)
        sequence &+= 1
        report.framesSaid += 1
        saidAt.append(now)
        guard let length = try? srtp?.protectRTP(&bytes, length: 72) else { return nil }
        return Array(packet[..<length])
    }

    private static func written(_ write: (inout OutputRawSpan) -> Bool) -> [UInt8]? {
        var storage = ByteSlab(count: 1, slotSize: 2048)
        var wrote = false
        let length = storage.write(0, 0..<2048) { wrote = write(&$0) }
        return wrote ? storage.bytes(0, length).array : nil
    }
}
