import Primitives
import Steering
import TestSupport
import Testing

@Suite struct ChoiceTests {
    @Test(arguments: [
        ("fra", 51.51, -0.13), ("iad", 40.71, -74.01), ("gru", -34.6, -58.4), ("nrt", 37.57, 126.98), ("syd", -41.29, 174.78),
        ("bom", 6.93, 79.85),
    ])
    func `a client enters where it is nearest, also far from the transceiver`(name: String, latitude: Double, longitude: Double) {
        var steering = World.steering()
        let choice = steering.choose(for: World.behindProxy(latitude, longitude)) { _ in nil }
        #expect(choice.names.first == name)
        #expect(choice.names.count == 2)
        #expect(choice.reason == .geoHeader)
        #expect(choice.headerValue == "\(choice.names.joined(separator: ", ")); reason=geo-header")
        steering.noteTold(choice)
        #expect(steering.counters.choices == [name: [.geoHeader: 1]])
    }

    @Test func `the answer has one address per family of each, the nearest ingress first`() {
        var steering = World.steering()
        let choice = steering.choose(for: World.behindProxy(39, -20)) { _ in nil }
        #expect(choice.names == ["fra", "iad"])
        #expect(
            choice.addresses.map(\.description) == [
                "[2001:db8:1::1]:3478", "198.51.100.1:3478", "[2001:db8:2::1]:3478", "198.51.100.2:3478",
            ])
    }

    @Test func `an ingress that is not healthy is nobody's`() {
        var steering = World.steering(reports: ["fra": IngressReport(roundTrip: nil, isHealthy: false)])
        #expect(steering.choose(for: World.behindProxy(51.51, -0.13)) { _ in nil }.names.contains("fra") == false)
    }

    @Test func `a slow trunk costs as much as a long way to the ingress`() {
        var reports: [String: IngressReport] = [:]
        for name in ["fra", "iad", "gru", "nrt", "syd", "bom"] {
            reports[name] = IngressReport(roundTrip: .milliseconds(20), isHealthy: true)
        }
        // Between both: 500 km nearer to fra.
        let between = World.behindProxy(56, -28)
        var steering = World.steering(reports: reports)
        #expect(steering.choose(for: between) { _ in nil }.names == ["fra", "iad"])
        reports["fra"] = IngressReport(roundTrip: .milliseconds(400), isHealthy: true)
        steering.reports = reports
        #expect(steering.choose(for: between) { _ in nil }.names.first == "iad")
    }

    @Test func `without a healthy ingress the operator's default is told`() {
        var reports: [String: IngressReport] = [:]
        for ingress in World.table.ingresses { reports[ingress.name] = IngressReport(roundTrip: nil, isHealthy: false) }
        var steering = World.steering(reports: reports)
        let choice = steering.choose(for: World.behindProxy(0, 0)) { _ in nil }
        #expect(choice.addresses == World.fallback)
        #expect(choice.headerValue == "default; reason=none-healthy")
    }

    @Test func `without a table everybody is told the default`() {
        var steering = Steering(locator: World.locator, table: IngressTable(), fallback: World.fallback, cluster: 1)
        let choice = steering.choose(for: World.behindProxy(0, 0)) { _ in nil }
        #expect(choice.addresses == World.fallback)
        #expect(choice.names.isEmpty)
    }

    @Test func `a relay's number names its ingress`() {
        #expect(World.table.name(ofRelay: 11) == "fra")
        #expect(World.table.name(ofRelay: 99) == nil)
    }
}

@Suite struct LocatorTests {
    private func locate(_ context: ClientContext, database: [String: Place] = [:]) -> Placement {
        World.locator.locate(context) { database["\($0)"] }
    }
    private let here = Place(latitude: 1, longitude: 2)!

    @Test(arguments: [("DE", "fra"), ("us", "iad"), ("AR", "gru"), ("KR", "nrt"), ("NZ", "syd"), ("LK", "bom")])
    func `a country alone is enough`(country: String, ingress: String) {
        let placement = locate(ClientContext(peer: World.proxy, country: country))
        #expect(placement.reason == .geoCountry)
        #expect(World.table.choose(for: placement, reports: [:], cluster: 1)?.names.first == ingress)
    }

