// Sessions of a WebSocket: a worker with a parrot behind it, in virtual time.
import Primitives
import Realtime
import Testing
import TransceiverCore

private struct Wire: ~Copyable {
    private static let session: UInt32 = 5
    var bench: WorkerBench
    /// What the server has said, and when.
    var events: [(at: Instant, event: JSONValue)] = []

    init(turnDetection: String) throws {
        bench = try WorkerBench.make(backend: .parrot)
        bench.worker.perform(.createWire(session: Self.session, object: SessionObject(), seed: 1), at: bench.now)
        say(#""session.update","session":{"audio":{"input":{"turn_detection":\#(turnDetection)}}}"#)
    }

    /// Sends the event whose type, and the rest, is `text`.
    mutating func say(_ text: String) {
        bench.worker.perform(.clientEvent(session: Self.session, text: Array(#"{"type":\#(text)}"#.utf8)), at: bench.now)
        listen()
    }

    /// Appends so much of a tone, and has it said back.
    mutating func beAnswered(milliseconds: Int) {
        let samples = (0..<(24 * milliseconds)).map { UInt16(truncatingIfNeeded: $0 % 100 * 50) }
        let bytes = samples.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
        say(#""input_audio_buffer.append","audio":"\#(Base64.encode(bytes))""#)
        wait(.milliseconds(200))
        say(#""input_audio_buffer.commit""#)
        say(#""response.create""#)
        wait(.milliseconds(200))
    }

    mutating func wait(_ interval: Interval) {
        let end = bench.now + interval
        while bench.now < end {
            bench.wait(.milliseconds(10))
            listen()
        }
    }

    private mutating func listen() {
        while let event = bench.worker.nextEvent() {
            guard case .serverEvent(_, let text) = event,
                let value = try? JSONValue(parsing: text.span.bytes, limits: .init(bytes: 1 << 20))
            else { continue }
            events.append((bench.now, value))
        }
    }

    func times(_ type: String) -> [Instant] { events.filter { $0.event["type"]?.string == type }.map(\.at) }
}

@Suite struct `A session of a WebSocket` {
    private static let detection = #"{"type":"server_vad","idle_timeout_ms":5000}"#

    /// The client plays the answer itself, in real time: it is over as long after its end was told as it lasts.
    @Test func `a caller who stays silent after an answer has been heard is spoken to`() throws {
        var wire = try Wire(turnDetection: Self.detection)
        wire.beAnswered(milliseconds: 1_000)
        guard let done = wire.times("response.done").first else {
            Issue.record("no answer: \(wire.events.map { $0.event["type"]?.string ?? "?" })")
            return
        }
        wire.wait(.seconds(10))
        guard let idle = wire.times("input_audio_buffer.timeout_triggered").first else {
            Issue.record("nobody speaks up")
            return
        }
        #expect(abs((idle - done).milliseconds - 6_000) <= 40, "\((idle - done).milliseconds) ms")
        let types = wire.events.drop { $0.at < idle }.compactMap { $0.event["type"]?.string }
        #expect(
            types.prefix(5) == [
                "input_audio_buffer.timeout_triggered", "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done",
                "response.created",
            ])
    }

    @Test func `nobody is spoken to in the middle of an answer that was asked for`() throws {
        var wire = try Wire(turnDetection: Self.detection)
        wire.beAnswered(milliseconds: 1_000)
        wire.wait(.milliseconds(5_300))
        wire.beAnswered(milliseconds: 1_000)
        let answers = wire.times("response.done")
        wire.wait(.seconds(20))
        guard answers.count == 2, let idle = wire.times("input_audio_buffer.timeout_triggered").first else {
            Issue.record("nobody speaks up")
            return
        }
        #expect(abs((idle - answers[1]).milliseconds - 6_000) <= 40)
    }

    @Test func `a caller may be left alone`() throws {
        var wire = try Wire(turnDetection: #"{"type":"server_vad","idle_timeout_ms":null}"#)
        wire.beAnswered(milliseconds: 1_000)
        wire.wait(.seconds(40))
        #expect(wire.times("input_audio_buffer.timeout_triggered").isEmpty)
    }
}
