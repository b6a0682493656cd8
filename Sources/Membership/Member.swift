public import Primitives

/// What names a transceiver everywhere: the two fields of its routing hints.
public struct MemberID: Hashable, Sendable, CustomStringConvertible {
    public var cluster: UInt16
    public var transceiver: UInt32

    public init(cluster: UInt16, transceiver: UInt32) {
        self.cluster = cluster
        self.transceiver = transceiver
    }

    /// `1/10.0.1.5`; small numbers as numbers.
    public var description: String { "\(cluster)/\(Self.text(transceiver))" }

    /// As an operator writes it: a number, or the IPv4 address that it is.
    public static func text(_ transceiver: UInt32) -> String {
        transceiver < 1 << 24 ? String(transceiver) : IPAddress(v4: transceiver).description
    }
}

/// Whether a transceiver takes calls.
public enum MemberState: String, Sendable, CaseIterable {
    case serving, draining
}

/// A transceiver as it describes itself:
///
///     id=10.0.1.5 cluster=1 trunk=10.0.1.5:3480 signaling=10.0.1.5:8080 capacity=4096 load=17 state=serving
///
/// The order is free; `id` and `signaling` must be there; words that are not known are passed over, so that versions can be mixed.
public struct Member: Hashable, Sendable {
    public var id: MemberID
    public var trunk: SocketAddress?
    public var signaling: SocketAddress
    /// Calls at most, and calls now.
    public var capacity: UInt32 = 0
    public var load: UInt32 = 0
    public var state = MemberState.serving

    public init(id: MemberID, trunk: SocketAddress?, signaling: SocketAddress) {
        self.id = id
        self.trunk = trunk
        self.signaling = signaling
    }

    /// As a line, which parses to the same member.
    public var line: String {
        let trunk = trunk.map { " trunk=\($0)" } ?? ""
        return "id=\(MemberID.text(id.transceiver)) cluster=\(id.cluster)\(trunk) signaling=\(signaling) capacity=\(capacity) load=\(load) "
            + "state=\(state.rawValue)"
    }
}

/// Why a member or a file of them is refused, as one sentence for the operator.
public struct MemberError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Counted from 1; nil for a member by itself.
    public let line: Int?
    public let reason: String
    public var description: String { line.map { "line \($0): \(reason)" } ?? reason }

    init(_ reason: String, line: Int? = nil) {
        self.line = line
        self.reason = reason
    }
}

extension Member {
    /// The longest line.
    public static let lineMax = 1_024

    public init(parsing line: some StringProtocol) throws(MemberError) {
        guard line.utf8.count <= Self.lineMax else { throw MemberError("longer than \(Self.lineMax) bytes") }
        var words: [Substring: Substring] = [:]
        for word in Substring(line).split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\r" }) {
            guard let equals = word.firstIndex(of: "=") else { throw MemberError("\"\(shown(word))\" is not NAME=VALUE") }
            guard words.updateValue(word[word.index(after: equals)...], forKey: word[..<equals]) == nil else {
                throw MemberError("\(shown(word[..<equals])) is given twice")
            }
        }
        guard let signaling = try Self.address("signaling", words) else { throw MemberError("signaling=ADDRESS:PORT is missing") }
        guard let id = words["id"] else { throw MemberError("id=A.B.C.D or id=N is missing") }
        guard let transceiver = Self.transceiver(id) else { throw MemberError("id=\(shown(id)) is no IPv4 address and no 32-bit number") }
        self.init(
            id: MemberID(cluster: try Self.number("cluster", words) ?? 0, transceiver: transceiver),
            trunk: try Self.address("trunk", words), signaling: signaling)
        capacity = try Self.number("capacity", words) ?? 0
        load = try Self.number("load", words) ?? 0
        guard let word = words["state"] else { return }
        guard let state = MemberState(rawValue: String(word)) else {
            throw MemberError("state=\(shown(word)) must be \(MemberState.allCases.map(\.rawValue).joined(separator: " or "))")
        }
        self.state = state
    }

    private static func address(_ name: Substring, _ words: [Substring: Substring]) throws(MemberError) -> SocketAddress? {
        guard let text = words[name] else { return nil }
        guard let address = SocketAddress(String(text)), address.port != 0, !address.ip.isAny, !address.ip.isMulticast else {
            throw MemberError("\(name)=\(shown(text)) is not ADDRESS:PORT that others can reach")
        }
        return address
    }

    private static func number<Number: FixedWidthInteger>(
        _ name: Substring, _ words: [Substring: Substring]
    ) throws(MemberError) -> Number? {
        guard let text = words[name] else { return nil }
        guard isDecimal(text), let number = Number(text) else {
            throw MemberError("\(name)=\(shown(text)) is not a whole number from 0 to \(Number.max)")
        }
        return number
    }

    private static func transceiver(_ text: Substring) -> UInt32? {
        if let ip = IPAddress(text), ip.isV4 { return ip.v4Bits }
        return isDecimal(text) ? UInt32(text) : nil
    }

    /// Reads a file: one member a line, `#` begins a comment. Empty is allowed: nobody is there yet.
    public static func file(parsing text: String) throws(MemberError) -> [Member] {
        var members: [Member] = []
        var known: Set<MemberID> = []
        var number = 0
        for line in text.split(omittingEmptySubsequences: false, whereSeparator: { $0 == "\n" || $0 == "\r\n" }) {
            number += 1
            let content = line.prefix { $0 != "#" }
            if content.allSatisfy(\.isWhitespace) { continue }
            let member: Member
            do throws(MemberError) { member = try Member(parsing: content) } catch { throw MemberError(error.reason, line: number) }
            guard known.insert(member.id).inserted else { throw MemberError("\(member.id) is given twice", line: number) }
            members.append(member)
        }
        return members
    }
}

private func isDecimal(_ text: Substring) -> Bool { !text.isEmpty && text.utf8.allSatisfy { (0x30...0x39).contains($0) } }

/// What of a wrong word stands in a log line.
private func shown(_ text: Substring) -> String {
    String(text.prefix(40).map { $0.isASCII && !$0.isWhitespace && $0 >= " " && $0 != "\u{7F}" ? $0 : "?" })
}
