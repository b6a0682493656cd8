// The head of a request (RFC 9112 §2–§6): everything that decides where the request ends is decided here, once.

import Primitives

/// How long the body is.
enum BodyFraming: Equatable {
    case length(Int)
    case chunked
}

struct RequestHead {
    var request: HTTPRequest
    var framing: BodyFraming
    var expectsContinue: Bool

    /// Reads a complete head, its last empty line included. `bytes` is no longer than `limits.headBytes`.
    init(parsing bytes: [UInt8], limits: HTTPLimits) throws(HTTPFailure) {
        var lines = LineReader(bytes)
        guard let requestLine = lines.next() else { throw .badRequestLine }
        let (method, target, isHTTP10) = try Self.requestLine(requestLine, limits)
        let headers = try headerFields(&lines, limits)

        let hosts = headers.all("Host")
        guard hosts.count == 1 || (hosts.isEmpty && isHTTP10), hosts.allSatisfy(Self.isHost) else { throw .badHost }
        framing = try Self.framing(headers, isHTTP10: isHTTP10, limits)
        let expectations = headers.all("Expect")
        guard expectations.allSatisfy({ equalIgnoringCase($0, "100-continue") }) else { throw .unsupportedExpectation }
        expectsContinue = !expectations.isEmpty && !isHTTP10

        let (path, query) = try Self.pathAndQuery(target)
        let closes = headers.contains("close", in: "Connection")
        request = HTTPRequest(
            method: method, target: target, path: path, query: query, headers: headers, body: [],
            keepsAlive: !closes && (!isHTTP10 || headers.contains("keep-alive", in: "Connection")), isHTTP10: isHTTP10)
    }

    private static func requestLine(_ line: ArraySlice<UInt8>, _ limits: HTTPLimits) throws(HTTPFailure) -> (String, String, Bool) {
        let parts = line.split(separator: 0x20, omittingEmptySubsequences: false)
        guard parts.count == 3 else { throw .badRequestLine }
        guard parts[0].count <= 32, !parts[0].isEmpty, parts[0].allSatisfy(isTokenCharacter) else { throw .badRequestLine }
        guard parts[1].count <= limits.targetBytes else { throw .targetTooLong }
        guard !parts[1].isEmpty, parts[1].allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { throw .badTarget }
        let version = Array(parts[2])
        guard version.count == 8, version.starts(with: "HTTP/".utf8), version[6] == UInt8(ascii: ".") else { throw .badRequestLine }
        guard version[5] == UInt8(ascii: "1"), version[7] == UInt8(ascii: "1") || version[7] == UInt8(ascii: "0") else {
            throw .unsupportedVersion
        }
        let method = String(decoding: parts[0], as: UTF8.self)
        var target = String(decoding: parts[1], as: UTF8.self)
        if !target.hasPrefix("/") {
            // RFC 9112 §3.2.2: a server must accept the absolute form, which proxies send. `*` belongs to OPTIONS.
            if target == "*", method == "OPTIONS" { return (method, target, version[7] == UInt8(ascii: "0")) }
            guard let authority = ["http://", "https://"].first(where: { equalIgnoringCase(target.prefix($0.utf8.count), $0) }) else {
                throw .badTarget
            }
            let rest = target.dropFirst(authority.utf8.count)
            let path = rest.drop { $0 != "/" && $0 != "?" }
            target = path.hasPrefix("/") ? String(path) : "/" + path
        }
        return (method, target, version[7] == UInt8(ascii: "0"))
    }

    /// The characters of RFC 3986 §3.2.2 and a port; not its grammar, because nobody here routes by it.
    private static func isHost(_ value: String) -> Bool {
        value.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
            default: "-._~!$&'()*+;=:[]%".utf8.contains(byte)
            }
        }
    }

    private static func framing(_ headers: HTTPHeaders, isHTTP10: Bool, _ limits: HTTPLimits) throws(HTTPFailure) -> BodyFraming {
        try declaredFraming(headers, isHTTP10: isHTTP10, limits) ?? .length(0)
    }

    private static func pathAndQuery(_ target: String) throws(HTTPFailure) -> (String, [HTTPQueryItem]) {
        // RFC 9112 §3.2: a fragment is never sent.
        guard !target.utf8.contains(UInt8(ascii: "#")) else { throw .badTarget }
        let end = target.utf8.firstIndex(of: UInt8(ascii: "?")) ?? target.endIndex
        guard let path = percentDecoded(target[..<end]), let query = queryItems(target[end...].dropFirst()) else { throw .badTarget }
        return (path, query)
    }
}

/// The lines behind the first one, up to the empty line.
func headerFields(_ lines: inout LineReader, _ limits: HTTPLimits) throws(HTTPFailure) -> HTTPHeaders {
    var headers = HTTPHeaders()
    while let line = lines.next(), !line.isEmpty {
        guard line.count <= limits.fieldBytes, headers.fields.count < limits.headerFields else { throw .headTooLarge }
        let (name, value) = try headerField(line)
        headers.add(name, value)
    }
    guard lines.isWellFormed else { throw .badHeaderField }
    return headers
}

/// One field line. No white space may stand before the colon (RFC 9112 §5.1), and a line that begins with white space is the
/// obsolete folding (§5.2): its name is no token, so it fails here too.
func headerField(_ line: ArraySlice<UInt8>) throws(HTTPFailure) -> (String, String) {
    guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex else { throw .badHeaderField }
    let name = line[..<colon]
    let value = line[(colon + 1)...]
    guard name.allSatisfy(isTokenCharacter) else { throw .badHeaderField }
    guard value.allSatisfy({ ($0 >= 0x20 && $0 != 0x7F) || $0 == 0x09 }) else { throw .badHeaderField }
    return (String(decoding: name, as: UTF8.self), trimmed(String(decoding: value, as: UTF8.self)))
}

/// What a head says about the length of its body (RFC 9112 §6.3); nil when it says nothing.
func declaredFraming(_ headers: HTTPHeaders, isHTTP10: Bool, _ limits: HTTPLimits) throws(HTTPFailure) -> BodyFraming? {
    let lengths = headers.all("Content-Length")
    let codings = headers.all("Transfer-Encoding")
    if !codings.isEmpty {
        guard lengths.isEmpty, !isHTTP10 else { throw .ambiguousLength }
        guard codings.count == 1, equalIgnoringCase(codings[0], "chunked") else { throw .unsupportedTransferEncoding }
        return .chunked
    }
    guard lengths.count <= 1 else { throw .badContentLength }
    guard let text = lengths.first else { return nil }
    guard !text.isEmpty, text.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) else { throw .badContentLength }
    // Digits that overflow are a number that is too large, not one that is malformed.
    guard let length = Int(text), length <= limits.bodyBytes else { throw .bodyTooLarge }
    return .length(length)
}

/// Takes a head apart at CR LF. A bare CR or LF inside a line is a malformed line (RFC 9112 §2.2 lets us refuse it).
struct LineReader {
    private let bytes: [UInt8]
    private var place = 0
    private(set) var isWellFormed = true

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func next() -> ArraySlice<UInt8>? {
        guard isWellFormed, place < bytes.count else { return nil }
        let rest = bytes[place...]
        guard let end = rest.firstIndex(where: { $0 == 0x0D || $0 == 0x0A }), bytes[end] == 0x0D, end + 1 < bytes.count,
            bytes[end + 1] == 0x0A
        else {
            isWellFormed = false
            return nil
        }
        place = end + 2
        return rest[..<end]
    }
}
