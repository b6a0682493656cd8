// The command line, read into a validated struct. What is wrong is named with what was given and what is allowed.

import EventLoop
import Primitives
import RelayCore

struct OptionError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

struct Options {
    var listen: [SocketAddress] = []
    var trunk: SocketAddress?
    var keyFile: String?
    var cluster: UInt16?
    var relayID: UInt16?
    var workers: Int?
    var transceivers: String?
    var metrics: SocketAddress?

    static let usage = """
        usage: swiftlet-relay --listen HOST:PORT… --trunk HOST:PORT --key-file FILE --transceivers WHERE [options]

          --listen HOST:PORT       public UDP address; repeatable, at most 8 ([::]:3478 takes IPv4 too)
          --trunk HOST:PORT        internal UDP address, towards transceivers
          --key-file FILE          written by `swiftlet keys generate`
          --transceivers WHERE     direct:PREFIX:PORT   every IPv4 address in PREFIX is a transceiver
                                   table:FILE           lines of ID ADDRESS:PORT, read again when the file changes
          --cluster N              0 to 65535, as in the hints (0)
          --relay-id N             0 to 65535, unique among relays (0)
          --workers N              1 to 64 (one for each processor)
          --metrics HOST:PORT      HTTP: /metrics, /healthz, /readyz (off)
          --io epoll               how datagrams are moved
          --help, --version

        """

    init(_ arguments: [String]) throws(OptionError) {
        var index = 0
        var seen: Set<String> = []
        while index < arguments.count {
            var name = arguments[index]
            var value: String?
            if let equals = name.firstIndex(of: "=") {
                value = String(name[name.index(after: equals)...])
                name = String(name[..<equals])
            } else if index + 1 < arguments.count {
                index += 1
                value = arguments[index]
            }
            index += 1
            guard Self.names.contains(name) else { throw OptionError("\(name): unknown; see --help") }
            guard let value else { throw OptionError("\(name): want a value") }
            guard seen.insert(name).inserted || name == "--listen" else { throw OptionError("\(name): given twice") }
            try set(name, value)
        }
        if listen.isEmpty { throw OptionError("--listen: missing; want HOST:PORT, such as 0.0.0.0:3478") }
        if trunk == nil { throw OptionError("--trunk: missing; want HOST:PORT, such as 10.0.0.1:3479") }
        if keyFile == nil { throw OptionError("--key-file: missing; make one with `swiftlet keys generate --out FILE`") }
        if transceivers == nil { throw OptionError("--transceivers: missing; want direct:PREFIX:PORT or table:FILE") }
    }

    private static let names: Set<String> = [
        "--listen", "--trunk", "--key-file", "--cluster", "--relay-id", "--workers", "--transceivers", "--metrics", "--io",
    ]

    private mutating func set(_ name: String, _ value: String) throws(OptionError) {
        switch name {
        case "--listen":
            guard listen.count < 8 else { throw OptionError("--listen: at most 8 addresses") }
            listen.append(try Self.address(name, value))
        case "--trunk":
            let address = try Self.address(name, value)
            guard !address.ip.isAny else {
                throw OptionError("--trunk: \(value) is every address; want the internal one, which transceivers answer to")
            }
            trunk = address
        case "--key-file": keyFile = value
        case "--cluster": cluster = UInt16(try Self.number(name, value, 0...65_535))
        case "--relay-id": relayID = UInt16(try Self.number(name, value, 0...65_535))
        case "--workers": workers = try Self.number(name, value, 1...64)
        case "--metrics": metrics = try Self.address(name, value)
        case "--io": guard value == "epoll" else { throw OptionError("--io: \"\(value)\"; want epoll") }
        default:
            guard value.hasPrefix("direct:") || value.hasPrefix("table:") else {
                throw OptionError("--transceivers: \"\(value)\"; want direct:PREFIX:PORT or table:FILE")
            }
            transceivers = value
        }
    }

    private static func address(_ name: String, _ value: String) throws(OptionError) -> SocketAddress {
        guard let address = SocketAddress(value) else {
            throw OptionError("\(name): \"\(value)\"; want an address and a port, such as 192.0.2.1:3478 or [2001:db8::1]:3478")
        }
        return address
    }

    private static func number(_ name: String, _ value: String, _ range: ClosedRange<Int>) throws(OptionError) -> Int {
        guard value.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(value), range.contains(number) else {
            throw OptionError("\(name): \"\(value)\"; want a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }
}

extension TransceiverDirectory {
    /// From the value of `--transceivers`. `stamp` of a table tells whether its file has changed.
    static func load(_ text: String) throws(OptionError) -> (directory: TransceiverDirectory, stamp: FileStamp?) {
        if text.hasPrefix("direct:") {
            do throws(TransceiverDirectoryError) { return (try TransceiverDirectory(parsingDirect: String(text.dropFirst(7))), nil) } catch
            {
                throw OptionError("--transceivers: \(error)")
            }
        }
        let path = String(text.dropFirst(6))
        let stamp = FileStamp(path)
        guard let content = readFile(path, limit: 16 << 20) else { throw OptionError("--transceivers: cannot read \(path)") }
        do throws(TransceiverDirectoryError) {
            return (try TransceiverDirectory(parsingTable: String(decoding: content, as: UTF8.self)), stamp)
        } catch { throw OptionError("--transceivers: \(path): \(error)") }
    }
}
