import EventLoop
import Glibc
import Primitives
import Telemetry

/// A socket that sources can be copied with.
private final class Connection {
    let socket: StreamSocket
    init(_ socket: consuming StreamSocket) { self.socket = socket }
}

/// One program's stream of reports: the last two, and why there are none.
struct TopSource {
    let name: String
    let address: SocketAddress
    private var connection: Connection?
    private(set) var last: JSONValue?
    private(set) var previous: JSONValue?
    private(set) var problem: String?
    private var pending: [UInt8] = []
    private var retryAt = Instant.zero
    private var heardAt = Instant.zero

    private static let messageMax = 1 << 20
    private static let patience = Interval.seconds(5)

    init(_ name: String, _ address: SocketAddress) {
        self.name = name
        self.address = address
    }

    /// What poll waits for; -1 while there is no connection.
    var descriptor: CInt { connection?.socket.descriptor.rawValue ?? -1 }

    /// Whether there are rates to show.
    var isReady: Bool { last != nil && previous != nil }

    /// Takes what has come; connects, and connects again, when it must.
    mutating func advance(to now: Instant) {
        guard let connection else {
            guard retryAt <= now else { return }
            retryAt = now + .seconds(1)
            return connect(now)
        }
        var chunk = ByteSlab(count: 1, slotSize: 65_536)
        while true {
            var result = StreamResult.wouldBlock
            let count = chunk.write(0, 0..<65_536) { result = connection.socket.read(into: &$0) }
            switch result {
            case .transferred:
                heardAt = now
                take(chunk.bytes(0, count).array)
            case .wouldBlock:
                if now - heardAt > Self.patience { fail("says nothing") }
                return
            case .closed: return fail("has closed the connection")
            case .failed(let error): return fail(String(cString: strerror(error.rawValue)))
            }
        }
    }

    private mutating func connect(_ now: Instant) {
        do throws(Errno) {
            let made = Connection(try StreamSocket.connect(to: address))
            // A second is long for a program on this machine, and short for whoever waits.
            var writable = pollfd(fd: made.socket.descriptor.rawValue, events: Int16(POLLOUT), revents: 0)
            guard poll(&writable, 1, 1000) == 1 else { return fail("cannot be reached") }
            if let error = made.socket.connectionError() { throw error }
            let request = Array("GET /events HTTP/1.1\r\nHost: \(address)\r\nAccept: text/event-stream\r\n\r\n".utf8)
            guard made.socket.write(request.span.bytes) == .transferred(request.count) else { return fail("takes no request") }
            connection = made
        } catch { return fail(String(cString: strerror(error.rawValue))) }
        pending = []
        heardAt = now
    }

    private mutating func fail(_ reason: String) {
        problem = reason
        connection = nil
        previous = nil
        last = nil
    }

    /// Lines of events; a line that is no message is passed over.
    private mutating func take(_ bytes: [UInt8]) {
        pending += bytes
        while let end = pending.firstIndex(of: 0x0A) {
            let line = pending[..<end]
            pending.removeSubrange(...end)
            if line.starts(with: "HTTP/1.".utf8), !line.dropFirst(8).starts(with: " 200".utf8) {
                return fail(String(decoding: line.dropFirst(9).filter { $0 >= 0x20 }, as: UTF8.self))
            }
            guard line.starts(with: "data: ".utf8) else { continue }
            let text = Array(line.dropFirst(6))
            guard let report = try? JSONValue(parsing: text.span.bytes, limits: JSONLimits(bytes: Self.messageMax, values: 100_000)) else {
                continue
            }
            problem = nil
            previous = last
            last = report
        }
        if pending.count > Self.messageMax { fail("says too much") }
    }
}

/// What a report says between two moments.
struct TopInterval {
    let seconds: Double
    let last: JSONValue
    let previous: JSONValue

    init?(_ source: TopSource) {
        guard let last = source.last, let previous = source.previous, let now = last["uptime"]?.double,
            let before = previous["uptime"]?.double,
            now > before
        else { return nil }
        seconds = now - before
        self.last = last
        self.previous = previous
    }

    /// Worker `index` now and before; nil before when it is new.
    func worker(_ index: Int) -> (now: JSONValue, before: JSONValue?)? {
        guard let workers = last["workers"]?.array, index < workers.count else { return nil }
        let old = previous["workers"]?.array ?? []
        return (workers[index], index < old.count ? old[index] : nil)
    }

    var workerCount: Int { last["workers"]?.array?.count ?? 0 }

    /// How much `path` has grown in a second.
    func rate(_ pair: (now: JSONValue, before: JSONValue?), _ path: String...) -> Double? {
        var now: JSONValue? = pair.now
        var before = pair.before
        for name in path {
            now = now?[name]
            before = before?[name]
        }
        guard let now = now?.double, let before = before?.double else { return nil }
        return max(0, now - before) / seconds
    }

    /// What a histogram has gained: bucket by bucket.
    func histogram(_ pair: (now: JSONValue, before: JSONValue?), _ name: String) -> [(bucket: Int, count: Double)] {
        func counts(_ value: JSONValue?) -> [Int: Double] {
            let pairs = value?[name]?.array?.compactMap(\.integer) ?? []
            var counts: [Int: Double] = [:]
            for index in stride(from: 0, to: pairs.count - 1, by: 2) { counts[Int(pairs[index])] = Double(pairs[index + 1]) }
            return counts
        }
        let before = counts(pair.before)
        return counts(pair.now).map { ($0.key, $0.value - (before[$0.key] ?? 0)) }.filter { $0.1 > 0 }.sorted { $0.0 < $1.0 }
    }

    /// The upper end of the bucket with the quantile in it.
    static func quantile(_ q: Double, _ histogram: [(bucket: Int, count: Double)]) -> Double? {
        let total = histogram.reduce(0) { $0 + $1.count }
        guard total > 0 else { return nil }
        var seen = 0.0
        for (bucket, count) in histogram {
            seen += count
            if seen >= q * total { return Double(Histogram.upperBound(of: bucket)) }
        }
        return nil
    }
}
