// Requests and responses as values.

import Primitives

/// One `name=value` of a query, decoded; a name without `=` has an empty value.
public struct HTTPQueryItem: Sendable, Equatable {
    public var name: String
    public var value: String

    public init(name: String, value: String) {
        self.name = name
        self.value = value
    }
}

/// A request whose framing has been checked completely.
public struct HTTPRequest: Sendable, Equatable {
    /// `GET`, `POST`, … as sent: methods are case-sensitive (RFC 9110 §9.1).
    public var method: String
    /// The target as sent: path and query, still escaped; `*` for a server-wide OPTIONS.
    public var target: String
    /// The path with its percent escapes decoded; begins with `/` (or is `*`), is valid UTF-8 and has no NUL.
    public var path: String
    public var query: [HTTPQueryItem]
    public var headers: HTTPHeaders
    public var body: [UInt8]
    /// Whether the client lets the connection live on after the response (RFC 9112 §9.3).
    public var keepsAlive: Bool
    public var isHTTP10: Bool
    /// The other end of the connection, where whoever carries its bytes has said: a client, or a proxy.
    public var peer: IPAddress?

    /// A request made here, not read: for tests and simulations.
    public init(method: String, path: String, headers: HTTPHeaders = HTTPHeaders(), body: [UInt8] = []) {
        self.init(
            method: method, target: path, path: path, query: [], headers: headers, body: body, keepsAlive: true, isHTTP10: false)
    }

    init(
        method: String, target: String, path: String, query: [HTTPQueryItem], headers: HTTPHeaders, body: [UInt8], keepsAlive: Bool,
        isHTTP10: Bool
    ) {
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.keepsAlive = keepsAlive
        self.isHTTP10 = isHTTP10
    }

    /// The first query item called `name`.
    public func queryValue(_ name: String) -> String? { query.first { $0.name == name }?.value }

    /// The path's parts between slashes: `/v1/calls/` gives `["v1", "calls"]`.
    public var pathParts: [Substring] { path.split(separator: "/") }

    /// The media type alone, in lower case, without its parameters: `application/sdp`.
    public var mediaType: String? {
        guard let value = headers["Content-Type"] else { return nil }
        return trimmed(value.prefix { $0 != ";" }).lowercased()
    }

    /// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
    public var bearerToken: String? {
        guard let value = headers["Authorization"], let space = value.firstIndex(of: " "),
            equalIgnoringCase(value[..<space], "Bearer")
        else { return nil }
        let token = trimmed(value[space...])
        return token.isEmpty ? nil : token
    }
}

/// A response; the connection adds framing (`Content-Length`, `Connection`) itself.
public struct HTTPResponse: Sendable, Equatable {
    public var status: Int
    public var headers: HTTPHeaders
    public var body: [UInt8]

    public init(status: Int, headers: HTTPHeaders = HTTPHeaders(), body: [UInt8] = []) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    public init(status: Int, type: String, body: [UInt8]) {
        self.init(status: status, headers: HTTPHeaders([("Content-Type", type)]), body: body)
    }

    public static func text(_ status: Int, _ text: String, type: String = "text/plain; charset=utf-8") -> HTTPResponse {
        HTTPResponse(status: status, type: type, body: Array(text.utf8))
    }

    public static func json(_ status: Int, _ value: JSONValue) -> HTTPResponse {
        HTTPResponse(status: status, type: "application/json", body: value.utf8)
    }

    /// `{"error":{"message","type","code","param"}}`, the shape that clients of realtime APIs already read.
    public static func error(
        _ status: Int, _ message: String, code: String? = nil, param: String? = nil, type: String? = nil
    ) -> HTTPResponse {
        let kind = type ?? (status >= 500 ? "server_error" : "invalid_request_error")
        return json(
            status,
            [
                "error": [
                    "message": .string(message), "type": .string(kind), "code": code.map(JSONValue.string) ?? .null,
                    "param": param.map(JSONValue.string) ?? .null,
                ]
            ])
    }
}

// MARK: - Percent escapes

/// Decodes `%XX` (RFC 3986 §2.1); nil on an incomplete escape, on NUL, or when the result is not UTF-8.
public func percentDecoded(_ text: some StringProtocol, plusIsSpace: Bool = false) -> String? {
    if !text.utf8.contains(where: { $0 == UInt8(ascii: "%") || $0 == UInt8(ascii: "+") }) { return String(text) }
    var result: [UInt8] = []
    var bytes = text.utf8.makeIterator()
    while let byte = bytes.next() {
        switch byte {
        case UInt8(ascii: "%"):
            guard let high = bytes.next().flatMap(hexDigit), let low = bytes.next().flatMap(hexDigit) else { return nil }
            guard high << 4 | low != 0 else { return nil }
            result.append(high << 4 | low)
        case UInt8(ascii: "+") where plusIsSpace: result.append(0x20)
        default: result.append(byte)
        }
    }
    return String(validating: result, as: UTF8.self)
}

func hexDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
}

/// Decodes `a=1&b=2`; nil on a bad escape. The limit of the target is the limit of the items.
func queryItems(_ query: some StringProtocol) -> [HTTPQueryItem]? {
    var items: [HTTPQueryItem] = []
    for part in query.split(separator: "&") {
        let pieces = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard let name = percentDecoded(pieces[0], plusIsSpace: true),
            let value = percentDecoded(pieces.count > 1 ? pieces[1] : "", plusIsSpace: true)
        else { return nil }
        items.append(HTTPQueryItem(name: name, value: value))
    }
    return items
}
