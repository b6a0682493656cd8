// A child that is this very program, and the channel between the two.
import CLinux
import Glibc

/// A running child. It is killed and reaped when the value ends.
public struct ChildProcess: ~Copyable, Sendable {
    public let number: pid_t
    private var status: CInt?

    /// The descriptor that a child finds its channel at.
    public static let channelDescriptor: CInt = 3

    /// Starts this program again, the very file that runs now even if another lies at its path, with `channel` as descriptor 3. Signals
    /// reach it one by one, not with the terminal's.
    public static func startSelf(_ arguments: [String], channel: consuming MessageSocket) throws(Errno) -> ChildProcess {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // A duplicate is open in the child, whatever number it comes from; the same number would stay closed-on-exec.
        let source = try Syscall.duplicate(channel.descriptor.rawValue, from: 10)
        defer { Syscall.close(source) }
        posix_spawn_file_actions_adddup2(&actions, source, channelDescriptor)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var number: pid_t = 0
        let result = posix_spawn(&number, "/proc/self/exe", &actions, &attributes, &words, Glibc.environ)
        guard result == 0 else { throw Errno(rawValue: result) }
        return ChildProcess(number: number)
    }

    private init(number: pid_t) { self.number = number }

    deinit {
        guard status == nil else { return }
        kill(number, SIGKILL)
        var status: CInt = 0
        while waitpid(number, &status, 0) < 0, errno == EINTR {}
    }

    public func signal(_ signal: CInt) { if status == nil { kill(number, signal) } }

    /// How it ended, or nil while it runs.
    public mutating func ended() -> ChildEnd? {
        if status == nil {
            var found: CInt = 0
            guard waitpid(number, &found, WNOHANG) == number else { return nil }
            status = found
        }
        guard let status else { return nil }
        return status & 0x7F == 0 ? .exited(status >> 8 & 0xFF) : .killed(by: status & 0x7F)
    }

    /// Waits for its end, which somebody has brought about.
    public mutating func waitForEnd() -> ChildEnd {
        while true {
            if let end = ended() { return end }
            var time = timespec(tv_sec: 0, tv_nsec: 200_000)
            nanosleep(&time, nil)
        }
    }
}

/// How a child ended.
public enum ChildEnd: Sendable, Equatable, CustomStringConvertible {
    case exited(CInt)
    case killed(by: CInt)

    public var description: String {
        switch self {
        case .exited(let code): "ended with status \(code)"
        case .killed(let signal): "was killed by signal \(signal) (\(String(cString: strsignal(signal))))"
        }
    }
}

extension Machine {
    /// This process is killed when the thread that started it ends. `parent` may be dead already: then false.
    public static func dieWithParent(_ parent: pid_t) -> Bool {
        prctl_set_death_signal()
        return getppid() == parent
    }

    private static func prctl_set_death_signal() { _ = clinux_set_death_signal(SIGKILL) }

    /// Where a supervisor that starts us has named itself (`SWIFTLET_SUPERVISOR`), we get SIGINT when it ends, however it ends. False when it
    /// has ended already.
    public static func endWithSupervisor() -> Bool {
        guard let text = getenv("SWIFTLET_SUPERVISOR") else { return true }
        let supervisor = pid_t(String(cString: text)) ?? 0
        // Whoever we start has us.
        unsetenv("SWIFTLET_SUPERVISOR")
        _ = clinux_set_death_signal(SIGINT)
        return getppid() == supervisor
    }

    /// Names this process as the supervisor of those that it starts from now on.
    public static func becomeSupervisor() { setenv("SWIFTLET_SUPERVISOR", "\(getpid())", 1) }

    /// What `ps` shows of the main thread, and so of the process.
    public static func setProcessName(_ name: String) { pthread_setname_np(pthread_self(), String(name.prefix(15))) }

    public static var processNumber: pid_t { getpid() }

    /// Whether process `number` is still there.
    public static func isRunning(_ number: pid_t) -> Bool { kill(number, 0) == 0 }
}

extension Syscall {
    fileprivate static func duplicate(_ descriptor: CInt, from lowest: CInt) throws(Errno) -> CInt {
        try retrying { fcntl(descriptor, F_DUPFD_CLOEXEC, lowest) }
    }
}
