// Lines of a description, and the few things that are read from a line's bytes. Everything works on bytes: a client's text may
// be any, and only what was checked becomes part of an answer.

import Primitives

/// A piece of a line.
typealias SDPText = ArraySlice<UInt8>

struct SDPLine {
    /// From 1, empty lines counted.
    var number: Int
    /// The letter before `=`.
    var letter: UInt8
    var value: SDPText

    /// An attribute's name and value; nil for every other line.
    var attribute: (name: String, value: SDPText)? {
        guard letter == UInt8(ascii: "a") else { return nil }
        let (name, value) = value.cut(at: UInt8(ascii: ":"))
        return (name.string, value?.trimmed ?? [])
    }
}

/// What a body is that does not begin with the line `v=0`; nil for one that does. Clients post JSON, and SDP with escaped line ends.
func beginning(of bytes: RawSpan) -> SDPErrorReason? {
    switch bytes.bytes(0..<min(bytes.byteCount, 5)).array[...].string {
    case "": return .empty
    case "v=0", "v=0\r", "v=0\r\n": return nil
    case let text where text.hasPrefix("{") || text.hasPrefix("["): return .json
    case let text: return text.utf8.starts(with: "v=0\n".utf8) ? nil : .notSDP
    }
}

/// The lines of `bytes`: CRLF or LF, the last one's end may be missing, empty lines are passed over.
func readLines(_ bytes: RawSpan, _ limits: SDPLimits) throws(SDPError) -> [SDPLine] {
    guard bytes.byteCount <= limits.bytes else { throw SDPError(.tooLong(limit: limits.bytes)) }
    let raw = try splitLines(bytes.array[...], limits)
    var lines: [SDPLine] = []
    lines.reserveCapacity(raw.count)
    for (index, line) in raw.enumerated() where !line.isEmpty {
        guard line.count >= 2, line[line.startIndex + 1] == UInt8(ascii: "="), let letter = line.first,
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(letter)
        else { throw SDPError(.badLine, line: index + 1) }
        lines.append(SDPLine(number: index + 1, letter: letter, value: line.dropFirst(2)))
    }
    return lines
}

/// Lengths and counts, before anything is understood.
private func splitLines(_ text: SDPText, _ limits: SDPLimits) throws(SDPError) -> [SDPText] {
    var lines: [SDPText] = []
    var mediaSections = 0
    var candidates = 0
    let bytes = text.span
    var start = 0
    while start < bytes.count {
        // NULs and carriage returns, of which one may be the last byte.
        var bad = 0
        var end = start
        while end < bytes.count {
            let byte = bytes[end]
            if byte == 0x0A { break }
            if byte == 0 || byte == 0x0D { bad += 1 }
            end += 1
        }
        var line = text[text.startIndex + start..<text.startIndex + end]
        start = end + 1
        if line.last == 0x0D {
            line.removeLast()
            bad -= 1
        }
        let number = lines.count + 1
        guard number <= limits.lines else { throw SDPError(.tooManyLines(limit: limits.lines), line: number) }
        guard line.count <= limits.line else { throw SDPError(.lineTooLong(limit: limits.line), line: number) }
        guard bad == 0 else { throw SDPError(.badByte, line: number) }
        if line.starts(with: "m=".utf8) { mediaSections += 1 }
        if line.starts(with: "a=candidate".utf8) { candidates += 1 }
        guard mediaSections <= limits.mediaSections else {
            throw SDPError(.tooManyMediaSections(limit: limits.mediaSections), line: number)
        }
        guard candidates <= limits.candidates else { throw SDPError(.tooManyCandidates(limit: limits.candidates), line: number) }
        lines.append(line)
    }
    return lines
}

extension SDPText {
    /// What stands here, as text; bytes that are no UTF-8 become replacement characters.
    var string: String { String(decoding: self, as: UTF8.self) }

    /// The parts between runs of spaces.
    var fields: [SDPText] { split(separator: UInt8(ascii: " ")) }

    var trimmed: SDPText {
        let head = drop { $0 == UInt8(ascii: " ") }
        guard let last = head.lastIndex(where: { $0 != UInt8(ascii: " ") }) else { return [] }
        return head[head.startIndex...last]
    }

    /// Before and after the first `separator`; nil after where there is none.
    func cut(at separator: UInt8) -> (SDPText, SDPText?) {
        guard let index = firstIndex(of: separator) else { return (self, nil) }
        return (self[startIndex..<index], self[(index + 1)...])
    }

    /// A decimal number of at most `largest`; nil for anything else, an empty text too.
    func decimal(upTo largest: UInt64) -> UInt64? {
        guard !isEmpty else { return nil }
        var value: UInt64 = 0
        for byte in self {
            guard (0x30...0x39).contains(byte) else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carried) = product.addingReportingOverflow(UInt64(byte - 0x30))
            guard !overflow, !carried, sum <= largest else { return nil }
            value = sum
        }
        return value
    }

    /// RFC 8866 `token`: what may stand for a media kind, a format or a mid.
    var isToken: Bool { !isEmpty && allSatisfy { Self.isTokenByte($0) } }

    /// Tokens joined by `/`: a transport protocol.
    var isProtocol: Bool {
        !isEmpty && split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).allSatisfy { $0.isToken }
    }

    /// RFC 8839 `ice-char`s, as many as `count` allows.
    func isICE(_ count: ClosedRange<Int>) -> Bool {
        count.contains(self.count) && allSatisfy { Self.isLetterOrDigit($0) || $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "/") }
    }

    func equalsIgnoringCase(_ other: String) -> Bool {
        count == other.utf8.count && zip(self, other.utf8).allSatisfy { Self.lowercased($0) == Self.lowercased($1) }
    }

    /// The same with ASCII letters in lower case.
    var lowercasedString: String { String(decoding: map { Self.lowercased($0) }, as: UTF8.self) }

    private static func lowercased(_ byte: UInt8) -> UInt8 { (0x41...0x5A).contains(byte) ? byte + 0x20 : byte }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: false
        }
    }

    private static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x21, 0x23...0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x30...0x39, 0x41...0x5A, 0x5E...0x7E: true
        default: false
        }
    }
}
