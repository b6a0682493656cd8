// What a thread used, as every kernel tells it without asking for permission.

import Glibc

/// Sums since the thread began.
public struct ThreadUsage: Sendable, Equatable {
    /// The kernel's number of the thread; 0 before it has told anything.
    public var thread: pid_t = 0
    /// Processor time in nanoseconds, kernel time included (`CLOCK_THREAD_CPUTIME_ID`).
    public var processorTime: UInt64 = 0
    /// The kernel's part of it in nanoseconds, as its scheduler divides it.
    public var kernelTime: UInt64 = 0
    /// Times it waited for something.
    public var voluntarySwitches: UInt64 = 0
    /// Times another thread got its processor.
    public var involuntarySwitches: UInt64 = 0

    static let wordCount = 5

    public init() {}

    /// Of the calling thread. Three system calls: for some times a second.
    public static func current() -> ThreadUsage {
        var usage = ThreadUsage()
        usage.thread = gettid()
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        usage.processorTime = UInt64(clamping: time.tv_sec) &* 1_000_000_000 &+ UInt64(clamping: time.tv_nsec)
        var resources = rusage()
        // RUSAGE_THREAD is 1; its C type differs between versions of glibc's headers.
        if getrusage(.init(rawValue: 1), &resources) == 0 {
            usage.kernelTime =
                UInt64(clamping: resources.ru_stime.tv_sec) &* 1_000_000_000 &+ UInt64(clamping: resources.ru_stime.tv_usec) &* 1_000
            usage.voluntarySwitches = UInt64(clamping: resources.ru_nvcsw)
            usage.involuntarySwitches = UInt64(clamping: resources.ru_nivcsw)
        }
        return usage
    }

    func store(into words: inout MutableSpan<UInt64>, at offset: Int) {
        words[offset] = UInt64(clamping: thread)
        words[offset + 1] = processorTime
        words[offset + 2] = kernelTime
        words[offset + 3] = voluntarySwitches
        words[offset + 4] = involuntarySwitches
    }

    init(words: Span<UInt64>, at offset: Int) {
        thread = pid_t(truncatingIfNeeded: words[offset])
        processorTime = words[offset + 1]
        kernelTime = words[offset + 2]
        voluntarySwitches = words[offset + 3]
        involuntarySwitches = words[offset + 4]
    }
}
