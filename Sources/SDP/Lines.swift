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
    guard bytes.byteCount > 0 else { return .empty }
    if bytes.byte(0) == UInt8(ascii: "{") || bytes.byte(0) == UInt8(ascii: "[") || bytes.byte(0) == UInt8(ascii: "\"") { return .json }
    let (end, _) = lineEnd(bytes.bytes(0..<min(bytes.byteCount, 5)), from: 0)
    return end == 3 && begins(bytes, at: 0, end: end, with: "v=0") ? nil : .notSDP
}

/// The lines of `bytes`: CRLF or LF, the last one's end may be missing, empty lines are passed over.
func readLines(_ bytes: RawSpan, _ limits: SDPLimits) throws(SDPError) -> [SDPLine] {
    try checkBounds(bytes, limits)
    var lines: [SDPLine] = []
    var number = 0
    var start = 0
    while start < bytes.byteCount {
        number += 1
        let (end, next) = lineEnd(bytes, from: start)
        let line = bytes.bytes(start..<end).array
        start = next
        if line.isEmpty { continue }
        guard line.count >= 2, line[1] == UInt8(ascii: "="), (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(line[0]) else {
            throw SDPError(.badLine, line: number)
        }
        lines.append(SDPLine(number: number, letter: line[0], value: line[2...]))
    }
    return lines
}

/// Lengths and counts, before anything is copied or understood.
private func checkBounds(_ bytes: RawSpan, _ limits: SDPLimits) throws(SDPError) {
    guard bytes.byteCount <= limits.bytes else { throw SDPError(.tooLong(limit: limits.bytes)) }
    var number = 0
    var mediaSections = 0
    var candidates = 0
    var start = 0
    while start < bytes.byteCount {
        number += 1
        let (end, next) = lineEnd(bytes, from: start)
        guard number <= limits.lines else { throw SDPError(.tooManyLines(limit: limits.lines), line: number) }
        guard end - start <= limits.line else { throw SDPError(.lineTooLong(limit: limits.line), line: number) }
        for index in start..<end where bytes.byte(index) == 0 || bytes.byte(index) == 0x0D { throw SDPError(.badByte, line: number) }
        if begins(bytes, at: start, end: end, with: "m=") { mediaSections += 1 }
        if begins(bytes, at: start, end: end, with: "a=candidate") { candidates += 1 }
        guard mediaSections <= limits.mediaSections else {
            throw SDPError(.tooManyMediaSections(limit: limits.mediaSections), line: number)
        }
        guard candidates <= limits.candidates else { throw SDPError(.tooManyCandidates(limit: limits.candidates), line: number) }
        start = next
    }
}

/// Where the line that begins at `start` ends, and where the next begins.
private func lineEnd(_ bytes: RawSpan, from start: Int) -> (end: Int, next: Int) {
    var index = start
    while index < bytes.byteCount, bytes.byte(index) != 0x0A { index += 1 }
    let next = min(index + 1, bytes.byteCount)
    return (index > start && bytes.byte(index - 1) == 0x0D ? index - 1 : index, next)
}

private func begins(_ bytes: RawSpan, at start: Int, end: Int, with prefix: String) -> Bool {
    let prefix = prefix.utf8
    guard end - start >= prefix.count else { return false }
    return zip(start..<end, prefix).allSatisfy { bytes.byte($0) == $1 }
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
