// Steering: which ingress relays a client is told to go to. A call's first hop over the public internet should be short; what lies
// behind the ingress is ours.
//
//     ClientContext ──ClientLocator──▶ Placement ──IngressTable.choose──▶ IngressChoice ──▶ candidates of the answer
//      headers, socket    geo headers, database     table, health, round trips
//
//     Place.swift            latitude and longitude, and how far two of them are apart
//     Countries.swift        where a country is, for headers that say no more
//     ClientLocator.swift    where a request comes from, and how we know
//     GeoDatabase.swift      MaxMind's file format, by libmaxminddb
//     IngressTable.swift     the operator's file
//     IngressChoice.swift    the nearest ones
//     IngressProber.swift    which of them are well, and how far away
//     Steering.swift         all of it behind one verb, with counters
//
// Nothing a client writes can do harm: headers about places count only from a trusted proxy, and the worst of them makes a first hop longer.

public import Primitives

/// Chooses ingresses for requests, and counts what it has chosen and why.
public struct Steering: Sendable {
    public var locator: ClientLocator
    public var table: IngressTable
    /// What trunk pings say of each ingress, by name; an ingress that nobody has asked is taken for healthy.
    public var reports: [String: IngressReport] = [:]
    /// What a client is told whose place is unknown.
    private let fallback: [SocketAddress]
    /// The cluster whose transceiver chooses.
    private let cluster: UInt16
    public private(set) var counters = SteeringCounters()

    public init(locator: ClientLocator, table: IngressTable, fallback: [SocketAddress], cluster: UInt16) {
        self.locator = locator
        self.table = table
        self.fallback = fallback
        self.cluster = cluster
    }
}

/// How often what was chosen, and for which reason.
public struct SteeringCounters: Sendable {
    /// By name, then by reason.
    public fileprivate(set) var choices: [String: [SteeringReason: UInt64]] = [:]
    /// By `GeoTrouble`.
    public fileprivate(set) var troubles: [GeoTrouble: UInt64] = [:]
    public init() {}
}

extension Steering {
    /// The ingresses for one request. `database` is asked for places of addresses, if there is one.
    public mutating func choose(for context: ClientContext, database: (IPAddress) -> Place?) -> IngressChoice {
        let placement = locator.locate(context, database: database)
        for trouble in placement.troubles { counters.troubles[trouble, default: 0] += 1 }
        var choice =
            table.choose(for: placement, reports: reports, cluster: cluster)
            ?? IngressChoice(fallback: fallback, placement)
        if choice.names.isEmpty, placement.place != nil, !table.ingresses.isEmpty { choice.reason = .noneHealthy }
        choice.troubles = placement.troubles
        return choice
    }

    /// The choice stands in an answer that leaves.
    public mutating func noteTold(_ choice: IngressChoice) {
        counters.choices[choice.names.first ?? IngressChoice.fallbackName, default: [:]][choice.reason, default: 0] += 1
    }
}
