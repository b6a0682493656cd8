// The thread that asks ingresses how they are. Of its own: the control thread answers signaling and has no socket for datagrams.

import Crypto
import EventLoop
import Primitives
import RoutingHint
import Steering
import Synchronization
import Trunk

/// What the thread and the control thread tell each other.
final class IngressProbe: Sendable {
    private struct Shared {
        var table: IngressTable
        var isNew = true
        /// What the thread has not taken yet.
        var keys: KeyRing?
        var reports: [String: IngressReport] = [:]
    }
    private let shared: Mutex<Shared>

    /// Where pongs come back to, on the interface of the trunk.
    init(_ table: IngressTable, on ip: IPAddress, cluster: UInt16, transceiver: UInt32, keys: KeyRing) throws(Errno) {
        shared = Mutex(Shared(table: table))
        let start = Start(socket: try DatagramSocket(boundTo: SocketAddress(ip, port: 0)), probe: self)
        _ = try WorkerThread.start(name: "ingress-probe", with: start) { start in
            let probe = start.probe
            do {
                var loop = try Loop(start.socket, cluster: cluster, transceiver: transceiver, keys: keys)
                while true { loop.turn(probe) }
            } catch {
                complain("swiftlet-transceiver: ingresses are not asked how they are: \(error)")
            }
        }
    }

    private struct Start: ~Copyable, Sendable {
        var socket: DatagramSocket
        let probe: IngressProbe
    }

    func replace(_ table: IngressTable) {
        shared.withLock {
            $0.table = table
            $0.isNew = true
        }
    }

    func replace(_ keys: KeyRing) { shared.withLock { $0.keys = keys } }

    private func takeKeys() -> KeyRing? { shared.withLock { $0.keys.take() } }

    var reports: [String: IngressReport] { shared.withLock { $0.reports } }

    private func takeTable() -> IngressTable? {
        shared.withLock {
            guard $0.isNew else { return nil }
            $0.isNew = false
            return $0.table
        }
    }

    private func publish(_ reports: [String: IngressReport]) { shared.withLock { $0.reports = reports } }

    private struct Loop: ~Copyable {
        private var engine: DatagramEngine
        private let handle: DatagramHandle
        private var received: ReceiveBatch
        private var outgoing: SendBatch
        private var prober: IngressProber
        private var keys: TrunkKeys
        private let cluster: UInt16
        private let transceiver: UInt32

        init(_ socket: consuming DatagramSocket, cluster: UInt16, transceiver: UInt32, keys: KeyRing) throws(Errno) {
            var engine = try DatagramEngine(.epoll, socketCapacity: 1, descriptorCapacity: 4)
            let received = ReceiveBatch(capacity: 32, payloadCapacity: 2_048)
            handle = try engine.add(socket, receivingInto: received, tag: 1)
            self.engine = engine
            self.received = received
            outgoing = SendBatch(capacity: 32, slotSize: 64)
            prober = IngressProber(at: MonotonicClock.now())
            self.keys = TrunkKeys(keys.trunkKey, accepted: keys.acceptedTrunkKey)
            self.cluster = cluster
            self.transceiver = transceiver
        }

        mutating func turn(_ probe: IngressProbe) {
            engine.wait(until: min(prober.nextDeadline, MonotonicClock.now() + .milliseconds(500)))
            while engine.nextEvent() != nil {}
            let now = MonotonicClock.now()
            if let table = probe.takeTable() { prober.replace(table, at: now) }
            if let ring = probe.takeKeys() { keys = TrunkKeys(ring.trunkKey, accepted: ring.acceptedTrunkKey) }
            let count = engine.receive(from: handle, into: &received)
            for number in 0..<count { Self.hear(received, number, &prober, keys, at: now) }
            while let ping = prober.nextPing(at: now) {
                if outgoing.isFull { engine.send(&outgoing, on: handle) }
                append(ping, at: now)
            }
            engine.send(&outgoing, on: handle)
            probe.publish(prober.reports(at: now))
        }

        private static func hear(
            _ received: borrowing ReceiveBatch, _ number: Int, _ prober: inout IngressProber, _ keys: borrowing TrunkKeys,
            at now: Instant
        ) {
            let datagram = received[number]
            guard let frame = try? keys.read(received.bytes(number, 0..<datagram.length)), frame.header.kind == .pong,
                let probe = frame.probe
            else { return }
            prober.receivePong(id: frame.header.ingressRelay, from: datagram.source, sequence: probe.sequence, at: now)
        }

        private mutating func append(_ ping: IngressPing, at now: Instant) {
            let header = TrunkHeader(
                kind: .ping, worker: 0, cluster: cluster, transceiver: transceiver, ingressRelay: ping.relay.id, ingressWorker: 0)
            var storage = InlineArray<64, UInt8>(repeating: 0)
            var span = storage.mutableSpan
            var buffer = span.mutableBytes
            let probe = TrunkProbe(sentAt: now.nanoseconds, sequence: ping.sequence, state: .serving)
            let length = TrunkWriter.write(probe, header, key: keys.own, to: &buffer)
            _ = outgoing.append(to: ping.relay.address) { $0.append(contentsOf: storage.span.bytes.bytes(0..<length)) }
        }
    }
}
