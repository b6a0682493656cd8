// Which relays there are besides this one: for every cluster those that lead to its transceivers, and for the way back the ingress relays.

import Primitives

/// The content of a relays file.
public struct RelayDirectory: Hashable, Sendable {
    public struct Entry: Hashable, Sendable {
        /// As in `ingressRelay` of frames: unique among all relays.
        public let id: UInt16
        public let cluster: UInt16
        /// Of its trunk socket, as this relay reaches it.
        public let address: SocketAddress

        public init(id: UInt16, cluster: UInt16, address: SocketAddress) {
            self.id = id
            self.cluster = cluster
            self.address = address
        }
    }

    /// Sorted by id.
    public private(set) var entries: [Entry] = []

    /// No other relay: every hint must be of our own cluster.
    public init() {}

    /// Reads one `ID CLUSTER ADDRESS:PORT` a line, `#` begins a comment; id and cluster are numbers from 0 to 65535. The relay that reads it may
    /// be among them: all relays can share one file.
    public init(parsing text: String) throws(RelayDirectoryError) {
        var number = 0
        for line in text.split(omittingEmptySubsequences: false, whereSeparator: { $0 == "\n" || $0 == "\r\n" }) {
            number += 1
            let fields = line.prefix { $0 != "#" }.split { $0 == " " || $0 == "\t" || $0 == "\r" }
            if fields.isEmpty { continue }
            guard fields.count == 3 else {
                throw RelayDirectoryError("line \(number): \(fields.count) fields, want an id, a cluster and ADDRESS:PORT")
            }
            guard let id = Self.number(fields[0]) else {
                throw RelayDirectoryError("line \(number): \"\(fields[0])\" is not a relay's id from 0 to 65535")
            }
            guard let cluster = Self.number(fields[1]) else {
                throw RelayDirectoryError("line \(number): \"\(fields[1])\" is not a cluster from 0 to 65535")
            }
            guard let address = SocketAddress(String(fields[2])), address.port != 0, !address.ip.isAny, !address.ip.isMulticast else {
                throw RelayDirectoryError("line \(number): \"\(fields[2])\" is not one machine's ADDRESS:PORT")
            }
            entries.append(Entry(id: id, cluster: cluster, address: address))
        }
        guard entries.count <= Self.countMax else {
            throw RelayDirectoryError("\(entries.count) relays, at most \(Self.countMax) are possible")
        }
        entries.sort { $0.id < $1.id }
        for (one, other) in zip(entries, entries.dropFirst()) where one.id == other.id {
            throw RelayDirectoryError("relay \(one.id) is given twice")
        }
    }

    /// Every worker asks each of them how it is.
    public static let countMax = 1_024

    private static func number(_ text: Substring) -> UInt16? {
        text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? UInt16(text) : nil
    }
}

/// Why a relays file is refused, as one sentence for the operator.
public struct RelayDirectoryError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}
