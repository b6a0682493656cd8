import Primitives

/// Which relays a client is told to go to, where there are several.
public struct SteeringOptions: Sendable, Equatable {
    /// A table of ingresses; nil: everybody is told the `--advertise` addresses.
    public var ingressFile: String?
    /// A MaxMind database of places.
    public var database: String?
    /// Whose headers about the client are believed.
    public var trustedProxies: [IPPrefix]
    public var countryHeader: String
    public var latitudeHeader: String
    public var longitudeHeader: String

    init(_ values: OptionValues) throws(ConfigurationError) {
        ingressFile = try values.optionalText("ingress-file")
        database = try values.optionalText("geoip-database")
        trustedProxies = try values.prefixes("trusted-proxies")
        countryHeader = try values.headerName("geo-country-header")
        latitudeHeader = try values.headerName("geo-latitude-header")
        longitudeHeader = try values.headerName("geo-longitude-header")
        guard database == nil || ingressFile != nil else {
            throw ConfigurationError("--geoip-database: there is nothing to choose from without --ingress-file")
        }
    }
}

extension OptionDefinition {
    static let ingressFile = OptionDefinition(
        "ingress-file", "FILE", "ingresses to choose from, by the client's place",
        default: .decided("none"))
    static let geoIPDatabase = OptionDefinition(
        "geoip-database", "FILE", "places of addresses, in MaxMind's format",
        default: .decided("none"))
    static let trustedProxies = OptionDefinition(
        "trusted-proxies", "PREFIX", "whose geo headers and X-Forwarded-For are believed",
        default: .decided("nobody's"), isRepeatable: true)
    static let geoCountryHeader = OptionDefinition(
        "geo-country-header", "NAME", "two letters, from a trusted proxy", default: .text("CF-IPCountry"))
    static let geoLatitudeHeader = OptionDefinition(
        "geo-latitude-header", "NAME", "degrees, from a trusted proxy", default: .text("CF-IPLatitude"))
    static let geoLongitudeHeader = OptionDefinition(
        "geo-longitude-header", "NAME", "degrees, from a trusted proxy", default: .text("CF-IPLongitude"))
}
