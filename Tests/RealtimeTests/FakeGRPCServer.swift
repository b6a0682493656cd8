import Backend
import CNGHTTP2
import Primitives
import Realtime
import TestSupport
import Testing

/// A protobuf message in the making: the test's own hand, so that it does not believe ours.
struct Proto {
    var bytes: [UInt8] = []

    static func varint(_ value: Int) -> [UInt8] {
        value < 128 ? [UInt8(value)] : [UInt8(value & 0x7F) | 0x80] + varint(value >> 7)
    }
    func number(_ field: Int, _ value: Int) -> Proto { Proto(bytes: bytes + Self.varint(field << 3) + Self.varint(value)) }
    func data(_ field: Int, _ value: [UInt8]) -> Proto {
        Proto(bytes: bytes + Self.varint(field << 3 | 2) + Self.varint(value.count) + value)
    }
    func text(_ field: Int, _ value: String) -> Proto { data(field, Array(value.utf8)) }
    /// As field `field` of a `ServerMessage`.
    func wrapped(_ field: Int) -> [UInt8] { Proto().data(field, bytes).bytes }
}

func pcm(_ samples: [Int16]) -> [UInt8] { samples.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] } }

/// A backend and a gRPC server, both in virtual time, with a stream between them that can be cut. The server's HTTP/2 is written by hand,
/// so that it can also be wrong; only the client's compressed headers are read by nghttp2.
final class GRPCWorld {
    var backend: GRPCBackend
    var now = Instant.zero + .seconds(1)
    var isReachable = true
    /// The server takes what is sent.
    var isReading = true
    /// The server opens its windows again as it reads.
    var opensWindows = true
    /// What is said as soon as a stream is open.
    var greeting: [UInt8] = []
    private(set) var isConnected = false
    private(set) var streams = 0
    /// Of the last stream's request.
    private(set) var request: [String: String] = [:]
    /// Messages that the server got, oldest first.
    var received: [[UInt8]] = []
    /// Frames other than DATA: type, flags, payload.
    private(set) var frames: [(type: UInt8, flags: UInt8, payload: [UInt8])] = []
    var events: [BackendEvent] = []
    var session = SessionObject()
    private var input: [UInt8] = []
    private var body: [UInt8] = []
    private var output: [UInt8] = []
    /// What HTTP/2 allows the server to send.
    private(set) var window = 65_535

    init(seed: UInt64 = 1, inputRate: Int = 0, outputRate: Int = 0, _ change: (inout GRPCBackendSettings) -> Void = { _ in }) {
        guard let endpoint = GRPCEndpoint("grpcs://ai.example") else { fatalError("the URL is good") }
        var settings = GRPCBackendSettings(endpoint: endpoint, key: "sk-1")
        change(&settings)
        greeting =
            Self.frame(4, 0, 0, []) + Self.headers([(":status", "200"), ("content-type", "application/grpc")])
            + Self.message(Proto().number(1, inputRate).number(2, outputRate).wrapped(1))
        backend = GRPCBackend(settings, random: SeededGenerator(seed: seed), at: now)
        backend.setCallID("rtc_1")
        backend.perform(.sessionChanged, session: session, at: now)
    }

    // MARK: - Frames

    static func frame(_ type: UInt8, _ flags: UInt8, _ stream: UInt32, _ payload: [UInt8]) -> [UInt8] {
        let length = UInt32(payload.count)
        return [UInt8(length >> 16 & 0xFF), UInt8(length >> 8 & 0xFF), UInt8(length & 0xFF), type, flags] + big(stream) + payload
    }

