// What makes a relay: who it is, whom it knows, and how much it may set aside.

import Primitives
import RoutingHint
import Trunk

/// Everything that makes one worker's relay.
public struct RelayConfiguration: Sendable {
    /// Ours; hints of another cluster are dropped.
    public var cluster: UInt16
    /// Unique among all relays: transceivers address answers by it.
    public var relayID: UInt16
    /// This worker's number, which its trunk socket is steered by.
    public var worker: UInt8
    public var transceivers: TransceiverDirectory
    /// Those of other clusters, and of this one as ingress for others.
    public var relays = RelayDirectory()
    public var peerLimits = PeerLimits()
    /// nil: nobody asks transceivers whether they live.
    public var watchLimits: WatchLimits? = WatchLimits()
    /// Public and trunk addresses of this relay: nothing may come from there, or be sent there.
    public var ownAddresses: [SocketAddress]
    public var flowCapacity: Int
    public var flowLimits = FlowLimits()
    public var hintLifetime = HintLifetime()
    public var trunkMTU = TrunkFormat.defaultMTU
    /// Set where a cache outside is asked about unknown sources; nil for none.
    public var parking: ParkingLimits?
    /// Datagrams that `receive` gets between two drains: as many trains are set aside, 64 KiB each.
    public var batch: Int

    public init(
        cluster: UInt16, relayID: UInt16, worker: UInt8, transceivers: TransceiverDirectory, ownAddresses: [SocketAddress],
        flowCapacity: Int = 262_144, batch: Int = 64
    ) {
        self.cluster = cluster
        self.relayID = relayID
        self.worker = worker
        self.transceivers = transceivers
        self.ownAddresses = ownAddresses
        self.flowCapacity = flowCapacity
        self.batch = batch
    }
}
