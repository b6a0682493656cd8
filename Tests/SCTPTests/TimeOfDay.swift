import Glibc
import Primitives
import Synchronization

/// The time of day that usrsctp sees. It counts timeouts by the ticks that it is given but asks the clock how long a chunk has been
/// under way, and repeats at a timeout only what has been so for a round trip. Were the ticks ours and the clock the kernel's, a second
/// of ticks would pass in a millisecond, nothing would be repeated, and it would give up after ten such timeouts: the sooner, the
/// faster this machine and this build.
enum VirtualTimeOfDay {
    /// Microseconds since 1970. It never goes back, whichever network is moving it.
    fileprivate static let now = Atomic<Int64>(kernelTimeOfDay())
    /// The thread that is inside usrsctp; all others see the kernel's clock.
    fileprivate static let thread = Atomic<UInt>(0)

    /// Whether shared libraries were bound to our function: the linker must have been told to show it to them.
    static var isInPlace: Bool {
        var time = timeval()
        guard let found = dlsym(nil, "gettimeofday") else { return false }
        let timeOfDay = unsafeBitCast(found, to: (@convention(c) (UnsafeMutablePointer<timeval>?, UnsafeMutableRawPointer?) -> CInt).self)
        return during {
            _ = timeOfDay(&time, nil)
            return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_usec) == now.load(ordering: .relaxed)
        }
    }

    static func advance(_ span: Interval) { now.add(span.nanoseconds / 1000, ordering: .relaxed) }

    /// Runs a call of usrsctp. Calls do not nest.
    static func during<Result>(_ body: () -> Result) -> Result {
        thread.store(pthread_self(), ordering: .relaxed)
        defer { thread.store(0, ordering: .relaxed) }
        return body()
    }
}

private func kernelTimeOfDay() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
}

/// In place of the C library's, for the whole program.
@_cdecl("gettimeofday") public func timeOfDay(_ time: UnsafeMutablePointer<timeval>?, _ zone: UnsafeMutableRawPointer?) -> CInt {
    let isVirtual = VirtualTimeOfDay.thread.load(ordering: .relaxed) == pthread_self()
    let now = isVirtual ? VirtualTimeOfDay.now.load(ordering: .relaxed) : kernelTimeOfDay()
    time?.pointee = timeval(tv_sec: Int(now / 1_000_000), tv_usec: Int(now % 1_000_000))
    return 0
}
