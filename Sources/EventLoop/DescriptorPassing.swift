// Descriptors between processes (SCM_RIGHTS): how a supervisor keeps sockets while workers come and go.
import CLinux
import Glibc
import Primitives

/// Descriptors that came over a unix socket. What is not taken is closed.
public struct ReceivedDescriptors: ~Copyable, Sendable {
    private var numbers: [CInt]
    /// Bytes of payload that came with them.
    public let byteCount: Int

    init(_ numbers: [CInt], byteCount: Int) {
        self.numbers = numbers
        self.byteCount = byteCount
    }

    deinit { for number in numbers where number >= 0 { Syscall.close(number) } }

    public var count: Int { numbers.count }

    /// Descriptor `index` in the order of sending; nil when there is none, or it was taken.
    public mutating func take(_ index: Int) -> FileDescriptor? {
        guard index >= 0, index < numbers.count, numbers[index] >= 0 else { return nil }
        let number = numbers[index]
        numbers[index] = -1
        return FileDescriptor(owning: number)
    }
}

extension StreamSocket {
    /// The most descriptors in one message.
    public static let descriptorsPerMessage = 253

    /// Sends `payload` (1 byte at least: a stream carries descriptors only beside data) and up to 253 descriptors, which stay open
    /// here. Throws `.wouldBlock` when the peer is slow to read. On a stream a long payload may be cut: keep it under 4 KB and
    /// let each message carry its own length.
    public func send(descriptors: [CInt], with payload: RawSpan) throws(Errno) {
        precondition(payload.byteCount >= 1)
        // `withUnsafeBytes` has no typed throws for spans of every kind: the error travels as a value.
        let failure: Errno? = payload.withUnsafeBytes { bytes in
            do throws(Errno) {
                let sent = try Syscall.sendDescriptors(descriptor.rawValue, bytes, descriptors, descriptors.count)
                return sent == bytes.count ? nil : .messageTooLong
            } catch { return error }
        }
        if let failure { throw failure }
    }

    /// Receives one message with its descriptors, all close-on-exec. Throws `.wouldBlock` when none has come; `byteCount` 0 means
    /// that the peer has closed.
    public func receiveDescriptors(into payload: inout MutableRawSpan) throws(Errno) -> ReceivedDescriptors {
        var numbers = [CInt](repeating: -1, count: Self.descriptorsPerMessage)
        var count: CInt = 0
        var failure: Errno?
        let byteCount = payload.withUnsafeMutableBytes { bytes in
            do throws(Errno) { return try Syscall.receiveDescriptors(descriptor.rawValue, bytes, &numbers, &count) } catch {
                failure = error
                return 0
            }
        }
        if let failure { throw failure }
        return ReceivedDescriptors(Array(numbers.prefix(Int(count))), byteCount: byteCount)
    }
}
