import Backend
import Primitives
import Realtime

/// Which backend answers a call, with its settings.
public enum BackendChoice: Sendable, Equatable {
    /// The caller's own audio after this delay.
    case echo(delay: Interval)
}

/// What stands behind one call: one of the backends, behind the verbs that all of them share.
///
/// A switch over a closed set instead of an existential: a frame's way through it is a jump, not an allocation.
struct CallBackend: ~Copyable {
    private var echo: EchoBackend

    init(_ choice: BackendChoice) {
        switch choice {
        case .echo(let delay): echo = EchoBackend(delay: delay)
        }
    }

    /// Takes one Opus packet of the caller; false when the backend has no room for it.
    mutating func receive(_ packet: RawSpan, timestamp: UInt32, startsTalkspurt: Bool, at now: Instant) -> Bool {
        echo.receive(packet, timestamp: timestamp, startsTalkspurt: startsTalkspurt, at: now)
    }

    /// Appends the next Opus packet that is due.
    mutating func nextFrame(into packet: inout OutputRawSpan, at now: Instant) -> BackendFrame? { echo.nextFrame(into: &packet, at: now) }

    /// Does what the conversation asks.
    mutating func perform(_ action: ConversationAction, for conversation: inout Conversation) {
        if case .startResponse = action {
            conversation.receive(.failed(message: "The backend embedded:echo only sends audio back; it makes no responses."))
        }
    }

    var nextDeadline: Deadline { echo.nextDeadline }
}
