// The table of channels, and DCEP (RFC 8832).

import Primitives

/// No voice session has as many; a peer that opens more is refused.
private let channelLimit = 64
/// Label and protocol together, in bytes, and the header.
private let openMessageLimit = 1024

struct Channel: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable {
        case free
        /// Our OPEN waits for its ACK.
        case opening
        case open
        /// No more messages from the application; the stream is reset when all has arrived.
        case closing
        /// Closed, but the peer could not be told: the id stays taken.
        case retired
    }
    /// How far the reset of our outgoing stream is.
    enum Reset: UInt8, BitwiseCopyable { case none, wanted, requested, done }
    enum Reliability: UInt8, BitwiseCopyable { case reliable, retransmissions, lifetime }

    var id: UInt16 = 0
    var state = State.free
    var reset = Reset.none
    var incomingIsReset = false
    var closeWasReported = false
    var isUnordered = false
    var reliability = Reliability.reliable
    /// Retransmissions, or milliseconds.
    var reliabilityLimit: UInt32 = 0
    var nextSequence: UInt16 = 0
    var expectedSequence: UInt16 = 0
    /// In the send queue.
    var pendingChunks: Int32 = 0
    /// Our OPEN, for the label in the event.
    var open = Chain.empty

    var isLive: Bool { state == .opening || state == .open }
}

/// DCEP's wire format.
enum DCEP {
    static let acknowledge: UInt8 = 2
    static let open: UInt8 = 3
    static let openHeaderSize = 12
    static let unorderedBit: UInt8 = 0x80

    /// Label and protocol of an OPEN whose lengths were checked.
    static func names(_ open: RawSpan) -> (label: String, protocolName: String)? {
        guard open.byteCount >= openHeaderSize else { return nil }
        let label = Int(open.u16(8))
        let end = openHeaderSize &+ label &+ Int(open.u16(10))
        guard end <= open.byteCount else { return nil }
        return (
            String(decoding: open.bytes(openHeaderSize..<openHeaderSize &+ label).array, as: UTF8.self),
            String(decoding: open.bytes(openHeaderSize &+ label..<end).array, as: UTF8.self)
        )
    }
}

extension SCTPAssociation {
    /// Opens a channel; its id, or nil when the table or the send buffer is full. It can be sent on at once.
    /// - Parameter label: at most 512 bytes of UTF-8.
    public mutating func openChannel(label: String, isOrdered: Bool) -> UInt16? {
        guard canQueue, let id = freeID(), let slot = freeSlot() else { return nil }
        let name = Array(label.utf8)
        guard name.count <= openMessageLimit / 2 else { return nil }
        var message: [UInt8] = [DCEP.open, isOrdered ? 0 : DCEP.unorderedBit, 1, 0, 0, 0, 0, 0]
        message += [UInt8(truncatingIfNeeded: name.count >> 8), UInt8(truncatingIfNeeded: name.count), 0, 0]
        message += name
        channels[slot] = Channel(id: id, state: .opening, isUnordered: !isOrdered)
        guard let copy = unsafe window.store.store(message.span.bytes) else {
            channels[slot] = Channel()
            return nil
        }
        guard unsafe queue(message.span.bytes, PayloadProtocol.control, slot, isControl: true) else {
            window.store.remove(copy)
            channels[slot] = Channel()
            return nil
        }
        channels[slot].open = copy
        return id
    }

    /// Adds a channel that both sides agreed on out of band (`negotiated: true` with an id). Nothing is sent. False: the id is taken.
    public mutating func openNegotiatedChannel(id: UInt16, isOrdered: Bool) -> Bool {
        guard canQueue, id < .max, self.slot(of: id) == nil, let slot = freeSlot() else { return false }
        channels[slot] = Channel(id: id, state: .open, isUnordered: !isOrdered)
        return true
    }

    public mutating func send(_ message: RawSpan, isBinary: Bool, on channel: UInt16) -> SCTPSendResult {
        guard canQueue, let slot = slot(of: channel), channels[slot].isLive else { return .noChannel }
        guard message.byteCount <= peerMaxMessageSize else { return .tooLarge }
        if message.byteCount > 0 {
            return queue(message, isBinary ? PayloadProtocol.binary : PayloadProtocol.text, slot, isControl: false) ? .sent : .blocked
        }
        // SCTP has no empty messages: one zero byte and an identifier of its own (RFC 8831 section 6.6).
        let zero = InlineArray<1, UInt8>(repeating: 0)
        let identifier = isBinary ? PayloadProtocol.emptyBinary : PayloadProtocol.emptyText
        return unsafe queue(zero.span.bytes, identifier, slot, isControl: false) ? .sent : .blocked
    }

    /// Closes a channel once all that was sent on it has arrived (RFC 8831 section 6.7). `.channelClosed` follows.
    public mutating func closeChannel(_ id: UInt16) {
        guard let slot = slot(of: id), channels[slot].isLive else { return }
        startClosing(slot)
    }
}

extension SCTPAssociation {
    func slot(of id: UInt16) -> Int? {
        for slot in 0..<channels.count where channels[slot].state != .free && channels[slot].id == id { return slot }
        return nil
    }

    /// The last quarter of the table is for refusing.
    private func freeSlot(refusing: Bool = false) -> Int? {
        for slot in 0..<(refusing ? channelLimit : channelLimit * 3 / 4) where channels[slot].state == .free { return slot }
        return nil
    }

