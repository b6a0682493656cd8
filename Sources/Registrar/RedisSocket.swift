public import Configuration
public import EventLoop
public import Primitives
public import Redis

/// The socket under a `RedisMachine`: obeys its orders, and carries bytes both ways.
public struct RedisSocket: ~Copyable {
    private let address: RedisAddress
    private let tag: UInt64
    private var socket: StreamSocket?
    private var token: ReactorToken?
    private var isConnecting = false
    private var wantsToWrite = false
    private var attempts = 0

    /// - Parameter tag: of this socket's events.
    public init(to address: RedisAddress, tag: UInt64) {
        self.address = address
        self.tag = tag
    }

    /// An event with our tag.
    public mutating func serve<Machine: RedisMachine & ~Copyable>(
        _ event: ReactorEvent, _ machine: inout Machine, _ reactor: inout Reactor, at now: Instant
    ) {
        if isConnecting {
            guard event.isWritable || event.isClosed else { return }
            guard socket?.connectionError() == nil, !event.isClosed else { return lose(&machine, &reactor, now) }
            isConnecting = false
            machine.connected(at: now)
        }
        guard event.isReadable else { return }
        var buffer = InlineArray<16_384, UInt8>(repeating: 0)
        // So much in a turn; the rest is still there in the next one.
        for _ in 0..<64 {
            guard let result = read(&buffer) else { return }
            switch result {
            case .transferred(let count):
                machine.receive(buffer.span.bytes.bytes(0..<count), at: now)
                obey(&machine, &reactor)
            case .wouldBlock: return
            case .closed, .failed: return lose(&machine, &reactor, now)
            }
        }
    }

    private func read(_ buffer: inout InlineArray<16_384, UInt8>) -> StreamResult? {
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        return socket?.read(into: &bytes)
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
        guard let made = try? StreamSocket.connect(to: addresses[attempts % addresses.count]) else { return false }
        guard let token = try? reactor.register(made.descriptor, for: [.readable, .writable], tag: tag) else { return false }
        self.token = token
        socket = consume made
        isConnecting = true
        wantsToWrite = true
        return true
    }

    private mutating func close(_ reactor: inout Reactor) {
        if let token { reactor.deregister(token) }
        token = nil
        socket = nil
    }

    private mutating func lose<Machine: RedisMachine & ~Copyable>(_ machine: inout Machine, _ reactor: inout Reactor, _ now: Instant) {
        close(&reactor)
        machine.disconnected(at: now)
    }

    private mutating func write<Machine: RedisMachine & ~Copyable>(_ machine: inout Machine, _ reactor: inout Reactor, _ now: Instant) {
        guard token != nil, !isConnecting else { return }
        while true {
            let output = machine.pendingOutput
            guard !output.isEmpty, let result = socket?.write(output.span.bytes) else { return watch(false, &reactor) }
            switch result {
            case .transferred(let count): machine.sent(count)
            case .wouldBlock: return watch(true, &reactor)
            case .closed, .failed: return lose(&machine, &reactor, now)
            }
        }
    }

    private mutating func watch(_ writes: Bool, _ reactor: inout Reactor) {
        guard let token, writes != wantsToWrite else { return }
        wantsToWrite = writes
        try? reactor.update(token, for: writes ? [.readable, .writable] : .readable)
    }
}
