public import Primitives

/// What of a request tells where its client is. Whoever has the request fills it in.
public struct ClientContext: Sendable {
    /// The other end of the socket: the client, or a proxy.
    public var peer: IPAddress?
    /// Values of the geo headers, under the names that the operator has given.
    public var country: String?
    public var latitude: String?
    public var longitude: String?
    /// Every `X-Forwarded-For` line, in order.
    public var forwardedFor: [String]

    public init(
        peer: IPAddress?, country: String? = nil, latitude: String? = nil, longitude: String? = nil, forwardedFor: [String] = []
    ) {
        self.peer = peer
        self.country = country
        self.latitude = latitude
        self.longitude = longitude
        self.forwardedFor = forwardedFor
    }

    var hasGeoHeaders: Bool { country != nil || latitude != nil || longitude != nil }
}

/// How an ingress was chosen.
public enum SteeringReason: String, Sendable, CaseIterable {
    /// Latitude and longitude from a trusted proxy.
    case geoHeader = "geo-header"
    /// A trusted proxy has told the country alone.
    case geoCountry = "geo-country"
    /// The database knows the client's address.
    case maxmind
    /// Nobody knows where the client is.
    case unknownPlace = "default"
    /// No ingress that is near is healthy.
    case noneHealthy = "none-healthy"
}

/// What was wrong with what a request says about its place. Each is a counter; none of them refuses the request.
public enum GeoTrouble: String, Error, Sendable, CaseIterable {
    /// Geo headers that did not come over a trusted proxy: not looked at.
    case untrustedHeaders = "untrusted_headers"
    /// Degrees that are none, one of two, or out of range.
    case badDegrees = "bad_degrees"
    /// No country that is known.
    case badCountry = "bad_country"
    /// A trusted proxy's `X-Forwarded-For` that is no list of addresses, or too long a one.
    case badForwardedFor = "bad_forwarded_for"
}

/// Where a client is, as far as anybody knows.
public struct Placement: Sendable, Equatable {
    public var place: Place?
    public var reason: SteeringReason
    public var troubles: [GeoTrouble]

    public init(place: Place?, reason: SteeringReason, troubles: [GeoTrouble] = []) {
        self.place = place
        self.reason = reason
        self.troubles = troubles
    }
}

/// Finds out where requests come from: geo headers, then the database, then nothing.
public struct ClientLocator: Sendable {
    /// Proxies whose headers are believed.
    public var trustedProxies: [IPPrefix]

    public init(trustedProxies: [IPPrefix]) { self.trustedProxies = trustedProxies }

    /// Hops of an `X-Forwarded-For` that are looked at.
    public static let hopsMax = 32

    public func isTrusted(_ address: IPAddress) -> Bool { trustedProxies.contains { $0.contains(address) } }

    public func locate(_ context: ClientContext, database: (IPAddress) -> Place?) -> Placement {
        var troubles: [GeoTrouble] = []
        let isTrusted = context.peer.map(isTrusted) ?? false
        if context.hasGeoHeaders {
            if isTrusted {
                if let placement = headers(context, &troubles) {
                    return Placement(place: placement.0, reason: placement.1, troubles: troubles)
                }
            } else {
                troubles.append(.untrustedHeaders)
            }
        }
        if let address = client(context, isTrusted: isTrusted, &troubles), let place = database(address) {
            return Placement(place: place, reason: .maxmind, troubles: troubles)
        }
        return Placement(place: nil, reason: .unknownPlace, troubles: troubles)
    }

    private func headers(_ context: ClientContext, _ troubles: inout [GeoTrouble]) -> (Place, SteeringReason)? {
        switch (context.latitude, context.longitude) {
        case (let latitude?, let longitude?):
            if let place = Place(latitude: latitude, longitude: longitude) { return (place, .geoHeader) }
            troubles.append(.badDegrees)
        case (nil, nil): break
        default: troubles.append(.badDegrees)
        }
        guard let country = context.country else { return nil }
        if let place = Countries.place(of: country) { return (place, .geoCountry) }
        // What Cloudflare says when it does not know, or must not.
        if country != "XX", country != "T1" { troubles.append(.badCountry) }
        return nil
    }

    /// The last address of the chain that is no proxy of ours: what stands before it, anybody may have written.
    private func client(_ context: ClientContext, isTrusted: Bool, _ troubles: inout [GeoTrouble]) -> IPAddress? {
        guard isTrusted else { return context.peer }
        var hops = 0
        for line in context.forwardedFor.reversed() {
            for part in line.split(separator: ",", omittingEmptySubsequences: false).reversed() {
                hops += 1
                guard hops <= Self.hopsMax, let address = Self.address(part) else {
                    troubles.append(.badForwardedFor)
                    return nil
                }
                if !self.isTrusted(address) { return address }
            }
        }
        // A chain of proxies alone tells nothing of the client.
        return nil
    }

    /// An address, in brackets and with a port where a proxy likes that better.
    private static func address(_ text: Substring) -> IPAddress? {
        guard text.utf8.count <= 64 else { return nil }
        var text = text
        while text.first == " " || text.first == "\t" { text.removeFirst() }
        while text.last == " " || text.last == "\t" { text.removeLast() }
        if let ip = IPAddress(text) { return ip }
        if text.hasPrefix("["), text.hasSuffix("]") { return IPAddress(text.dropFirst().dropLast()) }
        return SocketAddress(String(text))?.ip
    }
}
