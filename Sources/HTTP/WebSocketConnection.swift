// One WebSocket after its handshake, in either role (RFC 6455 §5–§7). No extension is ever negotiated.
//
//     socket.receive(bytes, at: now)
//     while let event = socket.nextEvent(at: now) { … socket.send(text: answer) … }
//     write socket.output to the stream; socket.outputSent(count); close the stream when isFinished.
//
// Memory is bounded by its limits: frames are taken off the input one event at a time, a message grows only by bytes that came, and of
// the pings that a peer sends without reading only the last is answered (§5.5.3).

import Primitives

public struct WebSocketLimits: Sendable {
    /// The longest message that is taken.
    public var messageBytes = 1 << 20
    /// The most that waits to be written; `send` says no beyond it.
    public var outputBytes = 2 << 20
    /// A ping goes out after this much silence of the peer.
    public var pingInterval = Interval.seconds(20)
    /// A peer that says nothing for this long after a ping is gone.
    public var pongTime = Interval.seconds(20)
    /// For the peer's part of the closing handshake.
    public var closingTime = Interval.seconds(5)

    public init() {}

    /// What may wait unread: a reader that takes its events after every read never has more than one read's worth.
    var inputBytes: Int { max(messageBytes, 65_536) + 65_536 }
    /// Above this much output a pong waits, so that a peer which only sends pings cannot make us keep its pongs.
    static let pongsWaitAbove = 16_384
}

/// Why we ended a WebSocket. Each is a close code and a counter.
public enum WebSocketFailure: UInt8, Error, CaseIterable, Sendable {
    case reservedBits, unknownOpcode, fragmentedControl, longControl, wrongMasking, badLength
    /// A continuation of nothing, or a new message inside another.
    case badFragments
    case badClose, notUTF8, tooLarge, tooMuchInput
    /// No answer to a ping.
    case silent
    /// The stream ended without a closing handshake.
    case lost
    /// Our Close was not answered in time.
    case closeTimeout

    /// The code of the Close that the peer gets (RFC 6455 §7.4.1).
    public var code: UInt16 {
        switch self {
        case .notUTF8: 1007
        case .tooLarge: 1009
        case .tooMuchInput: 1008
        case .silent, .lost, .closeTimeout: 1006
        default: 1002
        }
    }
}

/// How a WebSocket ended.
public struct WebSocketEnd: Sendable, Equatable {
    /// RFC 6455 §7.4.1; 1005 when the peer gave none, 1006 when there was no closing handshake.
    public var code: UInt16
    public var reason: String
    /// What was wrong with the peer, if anything was.
    public var failure: WebSocketFailure?

    public init(code: UInt16, reason: String = "", failure: WebSocketFailure? = nil) {
        self.code = code
        self.reason = reason
        self.failure = failure
    }
}

public enum WebSocketEvent: Sendable, Equatable {
    /// A whole message; valid UTF-8.
    case text([UInt8])
    case binary([UInt8])
    /// The last event.
    case ended(WebSocketEnd)
}

public struct WebSocketConnection: Sendable {
    public enum Role: Sendable { case server, client }

    private enum State {
        case open
        /// Our Close is out; the peer's is awaited, and messages before it still count.
        case closing
        /// Nothing more is taken or said. `lingers`: the end of the peer's stream is awaited.
        case over(lingers: Bool)
    }

    private let role: Role
    private let limits: WebSocketLimits
    private var random: any RandomNumberGenerator & Sendable
    private var state = State.open
    private var peerHasEnded = false
    private var input = InputBuffer()
    private var outgoing = OutputBuffer()
    /// The frame whose payload is coming, and how much of it has come.
    private var frame: WebSocketFrameHeader?
    private var taken = 0
    /// The message under way: its kind, and what has come of it.
    private var kind: WebSocketOpcode?
    private var message: [UInt8] = []
    private var text = UTF8Check()
    private var control: [UInt8] = []
    private var waitingPong: [UInt8]?
    private var end: WebSocketEnd?
    private var hasToldEnd = false
    private var isPinged = false
    private var timeout: Deadline
    public private(set) var messagesReceived: UInt64 = 0
    public private(set) var messagesSent: UInt64 = 0

    /// - Parameter random: where a client's masks come from; they must not be guessable (RFC 6455 §10.3). A server uses none.
    public init(role: Role, limits: WebSocketLimits = WebSocketLimits(), random: any RandomNumberGenerator & Sendable, at now: Instant) {
        self.role = role
        self.limits = limits
        self.random = random
        timeout = Deadline(now + limits.pingInterval, "WebSocket ping")
    }
}

// MARK: - In

