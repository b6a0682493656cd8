// Clients over TCP: which connections there may be, whom each of them stands for, and when one has to go. Like UDP, a connection answers
// nobody and is worth nothing until an authentic check has come over it; unlike UDP it costs something from its first packet on, so
// everything about it has a bound.

import Primitives

/// Bounds of one worker's connections.
public struct StreamLimits: Hashable, Sendable {
    /// At most; 0 where there is no TCP.
    public var connections: Int
    /// Of one IPv4 address, or of one IPv6 prefix of 64 bits: a household, or an office behind one NAT.
    public var perSource: Int
    /// How long a connection may be open without having brought an authentic check.
    public var authentication = Interval.seconds(10)
    /// How long a client may take nothing of what waits for it.
    public var stall = Interval.seconds(5)

    public init(connections: Int, perSource: Int) {
        self.connections = connections
        self.perSource = perSource
    }
}

/// Why a connection is closed, or was not taken. Raw values are indices into `StreamCounters.ended`; names are the metric's labels.
@frozen public enum StreamEnd: UInt8, CaseIterable, Sendable {
    // Not taken.
    /// As many connections as there may be.
    case full
    /// As many of this source as there may be.
    case sourceFull
    /// An address that no host has.
    case impossibleSource
    /// The same address and port has a connection, to another of our addresses.
    case sameSource
    /// The process may open no more files.
    case noDescriptor
    // Closed.
    case closedByClient
    case failed
    /// The first datagram is no STUN Binding request.
    case notICE
    /// A datagram longer than any of ours.
    case tooLong
    /// No authentic check in time.
    case unauthenticated
    /// Its flow has ended: its client fell silent, or its transceiver said so.
    case flowEnded
    /// Its client took nothing for too long.
    case stalled
}

/// Why a datagram for a client over TCP goes nowhere. Raw values are indices into `StreamCounters.dropped`; names are the metric's labels.
@frozen public enum StreamDropReason: UInt8, CaseIterable, Sendable {
    /// Its connection has ended, or was another process's.
    case noConnection
    /// What was sent before has yet to leave.
    case bufferFull
    case tooLong
}

/// What has happened since the start.
@frozen public struct StreamCounters: Sendable {
    public static let endsMax = 16
    public static let dropsMax = 4

    /// Connections that were taken.
    public var accepted: UInt64 = 0
    /// Those of them that brought an authentic check.
    public var authenticated: UInt64 = 0
    public var datagramsReceived: UInt64 = 0
    public var datagramsSent: UInt64 = 0
    public var ended = InlineArray<16, UInt64>(repeating: 0)
    public var dropped = InlineArray<4, UInt64>(repeating: 0)

    public init() {}

    public subscript(end: StreamEnd) -> UInt64 { ended[Int(end.rawValue)] }
    public subscript(reason: StreamDropReason) -> UInt64 { dropped[Int(reason.rawValue)] }
}

/// What is kept of a connection. Not private: a client module that destroys the table needs its metadata.
@usableFromInline struct StreamConnection {
    /// Over TCP, as flows and trunk records have it.
    var client = SocketAddress(.v6Any, port: 0)
    var isOpen = false
    var isEnding = false
    var isAuthentic = false
    var since = Instant.zero
    /// Since when it has taken nothing of what waits; never while nothing waits.
    var stuckSince = Instant.never
}

/// One worker's connections, by number.
public struct StreamClients: ~Copyable {
    public let limits: StreamLimits
    public private(set) var counters = StreamCounters()
    /// Open connections, and those of them that stand for a flow.
    public private(set) var count = 0
    public private(set) var authenticatedCount = 0

    private var connections: Slab<StreamConnection>
    private var free: Slab<UInt32>
    private var freeCount: Int
    private var numbers: [SocketAddress: UInt32] = [:]
    private var sources: [IPAddress: UInt32] = [:]
    /// Those that somebody has to close, each once.
    private var ending: Slab<UInt32>
    private var endingCount = 0
    private var reviewAt = Instant.never

    public init(_ limits: StreamLimits) {
        let count = limits.connections
        self.limits = limits
        connections = Slab(count: count) { _ in StreamConnection() }
        free = Slab(count: count) { UInt32(count - 1 - $0) }
        freeCount = count
        ending = Slab(zeros: count)
        numbers.reserveCapacity(count)
        sources.reserveCapacity(count)
    }
}

extension StreamClients {
    /// Somebody at `address` has connected. Its number, or why it is to be closed at once.
    public mutating func admit(_ address: SocketAddress, at now: Instant) -> Result<Int, StreamRefusal> {
        let client = address.overTCP
        guard client.isOverTCP, !address.isOverTCP, address.port != 0, !address.ip.isAny, !address.ip.isMulticast else {
            return refuse(.impossibleSource)
        }
        guard freeCount > 0 else { return refuse(.full) }
        guard numbers[client] == nil else { return refuse(.sameSource) }
        let source = Self.source(of: address)
        let known = sources[source] ?? 0
        guard Int(known) < limits.perSource else { return refuse(.sourceFull) }
        sources[source] = known &+ 1
        freeCount -= 1
        let number = Int(free[freeCount])
        connections[number] = StreamConnection()
        connections[number].client = client
        connections[number].isOpen = true
        connections[number].since = now
        numbers[client] = UInt32(number)
        count += 1
        counters.accepted &+= 1
        if reviewAt == .never { reviewAt = now + Self.reviewInterval }
        return .success(number)
    }

