public import Primitives

/// An ingress: one relay, or several behind the same addresses, where clients may enter.
public struct Ingress: Hashable, Sendable {
    public let name: String
    /// One per family and transport at most, UDP before TCP (`overTCP`) and IPv6 first, as in the answers.
    public let addresses: [SocketAddress]
    public let place: Place
    /// The cluster that its relays belong to.
    public let cluster: UInt16
    /// Its relays, where the table names them.
    public let relays: [IngressRelay]
}

/// One relay of an ingress.
public struct IngressRelay: Hashable, Sendable {
    /// Its `--relay-id`: by this, frames tell which ingress a client has used.
    public let id: UInt16
    /// Its `--trunk` address, where it is asked how it is; nil: it is not asked.
    public let trunk: SocketAddress?
}

/// Why a table is refused, as one sentence for the operator.
public struct IngressTableError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Counted from 1; nil where no line alone is wrong.
    public let line: Int?
    public let reason: String
    public var description: String { line.map { "line \($0): \(reason)" } ?? reason }

    init(_ reason: String, line: Int? = nil) {
        self.line = line
        self.reason = reason
    }
}

/// The operator's file. One ingress a line, `#` begins a comment:
///
///     # name  addresses                              latitude  longitude  cluster  relays
///     fra     198.51.100.1:3478,[2001:db8::1]:3478   50.11     8.68       1        10@10.1.0.1:3479,11@10.1.0.2:3479
///
/// An address with `/tcp` behind it is for clients whose network blocks UDP: `198.51.100.1:443/tcp`. A relay is its id, and behind an `@` the trunk address at which it is asked how it is.
public struct IngressTable: Hashable, Sendable {
    public let ingresses: [Ingress]

    /// Of a table, and bytes of a name: both end up in every metric.
    public static let ingressesMax = 1024
    public static let nameMax = 64

    /// Nobody to choose from.
    public init() { ingresses = [] }

    public init(parsing text: String) throws(IngressTableError) {
        var ingresses: [Ingress] = []
        var names: Set<String> = []
        var relays: Set<UInt16> = []
        var number = 0
        for line in text.split(omittingEmptySubsequences: false, whereSeparator: { $0 == "\n" || $0 == "\r\n" }) {
            number += 1
            let fields = line.prefix { $0 != "#" }.split { $0 == " " || $0 == "\t" || $0 == "\r" }
            if fields.isEmpty { continue }
            let ingress: Ingress
            do throws(IngressTableError) { ingress = try Ingress(fields) } catch {
                throw IngressTableError(error.reason, line: number)
            }
            guard names.insert(ingress.name).inserted else { throw IngressTableError("\(ingress.name) is given twice", line: number) }
            for relay in ingress.relays where !relays.insert(relay.id).inserted {
                throw IngressTableError("relay id \(relay.id) is given twice", line: number)
            }
            guard ingresses.count < Self.ingressesMax else {
                throw IngressTableError("more than \(Self.ingressesMax) ingresses", line: number)
            }
            ingresses.append(ingress)
        }
        // Not an ordinary state, unlike an empty list of transceivers: it is what a truncated file looks like.
        guard !ingresses.isEmpty else { throw IngressTableError("no ingress in it") }
        self.ingresses = ingresses
    }

    /// The name of the ingress that a relay belongs to.
    public func name(ofRelay id: UInt16) -> String? { ingresses.first { $0.relays.contains { $0.id == id } }?.name }
}

extension Ingress {
    fileprivate init(_ fields: [Substring]) throws(IngressTableError) {
        guard fields.count == 5 || fields.count == 6 else {
            throw IngressTableError("\(fields.count) fields, want name, addresses, latitude, longitude, cluster and perhaps relays")
        }
        name = try Self.name(fields[0])
        addresses = try Self.addresses(fields[1])
        guard let place = Place(latitude: fields[2], longitude: fields[3]) else {
            throw IngressTableError(
                "\"\(shown(fields[2])) \(shown(fields[3]))\" is no latitude from -90 to 90 and longitude from -180 to 180")
        }
        self.place = place
        guard let cluster = decimal(fields[4]) else {
            throw IngressTableError("\"\(shown(fields[4]))\" is not a cluster from 0 to 65535")
        }
        self.cluster = cluster
        var relays: [IngressRelay] = []
        for part in fields.count == 6 ? fields[5].split(separator: ",", omittingEmptySubsequences: false) : [] {
            relays.append(try Self.relay(part))
        }
        self.relays = relays
    }

    private static func name(_ text: Substring) throws(IngressTableError) -> String {
        // It stands in a response header and in metrics.
        let isGood = text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
            default: byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ".")
            }
        }
        guard isGood, text.utf8.count <= IngressTable.nameMax, text != IngressChoice.fallbackName else {
            throw IngressTableError(
                "\"\(shown(text))\" is not a name of letters, digits, '-', '_' and '.', at most \(IngressTable.nameMax) of them; "
                    + "'\(IngressChoice.fallbackName)' is taken")
        }
        return String(text)
    }

    private static func relay(_ text: Substring) throws(IngressTableError) -> IngressRelay {
        let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        guard let id = decimal(parts[0]) else { throw IngressTableError("\"\(shown(parts[0]))\" is not a relay id from 0 to 65535") }
        guard parts.count == 2 else { return IngressRelay(id: id, trunk: nil) }
        guard let trunk = SocketAddress(String(parts[1])), trunk.port != 0, !trunk.ip.isAny, !trunk.ip.isMulticast else {
            throw IngressTableError("\"\(shown(parts[1]))\" is not the ADDRESS:PORT of a trunk")
        }
        return IngressRelay(id: id, trunk: trunk)
    }

    private static func rank(_ address: SocketAddress) -> Int {
        (address.isOverTCP ? 2 : 0) + (address.withoutTransport.ip.isV4 ? 1 : 0)
    }

    private static func addresses(_ text: Substring) throws(IngressTableError) -> [SocketAddress] {
        var addresses: [SocketAddress] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let isTCP = part.hasSuffix("/tcp")
            guard let place = SocketAddress(String(part.dropLast(isTCP ? 4 : 0))), place.port != 0, !place.ip.isAny, !place.ip.isMulticast,
                !place.isOverTCP
            else { throw IngressTableError("\"\(shown(part))\" is not ADDRESS:PORT that clients can send to") }
            let address = isTCP ? place.overTCP : place
            // Every further one that is dead costs a client fifty milliseconds.
            guard !addresses.contains(where: { rank($0) == rank(address) }) else {
                throw IngressTableError("more than one address of a family")
            }
            addresses.append(address)
        }
        return addresses.sorted { rank($0) < rank($1) }
    }
}

private func decimal(_ text: Substring) -> UInt16? {
    guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
    return UInt16(text)
}

/// What of a wrong word stands in a log line.
private func shown(_ text: Substring) -> String {
    String(text.prefix(40).map { $0.isASCII && ($0.isLetter || $0.isNumber || $0.isPunctuation || $0.isSymbol) ? $0 : "?" })
}
