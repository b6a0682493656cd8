import Backend
import Primitives
import Realtime
import TestSupport
import Testing

private let silence = [Int16](repeating: 0, count: 480)

/// A world with a backend that is ready, and nothing of the beginning left.
private func ready(inputRate: Int = 0, outputRate: Int = 0, _ change: (inout GRPCBackendSettings) -> Void = { _ in }) -> GRPCWorld {
    let world = GRPCWorld(inputRate: inputRate, outputRate: outputRate, change)
    world.settle()
    world.received = []
    return world
}

/// The same with a response that the backend has acknowledged.
private func answering(outputRate: Int = 0) -> GRPCWorld {
    let world = ready(outputRate: outputRate)
    world.perform(.startResponse(id: "ours", parameters: [:]))
    world.say(Proto().text(1, "response_1").wrapped(2))
    world.received = []
    return world
}

private func done(_ response: String = "response_1", error: String = "") -> [UInt8] {
    Proto().text(1, response).text(2, error).wrapped(7)
}

private let start = ConversationAction.startResponse(id: "ours", parameters: [:])

@Suite struct TalkingToGRPCBackends {
    @Test func `the request names the service and brings the key, and the session comes first`() {
        let world = GRPCWorld()
        world.settle()
        let (request, kinds, open) = (world.request, world.kinds, world.isOpen)
        #expect(request[":path"] == "/swiftlet.v1.VoiceBackend/Converse" && request[":method"] == "POST" && request[":scheme"] == "https")
        #expect(request[":authority"] == "ai.example" && request["authorization"] == "Bearer sk-1")
        #expect(request["content-type"] == "application/grpc" && request["te"] == "trailers")
        #expect(kinds == [1] && open)
        var session = GRPCSession()
        session.model = "swiftlet"
        session.voice = "alloy"
        session.json = SessionObject().json(id: "").text
        #expect(world.received == [GRPCClientMessage.sessionStart(callID: "rtc_1", session, isResumed: false).encoded])
    }

