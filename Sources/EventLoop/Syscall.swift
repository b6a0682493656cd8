// Every system call of the room. `errno` is read on the line after the call; an interrupted call is made again; our own
// mistakes (bad descriptor, bad address) trap, because they mean that some other socket is about to be used by accident.
import CLinux
import Glibc
import Primitives

enum Syscall {
    /// Runs `call` until it is not interrupted. Negative results become the error that `errno` names.
    @inline(__always)
    static func retrying<Result: SignedInteger & FixedWidthInteger>(_ call: () -> Result) throws(Errno) -> Result {
        while true {
            let result = call()
            if result >= 0 { return result }
            let number = errno
            switch number {
            case EINTR: continue
            case EBADF, EFAULT: preconditionFailure("system call failed: \(Errno(rawValue: number))")
            default: throw Errno(rawValue: number)
            }
        }
    }
}

// MARK: Descriptors

extension Syscall {
    /// Never retried: Linux has freed the number even when close was interrupted.
    static func close(_ descriptor: CInt) { _ = Glibc.close(descriptor) }

    static func setCloseOnExec(_ descriptor: CInt, _ enabled: Bool) throws(Errno) {
        _ = try retrying { clinux_set_close_on_exec(descriptor, enabled ? 1 : 0) }
    }
    static func duplicate(_ descriptor: CInt) throws(Errno) -> CInt {
        try retrying { fcntl(descriptor, F_DUPFD_CLOEXEC, 0) }
    }
    static func setNonBlocking(_ descriptor: CInt) throws(Errno) {
        let flags = try retrying { fcntl(descriptor, F_GETFL, 0) }
        _ = try retrying { fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) }
    }
    static func openReadOnly(_ path: String) throws(Errno) -> CInt { try retrying { clinux_open_read_only(path) } }
    static func unlink(_ path: String) throws(Errno) { _ = try retrying { Glibc.unlink(path) } }

    static func read(_ descriptor: CInt, _ buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        try retrying { Glibc.read(descriptor, buffer.baseAddress, buffer.count) }
    }
    static func write(_ descriptor: CInt, _ buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        try retrying { Glibc.write(descriptor, buffer.baseAddress, buffer.count) }
    }
}

// MARK: Sockets

