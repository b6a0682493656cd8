// Values with parameters: `Content-Type`, `Content-Disposition`, `Accept`.

import Primitives

/// `value; name=token; name="quoted \" text"`, the form of several headers (RFC 9110 §5.6.6). Lenient, because nothing that decides
/// where a message ends is written like this: what is no parameter is passed over.
public struct HeaderParameters: Sendable, Equatable {
    /// What stands before the first semicolon, without white space around it.
    public let value: String
    private var parameters: [Parameter] = []

    private struct Parameter: Sendable, Equatable {
        var name: String
        var value: String
    }

    /// The first parameter called `name`, without regard to case.
    public subscript(name: String) -> String? { parameters.first { equalIgnoringCase($0.name, name) }?.value }

    /// Whether a parameter is there twice, with which two readers may disagree.
    public func isAmbiguous(_ name: String) -> Bool { parameters.count { equalIgnoringCase($0.name, name) } > 1 }

    public init(_ text: some StringProtocol) {
        // Bytes, not characters: a combining mark behind a quote must not hide the quote.
        self.init(Array(text.utf8)[...])
    }

    init(_ bytes: ArraySlice<UInt8>) {
        var rest = bytes
        value = Self.text(rest.prefix { $0 != UInt8(ascii: ";") })
        rest = rest.drop { $0 != UInt8(ascii: ";") }.dropFirst()
        while !rest.isEmpty {
            let name = rest.prefix { $0 != UInt8(ascii: "=") && $0 != UInt8(ascii: ";") }
            rest = rest[name.endIndex...]
            if rest.first == UInt8(ascii: "=") {
                rest = rest.dropFirst().drop { $0 == 0x20 || $0 == 0x09 }
                parameters.append(Parameter(name: Self.text(name), value: Self.takeValue(&rest)))
                rest = rest.drop { $0 != UInt8(ascii: ";") }
            }
            rest = rest.dropFirst()
        }
    }

    private static func takeValue(_ rest: inout ArraySlice<UInt8>) -> String {
        guard rest.first == UInt8(ascii: "\"") else {
            let token = rest.prefix { $0 != UInt8(ascii: ";") }
            rest = rest[token.endIndex...]
            return text(token)
        }
        rest = rest.dropFirst()
        var value: [UInt8] = []
        while let byte = rest.popFirst(), byte != UInt8(ascii: "\"") {
            value.append(byte == UInt8(ascii: "\\") ? rest.popFirst() ?? byte : byte)
        }
        return String(decoding: value, as: UTF8.self)
    }

    private static func text(_ bytes: ArraySlice<UInt8>) -> String { trimmed(String(decoding: bytes, as: UTF8.self)) }
}

extension HTTPRequest {
    /// How much the client wants `type` (RFC 9110 §12.5.1): 1000 is best, 0 is refused. Everything is wanted when it does not say.
    /// The most specific range that matches decides: `text/html;q=0.5, text/*;q=0.2, */*;q=0` gives `text/html` 500.
    public func quality(of type: String) -> Int {
        let lines = headers.all("Accept")
        guard !lines.isEmpty else { return 1000 }
        let family = String(type.prefix { $0 != "/" }) + "/*"
        var best = (precision: -1, quality: 0)
        for line in lines {
            for element in listElements(line) {
                let range = HeaderParameters(element)
                let precision = [type, family, "*/*"].firstIndex { equalIgnoringCase($0, range.value) }.map { 2 - $0 } ?? -1
                if precision > best.precision { best = (precision, weight(range["q"])) }
            }
        }
        return best.quality
    }
}

/// The elements of a comma-separated list, with commas inside quotes left alone.
func listElements(_ text: String) -> [ArraySlice<UInt8>] {
    var elements: [ArraySlice<UInt8>] = []
    var isQuoted = false
    var rest = Array(text.utf8)[...]
    var index = rest.startIndex
    while index < rest.endIndex {
        switch rest[index] {
        case UInt8(ascii: "\""): isQuoted.toggle()
        case UInt8(ascii: "\\") where isQuoted: index += 1
        case UInt8(ascii: ",") where !isQuoted:
            elements.append(rest[..<index])
            rest = rest[(index + 1)...]
        default: break
        }
        index += 1
    }
    elements.append(rest)
    return elements
}

/// `0.125` in thousandths; 1000 when it is not said, 0 when it cannot be read.
private func weight(_ text: String?) -> Int {
    guard let text else { return 1000 }
    let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    guard let first = parts.first, first == "0" || first == "1" else { return 0 }
    let digits = parts.count > 1 ? parts[1] : ""
    guard digits.utf8.count <= 3, digits.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }),
        let thousandths = Int(digits + String(repeating: "0", count: 3 - digits.utf8.count))
    else { return 0 }
    return min(1000, (first == "1" ? 1000 : 0) + thousandths)
}
