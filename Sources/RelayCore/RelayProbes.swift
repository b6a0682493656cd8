// Who lives: pings to relays and transceivers (RelayPeers and TransceiverWatch say when), their pongs, and ours to whoever asks.

import Primitives
import Trunk

extension Relay {
    mutating func queuePong(_ ping: borrowing TrunkFrame, to peer: SocketAddress) {
        guard let probe = ping.probe, !probes.isFull else { return }
        var header = ping.header
        header.kind = .pong
        header.hops = 0
        // A relay that asks waits at a worker of its own; a transceiver has said where it waits.
        if header.ingressRelay != relayID { header.worker = header.ingressWorker }
        probes.append(TrunkProbe(sentAt: probe.sentAt, sequence: probe.sequence, state: .serving), header, trunkKeys.own, to: peer)
    }

    /// Pings for as many of the relays as are due and have room.
    mutating func askPeers(_ now: Instant) {
        peers.advance(to: now)
        var died = false
        while !probes.isFull, let (probe, address) = peers.nextPing(died: &died) {
            let header = TrunkHeader(
                kind: .ping, worker: worker, cluster: cluster, transceiver: 0, ingressRelay: relayID, ingressWorker: worker)
            probes.append(probe, header, trunkKeys.own, to: address)
        }
        if died { trains.seal() }
    }

    /// Pings for as many of the transceivers as are due and have room.
    mutating func askTransceivers(_ now: Instant) {
        var died = false
        while !probes.isFull, let (probe, id, worker, address) = watch.nextPing(died: &died) {
            let header = TrunkHeader(
                kind: .ping, worker: worker, cluster: cluster, transceiver: id, ingressRelay: relayID, ingressWorker: self.worker)
            probes.append(probe, header, trunkKeys.own, to: address)
            if died { beginSweep() }
            died = false
        }
    }

    mutating func heedPong(_ pong: borrowing TrunkFrame, from address: SocketAddress, _ now: Instant) {
        guard let probe = pong.probe else { return }
        // Lanes look again for where they go.
        if peers.receive(probe, from: address, at: now) { trains.seal() }
        if pong.header.cluster == cluster { watch.receive(probe, of: pong.header.transceiver, from: address, at: now) }
    }
}
