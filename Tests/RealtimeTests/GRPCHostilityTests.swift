import Backend
import Primitives
import Realtime
import TestSupport
import Testing

private let silence = [Int16](repeating: 0, count: 480)

private func answering() -> GRPCWorld {
    let world = GRPCWorld()
    world.settle()
    world.perform(.startResponse(id: "ours", parameters: [:]))
    world.say(Proto().text(1, "response_1").wrapped(2))
    return world
}

@Suite struct HostileGRPCBackends {
    @Test(arguments: [
        // A message that is cut inside itself, a group, a field number of 0, a varint of eleven bytes, a text that is none.
        ("00000000031a0501", "it sends what is no message of swiftlet.v1"), ("000000000113", "it sends what is no message of swiftlet.v1"),
        ("00000000020000", "it sends what is no message of swiftlet.v1"),
        ("000000000c08ffffffffffffffffffff01", "it sends what is no message of swiftlet.v1"),
        ("00000000054a030a01ff", "it sends what is no message of swiftlet.v1"),
        // Half a sample, a rate that nobody has, a field of another type.
        ("00000000051a03120100", "it sends what is no message of swiftlet.v1"),
        ("00000000050a0308b90a", "it sends what is no message of swiftlet.v1"),
        ("00000000020801", "it sends what is no message of swiftlet.v1"),
        // Compressed, of an unknown flag, too long.
        ("0100000000", "it compresses its messages, which nobody asked for"), ("0200000000", "it breaks the gRPC protocol"),
        ("0000100001", "it sends a message of more than 1048576 bytes"), ("00ffffffff", "it sends a message of more than 1048576 bytes"),
    ]) func `what is no message ends the stream, and the call goes on`(text: String, words: String) {
        let world = answering()
        world.send(GRPCWorld.frame(0, 0, 1, bytes(hex: text) ?? []))
        #expect(world.failures() == ["The backend is not there: \(words)."])
        world.pass(.milliseconds(250))
        #expect(world.isOpen)
    }

    @Test(arguments: [
        // DATA on a stream that there is not, a WINDOW_UPDATE of 0 and one beyond all windows, a frame that is too long, SETTINGS of five bytes,
        // an upper-case header, PUSH_PROMISE, CONTINUATION out of nowhere.
        GRPCWorld.frame(0, 0, 5, [0]), GRPCWorld.frame(8, 0, 0, GRPCWorld.big(0)), GRPCWorld.frame(8, 0, 0, GRPCWorld.big(0x7FFF_FFFF)),
        GRPCWorld.frame(0, 0, 1, [UInt8](repeating: 0, count: 16_385)), GRPCWorld.frame(4, 0, 0, [0, 0, 0, 0, 0]),
        GRPCWorld.frame(5, 4, 1, GRPCWorld.big(2)), GRPCWorld.frame(9, 4, 1, []),
    ]) func `who breaks HTTP's rules is left`(bytes: [UInt8]) {
        let world = answering()
        world.send(bytes)
        #expect(world.failures().count == 1)
        world.pass(.milliseconds(250))
        #expect(world.isOpen)
    }

    @Test func `more than the window is never kept`() {
        let world = answering()
        // 70 s of audio, of which 60 wait to be taken, and then as much as the window has.
        for _ in 0..<60 { world.say(audio: [Int16](repeating: 1, count: 24_000)) }
        #expect(world.failures().isEmpty)
        let before = world.window
        world.say(audio: [Int16](repeating: 1, count: 240_000))
        #expect(world.window <= before - 480_000, "the window opens although nothing was taken")
        #expect(world.failures().isEmpty)
        // What goes beyond is against the rules.
        for _ in 0..<20 { world.send(GRPCWorld.frame(0, 0, 1, [UInt8](repeating: 0, count: 16_384))) }
        for _ in 0..<40 { world.send(GRPCWorld.frame(0, 0, 1, [UInt8](repeating: 0, count: 16_384))) }
        #expect(world.failures().count == 1)
    }

