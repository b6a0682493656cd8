// What a service manager is told (sd_notify): datagrams to the socket that it names in the environment. Without one, nothing is said.
import CLinux
import Glibc
public import Primitives

/// The service manager that started us.
public struct ServiceManager: ~Copyable, Sendable {
    private let socket: FileDescriptor?
    /// How often it wants to hear from us, or nil.
    public let watchdog: Interval?

    /// `environment` as systemd fills it: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID.
    public init(_ environment: [String: String]) {
        let microseconds = environment["WATCHDOG_USEC"].flatMap { Int64($0) }
        let isForUs = environment["WATCHDOG_PID"].map { $0 == "\(getpid())" } ?? true
        watchdog = isForUs ? microseconds.flatMap { $0 > 0 ? Interval(nanoseconds: $0 * 1000) : nil } : nil
        guard let path = environment["NOTIFY_SOCKET"], path.hasPrefix("/") || path.hasPrefix("@"), let name = SocketName(path: path),
            let number = try? Syscall.socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue))
        else {
            socket = nil
            return
        }
        socket = FileDescriptor(owning: number)
        try? Syscall.connect(number, name)
    }

    public var isPresent: Bool { socket != nil }

    /// Lines such as `READY=1`. A manager that does not listen is no reason to stop.
    public func tell(_ lines: String, descriptors: [CInt] = []) {
        guard let number = number else { return }
        Array(lines.utf8).withUnsafeBytes { bytes in
            _ = try? Syscall.sendDescriptors(number, bytes, descriptors, descriptors.count)
        }
    }

    private var number: CInt? {
        switch socket {
        case .some(let descriptor): descriptor.rawValue
        case .none: nil
        }
    }
}

/// Descriptors that the service manager kept for us (LISTEN_FDS), by the names that they were stored with.
public func keptDescriptors(_ environment: [String: String]) -> [(name: String, number: CInt)] {
    guard environment["LISTEN_PID"] == "\(getpid())", let count = environment["LISTEN_FDS"].flatMap({ Int($0) }), (1...4096).contains(count)
    else { return [] }
    let names = (environment["LISTEN_FDNAMES"] ?? "").split(separator: ":", omittingEmptySubsequences: false)
    return (0..<count).map { index in
        let number = CInt(3 + index)
        try? Syscall.setCloseOnExec(number, true)
        return (index < names.count ? String(names[index]) : "", number)
    }
}
