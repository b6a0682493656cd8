// One call's DTLS: the state machine that the session drives with receive, advance, nextTransmit, nextEvent and nextDeadline.

import COpenSSL
import Primitives

/// A DTLS 1.2 association with one peer. Costs nothing until `start`, about 86 kB from the handshake on, and 53 when nothing has come or gone for a
/// moment. Where nothing but keys was wanted of it, `release` gives back all.
///
/// Datagrams of the peer go to `receive`, and only those that come from an address ICE has validated. After every verb, drain
/// `nextTransmit`, `nextEvent` and `nextApplicationData`, and be back with `advance` at `nextDeadline`.
public struct DTLSAssociation: ~Copyable {
    /// The longest datagram `receive` takes; nothing that `nextApplicationData` gives is longer.
    public static let datagramSizeMax = 2048
    /// The longest datagram `nextTransmit` gives.
    public static let transmitSizeMax = DTLSLink.mtu
    /// The longest message `send` takes: what is left of a datagram after the record header and the largest AEAD's nonce and tag.
    public static let applicationDataSizeMax = transmitSizeMax - DTLSRecord.headerSize - 8 - 16

    /// A flight that nobody answers is sent again after this, then after twice as long, up to `retransmissionMax`.
    public static let retransmissionFirst = Interval.milliseconds(400)
    public static let retransmissionMax = Interval.seconds(3)
    /// `hurry` sends a flight again no sooner than this after the last time.
    public static let hurryInterval = Interval.milliseconds(100)
    /// Buffers that nobody has used for so long are given back to the heap.
    public static let bufferTime = Interval.seconds(2)
    /// And no more often than this: OpenSSL gives up after sending one flight thirteen times, whyever that was.
    public static let hurriesPerFlight = 4
    /// How long a handshake may take.
    public static let handshakeMax = Interval.seconds(30)

    enum State {
        case idle, handshaking, established, over
    }

    let role: DTLSRole
    private let fingerprints: [DTLSFingerprint]
    private(set) var state = State.idle
    var ssl: OpaquePointer?
    var link: UnsafeMutablePointer<DTLSLink>?

    /// How many datagrams of the peer have had a message that only the peer can have made, that did not come before, and that is newer than
    /// all before it.
    public private(set) var newerDatagrams: UInt64 = 0
    private var messagesReceived: UInt64 = 0
    private var newestRecord: UInt64 = 0
    private var received = DatagramQueue()
    private var established: DTLSKeyingMaterial?
    private var end: DTLSEvent?

    private var handshakeDue = Instant.never
    private var flightDue = Instant.never
    private var flightSentAt = Instant.zero
    private var hurries = 0
    private var flight = -1
    private var backoff = retransmissionFirst

    /// When buffers are looked at; `.never` where they were given back.
    private var buffersDue = Instant.never
    private var buffersAreGone = false
    private var buffersWereUsed = false
    /// After `release`: what is left to say to the peer at the end, and to hear of it.
    private var farewell: DatagramQueue?
    private var goodbyeKey: GoodbyeKey?

    /// - Parameters:
    ///   - role: ours, from the negotiated `setup` attribute.
    ///   - fingerprints: all that the peer's description announced; none means that no handshake can succeed.
    public init(role: DTLSRole, fingerprints: [DTLSFingerprint]) {
        self.role = role
        self.fingerprints = fingerprints
    }

    deinit {
        SSL_free(ssl)
        link?.deinitialize(count: 1)
        link?.deallocate()
    }

    /// Keys were exported and the association still lives.
    public var isEstablished: Bool { state == .established }
    /// `start` was called.
    public var isStarted: Bool { state != .idle }
    /// When to call `advance` next.
    public var nextDeadline: Instant {
        switch state {
        case .handshaking: min(flightDue, handshakeDue)
        case .established: buffersDue
        case .idle, .over: .never
        }
    }
}