    static func big(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) } }

    /// Literal fields without an index (RFC 7541 §6.2.2).
    static func headers(_ fields: [(String, String)], end: Bool = false) -> [UInt8] {
        var block: [UInt8] = []
        for (name, value) in fields {
            block += [0, UInt8(name.utf8.count)] + Array(name.utf8)
            block += (value.utf8.count < 127 ? [UInt8(value.utf8.count)] : [127] + Proto.varint(value.utf8.count - 127)) + Array(value.utf8)
        }
        return frame(1, end ? 5 : 4, 1, block)
    }

    /// A message in as many DATA frames as it needs.
    static func message(_ message: [UInt8], flag: UInt8 = 0) -> [UInt8] {
        let bytes = [flag] + big(UInt32(message.count)) + message
        return stride(from: 0, to: bytes.count, by: 16_384).flatMap {
            frame(0, 0, 1, Array(bytes[$0..<min($0 + 16_384, bytes.count)]))
        }
    }

    static func trailers(_ status: Int, _ text: String = "") -> [UInt8] {
        headers([("grpc-status", "\(status)"), ("grpc-message", text)], end: true)
    }

    // MARK: - The server

    /// Lets bytes flow until nothing moves any more.
    func settle() {
        backend.advance(to: now)
        var isMoving = true
        while isMoving {
            isMoving = false
            while let action = backend.nextStreamAction() {
                isMoving = true
                forget()
                guard action == .open else { continue }
                streams += 1
                if isReachable {
                    isConnected = true
                    output = greeting
                    backend.streamOpened(at: now)
                } else {
                    backend.streamFailed("nobody listens", at: now)
                }
            }
            if isReading, isConnected, backend.outputCount > 0 {
                let bytes = backend.withOutput { $0.array }
                backend.outputSent(bytes.count)
                take(bytes)
                isMoving = true
            }
            if isConnected, !output.isEmpty, backend.wantsInput {
                // In reads of 16 KiB, as a socket gives them.
                let bytes = Array(output.prefix(16_384))
                output.removeFirst(bytes.count)
                backend.receive(bytes.span.bytes, at: now)
                isMoving = true
            }
            while let event = backend.nextEvent() {
                events.append(event)
                isMoving = true
            }
        }
    }

    private func forget() {
        isConnected = false
        input = []
        body = []
        output = []
        window = 65_535
    }

    private func take(_ bytes: [UInt8]) {
        input += bytes
        let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
        if input.starts(with: preface) { input.removeFirst(preface.count) }
        while input.count >= 9 {
            let length = Int(input[0]) << 16 | Int(input[1]) << 8 | Int(input[2])
            guard input.count >= 9 + length else { return }
            take(type: input[3], flags: input[4], stream: input[8], Array(input[9..<(9 + length)]))
            input.removeFirst(9 + length)
        }
    }

    private func take(type: UInt8, flags: UInt8, stream: UInt8, _ payload: [UInt8]) {
        if type != 0 { frames.append((type, flags, payload)) }
        switch type {
        case 0:
            body += payload
            if opensWindows, !payload.isEmpty {
                for stream in [UInt32(0), 1] { output += Self.frame(8, 0, stream, Self.big(UInt32(payload.count))) }
            }
            while body.count >= 5 {
                let length = Int(body[1]) << 24 | Int(body[2]) << 16 | Int(body[3]) << 8 | Int(body[4])
                guard body.count >= 5 + length else { return }
                received.append(Array(body[5..<(5 + length)]))
                body.removeFirst(5 + length)
            }
        case 1: request = Self.inflate(payload)
        case 4 where flags & 1 == 0:
            output += Self.frame(4, 1, 0, [])
            for place in stride(from: 0, to: payload.count, by: 6) where payload[place + 1] == 4 {
                window = payload[(place + 2)..<(place + 6)].reduce(0) { $0 << 8 | Int($1) }
            }
        case 8 where stream == 1: window += payload.reduce(0) { $0 << 8 | Int($1) }
        default: break
        }
    }

    private static func inflate(_ block: [UInt8]) -> [String: String] {
        var inflater: OpaquePointer?
        guard nghttp2_hd_inflate_new(&inflater) == 0 else { fatalError("no inflater") }
        defer { nghttp2_hd_inflate_del(inflater) }
        var fields: [String: String] = [:]
        var place = 0
        while true {
            var field = nghttp2_nv()
            var flags: CInt = 0
            let count = block[place...].withUnsafeBufferPointer {
                nghttp2_hd_inflate_hd2(inflater, &field, &flags, $0.baseAddress, $0.count, 1)
            }
            guard count >= 0 else { fatalError("the client's headers cannot be read") }
            place += count
            if flags & CInt(NGHTTP2_HD_INFLATE_EMIT.rawValue) != 0 {
                let name = String(decoding: UnsafeBufferPointer(start: field.name, count: field.namelen), as: UTF8.self)
                fields[name] = String(decoding: UnsafeBufferPointer(start: field.value, count: field.valuelen), as: UTF8.self)
            }
            if flags & CInt(NGHTTP2_HD_INFLATE_FINAL.rawValue) != 0 { return fields }
        }
    }

    // MARK: - What tests do

    /// The server sends these bytes, and everything flows.
    func send(_ bytes: [UInt8]) {
        output += bytes
        settle()
    }

    func say(_ message: [UInt8]) {
        window -= message.count + 5
        send(Self.message(message))
    }

    func say(audio samples: [Int16], response: String = "response_1") { say(Proto().text(1, response).data(2, pcm(samples)).wrapped(3)) }

    /// The server's end of the stream goes away.
    func cut() {
        forget()
        backend.receiveEnd(at: now)
        settle()
    }

    func perform(_ action: ConversationAction) {
        backend.perform(action, session: session, at: now)
        settle()
    }

    /// Lets time go on from deadline to deadline.
    func pass(_ interval: Interval) {
        let end = now + interval
        while true {
            let next = backend.nextDeadline.instant
            guard next <= end else { break }
            now = max(next, now)
            settle()
        }
        now = end
        settle()
    }

    func hear(_ samples: [Int16], isConcealed: Bool = false) {
        backend.hear(samples.span, isConcealed: isConcealed)
        settle()
    }

    /// The next 20 ms, or nil.
    func frame() -> [Int16]? {
        var frame = [Int16](repeating: -1, count: 480)
        var span = frame.mutableSpan
        guard backend.nextFrame(into: &span) else {
            settle()
            return nil
        }
        settle()
        return frame
    }

    var isOpen: Bool { backend.isOpen }
    var wantsInput: Bool { backend.wantsInput }
    var outputCount: Int { backend.outputCount }
    var counters: GRPCBackendCounters { backend.counters }
    /// The fields' numbers of what was received.
    var kinds: [Int] { received.map { Int($0[0] >> 3) } }

    func takeEvents() -> [BackendEvent] {
        defer { events = [] }
        return events
    }

    func failures() -> [String] { takeEvents().compactMap { if case .failed(let message) = $0 { message } else { nil } } }
}
