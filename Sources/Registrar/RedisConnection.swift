// A connection to Redis: a socket, and over it TLS where the address asks for that.

import EventLoop
import Primitives
import TLS

struct RedisConnection: ~Copyable {
    private let socket: StreamSocket
    private var tls: TLSClientStream?
    private(set) var isConnecting = true
    /// The socket took less than it was offered.
    private(set) var isBlocked = true
    /// Why TLS has failed, for the operator.
    private(set) var complaint: String?

    enum Progress {
        /// As before.
        case none
        /// Commands may be sent from now on.
        case opened
        case lost
    }

    /// - Parameter tls: nil for none.
    init(_ socket: consuming StreamSocket, _ tls: consuming TLSClientStream?) {
        self.socket = socket
        self.tls = tls
    }

    func register(in reactor: inout Reactor, tag: UInt64) -> ReactorToken? {
        try? reactor.register(socket.descriptor, for: [.readable, .writable], tag: tag)
    }

    /// The socket says something for the first time: it stands, or not.
    mutating func settle(_ event: ReactorEvent) -> Progress {
        guard event.isWritable || event.isClosed else { return .none }
        guard socket.connectionError() == nil, !event.isClosed else { return .lost }
        isConnecting = false
        return usesTLS ? .none : .opened
    }

    /// Reads once, and hands to `take` what Redis has said. `isEmpty` becomes true when there is nothing more now.
    mutating func read(isEmpty: inout Bool, _ take: (RawSpan) -> Void) -> Progress {
        var buffer = InlineArray<16_384, UInt8>(repeating: 0)
        var progress = Progress.none
        switch read(&buffer) {
        case .transferred(let count):
            let bytes = buffer.span.bytes.bytes(0..<count)
            guard usesTLS else {
                take(bytes)
                return .none
            }
            tls?.receive(bytes)
        case .wouldBlock:
            isEmpty = true
            return .none
        case .closed where usesTLS:
            tls?.receiveEnd()
            progress = .lost
        case .closed, .failed: return .lost
        }
        hear(&progress)
        while true {
            let count = decipher(&buffer)
            guard count > 0 else { break }
            take(buffer.span.bytes.bytes(0..<count))
        }
        hear(&progress)
        return progress
    }

    /// Writes `plaintext`, and what TLS has to say besides; how many bytes of it were taken, nil when the connection is lost.
    mutating func write(_ plaintext: [UInt8]) -> Int? {
        guard usesTLS else {
            guard !plaintext.isEmpty else {
                isBlocked = false
                return 0
            }
            return write(plaintext.span.bytes)
        }
        let taken = plaintext.isEmpty ? 0 : tls?.send(plaintext.span.bytes) ?? 0
        return flush() ? taken : nil
    }

    /// So that Redis knows that it was meant.
    mutating func close() {
        guard !isConnecting else { return }
        tls?.close()
        _ = flush()
    }
}

extension RedisConnection {
    private var usesTLS: Bool {
        switch tls {
        case .some: true
        case .none: false
        }
    }

    private mutating func read(_ buffer: inout InlineArray<16_384, UInt8>) -> StreamResult {
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        return socket.read(into: &bytes)
    }

    private mutating func decipher(_ buffer: inout InlineArray<16_384, UInt8>) -> Int {
        var span = buffer.mutableSpan
        return span.withUnsafeMutableBytes { memory in
            var output = OutputRawSpan(buffer: memory, initializedCount: 0)
            let count = tls?.nextPlaintext(into: &output) ?? 0
            return min(count, output.finalize(for: memory))
        }
    }

    private mutating func hear(_ progress: inout Progress) {
        while let event = tls?.nextEvent() {
            switch event {
            case .established: if progress == .none { progress = .opened }
            case .ended: progress = .lost
            case .failed(let failure):
                complaint = failure.message
                progress = .lost
            }
        }
    }

    private mutating func write(_ bytes: RawSpan) -> Int? {
        switch socket.write(bytes) {
        case .transferred(let count):
            isBlocked = count < bytes.byteCount
            return count
        case .wouldBlock:
            isBlocked = true
            return 0
        case .closed, .failed: return nil
        }
    }

    private mutating func flush() -> Bool {
        while let waiting = tls?.outputCount, waiting > 0 {
            switch tls?.withOutput({ socket.write($0) }) {
            case .transferred(let count): tls?.outputSent(count)
            case .wouldBlock:
                isBlocked = true
                return true
            case .closed, .failed, nil: return false
            }
        }
        isBlocked = false
        return true
    }
}
