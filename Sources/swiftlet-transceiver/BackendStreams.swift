import Backend
import EventLoop
import Primitives
import TLS
import TransceiverCore

/// How a worker's sessions reach their backend.
struct BackendRoute: Sendable {
    /// For the certificate.
    let host: String
    let isSecure: Bool
    /// What TLS must agree on (ALPN); nil for HTTP/1.1, which needs no name.
    let protocolName: String?
    let addresses: BackendAddresses
    let authorities: TLSAuthorities
}

/// The streams of one worker's sessions to their backend: sockets and TLS for what the core only knows as bytes.
struct BackendStreams: ~Copyable {
    /// Tags from here on are streams.
    static let firstTag: UInt64 = 16
    private static let chunk = 16_384
    /// Reads of one stream in one turn: a backend that talks much must not keep packets waiting.
    private static let readsPerTurn = 4

    /// A class: looked up by tag, and never on a packet's way.
    private final class Stream {
        let session: UInt32
        let tag: UInt64
        let socket: StreamSocket
        var token: ReactorToken?
        var tls: TLSClientStream?
        var isConnected = false
        /// The socket took less than it was offered.
        var isBlocked = false
        var interest: Interest = [.readable, .writable]

        init(_ session: UInt32, _ tag: UInt64, _ socket: consuming StreamSocket, _ tls: consuming TLSClientStream?) {
            self.session = session
            self.tag = tag
            self.socket = socket
            self.tls = tls
        }
    }

    private let route: BackendRoute
    private let tls: TLSClientContext
    private var streams: [UInt64: Stream] = [:]
    private var tags: [UInt32: UInt64] = [:]
    private var nextTag = BackendStreams.firstTag
    private var attempts = 0
    private var chunk = ByteSlab(count: 1, slotSize: BackendStreams.chunk)

    init(_ route: BackendRoute) throws {
        self.route = route
        tls = try TLSClientContext(authorities: route.authorities)
    }

    // MARK: - What sessions want

    mutating func perform(_ asked: AddressedStreamRequest, _ core: inout TransceiverWorker, _ reactor: inout Reactor, at now: Instant) {
        switch asked.request {
        case .open: open(asked.session, &core, &reactor, at: now)
        case .close: close(asked.session, &reactor)
        case .serve:
            guard let tag = tags[asked.session], let stream = streams[tag], stream.isConnected else { return }
            exchange(stream, &core, &reactor, at: now)
        }
    }

    private mutating func open(_ session: UInt32, _ core: inout TransceiverWorker, _ reactor: inout Reactor, at now: Instant) {
        close(session, &reactor)
        attempts &+= 1
        guard let address = route.addresses.address(attempt: attempts & 0xFFFF) else {
            return core.receive(.failed("nobody knows its name"), session: session, at: now)
        }
        do {
            let socket = try StreamSocket.connect(to: address)
            let names = route.protocolName.map { [$0] } ?? []
            let secure = route.isSecure ? try TLSClientStream(tls, host: route.host, protocols: names, at: now) : nil
            let stream = Stream(session, nextTag, socket, secure)
            stream.token = try reactor.register(stream.socket.descriptor, for: stream.interest, tag: nextTag)
            streams[nextTag] = stream
            tags[session] = nextTag
            nextTag += 1
        } catch {
            core.receive(.failed("it cannot be reached"), session: session, at: now)
        }
    }

    private mutating func close(_ session: UInt32, _ reactor: inout Reactor) {
        guard let tag = tags.removeValue(forKey: session), let stream = streams.removeValue(forKey: tag) else { return }
        if stream.tls != nil {
            stream.tls?.close()
            _ = Self.flushTLS(stream)
        }
        if let token = stream.token { reactor.deregister(token) }
    }

    // MARK: - What sockets bring

    mutating func serve(_ event: ReactorEvent, _ core: inout TransceiverWorker, _ reactor: inout Reactor, at now: Instant) {
        guard let stream = streams[event.tag] else { return }
        if !stream.isConnected {
            if stream.socket.connectionError() != nil { return fail(stream, "it cannot be reached", &core, &reactor, at: now) }
            guard event.isWritable else { return }
            stream.isConnected = true
            if stream.tls == nil { core.receive(.opened, session: stream.session, at: now) }
        }
        if event.isWritable { stream.isBlocked = false }
        exchange(stream, &core, &reactor, at: now)
    }