    private func freeID() -> UInt16? {
        for id in stride(from: UInt16(isClientOfDTLS ? 0 : 1), to: UInt16(channelLimit * 2), by: 2) where slot(of: id) == nil { return id }
        return nil
    }

    static func emptyChannels() -> Slab<Channel> { Slab(count: channelLimit) { _ in Channel() } }

    /// Cuts a message of a channel into the send queue; false: full.
    mutating func queue(_ message: RawSpan, _ protocolID: UInt32, _ slot: Int, isControl: Bool) -> Bool {
        // Until the peer has acknowledged our OPEN, nothing may overtake it (RFC 8832 section 6).
        let isUnordered = channels[slot].isUnordered && channels[slot].state == .open && protocolID != PayloadProtocol.control
        let count = sending.append(
            message, stream: channels[slot].id, sequence: channels[slot].nextSequence, protocolID: protocolID, isUnordered: isUnordered,
            isControl: isControl, fragment: fragmentSize, at: clock)
        guard let count else { return false }
        channels[slot].pendingChunks &+= Int32(truncatingIfNeeded: count)
        if !isUnordered { channels[slot].nextSequence &+= 1 }
        return true
    }

    mutating func startClosing(_ slot: Int) {
        channels[slot].state = .closing
        window.store.remove(channels[slot].open)
        channels[slot].open = .empty
        guard peerResetsStreams || state == .cookieWait || state == .cookieEchoed || state == .listening else {
            reportClosed(slot)
            channels[slot].state = .retired
            return
        }
        if channels[slot].reset == .none { channels[slot].reset = .wanted }
        resetting.isWanted = true
    }

    mutating func reportClosed(_ slot: Int) {
        guard !channels[slot].closeWasReported else { return }
        channels[slot].closeWasReported = true
        report(.init(kind: .channelClosed, id: channels[slot].id))
    }

    /// Frees the slot when both directions are reset.
    mutating func releaseIfDone(_ slot: Int) {
        guard channels[slot].state == .closing, channels[slot].reset == .done else { return }
        reportClosed(slot)
        if channels[slot].incomingIsReset { channels[slot] = Channel() }
    }
}

// Messages that came in.
extension SCTPAssociation {
    /// A whole message: for DCEP or for the application.
    mutating func deliver(_ message: IncomingMessage) {
        let slot = slot(of: message.stream)
        if let slot, !message.isUnordered { channels[slot].expectedSequence = message.sequence &+ 1 }
        let isBinary: Bool
        var byteCount = Int(message.chain.byteCount)
        switch message.protocolID {
        case PayloadProtocol.control:
            receiveControl(message, slot)
            return
        case PayloadProtocol.text, PayloadProtocol.textPart: isBinary = false
        case PayloadProtocol.binary, PayloadProtocol.binaryPart: isBinary = true
        case PayloadProtocol.emptyText: (isBinary, byteCount) = (false, 0)
        case PayloadProtocol.emptyBinary: (isBinary, byteCount) = (true, 0)
        default:
            window.store.remove(message.chain)
            return
        }
        guard let slot, channels[slot].isLive else {
            window.store.remove(message.chain)
            return
        }
        // The one zero byte of an empty message goes; an item without a chain is empty.
        var chain = message.chain
        if byteCount == 0 {
            window.store.remove(chain)
            chain = .empty
        }
        report(.init(kind: isBinary ? .binaryMessage : .textMessage, id: message.stream, chain: chain))
    }

    private mutating func receiveControl(_ message: IncomingMessage, _ slot: Int?) {
        guard message.chain.byteCount <= openMessageLimit else {
            window.store.remove(message.chain)
            return
        }
        let bytes = window.store.array(message.chain)
        switch bytes.first {
        case DCEP.acknowledge:
            window.store.remove(message.chain)
            guard let slot, channels[slot].state == .opening else { return }
            channels[slot].state = .open
            report(.init(kind: .channelOpened, id: message.stream, chain: channels[slot].open))
            channels[slot].open = .empty
        case DCEP.open where unsafe slot == nil && DCEP.names(bytes.span.bytes) != nil:
            unsafe receiveOpen(message, bytes.span.bytes)
        default: window.store.remove(message.chain)
        }
    }

    private mutating func receiveOpen(_ message: IncomingMessage, _ open: RawSpan) {
        let type = open.byte(1)
        let reliability: Channel.Reliability? =
            switch type & ~DCEP.unorderedBit {
            case 0: .reliable
            case 1: .retransmissions
            case 2: .lifetime
            default: nil
            }
        var channel = Channel(id: message.stream, state: .open, isUnordered: type & DCEP.unorderedBit != 0)
        channel.expectedSequence = message.sequence &+ 1
        channel.reliability = peerSkips ? reliability ?? .reliable : .reliable
        channel.reliabilityLimit = open.u32(4)
        if reliability != nil, message.stream < .max, let slot = freeSlot() {
            channels[slot] = channel
            let acknowledgement = InlineArray<1, UInt8>(repeating: DCEP.acknowledge)
            guard unsafe queue(acknowledgement.span.bytes, PayloadProtocol.control, slot, isControl: true) else {
                window.store.remove(message.chain)
                fail(.limitExceeded, abort: ErrorCause.userAbort)
                return
            }
            report(.init(kind: .channelOpened, id: message.stream, chain: message.chain))
            return
        }
        window.store.remove(message.chain)
        // Refused by closing it, which the peer sees; without even a slot for that, by silence.
        guard let slot = freeSlot(refusing: true) else { return }
        channel.closeWasReported = true
        channels[slot] = channel
        startClosing(slot)
    }
}
