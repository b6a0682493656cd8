public import Configuration
public import EventLoop
public import Primitives
public import Redis
import TLS

/// The connection under a `RedisMachine`: obeys its orders, and carries bytes both ways, over TLS where the address says so.
public struct RedisSocket: ~Copyable {
    private let address: RedisAddress
    private let authorities: TLSAuthorities
    private let tag: UInt64
    private var context: TLSClientContext?
    private var connection: RedisConnection?
    private var token: ReactorToken?
    private var wantsToWrite = false
    private var attempts = 0
    /// Why the last connection was given up, where that can be told: what is wrong with a certificate, for instance.
    public private(set) var complaint: String?

    /// - Parameters:
    ///   - authorities: whom to trust about a certificate, in PEM; nil: the system's.
    ///   - tag: of this socket's events.
    public init(to address: RedisAddress, authorities: [UInt8]?, tag: UInt64) {
        self.address = address
        self.authorities = authorities.map { .pem($0) } ?? .system
        self.tag = tag
    }

    /// Whether `pem` has an authority that a connection could be checked by.
    public static func isAuthority(_ pem: [UInt8]) -> Bool {
        do {
            _ = try TLSClientContext(authorities: .pem(pem))
            return true
        } catch { return false }
    }

    /// An event with our tag.
    public mutating func serve<Machine: RedisMachine & ~Copyable>(
        _ event: ReactorEvent, _ machine: inout Machine, _ reactor: inout Reactor, at now: Instant
    ) {
        guard let isConnecting = connection?.isConnecting else { return }
        if isConnecting, !take(connection?.settle(event), &machine, &reactor, now) { return }
        guard event.isReadable else { return }
        // So much in a turn; the rest is still there in the next one.
        for _ in 0..<64 {
            var isEmpty = false
            let progress = Self.read(&connection, &machine, &isEmpty, now)
            guard take(progress, &machine, &reactor, now) else { return }
            obey(&machine, &reactor)
            if isEmpty { return }
        }
    }

    private static func read<Machine: RedisMachine & ~Copyable>(
        _ connection: inout RedisConnection?, _ machine: inout Machine, _ isEmpty: inout Bool, _ now: Instant
    ) -> RedisConnection.Progress? {
        connection?.read(isEmpty: &isEmpty) { machine.receive($0, at: now) }
    }

    /// False when the connection is gone.
    private mutating func take<Machine: RedisMachine & ~Copyable>(
        _ progress: RedisConnection.Progress?, _ machine: inout Machine, _ reactor: inout Reactor, _ now: Instant
    ) -> Bool {
        switch progress {
        case .some(.none): return true
        case .opened:
            complaint = nil
            machine.connected(at: now)
            return true
        case .lost:
            lose(&machine, &reactor, now)
            return false
        case nil: return false
        }
    }

    /// After every turn: orders, and what there is to write.
    public mutating func proceed<Machine: RedisMachine & ~Copyable>(
        _ machine: inout Machine, _ reactor: inout Reactor, at now: Instant
    ) {
        obey(&machine, &reactor)
        write(&machine, &reactor, now)
        obey(&machine, &reactor)
    }

    private mutating func obey<Machine: RedisMachine & ~Copyable>(_ machine: inout Machine, _ reactor: inout Reactor) {
        while let order = machine.nextOrder() {
            close(&reactor)
            if order == .connect, !connect(&reactor) { machine.disconnected(at: MonotonicClock.now()) }
        }
    }

    private mutating func connect(_ reactor: inout Reactor) -> Bool {
        let addresses = Resolver.addresses(of: address.host, port: address.port)
        guard !addresses.isEmpty else { return false }
        attempts &+= 1
        guard let socket = try? StreamSocket.connect(to: addresses[attempts % addresses.count]), let tls = secure() else { return false }
        let made = RedisConnection(socket, tls.stream)
        guard let token = made.register(in: &reactor, tag: tag) else { return false }
        self.token = token
        connection = consume made
        wantsToWrite = true
        return true
    }

    private struct Security: ~Copyable { var stream: TLSClientStream? }

    /// nil: TLS is wanted and cannot be had.
    private mutating func secure() -> Security? {
        guard address.usesTLS else { return Security(stream: nil) }
        do throws(TLSError) {
            if Self.isMissing(context) { context = try TLSClientContext(authorities: authorities) }
            return Security(stream: try Self.stream(context, address.host))
        } catch {
            complaint = "TLS is not possible: \(error)"
            return nil
        }
    }

    private static func isMissing(_ context: borrowing TLSClientContext?) -> Bool {
        switch context {
        case .some: false
        case .none: true
        }
    }

    private static func stream(_ context: borrowing TLSClientContext?, _ host: String) throws(TLSError) -> TLSClientStream? {
        switch context {
        case .some(let context): try TLSClientStream(context, host: host, at: MonotonicClock.now())
        case .none: nil
        }
    }

    private mutating func close(_ reactor: inout Reactor) {
        if let token { reactor.deregister(token) }
        token = nil
        connection?.close()
        connection = nil
    }

    private mutating func lose<Machine: RedisMachine & ~Copyable>(_ machine: inout Machine, _ reactor: inout Reactor, _ now: Instant) {
        if let words = connection?.complaint { complaint = words }
        close(&reactor)
        machine.disconnected(at: now)
    }

    private mutating func write<Machine: RedisMachine & ~Copyable>(_ machine: inout Machine, _ reactor: inout Reactor, _ now: Instant) {
        guard token != nil, connection?.isConnecting == false else { return }
        while true {
            let output = machine.pendingOutput
            guard let taken = connection?.write(output) else { return lose(&machine, &reactor, now) }
            machine.sent(taken)
            if taken == 0 || connection?.isBlocked == true { break }
        }
        watch(connection?.isBlocked == true, &reactor)
    }

    private mutating func watch(_ writes: Bool, _ reactor: inout Reactor) {
        guard let token, writes != wantsToWrite else { return }
        wantsToWrite = writes
        try? reactor.update(token, for: writes ? [.readable, .writable] : .readable)
    }
}

/// What an operator is told of a Redis, each thing once: that it answers or does not, and what it or we do not like.
public struct RedisNews {
    private let address: RedisAddress
    private let log: @Sendable (String) -> Void
    private var wasOpen: Bool?
    private var complaint: String?

    public init(of address: RedisAddress, log: @escaping @Sendable (String) -> Void) {
        self.address = address
        self.log = log
    }

    /// - Parameters:
    ///   - words: when it answers, and when it does not, each behind its address.
    ///   - refusal: why it does not let us in, in its own words.
    public mutating func tell(
        isOpen: Bool, hasFailed: Bool, _ words: (open: String, closed: String), refusal: String?, complaint: String?
    ) {
        let trouble = refusal.map { "it says: \($0)" } ?? complaint
        if !isOpen, let trouble, trouble != self.complaint {
            log("\(address): \(trouble)")
            self.complaint = trouble
        }
        if isOpen { self.complaint = nil }
        // Not yet open is nothing to speak of, before something has gone wrong.
        guard isOpen != wasOpen, isOpen || hasFailed else { return }
        log(isOpen ? words.open : "\(address) \(words.closed)")
        wasOpen = isOpen
    }
}
