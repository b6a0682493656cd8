// How threads talk: bounded queues with one writer and one reader, and a descriptor that wakes the reader.
import CLinux
import Glibc
public import Synchronization

/// Wakes one thread out of its `wait`, from any thread. Several mailboxes of a thread share one. Signals that have not been
/// acknowledged yet cost no system call.
public final class Waker: Sendable {
    /// Register it for `.readable` in the thread's reactor.
    public let descriptor: FileDescriptor
    private let pending = Atomic<Bool>(false)

    public init() throws(Errno) { descriptor = FileDescriptor(owning: try Syscall.eventDescriptor()) }

    public func signal() {
        if pending.exchange(true, ordering: .acquiringAndReleasing) { return }
        var one: UInt64 = 1
        withUnsafeBytes(of: &one) { bytes in
            // An eventfd that cannot take one more is awake already.
            _ = try? Syscall.write(descriptor.rawValue, bytes)
        }
    }

    /// Called by the woken thread when its reactor reports `descriptor`, before it looks into its mailboxes.
    public func acknowledge() {
        var count: UInt64 = 0
        withUnsafeMutableBytes(of: &count) { bytes in _ = try? Syscall.read(descriptor.rawValue, bytes) }
        // After the read: a signal between the two is lost on the descriptor but its message is visible to whoever clears the flag.
        _ = pending.exchange(false, ordering: .acquiringAndReleasing)
    }
}

/// Makes a bounded queue between two threads.
public enum Mailbox {
    /// A queue of `capacity` messages (rounded up to a power of two). Each message sent wakes `waker`, if there is one.
    public static func make<Message: ~Copyable & Sendable>(
        of _: Message.Type = Message.self, capacity: Int, waking waker: Waker? = nil
    ) -> MailboxPair<Message> {
        precondition(capacity >= 1 && capacity <= 1 << 24)
        var size = 1
        while size < capacity { size *= 2 }
        let storage = MailboxStorage<Message>(size: size)
        return MailboxPair(sender: MailboxSender(storage, waker), receiver: MailboxReceiver(storage))
    }
}

/// The two ends of a new mailbox; each goes to its thread.
@frozen public struct MailboxPair<Message: ~Copyable & Sendable>: ~Copyable, Sendable {
    public var sender: MailboxSender<Message>
    public var receiver: MailboxReceiver<Message>
    @usableFromInline init(sender: consuming MailboxSender<Message>, receiver: consuming MailboxReceiver<Message>) {
        self.sender = sender
        self.receiver = receiver
    }
}

/// The writing end; belongs to one thread at a time.
@frozen public struct MailboxSender<Message: ~Copyable & Sendable>: ~Copyable, Sendable {
    @usableFromInline let storage: MailboxStorage<Message>
    @usableFromInline let waker: Waker?
    @usableFromInline var tail = 0
    /// The reader's position when we last looked; it has only moved on since.
    @usableFromInline var knownHead = 0

    @usableFromInline init(_ storage: MailboxStorage<Message>, _ waker: Waker?) {
        self.storage = storage
        self.waker = waker
    }

    /// Queues `message` and wakes the reader. A full mailbox gives the message back.
    @inlinable public mutating func send(_ message: consuming Message) -> Message? {
        if tail &- knownHead == storage.size {
            knownHead = storage.head.load(ordering: .acquiring)
            if tail &- knownHead == storage.size { return message }
        }
        (storage.base + (tail & storage.mask)).initialize(to: message)
        tail &+= 1
        storage.tail.store(tail, ordering: .releasing)
        waker?.signal()
        return nil
    }
}

/// The reading end; belongs to one thread at a time.
@frozen public struct MailboxReceiver<Message: ~Copyable & Sendable>: ~Copyable, Sendable {
    @usableFromInline let storage: MailboxStorage<Message>
    @usableFromInline var head = 0
    @usableFromInline var knownTail = 0

    @usableFromInline init(_ storage: MailboxStorage<Message>) { self.storage = storage }

    /// The oldest message, or nil: an empty mailbox costs one atomic load.
    @inlinable public mutating func next() -> Message? {
        if head == knownTail {
            knownTail = storage.tail.load(ordering: .acquiring)
            if head == knownTail { return nil }
        }
        let message = (storage.base + (head & storage.mask)).move()
        head &+= 1
        storage.head.store(head, ordering: .releasing)
        return message
    }
}

/// The ring both ends share. Positions only grow; each is written by one end.
@usableFromInline final class MailboxStorage<Message: ~Copyable & Sendable>: @unchecked Sendable {
    @usableFromInline let base: UnsafeMutablePointer<Message>
    @usableFromInline let size: Int
    @usableFromInline let mask: Int
    @usableFromInline let head = Atomic<Int>(0)
    // The two positions live on different cache lines, so that a busy writer does not slow an idle reader's look.
    @usableFromInline let padding: InlineArray<8, UInt64> = .init(repeating: 0)
    @usableFromInline let tail = Atomic<Int>(0)

    @usableFromInline init(size: Int) {
        self.size = size
        mask = size - 1
        base = .allocate(capacity: size)
    }

    deinit {
        var index = head.load(ordering: .acquiring)
        let end = tail.load(ordering: .acquiring)
        while index != end {
            (base + (index & mask)).deinitialize(count: 1)
            index &+= 1
        }
        base.deallocate()
    }
}