extension DTLSAssociation {
    /// Makes the SSL object; as the client, queues the first flight. A second call does nothing.
    public mutating func start(context: borrowing DTLSContext, at now: Instant) {
        guard state == .idle else { return }
        state = .handshaking
        handshakeDue = now + Self.handshakeMax
        guard let ssl = SSL_new(context.pointer) else { return fail(.internalError) }
        self.ssl = ssl
        let link = UnsafeMutablePointer<DTLSLink>.allocate(capacity: 1)
        link.initialize(to: DTLSLink(ssl: ssl, fingerprints: fingerprints))
        self.link = link
        guard let bio = DTLSLink.makeBIO(link) else { return fail(.internalError) }
        SSL_set_bio(ssl, bio, bio)
        DTLSLink.attach(link)
        _ = SSL_ctrl(ssl, SSL_CTRL_SET_MTU, DTLSLink.mtu, nil)
        if role == .client { SSL_set_connect_state(ssl) } else { SSL_set_accept_state(ssl) }
        proceed(at: now)
    }

    /// Takes a datagram of the peer. Returns why it had no effect, nil when at least one of its records reached OpenSSL (which may
    /// still have found it forged or repeated, and ignored it).
    public mutating func receive(_ datagram: RawSpan, at now: Instant) -> DTLSDropReason? {
        guard state != .idle else { return .notStarted }
        guard state != .over else { return .closed }
        guard let link else { return receiveGoodbye(datagram) }
        guard datagram.byteCount <= Self.datagramSizeMax else { return .tooLarge }
        guard DTLSRecord(in: datagram, at: 0) != nil else { return .malformed }
        wakeBuffers()
        let messages = messagesReceived
        datagram.withUnsafeBytes { bytes in
            link.pointee.datagram = bytes
            link.pointee.offset = 0
            link.pointee.passedRecords = 0
            proceed(at: now)
            link.pointee.datagram = UnsafeRawBufferPointer(start: nil, count: 0)
            link.pointee.offset = 0
        }
        // Epoch and sequence number of the first record (RFC 6347 §4.1).
        let record = datagram.u64(3)
        if messagesReceived != messages, record > newestRecord {
            newestRecord = record
            newerDatagrams &+= 1
        }
        return link.pointee.passedRecords > 0 ? nil : .wrongEpoch
    }

    /// Sends the last flight again if it is due, and gives up after `handshakeMax`.
    public mutating func advance(to now: Instant) {
        if state == .established, now >= buffersDue { watchBuffers(at: now) }
        guard state == .handshaking, let ssl, let link else { return }
        guard now < handshakeDue else { return fail(.timeout) }
        guard now >= flightDue else { return }
        backoff = min(backoff * 2, Self.retransmissionMax)
        sendFlightAgain(ssl, link, at: now)
    }

    /// The peer behaves as if its handshake were over: its last message must be lost, or late. Asks for it at once by sending our own
    /// flight again, instead of when the timer says so. Who can write in the peer's name can make us do it, a few times.
    public mutating func hurry(at now: Instant) {
        guard state == .handshaking, flightDue != .never, let ssl, let link else { return }
        guard hurries < Self.hurriesPerFlight, now >= flightSentAt + Self.hurryInterval else { return }
        hurries += 1
        sendFlightAgain(ssl, link, at: now)
    }

    private mutating func sendFlightAgain(_ ssl: OpaquePointer, _ link: UnsafeMutablePointer<DTLSLink>, at now: Instant) {
        flightSentAt = now
        flightDue = now + backoff
        link.pointee.interval = UInt32(clamping: backoff.microseconds)
        link.pointee.expireTimer()
        ERR_clear_error()
        if SSL_ctrl(ssl, DTLS_CTRL_HANDLE_TIMEOUT, 0, nil) < 0 { fail(failure(.timeout)) }
    }

    /// Moves one datagram for the peer to the end of `packet`, which should have `transmitSizeMax` bytes free; false when there is none.
    public mutating func nextTransmit(into packet: inout OutputRawSpan) -> Bool {
        guard let link else { return state == .over ? farewell?.removeFirst(into: &packet) ?? false : false }
        return link.pointee.outgoing.removeFirst(into: &packet)
    }