    @Test func `what the client sets goes through`() throws {
        let world = ready()
        try world.session.apply(
            try JSONValue(parsing: #"{"instructions":"Kurz.","output_modalities":["text"]}"#), abilities: GRPCBackend.abilities)
        world.perform(.sessionChanged)
        var session = GRPCSession()
        (session.model, session.voice, session.instructions, session.isTextOnly) = ("swiftlet", "alloy", "Kurz.", true)
        session.json = world.session.json(id: "").text
        #expect(world.received == [GRPCClientMessage.sessionUpdate(session).encoded])
    }

    @Test func `a turn's audio comes before its end, every sample with its place and its loss`() {
        let world = ready()
        let frames = (0..<3).map { frame in (0..<480).map { Int16(frame * 480 + $0) } }
        world.hear(frames[0])
        world.hear(frames[1], isConcealed: true)
        world.backend.speechStarted(milliseconds: 30)
        world.hear(frames[2])
        world.perform(.turnCommitted(item: "item_1"))
        world.perform(.startResponse(id: "ours", parameters: ["instructions": "now"]))
        let expected: [GRPCClientMessage] = [
            .audio(frames[0], position: 0, isConcealed: false), .audio(frames[1], position: 480, isConcealed: true),
            .turnStarted(position: 720), .audio(frames[2], position: 960, isConcealed: false), .turnCommitted(item: "item_1"),
            .responseCreate(id: "response_1", json: #"{"instructions":"now"}"#, deadlineMilliseconds: 10_000),
        ]
        #expect(world.received == expected.map(\.encoded))
    }

    @Test func `what is said before the backend is ready waits for it, in order`() {
        let world = GRPCWorld(inputRate: 16_000)
        // No more than an HTTP/2 connection.
        let ready = Array(world.greeting.dropFirst(9))
        world.greeting.removeLast(ready.count)
        world.settle()
        for _ in 0..<5 { world.hear(silence) }
        world.backend.speechStarted(milliseconds: 30)
        world.perform(.turnCommitted(item: "i"))
        world.perform(start)
        #expect(world.kinds == [1])
        world.send(ready)
        #expect(world.kinds == [1, 3, 3, 3, 3, 3, 5, 6, 10])
        #expect(world.received.dropFirst(6).first == GRPCClientMessage.turnStarted(position: 480).encoded)
    }

    @Test(arguments: [8_000, 16_000, 48_000]) func `a backend gets the rate that it asks for`(rate: Int) {
        let world = ready(inputRate: rate, outputRate: rate)
        for _ in 0..<50 { world.hear([Int16](repeating: 1_000, count: 480)) }
        // Length fields and positions aside, a second of 16-bit samples.
        let bytes = world.received.reduce(0) { $0 + $1.count }
        #expect(bytes > 2 * rate && bytes < 2 * rate + 50 * 20)
        world.perform(start)
        world.say(audio: [Int16](repeating: 1_000, count: rate))
        world.say(done())
        var answer: [Int16] = []
        while let frame = world.frame() { answer += frame }
        #expect(answer.count == 24_000 && answer[12_000] > 950 && answer[12_000] < 1_050)
    }

    /// Before it has said so the backend gets PCM; afterwards every packet once, with its place, and losses and silence told apart.
    @Test func `a backend that decodes by itself gets the caller's Opus as it came`() {
        let world = GRPCWorld()
        let plain = Array(world.greeting.dropLast(Self.greetingSize(inputRate: 0, outputRate: 0)))
        world.greeting = plain + GRPCWorld.message(Proto().number(1, 48_000).number(3, 1).wrapped(1))
        let early = world.backend.wantsPackets
        world.settle()
        world.received.removeAll()
        let wants = world.backend.wantsPackets
        #expect(!early && wants)
        let packet: [UInt8] = [0x78, 1, 2, 3]
        world.backend.hear(packet: packet.span.bytes, samples: 960, isLost: false)
        world.backend.hear(packet: RawSpan(), samples: 960, isLost: true)
        world.backend.hear(packet: RawSpan(), samples: 480, isLost: false)
        world.backend.speechStarted(milliseconds: 20)
        world.backend.hear(packet: packet.span.bytes, samples: 960, isLost: false)
        world.settle()
        let audio = { (body: Proto) in Proto().data(3, body.bytes).bytes }
        #expect(
            world.received == [
                audio(Proto().data(4, packet).number(5, 960)), audio(Proto().number(2, 960).number(3, 1).number(5, 960)),
                audio(Proto().number(2, 1_920).number(5, 480)), GRPCClientMessage.turnStarted(position: 960).encoded,
                audio(Proto().number(2, 2_400).data(4, packet).number(5, 960)),
            ])
        // Another stream may be another backend.
        world.cut()
        let again = world.backend.wantsPackets
        #expect(!again)
    }

    private static func greetingSize(inputRate: Int, outputRate: Int) -> Int {
        GRPCWorld.message(Proto().number(1, inputRate).number(2, outputRate).wrapped(1)).count
    }

    @Test func `an answer comes as frames and events, and ends with its last sample`() {
        let world = answering()
        world.say(Proto().text(1, "response_1").text(2, "Hallo").wrapped(4))
        world.say(audio: (0..<700).map { Int16($0) })
        world.say(done())
        let before = world.takeEvents()
        #expect(before == [.transcriptDelta("Hallo"), .audioStarted])
        #expect(world.frame() == (0..<480).map { Int16($0) })
        let middle = world.takeEvents()
        #expect(middle.isEmpty)
        #expect(world.frame() == (480..<960).map { $0 < 700 ? Int16($0) : 0 })
        let end = world.takeEvents()
        #expect(end == [.responseDone])
        #expect(world.frame() == nil)
    }

    @Test func `texts, functions, transcripts, errors and interruptions come through`() {
        let world = answering()
        world.say(Proto().text(1, "response_1").text(2, "Hi").wrapped(5))
        world.say(Proto().text(1, "response_1").text(2, "f").text(3, "c").text(4, "{}").wrapped(6))
        world.say(Proto().text(1, "Is anybody there?").wrapped(9))
        world.say(Proto().text(1, "quota").text(2, "no more today").wrapped(10))
        world.say(Proto().wrapped(8))
        // Of a later version of the schema.
        world.say(Proto().text(1, "?").wrapped(99))
        let events = world.takeEvents()
        #expect(
            Array(events.prefix(3)) == [
                .textDelta("Hi"), .functionCall(name: "f", callID: "c", arguments: "{}"), .inputTranscript("Is anybody there?"),
            ])
        guard events.count == 5, case .passThrough(let error) = events[3] else {
            Issue.record("\(events)")
            return
        }
        #expect(error["error"]?["code"] == "quota" && error["error"]?["message"] == "no more today" && events[4] == .interrupted)
    }

    @Test func `items go to the backend with their text`() {
        let world = ready()
        let item: JSONValue = ["id": "i", "type": "message", "role": "user", "content": [["type": "input_text", "text": "Hallo"]]]
        world.perform(.itemCreated(item))
        world.perform(.itemDeleted(id: "i"))
        world.perform(.clearInput)
        let expected: [GRPCClientMessage] = [
            .itemCreated(id: "i", role: "user", text: "Hallo", json: item.text), .itemDeleted(id: "i"), .inputCleared,
        ]
        #expect(world.received == expected.map(\.encoded))
    }

    @Test func `an interruption cancels, tells the sample, and drops what is still on its way`() {
        let world = answering(outputRate: 16_000)
        world.say(audio: [Int16](repeating: 5, count: 16_000))
        _ = world.frame()
        _ = world.takeEvents()
        world.perform(.cancelResponse)
        world.perform(.clearOutput)
        world.perform(.truncated(item: "item_ours", audioEndMilliseconds: 20))
        world.say(audio: [Int16](repeating: 6, count: 960))
        world.say(done())
        #expect(world.frame() == nil)
        #expect(world.takeEvents().isEmpty)
        let expected: [GRPCClientMessage] = [
            .responseCancel(id: "response_1"), .truncated(response: "response_1", item: "item_ours", samples: 320),
        ]
        #expect(world.received == expected.map(\.encoded))
        world.perform(start)
        world.say(audio: [Int16](repeating: 7, count: 480))
        world.say(audio: [Int16](repeating: 8, count: 16_000), response: "response_2")
        #expect(world.frame()?.last == 8)
    }

    @Test func `a backend that interrupts ends what is said`() throws {
        let world = answering()
        var conversation = Conversation(session: world.session, abilities: GRPCBackend.abilities, seed: 1)
        conversation.begin()
        conversation.hear(.speechStarted(milliseconds: 0))
        conversation.hear(.speechStopped(milliseconds: 200))
        conversation.receive(.audioStarted)
        conversation.playout(.started)
        while conversation.nextAction() != nil {}
        conversation.receive(.interrupted)
        #expect(conversation.nextAction() == .cancelResponse)
        #expect(conversation.nextAction() == .clearOutput)
    }
}

@Suite struct GRPCBackendsThatFail {
    @Test func `a stream that breaks fails the response at once, and is opened again`() {
        let world = answering()
        world.say(audio: [Int16](repeating: 1, count: 960))
        _ = world.takeEvents()
        world.cut()
        #expect(world.failures() == ["The backend is not there: the connection was lost."])
        #expect(world.frame() == nil)
        world.pass(.milliseconds(250))
        let (streams, open) = (world.streams, world.isOpen)
        // The second stream says that there was another before.
        #expect(streams == 2 && open && world.kinds == [1] && world.received[0].suffix(2) == [0x18, 1])
        world.perform(start)
        #expect(world.kinds.last == 10)
        #expect(world.takeEvents().isEmpty)
    }

