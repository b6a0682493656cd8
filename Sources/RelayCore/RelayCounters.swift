// Every outcome has a number. A new way to be dropped is a new case here, and thereby a counter.

import RoutingHint
import Trunk

/// Why a datagram goes nowhere. Raw values are indices into `RelayCounters.dropped`; names are the metric's labels.
@frozen public enum RelayDropReason: UInt8, CaseIterable, Sendable {
    // Public side: anything may come.
    case empty
    /// First byte in no range of RFC 7983 that we carry.
    case unknownClass
    /// Not a STUN Binding request, and no flow for its source, nor any that a cache knows: the ordinary fate of noise and of media before the first check.
    case noFlow
    case malformedSTUN
    case noUsername
    /// The name's server part is not 32 ice-chars.
    case notAHint
    case unknownHintKey
    case wrongHintTag
    case unknownHintVersion
    case expiredHint
    case hintFromTheFuture
    case unknownCluster
    case unknownTransceiver
    case noIntegrity
    case wrongIntegrity
    /// The source is one of our own addresses: a loop or a forgery.
    case ownAddress
    /// Port 0, or an address that no single machine has.
    case impossibleSource
    case unconfirmedFlowsOfHint
    case flowTableFull
    /// More destinations in one batch than there are trains.
    case uplinkFull

    // Trunk side: only our own systems should be there.
    case trunkTruncated
    case trunkVersion
    case trunkKind
    case trunkRecordCount
    case trunkRecordOverrun
    case trunkUnexpectedPayload
    case trunkTag
    case trunkLoop
    /// A frame for another cluster, or a pong that we did not ask for.
    case trunkNotForUs
    /// A record whose client is one of our own addresses, or nobody's.
    case trunkForbiddenClient
    /// A frame back to an ingress relay that the relays file does not have.
    case unknownIngress
}

/// What has happened since the core was made. Plain numbers of one worker: whoever publishes them sums.
@frozen public struct RelayCounters: Sendable {
    public static let reasonsMax = 40

    public var publicDatagrams: UInt64 = 0
    // What changes together lies apart: a pair of neighbours is added to as a vector, which takes three times the instructions.
    public var trunkFrames: UInt64 = 0
    public var publicBytes: UInt64 = 0
    public var flowsMade: UInt64 = 0
    /// Put into a train towards a transceiver.
    public var forwarded: UInt64 = 0
    public var trainsSent: UInt64 = 0
    /// Handed out towards a client.
    public var delivered: UInt64 = 0
    public var framesSent: UInt64 = 0
    public var deliveredBytes: UInt64 = 0
    public var flowsMoved: UInt64 = 0
    public var flowsConfirmed: UInt64 = 0
    public var flowsExpiredUnconfirmed: UInt64 = 0
    public var flowsExpiredIdle: UInt64 = 0
    public var flowsGone: UInt64 = 0
    /// Of clients over TCP whose connection ended.
    public var flowsDisconnected: UInt64 = 0
    /// Of other ingress relays, to a transceiver or back.
    public var framesPassedOn: UInt64 = 0
    /// Datagrams that waited for a cache's answer, and how often it was asked.
    public var parked: UInt64 = 0
    public var questions: UInt64 = 0
    /// Transceivers that stopped to answer, and flows that were dropped with them.
    public var transceiversLost: UInt64 = 0
    public var flowsOfLost: UInt64 = 0
    /// Flows that a cache gave back.
    public var flowsRecalled: UInt64 = 0
    public var dropped = InlineArray<40, UInt64>(repeating: 0)
    /// Authentic under the accepted trunk key, not under the one that we send under.
    public var trunkFramesAcceptedKey: UInt64 = 0

    public init() {}

    public subscript(reason: RelayDropReason) -> UInt64 { dropped[Int(reason.rawValue)] }
    mutating func count(_ reason: RelayDropReason) { dropped[Int(reason.rawValue)] &+= 1 }
}

/// A drop reason as an error, for `Result`.
struct Refusal: Error {
    let reason: RelayDropReason
    init(_ reason: RelayDropReason) { self.reason = reason }
    init(_ error: HintError) {
        reason =
            switch error {
            case .notAHint: .notAHint
            case .unknownKey: .unknownHintKey
            case .wrongTag: .wrongHintTag
            case .unknownVersion: .unknownHintVersion
            case .expired: .expiredHint
            case .mintedInFuture: .hintFromTheFuture
            }
    }
}

extension RelayDropReason {
    init(_ error: TrunkError) {
        self =
            switch error {
            case .truncated: .trunkTruncated
            case .unknownVersion: .trunkVersion
            case .unknownKind: .trunkKind
            case .wrongRecordCount: .trunkRecordCount
            case .recordOverrun: .trunkRecordOverrun
            case .unexpectedPayload: .trunkUnexpectedPayload
            case .wrongTag: .trunkTag
            case .tooManyHops: .trunkLoop
            }
    }
}