    /// Carries bytes both ways until the socket or the session has had enough.
    private mutating func exchange(_ stream: Stream, _ core: inout TransceiverWorker, _ reactor: inout Reactor, at now: Instant) {
        let end = read(stream, &core, at: now)
        guard streams[stream.tag] === stream else { return }
        if let end { return fail(stream, end, &core, &reactor, at: now) }
        guard write(stream, &core) else { return fail(stream, "the connection was lost", &core, &reactor, at: now) }
        var interest: Interest = stream.isBlocked ? .writable : []
        if stream.tls?.wantsInput ?? true, stream.tls?.isEstablished == false || core.wantsStreamInput(stream.session) {
            interest.insert(.readable)
        }
        guard interest != stream.interest, let token = stream.token else { return }
        stream.interest = interest
        try? reactor.update(token, for: interest)
    }

    /// Reads; why the stream is over, or nil.
    private mutating func read(_ stream: Stream, _ core: inout TransceiverWorker, at now: Instant) -> String? {
        for _ in 0..<Self.readsPerTurn {
            if stream.tls != nil {
                if let end = takePlaintext(stream, &core, at: now) { return end }
                guard stream.tls?.wantsInput == true else { return nil }
            } else if !core.wantsStreamInput(stream.session) {
                return nil
            }
            var result = StreamResult.wouldBlock
            let length = chunk.write(0, 0..<Self.chunk) { result = stream.socket.read(into: &$0) }
            switch result {
            case .transferred:
                if stream.tls != nil {
                    stream.tls?.receive(chunk.bytes(0, length))
                } else {
                    Self.hand(chunk, length, to: &core, stream.session, at: now)
                }
            case .wouldBlock: return nil
            case .closed:
                stream.tls?.receiveEnd()
                if let end = takePlaintext(stream, &core, at: now) { return end }
                core.receive(.ended, session: stream.session, at: now)
                return "the connection was lost"
            case .failed: return "the connection was lost"
            }
        }
        return takePlaintext(stream, &core, at: now)
    }

    /// What TLS has deciphered goes to the session, and what has become of it.
    private mutating func takePlaintext(_ stream: Stream, _ core: inout TransceiverWorker, at now: Instant) -> String? {
        guard stream.tls != nil else { return nil }
        while let event = stream.tls?.nextEvent() {
            switch event {
            case .established(let name):
                if let wanted = route.protocolName, name != wanted { return "it does not speak \(wanted)" }
                core.receive(.opened, session: stream.session, at: now)
            case .failed(let failure): return failure.message
            case .ended: core.receive(.ended, session: stream.session, at: now)
            }
        }
        while core.wantsStreamInput(stream.session) {
            let length = chunk.write(0, 0..<Self.chunk) { _ = stream.tls?.nextPlaintext(into: &$0) }
            guard length > 0 else { break }
            Self.hand(chunk, length, to: &core, stream.session, at: now)
        }
        while let event = stream.tls?.nextEvent() {
            if case .failed(let failure) = event { return failure.message }
            if case .ended = event { core.receive(.ended, session: stream.session, at: now) }
        }
        return nil
    }

    private static func hand(
        _ chunk: borrowing ByteSlab, _ length: Int, to core: inout TransceiverWorker, _ session: UInt32, at now: Instant
    ) { core.receive(stream: chunk.bytes(0, length), session: session, at: now) }

    /// Writes what the session has; false when the socket has failed.
    private func write(_ stream: Stream, _ core: inout TransceiverWorker) -> Bool {
        guard stream.tls != nil else {
            var stands = true
            guard !stream.isBlocked else { return true }
            core.writeStream(stream.session) { bytes in
                switch stream.socket.write(bytes) {
                case .transferred(let count): return count
                case .wouldBlock: stream.isBlocked = true
                case .closed, .failed: stands = false
                }
                return 0
            }
            return stands
        }
        core.writeStream(stream.session) { stream.tls?.send($0) ?? 0 }
        return Self.flushTLS(stream)
    }

    private static func flushTLS(_ stream: Stream) -> Bool {
        while let waiting = stream.tls?.outputCount, waiting > 0 {
            switch stream.tls?.withOutput({ stream.socket.write($0) }) {
            case .transferred(let count): stream.tls?.outputSent(count)
            case .wouldBlock:
                stream.isBlocked = true
                return true
            case .closed, .failed, nil: return false
            }
        }
        stream.isBlocked = false
        return true
    }

    private mutating func fail(
        _ stream: Stream, _ reason: String, _ core: inout TransceiverWorker, _ reactor: inout Reactor, at now: Instant
    ) {
        close(stream.session, &reactor)
        core.receive(.failed(reason), session: stream.session, at: now)
    }
}
