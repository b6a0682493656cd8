// How a client is reached: its own address, and the relays that stand before it.

/// The way one client datagram came, which is also the way an answer goes back: trunk peer, ingress relay, ingress worker, client.
@frozen public struct NetworkPath: Hashable, Sendable {
    /// The client's public address, as the ingress relay saw it.
    public var client: SocketAddress
    /// The trunk socket that handed us the frame: the ingress relay itself or, with two hops, our cluster's relay.
    public var hop: SocketAddress
    /// The ingress relay's id, unique among all relays.
    public var ingressRelay: UInt16
    /// The worker of the ingress relay that owns the client's flow.
    public var ingressWorker: UInt8

    @inlinable public init(client: SocketAddress, hop: SocketAddress, ingressRelay: UInt16, ingressWorker: UInt8) {
        self.client = client
        self.hop = hop
        self.ingressRelay = ingressRelay
        self.ingressWorker = ingressWorker
    }

    /// Whether both are the same to the client: its own address, and the ingress that it talks to. What lies behind the ingress may differ.
    @inlinable public func isSameWay(as other: NetworkPath) -> Bool { client == other.client && ingressRelay == other.ingressRelay }
}
