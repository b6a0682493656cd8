import Primitives

/// Why a form cannot be read.
public enum MultipartError: Error, Sendable, Equatable {
    /// The content type names no boundary, or one that RFC 2046 §5.1.1 does not allow.
    case boundary
    /// The body does not begin with the boundary, or does not end with it.
    case notDelimited
    /// A part's header lines are not closed by an empty line, are not UTF-8, have control characters, or are too long.
    case partHead
    /// A part without exactly one `Content-Disposition: form-data; name="…"`.
    case unnamed
    case tooManyParts

    /// What to change, for people.
    public var message: String {
        switch self {
        case .boundary: "Content-Type must be multipart/form-data; boundary=… with 1 to 70 characters"
        case .notDelimited: "the body must begin with the boundary and end with the boundary and two dashes"
        case .partHead: "a part's header must be lines of text closed by an empty line"
        case .unnamed: "every part needs Content-Disposition: form-data; name=\"…\""
        case .tooManyParts: "at most \(MultipartForm.partsMax) parts are read"
        }
    }
}

/// `multipart/form-data` (RFC 7578), as browsers and HTTP libraries send it.
public struct MultipartForm: Sendable, Equatable {
    public static let partsMax = 16
    static let partHeadMax = 2048

    public struct Part: Sendable, Equatable {
        public var name: String
        public var filename: String?
        public var type: String?
        public var body: [UInt8]
    }

    public private(set) var parts: [Part] = []

    /// The first part of this name.
    public subscript(name: String) -> Part? { parts.first { $0.name == name } }

    /// - Parameter contentType: the value of the Content-Type header.
    public init(parsing body: RawSpan, contentType: String) throws(MultipartError) {
        let parameters = HeaderParameters(contentType)
        guard equalIgnoringCase(parameters.value, "multipart/form-data"), !parameters.isAmbiguous("boundary"),
            let boundary = parameters["boundary"], (1...70).contains(boundary.utf8.count),
            boundary.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F })
        else { throw .boundary }
        let delimiter = Array("\r\n--\(boundary)".utf8)
        // The first boundary has no line before it, or an empty one.
        let opening = Array(delimiter.dropFirst(2))
        guard holds(opening, in: body, at: 0) || holds(delimiter, in: body, at: 0) else { throw .notDelimited }
        var position = holds(delimiter, in: body, at: 0) ? delimiter.count : opening.count
        while true {
            if Self.has("--", at: position, in: body) { return }
            guard let start = Self.afterLineEnd(position, in: body), let end = find(delimiter, in: body, from: start - 2) else {
                throw .notDelimited
            }
            guard parts.count < Self.partsMax else { throw .tooManyParts }
            parts.append(try Self.part(body, start, max(start, end)))
            position = end + delimiter.count
        }
    }

    /// Behind the line end that follows a boundary; blanks before it are allowed (RFC 2046 §5.1.1).
    private static func afterLineEnd(_ position: Int, in body: RawSpan) -> Int? {
        var position = position
        while position < body.byteCount, body.byte(position) == 0x20 || body.byte(position) == 0x09 { position += 1 }
        return has("\r\n", at: position, in: body) ? position + 2 : nil
    }

    private static func has(_ text: String, at position: Int, in body: RawSpan) -> Bool {
        holds(Array(text.utf8), in: body, at: position)
    }

    private static func part(_ body: RawSpan, _ start: Int, _ end: Int) throws(MultipartError) -> Part {
        // A part without any header line begins with the empty line itself.
        guard let headEnd = find(Array("\r\n\r\n".utf8), in: body, from: start - 2), headEnd + 4 <= end, headEnd - start <= partHeadMax,
            let head = String(validating: headEnd > start ? body.bytes(start..<headEnd).array : [], as: UTF8.self)
        else { throw .partHead }
        var disposition: HeaderParameters?
        var type: String?
        var lines = LineReader(Array(head.utf8) + [0x0D, 0x0A])
        while let line = lines.next() {
            // The line end of a head without any field.
            guard !line.isEmpty else { continue }
            let field: (name: String, value: String)
            do { field = try headerField(line) } catch { throw .partHead }
            if equalIgnoringCase(field.name, "Content-Disposition") {
                guard disposition == nil else { throw .unnamed }
                disposition = HeaderParameters(field.value)
            }
            if equalIgnoringCase(field.name, "Content-Type") { type = field.value }
        }
        guard lines.isWellFormed else { throw .partHead }
        guard let disposition, equalIgnoringCase(disposition.value, "form-data"), let name = disposition["name"],
            !disposition.isAmbiguous("name")
        else { throw .unnamed }
        return Part(name: name, filename: disposition["filename"], type: type, body: body.bytes(headEnd + 4..<end).array)
    }
}

/// The offset of `needle` at or behind `start`.
private func find(_ needle: [UInt8], in body: RawSpan, from start: Int) -> Int? {
    var position = max(start, 0)
    while position + needle.count <= body.byteCount {
        if holds(needle, in: body, at: position) { return position }
        position += 1
    }
    return nil
}

private func holds(_ needle: [UInt8], in body: RawSpan, at position: Int) -> Bool {
    guard position + needle.count <= body.byteCount else { return false }
    for offset in 0..<needle.count where body.byte(position + offset) != needle[offset] { return false }
    return true
}
