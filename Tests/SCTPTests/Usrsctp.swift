import CUsrSCTP
import Glibc
import Primitives
import SCTP

/// The same protocol by other hands: Debian's usrsctp, with packets in memory and our virtual clock. Its state is global, so the tests
/// that use it take turns.
final class UsrPeer {
    enum Role: Sendable { case connects, listens }

    struct Sent {
        var flags = 0
        var lifetime: UInt32?
    }

    /// Guarded by `lock`: usrsctp has a thread of its own that may send.
    private var outgoing: [[UInt8]] = []
    private var lock = pthread_mutex_t()
    private var socket: OpaquePointer?
    private var listening: OpaquePointer?
    private(set) var received: [(stream: UInt16, protocolID: UInt32, bytes: [UInt8])] = []
    /// By the TSN of the message's beginning.
    private var partial: [UInt32: [UInt8]] = [:]
    private(set) var isUp = false
    private(set) var isDown = false
    /// Streams that the peer has reset.
    private(set) var incomingResets: [UInt16] = []
    private(set) var outgoingResets: [UInt16] = []

    private static let started: Bool = {
        precondition(VirtualTimeOfDay.isInPlace, "usrsctp would ask the kernel for the time")
        VirtualTimeOfDay.during { usrsctp_init_nothreads(0, sendPacket, nil) }
        return true
    }()

