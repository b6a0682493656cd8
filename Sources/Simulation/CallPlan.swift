import Primitives

/// What befalls a call. Times count from the moment when all its clients are connected.
public enum CallScenario: String, CaseIterable, Sendable {
    /// Nothing but the network.
    case plain
    /// The client sends nothing at all for 20 seconds, not even answers to our checks, and goes on.
    case silence
    /// The same for 40 seconds: consent is lost in between, the session is not.
    case longSilence = "long-silence"
    /// The client restarts ICE through signaling (WHIP PATCH).
    case restart
    /// The client's address changes, as a NAT does that has forgotten it. The client does not know.
    case rebind
    /// The relay dies and another one takes its address 300 ms later, with an empty flow table.
    case relay
    /// Two calls of one address at once.
    case pair
    /// Two calls, and all of it to both of them.
    case storm

    /// A line for the operator.
    public var summary: String {
        switch self {
        case .plain: "nothing but the network"
        case .silence: "the client sends nothing for 20 s and goes on"
        case .longSilence: "the client sends nothing for 40 s and goes on"
        case .restart: "ICE restart in the middle of the call"
        case .rebind: "the client's address changes in the middle of the call"
        case .relay: "the relay dies and comes back without its flows"
        case .pair: "two calls at once"
        case .storm: "two calls, and all of it"
        }
    }

    var clients: Int { self == .pair || self == .storm ? 2 : 1 }

    /// What happens when, in order.
    var faults: [(after: Interval, fault: Fault)] {
        switch self {
        case .plain, .pair: []
        case .silence: [(.seconds(3), .fallSilent), (.seconds(23), .wake)]
        case .longSilence: [(.seconds(3), .fallSilent), (.seconds(43), .wake)]
        case .restart: [(.seconds(3), .restartICE)]
        case .rebind: [(.seconds(3), .rebind)]
        case .relay: [(.seconds(3), .killRelay), (.milliseconds(3300), .startRelay)]
        case .storm:
            [
                (.seconds(2), .rebind), (.seconds(8), .killRelay), (.milliseconds(8300), .startRelay), (.seconds(14), .restartICE),
                (.seconds(20), .fallSilent), (.seconds(40), .wake), (.seconds(43), .rebind),
            ]
        }
    }

    /// Frames that a client says, so that the last fault finds it speaking and has time to heal.
    var frames: UInt32 { self == .storm ? 1600 : 500 }
}

/// One step of a scenario.
enum Fault: Sendable { case fallSilent, wake, restartICE, rebind, killRelay, startRelay }

/// What a simulated call is made of.
public struct CallPlan: Sendable {
    public var seed: UInt64
    /// Client ⇄ relay, each way.
    public var access: LinkProfile
    /// Relay ⇄ transceiver, each way.
    public var trunk = LinkProfile(delay: .microseconds(200))
    public var scenario: CallScenario
    /// Frames of 20 ms that each client says.
    public var frames: UInt32
    public var echoDelay = Interval.milliseconds(500)
    /// Nothing reaches the clients and nothing leaves them: a call that cannot be, for those who check the checks.
    public var accessIsCut = false

    public init(seed: UInt64, access: LinkProfile, scenario: CallScenario = .plain) {
        self.seed = seed
        self.access = access
        self.scenario = scenario
        frames = scenario.frames
    }
}
