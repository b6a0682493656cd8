// ICE candidates: a peer's as read, ours as written (RFC 8839 §5.1).

import Primitives

/// A peer's candidate.
public struct SDPCandidate: Sendable, Equatable {
    public enum Kind: String, Sendable, Equatable { case host, srflx, prflx, relay }

    public var foundation: String
    /// 1 for RTP, 2 for RTCP without multiplexing.
    public var component: UInt16
    /// In lower case: `udp` or `tcp`.
    public var transport: String
    public var priority: UInt32
    /// Nil where a name stands for the address: browsers write `<uuid>.local`. Names are never resolved.
    public var address: SocketAddress?
    public var kind: Kind
}

extension SDPCandidate {
    /// `<foundation> <component> <transport> <priority> <address> <port> typ <kind> …`; nil for anything else.
    init?(_ value: SDPText) {
        let fields = value.fields
        guard fields.count >= 8, let component = fields[1].decimal(upTo: 256), let priority = fields[3].decimal(upTo: UInt64(UInt32.max)),
            let port = fields[5].decimal(upTo: 65_535), fields[6].elementsEqual("typ".utf8), let kind = Kind(rawValue: fields[7].string)
        else { return nil }
        foundation = fields[0].string
        self.component = UInt16(component)
        transport = fields[2].lowercasedString
        self.priority = UInt32(priority)
        address = IPAddress(fields[4].string).map { SocketAddress($0, port: UInt16(port)) }
        self.kind = kind
        guard fields[0].isICE(1...32), transport == "udp" || transport == "tcp" else { return nil }
    }

    /// Our host candidates, the value of one `a=candidate` each, the first preferred (RFC 8445 §5.1.2.1). Those over TCP are passive, and
    /// less preferred than any over UDP (RFC 6544 §4.2): for whom UDP is blocked.
    static func hosts(_ addresses: [SocketAddress]) -> [String] {
        addresses.enumerated().map { index, address in
            let order = UInt32(truncatingIfNeeded: min(index, 8_191))
            guard address.isOverTCP else {
                let priority: UInt32 = 126 << 24 | (65_535 - order) << 8 | 255
                return "\(index + 1) 1 udp \(priority) \(address.ip) \(address.port) typ host"
            }
            // A direction preference of 4, passive, above 13 bits of ours.
            let priority: UInt32 = 90 << 24 | (4 << 13 | (8_191 - order)) << 8 | 255
            let place = address.withoutTransport
            return "\(index + 1) 1 tcp \(priority) \(place.ip) \(place.port) typ host tcptype passive"
        }
    }
}
