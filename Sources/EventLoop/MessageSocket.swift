// Whole messages with descriptors between processes of one machine: unix sockets that keep the bounds of what was sent (SEQPACKET).
import CLinux
import Glibc
public import Primitives

/// One end of a connection of whole messages.
public struct MessageSocket: ~Copyable, Sendable {
    public let descriptor: FileDescriptor
    /// The most bytes and descriptors of one message.
    public static let bytesMax = 4096
    public static let descriptorsMax = 200

    init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }

    /// Takes over an end that another process made.
    public init(adopting descriptor: consuming FileDescriptor) throws(Errno) {
        try Syscall.setNonBlocking(descriptor.rawValue)
        try Syscall.setCloseOnExec(descriptor.rawValue, true)
        self.descriptor = descriptor
    }

    public static func pair() throws(Errno) -> MessagePair {
        let pair = try Syscall.socketPair(CInt(SOCK_SEQPACKET.rawValue))
        return MessagePair(first: MessageSocket(FileDescriptor(owning: pair.0)), second: MessageSocket(FileDescriptor(owning: pair.1)))
    }

    /// Connects to a listener's path.
    public static func connect(path: String) throws(Errno) -> MessageSocket {
        guard let name = SocketName(path: path) else { throw .invalidArgument }
        let descriptor = FileDescriptor(owning: try Syscall.socket(AF_UNIX, CInt(SOCK_SEQPACKET.rawValue)))
        try Syscall.connect(descriptor.rawValue, name)
        return MessageSocket(descriptor)
    }

    /// Sends one message, at least one byte, with up to `descriptorsMax` descriptors, which stay open here.
    public func send(_ bytes: [UInt8], descriptors: [CInt] = []) throws(Errno) {
        precondition((1...Self.bytesMax).contains(bytes.count) && descriptors.count <= Self.descriptorsMax)
        let failure: Errno? = bytes.withUnsafeBytes { buffer in
            do throws(Errno) {
                _ = try Syscall.sendDescriptors(descriptor.rawValue, buffer, descriptors, descriptors.count)
                return nil
            } catch { return error }
        }
        if let failure { throw failure }
    }

    /// The next message; nil when the other end is gone. Throws `.wouldBlock` when none has come by `deadline`.
    public func receive(until deadline: Instant = .zero) throws(Errno) -> Message? {
        while true {
            do throws(Errno) { return try receiveNow() } catch {
                guard error == .wouldBlock else { throw error }
                let now = MonotonicClock.now()
                guard deadline > now else { throw .wouldBlock }
                var entry = pollfd(fd: descriptor.rawValue, events: Int16(POLLIN), revents: 0)
                let milliseconds = deadline == .never ? -1 : CInt(clamping: (deadline - now).milliseconds + 1)
                poll(&entry, 1, milliseconds)
            }
        }
    }

    private func receiveNow() throws(Errno) -> Message? {
        var bytes = [UInt8](repeating: 0, count: Self.bytesMax)
        var numbers = [CInt](repeating: -1, count: 253)
        var count: CInt = 0
        var failure: Errno?
        let byteCount = bytes.withUnsafeMutableBytes { buffer in
            do throws(Errno) { return try Syscall.receiveDescriptors(descriptor.rawValue, buffer, &numbers, &count) } catch {
                failure = error
                return 0
            }
        }
        if failure == .connectionReset { return nil }
        if let failure { throw failure }
        let descriptors = ReceivedDescriptors(Array(numbers.prefix(Int(count))), byteCount: byteCount)
        guard byteCount > 0 else { return nil }
        return Message(bytes: Array(bytes[..<byteCount]), descriptors: descriptors)
    }
}

/// Two connected ends.
@frozen public struct MessagePair: ~Copyable, Sendable {
    public var first: MessageSocket
    public var second: MessageSocket
}

/// One message and the descriptors that came with it, which are closed unless they are taken.
public struct Message: ~Copyable, Sendable {
    public let bytes: [UInt8]
    public var descriptors: ReceivedDescriptors
}

/// A unix path at which other processes of this user can connect.
public struct MessageListener: ~Copyable, Sendable {
    public let descriptor: FileDescriptor

    /// Listens at `path`; what is there is removed. The folder decides who may connect.
    public init(path: String) throws(Errno) {
        guard let name = SocketName(path: path) else { throw .invalidArgument }
        let descriptor = FileDescriptor(owning: try Syscall.socket(AF_UNIX, CInt(SOCK_SEQPACKET.rawValue)))
        try? Syscall.unlink(path)
        try Syscall.bind(descriptor.rawValue, name)
        chmod(path, 0o600)
        try Syscall.listen(descriptor.rawValue, 8)
        self.descriptor = descriptor
    }

    /// The next one who wants to talk, or nil.
    public func accept() -> MessageSocket? {
        var name = SocketName()
        guard let client = try? Syscall.accept(descriptor.rawValue, &name) else { return nil }
        return MessageSocket(FileDescriptor(owning: client))
    }
}
