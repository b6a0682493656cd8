// Redis: a client as a machine without I/O. Bytes from the connection in, bytes for the connection out, answers as events; the owner of the
// connection obeys orders to connect and to close. The protocol itself is hiredis's reader and formatter.
//
// What it promises whoever asks: an answer or a failure, and never a wait without end. A server that hangs, talks nonsense or is gone is left
// alone for a while that doubles; what was asked of it fails at once.

public import Primitives

/// Whom we log in as, and what patience we have.
public struct RedisSettings: Sendable {
    public var user: String?
    public var password: String?
    public var database = 0
    /// After a failure the connection is tried again after this long, doubling up to `retryDelayMax`.
    public var retryDelay = Interval.milliseconds(100)
    public var retryDelayMax = Interval.seconds(30)
    /// No answer at all for this long while something is asked: the server hangs.
    public var silenceMax = Interval.seconds(1)
    /// Nothing to ask for this long: the server is asked whether it lives.
    public var pingInterval = Interval.seconds(5)
    public var replies = ReplyLimits()
    public init() {}
}

/// What the owner of the connection is to do.
public enum RedisOrder: Sendable, Equatable {
    case connect
    case close
}

/// A machine that lives on one connection to Redis, as its owner sees it.
public protocol RedisMachine: ~Copyable {
    mutating func connected(at now: Instant)
    /// The connection failed, or was closed by the other side.
    mutating func disconnected(at now: Instant)
    /// Bytes from the connection, in any pieces.
    mutating func receive(_ bytes: RawSpan, at now: Instant)
    mutating func advance(to now: Instant)
    mutating func nextOrder() -> RedisOrder?
    /// Bytes for the connection. `sent(_:)` tells how many of them it took.
    var pendingOutput: [UInt8] { get }
    mutating func sent(_ count: Int)
    var nextDeadline: Deadline { get }
}