    private mutating func refuse(_ end: StreamEnd) -> Result<Int, StreamRefusal> {
        note(end)
        return .failure(StreamRefusal(end: end))
    }

    /// A connection that was not even offered.
    public mutating func note(_ end: StreamEnd) { counters.ended[Int(end.rawValue)] &+= 1 }

    /// The connection of a client over TCP.
    public func find(_ client: SocketAddress) -> Int? { numbers[client].map { Int($0) } }

    /// Whom the connection stands for, over TCP.
    public func client(_ number: Int) -> SocketAddress { connections[number].client }

    /// What is read from it still counts.
    public func isOpen(_ number: Int) -> Bool { connections[number].isOpen && !connections[number].isEnding }

    /// What became of a datagram that came over the connection.
    public mutating func note(_ disposition: RelayDisposition, on number: Int) {
        counters.datagramsReceived &+= 1
        guard isOpen(number), !connections[number].isAuthentic else { return }
        switch disposition {
        case .forwarded:
            connections[number].isAuthentic = true
            authenticatedCount += 1
            counters.authenticated &+= 1
        // Whoever can make checks may have come too early for our tables, and tries again.
        case .dropped(.noFlow), .dropped(.malformedSTUN), .dropped(.unknownClass): end(number, .notICE)
        case .dropped, .parked: break
        }
    }

    /// A datagram has left, all of it or a part.
    public mutating func noteSent() { counters.datagramsSent &+= 1 }
    public mutating func note(_ reason: StreamDropReason) { counters.dropped[Int(reason.rawValue)] &+= 1 }

    /// The client has taken something; `waits` when something is left.
    public mutating func noteTaken(_ number: Int, waits: Bool, at now: Instant) { connections[number].stuckSince = waits ? now : .never }

    /// The client takes nothing, and something waits.
    public mutating func noteStuck(_ number: Int, at now: Instant) {
        if connections[number].stuckSince == .never { connections[number].stuckSince = now }
    }

    /// The connection is to be closed: `nextEnding` says so to whoever does it.
    public mutating func end(_ number: Int, _ reason: StreamEnd) {
        guard isOpen(number) else { return }
        connections[number].isEnding = true
        note(reason)
        ending[endingCount] = UInt32(number)
        endingCount += 1
    }

    /// The next connection to close; its number is free again, and its client has none. Whether it had a flow.
    public mutating func nextEnding() -> (number: Int, client: SocketAddress, hadFlow: Bool)? {
        guard endingCount > 0 else { return nil }
        endingCount -= 1
        let number = Int(ending[endingCount])
        let connection = connections[number]
        connections[number] = StreamConnection()
        numbers[connection.client] = nil
        let source = Self.source(of: connection.client.withoutTransport)
        let left = (sources[source] ?? 1) &- 1
        sources[source] = left == 0 ? nil : left
        free[freeCount] = UInt32(number)
        freeCount += 1
        count -= 1
        if connection.isAuthentic { authenticatedCount -= 1 }
        if count == 0 { reviewAt = .never }
        return (number, connection.client, connection.isAuthentic)
    }

    public var hasEnding: Bool { endingCount > 0 }

    /// When `review` has something to do.
    public var nextDeadline: Instant { reviewAt }

    /// Looks at every connection, once a second: whoever is not authentic in time goes, whose flow has ended, and who takes nothing.
    ///
    /// - Parameter hasFlow: whether a client has a flow.
    public mutating func review(at now: Instant, hasFlow: (SocketAddress) -> Bool) {
        guard now >= reviewAt else { return }
        reviewAt = count == 0 ? .never : now + Self.reviewInterval
        for number in 0..<connections.count where isOpen(number) {
            if !connections[number].isAuthentic {
                if now >= connections[number].since + limits.authentication { end(number, .unauthenticated) }
            } else if !hasFlow(connections[number].client) {
                end(number, .flowEnded)
            } else if connections[number].stuckSince != .never, now >= connections[number].stuckSince + limits.stall {
                end(number, .stalled)
            }
        }
    }

    private static let reviewInterval = Interval.seconds(1)

    private static func source(of address: SocketAddress) -> IPAddress {
        address.ip.isV4 ? address.ip : IPAddress(high: address.ip.high, low: 0)
    }
}

/// A `StreamEnd` as an error, for `Result`.
public struct StreamRefusal: Error, Hashable, Sendable {
    public let end: StreamEnd
}
