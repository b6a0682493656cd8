public import Primitives

/// What trunk pings say of an ingress.
public struct IngressReport: Hashable, Sendable {
    /// From the ingress to the choosing transceiver's cluster and back; nil when it was not measured.
    public var roundTrip: Interval?
    public var isHealthy: Bool

    public init(roundTrip: Interval?, isHealthy: Bool) {
        self.roundTrip = roundTrip
        self.isHealthy = isHealthy
    }
}

/// The ingresses of one answer.
public struct IngressChoice: Hashable, Sendable {
    /// The nearest first, two at most; empty when it is the operator's default.
    public var names: [String]
    /// Candidates in this order.
    public var addresses: [SocketAddress]
    public var reason: SteeringReason
    public var troubles: [GeoTrouble] = []

    /// What the default is called in header, log and metrics.
    public static let fallbackName = "default"
    /// Every dead candidate costs Chromium about fifty milliseconds.
    public static let ingressesMax = 2

    init(names: [String], addresses: [SocketAddress], reason: SteeringReason) {
        self.names = names
        self.addresses = addresses
        self.reason = reason
    }

    init(fallback: [SocketAddress], _ placement: Placement) {
        self.init(names: [], addresses: fallback, reason: placement.reason)
    }

    /// The value of the response's header: `fra, ams; reason=geo-header`.
    public var headerValue: String {
        "\(names.isEmpty ? Self.fallbackName : names.joined(separator: ", ")); reason=\(reason.rawValue)"
    }
}

extension IngressTable {
    /// What a kilometre of the public internet and back takes, in milliseconds: twice what it takes on a good trunk, because lost and
    /// late packets are there.
    private static let publicMillisecondsPerKilometre = 0.04
    /// For a trunk that nobody has measured.
    private static let trunkMillisecondsPerKilometre = 0.02

    /// The nearest healthy ingresses; nil when the place is unknown or nobody is healthy.
    ///
    /// - Parameters:
    ///   - reports: by name.
    ///   - cluster: the chooser's own.
    public func choose(for placement: Placement, reports: [String: IngressReport], cluster: UInt16) -> IngressChoice? {
        guard let place = placement.place else { return nil }
        let home = ingresses.filter { $0.cluster == cluster }.map(\.place)
        var ranked: [(cost: Double, ingress: Ingress)] = []
        for ingress in ingresses {
            let report = reports[ingress.name]
            guard report?.isHealthy ?? true else { continue }
            ranked.append((Self.cost(of: ingress, report, from: place, home: home), ingress))
        }
        // Two of the same cost: the order of the file, so that every transceiver chooses alike.
        let best = ranked.enumerated().sorted { ($0.element.cost, $0.offset) < ($1.element.cost, $1.offset) }
            .prefix(IngressChoice.ingressesMax).map(\.element.ingress)
        guard !best.isEmpty else { return nil }
        return IngressChoice(names: best.map(\.name), addresses: best.flatMap(\.addresses), reason: placement.reason)
    }

    private static func cost(of ingress: Ingress, _ report: IngressReport?, from place: Place, home: [Place]) -> Double {
        let trunk =
            report?.roundTrip.map { $0.seconds * 1000 }
            ?? (home.map { $0.distance(to: ingress.place) }.min() ?? 0) * trunkMillisecondsPerKilometre
        return place.distance(to: ingress.place) * publicMillisecondsPerKilometre + trunk
    }
}
