// The kernel's error numbers as a type.
import Glibc

/// An error number of the kernel (`errno`). Any number is a value; the named ones are those that code decides on.
@frozen public struct Errno: Error, RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: CInt
    @inlinable public init(rawValue: CInt) { self.rawValue = rawValue }

    /// `EINTR`; never seen outside `Syscall`, which retries.
    public static let interrupted = Errno(rawValue: EINTR)
    /// `EAGAIN`.
    public static let wouldBlock = Errno(rawValue: EAGAIN)
    /// `EINPROGRESS`: a non-blocking connect has begun.
    public static let inProgress = Errno(rawValue: EINPROGRESS)
    /// `ECONNREFUSED`; on a UDP socket: an ICMP message that came back for an earlier datagram.
    public static let connectionRefused = Errno(rawValue: ECONNREFUSED)
    /// Of a UDP socket that reports errors: an ICMP message for an earlier datagram. For this one: there is no way to it.
    public static let hostUnreachable = Errno(rawValue: EHOSTUNREACH)
    public static let networkUnreachable = Errno(rawValue: ENETUNREACH)
    /// `ECONNABORTED`: a connection that died before it was accepted.
    public static let connectionAborted = Errno(rawValue: ECONNABORTED)
    public static let connectionReset = Errno(rawValue: ECONNRESET)
    public static let brokenPipe = Errno(rawValue: EPIPE)
    /// `ENOBUFS`: the device's queue is full, or a provided buffer ring is empty.
    public static let noBufferSpace = Errno(rawValue: ENOBUFS)
    public static let outOfMemory = Errno(rawValue: ENOMEM)
    /// `EMSGSIZE`: longer than the path takes.
    public static let messageTooLong = Errno(rawValue: EMSGSIZE)
    /// `EIO`; for a UDP_SEGMENT send: this device cannot segment.
    public static let inputOutput = Errno(rawValue: EIO)
    public static let invalidArgument = Errno(rawValue: EINVAL)
    public static let badDescriptor = Errno(rawValue: EBADF)
    public static let badAddress = Errno(rawValue: EFAULT)
    /// `EMFILE`: this process has no free descriptor.
    public static let tooManyOpenFiles = Errno(rawValue: EMFILE)
    /// `ENFILE`: the machine has no free descriptor.
    public static let tooManyOpenFilesInSystem = Errno(rawValue: ENFILE)
    public static let addressInUse = Errno(rawValue: EADDRINUSE)
    /// `ENOSPC`: the file system is full.
    public static let noSpace = Errno(rawValue: ENOSPC)
    public static let noEntry = Errno(rawValue: ENOENT)
    public static let exists = Errno(rawValue: EEXIST)
    public static let notSupported = Errno(rawValue: EOPNOTSUPP)
    public static let noSystemCall = Errno(rawValue: ENOSYS)
    public static let notPermitted = Errno(rawValue: EPERM)
    public static let timedOut = Errno(rawValue: ETIME)

    public var description: String {
        var text = [CChar](repeating: 0, count: 128)
        guard let message = strerror_r(rawValue, &text, text.count) else { return "errno \(rawValue)" }
        return "\(String(cString: message)) (\(rawValue))"
    }
}