    @Test func `a backend that floods is slowed down by the window until its answer was taken`() {
        let world = answering()
        for _ in 0..<75 { world.say(audio: [Int16](repeating: 1, count: 24_000)) }
        // Being slowed down is no silence.
        world.pass(.seconds(15))
        #expect(world.failures().isEmpty)
        let before = world.window
        var frames = 0
        while world.frame() != nil { frames += 1 }
        #expect(frames == 75 * 50)
        #expect(world.window > before, "the window stays closed")
    }

    @Test func `a flood of words costs a bounded queue`() {
        let world = answering()
        let word = GRPCWorld.message(Proto().text(1, "response_1").text(2, "x").wrapped(5))
        let flood = Array(repeatElement(word, count: 600).joined())
        // Nobody takes events meanwhile.
        world.backend.receive(flood.span.bytes, at: world.now)
        var count = 0
        while world.backend.nextEvent() != nil { count += 1 }
        #expect(count == 600)
    }

    @Test func `pings and settings without end are not answered without end`() {
        let world = answering()
        world.isReading = false
        for _ in 0..<5_000 {
            world.backend.receive(GRPCWorld.frame(6, 0, 0, [UInt8](repeating: 7, count: 8)).span.bytes, at: world.now)
            world.backend.receive(GRPCWorld.frame(4, 0, 0, []).span.bytes, at: world.now)
        }
        let count = world.outputCount
        #expect(count < 65_536)
        world.settle()
        #expect(world.failures().count == 1)
    }

    @Test func `a backend that does not read costs a bounded queue, and is told what it missed`() {
        let world = GRPCWorld()
        world.settle()
        world.received = []
        world.isReading = false
        for _ in 0..<1_000 { world.hear(silence) }
        #expect(world.outputCount <= 65_536 && world.counters.framesDropped > 600)
        world.perform(.startResponse(id: "a", parameters: [:]))
        world.pass(.seconds(1))
        #expect(world.events.count == 1, "the client was not told within a second")
        world.isReading = true
        world.hear(silence)
        world.hear(silence)
        let lost = world.received.filter { $0[0] >> 3 == 4 }
        let dropped = world.counters.framesDropped
        let position = UInt64(1_001 - dropped) * 480
        #expect(lost == [GRPCClientMessage.audioLost(position: position, samples: dropped * 480).encoded])
        #expect(world.received.last == GRPCClientMessage.audio(silence, position: 1_001 * 480, isConcealed: false).encoded)
    }

    @Test func `a window that stays closed is the same as not reading`() {
        let world = GRPCWorld()
        world.opensWindows = false
        world.settle()
        for _ in 0..<1_000 { world.hear(silence) }
        #expect(world.counters.framesDropped > 500)
        #expect(world.isOpen)
    }

    @Test func `headers without end are refused`() {
        let world = GRPCWorld()
        var block: [UInt8] = []
        for number in 10..<80 {
            block += [0, 4] + Array("x-\(number)".utf8)
            block += [127] + Proto.varint(1_000 - 127) + [UInt8](repeating: 65, count: 1_000)
        }
        world.greeting = GRPCWorld.frame(4, 0, 0, []) + GRPCWorld.frame(1, 0, 1, Array(block.prefix(16_000)))
        for place in stride(from: 16_000, to: block.count, by: 16_000) {
            world.greeting += GRPCWorld.frame(9, 0, 1, Array(block[place..<min(place + 16_000, block.count)]))
        }
        world.greeting += GRPCWorld.frame(9, 4, 1, [])
        world.settle()
        #expect(world.failures().count == 1)
    }
}