extension Syscall {
    static func socket(_ family: CInt, _ type: CInt) throws(Errno) -> CInt {
        try retrying { Glibc.socket(family, type | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0) }
    }
    static func socketPair(_ type: CInt) throws(Errno) -> (CInt, CInt) {
        var pair: (CInt, CInt) = (-1, -1)
        _ = try retrying {
            withUnsafeMutablePointer(to: &pair) {
                $0.withMemoryRebound(to: CInt.self, capacity: 2) {
                    Glibc.socketpair(AF_UNIX, type | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0, $0)
                }
            }
        }
        return pair
    }
    static func setOption(_ descriptor: CInt, _ level: CInt, _ name: CInt, _ value: CInt) throws(Errno) {
        var value = value
        _ = try retrying { setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<CInt>.size)) }
    }
    static func option(_ descriptor: CInt, _ level: CInt, _ name: CInt) throws(Errno) -> CInt {
        var value: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        _ = try retrying { getsockopt(descriptor, level, name, &value, &length) }
        return value
    }
    static func bind(_ descriptor: CInt, _ name: borrowing SocketName) throws(Errno) {
        try name.withPointer { (pointer, length) throws(Errno) in
            _ = try retrying { Glibc.bind(descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: pointer), length) }
        }
    }
    static func connect(_ descriptor: CInt, _ name: borrowing SocketName) throws(Errno) {
        try name.withPointer { (pointer, length) throws(Errno) in
            _ = try retrying { Glibc.connect(descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: pointer), length) }
        }
    }
    static func listen(_ descriptor: CInt, _ backlog: CInt) throws(Errno) { _ = try retrying { Glibc.listen(descriptor, backlog) } }

    static func accept(_ descriptor: CInt, _ name: inout SocketName) throws(Errno) -> CInt {
        try name.withMutablePointer { (pointer, length) throws(Errno) in
            try retrying {
                accept4(
                    descriptor, __SOCKADDR_ARG(__sockaddr__: pointer), length, CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue))
            }
        }
    }
    static func localName(_ descriptor: CInt) throws(Errno) -> SocketName {
        var name = SocketName()
        try name.withMutablePointer { (pointer, length) throws(Errno) in
            _ = try retrying { getsockname(descriptor, __SOCKADDR_ARG(__sockaddr__: pointer), length) }
        }
        return name
    }
    static func remoteName(_ descriptor: CInt) throws(Errno) -> SocketName {
        var name = SocketName()
        try name.withMutablePointer { (pointer, length) throws(Errno) in
            _ = try retrying { getpeername(descriptor, __SOCKADDR_ARG(__sockaddr__: pointer), length) }
        }
        return name
    }
    static func send(_ descriptor: CInt, _ buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        try retrying { Glibc.send(descriptor, buffer.baseAddress, buffer.count, CInt(MSG_NOSIGNAL)) }
    }
    static func shutdownWrites(_ descriptor: CInt) throws(Errno) {
        _ = try retrying { Glibc.shutdown(descriptor, CInt(SHUT_WR)) }
    }
    static func sendDescriptors(_ socket: CInt, _ bytes: UnsafeRawBufferPointer, _ descriptors: UnsafePointer<CInt>?, _ count: Int)
        throws(Errno) -> Int
    {
        try retrying { clinux_send_descriptors(socket, bytes.baseAddress, bytes.count, descriptors, CInt(clamping: count)) }
    }
    static func receiveDescriptors(
        _ socket: CInt, _ bytes: UnsafeMutableRawBufferPointer, _ descriptors: UnsafeMutablePointer<CInt>, _ count: inout CInt
    ) throws(Errno) -> Int {
        try retrying { clinux_receive_descriptors(socket, bytes.baseAddress, bytes.count, descriptors, &count) }
    }
}

// MARK: Datagrams

extension Syscall {
    /// `recvmmsg` that never waits; the number of datagrams.
    @inline(never)
    static func receiveMessages(_ descriptor: CInt, _ headers: UnsafeMutablePointer<mmsghdr>, _ count: Int) throws(Errno) -> Int {
        Int(try retrying { recvmmsg(descriptor, headers, CUnsignedInt(count), CInt(MSG_DONTWAIT), nil) })
    }
    /// `sendmmsg` that never waits; the number of datagrams taken. The error, if any, is that of the first datagram.
    @inline(never)
    static func sendMessages(_ descriptor: CInt, _ headers: UnsafeMutablePointer<mmsghdr>, _ count: Int) throws(Errno) -> Int {
        Int(try retrying { sendmmsg(descriptor, headers, CUnsignedInt(count), CInt(MSG_DONTWAIT)) })
    }
    /// The next report of the socket's error queue, where its datagram had been sent, and whether nobody listens there; nil when there is none.
    @inline(never)
    static func nextErrorReport(_ descriptor: CInt) -> (destination: SocketAddress?, isRefusal: Bool)? {
        var name = SocketName()
        let result = try? name.withMutablePointer { (pointer, length) throws(Errno) in
            try retrying { clinux_next_error_report(descriptor, pointer, length) }
        }
        guard let result else { return nil }
        return (name.address, result == 1)
    }
    static func attachReuseportProgram(_ descriptor: CInt, _ program: borrowing SteeringProgram) throws(Errno) {
        let codes = program.instructions.map(\.code)
        let jumpsTrue = program.instructions.map(\.jumpTrue)
        let jumpsFalse = program.instructions.map(\.jumpFalse)
        let constants = program.instructions.map(\.constant)
        _ = try retrying {
            clinux_attach_reuseport_program(descriptor, codes, jumpsTrue, jumpsFalse, constants, CInt(codes.count))
        }
    }
}

