import EventLoop
import Glibc
import Primitives
import RoutingHint
import Trunk

/// `swiftlet bench steady`: calls that go on while something happens to their relay. It is client and transceiver at once: every packet
/// has a number, so that it is known which were lost, which came twice, and how long each call heard nothing.
enum SteadyBench {
    static let help = """
        usage: swiftlet bench steady --relay HOST:PORT --trunk HOST:PORT --key-file FILE [--flows N] [--seconds N]

        Flows of 50 packets a second through the relay at HOST:PORT (cluster 1, relay id 1), whose transceiver 1 we are at the trunk
        address; each packet is echoed. One line a second, and a line of totals at the end: lost and twice count packets from client to
        transceiver, lost-back and twice-back those that were echoed; gap is the longest that any call heard nothing, in milliseconds.

          --flows N      1…1000 (200: 10,000 packets a second)
          --seconds N    1…3600 (10)
        """

    static func run(_ arguments: [String]) throws {
        let names = ["--relay", "--trunk", "--key-file", "--flows", "--seconds"]
        guard let given = try Arguments(arguments, names: names, help: help) else { return }
        guard let relay = SocketAddress(try given.required("--relay")), let trunk = SocketAddress(try given.required("--trunk")) else {
            throw CommandError("--relay and --trunk must be HOST:PORT")
        }
        let path = try given.required("--key-file")
        guard let content = readFile(path, limit: 65_536) else { throw CommandError("--key-file: cannot read \(path)") }
        let flows = try given.number("--flows", 1...1000, default: 200)
        let seconds = try given.number("--seconds", 1...3600, default: 10)
        var bench = try SteadyCalls(relay, trunk, KeyRing(parsingJSON: content.span.bytes), flows: flows, seconds: seconds)
        try bench.open()
        bench.run()
    }
}

/// What was seen of numbered packets.
private struct Arrivals {
    var seen: [Bool]
    var count = 0
    var twice = 0

    init(_ capacity: Int) { seen = [Bool](repeating: false, count: capacity) }

    mutating func note(_ number: Int) -> Bool {
        guard number < seen.count else { return false }
        if seen[number] {
            twice += 1
            return false
        }
        seen[number] = true
        count += 1
        return true
    }
}

private struct SteadyCalls: ~Copyable {
    private let relay: SocketAddress
    private let flows: Int
    private let seconds: Int
    private var maker: FlowMaker
    private let trunk: DatagramSocket
    private var clients: Slab<DatagramSocket?>
    private var reactor: Reactor
    private var up: Arrivals
    private var back: Arrivals
    private var sent = 0
    private var failed = 0
    /// When each call last heard something.
    private var heard: [Instant]
    private var gap = Interval.zero
    private var gapOfSecond = Interval.zero
    private var lateOfSecond = Interval.zero
    private var buffer = [UInt8](repeating: 0, count: 65_536)
    private var frame = [UInt8](repeating: 0, count: 1400)

    private static let size = 160
    private static let trunkTag = UInt64.max

    init(_ relay: SocketAddress, _ trunk: SocketAddress, _ ring: KeyRing, flows: Int, seconds: Int) throws {
        _ = try Machine.raiseOpenFilesLimit()
        let trunkSocket = try DatagramSocket(boundTo: trunk, options: .init(receiveBufferSize: 4 << 20))
        let reactor = try Reactor(capacity: flows + 8, eventsPerTurn: 256)
        self.relay = relay
        self.flows = flows
        self.seconds = seconds
        maker = FlowMaker(ring: ring)
        self.trunk = trunkSocket
        self.reactor = reactor
        clients = Slab(count: flows) { _ in nil }
        up = Arrivals(flows * 50 * (seconds + 1))
        back = Arrivals(flows * 50 * (seconds + 1))
        heard = []
    }

    /// Opens every flow by an authentic check, and confirms it.
    mutating func open() throws {
        let local = relay.ip.isV4 ? IPAddress.v4Loopback : IPAddress.v6Loopback
        _ = try reactor.register(trunk.descriptor, for: .readable, tag: Self.trunkTag)
        for index in 0..<flows {
            let socket = try DatagramSocket(boundTo: SocketAddress(local, port: 0), options: .init(receiveBufferSize: 1 << 18))
            try socket.connect(to: relay)
            _ = try reactor.register(socket.descriptor, for: .readable, tag: UInt64(index))
            let check = maker.check(session: UInt32(index + 1))
            var isOpen = false
            for _ in 0..<50 where !isOpen {
                _ = send(socket.descriptor.rawValue, check, check.count, 0)
                var entry = pollfd(fd: trunk.descriptor.rawValue, events: Int16(POLLIN), revents: 0)
                poll(&entry, 1, 100)
                isOpen = confirmWaiting() > 0
            }
            guard isOpen else { throw CommandError("the relay at \(relay) forwards no check", status: 1) }
            clients[index] = consume socket
        }
        heard = [Instant](repeating: MonotonicClock.now(), count: flows)
    }

    /// Confirms the flows whose checks have come; how many.
    private mutating func confirmWaiting() -> Int {
        var confirmed = 0
        readTrunk { (record, sequence, header, writer, target) in
            confirmed += 1
            _ = writer.append(client: record.client, session: record.session, payload: RawSpan(), to: &target)
            return .confirm
        }
        return confirmed
    }