    public mutating func nextEvent() -> DTLSEvent? {
        if let keys = established.take() { return .established(keys) }
        return end.take()
    }

    /// Moves one message of the peer (an SCTP packet) to the end of `packet`, which should have `datagramSizeMax` bytes free; false when
    /// there is none.
    public mutating func nextApplicationData(into packet: inout OutputRawSpan) -> Bool { received.removeFirst(into: &packet) }

    /// Queues one message (an SCTP packet) as one record; false when it is empty, longer than `applicationDataSizeMax`, or the
    /// association is not established.
    public mutating func send(_ data: RawSpan) -> Bool {
        guard state == .established, let ssl, (1...Self.applicationDataSizeMax).contains(data.byteCount) else { return false }
        wakeBuffers()
        ERR_clear_error()
        return data.withUnsafeBytes { SSL_write(ssl, $0.baseAddress, Int32($0.count)) } == Int32(data.byteCount)
    }

    /// Says goodbye: queues close_notify if there is a peer to tell, and ends the association without an event.
    public mutating func close() {
        if state == .established, ssl != nil {
            wakeBuffers()
            SSL_shutdown(ssl)
        }
        finish(nil)
    }

    /// Gives everything back but a close_notify, which `close` will send: for calls that wanted keys and nothing else. From then on nothing of the
    /// peer is read but its close_notify. The owner knows that the peer has keys, too, or a lost flight of ours could not be
    /// repeated. Does nothing before the handshake is over, or while something waits to be sent.
    public mutating func release() {
        guard state == .established, let ssl, let link, link.pointee.outgoing.isEmpty else { return }
        wakeBuffers()
        SSL_shutdown(ssl)
        farewell = link.pointee.outgoing.compacted()
        goodbyeKey = GoodbyeKey(of: ssl, role)
        SSL_free(ssl)
        self.ssl = nil
        link.deinitialize(count: 1)
        link.deallocate()
        self.link = nil
        buffersDue = .never
        received = DatagramQueue()
    }

    /// After `release`.
    private mutating func receiveGoodbye(_ datagram: RawSpan) -> DTLSDropReason? {
        guard let goodbyeKey, datagram.byteCount <= Self.datagramSizeMax, goodbyeKey.opensEnd(in: datagram) else { return .closed }
        finish(.closed)
        return nil
    }
}

// MARK: - Buffers

extension DTLSAssociation {
    /// OpenSSL's buffers for a record in and one out, some 34 kB, must be there before it is asked for anything.
    private mutating func wakeBuffers() {
        buffersWereUsed = true
        guard buffersAreGone else { return }
        SSL_alloc_buffers(ssl)
        buffersAreGone = false
        // Looked at once more with the next `advance`, which knows the time.
        buffersDue = .zero
    }

    private mutating func watchBuffers(at now: Instant) {
        guard !buffersWereUsed else {
            buffersWereUsed = false
            buffersDue = now + Self.bufferTime
            return
        }
        // Refused while a record is half read: then the next time.
        buffersAreGone = SSL_free_buffers(ssl) == 1
        buffersDue = buffersAreGone ? .never : now + Self.bufferTime
    }
}

extension DTLSAssociation {
    /// Lets OpenSSL work on what was received, then looks at what came of it.
    private mutating func proceed(at now: Instant) {
        guard let ssl else { return }
        ERR_clear_error()
        if state == .handshaking {
            let result = SSL_do_handshake(ssl)
            if result == 1 {
                establish()
            } else {
                judge(result)
            }
        }
        if state == .established { readApplicationData() }
        followTimer(at: now)
    }

    /// A new flight has its own retransmission schedule.
    private mutating func followTimer(at now: Instant) {
        guard state == .handshaking, let link, link.pointee.timerIsArmed else {
            flightDue = .never
            return
        }
        guard flight != link.pointee.flight else { return }
        flight = link.pointee.flight
        backoff = Self.retransmissionFirst
        flightSentAt = now
        flightDue = now + backoff
        hurries = 0
    }

