// Which transport carries a client's datagrams, said by its address alone, so that everything that is kept by address (flows, paths,
// candidates) and everything that carries addresses (trunk records) keeps clients over UDP and over TCP apart without a word more.

extension SocketAddress {
    /// The same place when it is reached over TCP (RFC 6544): the highest bit of the 16-byte address is the other one.
    ///
    /// Every address that a host can have lies in ::/8 (IPv4 among them), 2000::/3 or fc00::/6; what this makes of them lies in 8000::/8,
    /// a000::/3 and 7c00::/6, where no host is and none can be routed to. So the two never meet.
    @inlinable public var overTCP: SocketAddress { SocketAddress(IPAddress(high: ip.high ^ 1 << 63, low: ip.low), port: port) }

    /// Whether this is an address that `overTCP` makes of one that a host can have.
    @inlinable public var isOverTCP: Bool {
        let first = ip.high >> 56
        return first == 0x80 || first >> 5 == 0b101 || first >> 2 == 0b011111
    }

    /// Where the client is, whichever transport carries its datagrams: what XOR-MAPPED-ADDRESS and people are told.
    @inlinable public var withoutTransport: SocketAddress { isOverTCP ? overTCP : self }
}
