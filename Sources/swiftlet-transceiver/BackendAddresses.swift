import EventLoop
import Glibc
import Primitives
import Synchronization

/// Where a backend is now. A thread of its own asks the resolver, which blocks; workers only look.
final class BackendAddresses: Sendable {
    /// Names move; a minute is what most name servers allow.
    private static let refreshSeconds: UInt32 = 30

    private let current: Mutex<[SocketAddress]>

    /// Asks once, so that a mistake in the name is seen at start-up, and then again and again.
    init(host: String, port: UInt16) throws(Errno) {
        let first = Resolver.addresses(of: host, port: port)
        if first.isEmpty {
            complain("swiftlet-transceiver: warning: --backend: nobody knows \(host) yet; calls are told so until somebody does")
        }
        current = Mutex(first)
        guard IPAddress(host) == nil else { return }
        _ = try WorkerThread.start(name: "resolver") { [self] in
            while true {
                sleep(Self.refreshSeconds)
                let found = Resolver.addresses(of: host, port: port)
                // What was good may still be when a name server is not.
                if !found.isEmpty { current.withLock { $0 = found } }
            }
        }
    }

    /// The address for attempt number `attempt`; nil when none is known.
    func address(attempt: Int) -> SocketAddress? {
        current.withLock { $0.isEmpty ? nil : $0[attempt % $0.count] }
    }
}