    private mutating func readApplicationData() {
        withUnsafeTemporaryAllocation(byteCount: Self.datagramSizeMax, alignment: 8) { buffer in
            while state == .established {
                let count = SSL_read(ssl, buffer.baseAddress, Int32(buffer.count))
                guard count > 0 else { return judge(count) }
                messagesReceived &+= 1
                // A full queue loses the message: SCTP repeats it.
                _ = received.append(UnsafeRawBufferPointer(rebasing: buffer[..<Int(count)]))
            }
        }
    }

    /// OpenSSL gave no result: it waits for a datagram, the peer closed, or it failed.
    private mutating func judge(_ result: Int32) {
        switch SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ: return
        case SSL_ERROR_ZERO_RETURN:
            if state == .established { SSL_shutdown(ssl) }
            finish(.closed)
        default: fail(failure(.handshake))
        }
    }

    /// The handshake is complete: is the peer who it shall be? Then export the keys.
    private mutating func establish() {
        guard let ssl, let link else { return }
        guard SSL_get0_peer_certificate(ssl) != nil else { return fail(.noCertificate) }
        // The callback judged it. Whatever OpenSSL makes of the callback's answer: without one there are no keys.
        guard link.pointee.certificateMatched else { return fail(.fingerprintMismatch) }
        guard let selected = SSL_get_selected_srtp_profile(ssl),
            let profile = DTLSProtectionProfile(rawValue: UInt16(clamping: selected.pointee.id))
        else {
            SSL_shutdown(ssl)
            return fail(.noProfile)
        }
        guard let keys = DTLSKeyingMaterial(exportedFrom: ssl, profile, role) else { return fail(.internalError) }
        link.pointee.filter.isEstablished = true
        state = .established
        buffersDue = .zero
        established = keys
    }

    /// Reads the reason for a failure off OpenSSL's error queue.
    private func failure(_ otherwise: DTLSFailure) -> DTLSFailure {
        if let link, link.pointee.certificateMismatched { return .fingerprintMismatch }
        let reason = Int(ERR_GET_REASON(ERR_peek_error()))
        switch reason {
        case Int(SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE): return .noCertificate
        case Int(SSL_R_READ_TIMEOUT_EXPIRED): return .timeout
        case Int(ERR_R_MALLOC_FAILURE), Int(ERR_R_INTERNAL_ERROR): return .internalError
        // Alerts of the peer are reported as 1000 and the alert's number.
        case Int(SSL_AD_REASON_OFFSET)...(Int(SSL_AD_REASON_OFFSET) + 255): return .peerAlert
        default: return otherwise
        }
    }

    private mutating func fail(_ reason: DTLSFailure) {
        ERR_clear_error()
        established = nil
        finish(.failed(reason))
    }

    /// The end; what is queued for the peer stays to be sent.
    private mutating func finish(_ event: DTLSEvent?) {
        guard state != .over else { return }
        state = .over
        end = event
        flightDue = .never
        SSL_free(ssl)
        ssl = nil
    }
}

extension DTLSKeyingMaterial {
    /// RFC 5764 §4.2: client key, server key, client salt, server salt, one after the other.
    init?(exportedFrom ssl: OpaquePointer, _ profile: DTLSProtectionProfile, _ role: DTLSRole) {
        let (key, salt) = (profile.keyLength, profile.saltLength)
        var block = [UInt8](repeating: 0, count: 2 * (key + salt))
        let label = "EXTRACTOR-dtls_srtp"
        guard SSL_export_keying_material(ssl, &block, block.count, label, label.utf8.count, nil, 0, 0) == 1 else { return nil }
        let client = (key: Array(block[..<key]), salt: Array(block[(2 * key)..<(2 * key + salt)]))
        let server = (key: Array(block[key..<(2 * key)]), salt: Array(block[(2 * key + salt)...]))
        let (local, remote) = role == .client ? (client, server) : (server, client)
        self.init(profile: profile, localKey: local.key, localSalt: local.salt, remoteKey: remote.key, remoteSalt: remote.salt)
    }
}
