import HTTP
import Primitives

/// Where a backend that speaks the Realtime WebSocket is: `wss://host[:port]/path?query`.
public struct RealtimeEndpoint: Sendable, Equatable {
    /// Without TLS only where nobody can listen: on this machine.
    public let isSecure: Bool
    /// A name or an address, without brackets: for the resolver and for the certificate.
    public let host: String
    public let port: UInt16
    /// Path and query; a URL without a path means `/v1/realtime`.
    public let target: String

    /// Nil for what is no such URL, and for one with a user, a fragment or a character that a request cannot have.
    public init?(_ url: String) {
        guard let scheme = ["wss://", "ws://"].first(where: { equalIgnoringCase(url.prefix($0.utf8.count), $0) }) else { return nil }
        let rest = url.dropFirst(scheme.utf8.count)
        guard rest.utf8.count <= 2_048, rest.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "#") }) else { return nil }
        let authority = rest.prefix { $0 != "/" && $0 != "?" }
        guard !authority.contains("@"), let (host, port) = Self.split(authority) else { return nil }
        isSecure = scheme == "wss://"
        self.host = host
        guard let number = port.map({ UInt16($0) }) ?? (isSecure ? 443 : 80), number != 0 else { return nil }
        self.port = number
        let tail = rest[authority.endIndex...]
        target = tail.isEmpty ? "/v1/realtime" : tail.hasPrefix("?") ? "/v1/realtime" + tail : String(tail)
    }

    private static func split(_ authority: Substring) -> (String, Substring?)? {
        if authority.hasPrefix("[") {
            guard let end = authority.firstIndex(of: "]"),
                let ip = IPAddress(String(authority[authority.index(after: authority.startIndex)..<end])),
                !ip.isV4
            else { return nil }
            let rest = authority[authority.index(after: end)...]
            guard rest.isEmpty || rest.hasPrefix(":") else { return nil }
            return (ip.description, rest.isEmpty ? nil : rest.dropFirst())
        }
        let parts = authority.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let name = parts.first, !name.isEmpty, name.utf8.count <= 253,
            name.utf8.allSatisfy({ byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                default: false
                }
            })
        else { return nil }
        return (String(name), parts.count > 1 ? parts[1] : nil)
    }

    /// The `Host` field.
    public var hostField: String {
        let name = host.contains(":") ? "[\(host)]" : host
        return port == (isSecure ? 443 : 80) ? name : "\(name):\(port)"
    }
}

/// Everything about a `realtime:` backend that is not about one call.
public struct RealtimeBackendSettings: Sendable {
    public var endpoint: RealtimeEndpoint
    /// `Authorization` and whatever else its operator asks for.
    public var headers: HTTPHeaders
    /// From wanting a stream to the end of the WebSocket's handshake.
    public var connectTime = Interval.seconds(5)
    /// A backend that has not even acknowledged a request for a response by then is reported to the client; the response goes on.
    public var acknowledgeTime = Interval.milliseconds(900)
    /// A response without any sign of life for this long has failed.
    public var answerTime = Interval.seconds(10)
    /// Waits between attempts double from the first to the second.
    public var backoff = (first: Interval.milliseconds(250), last: Interval.seconds(30))
    /// So many failures in a row open the breaker: requests fail at once until an attempt after the longest wait succeeds.
    public var breakerFailures = 5
    /// Audio of an answer that waits to be taken; the stream is not read beyond it.
    public var answerSeconds = 60
    /// Bytes that wait for a backend which does not read: about five seconds of the caller's audio.
    public var outputBytes = 320_000

    /// - Parameter key: goes out as `Authorization: Bearer KEY`.
    public init(endpoint: RealtimeEndpoint, key: String?) {
        self.endpoint = endpoint
        headers = HTTPHeaders(key.map { [("Authorization", "Bearer \($0)")] } ?? [])
    }
}
