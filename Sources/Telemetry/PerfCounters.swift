// What a thread really used, as the kernel and the processor count it (perf_event_open(2)). What cannot be counted here is
// reported as unavailable, with the reason: never as zero and never as an estimate.

import CLinux
import Glibc

/// What is counted.
public enum PerfEvent: Int, CaseIterable, Sendable {
    /// Processor time in nanoseconds.
    case taskClock
    case contextSwitches
    /// Moves to another processor: none for a pinned thread.
    case migrations
    case pageFaults
    case cycles
    case instructions
    /// Reads that the last level of cache did not have.
    case cacheMisses
    case branchMisses
}

/// Why there is no number.
public enum PerfRefusal: Hashable, Sendable, CustomStringConvertible {
    /// `kernel.perf_event_paranoid`, a seccomp filter or a missing capability is in the way. `EACCES`, `EPERM`.
    case forbidden
    /// This machine has no such counter, as most virtual machines have none. `ENOENT`, `EOPNOTSUPP`, `ENODEV`.
    case noSuchCounter
    /// A kernel without performance events. `ENOSYS`.
    case noKernelSupport
    /// The processor had no free counter at some time, so the number would be an estimate.
    case notScheduled
    /// The thread is gone. `ESRCH`.
    case noSuchThread
    case failed(errno: Int32)

    init(errno: Int32) {
        switch errno {
        case EACCES, EPERM: self = .forbidden
        case ENOENT, EOPNOTSUPP, ENODEV: self = .noSuchCounter
        case ENOSYS: self = .noKernelSupport
        case ESRCH: self = .noSuchThread
        default: self = .failed(errno: errno)
        }
    }

    public var description: String {
        switch self {
        case .forbidden: "forbidden (kernel.perf_event_paranoid, seccomp or a missing capability)"
        case .noSuchCounter: "this machine has no such counter"
        case .noKernelSupport: "the kernel has no performance events"
        case .notScheduled: "the processor had no free counter"
        case .noSuchThread: "the thread is gone"
        case .failed(let errno): "perf_event_open failed with errno \(errno)"
        }
    }
}

/// One counter's state.
public enum PerfReading: Hashable, Sendable {
    /// Counted since the counters were opened, in the kernel and outside.
    case value(UInt64)
    /// Counted outside the kernel only: more is not allowed here.
    case userSpaceOnly(UInt64)
    case unavailable(PerfRefusal)
}

/// All readings of one thread at one moment.
public struct PerfSnapshot: Sendable {
    var readings = InlineArray<8, PerfReading>(repeating: .unavailable(.notScheduled))

    public subscript(event: PerfEvent) -> PerfReading { readings[event.rawValue] }
}

/// The counters of one thread. They count from here on; any thread may read them.
public struct PerfCounters: ~Copyable, Sendable {
    private var counters = InlineArray<8, OpenCounter>(repeating: .refused(.notScheduled))

    private enum OpenCounter: Sendable {
        case open(CInt, userSpaceOnly: Bool)
        case refused(PerfRefusal)
    }

    /// `thread` is a kernel thread id (`gettid`) of this process; 0 is the calling thread.
    public init(thread: pid_t = 0) {
        for event in PerfEvent.allCases { counters[event.rawValue] = Self.open(event, thread) }
    }

    deinit {
        for index in counters.indices {
            if case .open(let descriptor, _) = counters[index] { close(descriptor) }
        }
    }

    public func read() -> PerfSnapshot {
        var snapshot = PerfSnapshot()
        for index in counters.indices {
            snapshot.readings[index] =
                switch counters[index] {
                case .refused(let refusal): .unavailable(refusal)
                case .open(let descriptor, let userSpaceOnly): Self.read(descriptor, userSpaceOnly)
                }
        }
        return snapshot
    }
}

extension PerfCounters {
    private static func open(_ event: PerfEvent, _ thread: pid_t) -> OpenCounter {
        var attributes = event.attributes
        let all = clinux_perf_event_open(&attributes, thread, -1, -1, UInt(closeOnExec))
        if all >= 0 { return .open(all, userSpaceOnly: false) }
        let refusal = PerfRefusal(errno: errno)
        guard refusal == .forbidden, event.happensInUserSpace else { return .refused(refusal) }
        attributes.exclude_kernel = 1
        attributes.exclude_hv = 1
        let userSpace = clinux_perf_event_open(&attributes, thread, -1, -1, UInt(closeOnExec))
        return userSpace >= 0 ? .open(userSpace, userSpaceOnly: true) : .refused(PerfRefusal(errno: errno))
    }

    private static func read(_ descriptor: CInt, _ userSpaceOnly: Bool) -> PerfReading {
        var value: UInt64 = 0
        let count = withUnsafeMutableBytes(of: &value) { Glibc.read(descriptor, $0.baseAddress, $0.count) }
        // A pinned counter that got no place is at its end of file from then on.
        guard count != 0 else { return .unavailable(.notScheduled) }
        guard count == MemoryLayout<UInt64>.size else { return .unavailable(.failed(errno: count < 0 ? errno : EIO)) }
        return userSpaceOnly ? .userSpaceOnly(value) : .value(value)
    }

    /// The corresponding C constant is `PERF_FLAG_FD_CLOEXEC`.
    private static var closeOnExec: Int { 1 << 3 }
}

extension PerfEvent {
    /// Whether leaving out the kernel still counts something. A context switch happens in the kernel: leaving that out gives a
    /// zero that looks like a number.
    var happensInUserSpace: Bool {
        switch self {
        case .taskClock, .contextSwitches, .migrations: false
        case .pageFaults, .cycles, .instructions, .cacheMisses, .branchMisses: true
        }
    }

    var attributes: perf_event_attr {
        var attributes = perf_event_attr()
        attributes.size = UInt32(MemoryLayout<perf_event_attr>.size)
        // All of the time or not at all: a counter that shares its place is an estimate.
        attributes.pinned = 1
        let (type, config): (perf_type_id, UInt32) =
            switch self {
            case .taskClock: (PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK.rawValue)
            case .contextSwitches: (PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CONTEXT_SWITCHES.rawValue)
            case .migrations: (PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_MIGRATIONS.rawValue)
            case .pageFaults: (PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS.rawValue)
            case .cycles: (PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES.rawValue)
            case .instructions: (PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS.rawValue)
            case .cacheMisses: (PERF_TYPE_HARDWARE, PERF_COUNT_HW_CACHE_MISSES.rawValue)
            case .branchMisses: (PERF_TYPE_HARDWARE, PERF_COUNT_HW_BRANCH_MISSES.rawValue)
            }
        attributes.type = type.rawValue
        attributes.config = UInt64(config)
        return attributes
    }
}
