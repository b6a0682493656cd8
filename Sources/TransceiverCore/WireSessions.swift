import Primitives
import Realtime

/// Sessions without WebRTC: dialogues whose client's events, audio among them, come and go through the control thread.
///
/// They have no packets and hardly any timers, so they are kept apart from the sessions of the packet path, and more simply.
struct WireSessions: ~Copyable {
    /// A class: looked up by number, and never on a packet's way.
    private final class WireSession {
        var dialogue: Dialogue
        var deadline = Instant.never
        init(_ dialogue: consuming Dialogue) { self.dialogue = dialogue }
    }

    /// Events of one session in one turn.
    static let eventsPerTurn = 64
    /// How long others have before a session with much to say or to hear goes on.
    private static let breath = Interval.milliseconds(2)

    private let backend: BackendChoice
    private let capacity: Int
    private var sessions: [UInt32: WireSession] = [:]
    private(set) var nextDeadline = Instant.never

    init(backend: BackendChoice, capacity: Int) {
        self.backend = backend
        self.capacity = capacity
    }

    var count: Int { sessions.count }
    var ids: [UInt32] { sessions.keys.sorted() }

    /// False when there is no place.
    mutating func insert(_ id: UInt32, _ object: SessionObject, seed: UInt64, at now: Instant) -> Bool {
        guard sessions.count < capacity, sessions[id] == nil else { return false }
        let session = WireSession(Dialogue(session: object, backend: backend, audio: .events, seed: seed, at: now))
        session.dialogue.begin()
        sessions[id] = session
        return true
    }

    mutating func remove(_ id: UInt32) -> Bool { sessions.removeValue(forKey: id) != nil }

    func receive(_ text: [UInt8], session id: UInt32) { sessions[id]?.dialogue.receive(clientEvent: text.span.bytes) }

    /// Everything that a backend elsewhere needs of its owner; nil when the session is not here.
    func withDialogue<Result>(of id: UInt32, _ body: (inout Dialogue) -> Result) -> Result? {
        guard let session = sessions[id] else { return nil }
        return body(&session.dialogue)
    }

    func pause(_ isPaused: Bool, session id: UInt32) { sessions[id]?.dialogue.isPaused = isPaused }

    /// Lets session `id` act, and takes its next event; call until nil.
    mutating func nextEvent(of id: UInt32, at now: Instant) -> [UInt8]? {
        guard let session = sessions[id] else { return nil }
        if let event = session.dialogue.nextEvent() { return event }
        session.dialogue.advance(to: now)
        if let event = session.dialogue.nextEvent() { return event }
        session.deadline = session.dialogue.hasWork ? now + Self.breath : session.dialogue.nextDeadline.instant
        nextDeadline = min(nextDeadline, session.deadline)
        return nil
    }

    /// Session `id` has more to say than a turn allows.
    mutating func yield(_ id: UInt32, at now: Instant) {
        sessions[id]?.deadline = now + Self.breath
        nextDeadline = min(nextDeadline, now + Self.breath)
    }

    /// The next session that something is due for.
    mutating func nextDue(at now: Instant) -> UInt32? {
        guard nextDeadline <= now else { return nil }
        for (id, session) in sessions where session.deadline <= now {
            session.deadline = .never
            return id
        }
        nextDeadline = sessions.values.reduce(.never) { min($0, $1.deadline) }
        return nil
    }
}
