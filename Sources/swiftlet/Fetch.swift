import EventLoop
import Glibc
import HTTP
import Primitives

/// One page of a program's admin port.
enum Fetch {
    /// `http://HOST:PORT` or `HOST:PORT`, with or without a path, which is passed over.
    static func address(_ url: String) -> SocketAddress? {
        let rest = url.hasPrefix("http://") ? String(url.dropFirst(7)) : url
        let authority = String(rest.prefix { $0 != "/" })
        return SocketAddress(authority.hasPrefix("localhost:") ? "127.0.0.1:" + authority.dropFirst(10) : authority)
    }

    /// The body of a response with status 200.
    static func get(_ address: SocketAddress, _ path: String) throws(CommandError) -> [UInt8] {
        let response = try exchange(address, "GET", path)
        guard response.status == 200 else { throw CommandError("http://\(address)\(path) answers \(response.status)", status: 1) }
        return response.body
    }

    /// The response to one request, whatever its status.
    static func exchange(
        _ address: SocketAddress, _ method: String, _ path: String, headers: HTTPHeaders = HTTPHeaders(), body: [UInt8] = [],
        patience: Interval = .seconds(5)
    ) throws(CommandError) -> HTTPResponse {
        var limits = HTTPLimits()
        limits.bodyBytes = 4 << 20
        var connection = HTTPClientConnection(host: "\(address)", limits: limits, patience: patience)
        connection.send(method, path, headers: headers, body: body, at: MonotonicClock.now())
        do {
            let socket = try StreamSocket.connect(to: address)
            var memory = ByteSlab(count: 1, slotSize: 16_384)
            while true {
                wait(socket.descriptor.rawValue, writing: connection.outputCount > 0)
                if connection.outputCount > 0, case .transferred(let count) = socket.write(connection.output) {
                    connection.outputSent(count)
                }
                var received = StreamResult.wouldBlock
                let length = memory.write(0, 0..<16_384) { received = socket.read(into: &$0) }
                let now = MonotonicClock.now()
                switch received {
                case .transferred: connection.receive(memory.bytes(0, length), at: now)
                case .closed: connection.receiveEnd(at: now)
                case .failed(let error): throw error
                case .wouldBlock: break
                }
                connection.advance(to: now)
                switch connection.nextEvent() {
                case .response(let response), .upgraded(let response, _): return response
                case .failed(let failure): throw CommandError("http://\(address)\(path): \(failure)", status: 1)
                case nil: continue
                }
            }
        } catch let error as CommandError { throw error } catch { throw CommandError("http://\(address)\(path): \(error)", status: 1) }
    }

    private static func wait(_ descriptor: CInt, writing: Bool) {
        var poll = pollfd(fd: descriptor, events: Int16(writing ? POLLOUT : POLLIN), revents: 0)
        _ = Glibc.poll(&poll, 1, 1000)
    }

    /// Samples of a page of Prometheus text: `name{labels}` and its value.
    static func metrics(_ address: SocketAddress) throws(CommandError) -> [String: Double] {
        let text = String(decoding: try get(address, "/metrics"), as: UTF8.self)
        var samples: [String: Double] = [:]
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            guard let space = line.lastIndex(of: " "), let value = Double(line[line.index(after: space)...]) else { continue }
            samples[String(line[..<space])] = value
        }
        return samples
    }
}
