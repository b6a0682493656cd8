public import EventLoop
public import Membership
public import Primitives
import Synchronization

/// Between the registry's thread and everybody else: a lock that is taken once in a reading and once in a turn of a control thread.
public final class RegistryBoard: Sendable {
    /// What the thread knows.
    public struct View: Sendable {
        public var book = MemberBook()
        public var isOpen = false
        /// When Redis last told all; nil: not since the start.
        public var readAt: Instant?
        public var counters = RegistryCounters()
    }

    private let view = Mutex(View())
    private let own = Mutex<(load: UInt32, state: MemberState)>((0, .serving))
    /// Wakes the thread.
    let waker: Waker
    /// Wakes whoever looks at the view.
    private let reader: Waker?

    /// - Parameter reader: is woken when there is another view.
    public init(waking reader: Waker?) throws(Errno) {
        waker = try Waker()
        self.reader = reader
    }

    public var current: View { view.withLock { $0 } }

    /// How this transceiver is now.
    public func describe(load: UInt32, _ state: MemberState) {
        let isOther = own.withLock { own in
            defer { own = (load, state) }
            return own.state != state
        }
        if isOther { waker.signal() }
    }

    var described: (load: UInt32, state: MemberState) { own.withLock { $0 } }

    func show(_ next: View) {
        view.withLock { $0 = next }
        reader?.signal()
    }
}
