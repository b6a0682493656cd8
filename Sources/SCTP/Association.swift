// The association: its state, its verbs, and what it tells its owner.

import Primitives

/// One SCTP association over one DTLS association. The owner makes it when DTLS is up; it sends INIT at once, as the other side does.
///
///     if let reason = sctp.receive(packet, at: now) { counters.count(reason) }
///     while let event = sctp.nextEvent() { ... }
///     while sctp.nextTransmit(into: &packet, at: now) { ... }
public struct SCTPAssociation: ~Copyable {
    let localPort: UInt16
    let remotePort: UInt16
    let maxMessageSize: Int
    let peerMaxMessageSize: Int
    let isClientOfDTLS: Bool
    let mtu: Int
    let key: SipKey

    var state: AssociationState
    /// The owner's time at the last verb that carried it.
    var clock: Instant
    var drawn: UInt64 = 0

    var localTag: UInt32
    var localTSN: UInt32
    var peerTag: UInt32 = 0
    var peerWindow = 0
    var peerStreams: UInt16 = .max
    var peerSkips = false
    var peerResetsStreams = false
    var peerTakesZeroChecksum = false

    var pending = PendingChunks()
    var initReply = InitReply()
    /// The peer's cookie, to be echoed.
    var cookie: [UInt8] = []
    /// Bytes of control chunks that wait to be sent: see `ControlSlot`.
    var control = ByteSlab(count: ControlSlot.count, slotSize: ControlSlot.size, isAligned: false)
    var controlLengths = InlineArray<3, Int>(repeating: 0)

    var sending: SendQueue
    var window: ReceiveWindow
    var channels: Slab<Channel>
    var roundTrip = RoundTrip()
    var congestion: Congestion
    var timers = TimerTable()
    var errors = 0
    var handshakeSentAt: Instant

    var acknowledging = Acknowledging()
    /// Up to where the peer was, or must be, told to skip; equal to the cumulative acknowledgement when nowhere.
    var skipPoint: UInt32
    var lastSent: Instant
    var heartbeatNonce: UInt64 = 0
    var heartbeatIsOut = false
    var lastHeard: Instant
    /// When data came or went.
    var lastBusy: Instant
    var resetting = StreamResets()

    var items = Ring(initial: 16, limit: 8192, blank: Item())
    /// Items before this one were given out by `nextEvent`; they are messages that wait to be taken.
    var given = 0

    /// - Parameters:
    ///   - maxMessageSize: in bytes, the largest message taken from the peer: what our SDP's `a=max-message-size` said. At most 1 MiB.
    ///   - peerMaxMessageSize: in bytes, what the peer's SDP said; absent means 65,536 and zero means any.
    ///   - isClientOfDTLS: our own channels get even ids if so, odd ones if not (RFC 8832 section 6).
    ///   - seed: from the owner's entropy; tags, TSNs and the cookie key come from it.
    ///   - mtu: in bytes, the largest SCTP packet; 512 to 16,384.
    ///   - isPassive: waits for the peer's INIT instead of sending one.
    public init(
        localPort: UInt16 = 5000, remotePort: UInt16 = 5000, maxMessageSize: Int = 262_144, peerMaxMessageSize: Int, isClientOfDTLS: Bool,
        seed: UInt64, mtu: Int = 1163, isPassive: Bool = false, at now: Instant
    ) {
        self.localPort = localPort
        self.remotePort = remotePort
        self.maxMessageSize = min(max(maxMessageSize, 1024), 1 << 20)
        self.peerMaxMessageSize = peerMaxMessageSize <= 0 ? .max : peerMaxMessageSize
        self.isClientOfDTLS = isClientOfDTLS
        self.mtu = min(max(mtu, 512), 16_384) & ~3
        key = SipKey(k0: seed, k1: 0x5357_4946_544c_4554)
        clock = now
        lastHeard = now
        lastBusy = now
        lastSent = now
        handshakeSentAt = now
        localTag = Self.tag(key, &drawn)
        localTSN = UInt32(truncatingIfNeeded: Self.draw(key, &drawn))
        skipPoint = localTSN &- 1
        sending = SendQueue(firstTSN: localTSN)
        window = ReceiveWindow(maxMessageSize: self.maxMessageSize)
        channels = Self.emptyChannels()
        congestion = Congestion(mtu: self.mtu, peerWindow: 0)
        state = isPassive ? .listening : .cookieWait
        if !isPassive { pending = .initiate }
    }

    /// The next event, or nil. Messages stay until `takeMessage`, and count against the window that the peer is told.
    public mutating func nextEvent() -> SCTPEvent? {
        guard given < items.count else { return nil }
        let item = items[given]
        switch item.kind {
        case .textMessage, .binaryMessage:
            given += 1
            return .message(id: item.id, isBinary: item.kind == .binaryMessage, byteCount: Int(item.chain.byteCount))
        case .established, .channelOpened, .channelClosed, .closed, .failed: break
        }
        // It leaves the queue at once when no message waits before it, and with the last such message otherwise.
        given += 1
        let event = event(item)
        dropGivenEvents()
        return event
    }

