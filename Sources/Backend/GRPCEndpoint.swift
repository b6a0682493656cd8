import HTTP
import Primitives

/// Where a backend that speaks `swiftlet.v1.VoiceBackend` is: `grpcs://host[:port]`, or `grpc://host[:port]` without TLS.
public struct GRPCEndpoint: Sendable, Equatable {
    public static let servicePath = "/swiftlet.v1.VoiceBackend/Converse"

    /// Without TLS only where nobody can listen: on this machine, or in a network of one's own.
    public let isSecure: Bool
    /// A name or an address, without brackets: for the resolver and for the certificate.
    public let host: String
    public let port: UInt16

    /// Nil for what is no such URL; a path, a user or a query are none of it. Without a port it is 443 with TLS, and 50051 without.
    public init?(_ url: String) {
        guard let scheme = ["grpcs://", "grpc://"].first(where: { url.hasPrefix($0) }) else { return nil }
        var authority = url.dropFirst(scheme.utf8.count)
        if authority.hasSuffix("/") { authority.removeLast() }
        isSecure = scheme == "grpcs://"
        // The same rules for hosts and ports as elsewhere; whatever else a URL may have is refused here.
        guard !authority.contains(where: { "/?#@".contains($0) }), let place = RealtimeEndpoint("wss://\(authority)") else { return nil }
        host = place.host
        let hasPort = authority.hasPrefix("[") ? !authority.hasSuffix("]") : authority.contains(":")
        port = hasPort ? place.port : isSecure ? 443 : 50_051
    }

    /// The `:authority` of requests.
    var authority: String {
        let name = host.contains(":") ? "[\(host)]" : host
        return port == (isSecure ? 443 : 80) ? name : "\(name):\(port)"
    }
}

/// Everything about a `grpc:` backend that is not about one call.
public struct GRPCBackendSettings: Sendable {
    public var endpoint: GRPCEndpoint
    /// Goes out as `authorization: Bearer KEY`; only with TLS, or to this machine.
    public var key: String?
    /// From wanting a stream to the backend's `SessionReady`.
    public var connectTime = Interval.seconds(5)
    /// A backend that has not even acknowledged a request for a response by then is reported to the client; the response goes on.
    public var acknowledgeTime = Interval.milliseconds(900)
    /// A response without any sign of life for this long has failed.
    public var answerTime = Interval.seconds(10)
    /// Waits between attempts double from the first to the second.
    public var backoff = (first: Interval.milliseconds(250), last: Interval.seconds(30))
    /// So many failures in a row open the breaker: requests fail at once until an attempt after the longest wait succeeds.
    public var breakerFailures = 5
    /// Audio of an answer that waits to be taken; messages beyond it stay in HTTP/2's window, and then at the backend.
    public var answerSeconds = 60
    /// Bytes that wait for a backend which does not read: about six seconds of the caller's audio.
    public var outputBytes = 320_000
    /// A connection on which nothing came for so long is asked whether it is alive, and then has `pongTime` to answer.
    public var silenceTime = Interval.seconds(20)
    /// gRPC servers take pings amiss that come more often than this while they have nothing to say.
    public var idlePingTime = Interval.seconds(310)
    public var pongTime = Interval.seconds(10)

    public init(endpoint: GRPCEndpoint, key: String?) {
        self.endpoint = endpoint
        self.key = key
    }

    var headers: [(String, String)] {
        var fields = [
            (":method", "POST"), (":scheme", endpoint.isSecure ? "https" : "http"), (":path", GRPCEndpoint.servicePath),
            (":authority", endpoint.authority), ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "swiftlet"),
            ("grpc-accept-encoding", "identity"),
        ]
        if let key { fields.append(("authorization", "Bearer \(key)")) }
        return fields
    }
}

/// What a backend's stream has been through.
public struct GRPCBackendCounters: Sendable, Equatable {
    public var connections: UInt64 = 0
    public var failures: UInt64 = 0
    public var messagesReceived: UInt64 = 0
    /// Frames of the caller that were not sent: no stream, or a backend that does not read.
    public var framesDropped: UInt64 = 0
    /// Responses given up because nothing came.
    public var timeouts: UInt64 = 0
    /// Connections that were left because their server asked for it.
    public var departures: UInt64 = 0
    public init() {}
}