    @Test(arguments: ["XX", "T1", "ZZ", "D", "DEU", "", "ÄÖ", "d\u{0}", "A,"])
    func `what is no country is nowhere`(country: String) {
        #expect(Countries.place(of: country) == nil)
        let placement = locate(ClientContext(peer: World.proxy, country: country))
        #expect(placement.reason == .unknownPlace)
        #expect(placement.troubles == (["XX", "T1"].contains(country) ? [] : [.badCountry]))
    }

    @Test func `nearly every code of ISO 3166 is a place`() { #expect(Countries.count == 250) }

    @Test(arguments: [
        ("nan", "0"), ("91", "0"), ("0", "-180.1"), ("1e1", "0"), ("0x10", "0"), ("", ""), ("12.3.4", "5"), (" 1", "2"), ("-", "1"),
        (String(repeating: "1", count: 200), "1"),
    ])
    func `degrees that are none are counted, and the country is taken`(latitude: String, longitude: String) {
        let placement = locate(ClientContext(peer: World.proxy, country: "FR", latitude: latitude, longitude: longitude))
        #expect(placement.reason == .geoCountry)
        #expect(placement.troubles == [.badDegrees])
    }

    @Test func `half a place is none`() {
        #expect(locate(ClientContext(peer: World.proxy, latitude: "1")).troubles == [.badDegrees])
    }

    @Test func `headers from anybody but a trusted proxy are not believed`() {
        let stranger = IPAddress("203.0.113.5")!
        var context = ClientContext(peer: stranger, country: "JP", latitude: "35", longitude: "139", forwardedFor: ["198.51.100.77"])
        let placement = locate(context, database: ["203.0.113.5": here, "198.51.100.77": Place(latitude: 9, longitude: 9)!])
        #expect(placement == Placement(place: here, reason: .maxmind, troubles: [.untrustedHeaders]))
        context.peer = nil
        #expect(locate(context).place == nil)
    }

    @Test(arguments: [
        (["203.0.113.5"], "203.0.113.5"), (["1.2.3.4, 203.0.113.5, 10.9.9.9"], "203.0.113.5"),
        (["1.2.3.4", "203.0.113.5:1234"], "203.0.113.5"),
        (["[2001:db8::5]:99"], "2001:db8::5"), (["[2001:db8::5]"], "2001:db8::5"),
    ])
    func `the client is the last of the chain that is no proxy of ours`(lines: [String], client: String) {
        let placement = locate(ClientContext(peer: World.proxy, forwardedFor: lines), database: [client: here])
        #expect(placement == Placement(place: here, reason: .maxmind))
    }

    @Test(arguments: [["unknown"], ["1.2.3.4, "], ["203.0.113.5, _hidden"], [String(repeating: "10.0.0.1,", count: 99) + "10.0.0.1"]])
    func `a chain that is no list of addresses leads nowhere`(lines: [String]) {
        let placement = locate(ClientContext(peer: World.proxy, forwardedFor: lines), database: ["203.0.113.5": here, "1.2.3.4": here])
        #expect(placement == Placement(place: nil, reason: .unknownPlace, troubles: [.badForwardedFor]))
    }

    @Test func `distances are those of an atlas`() {
        let london = Place(latitude: 51.51, longitude: -0.13)!
        let sydney = Place(latitude: -33.87, longitude: 151.21)!
        #expect(abs(london.distance(to: sydney) - 16_994) < 20)
        #expect(london.distance(to: london) == 0)
        let antipodes = Place(latitude: 0, longitude: 0)!.distance(to: Place(latitude: 0, longitude: 180)!)
        #expect(abs(antipodes - 20_015) < 1)
    }
}

@Suite struct DatabaseTests {
    private static let path = "\(Corpus.testsFolder)/Corpus/geoip/places.mmdb"

    @Test(arguments: [
        ("203.0.113.9", "fra"), ("203.0.113.99", "iad"), ("203.0.113.150", "gru"), ("2001:db8:a::1", "nrt"), ("2001:db8:b::1", "syd"),
        ("2001:db8:c::1", "bom"),
    ])
    func `an address in the database is a place, or at least a country`(address: String, ingress: String) throws {
        let database = try GeoDatabase(path: Self.path)
        var steering = World.steering()
        let choice = steering.choose(for: ClientContext(peer: IPAddress(address)!)) { database.bestPlace(of: $0) }
        #expect(choice.names.first == ingress)
        #expect(choice.reason == .maxmind)
    }

