// Threads with a name and a processor of their own, and what a process may know about itself.
import CLinux
import Glibc

/// A running thread. It must be joined.
public struct WorkerThread: ~Copyable, Sendable {
    private let handle: pthread_t

    /// Runs `body` with `state`, which becomes the new thread's own.
    ///
    /// - Parameters:
    ///   - name: shown by `top -H`; the kernel keeps 15 bytes.
    ///   - processor: which processor to stay on; nil to let the scheduler choose. A number the process may not use is ignored.
    ///   - stackSize: in bytes.
    public static func start<State: ~Copyable & Sendable>(
        name: String, processor: Int? = nil, stackSize: Int = 1 << 20, with state: consuming State,
        _ body: @escaping @Sendable (consuming State) -> Void
    ) throws(Errno) -> WorkerThread {
        let box = StartBox<State>(state, name, processor, body)
        let opaque = Unmanaged.passRetained(box as ThreadStart).toOpaque()
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setstacksize(&attributes, stackSize)
        var handle = pthread_t()
        let result = pthread_create(
            &handle, &attributes,
            { argument in
                if let argument { Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue().run() }
                return nil
            }, opaque)
        guard result == 0 else {
            Unmanaged<ThreadStart>.fromOpaque(opaque).release()
            throw Errno(rawValue: result)
        }
        return WorkerThread(handle: handle)
    }

    /// Runs `body` on a new thread.
    public static func start(name: String, processor: Int? = nil, stackSize: Int = 1 << 20, _ body: @escaping @Sendable () -> Void)
        throws(Errno) -> WorkerThread
    {
        try start(name: name, processor: processor, stackSize: stackSize, with: ()) { _ in body() }
    }

    /// Waits until the thread has ended.
    public consuming func join() { pthread_join(handle, nil) }

    private init(handle: pthread_t) { self.handle = handle }
}

private class ThreadStart { func run() {} }

private final class StartBox<State: ~Copyable & Sendable>: ThreadStart {
    private var state: State?
    private let name: String
    private let processor: Int?
    private let body: @Sendable (consuming State) -> Void

    init(_ state: consuming State, _ name: String, _ processor: Int?, _ body: @escaping @Sendable (consuming State) -> Void) {
        self.state = consume state
        self.name = name
        self.processor = processor
        self.body = body
    }

    override func run() {
        pthread_setname_np(pthread_self(), String(name.prefix(15)))
        try? Syscall.setTimerSlack(nanoseconds: 1000)  // a worker gathers for a few hundred microseconds: 50 more are many
        if let processor { try? Syscall.pinThread(processor) }
        guard let state = state.take() else { return }
        body(state)
    }
}

public enum Machine {
    /// The processors this process may run on, in ascending order; their count is the sensible number of workers.
    public static var processors: [Int] {
        var found: [Int] = []
        while true {
            let processor = clinux_allowed_processor(CInt(found.count))
            guard processor >= 0 else { return found.isEmpty ? [0] : found }
            found.append(Int(processor))
        }
    }

    /// Raises the soft limit of open descriptors to the hard one; the limit in force now.
    @discardableResult
    public static func raiseOpenFilesLimit() throws(Errno) -> UInt64 {
        var limit = try Syscall.openFilesLimit()
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max
            try Syscall.setOpenFilesLimit(limit)
        }
        return UInt64(limit.rlim_cur)
    }

    public static var openFilesLimit: UInt64 { UInt64((try? Syscall.openFilesLimit().rlim_cur) ?? 0) }
}
