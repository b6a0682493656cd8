import DTLS
import Primitives
import SCTP

/// What an offer with a data channel section has agreed on.
public struct DataChannelParameters: Sendable {
    /// The client's `a=sctp-port`.
    public var peerPort: UInt16
    /// The longest message that the client takes, in bytes.
    public var peerMaxMessageSize: Int
    /// The client's INIT chunk, which it gave with its offer and got ours for; then nobody sends one.
    public var peerInit: [UInt8]?
    /// The channel that client and we know without being told (`?dcid=`); nil where the client will open one.
    public var agreedChannel: UInt16?
    /// From which tags and numbers come, and with them our INIT chunk.
    public var seed: UInt64

    public init(peerPort: UInt16, peerMaxMessageSize: Int, seed: UInt64) {
        self.peerPort = peerPort
        self.peerMaxMessageSize = peerMaxMessageSize
        self.seed = seed
    }
}

/// The data channel that carries a conversation's events: SCTP inside DTLS, and of its channels the one that the client opened.
///
/// It knows text messages and nothing of what they say.
struct EventChannel: ~Copyable {
    private var sctp: SCTPAssociation
    /// The first channel that the client opened; OpenAI's clients call it `oai-events`, others as they like.
    private var channel: UInt16?
    /// One SCTP packet on its way into or out of DTLS.
    private var packet = ByteSlab(count: 1, slotSize: DTLSAssociation.datagramSizeMax, isAligned: false)
    private var isOver = false

    /// What the owner has to know.
    enum Event {
        /// Events can be sent now.
        case opened
        case text([UInt8])
        /// Something that is not text, or came on another channel.
        case ignored
    }

    init(_ parameters: DataChannelParameters, isClientOfDTLS: Bool, at now: Instant) {
        sctp = SCTPAssociation(
            remotePort: parameters.peerPort, peerMaxMessageSize: parameters.peerMaxMessageSize, isClientOfDTLS: isClientOfDTLS,
            seed: parameters.seed, mtu: DTLSAssociation.applicationDataSizeMax, at: now)
        if let id = parameters.agreedChannel, sctp.openNegotiatedChannel(id: id, isOrdered: true) { channel = id }
        if let chunk = parameters.peerInit { _ = unsafe sctp.establish(withPeerInit: chunk.span.bytes, at: now) }
    }
}

extension EventChannel {
    /// Takes everything that DTLS has decrypted.
    mutating func receive(from dtls: inout DTLSAssociation, at now: Instant, counters: inout WorkerCounters) {
        while true {
            let length = packet.write(0, 0..<DTLSAssociation.datagramSizeMax) { _ = dtls.nextApplicationData(into: &$0) }
            guard length > 0 else { return }
            if let reason = Self.receive(packet, length, &sctp, now) { counters.sctpDropped[Int(reason.rawValue)] &+= 1 }
        }
    }

    private static func receive(_ packet: borrowing ByteSlab, _ length: Int, _ sctp: inout SCTPAssociation, _ now: Instant)
        -> SCTPDropReason?
    {
        sctp.receive(packet.bytes(0, length), at: now)
    }

    mutating func advance(to now: Instant) { sctp.advance(to: now) }

    /// Hands every packet that SCTP wants to send to DTLS, one record each, as long as it has room.
    mutating func transmit(through dtls: inout DTLSAssociation, at now: Instant) {
        // Bounded: what is left over leaves with the next drain.
        for _ in 0..<16 {
            var wrote = false
            let length = Self.write(&packet, &sctp, now, &wrote)
            guard wrote, Self.send(packet, length, &dtls) else { return }
        }
    }

    private static func write(_ packet: inout ByteSlab, _ sctp: inout SCTPAssociation, _ now: Instant, _ wrote: inout Bool) -> Int {
        var done = false
        let length = packet.write(0, 0..<DTLSAssociation.applicationDataSizeMax) { done = sctp.nextTransmit(into: &$0, at: now) }
        wrote = done
        return length
    }

    private static func send(_ packet: borrowing ByteSlab, _ length: Int, _ dtls: inout DTLSAssociation) -> Bool {
        dtls.send(packet.bytes(0, length))
    }

    mutating func nextEvent() -> Event? {
        while let event = sctp.nextEvent() {
            switch event {
            case .established:
                // The client's own moment: it can send, and so can we.
                guard channel != nil else { continue }
                return .opened
            case .channelOpened(let id, _, _):
                guard channel == nil else { return .ignored }
                channel = id
                return .opened
            case .channelClosed(let id): if id == channel { channel = nil }
            case .message(let id, let isBinary, _):
                guard let message = sctp.takeMessage() else { continue }
                return id == channel && !isBinary ? .text(message) : .ignored
            case .closed, .failed:
                channel = nil
                isOver = true
            }
        }
        return nil
    }

    /// There is a channel that events can go over, if not now.
    var isOpen: Bool { channel != nil && !isOver }

    /// Whether an event could be sent now. Not so while the buffer is full: then the owner keeps its events, and their bound.
    var takesText: Bool { channel != nil && !isOver && sctp.bufferedAmount < Self.bufferMax }
    private static let bufferMax = 262_144

    /// Sends one event; false when it is longer than the client takes, or there is nobody to take it. Ask `takesText` before.
    mutating func send(_ text: [UInt8]) -> Bool {
        guard let channel else { return false }
        return sctp.send(text.span.bytes, isBinary: false, on: channel) == .sent
    }

    var nextDeadline: Instant { isOver ? .never : sctp.nextDeadline }
}
