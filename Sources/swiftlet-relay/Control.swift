// The control thread: operator's signals, changed files, and a few HTTP answers for probes and Prometheus. Never on a media worker.

import Configuration
import EventLoop
import Primitives
import RelayCore

struct ControlServer: ~Copyable {
    private static let connectionsMax = 16
    private static let requestMax = 4096
    /// A connection that has not finished by then is closed.
    private static let patience = Interval.seconds(5)

    // Not private: the compiler (6.3.1) breaks on `Slab` of a private type.
    struct Connection: ~Copyable {
        let socket: StreamSocket
        let token: ReactorToken
        let deadline: Instant
        var request: [UInt8] = []
        var response: [UInt8] = []
        var written = 0
    }

    private var reactor: Reactor
    private let signals: SignalSource
    private var listener: StreamListener?
    private var connections: Slab<Connection?>
    private let workers: [WorkerCommands]
    private let transceivers: TransceiverSource
    private var stamp: FileStamp?

    private static let signalTag: UInt64 = 1000
    private static let listenerTag: UInt64 = 1001

    init(
        signals: consuming SignalSource, listener: consuming StreamListener?, workers: [WorkerCommands], transceivers: TransceiverSource,
        stamp: FileStamp?
    )
        throws(Errno)
    {
        var reactor = try Reactor(capacity: 64, eventsPerTurn: 64)
        _ = try reactor.register(signals.descriptor, for: .readable, tag: Self.signalTag)
        try Self.register(listener, &reactor)
        self.reactor = reactor
        self.listener = listener
        self.signals = signals
        connections = Slab(count: Self.connectionsMax) { _ in nil }
        self.workers = workers
        self.transceivers = transceivers
        self.stamp = stamp
    }

    private static func register(_ listener: borrowing StreamListener?, _ reactor: inout Reactor) throws(Errno) {
        switch listener {
        case .some(let listener): _ = try reactor.register(listener.descriptor, for: .readable, tag: listenerTag)
        case .none: break
        }
    }

    /// Serves until SIGTERM or SIGINT.
    mutating func run() {
        while true {
            reactor.wait(until: MonotonicClock.now() + .seconds(1))
            let now = MonotonicClock.now()
            while let event = reactor.nextEvent() {
                switch event.tag {
                case Self.signalTag:
                    while let signal = signals.next() {
                        if signal != .hangup { return }
                        reloadTransceivers(always: true)
                    }
                case Self.listenerTag: accept(now)
                default: serve(Int(event.tag))
                }
            }
            for index in 0..<connections.count where isLate(connections[index], now) { close(index) }
            reloadTransceivers(always: false)
        }
    }

    /// Reads the table again when its file has changed. A table with an error changes nothing: the old one stays.
    private mutating func reloadTransceivers(always: Bool) {
        guard case .table(let path) = transceivers else { return }
        let current = FileStamp(path)
        guard always || current != stamp else { return }
        stamp = current
        do throws(ConfigurationError) {
            let loaded = try TransceiverDirectory.load(transceivers)
            for worker in workers { worker.replaceTransceivers(loaded.directory) }
            log("transceiver table read again")
        } catch { log("transceiver table not taken: \(error)") }
    }
}

extension ControlServer {
    private mutating func accept(_ now: Instant) {
        for _ in 0..<Self.connectionsMax {
            guard let result = listener?.accept() else { return }
            switch consume result {
            case .accepted(let socket):
                guard let free = (0..<connections.count).first(where: { isFree($0) }) else { return }
                guard let token = try? reactor.register(socket.descriptor, for: .readable, tag: UInt64(free)) else { return }
                connections[free] = Connection(socket: socket, token: token, deadline: now + Self.patience)
            case .wouldBlock: return
            case .refusedForLackOfDescriptors: continue
            case .failed: continue
            }
        }
    }

    private func isFree(_ index: Int) -> Bool {
        switch connections[index] {
        case .none: true
        case .some: false
        }
    }

    private func isLate(_ connection: borrowing Connection?, _ now: Instant) -> Bool {
        switch connection {
        case .some(let connection): connection.deadline <= now
        case .none: false
        }
    }

    private mutating func close(_ index: Int) {
        guard let connection = connections[index].take() else { return }
        reactor.deregister(connection.token)
    }

    private mutating func serve(_ index: Int) {
        guard index < connections.count, var connection = connections[index].take() else { return }
        if step(&connection) {
            connections[index] = consume connection
        } else {
            reactor.deregister(connection.token)
        }
    }

    /// Reads, or writes, as far as it goes; false when the connection is done.
    private mutating func step(_ connection: inout Connection) -> Bool {
        while connection.response.isEmpty {
            var chunk = InlineArray<1024, UInt8>(repeating: 0)
            var span = chunk.mutableSpan
            var bytes = span.mutableBytes
            switch connection.socket.read(into: &bytes) {
            case .transferred(let count): for offset in 0..<count { connection.request.append(chunk[offset]) }
            case .wouldBlock: return true
            case .closed, .failed: return false
            }
            let request = String(decoding: connection.request, as: UTF8.self)
            if request.contains("\r\n\r\n") || connection.request.count > Self.requestMax {
                connection.response = Array(response(to: request).utf8)
                try? reactor.update(connection.token, for: .writable)
            }
        }
        while connection.written < connection.response.count {
            switch connection.socket.write(connection.response.span.bytes.extracting(connection.written..<connection.response.count)) {
            case .transferred(let count): connection.written += count
            case .wouldBlock: return true
            case .closed, .failed: return false
            }
        }
        connection.socket.finishWriting()
        return false
    }

    private func response(to request: String) -> String {
        let line = request.prefix { $0 != "\r\n" && $0 != "\n" }.split(separator: " ", omittingEmptySubsequences: false)
        guard line.count == 3, line[2].hasPrefix("HTTP/1."), request.utf8.count <= Self.requestMax else {
            return Self.answer("400 Bad Request", "not an HTTP/1.1 request of at most \(Self.requestMax) bytes\n")
        }
        guard line[0] == "GET" || line[0] == "HEAD" else { return Self.answer("405 Method Not Allowed", "only GET and HEAD\n") }
        let isHead = line[0] == "HEAD"
        switch line[1].prefix(while: { $0 != "?" }) {
        case "/metrics":
            return Self.answer("200 OK", prometheusText(workers.map(\.counters)), type: "text/plain; version=0.0.4", isHead: isHead)
        case "/healthz", "/readyz": return Self.answer("200 OK", "ok\n", isHead: isHead)
        default: return Self.answer("404 Not Found", "there are /metrics, /healthz and /readyz\n", isHead: isHead)
        }
    }

    private static func answer(_ status: String, _ body: String, type: String = "text/plain; charset=utf-8", isHead: Bool = false) -> String
    {
        "HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\nContent-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n"
            + (isHead ? "" : body)
    }
}
