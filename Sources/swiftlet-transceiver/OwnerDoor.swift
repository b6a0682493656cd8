import Configuration
import EventLoop
import HTTP
import Primitives
import Registrar
import Serving
import TransceiverCore

/// Finds the owner of a call that lives elsewhere, and sends its requests there or its client.
struct OwnerDoor: ~Copyable {
    private var directory: OwnerDirectory?
    private let choice: OwnerChoice
    /// Ours: a list that takes somebody else for us must not make us ask ourselves.
    private let signaling: SocketAddress
    private var calls = OwnerCalls()

    init(_ source: MembersSource?, _ choice: OwnerChoice, _ registration: Registration, at now: Instant) throws(ConfigurationError) {
        if let source { directory = try OwnerDirectory(source, registration, at: now) }
        self.choice = choice
        signaling = registration.own.signaling
    }

    static var firstTag: UInt64 { OwnerCalls.firstTag }
    static var capacity: Int { OwnerCalls.capacity }
    var counters: ForwardCounters { calls.counters }
    var nextDeadline: Instant { calls.nextDeadline }

    /// What becomes of `request`, if somebody else owns its call; nil when it is answered here.
    mutating func answer(_ request: HTTPRequest, of tag: UInt64, _ desk: inout SignalingDesk, _ steerer: borrowing Steerer?) -> Answer? {
        directory?.lookAtBoard()
        guard let directory else { return nil }
        guard let owner = desk.owner(of: request, at: wallClock()) else { return spill(request, of: tag, &desk, steerer) }
        guard let address = directory.signaling(of: owner), address != signaling else {
            calls.counters.ownerUnknown += 1
            let message = "The transceiver that owns this call is not known here. The call is over; make a new one."
            return .response(.ownerIsGone(message, code: "call_owner_unknown"))
        }
        if choice == .redirect {
            calls.counters.redirected += 1
            return .response(.ownerIsElsewhere(address, request))
        }
        var request = request
        // The owner believes us; we do not believe everybody.
        Self.cleanse(&request, steerer)
        guard calls.forward(request, of: tag, to: address) else {
            var response = HTTPResponse.error(503, "Too many requests for other transceivers at once. Try again.", code: "at_capacity")
            response.headers.set("Retry-After", "1")
            return .response(response)
        }
        return .later
    }

    /// A call that has no place here goes to whoever has most; nil when nobody has: then it is refused here.
    private mutating func spill(
        _ request: HTTPRequest, of tag: UInt64, _ desk: inout SignalingDesk, _ steerer: borrowing Steerer?
    ) -> Answer? {
        guard desk.wantsPlaceElsewhere(request, at: wallClock()), let address = directory?.place(), address != signaling else { return nil }
        calls.counters.spilled += 1
        if choice == .redirect { return .response(.ownerIsElsewhere(address, request)) }
        var request = request
        Self.cleanse(&request, steerer)
        guard calls.forward(request, of: tag, to: address, orElse: .noPlace) else { return .response(.noPlace) }
        return .later
    }

    /// What the registry says, or has said; nil without one.
    var registry: RegistryBoard.View? { directory?.registry }

    /// How this transceiver is, for the others.
    func describe(load: Int, isDraining: Bool) { directory?.describe(load: load, isDraining: isDraining) }

    private static func cleanse(_ request: inout HTTPRequest, _ steerer: borrowing Steerer?) {
        switch steerer {
        case .some(let steerer): steerer.cleanse(&request.headers, from: request.peer)
        case .none: request.headers.remove("X-Forwarded-For")
        }
    }

    mutating func hear(_ event: SocketEvent, of client: UInt64, at now: Instant) { calls.hear(event, of: client, at: now) }

    mutating func serve(_ event: ReactorEvent, _ reactor: inout Reactor, at now: Instant) { calls.serve(event, &reactor, at: now) }

    mutating func advance(to now: Instant, _ reactor: inout Reactor) {
        directory?.advance(to: now)
        calls.flush(&reactor, at: now)
        calls.advance(to: now, &reactor)
    }

    mutating func nextOutcome() -> ForwardOutcome? { calls.nextOutcome() }
}
