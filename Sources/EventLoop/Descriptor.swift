// Linear ownership of kernel descriptors: a descriptor is closed exactly once, by whoever holds it last.
import CLinux
import Glibc

/// An open file descriptor that closes itself.
public struct FileDescriptor: ~Copyable, Sendable {
    public let rawValue: CInt

    /// Takes over `rawValue`, which nobody else may close.
    public init(owning rawValue: CInt) {
        precondition(rawValue >= 0, "not a descriptor")
        self.rawValue = rawValue
    }

    deinit { Syscall.close(rawValue) }

    /// Gives the number away without closing it.
    public consuming func release() -> CInt {
        let rawValue = rawValue
        discard self
        return rawValue
    }

    /// Whether a program that this process starts inherits the descriptor. Everything made here is born closed-on-exec.
    public func setInheritable(_ inheritable: Bool) throws(Errno) {
        try Syscall.setCloseOnExec(rawValue, !inheritable)
    }

    /// A second descriptor of the same open file (`F_DUPFD_CLOEXEC`).
    public func duplicate() throws(Errno) -> FileDescriptor { FileDescriptor(owning: try Syscall.duplicate(rawValue)) }
}