    /// The oldest message whose `.message` event was given and that was not taken yet.
    public mutating func takeMessage() -> [UInt8]? {
        guard given > 0 else { return nil }
        let item = items.removeFirst()
        given -= 1
        let message = window.store.array(item.chain)
        window.store.remove(item.chain)
        dropGivenEvents()
        announceWindow()
        return message
    }

    /// As `takeMessage`, appended to `output` without allocating. False: there is none, or no room; then it stays.
    public mutating func takeMessage(into output: inout OutputRawSpan) -> Bool {
        guard given > 0, Int(items[0].chain.byteCount) <= output.freeCapacity else { return false }
        let item = items.removeFirst()
        given -= 1
        window.store.append(item.chain, to: &output)
        window.store.remove(item.chain)
        dropGivenEvents()
        announceWindow()
        return true
    }

    /// In bytes: what was given to `send` and is not acknowledged. At most 1 MiB.
    public var bufferedAmount: Int { sending.byteCount }
    public var isEstablished: Bool { state == .established }
    /// Closed or failed: nothing more will happen, though a last packet may wait in `nextTransmit`.
    public var isOver: Bool { state == .over }
    /// In bytes: what is held on the heap for buffers. Bounded, whatever the peer does.
    public var memory: Int {
        sending.memory &+ window.memory &+ items.memory &+ control.count &* control.slotSize &+ channels.count
            &* MemoryLayout<Channel>.stride &+ cookie.count
    }
}

enum AssociationState: UInt8 {
    /// Waits for the peer's INIT.
    case listening
    case cookieWait
    case cookieEchoed
    case established
    /// `close` was called; data is still under way.
    case shutdownPending
    case shutdownSent
    /// The peer sends no more; our data is still under way.
    case shutdownReceived
    case shutdownAckSent
    case over

    /// DATA and its acknowledgements are understood.
    var isUp: Bool {
        switch self {
        case .established, .shutdownPending, .shutdownSent, .shutdownReceived, .shutdownAckSent: true
        case .listening, .cookieWait, .cookieEchoed, .over: false
        }
    }
    var maySendData: Bool { self == .established || self == .shutdownPending || self == .shutdownReceived }
    var mayReceiveData: Bool { self == .established || self == .shutdownPending || self == .shutdownSent }
}

/// One thing for the owner.
struct Item: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
        case established, channelOpened, channelClosed, textMessage, binaryMessage, closed, failed
    }
    var kind = Kind.established
    var failure: UInt8 = 0
    var id: UInt16 = 0
    var chain = Chain.empty
}

extension SCTPAssociation {
    /// Whether messages can be queued: from the start, so that a channel can be opened before the handshake is over.
    var canQueue: Bool {
        switch state {
        case .listening, .cookieWait, .cookieEchoed, .established: true
        case .shutdownPending, .shutdownSent, .shutdownReceived, .shutdownAckSent, .over: false
        }
    }

    /// User data in one chunk, in bytes.
    var fragmentSize: Int { mtu &- commonHeaderSize &- dataHeaderSize }

    mutating func report(_ item: Item) {
        // The last places are for the end.
        let isLast = item.kind == .closed || item.kind == .failed
        if items.count < items.limit - (isLast ? 0 : 8), items.append(item) { return }
        // Only a peer that opens and closes channels faster than they are looked at comes here.
        window.store.remove(item.chain)
        if state != .over { fail(.limitExceeded, abort: ErrorCause.userAbort) }
    }

    private mutating func event(_ item: Item) -> SCTPEvent {
        switch item.kind {
        case .established: return .established
        case .channelOpened:
            let open = window.store.array(item.chain)
            window.store.remove(item.chain)
            items[given - 1].chain = .empty
            let names = unsafe DCEP.names(open.span.bytes)
            return .channelOpened(id: item.id, label: names?.label ?? "", protocol: names?.protocolName ?? "")
        case .channelClosed: return .channelClosed(id: item.id)
        case .textMessage, .binaryMessage:
            return .message(id: item.id, isBinary: item.kind == .binaryMessage, byteCount: Int(item.chain.byteCount))
        case .closed: return .closed
        case .failed: return .failed(SCTPFailure(rawValue: item.failure) ?? .protocolViolation)
        }
    }

    /// Events that were given and are no messages leave the front of the queue.
    private mutating func dropGivenEvents() {
        while given > 0, items[0].kind != .textMessage, items[0].kind != .binaryMessage {
            _ = items.removeFirst()
            given -= 1
        }
    }

    /// The next number of the keyed sequence that stands in for randomness.
    static func draw(_ key: SipKey, _ drawn: inout UInt64) -> UInt64 {
        drawn &+= 1
        var hash = SipHash(key: key)
        hash.update(word: drawn)
        return hash.finalize()
    }

    /// A verification tag: never zero.
    static func tag(_ key: SipKey, _ drawn: inout UInt64) -> UInt32 {
        while true {
            let tag = UInt32(truncatingIfNeeded: draw(key, &drawn))
            if tag != 0 { return tag }
        }
    }
}
