// The public side over TCP, for clients whose network blocks UDP: listeners and connections of one worker. Readiness comes from the
// worker's reactor, whichever engine moves its datagrams; what may be and who has to go is RelayCore's (StreamClients).
//
// A connection has no queue of ours: the kernel's send buffer is the queue, and when that is full, datagrams are dropped as they come,
// which is what a full queue does over UDP. Only the rest of a frame that the kernel took a part of waits here.

import Configuration
import EventLoop
import Primitives
import RelayCore

extension StreamLimits {
    /// One worker's share. The kernel deals connections out by a hash of both addresses and ports.
    init(_ options: RelayOptions, workers: Int) {
        func share(_ number: Int) -> Int { (number + workers - 1) / workers }
        let connections = options.listenTCP.isEmpty ? 0 : share(options.tcpConnections)
        // Few fall unevenly: one worker may get twice its share and some more before an office behind one NAT is turned away.
        let ofOne = options.tcpConnectionsPerAddress
        self.init(connections: connections, perSource: min(ofOne, 2 * share(ofOne) + 8))
    }
}

struct StreamSide: ~Copyable {
    private var listeners: Slab<StreamListener?>
    private var sockets: Slab<StreamSocket?>
    private var tokens: Slab<ReactorToken?>
    private var isWatchedForWrites: Slab<Bool>
    private var clients: StreamClients
    private var reader: StreamFrameReader
    private var writer: StreamFrameWriter
    private var isChanged = true

    private static let listenerTags: UInt64 = 1 << 40
    private static let connectionTags: UInt64 = 1 << 41
    /// Connections of one listener that are taken in one turn.
    private static let acceptsPerTurn = 16
    /// What the kernel keeps for a client that reads slowly: some seconds of audio, which it doubles for its own needs.
    private static let sendBuffer = 64 << 10
    private static let receiveBuffer = 64 << 10
    /// How long the kernel tries to reach a client that acknowledges nothing.
    private static let acknowledgmentTime = Interval.seconds(10)

    init(_ listeners: consuming Slab<StreamListener?>, _ limits: StreamLimits) {
        let count = limits.connections
        self.listeners = listeners
        sockets = Slab(count: count) { _ in nil }
        tokens = Slab(count: count) { _ in nil }
        isWatchedForWrites = Slab(count: count) { _ in false }
        clients = StreamClients(limits)
        reader = StreamFrameReader(connections: count)
        writer = StreamFrameWriter(connections: count)
    }

    /// Bytes that are set aside for so many connections; those of connections that never were are never touched.
    static func byteCount(connections: Int) -> Int {
        connections
            * (StreamFrameReader.byteCountOfConnection + StreamFrameWriter.byteCountOfConnection
                + MemoryLayout<StreamSocket?>.stride + MemoryLayout<ReactorToken?>.stride + 160)  // and its place in the tables
    }

    /// Descriptors that its reactor has to watch.
    static func descriptorCount(_ listeners: Int, _ limits: StreamLimits) -> Int { listeners + limits.connections }

    mutating func start(_ reactor: inout Reactor) throws(Errno) {
        for index in 0..<listeners.count { try Self.watch(listeners[index], index, &reactor) }
    }

    private static func watch(_ listener: borrowing StreamListener?, _ index: Int, _ reactor: inout Reactor) throws(Errno) {
        switch listener {
        case .some(let listener): _ = try reactor.register(listener.descriptor, for: .readable, tag: listenerTags | UInt64(index))
        case .none: break
        }
    }

    static func isTag(_ tag: UInt64) -> Bool { tag >= listenerTags }
}

// MARK: - In

extension StreamSide {
    /// A listener or a connection is ready. The connection that has brought something, for `forwardNext`.
    @inline(never)
    mutating func take(_ event: ReactorEvent, _ reactor: inout Reactor, at now: Instant) -> Int? {
        isChanged = true
        guard event.tag >= Self.connectionTags else {
            accept(Int(event.tag & 0xFFFF), &reactor, now)
            return nil
        }
        let number = Int(event.tag & 0xFFFF_FFFF)
        guard number < sockets.count, clients.isOpen(number) else { return nil }
        if event.isWritable { flush(number, &reactor, now) }
        return event.isReadable && clients.isOpen(number) && read(number) ? number : nil
    }

    /// Hands the next datagram that `take` has read to `relay`; false when there is none.
    mutating func forwardNext(_ number: Int, _ relay: inout Relay, at now: Instant) -> Bool {
        guard clients.isOpen(number) else { return false }
        switch reader.next() {
        case .datagram(let range):
            let disposition = relay.receive(reader.bytes(range), from: clients.client(number), on: Relay.streamSocket, at: now)
            clients.note(disposition, on: number)
            return true
        case .incomplete: reader.end(number)
        case .tooLong: clients.end(number, .tooLong)
        }
        return false
    }

    private mutating func accept(_ index: Int, _ reactor: inout Reactor, _ now: Instant) {
        for _ in 0..<Self.acceptsPerTurn {
            guard let result = listeners[index]?.accept() else { return }
            switch consume result {
            case .accepted(let socket): admit(socket, &reactor, now)
            case .refusedForLackOfDescriptors: clients.note(.noDescriptor)
            case .wouldBlock: return
            case .failed: clients.note(.failed)
            }
        }
    }

