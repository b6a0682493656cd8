public import Primitives

/// The machine. `Question` is what its user knows an answer by.
public struct RedisClient<Question: Sendable>: ~Copyable, RedisMachine {
    /// In the order of what happened.
    public enum Event: Sendable {
        case answer(Question, RedisReply)
        /// The connection is done for: what was asked and not answered by then never will be.
        case failed
    }

    private enum State {
        case idle(until: Instant)
        case connecting(since: Instant)
        /// Connected, but it has not answered yet: a stopped process accepts connections too.
        case greeting(since: Instant)
        case open
    }

    private enum Asked {
        case setup
        case greeting
        case ping
        case question(Question)
    }

    /// Commands under way: replies come in their order.
    private struct Pipeline {
        private var commands: [Asked] = []
        private var answered = 0
        var count: Int { commands.count - answered }
        var isEmpty: Bool { count == 0 }
        mutating func append(_ command: Asked) { commands.append(command) }
        /// Not for an empty one.
        mutating func next() -> Asked {
            answered += 1
            let command = commands[answered - 1]
            if answered == commands.count || answered >= 1_024 {
                commands.removeFirst(answered)
                answered = 0
            }
            return command
        }
    }

    private let settings: RedisSettings
    private var state: State
    private var reader: ReplyReader
    private var retryDelay: Interval
    private var output: [UInt8] = []
    private var asked = Pipeline()
    private var heardAt: Instant
    private var orders: [RedisOrder] = []
    private var events: [Event] = []
    private var eventsTaken = 0
    /// Errors that Redis answered with: READONLY, OOM, NOAUTH, WRONGTYPE, …
    public private(set) var serverErrors: UInt64 = 0
    /// Connections that failed or fell silent.
    public private(set) var failures: UInt64 = 0

    public init(settings: RedisSettings, now: Instant) {
        self.settings = settings
        state = .idle(until: now)
        reader = ReplyReader(settings.replies)
        retryDelay = settings.retryDelay
        heardAt = now
    }

    /// Whether a question has any chance now.
    public var isOpen: Bool {
        if case .open = state { return true }
        return false
    }

    private var isConnected: Bool {
        switch state {
        case .greeting, .open: true
        case .idle, .connecting: false
        }
    }

    /// Questions, and our own, without answer.
    public var waitingCount: Int { asked.count }

    public mutating func nextEvent() -> Event? {
        guard eventsTaken < events.count else {
            events.removeAll(keepingCapacity: true)
            eventsTaken = 0
            return nil
        }
        eventsTaken += 1
        return events[eventsTaken - 1]
    }

    /// Asks, if the connection is open; else nothing happens.
    public mutating func ask(_ question: Question, _ command: [[UInt8]], at now: Instant) {
        guard isOpen else { return }
        ask(.question(question), command, now)
    }

    private mutating func ask(_ kind: Asked, _ command: [[UInt8]], _ now: Instant) {
        if asked.isEmpty { heardAt = now }
        asked.append(kind)
        formatCommand(command, into: &output)
    }
}

// MARK: - The connection

extension RedisClient {
    /// The connection stands: log in, choose the database, and go on.
    public mutating func connected(at now: Instant) {
        guard case .connecting = state else { return }
        state = .greeting(since: now)
        if let password = settings.password {
            let user = settings.user.map { [Array($0.utf8)] } ?? []
            ask(.setup, [Array("AUTH".utf8)] + user + [Array(password.utf8)], now)
        }
        if settings.database != 0 { ask(.setup, [Array("SELECT".utf8), Array(String(settings.database).utf8)], now) }
        ask(.greeting, [Array("PING".utf8)], now)
    }

    public mutating func disconnected(at now: Instant) { fail(at: now, close: false) }

    public mutating func receive(_ bytes: RawSpan, at now: Instant) {
        guard isConnected else { return }
        heardAt = now
        guard reader.feed(bytes) else { return fail(at: now, close: true) }
        while isConnected {
            switch reader.next() {
            case .incomplete: return
            case .broken: return fail(at: now, close: true)
            case .reply(let reply):
                guard !asked.isEmpty else { return fail(at: now, close: true) }
                take(reply, for: asked.next(), at: now)
            }
        }
    }

    private mutating func take(_ reply: RedisReply, for asked: Asked, at now: Instant) {
        var isError = false
        if case .error = reply {
            isError = true
            serverErrors += 1
        }
        switch asked {
        case .ping: break
        case .setup:
            // Without login or database every answer would be about something else.
            if isError { fail(at: now, close: true) }
        case .greeting:
            // LOADING, NOPERM, MASTERDOWN, …: later perhaps.
            guard reply == .other else { return fail(at: now, close: true) }
            state = .open
            retryDelay = settings.retryDelay
        case .question(let question): events.append(.answer(question, reply))
        }
    }

    private mutating func fail(at now: Instant, close: Bool) {
        failures += 1
        if close { orders.append(.close) }
        state = .idle(until: now + retryDelay)
        retryDelay = min(retryDelay * 2, settings.retryDelayMax)
        reader = ReplyReader(settings.replies)
        output = []
        asked = Pipeline()
        events.append(.failed)
    }
}

// MARK: - Time and output

extension RedisClient {
    public mutating func advance(to now: Instant) {
        switch state {
        case .idle(let until):
            guard now >= until else { return }
            state = .connecting(since: now)
            orders.append(.connect)
        case .connecting(let since), .greeting(let since):
            if now - since >= settings.silenceMax { fail(at: now, close: true) }
        case .open:
            if !asked.isEmpty, now - heardAt >= settings.silenceMax {
                fail(at: now, close: true)
            } else if asked.isEmpty, now - heardAt >= settings.pingInterval {
                ask(.ping, [Array("PING".utf8)], now)
            }
        }
    }

    public var nextDeadline: Deadline {
        switch state {
        case .idle(let until): Deadline(until, "redis reconnect")
        case .connecting(let since), .greeting(let since): Deadline(since + settings.silenceMax, "redis connect")
        case .open:
            asked.isEmpty
                ? Deadline(heardAt + settings.pingInterval, "redis ping") : Deadline(heardAt + settings.silenceMax, "redis silence")
        }
    }

    public mutating func nextOrder() -> RedisOrder? { orders.isEmpty ? nil : orders.removeFirst() }

    public var pendingOutput: [UInt8] { output }
    public mutating func sent(_ count: Int) { output.removeFirst(min(count, output.count)) }
    public var pendingCount: Int { output.count }
}
