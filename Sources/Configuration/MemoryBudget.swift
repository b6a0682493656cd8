/// What a program sets aside at start, as a sum of its users. Nothing is added to it afterwards, so an operator can read off what the
/// program will need before the first packet comes.
///
///     memory: 196 MiB
///       160 MiB  4 × 65536 flows of 640 bytes
///        36 MiB  4 × packets in flight, 9437184 bytes
public struct MemoryBudget: Sendable, CustomStringConvertible {
    public struct Item: Sendable, Equatable {
        /// Which of the program's parts it is, in a few words.
        public let what: String
        public let bytes: Int
    }

    public private(set) var items: [Item] = []

    public init() {}

    /// Adds `count` things of `bytesEach` bytes. A sum beyond 2⁶³ stays there.
    public mutating func add(_ count: Int, _ what: String, bytesEach: Int) {
        items.append(Item(what: "\(count) × \(what)", bytes: saturatingProduct(max(count, 0), max(bytesEach, 0))))
    }

    public mutating func add(_ what: String, bytes: Int) { items.append(Item(what: what, bytes: max(bytes, 0))) }

    /// The sum of all items.
    public var bytes: Int { items.reduce(0) { saturatingSum($0, $1.bytes) } }

    /// The sum in one line and its items below it, largest first.
    public var description: String {
        let sorted = items.sorted { $0.bytes > $1.bytes }
        let numbers = sorted.map { inUnits($0.bytes) }
        let width = numbers.map(\.count).max() ?? 0
        var text = "memory: \(inUnits(bytes))"
        for (item, number) in zip(sorted, numbers) {
            text += "\n  " + String(repeating: " ", count: width - number.count) + number + "  " + item.what
        }
        return text
    }
}

/// Whole KiB below 10 MiB, whole MiB from there on.
private func inUnits(_ bytes: Int) -> String {
    bytes < 10 << 20
        ? "\(bytes / 1024 + (bytes % 1024 >= 512 ? 1 : 0)) KiB" : "\(bytes / (1 << 20) + (bytes % (1 << 20) >= 1 << 19 ? 1 : 0)) MiB"
}

private func saturatingSum(_ a: Int, _ b: Int) -> Int {
    let (sum, overflows) = a.addingReportingOverflow(b)
    return overflows ? .max : sum
}

private func saturatingProduct(_ a: Int, _ b: Int) -> Int {
    let (product, overflows) = a.multipliedReportingOverflow(by: b)
    return overflows ? .max : product
}
