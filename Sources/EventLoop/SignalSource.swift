// Signals as something to read, so that no code runs inside a signal handler.
import CLinux
import Glibc

/// The operator's signals.
public enum OperatorSignal: Sendable {
    /// `SIGTERM`: drain and end.
    case terminate
    /// `SIGINT`: the same, from a terminal.
    case interrupt
    /// `SIGHUP`: read the configuration again.
    case hangup
}

/// Blocks the operator's signals in the calling thread, has SIGPIPE ignored, and reads the former from a descriptor. Make it in the main thread before any
/// other thread starts: threads inherit the blocked set.
public struct SignalSource: ~Copyable, Sendable {
    /// Register it for `.readable`.
    public let descriptor: FileDescriptor

    public init() throws(Errno) {
        var mask = sigset_t()
        sigemptyset(&mask)
        for number in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&mask, number) }
        pthread_sigmask(SIG_BLOCK, &mask, nil)
        // Whoever reads our words may go without taking us along.
        signal(SIGPIPE, SIG_IGN)
        descriptor = FileDescriptor(owning: try Syscall.signalDescriptor(mask))
    }

    /// The next signal that has arrived, or nil.
    public func next() -> OperatorSignal? {
        var information = signalfd_siginfo()
        let count = withUnsafeMutableBytes(of: &information) { bytes in (try? Syscall.read(descriptor.rawValue, bytes)) ?? 0 }
        guard count == MemoryLayout<signalfd_siginfo>.size else { return nil }
        switch CInt(bitPattern: information.ssi_signo) {
        case SIGTERM: return .terminate
        case SIGINT: return .interrupt
        case SIGHUP: return .hangup
        default: return nil
        }
    }
}