@Suite struct GRPCWire {
    /// Written by Google's library from the same schema.
    @Test func `messages are the same bytes as another library's`() {
        var session = GRPCSession()
        (session.model, session.instructions, session.voice, session.isTextOnly, session.json) = ("m", "Kürzer.", "v", true, "{}")
        let expected: [(GRPCClientMessage, String)] = [
            (
                .sessionStart(callID: "rtc_1", session, isResumed: true),
                "0a210a057274635f3112160a016d12084bc3bc727a65722e1a017620012a027b7d1801"
            ),
            (.sessionUpdate(GRPCSession()), "12020a00"),
            (.audio([0, 1, -1, -32_768], position: 300, isConcealed: true), "1a0f0a0800000100ffff008010ac021801"),
            (.audioLost(position: 1 << 40, samples: 480), "220a0880808080802010e003"), (.turnStarted(position: 0), "2a00"),
            (.turnCommitted(item: "item_1"), "32080a066974656d5f31"), (.inputCleared, "3a00"),
            (
                .itemCreated(id: "item_2", role: "user", text: "hello", json: #"{"a":1}"#),
                "421e0a066974656d5f321204757365721a0568656c6c6f22077b2261223a317d"
            ),
            (.itemDeleted(id: "item_2"), "4a080a066974656d5f32"),
            (.responseCreate(id: "response_1", json: "{}", deadlineMilliseconds: 10_000), "52130a0a726573706f6e73655f3112027b7d18904e"),
            (.responseCancel(id: "response_1"), "5a0c0a0a726573706f6e73655f31"),
            (
                .truncated(response: "response_1", item: "item_3", samples: 4_800),
                "62170a0a726573706f6e73655f3112066974656d5f3318c025"
            ),
        ]
        for (message, text) in expected { #expect(hex(message.encoded) == text) }
    }

    @Test func `messages of another library are read`() throws {
        let read = Dictionary(
            uniqueKeysWithValues: Corpus.files(in: "grpc").map { ($0.name, GRPCServerMessage(parsing: $0.bytes.span.bytes)) })
        let expected: [String: GRPCServerMessage] = [
            "session-ready": .ready(inputRate: 16_000, outputRate: 24_000, takesOpus: false),
            "session-ready-defaults": .ready(inputRate: 24_000, outputRate: 24_000, takesOpus: false),
            "response-started": .responseStarted(response: "response_1"), "response-audio": .audio(response: "response_1", pcm: 16..<80),
            "transcript-delta": .transcriptDelta(response: "response_1", text: "Grüß Gott"),
            "text-delta": .textDelta(response: "response_1", text: "hello"),
            "function-call": .functionCall(response: "response_1", name: "f", callID: "c", arguments: "{}"),
            "response-done": .responseDone(response: "response_1", error: ""),
            "response-failed": .responseDone(response: "response_1", error: "out of words"), "interrupt": .interrupt,
            "input-transcript": .inputTranscript("Is anybody there?"), "error": .error(code: "quota", message: "no more today"),
        ]
        for (name, message) in expected { #expect(read["\(name).hex"] == message, "\(name)") }
    }

    @Test func `mutated messages never trap`() {
        let corpus = Corpus.files(in: "grpc").map(\.bytes)
        for file in corpus { fuzzGRPCMessage(file.span.bytes) }
        mutate(corpus) { fuzzGRPCMessage($0) }
    }

    @Test func `mutated connections never trap, and cost bounded memory`() {
        let corpus = Corpus.files(in: "http2").map(\.bytes)
        for file in corpus { fuzzGRPCBackend(file.span.bytes) }
        mutate(corpus, count: min(mutationCount, 100_000)) { fuzzGRPCBackend($0) }
    }

    @Test func `what is a URL of a backend, and what is none`() throws {
        let far = try #require(GRPCEndpoint("grpcs://ai.example"))
        #expect(far.isSecure && far.host == "ai.example" && far.port == 443)
        let near = try #require(GRPCEndpoint("grpc://[::1]:7000/"))
        #expect(!near.isSecure && near.host == "::1" && near.port == 7_000)
        #expect(GRPCEndpoint("grpc://localhost")?.port == 50_051)
        for url in ["", "grpc:", "grpc://", "http://a", "grpc://a/b", "grpc://u@a", "grpc://a?b", "grpc://a:0", "grpc://a:x", "grpc://a b"]
        {
            #expect(GRPCEndpoint(url) == nil, "\(url)")
        }
    }
}
