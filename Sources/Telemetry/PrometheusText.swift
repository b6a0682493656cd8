// Prometheus' text exposition format 0.0.4: what `GET /metrics` answers.

/// What a family of samples is.
public enum MetricKind: String, Sendable {
    case counter, gauge, histogram
}

/// Writes metrics family by family. Names are ours and therefore checked by assertions: a counter ends in `_total`, a unit is the
/// base unit and part of the name (`_seconds`, `_bytes`), no family comes twice. Label values may be anything and are escaped.
public struct PrometheusText: Sendable {
    /// The `Content-Type` to send it with.
    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    public private(set) var bytes: [UInt8] = []
    private var current = ""
    private var kind = MetricKind.gauge
    private var families: Set<String> = []

    /// `capacity`: how many bytes are expected.
    public init(capacity: Int = 16_384) { bytes.reserveCapacity(capacity) }

    public var string: String { String(decoding: bytes, as: UTF8.self) }
}

extension PrometheusText {
    /// Begins a family; its samples must follow before the next one.
    public mutating func family(_ name: String, _ help: String, _ kind: MetricKind) {
        assert(Self.isName(name, colon: true), "\(name) is no metric name")
        assert(kind != .counter || name.hasSuffix("_total"), "\(name) is a counter without _total")
        assert(!["_milliseconds", "_microseconds", "_nanoseconds", "_kilobytes"].contains { name.contains($0) }, "\(name): base units")
        let isNew = families.insert(name).inserted
        assert(isNew, "\(name) comes twice")
        (current, self.kind) = (name, kind)
        append("# HELP ")
        append(name)
        append(" ")
        appendEscaped(help, quotes: false)
        append("\n# TYPE ")
        append(name)
        append(" ")
        append(kind.rawValue)
        append("\n")
    }

    /// One sample of the family begun last.
    public mutating func sample(_ name: String, _ labels: [(String, String)], _ value: some BinaryInteger) {
        line(name, "", labels, nil, "\(value)")
    }

    /// One sample of the family begun last.
    public mutating func sample(_ name: String, _ labels: [(String, String)], _ value: Double) {
        line(name, "", labels, nil, Self.text(value))
    }

    /// A family of one sample.
    public mutating func counter(_ name: String, _ help: String, _ value: some BinaryInteger) {
        family(name, help, .counter)
        sample(name, [], value)
    }

    /// A family of one sample.
    public mutating func counter(_ name: String, _ help: String, _ value: Double) {
        family(name, help, .counter)
        sample(name, [], value)
    }

    /// A family of one sample.
    public mutating func gauge(_ name: String, _ help: String, _ value: some BinaryInteger) {
        family(name, help, .gauge)
        sample(name, [], value)
    }

    /// A family of one sample.
    public mutating func gauge(_ name: String, _ help: String, _ value: Double) {
        family(name, help, .gauge)
        sample(name, [], value)
    }
}

extension PrometheusText {
    /// A family of one histogram. See `sample(_:_:_:unit:octaves:)`.
    public mutating func histogram(
        _ name: String, _ help: String, _ value: borrowing Histogram, unit: HistogramUnit, octaves: ClosedRange<Int> = 10...33
    ) {
        family(name, help, .histogram)
        sample(name, [], value, unit: unit, octaves: octaves)
    }

    /// One histogram of the family begun last: a bucket for every power of two in `octaves` (exponents, at most
    /// `Histogram.octaveMax`), in the base unit. A series must keep its `octaves`, or its buckets cannot be compared over time.
    public mutating func sample(
        _ name: String, _ labels: [(String, String)], _ value: borrowing Histogram, unit: HistogramUnit, octaves: ClosedRange<Int> = 10...33
    ) {
        assert(kind == .histogram)
        var octave = max(0, octaves.lowerBound)
        while octave <= min(octaves.upperBound, Histogram.octaveMax) {
            let bound = Self.text(Double(UInt64(1) << UInt64(octave)) / unit.perBase)
            line(name, "_bucket", labels, bound, "\(value.count(upToOctave: octave))")
            octave += 1
        }
        line(name, "_bucket", labels, "+Inf", "\(value.count)")
        line(name, "_sum", labels, nil, Self.text(Double(value.sum) / unit.perBase))
        line(name, "_count", labels, nil, "\(value.count)")
    }
}

extension PrometheusText {
    private mutating func line(_ name: String, _ suffix: String, _ labels: [(String, String)], _ bound: String?, _ value: String) {
        assert(name == current, "a sample of \(name) among those of \(current)")
        append(name)
        append(suffix)
        if !labels.isEmpty || bound != nil {
            var separator = "{"
            for (label, text) in labels {
                assert(Self.isName(label, colon: false) && label != "le", "\(label) is no label name")
                append(separator)
                append(label)
                append("=\"")
                appendEscaped(text, quotes: true)
                append("\"")
                separator = ","
            }
            if let bound {
                append(separator)
                append("le=\"")
                append(bound)
                append("\"")
            }
            append("}")
        }
        append(" ")
        append(value)
        append("\n")
    }

    private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    /// Backslash and line feed everywhere, the quote in label values.
    private mutating func appendEscaped(_ text: String, quotes: Bool) {
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\\"): append("\\\\")
            case UInt8(ascii: "\n"): append("\\n")
            case UInt8(ascii: "\"") where quotes: append("\\\"")
            default: bytes.append(byte)
            }
        }
    }

    private static func text(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        return "\(value)"
    }

    private static func isName(_ name: String, colon: Bool) -> Bool {
        var first = true
        for byte in name.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "_"): break
            case UInt8(ascii: "0")...UInt8(ascii: "9"): if first { return false }
            case UInt8(ascii: ":"): if !colon { return false }
            default: return false
            }
            first = false
        }
        return !first
    }
}

/// A case's name as a label says it: `srtpNotAuthentic` → `srtp_not_authentic`, `malformedSTUN` → `malformed_stun`.
public func snakeCase(_ name: String) -> String {
    let characters = Array(name)
    var result = ""
    for (index, character) in characters.enumerated() {
        if character.isUppercase, index > 0 {
            let endsAcronym = index + 1 < characters.count && characters[index + 1].isLowercase
            if !characters[index - 1].isUppercase || endsAcronym { result += "_" }
        }
        result += character.lowercased()
    }
    return result
}
