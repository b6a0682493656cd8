// Addresses that are no client's: our own, and those that nobody has or not only one machine.

import Primitives

struct ForbiddenAddresses: ~Copyable {
    private var own: Slab<SocketAddress>
    /// A bit for each of their ports, by its lowest six bits: most clients are told from us by it alone.
    private let ownPorts: UInt64

    init(own: [SocketAddress]) {
        self.own = Slab(count: own.count) { own[$0] }
        ownPorts = own.reduce(0) { $0 | 1 << UInt64($1.port & 63) }
    }

    /// Why nothing may come from there, or go there; nil for what may be a client.
    func refusal(of address: SocketAddress) -> RelayDropReason? {
        guard Self.mayBeAClient(address) else { return .impossibleSource }
        for index in 0..<own.count where own[index] == address { return .ownAddress }
        return nil
    }

    /// Whether it may be one of ours; false for nearly every client.
    @inline(__always)
    func mayBeOurs(_ address: SocketAddress) -> Bool { ownPorts >> UInt64(address.port & 63) & 1 != 0 }

    /// Somebody, and not many.
    @inline(__always)
    static func mayBeAClient(_ address: SocketAddress) -> Bool {
        let ip = address.ip
        if ip.isV4 { return address.port != 0 && ip.v4Bits != 0 && ip.v4Bits >> 28 != 0xE }
        return address.port != 0 && ip.high | ip.low != 0 && ip.high >> 56 != 0xFF
    }
}
