// One worker's numbers, published without a lock: a sequence lock over words that are atomics themselves.

import Glibc
import Primitives
import Synchronization

/// A fixed number of words that one thread writes and any thread reads. Writing costs one relaxed store a word, and the writer
/// never waits; a reader tries again when it met the writer. Reading is for the control thread, some times a second.
public final class CounterPage: Sendable {
    /// How many words there are.
    public let count: Int
    /// Odd while the writer is at work.
    private let sequence = Atomic<UInt64>(0)
    // A cache line of room on both sides: pages of two workers must not share one.
    private let words: Slab<Atomic<UInt64>>
    private static let margin = 8

    public init(count: Int) {
        precondition(count >= 0)
        self.count = count
        words = Slab(count: count + 2 * Self.margin) { _ in Atomic(0) }
    }

    /// Replaces all words, of which there must be `count`. Always from the same thread.
    public func publish(_ values: Span<UInt64>) {
        precondition(values.count == count)
        let before = sequence.load(ordering: .relaxed)
        sequence.store(before &+ 1, ordering: .relaxed)
        // No word may become visible before the odd number does; the even number not before the words.
        atomicMemoryFence(ordering: .releasing)
        for index in 0..<count { words[index + Self.margin].store(values[index], ordering: .relaxed) }
        sequence.store(before &+ 2, ordering: .releasing)
    }

    /// How often something was published: a number that stands still tells of a worker that does.
    public var generation: UInt64 { sequence.load(ordering: .relaxed) / 2 }

    /// All words as one `publish` left them; zeros before the first.
    public func snapshot() -> [UInt64] {
        var values = [UInt64](repeating: 0, count: count)
        var target = values.mutableSpan
        snapshot(into: &target)
        return values
    }

    /// The same into memory of the caller, which must hold `count` words.
    public func snapshot(into values: inout MutableSpan<UInt64>) {
        precondition(values.count == count)
        var tries = 0
        while !tryCopy(into: &values) {
            // The writer's section has no call and no loop but its own; if it lost its processor inside, let it go on.
            tries += 1
            if tries > 16 { sched_yield() }
        }
    }

    private func tryCopy(into values: inout MutableSpan<UInt64>) -> Bool {
        let before = sequence.load(ordering: .acquiring)
        guard before % 2 == 0 else { return false }
        for index in 0..<count { values[index] = words[index + Self.margin].load(ordering: .relaxed) }
        atomicMemoryFence(ordering: .acquiring)
        return sequence.load(ordering: .relaxed) == before
    }
}
