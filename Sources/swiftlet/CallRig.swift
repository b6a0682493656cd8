import CBench
import EventLoop
import Glibc
import HTTP
import Primitives
import Simulation

/// Many callers on one socket, each at an address of its own, around one relay and one transceiver.
struct CallRig: ~Copyable {
    private let crowd: Crowd
    private let callers: LoadCallers
    private var calls: Slab<LoadCaller?>
    private let voice: CallVoice
    private let signaling: SocketAddress
    /// nil: the transceiver's defaults.
    private let session: String?
    private var resources: [String?]
    private var packet = ByteSlab(count: 2, slotSize: 2048)
    private(set) var sent = 0
    /// The longest pause between two turns since `beginSecond`: what this side was late by.
    private(set) var latest = Interval.zero
    private var turnedAt = Instant.never

    /// Speaks next, and when the speaking began.
    private var turn = 0
    private var spoken = 0
    private var speaksSince = Instant.never

    static let framesPerSecond = 50
    private static let tick = Interval.milliseconds(1)

    init(relay: SocketAddress, signaling: SocketAddress, calls count: Int, hasDataChannel: Bool, session: String?, voice: CallVoice) throws
    {
        let crowd = try Crowd(first: LoadRig.firstClient, aimedAt: relay)
        let callers = try LoadCallers(hasDataChannel: hasDataChannel, wall: wallClock())
        self.crowd = crowd
        self.callers = callers
        calls = Slab(count: count) { _ in nil }
        resources = [String?](repeating: nil, count: count)
        self.voice = voice
        self.signaling = signaling
        self.session = session
    }

    var ready: Int { count { $0.isReady } }
    var failed: Int { count { $0.hasFailed } }
    var said: Int { total { $0.said } }
    var heard: Int { total { $0.heard } }
    var events: Int { total { $0.events } }
    /// Calls that are neither hung up nor ended by the other side.
    var standing: Int { count { !$0.hasFailed } }
    /// What call `number` has heard; nil when it has ended.
    func heard(by number: Int) -> Int? {
        switch calls[number] {
        case .some(let caller): caller.hasFailed ? nil : caller.heard
        case .none: nil
        }
    }
    mutating func beginSecond() { latest = .zero }
    /// What this side has lost because it was too slow.
    var overflow: Int { Int(crowd_overflow(crowd.pointer)) }

    private func count(_ condition: (borrowing LoadCaller) -> Bool) -> Int { total { condition($0) ? 1 : 0 } }

    private func total(_ value: (borrowing LoadCaller) -> Int) -> Int {
        var sum = 0
        for number in 0..<calls.count {
            switch calls[number] {
            case .some(let caller): sum += value(caller)
            case .none: break
            }
        }
        return sum
    }
}

// MARK: - Signaling

extension CallRig {
    /// Posts the offer of caller `number`, over a connection of its own as a browser does.
    mutating func place(_ number: Int, patience: Interval) throws(CommandError) {
        let offer = callers.offer(UInt32(number))
        var type = "application/sdp"
        var body = Array(offer.utf8)
        if let session {
            let boundary = "swiftletbench"
            type = "multipart/form-data; boundary=\(boundary)"
            let parts = [("sdp", "application/sdp", offer), ("session", "application/json", session)]
            let text = parts.map {
                "--\(boundary)\r\nContent-Disposition: form-data; name=\"\($0.0)\"\r\nContent-Type: \($0.1)\r\n\r\n\($0.2)\r\n"
            }.joined()
            body = Array((text + "--\(boundary)--\r\n").utf8)
        }
        let response = try Fetch.exchange(
            signaling, "POST", "/v1/realtime/calls", headers: HTTPHeaders([("Content-Type", type), ("Connection", "close")]), body: body,
            patience: patience)
        let text = String(decoding: response.body, as: UTF8.self)
        guard response.status == 201, let location = response.headers["Location"],
            let caller = callers.caller(UInt32(number), answer: text, at: MonotonicClock.now())
        else { throw CommandError("call \(number) was answered \(response.status): \(text.prefix(300))", status: 1) }
        calls[number] = consume caller
        resources[number] = location
    }

    mutating func hangUp(_ number: Int, patience: Interval) throws(CommandError) {
        guard let resource = resources[number] else { return }
        resources[number] = nil
        _ = try Fetch.exchange(
            signaling, "POST", resource + "/hangup", headers: HTTPHeaders([("Connection", "close")]), patience: patience)
        calls[number] = nil
    }
}

