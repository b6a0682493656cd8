// Which samples of a playout queue belong to which item.

struct Mark: BitwiseCopyable {
    var item: UInt32 = 0
    /// Position of the first sample.
    var start = 0
    /// After the last sample; `Int.max` while the item is still being said.
    var end = Int.max
    var isStarted = false
    var isFinished: Bool { end != Int.max }
}

/// The items that wait, in order.
struct MarkRing: ~Copyable {
    private var marks: SampleBuffer<Mark>
    private var head = 0
    private(set) var count = 0

    init(capacity: Int) { marks = SampleBuffer(count: capacity, repeating: Mark()) }

    var first: Mark? { count > 0 ? marks[head] : nil }
    var last: Mark? { count > 0 ? marks[place(count - 1)] : nil }

    /// The caller has looked for room.
    mutating func append(_ mark: Mark) {
        assert(count < marks.count)
        marks[place(count)] = mark
        count += 1
    }

    mutating func removeFirst() {
        assert(count > 0)
        head = place(1)
        count -= 1
    }

    mutating func removeAll() { count = 0 }

    mutating func finishLast(at end: Int) {
        guard count > 0, !marks[place(count - 1)].isFinished else { return }
        marks[place(count - 1)].end = end
    }

    /// Marks as started, in order, the items that begin before `position`.
    mutating func start(before position: Int, _ note: (UInt32) -> Void) {
        for index in 0..<count {
            guard marks[place(index)].start < position else { return }
            if marks[place(index)].isStarted { continue }
            marks[place(index)].isStarted = true
            note(marks[place(index)].item)
        }
    }

    private func place(_ index: Int) -> Int { (head + index) % marks.count }
}
