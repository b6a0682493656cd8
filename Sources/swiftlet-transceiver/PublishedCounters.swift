import Telemetry
import TransceiverCore

/// One worker's counters where the control thread can read them: the worker copies its block once a turn, without a lock.
final class PublishedCounters: Sendable {
    /// The block is nothing but 64-bit numbers, one behind the other.
    private static let count = MemoryLayout<WorkerCounters>.size / MemoryLayout<UInt64>.size
    private let page = CounterPage(count: PublishedCounters.count)
    let vitals = CounterPage(count: WorkerVitals.wordCount)

    /// `words`: a `WorkerCounters` as it lies in memory.
    func publish(_ words: Span<UInt64>) { page.publish(words) }

    func snapshot() -> WorkerCounters {
        var counters = WorkerCounters()
        let values = page.snapshot()
        withUnsafeMutableBytes(of: &counters) { bytes in values.withUnsafeBytes { bytes.copyMemory(from: $0) } }
        return counters
    }
}

/// All that is known of a worker at one moment.
struct WorkerReading {
    let counters: WorkerCounters
    let vitals: PublishedVitals
    let perf: PerfSnapshot?
}