    @Test(arguments: ["127.0.0.1", "::1", "8.8.8.8", "ff02::1"])
    func `an address that is not in it is nowhere`(address: String) throws {
        let database = try GeoDatabase(path: Self.path)
        let place = database.bestPlace(of: IPAddress(address)!)
        #expect(place == nil)
    }

    @Test func `a file that is no database is told as such`() {
        let problem = #expect(throws: GeoDatabaseError.self) { _ = try GeoDatabase(path: Self.path + ".none") }
        #expect(problem?.description.isEmpty == false)
        #expect(throws: GeoDatabaseError.self) { _ = try GeoDatabase(path: "\(Corpus.testsFolder)/Corpus/ingresses/world.txt") }
    }
}

@Suite struct TableTests {
    @Test(arguments: [
        ("a 192.0.2.1:3478 50 8 1\nb 192.0.2.2:3478 50 8", "line 2: 4 fields"),
        ("a 192.0.2.1 50 8 1", "line 1: \"192.0.2.1\" is not ADDRESS:PORT"),
        ("a 0.0.0.0:3478 50 8 1", "line 1: \"0.0.0.0:3478\" is not ADDRESS:PORT"),
        ("a 192.0.2.1:3478 91 8 1", "line 1: \"91 8\" is no latitude"),
        ("a 192.0.2.1:3478,192.0.2.2:3478 50 8 1", "line 1: more than one address of a family"),
        ("a 192.0.2.1:443/tcp,192.0.2.2:443/tcp 50 8 1", "line 1: more than one address of a family"),
        ("a 192.0.2.1:443/udp 50 8 1", "line 1: \"192.0.2.1:443/udp\" is not ADDRESS:PORT"),
        ("a 192.0.2.1:3478 50 8 65536", "line 1: \"65536\" is not a cluster"),
        ("a 192.0.2.1:3478 50 8 1 7,", "line 1: \"\" is not a relay id"),
        ("a 192.0.2.1:3478 50 8 1 7\n#\nb 192.0.2.1:3478 50 8 1 7", "line 3: relay id 7 is given twice"),
        ("a 192.0.2.1:3478 50 8 1\na 192.0.2.2:3478 50 8 1", "line 2: a is given twice"),
        ("default 192.0.2.1:3478 50 8 1", "line 1: \"default\" is not a name"),
        ("a\u{7}\" 192.0.2.1:3478 50 8 1", "line 1: \"a?\"\" is not a name"),
        ("a 192.0.2.1:3478 50 8 1 7@10.0.0.1", "line 1: \"10.0.0.1\" is not the ADDRESS:PORT of a trunk"), ("# nobody", "no ingress in it"),
        ("", "no ingress in it"),
    ])
    func `a mistake is told with its line`(text: String, reason: String) {
        let problem = #expect(throws: IngressTableError.self) { try IngressTable(parsing: text) }
        #expect(problem?.description.hasPrefix(reason) == true, "\(problem?.description ?? "")")
    }

    @Test func `addresses over TCP come last`() throws {
        let table = try IngressTable(parsing: "a 192.0.2.1:443/tcp,[2001:db8::1]:443/tcp,192.0.2.1:3478,[2001:db8::1]:3478 50 8 1")
        let v4 = SocketAddress("192.0.2.1:443")!, v6 = SocketAddress("[2001:db8::1]:443")!
        #expect(
            table.ingresses[0].addresses == [
                SocketAddress(v6.ip, port: 3478), SocketAddress(v4.ip, port: 3478), v6.overTCP, v4.overTCP,
            ])
    }

    @Test func `tables survive every mutation`() {
        let corpus = Corpus.files(in: "ingresses").map(\.bytes)
        for bytes in corpus { fuzzIngressTable(bytes.span.bytes) }
        mutate(corpus) { fuzzIngressTable($0) }
    }

    @Test func `headers survive every mutation`() {
        let corpus = Corpus.files(in: "geo-headers").map(\.bytes)
        for bytes in corpus { fuzzGeoHeaders(bytes.span.bytes) }
        mutate(corpus) { fuzzGeoHeaders($0) }
    }
}