extension WebSocketConnection {
    /// Takes what the stream gave. Drain `nextEvent` afterwards.
    public mutating func receive(_ bytes: RawSpan, at now: Instant) {
        guard bytes.byteCount > 0 else { return }
        switch state {
        case .over: return
        case .closing: break
        case .open:
            isPinged = false
            timeout = Deadline(now + limits.pingInterval, "WebSocket ping")
        }
        guard input.count + bytes.byteCount <= limits.inputBytes else { return fail(.tooMuchInput, at: now) }
        input.append(bytes)
    }

    /// The peer will send nothing more. Messages that came before are still told.
    public mutating func receiveEnd(at now: Instant) {
        peerHasEnded = true
        if case .over = state { state = .over(lingers: false) }
    }

    /// The next message or the end; nil when more bytes are needed.
    public mutating func nextEvent(at now: Instant) -> WebSocketEvent? {
        do throws(WebSocketFailure) {
            while let complete = try nextFrame() {
                if let event = try take(complete, at: now) { return event }
            }
        } catch {
            fail(error, at: now)
        }
        if peerHasEnded, end == nil { finish(WebSocketEnd(code: 1006, failure: .lost), at: now) }
        guard let end, !hasToldEnd else { return nil }
        hasToldEnd = true
        return .ended(end)
    }

    public mutating func advance(to now: Instant) {
        guard nextDeadline.instant <= now else { return }
        switch state {
        case .open where !isPinged:
            isPinged = true
            timeout = Deadline(now + limits.pongTime, "WebSocket pong")
            write(.ping, [])
        case .open: finish(WebSocketEnd(code: 1006, failure: .silent), at: now)
        case .closing: finish(WebSocketEnd(code: 1006, failure: .closeTimeout), at: now)
        case .over:
            outgoing.removeAll()
            state = .over(lingers: false)
        }
    }

    public var nextDeadline: Deadline { isFinished ? .none : timeout }

    /// False while what came has not been taken by `nextEvent`: do not read the stream then.
    public var wantsInput: Bool {
        if case .over(let lingers) = state { return lingers }
        return !peerHasEnded && input.count < 65_536
    }

    /// Moves payload from the input to where it belongs; the header once its payload is complete.
    private mutating func nextFrame() throws(WebSocketFailure) -> WebSocketFrameHeader? {
        if frame == nil {
            guard let header = try WebSocketFrameHeader(from: &input, masked: role == .server) else { return nil }
            try begin(header)
        }
        guard let header = frame else { return nil }
        let count = min(header.length - taken, input.count)
        if count > 0 {
            let piece = input.bytes[input.start..<(input.start + count)]
            if header.opcode.isControl {
                let start = control.count
                control += piece
                header.mask?.apply(to: &control, from: start, offset: taken)
            } else {
                let start = message.count
                message += piece
                header.mask?.apply(to: &message, from: start, offset: taken)
                guard kind != .text || text.accept(message[start...]) else { throw .notUTF8 }
            }
            input.removeFirst(count)
            taken += count
        }
        guard taken == header.length else { return nil }
        frame = nil
        return header
    }

    private mutating func begin(_ header: WebSocketFrameHeader) throws(WebSocketFailure) {
        switch header.opcode {
        case .close, .ping, .pong: control = []
        case .continuation: guard kind != nil else { throw .badFragments }
        case .text, .binary:
            guard kind == nil else { throw .badFragments }
            kind = header.opcode
            text = UTF8Check()
        }
        guard header.opcode.isControl || header.length <= limits.messageBytes - message.count else { throw .tooLarge }
        frame = header
        taken = 0
    }

    /// What a complete frame means; nil when it is no event.
    private mutating func take(_ frame: WebSocketFrameHeader, at now: Instant) throws(WebSocketFailure) -> WebSocketEvent? {
        switch frame.opcode {
        case .ping: answerPing()
        case .pong: break
        case .close: try takeClose(at: now)
        case .continuation, .text, .binary:
            guard frame.isFinal else { return nil }
            guard kind != .text || text.isComplete else { throw .notUTF8 }
            let isText = kind == .text
            let whole = message
            message = []
            kind = nil
            messagesReceived += 1
            return isText ? .text(whole) : .binary(whole)
        }
        return nil
    }

    private mutating func answerPing() {
        guard case .open = state else { return }
        if outgoing.count > WebSocketLimits.pongsWaitAbove { waitingPong = control } else { write(.pong, control) }
    }