// MARK: Readiness

extension Syscall {
    static func epollCreate() throws(Errno) -> CInt { try retrying { epoll_create1(CInt(EPOLL_CLOEXEC)) } }

    static func epollControl(_ epoll: CInt, _ operation: CInt, _ descriptor: CInt, events: UInt32, data: UInt64) throws(Errno) {
        var event = epoll_event(events: events, data: epoll_data_t(u64: data))
        _ = try retrying { epoll_ctl(epoll, operation, descriptor, &event) }
    }
    /// Not retried: a signal ends the wait early, with no event, and the caller looks at its clock again.
    static func epollWait(_ epoll: CInt, _ events: UnsafeMutablePointer<epoll_event>, _ capacity: Int, _ timeout: timespec?) -> Int {
        let count: CInt
        if var timeout {
            count = epoll_pwait2(epoll, events, CInt(capacity), &timeout, nil)
        } else {
            count = epoll_pwait2(epoll, events, CInt(capacity), nil, nil)
        }
        let number = errno
        if count >= 0 { return Int(count) }
        if number == ENOSYS { return coarseEpollWait(epoll, events, capacity, timeout) }
        precondition(number == EINTR, "epoll_pwait2 failed: \(Errno(rawValue: number))")
        return 0
    }

    /// In whole milliseconds, for kernels before 5.11, and under valgrind.
    private static func coarseEpollWait(
        _ epoll: CInt, _ events: UnsafeMutablePointer<epoll_event>, _ capacity: Int, _ timeout: timespec?
    ) -> Int {
        let milliseconds = timeout.map { CInt(clamping: $0.tv_sec * 1000 + ($0.tv_nsec + 999_999) / 1_000_000) } ?? -1
        let count = epoll_wait(epoll, events, CInt(capacity), milliseconds)
        let number = errno
        if count >= 0 { return Int(count) }
        precondition(number == EINTR, "epoll_wait failed: \(Errno(rawValue: number))")
        return 0
    }
    static func eventDescriptor() throws(Errno) -> CInt {
        try retrying { eventfd(0, CInt(EFD_CLOEXEC) | CInt(EFD_NONBLOCK)) }
    }
    static func signalDescriptor(_ mask: sigset_t) throws(Errno) -> CInt {
        var mask = mask
        return try retrying { signalfd(-1, &mask, CInt(SFD_CLOEXEC) | CInt(SFD_NONBLOCK)) }
    }
}

// MARK: Clock, entropy, process

extension Syscall {
    static func sleep(until instant: Instant) {
        var time = timespec(tv_sec: Int(clamping: instant.nanoseconds / 1_000_000_000), tv_nsec: Int(instant.nanoseconds % 1_000_000_000))
        _ = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil)
    }
    static func clock(_ clock: clockid_t) -> timespec {
        var time = timespec()
        let result = clock_gettime(clock, &time)
        precondition(result == 0, "a clock that Linux always has is missing")
        return time
    }
    /// Fills `buffer`; traps if the kernel has no entropy to give, since nothing secret could be made after that.
    static func fillRandom(_ buffer: UnsafeMutableRawBufferPointer) {
        var filled = 0
        while filled < buffer.count {
            do throws(Errno) {
                filled += try retrying { getrandom(buffer.baseAddress! + filled, buffer.count - filled, 0) }
            } catch { preconditionFailure("getrandom: \(error)") }
        }
    }
    static func pinThread(_ processor: Int) throws(Errno) { _ = try retrying { clinux_pin_thread(CInt(clamping: processor)) } }
    static func setTimerSlack(nanoseconds: UInt) throws(Errno) { _ = try retrying { clinux_set_timer_slack(nanoseconds) } }

    static func openFilesLimit() throws(Errno) -> rlimit {
        var limit = rlimit()
        _ = try retrying { getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) }
        return limit
    }
    static func setOpenFilesLimit(_ limit: rlimit) throws(Errno) {
        var limit = limit
        _ = try retrying { setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) }
    }
}
