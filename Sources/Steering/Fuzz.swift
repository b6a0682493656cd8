import Primitives

/// Reading a table never traps, and what was read keeps its promises.
public func fuzzIngressTable(_ bytes: RawSpan) {
    guard let table = try? IngressTable(parsing: String(decoding: bytes.array, as: UTF8.self)) else { return }
    precondition((1...IngressTable.ingressesMax).contains(table.ingresses.count))
    for ingress in table.ingresses {
        precondition((1...4).contains(ingress.addresses.count) && !ingress.name.isEmpty)
        let placement = Placement(place: ingress.place, reason: .geoHeader)
        guard let choice = table.choose(for: placement, reports: [:], cluster: ingress.cluster) else {
            preconditionFailure("nobody is chosen at an ingress")
        }
        precondition((1...8).contains(choice.addresses.count) && (1...2).contains(choice.names.count))
    }
}

/// Headers of whatever bytes never trap, and give a place only where they are trusted.
public func fuzzGeoHeaders(_ bytes: RawSpan) {
    let lines = String(decoding: bytes.array, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    func line(_ index: Int) -> String? { index < lines.count ? lines[index] : nil }
    let proxy = IPAddress(v4: 0x0A00_0001)
    var context = ClientContext(
        peer: proxy, country: line(0), latitude: line(1), longitude: line(2), forwardedFor: Array(lines.dropFirst(3)))
    let locator = ClientLocator(trustedProxies: IPPrefix("10.0.0.0/8").map { [$0] } ?? [])
    let trusted = locator.locate(context) { _ in nil }
    precondition((trusted.place == nil) == (trusted.reason == .unknownPlace), "a place without a reason")
    context.peer = IPAddress(v4: 0xC633_6401)
    let untrusted = locator.locate(context) { _ in nil }
    precondition(untrusted.place == nil && untrusted.troubles == [.untrustedHeaders], "an untrusted header was believed")
}
