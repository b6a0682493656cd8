// A few values on their way out of a machine.

/// First in, first out, of at most `capacity` values; the oldest gives way.
struct BoundedQueue<Element: BitwiseCopyable>: ~Copyable {
    private var values: SampleBuffer<Element>
    private var head = 0
    private(set) var count = 0

    init(capacity: Int, of value: Element) { values = SampleBuffer(count: capacity, repeating: value) }

    mutating func append(_ value: Element) {
        if count == values.count { _ = removeFirst() }
        values[(head + count) % values.count] = value
        count += 1
    }

    mutating func removeFirst() -> Element? {
        guard count > 0 else { return nil }
        let value = values[head]
        head = (head + 1) % values.count
        count -= 1
        return value
    }
}