    private mutating func admit(_ socket: consuming StreamSocket, _ reactor: inout Reactor, _ now: Instant) {
        guard let address = socket.remoteAddress, case .success(let number) = clients.admit(address, at: now) else { return }
        try? socket.setSendBufferSize(Self.sendBuffer)
        try? socket.setReceiveBufferSize(Self.receiveBuffer)
        try? socket.setAcknowledgmentTime(Self.acknowledgmentTime)
        tokens[number] = try? reactor.register(socket.descriptor, for: .readable, tag: Self.connectionTags | UInt64(number))
        sockets[number] = consume socket
        if tokens[number] == nil { clients.end(number, .noDescriptor) }
    }

    /// One read: whoever sends more waits for the next turn, as others do.
    private mutating func read(_ number: Int) -> Bool {
        reader.begin(number)
        switch Self.read(sockets, number, &reader) {
        case .transferred(let count):
            reader.received(count)
            return true
        case .wouldBlock: break
        case .closed: clients.end(number, .closedByClient)
        case .failed: clients.end(number, .failed)
        }
        return false
    }

    private static func read(_ sockets: borrowing Slab<StreamSocket?>, _ number: Int, _ reader: inout StreamFrameReader) -> StreamResult {
        switch sockets[number] {
        case .some(let socket):
            var room = reader.room
            return socket.read(into: &room)
        case .none: return .closed
        }
    }
}

// MARK: - Out

extension StreamSide {
    /// A record for a client over TCP.
    @inline(never)
    mutating func send(_ datagram: RawSpan, to client: SocketAddress, _ reactor: inout Reactor, at now: Instant) {
        isChanged = true
        guard let number = clients.find(client), clients.isOpen(number) else { return clients.note(.noConnection) }
        if writer.hasRest(number) { flush(number, &reactor, now) }
        guard clients.isOpen(number) else { return clients.note(.noConnection) }
        guard !writer.hasRest(number) else { return clients.note(.bufferFull) }
        guard writer.make(datagram) else { return clients.note(StreamDropReason.tooLong) }
        switch Self.write(sockets[number], writer.bytes) {
        case .transferred(let count):
            clients.noteSent()
            let waits = writer.sent(count, to: number)
            clients.noteTaken(number, waits: waits, at: now)
            if waits { watchWrites(true, number, &reactor) }
        case .wouldBlock:
            clients.note(.bufferFull)
            clients.noteStuck(number, at: now)
            watchWrites(true, number, &reactor)
        case .closed, .failed:
            clients.note(.noConnection)
            clients.end(number, .failed)
        }
    }

    /// Writes the rest of a frame, if there is one.
    private mutating func flush(_ number: Int, _ reactor: inout Reactor, _ now: Instant) {
        if writer.hasRest(number) {
            switch Self.write(sockets[number], writer.rest(number)) {
            case .transferred(let count):
                let waits = writer.sentOfRest(count, to: number)
                clients.noteTaken(number, waits: waits, at: now)
                guard !waits else { return }
            case .wouldBlock: return clients.noteStuck(number, at: now)
            case .closed, .failed: return clients.end(number, .failed)
            }
        }
        clients.noteTaken(number, waits: false, at: now)
        watchWrites(false, number, &reactor)
    }

    private static func write(_ socket: borrowing StreamSocket?, _ bytes: RawSpan) -> StreamResult {
        switch socket {
        case .some(let socket): socket.write(bytes)
        case .none: .closed
        }
    }

    private mutating func watchWrites(_ watches: Bool, _ number: Int, _ reactor: inout Reactor) {
        guard watches != isWatchedForWrites[number], let token = tokens[number] else { return }
        isWatchedForWrites[number] = watches
        try? reactor.update(token, for: watches ? [.readable, .writable] : .readable)
    }
}

// MARK: - Time, and the end

extension StreamSide {
    /// Closes what has to go; once a turn.
    @inline(__always)
    mutating func advance(to now: Instant, _ relay: inout Relay, _ reactor: inout Reactor) {
        guard clients.hasEnding || now >= clients.nextDeadline else { return }
        close(now, &relay, &reactor)
    }

    @inline(never)
    private mutating func close(_ now: Instant, _ relay: inout Relay, _ reactor: inout Reactor) {
        isChanged = true
        Self.review(&clients, relay, now)
        while let ended = clients.nextEnding() {
            if let token = tokens[ended.number].take() { reactor.deregister(token) }
            sockets[ended.number] = nil
            isWatchedForWrites[ended.number] = false
            reader.forget(ended.number)
            writer.forget(ended.number)
            if ended.hadFlow { relay.disconnect(ended.client) }
        }
    }

    private static func review(_ clients: inout StreamClients, _ relay: borrowing Relay, _ now: Instant) {
        clients.review(at: now) { relay.hasFlow($0) }
    }

    /// Publishes what has changed since the last time.
    @inline(__always)
    mutating func publish(on page: borrowing PublishedStreams) {
        guard isChanged, listeners.count > 0 else { return }
        isChanged = false
        page.publish(clients)
    }
}