    private mutating func takeClose(at now: Instant) throws(WebSocketFailure) {
        guard control.count != 1 else { throw .badClose }
        var given = WebSocketEnd(code: 1005)
        if control.count >= 2 {
            let code = UInt16(control[0]) << 8 | UInt16(control[1])
            guard Self.maySend(code) else { throw .badClose }
            guard let reason = String(validating: control[2...], as: UTF8.self) else { throw .notUTF8 }
            given = WebSocketEnd(code: code, reason: reason)
        }
        // RFC 6455 §5.5.1: the answer usually has the code that came.
        if case .open = state { write(.close, Array(control.prefix(2))) }
        finish(given, at: now)
    }

    /// The codes that may stand in a Close (RFC 6455 §7.4 and its registry).
    private static func maySend(_ code: UInt16) -> Bool {
        switch code {
        case 1000...1003, 1007...1014, 3000...4999: true
        default: false
        }
    }
}

// MARK: - Out

extension WebSocketConnection {
    /// Whether messages can be sent.
    public var isOpen: Bool {
        guard case .open = state else { return false }
        return true
    }

    /// Sends a message, which must be UTF-8. False when the WebSocket is closing, or when the peer reads so slowly that the output is
    /// full: then the message is not sent, and the caller decides what that means.
    public mutating func send(text: some Collection<UInt8>) -> Bool { send(.text, text) }
    public mutating func send(binary: some Collection<UInt8>) -> Bool { send(.binary, binary) }

    private mutating func send(_ opcode: WebSocketOpcode, _ payload: some Collection<UInt8>) -> Bool {
        guard isOpen, payload.count <= limits.outputBytes, outgoing.count + payload.count <= limits.outputBytes else { return false }
        write(opcode, payload)
        messagesSent += 1
        return true
    }

    /// Begins the closing handshake.
    ///
    /// - Parameters:
    ///   - code: 1000 normal, 1001 going away, 1011 failed, 1013 try again, 3000…4999 the application's.
    ///   - reason: its first 123 bytes are sent.
    public mutating func close(code: UInt16 = 1000, reason: String = "", at now: Instant) {
        precondition(Self.maySend(code), "this code never stands in a Close")
        guard isOpen else { return }
        writeClose(code, reason)
        state = .closing
        timeout = Deadline(now + limits.closingTime, "WebSocket close")
    }

    /// Bytes to write to the stream.
    public var output: RawSpan {
        @_lifetime(borrow self)
        borrowing get { outgoing.unsent }
    }
    public var outputCount: Int { outgoing.count }

    /// The stream took `count` bytes of `output`.
    public mutating func outputSent(_ count: Int) {
        outgoing.discard(count)
        guard isOpen, let pong = waitingPong, outgoing.count <= WebSocketLimits.pongsWaitAbove else { return }
        waitingPong = nil
        write(.pong, pong)
    }

    /// Everything is said: close the stream's writing side and go on reading until `isFinished`.
    public var wantsHalfClose: Bool {
        guard case .over(let lingers) = state, role == .server else { return false }
        return lingers && outgoing.count == 0
    }

    /// The stream can be closed.
    public var isFinished: Bool {
        guard case .over(let lingers) = state else { return false }
        return outgoing.count == 0 && !lingers
    }

    private mutating func write(_ opcode: WebSocketOpcode, _ payload: some Collection<UInt8>) {
        let mask = role == .client ? WebSocketMask(key: UInt32(truncatingIfNeeded: random.next())) : nil
        outgoing.append { WebSocketFrameHeader.write(opcode, payload, mask: mask, to: &$0) }
    }

    private mutating func writeClose(_ code: UInt16, _ reason: String) {
        var text = ""
        for character in reason.unicodeScalars where text.utf8.count + UTF8.width(character) <= 123 {
            text.unicodeScalars.append(character)
        }
        write(.close, [UInt8(truncatingIfNeeded: code >> 8), UInt8(truncatingIfNeeded: code)] + Array(text.utf8))
    }

    /// The peer broke a rule: it is told which and heard out, for what it still sends must not reset the stream under our Close.
    private mutating func fail(_ failure: WebSocketFailure, at now: Instant) {
        if case .open = state { writeClose(failure.code, "\(failure)") }
        finish(WebSocketEnd(code: failure.code, reason: "\(failure)", failure: failure), at: now)
    }

    private mutating func finish(_ end: WebSocketEnd, at now: Instant) {
        if self.end == nil { self.end = end }
        // A server closes the stream after the peer's Close; a client waits for that (RFC 6455 §7.1.1).
        state = .over(lingers: !peerHasEnded && (role == .client || end.failure != nil))
        timeout = Deadline(now + limits.closingTime, "WebSocket end")
        if peerHasEnded || end.code == 1006 {
            outgoing.removeAll()
            state = .over(lingers: false)
        }
        input = InputBuffer()
        frame = nil
        message = []
        control = []
        waitingPong = nil
    }
}