// MARK: - Turns

extension CallRig {
    /// From now on each caller says a packet every 20 ms, one after the other.
    mutating func startSpeaking() {
        speaksSince = MonotonicClock.now()
        spoken = 0
    }

    mutating func stopSpeaking() { speaksSince = .never }

    /// Turns until the time is over, or `isDone` says so.
    mutating func run(_ duration: Interval, until isDone: (borrowing CallRig) -> Bool = { _ in false }) {
        let end = MonotonicClock.now() + duration
        while true {
            let now = MonotonicClock.now()
            if turnedAt < now { latest = max(latest, now - turnedAt) }
            turnedAt = now
            receive(at: now)
            speak(at: now)
            keep(at: now)
            guard now < end, !isDone(self) else { return }
            crowd_sleep_until((now + Self.tick).nanoseconds)
        }
    }

    private mutating func receive(at now: Instant) {
        for _ in 0..<64 {
            let count = crowd_receive(crowd.pointer)
            guard count > 0 else { return }
            for index in 0..<count {
                let number = Int(crowd_client(crowd.pointer, index))
                let length = Int(crowd_length(crowd.pointer, index))
                guard number < calls.count, length <= 2048, let bytes = crowd_bytes(crowd.pointer, index) else { continue }
                let source = UnsafeRawBufferPointer(start: bytes, count: length)
                Self.hand(source, to: &calls[number], &packet, callers, now)
                // Media has no answer.
                if source[0] & 0xC0 != 0x80 { flush(number, at: now) }
            }
        }
    }

    private static func hand(
        _ source: UnsafeRawBufferPointer, to caller: inout LoadCaller?, _ packet: inout ByteSlab, _ callers: borrowing LoadCallers,
        _ now: Instant
    ) {
        var datagram = packet.mutableBytes(0, 0..<source.count)
        datagram.copy(source.bytes, to: 0)
        caller?.receive(&datagram, callers: callers, at: now)
    }

    /// What is due beside audio.
    private mutating func keep(at now: Instant) {
        for number in 0..<calls.count {
            guard let due = deadline(number), due <= now else { continue }
            calls[number]?.advance(to: now)
            flush(number, at: now)
        }
        crowd_flush(crowd.pointer)
    }

    private func deadline(_ number: Int) -> Instant? {
        switch calls[number] {
        case .some(let caller): caller.nextDeadline
        case .none: nil
        }
    }

    private mutating func flush(_ number: Int, at now: Instant) {
        while true {
            var wrote = false
            let length = packet.write(1, 0..<LoadCaller.datagramMax) { wrote = calls[number]?.nextTransmit(into: &$0, at: now) ?? false }
            guard wrote else { break }
            put(length, from: number)
        }
        crowd_flush(crowd.pointer)
    }

    private mutating func put(_ length: Int, from number: Int) {
        var memory = crowd_next(crowd.pointer, UInt32(number), UInt32(length), 0)
        if memory == nil {
            crowd_flush(crowd.pointer)
            memory = crowd_next(crowd.pointer, UInt32(number), UInt32(length), 0)
        }
        guard let memory else { return }
        packet.bytes(1, length).withUnsafeBytes { UnsafeMutableRawPointer(memory).copyMemory(from: $0.baseAddress!, byteCount: length) }
        sent += 1
    }

    private mutating func speak(at now: Instant) {
        guard speaksSince != .never, now > speaksSince else { return }
        let due = Int((now - speaksSince).microseconds) * calls.count * Self.framesPerSecond / 1_000_000
        // A generator that was held up does not make good for it: callers do not either.
        if due - spoken > calls.count * 5 { spoken = due - calls.count * 5 }
        while spoken < due {
            // Callers are not in step: each begins somewhere else in what all of them say.
            let range = voice.range(spoken / calls.count + turn * 37)
            let length = Self.say(voice, range, &calls[turn], &packet)
            if length > 0 { put(length, from: turn) }
            turn = turn + 1 == calls.count ? 0 : turn + 1
            spoken += 1
        }
        crowd_flush(crowd.pointer)
    }

    private static func say(_ voice: CallVoice, _ range: Range<Int>, _ caller: inout LoadCaller?, _ packet: inout ByteSlab) -> Int {
        var datagram = packet.mutableBytes(1, 0..<LoadCaller.datagramMax)
        return caller?.say(voice.span.bytes(range), into: &datagram) ?? 0
    }
}