    /// Reads what is there, and answers each frame with what `answer` makes of its records.
    private mutating func readTrunk(
        _ answer: (borrowing TrunkRecord, Int?, TrunkHeader, inout TrunkWriter, inout MutableRawSpan) -> TrunkKind
    ) {
        // Ours alone while spans look into them.
        var buffer: [UInt8] = []
        var frame: [UInt8] = []
        swap(&buffer, &self.buffer)
        swap(&frame, &self.frame)
        defer {
            swap(&buffer, &self.buffer)
            swap(&frame, &self.frame)
        }
        let keys = TrunkKeys(maker.ring.trunkKey, accepted: maker.ring.acceptedTrunkKey)
        while true {
            var name = sockaddr_in()
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let count = withUnsafeMutablePointer(to: &name) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    recvfrom(trunk.descriptor.rawValue, &buffer, buffer.count, 0, __SOCKADDR_ARG(__sockaddr__: $0), &length)
                }
            }
            guard count > 0 else { return }
            // Trains come apart by themselves: this socket does not ask for them whole.
            guard var received = try? keys.read(buffer.span.bytes.extracting(0..<count)) else { continue }
            var header = received.header
            guard header.kind == .clientData else { continue }
            var writer = TrunkWriter(limit: frame.count)
            var span = frame.mutableSpan
            var target = span.mutableBytes
            while let record = received.nextRecord() {
                let payload = record.payload
                let sequence = payload.byteCount == Self.size && payload.byte(0) == 0x80 ? Int(payload.u64(8)) : nil
                header.kind = answer(record, sequence, header, &writer, &target)
            }
            guard writer.recordCount > 0 else { continue }
            header.worker = header.ingressWorker
            header.hops = 0
            writer.finish(header, key: keys.own, in: &target)
            withUnsafePointer(to: &name) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    _ = sendto(
                        trunk.descriptor.rawValue, frame, writer.length, 0, __CONST_SOCKADDR_ARG(__sockaddr__: $0), length)
                }
            }
        }
    }

    mutating func run() {
        let start = MonotonicClock.now()
        let total = flows * 50 * seconds
        let spacing = 20_000_000 / Double(flows)
        var lines = 0
        var packet = [UInt8](repeating: 0, count: Self.size)
        packet[0] = 0x80
        while true {
            let now = MonotonicClock.now()
            let elapsed = Double((now - start).nanoseconds)
            if Int(elapsed / 1e9) > lines, lines < seconds {
                lines += 1
                report(lines)
            }
            // What is late is sent late, never left out.
            let due = min(total, Int(elapsed / spacing))
            if due > sent { lateOfSecond = max(lateOfSecond, Interval(nanoseconds: Int64(Double(due - sent) * spacing))) }
            while sent < due { transmit(&packet) }
            if elapsed > Double(seconds) * 1e9 + 1e9 { break }
            reactor.wait(until: start + Interval(nanoseconds: Int64(Double(sent + 1) * spacing)))
            let read = MonotonicClock.now()
            while let event = reactor.nextEvent() {
                if event.tag == Self.trunkTag { echo() } else { hear(Int(event.tag), read) }
            }
        }
        say(
            "total sent \(sent) unsent \(failed) lost \(sent - failed - up.count) twice \(up.twice) lost-back \(up.count - back.count) "
                + "twice-back \(back.twice) gap \(Self.text(gap))")
    }

    private mutating func transmit(_ packet: inout [UInt8]) {
        let flow = sent % flows
        var number = UInt64(sent)
        for place in 0..<8 {
            packet[15 - place] = UInt8(truncatingIfNeeded: number)
            number >>= 8
        }
        sent += 1
        guard case .some(let descriptor) = descriptor(flow), send(descriptor, packet, packet.count, 0) == packet.count else {
            failed += 1
            return
        }
    }

    private func descriptor(_ flow: Int) -> CInt? {
        switch clients[flow] {
        case .some(let socket): socket.descriptor.rawValue
        case .none: nil
        }
    }

    private mutating func echo() {
        var up = up
        self.up = Arrivals(0)
        readTrunk { (record, sequence, header, writer, target) in
            guard let sequence else { return .transceiverData }
            if up.note(sequence) {
                _ = writer.append(client: record.client, session: record.session, payload: record.payload, to: &target)
            }
            return .transceiverData
        }
        self.up = up
    }

    private mutating func hear(_ flow: Int, _ now: Instant) {
        guard let descriptor = descriptor(flow) else { return }
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { return }
            guard count == Self.size, buffer[0] == 0x80 else { continue }
            _ = back.note(Int(buffer.span.bytes.u64(8)))
            let silence = now - heard[flow]
            gap = max(gap, silence)
            gapOfSecond = max(gapOfSecond, silence)
            heard[flow] = now
        }
    }

    private mutating func report(_ second: Int) {
        // A call that hears nothing at all says so, too.
        let now = MonotonicClock.now()
        for flow in 0..<flows { gapOfSecond = max(gapOfSecond, now - heard[flow]) }
        say(
            "second \(second) sent \(sent) arrived \(up.count) echoed \(back.count) twice \(up.twice) twice-back \(back.twice) "
                + "gap \(Self.text(gapOfSecond)) late \(Self.text(lateOfSecond))")
        gapOfSecond = .zero
        lateOfSecond = .zero
    }

    private static func text(_ interval: Interval) -> String {
        let tenths = interval.nanoseconds / 100_000
        return "\(tenths / 10).\(tenths % 10)"
    }
}
