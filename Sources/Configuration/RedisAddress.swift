import Primitives

/// `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`: the server that relays remember flows in; `rediss://…` over TLS. USER and PASSWORD may
/// be percent-encoded.
public struct RedisAddress: Sendable, Equatable {
    /// A name, or an address without brackets.
    public var host: String
    public var usesTLS = false
    public var port: UInt16 = 6379
    public var user: String?
    public var password: String?
    public var database = 0

    /// Why a text is refused; never with the text, which may hold a password.
    public enum Refusal: Error, Equatable {
        case form
    }

    public init(parsing text: String) throws(Refusal) {
        usesTLS = text.hasPrefix("rediss://")
        guard usesTLS || text.hasPrefix("redis://") else { throw .form }
        var rest = text.dropFirst(usesTLS ? 9 : 8)
        if let slash = rest.lastIndex(of: "/"), !rest[slash...].contains("@") {
            let number = rest[rest.index(after: slash)...]
            if !number.isEmpty {
                guard let database = Self.number(number, in: 0...65_535) else { throw .form }
                self.database = database
            }
            rest = rest[..<slash]
        }
        if let at = rest.lastIndex(of: "@") {
            let credentials = rest[..<at]
            rest = rest[rest.index(after: at)...]
            guard let colon = credentials.firstIndex(of: ":") else { throw .form }
            guard let user = Self.decoded(credentials[..<colon]),
                let password = Self.decoded(credentials[credentials.index(after: colon)...]),
                !password.isEmpty
            else { throw .form }
            self.user = user.isEmpty ? nil : user
            self.password = password
        }
        var name = rest
        if rest.hasPrefix("[") {
            guard let end = rest.firstIndex(of: "]") else { throw .form }
            name = rest[rest.index(after: rest.startIndex)..<end]
            rest = rest[rest.index(after: end)...]
            guard IPAddress(String(name)) != nil, rest.isEmpty || rest.hasPrefix(":") else { throw .form }
        } else if let colon = rest.firstIndex(of: ":") {
            name = rest[..<colon]
            rest = rest[colon...]
        } else {
            rest = ""
        }
        if !rest.isEmpty {
            guard let port = Self.number(rest.dropFirst(), in: 1...65_535) else { throw .form }
            self.port = UInt16(port)
        }
        guard !name.isEmpty, name.utf8.count <= 253, name.utf8.allSatisfy(Self.isPartOfHost) else { throw .form }
        host = String(name)
    }

    private static func isPartOfHost(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: ":"): true
        default: false
        }
    }

    private static func number(_ text: Substring, in range: ClosedRange<Int>) -> Int? {
        guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(text), range.contains(number) else { return nil }
        return number
    }

    private static func decoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16), rest.first != 0x2B
            else { return nil }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return String(validating: bytes, as: UTF8.self)
    }
}

/// Where it is, without who we are.
extension RedisAddress: CustomStringConvertible, CustomDebugStringConvertible {
    public var description: String { "\(usesTLS ? "rediss" : "redis")://\(host.contains(":") ? "[\(host)]" : host):\(port)/\(database)" }
    public var debugDescription: String { description }
}
