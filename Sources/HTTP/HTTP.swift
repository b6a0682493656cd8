// HTTP/1.1 and WebSocket without I/O: bytes in, requests and messages out; responses and messages in, bytes out.
//
// It serves three places: signaling and metrics (`HTTPServerConnection`), the sideband WebSocket of a call (a server connection
// that is upgraded to a `WebSocketConnection`), and backends that speak WebSocket (`WebSocketClientHandshake`, then a
// `WebSocketConnection` in the client's role). Limits come before grammar: what is too long is refused before anybody looks at
// what it says. Grammar is strict, because two readers that disagree about one request are how requests are smuggled
// (RFC 9112 §11.2): one Content-Length, never beside Transfer-Encoding, no folded lines, no bare line feeds, no white space
// before a colon.

import Primitives

/// What a server connection accepts. The defaults are those of signaling.
public struct HTTPLimits: Sendable {
    /// The request line's target. The whole line may be longer by what a method and a version take.
    public var targetBytes = 2_048
    /// One header field line. Wider than the target: a browser sends the cookies of every port of one host.
    public var fieldBytes = 8_192
    /// Request line and header fields together.
    public var headBytes = 16_384
    public var headerFields = 100
    public var bodyBytes = 65_536
    /// From a request's first byte to the end of its head.
    public var headTime = Interval.seconds(10)
    /// From the end of the head to the end of the body.
    public var bodyTime = Interval.seconds(20)
    /// With no request under way.
    public var idleTime = Interval.seconds(60)
    /// For the peer to take what is left to send before the connection is closed regardless.
    public var closingTime = Interval.seconds(5)
    /// Requests on one connection; then `Connection: close`, so that no connection lives for ever.
    public var requests = 1_000

    public init() {}

    /// Method (32), two spaces, version (8) and CR LF beside the target, rounded up.
    var requestLineBytes: Int { targetBytes + 64 }

    /// All that can wait unread in a connection: a whole request and the beginning of the next one.
    var inputBytes: Int { headBytes + bodyBytes + 4_096 }
}

/// Why a connection refused its peer. Each is a response (its status) and a counter.
public enum HTTPFailure: UInt8, Error, CaseIterable, Sendable {
    case badRequestLine, badTarget, badHeaderField, badHost, badContentLength, ambiguousLength, badChunk
    case unsupportedVersion, unsupportedTransferEncoding, unsupportedExpectation
    case targetTooLong, headTooLarge, bodyTooLarge
    case headTimeout, bodyTimeout, tooMuchInput

    public var status: Int {
        switch self {
        case .badRequestLine, .badTarget, .badHeaderField, .badHost, .badContentLength, .ambiguousLength, .badChunk: 400
        case .headTimeout, .bodyTimeout: 408
        case .bodyTooLarge: 413
        case .targetTooLong: 414
        case .unsupportedExpectation: 417
        case .headTooLarge, .tooMuchInput: 431
        case .unsupportedTransferEncoding: 501
        case .unsupportedVersion: 505
        }
    }

    /// One sentence for the person at the other end: what to change.
    public func message(_ limits: HTTPLimits = HTTPLimits()) -> String {
        switch self {
        case .badRequestLine: "The request line must be METHOD SP target SP HTTP/1.1, ended by CR LF."
        case .badTarget: "The request target must be a path of visible ASCII characters with complete percent escapes."
        case .badHeaderField: "A header field must be NAME: value on one line, without control characters, ended by CR LF."
        case .badHost: "An HTTP/1.1 request must carry exactly one Host field, a name or address with or without a port."
        case .badContentLength: "Send exactly one Content-Length field, a decimal number."
        case .ambiguousLength: "Send either Content-Length or Transfer-Encoding, not both, and Transfer-Encoding only with HTTP/1.1."
        case .badChunk: "The chunked body is malformed; extensions and trailer fields are not accepted."
        case .unsupportedVersion: "Use HTTP/1.1."
        case .unsupportedTransferEncoding: "The only transfer coding understood is 'chunked'."
        case .unsupportedExpectation: "The only expectation understood is '100-continue'."
        case .targetTooLong: "The request target is longer than \(limits.targetBytes) bytes."
        case .headTooLarge:
            "The request head may have \(limits.headBytes) bytes, \(limits.fieldBytes) in one field, and \(limits.headerFields) fields."
        case .bodyTooLarge: "The request body is larger than \(limits.bodyBytes) bytes."
        case .headTimeout: "The request head did not arrive in time."
        case .bodyTimeout: "The request body did not arrive in time."
        case .tooMuchInput: "More requests were sent ahead than are kept; wait for a response first."
        }
    }

    public var code: String {
        switch self {
        case .headTimeout, .bodyTimeout: "request_timeout"
        case .bodyTooLarge, .headTooLarge, .targetTooLong, .tooMuchInput: "request_too_large"
        default: "invalid_http"
        }
    }
}

/// Reason phrases of the status codes in use (RFC 9110 §15).
func reasonPhrase(_ status: Int) -> String {
    switch status {
    case 100: "Continue"
    case 101: "Switching Protocols"
    case 200: "OK"
    case 201: "Created"
    case 202: "Accepted"
    case 204: "No Content"
    case 304: "Not Modified"
    case 307: "Temporary Redirect"
    case 400: "Bad Request"
    case 401: "Unauthorized"
    case 403: "Forbidden"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 406: "Not Acceptable"
    case 408: "Request Timeout"
    case 409: "Conflict"
    case 410: "Gone"
    case 411: "Length Required"
    case 412: "Precondition Failed"
    case 413: "Content Too Large"
    case 414: "URI Too Long"
    case 415: "Unsupported Media Type"
    case 417: "Expectation Failed"
    case 422: "Unprocessable Content"
    case 426: "Upgrade Required"
    case 428: "Precondition Required"
    case 429: "Too Many Requests"
    case 431: "Request Header Fields Too Large"
    case 500: "Internal Server Error"
    case 501: "Not Implemented"
    case 502: "Bad Gateway"
    case 503: "Service Unavailable"
    case 504: "Gateway Timeout"
    case 505: "HTTP Version Not Supported"
    default: "Status"
    }
}