    init(_ role: Role) {
        precondition(Self.started)
        pthread_mutex_init(&lock, nil)
        let (own, type) = (handle, CInt(SOCK_STREAM.rawValue))
        let made = VirtualTimeOfDay.during { usrsctp_socket(AF_CONN, type, 132, receiveMessage, nil, 0, own) }
        precondition(made != nil)
        usrsctp_register_address(handle)
        configure(made)
        var address = self.address
        let bound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                let bound = usrsctp_bind(made, $0, socklen_t(MemoryLayout<sockaddr_conn>.size))
                guard bound == 0, role == .connects else { return bound }
                let address = $0
                let connected = VirtualTimeOfDay.during { usrsctp_connect(made, address, socklen_t(MemoryLayout<sockaddr_conn>.size)) }
                return connected == 0 || errno == EINPROGRESS ? 0 : connected
            }
        }
        precondition(bound == 0)
        switch role {
        case .connects: socket = made
        case .listens:
            precondition(usrsctp_listen(made, 1) == 0)
            listening = made
        }
    }

    /// Closes without lingering: an ABORT, and the endpoint is gone.
    func abort() {
        for each in [socket, listening] where each != nil {
            var linger = linger(l_onoff: 1, l_linger: 0)
            usrsctp_setsockopt(each, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
            VirtualTimeOfDay.during { usrsctp_close(each) }
        }
        (socket, listening) = (nil, nil)
    }

    deinit {
        abort()
        usrsctp_deregister_address(handle)
        pthread_mutex_destroy(&lock)
    }

    private var handle: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }
    private var address: sockaddr_conn {
        sockaddr_conn(sconn_family: UInt16(AF_CONN), sconn_port: UInt16(5000).bigEndian, sconn_addr: handle)
    }

    private func configure(_ socket: OpaquePointer?) {
        func set<Value: BitwiseCopyable>(_ level: CInt, _ option: CInt, _ value: Value) {
            var value = value
            let done = usrsctp_setsockopt(socket, level, option, &value, socklen_t(MemoryLayout<Value>.size))
            precondition(done == 0, "option \(option): \(errno)")
        }
        usrsctp_set_non_blocking(socket, 1)
        set(132, SCTP_NODELAY, CInt(1))
        set(132, SCTP_ENABLE_STREAM_RESET, sctp_assoc_value(assoc_id: UInt32(SCTP_ALL_ASSOC), assoc_value: 1))
        for type in [SCTP_ASSOC_CHANGE, SCTP_STREAM_RESET_EVENT] {
            set(132, SCTP_EVENT, sctp_event(se_assoc_id: UInt32(SCTP_ALL_ASSOC), se_type: UInt16(type), se_on: 1))
        }
        set(
            132, SCTP_INITMSG,
            sctp_initmsg(sinit_num_ostreams: 300, sinit_max_instreams: 300, sinit_max_attempts: 0, sinit_max_init_timeo: 0))
        set(SOL_SOCKET, SO_SNDBUF, CInt(1 << 20))
        set(SOL_SOCKET, SO_RCVBUF, CInt(1 << 20))
        // In pieces, which it would give out from 64 KiB on, a message may be overtaken by the next one of its stream.
        set(132, SCTP_PARTIAL_DELIVERY_POINT, UInt32(300_000))
    }

    fileprivate func post(_ packet: [UInt8]) {
        pthread_mutex_lock(&lock)
        outgoing.append(packet)
        pthread_mutex_unlock(&lock)
    }

    func transmit() -> [UInt8]? {
        pthread_mutex_lock(&lock)
        defer { pthread_mutex_unlock(&lock) }
        return outgoing.isEmpty ? nil : outgoing.removeFirst()
    }

    func receive(_ packet: [UInt8]) {
        VirtualTimeOfDay.during { usrsctp_conninput(handle, packet, packet.count, 0) }
        guard socket == nil, let listening, let accepted = usrsctp_accept(listening, nil, nil) else { return }
        usrsctp_set_ulpinfo(accepted, handle)
        configure(accepted)
        socket = accepted
        isUp = true
    }

    /// Binary ones.
    var messages: [[UInt8]] { received.filter { $0.protocolID == 53 }.map(\.bytes) }

    /// False: the buffer is full.
    func send(_ bytes: [UInt8], protocolID: UInt32, stream: UInt16, isUnordered: Bool = false, retransmissions: UInt32? = nil) -> Bool {
        var parameters = sctp_sendv_spa()
        parameters.sendv_flags = 1
        parameters.sendv_sndinfo.snd_sid = stream
        parameters.sendv_sndinfo.snd_ppid = protocolID.bigEndian
        parameters.sendv_sndinfo.snd_flags = UInt16(SCTP_EOR) | (isUnordered ? UInt16(SCTP_UNORDERED) : 0)
        if let retransmissions {
            parameters.sendv_flags |= 2
            parameters.sendv_prinfo.pr_policy = UInt16(SCTP_PR_SCTP_RTX)
            parameters.sendv_prinfo.pr_value = retransmissions
        }
        let sent = VirtualTimeOfDay.during {
            usrsctp_sendv(
                socket, bytes, bytes.count, nil, 0, &parameters, socklen_t(MemoryLayout<sctp_sendv_spa>.size), UInt32(SCTP_SENDV_SPA), 0)
        }
        precondition(sent == bytes.count || errno == EWOULDBLOCK, "sendv: \(sent) \(errno)")
        return sent == bytes.count
    }

    /// DATA_CHANNEL_OPEN.
    func openChannel(_ label: String, stream: UInt16, type: UInt8 = 0, limit: UInt8 = 0) -> Bool {
        let name = Array(label.utf8)
        return send([3, type, 0, 0, 0, 0, 0, limit, 0, UInt8(name.count), 0, 0] + name, protocolID: 50, stream: stream)
    }

    func resetOutgoing(_ stream: UInt16) -> Bool {
        var request: [UInt16] = [0, 0, UInt16(SCTP_STREAM_RESET_OUTGOING), 1, stream]
        return VirtualTimeOfDay.during {
            usrsctp_setsockopt(socket, 132, SCTP_RESET_STREAMS, &request, socklen_t(request.count * 2)) == 0
        }
    }

    func shutdown() { _ = VirtualTimeOfDay.during { usrsctp_shutdown(socket, CInt(SHUT_WR)) } }

    fileprivate func take(_ bytes: UnsafeRawBufferPointer, _ info: sctp_rcvinfo, _ flags: CInt) {
        if flags & CInt(MSG_NOTIFICATION) != 0 {
            note(bytes)
            return
        }
        partial[info.rcv_tsn, default: []] += bytes
        if flags & CInt(MSG_EOR) != 0 {
            received.append((info.rcv_sid, UInt32(bigEndian: info.rcv_ppid), partial.removeValue(forKey: info.rcv_tsn) ?? []))
        }
    }

    private func note(_ bytes: UnsafeRawBufferPointer) {
        func u16(_ offset: Int) -> UInt16 { bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self) }
        switch CInt(u16(0)) {
        case SCTP_ASSOC_CHANGE:
            if CInt(u16(8)) == SCTP_COMM_UP { isUp = true } else { isDown = true }
        case SCTP_STREAM_RESET_EVENT:
            for offset in stride(from: 12, to: bytes.count - 1, by: 2) {
                if u16(2) & UInt16(SCTP_STREAM_RESET_INCOMING_SSN) != 0 { incomingResets.append(u16(offset)) }
                if u16(2) & UInt16(SCTP_STREAM_RESET_OUTGOING_SSN) != 0 { outgoingResets.append(u16(offset)) }
            }
        default: break
        }
    }
}