    @Test func `attempts become rare, and the client is told once`() {
        let world = GRPCWorld()
        world.isReachable = false
        world.settle()
        for limit in [Int64(250), 500, 1_000, 2_000, 30_000, 30_000] {
            let before = world.now
            world.now = world.backend.nextDeadline.instant
            let wait = (world.now - before).milliseconds
            #expect(wait >= limit / 2 - 1 && wait <= limit)
            world.settle()
        }
        #expect(world.streams == 7)
        #expect(world.failures() == ["The backend is not there: nobody listens."])
        world.perform(start)
        #expect(world.failures() == ["The backend is not there; it has failed 7 times in a row."])
        let dropped = world.counters.framesDropped
        world.hear(silence)
        #expect(world.counters.framesDropped == dropped + 1)
    }

    @Test(arguments: [
        (GRPCWorld.headers([(":status", "401")], end: true), "it refuses our key"),
        (GRPCWorld.headers([(":status", "502"), ("content-type", "text/html")]), "it answers with HTTP status 502"),
        (GRPCWorld.headers([(":status", "200"), ("content-type", "text/html")]), "it speaks no gRPC"),
        (GRPCWorld.headers([(":status", "200"), ("content-type", "application/grpc-web")]), "it speaks no gRPC"),
        (GRPCWorld.headers([(":status", "200")]), "it speaks no gRPC"),
        (
            GRPCWorld.headers([(":status", "200"), ("content-type", "application/grpc+proto"), ("grpc-encoding", "gzip")]),
            "it compresses its messages, which nobody asked for"
        ),
        (
            GRPCWorld.headers([(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")], end: true),
            "it offers no swiftlet.v1.VoiceBackend"
        ),
        (
            GRPCWorld.headers([(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "16")], end: true),
            "it refuses our key"
        ),
        (GRPCWorld.frame(3, 0, 1, GRPCWorld.big(7)), "it has reset the stream with code 7"),
        (Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8), "it speaks no HTTP/2, or breaks its rules"),
    ]) func `a refused stream says why`(bytes: [UInt8], words: String) {
        let world = GRPCWorld()
        world.greeting = (bytes.first == UInt8(ascii: "H") ? [] : GRPCWorld.frame(4, 0, 0, [])) + bytes
        world.settle()
        #expect(world.failures() == ["The backend is not there: \(words)."])
    }

    @Test(arguments: [
        (1, "", "it has cancelled the stream"), (2, "a%20b%C3%BC%0Ac%4", "it has failed with gRPC status 2: a büc%4"),
        (4, "", "it was too slow for itself"), (8, "full", "it is full: full"), (14, "", "it is not available"),
        (0, "", "it has ended the stream"),
        (99, String(repeating: "y", count: 900), "it has failed with gRPC status 99: " + String(repeating: "y", count: 200)),
    ]) func `trailers tell why a stream has ended`(status: Int, text: String, words: String) {
        let world = answering()
        world.send(GRPCWorld.trailers(status, text))
        #expect(world.failures() == ["The backend is not there: \(words)."])
        world.pass(.milliseconds(250))
        #expect(world.isOpen)
    }

    @Test func `a stream that ends well is heard to the end`() {
        let world = answering()
        world.say(audio: [Int16](repeating: 4, count: 960))
        world.say(done())
        world.send(GRPCWorld.trailers(0))
        #expect(world.frame()?.first == 4)
        #expect(world.frame()?.first == 4)
        world.settle()
        let events = world.takeEvents()
        #expect(Array(events.prefix(2)) == [.audioStarted, .responseDone])
    }

    @Test func `a server that wants to be left is left when nothing is being said, and nobody notices`() {
        let world = answering()
        world.send(GRPCWorld.frame(7, 0, 0, GRPCWorld.big(1) + GRPCWorld.big(0)))
        world.say(audio: [Int16](repeating: 4, count: 480))
        world.say(done())
        #expect(world.frame()?.first == 4)
        world.pass(.seconds(1))
        let (streams, open, departures) = (world.streams, world.isOpen, world.counters.departures)
        #expect(streams == 2 && open && departures == 1)
        #expect(world.failures().isEmpty)
    }

    @Test func `a server that goes away without our stream is told as one that is gone`() {
        let world = answering()
        world.send(GRPCWorld.frame(7, 0, 0, GRPCWorld.big(0) + GRPCWorld.big(11)))
        #expect(world.failures().count == 1)
        world.pass(.milliseconds(250))
        #expect(world.isOpen)
    }

    @Test func `a backend that is never ready is given up`() {
        let world = GRPCWorld()
        world.greeting.removeLast(GRPCWorld.message(Proto().number(1, 0).number(2, 0).wrapped(1)).count)
        world.settle()
        world.pass(.milliseconds(4_999))
        #expect(world.failures().isEmpty)
        world.pass(.milliseconds(1))
        #expect(world.failures() == ["The backend is not there: it does not answer."])
    }

    @Test func `a backend that accepts and says nothing is reported within a second, and given up after ten`() {
        let world = ready()
        world.perform(start)
        world.pass(.seconds(1))
        let slow = world.takeEvents()
        guard case .passThrough(let event)? = slow.first else {
            Issue.record("\(slow)")
            return
        }
        #expect(slow.count == 1 && event["error"]?["code"] == "backend_slow")
        world.pass(.milliseconds(8_900))
        #expect(world.takeEvents().isEmpty)
        world.pass(.milliseconds(100))
        #expect(world.failures() == ["The backend is not there: it said nothing for 10 s."])
        world.pass(.seconds(1))
        #expect(world.counters.connections == 2 && world.counters.timeouts == 1)
    }

    @Test func `a backend that falls silent in an answer keeps its stream`() {
        let world = answering()
        world.pass(.seconds(10))
        #expect(world.failures() == ["The backend said nothing for 10 s."])
        #expect(world.received == [GRPCClientMessage.responseCancel(id: "response_1").encoded])
        #expect(world.isOpen)
    }

    @Test func `a failed response says why`() {
        let world = answering()
        world.say(done(error: "out of words"))
        #expect(world.failures() == ["The backend's response failed: out of words"])
        #expect(world.isOpen)
    }

    @Test func `a silent connection is asked whether it lives, and not more often than servers like`() {
        let world = ready()
        func pings() -> Int { world.frames.count { $0.type == 6 && $0.flags == 0 } }
        world.pass(.milliseconds(19_999))
        #expect(pings() == 0)
        world.pass(.milliseconds(1))
        #expect(pings() == 1)
        let ping: [UInt8] = world.frames.last(where: { $0.type == 6 }).map(\.payload) ?? []
        world.send(GRPCWorld.frame(6, 1, 0, ping))
        world.pass(.seconds(300))
        #expect(pings() == 1)
        world.pass(.seconds(10))
        #expect(pings() == 2)
        #expect(world.failures().isEmpty)
        world.pass(.seconds(10))
        #expect(world.failures() == ["The backend is not there: it does not answer."])
    }
}
