// Time and randomness as the kernel gives them. Only workers call this, once a turn; cores are told.
import CLinux
import Glibc
public import Primitives

public enum MonotonicClock {
    /// `CLOCK_MONOTONIC`, in nanoseconds since boot.
    @inline(never) public static func now() -> Instant { Instant(nanoseconds: Syscall.clock(CLOCK_MONOTONIC).totalNanoseconds) }

    /// Lets time pass, whatever comes meanwhile; less of it when a signal arrives. Nothing for an instant in the past.
    public static func sleep(until instant: Instant) { Syscall.sleep(until: instant) }
}

/// `CLOCK_REALTIME`: for wire formats that ask for a date.
public func wallClock() -> WallClock {
    let time = Syscall.clock(CLOCK_REALTIME)
    return WallClock(secondsSince1970: UInt64(clamping: time.tv_sec), nanoseconds: UInt32(clamping: time.tv_nsec))
}

/// The processor time that the calling thread has used (`CLOCK_THREAD_CPUTIME_ID`).
public func threadProcessorTime() -> Interval {
    Interval(nanoseconds: Int64(clamping: Syscall.clock(CLOCK_THREAD_CPUTIME_ID).totalNanoseconds))
}

/// The kernel's random generator (`getrandom`). Unbuffered on purpose: a copied buffer would hand out one secret twice.
public struct SystemEntropy: RandomNumberGenerator, Sendable {
    public init() {}

    public mutating func next() -> UInt64 {
        var value: UInt64 = 0
        withUnsafeMutableBytes(of: &value) { Syscall.fillRandom($0) }
        return value
    }

    /// Fills all of `bytes`.
    public func fill(_ bytes: inout MutableRawSpan) { bytes.withUnsafeMutableBytes { Syscall.fillRandom($0) } }
}

extension timespec {
    var totalNanoseconds: UInt64 { UInt64(clamping: tv_sec) &* 1_000_000_000 &+ UInt64(clamping: tv_nsec) }

    init(_ interval: Interval) {
        self.init(tv_sec: Int(interval.nanoseconds / 1_000_000_000), tv_nsec: Int(interval.nanoseconds % 1_000_000_000))
    }
}