private func sendPacket(
    _ address: UnsafeMutableRawPointer?, _ buffer: UnsafeMutableRawPointer?, _ length: Int, _ service: UInt8, _ fragment: UInt8
) -> CInt {
    guard let address, let buffer else { return 0 }
    Unmanaged<UsrPeer>.fromOpaque(address).takeUnretainedValue().post(Array(UnsafeRawBufferPointer(start: buffer, count: length)))
    return 0
}

private func receiveMessage(
    _ socket: OpaquePointer?, _ from: sctp_sockstore, _ data: UnsafeMutableRawPointer?, _ length: Int, _ info: sctp_rcvinfo,
    _ flags: CInt, _ context: UnsafeMutableRawPointer?
) -> CInt {
    defer { free(data) }
    guard let context, let data else { return 1 }
    Unmanaged<UsrPeer>.fromOpaque(context).takeUnretainedValue().take(UnsafeRawBufferPointer(start: data, count: length), info, flags)
    return 1
}

/// Ours and usrsctp, with a network between them.
final class MixedNetwork {
    let ours: Endpoint
    let theirs: UsrPeer
    var now = Instant(nanoseconds: 3_600_000_000_000)
    var loss = 0.0
    var reordering = 0.0
    private var random: SeededGenerator
    private var underWay: [(at: Instant, toUs: Bool, packet: [UInt8])] = []

    /// - Parameter weInitiate: whether we send INIT; usrsctp then listens or, with `both`, sends one too.
    init(weInitiate: Bool, both: Bool = false, seed: UInt64 = 1) {
        random = SeededGenerator(seed: seed)
        ours = Endpoint(SCTPAssociation(peerMaxMessageSize: 262_144, isClientOfDTLS: true, seed: seed, isPassive: !weInitiate, at: now))
        theirs = UsrPeer(weInitiate && !both ? .listens : .connects)
    }

    private func post(_ packet: [UInt8], toUs: Bool) {
        guard Double.random(in: 0..<1, using: &random) >= loss else { return }
        let late = Double.random(in: 0..<1, using: &random) < reordering
        underWay.append((now + .milliseconds(late ? 15 : 5), toUs, packet))
    }

    /// Runs in steps of 5 ms for `span`, or until `done`; whether it was done.
    @discardableResult
    func run(_ span: Interval, until done: () -> Bool = { false }) -> Bool {
        let end = now + span
        while now < end {
            if done() { return true }
            while let packet = ours.transmit(at: now) { post(packet, toUs: false) }
            while let packet = theirs.transmit() { post(packet, toUs: true) }
            now = now + .milliseconds(5)
            VirtualTimeOfDay.advance(.milliseconds(5))
            VirtualTimeOfDay.during { usrsctp_handle_timers(5) }
            let due = underWay.filter { $0.at <= now }
            underWay.removeAll { $0.at <= now }
            for each in due {
                if each.toUs { ours.receive(each.packet, at: now) } else { theirs.receive(each.packet) }
            }
            ours.sctp.advance(to: now)
            ours.look()
        }
        return done()
    }

    func establish() -> Bool { run(.seconds(30)) { ours.sctp.isEstablished && theirs.isUp } }
}
