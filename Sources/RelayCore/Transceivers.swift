// Which address a transceiver's number stands for. A hint can only ever choose inside what the operator allowed here.

import Primitives

/// The operator's choice: `direct:PREFIX:PORT` or the content of a table file.
public enum TransceiverDirectory: Hashable, Sendable {
    /// The number is an IPv4 address, and must lie inside the prefix.
    case direct(IPPrefix, port: UInt16)
    /// The number is looked up; sorted by id.
    case table([TransceiverEntry])
}

public struct TransceiverEntry: Hashable, Sendable {
    public let id: UInt32
    public let address: SocketAddress
    public init(id: UInt32, address: SocketAddress) {
        self.id = id
        self.address = address
    }
}

/// Why a directory is refused, as one sentence for the operator.
public struct TransceiverDirectoryError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

extension TransceiverDirectory {
    /// Reads `PREFIX:PORT`, for example `10.0.0.0/8:4000`: what follows `direct:`.
    public init(parsingDirect text: String) throws(TransceiverDirectoryError) {
        guard let colon = text.lastIndex(of: ":") else {
            throw TransceiverDirectoryError("direct: want PREFIX:PORT, such as 10.0.0.0/8:4000")
        }
        guard let prefix = IPPrefix(text[..<colon]) else {
            throw TransceiverDirectoryError("direct: \"\(text[..<colon])\" is not an address prefix such as 10.0.0.0/8")
        }
        guard prefix.base.isV4, prefix.length >= 96 else {
            throw TransceiverDirectoryError("direct: \(prefix) is not IPv4; use table:FILE for IPv6 transceivers")
        }
        guard let port = Self.port(text[text.index(after: colon)...]) else {
            throw TransceiverDirectoryError("direct: \"\(text[text.index(after: colon)...])\" is not a port from 1 to 65535")
        }
        self = .direct(prefix, port: port)
    }

    /// Reads a table: one `ID ADDRESS:PORT` a line, `#` begins a comment, ids from 0 to 4294967295 or as dotted quads.
    public init(parsingTable text: String) throws(TransceiverDirectoryError) {
        var entries: [(entry: TransceiverEntry, line: Int)] = []
        var number = 0
        for line in text.split(omittingEmptySubsequences: false, whereSeparator: { $0 == "\n" || $0 == "\r\n" }) {
            number += 1
            let content = line.prefix { $0 != "#" }
            let fields = content.split { $0 == " " || $0 == "\t" || $0 == "\r" }
            if fields.isEmpty { continue }
            guard fields.count == 2 else {
                throw TransceiverDirectoryError("line \(number): \(fields.count) fields, want an id and ADDRESS:PORT")
            }
            guard let id = Self.id(fields[0]) else {
                throw TransceiverDirectoryError("line \(number): \"\(fields[0])\" is not an id from 0 to 4294967295")
            }
            guard let address = SocketAddress(String(fields[1])), address.port != 0 else {
                throw TransceiverDirectoryError("line \(number): \"\(fields[1])\" is not ADDRESS:PORT")
            }
            guard !address.ip.isAny, !address.ip.isMulticast else {
                throw TransceiverDirectoryError("line \(number): \(address.ip) is nobody's own address")
            }
            entries.append((TransceiverEntry(id: id, address: address), number))
        }
        // An empty table is a relay that waits for its first transceiver; what comes meanwhile is counted as unknown.
        entries.sort { ($0.entry.id, $0.line) < ($1.entry.id, $1.line) }
        for (one, other) in zip(entries, entries.dropFirst()) where one.entry.id == other.entry.id {
            throw TransceiverDirectoryError("line \(other.line): id \(other.entry.id) is given twice, first in line \(one.line)")
        }
        self = .table(entries.map(\.entry))
    }

    private static func id(_ text: Substring) -> UInt32? {
        if let ip = IPAddress(String(text)), ip.isV4 { return ip.v4Bits }
        guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return UInt32(text)
    }

    private static func port(_ text: Substring) -> UInt16? {
        guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let port = UInt16(text), port != 0 else { return nil }
        return port
    }
}

/// A directory in the form in which a worker looks things up: no array, no reference count.
struct TransceiverResolver: ~Copyable {
    private var entries: Slab<TransceiverEntry>
    private let direct: Bool
    private let prefix: IPPrefix?
    private let port: UInt16

    init(_ directory: TransceiverDirectory) {
        switch directory {
        case .direct(let prefix, let port):
            entries = Slab(count: 0) { _ in TransceiverEntry(id: 0, address: SocketAddress(.v4Any, port: 0)) }
            direct = true
            self.prefix = prefix
            self.port = port
        case .table(let table):
            entries = Slab(count: table.count) { table[$0] }
            direct = false
            prefix = nil
            port = 0
        }
    }

    /// The trunk address of transceiver `number`; nil when the operator allows no such one.
    func address(of number: UInt32) -> SocketAddress? {
        if direct {
            let ip = IPAddress(v4: number)
            // Also inside a prefix of /0, these are never one machine's address.
            guard let prefix, prefix.contains(ip), !ip.isAny, !ip.isMulticast, number != .max else { return nil }
            return SocketAddress(ip, port: port)
        }
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low &+ high) / 2
            if entries[middle].id < number { low = middle &+ 1 } else { high = middle }
        }
        return low < entries.count && entries[low].id == number ? entries[low].address : nil
    }
}
