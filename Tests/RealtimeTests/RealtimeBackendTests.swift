import Backend
import HTTP
import Primitives
import Realtime
import TestSupport
import Testing

private let silence = [Int16](repeating: 0, count: 480)

private func messages(_ events: [BackendEvent]) -> [String] {
    events.compactMap { if case .failed(let message) = $0 { message } else { nil } }
}

/// A world with a connected backend and nothing of the connecting left.
private func connected(_ change: (inout RealtimeBackendSettings) -> Void = { _ in }) -> BackendWorld {
    let world = BackendWorld(change)
    world.settle()
    world.received = []
    return world
}

/// The same with a response that the server has named r1.
private func answering() -> BackendWorld {
    let world = connected()
    world.perform(.startResponse(id: "resp_ours", parameters: [:]))
    world.say(#"{"type":"response.created","response":{"id":"r1"}}"#)
    world.received = []
    return world
}

@Suite struct RealtimeServers {
    @Test(arguments: Corpus.files(in: "realtime")) func `whatever a server says, each response ends once`(file: CorpusFile) {
        fuzzRealtimeBackend(file.bytes.span.bytes)
    }

    @Test func `mutations of what servers say are survived`() {
        mutate(Corpus.files(in: "realtime").map(\.bytes), count: mutationCount / 20) { fuzzRealtimeBackend($0) }
    }
}

@Suite struct TalkingToRealtimeBackends {
    @Test func `the handshake brings the key, and the session comes first`() throws {
        let world = BackendWorld()
        world.settle()
        let (authorization, target, types, open) = (world.authorization, world.target, world.types(), world.isOpen)
        #expect(authorization == "Bearer sk-1" && target == "/v1/realtime?model=m" && types == ["session.update"] && open)
        let session = world.received[0]["session"]
        #expect(session?["audio"]?["input"]?["format"] == ["type": "audio/pcm", "rate": 24_000])
        #expect(session?["audio"]?["input"]?["turn_detection"]?.isNull == true)
        #expect(session?["audio"]?["output"]?["voice"] == nil && session?["model"] == nil && session?["id"] == nil)
    }

    @Test func `the server behind us is told who the end user is`() {
        let world = BackendWorld()
        world.session.safetyIdentifier = "hash-of-somebody"
        world.backend.perform(.sessionChanged, session: world.session, at: world.now)
        world.settle()
        #expect(world.user == "hash-of-somebody" && world.types() == ["session.update"])
        #expect(world.received.first?.text.contains("hash-of") == false)
    }

    @Test func `what the client sets goes through`() throws {
        let world = connected()
        let json =
            #"{"instructions":"Kurz.","audio":{"output":{"voice":"marin","speed":1.2},"input":{"format":{"type":"audio/pcmu"},"transcription":{"model":"w"}}},"tools":[{"type":"function","name":"f"}],"max_output_tokens":100}"#
        try world.session.apply(try JSONValue(parsing: json), abilities: RealtimeBackend.abilities)
        world.perform(.sessionChanged)
        let session = world.received.first?["session"]
        #expect(session?["instructions"] == "Kurz." && session?["audio"]?["output"]?["voice"] == "marin")
        #expect(session?["audio"]?["input"]?["format"]?["type"] == "audio/pcm" && session?["max_output_tokens"] == 100)
        #expect(session?["audio"]?["input"]?["transcription"]?["model"] == "w" && session?["transcription"] == nil)
        #expect(session?["tools"]?.array?.count == 1)
    }

    @Test func `a turn's audio is complete before its commit`() {
        let world = connected()
        let frames = (0..<5).map { frame in (0..<480).map { Int16(frame * 480 + $0) } }
        for frame in frames { world.hear(frame) }
        world.perform(.turnCommitted(item: "item_ours"))
        world.perform(.startResponse(id: "resp_ours", parameters: ["instructions": "now"]))
        let types = world.types()
        #expect(
            types == [
                "input_audio_buffer.append", "input_audio_buffer.append", "input_audio_buffer.append", "input_audio_buffer.commit",
                "response.create",
            ])
        let bytes = world.received.compactMap { $0["audio"]?.string }.flatMap { Base64.decode($0) ?? [] }
        #expect(bytes == frames.joined().flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] })
        #expect(world.received.last?["response"] == ["instructions": "now"])
    }

    @Test func `audio that comes before the stream is open waits for it`() {
        let world = BackendWorld()
        world.backend.advance(to: world.now)
        for _ in 0..<4 { world.backend.hear(silence.span) }
        world.backend.perform(.turnCommitted(item: "i"), session: world.session, at: world.now)
        world.settle()
        let types = world.types()
        #expect(types == ["session.update", "input_audio_buffer.append", "input_audio_buffer.append", "input_audio_buffer.commit"])
    }

    @Test func `an answer comes as frames and events, and ends with its last sample`() {
        let world = answering()
        world.say(#"{"type":"response.output_audio_transcript.delta","response_id":"r1","delta":"Hallo"}"#)
        world.say(audio: (0..<700).map { Int16($0) })
        world.say(#"{"type":"response.done","response":{"id":"r1","status":"completed"}}"#)
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

    @Test func `half a sample waits for its other half`() {
        let world = answering()
        let bytes: [UInt8] = (0..<960).map { UInt8(truncatingIfNeeded: $0) }
        for part in [bytes[..<333], bytes[333..<334], bytes[334...]] {
            world.say(#"{"type":"response.audio.delta","response_id":"r1","delta":"\#(Base64.encode(part))"}"#)
        }
        #expect(world.frame() == (0..<480).map { Int16(bitPattern: UInt16(bytes[2 * $0 + 1]) << 8 | UInt16(bytes[2 * $0])) })
    }

    @Test func `functions are called and answered`() {
        let world = answering()
        world.say(
            #"{"type":"response.output_item.done","response_id":"r1","item":{"type":"function_call","name":"f","call_id":"c","arguments":"{}"}}"#
        )
        world.say(#"{"type":"response.done","response":{"id":"r1","status":"completed"}}"#)
        #expect(world.takeEvents() == [.functionCall(name: "f", callID: "c", arguments: "{}"), .responseDone])
        world.perform(
            .itemCreated([
                "id": "item_1", "object": "realtime.item", "status": "completed", "type": "function_call_output", "call_id": "c",
                "output": "7",
            ]))
        #expect(world.received.last?["item"] == ["id": "item_1", "type": "function_call_output", "call_id": "c", "output": "7"])
        world.perform(.itemDeleted(id: "item_1"))
        world.perform(.itemDeleted(id: "item_unknown"))
        #expect(world.types().filter { $0 == "conversation.item.delete" }.count == 1)
    }

    @Test func `an interruption cancels, truncates the backend's item, and drops what is still on its way`() {
        let world = answering()
        world.say(audio: [Int16](repeating: 5, count: 24_000))
        _ = world.frame()
        _ = world.takeEvents()
        world.perform(.cancelResponse)
        world.perform(.truncated(item: "item_ours", audioEndMilliseconds: 20))
        world.say(audio: [Int16](repeating: 6, count: 960))
        world.say(#"{"type":"response.done","response":{"id":"r1","status":"cancelled"}}"#)
        #expect(world.frame() == nil)
        #expect(world.takeEvents().isEmpty)
        let (cancel, truncate) = (world.received[0], world.received[1])
        #expect(cancel["type"] == "response.cancel" && cancel["response_id"] == "r1")
        #expect(truncate["item_id"] == "i1" && truncate["audio_end_ms"] == 20)
    }

    @Test func `a response that was cancelled before it had a name is not taken for the next one`() {
        let world = connected()
        world.perform(.startResponse(id: "a", parameters: [:]))
        world.perform(.cancelResponse)
        world.perform(.startResponse(id: "b", parameters: [:]))
        world.say(#"{"type":"response.created","response":{"id":"r1"}}"#)
        world.say(audio: [Int16](repeating: 1, count: 480))
        world.say(#"{"type":"response.created","response":{"id":"r2"}}"#)
        world.say(audio: [Int16](repeating: 2, count: 480), response: "r2")
        #expect(world.frame()?.first == 2)
        world.say(#"{"type":"error","error":{"code":"response_cancel_not_active","message":"no"}}"#)
        #expect(world.takeEvents() == [.audioStarted])
    }

    @Test func `semantic turns are found by the backend, in the call's time`() throws {
        let world = connected()
        try world.session.apply(
            try JSONValue(parsing: #"{"audio":{"input":{"turn_detection":{"type":"semantic_vad","eagerness":"low"}}}}"#),
            abilities: RealtimeBackend.abilities)
        world.perform(.sessionChanged)
        let detection = world.received.last?["session"]?["audio"]?["input"]?["turn_detection"]
        #expect(detection == ["type": "semantic_vad", "eagerness": "low", "create_response": false, "interrupt_response": false])
        for _ in 0..<50 { world.hear(silence) }
        world.say(#"{"type":"input_audio_buffer.speech_started","audio_start_ms":300,"item_id":"x"}"#)
        let first = world.backend.nextHeard()
        #expect(first == .speechStarted(milliseconds: 300))
        world.perform(.turnCommitted(item: "ours"))
        #expect(!world.types().contains("input_audio_buffer.commit"))
        // A new stream counts from its own beginning.
        world.cut()
        world.pass(.seconds(1))
        world.say(#"{"type":"input_audio_buffer.speech_stopped","audio_end_ms":40,"item_id":"x"}"#)
        let second = world.backend.nextHeard()
        #expect(second == .speechStopped(milliseconds: 1_040))
    }

    @Test func `a whole conversation runs over it`() throws {
        let world = connected()
        var conversation = Conversation(session: world.session, abilities: RealtimeBackend.abilities, seed: 1)
        conversation.begin()
        func settle() {
            while let action = conversation.nextAction() { world.perform(action) }
            for event in world.takeEvents() { conversation.receive(event) }
        }
        for _ in 0..<10 { world.hear(silence) }
        conversation.hear(.speechStarted(milliseconds: 0))
        conversation.hear(.speechStopped(milliseconds: 200))
        settle()
        world.say(#"{"type":"response.created","response":{"id":"r1"}}"#)
        world.say(audio: [Int16](repeating: 1, count: 480))
        world.say(#"{"type":"conversation.item.input_audio_transcription.completed","item_id":"x","transcript":"Hallo?"}"#)
        world.say(#"{"type":"response.done","response":{"id":"r1","status":"completed"}}"#)
        settle()
        _ = world.frame()
        settle()
        var types: [String] = []
        while let event = conversation.nextEvent() { types.append(try JSONValue(parsing: event.span.bytes)["type"]?.string ?? "") }
        #expect(types.contains("conversation.item.input_audio_transcription.completed") && types.last == "response.done")
        #expect(types.contains("response.content_part.added"))
    }
}

@Suite struct BackendsThatFail {
    @Test func `a stream that breaks fails the response at once, and is opened again`() {
        let world = answering()
        world.say(audio: [Int16](repeating: 1, count: 960))
        _ = world.takeEvents()
        world.cut()
        #expect(messages(world.takeEvents()) == ["The backend is not there: the connection was lost."])
        #expect(world.frame() == nil)
        world.pass(.milliseconds(250))
        let (streams, open) = (world.streams, world.isOpen)
        #expect(streams == 2 && open && world.types().last == "session.update")
        world.perform(.startResponse(id: "b", parameters: [:]))
        #expect(world.types().last == "response.create")
        #expect(world.takeEvents().isEmpty)
    }

    @Test func `attempts become rare, differ from call to call, and the client is told once`() {
        var waits: [[Int64]] = []
        for seed in [UInt64(1), 2] {
            let world = BackendWorld(seed: seed)
            world.isReachable = false
            world.settle()
            var mine: [Int64] = []
            for _ in 0..<9 {
                let before = world.now
                world.now = world.backend.nextDeadline.instant
                world.settle()
                mine.append((world.now - before).milliseconds)
            }
            #expect(world.streams == 10)
            let told = messages(world.takeEvents())
            #expect(told == ["The backend is not there: nobody listens."])
            for (wait, limit) in zip(mine, [250, 500, 1_000, 2_000, 30_000, 30_000, 30_000, 30_000, 30_000]) {
                #expect(wait >= limit / 2 - 1 && wait <= limit, "\(mine)")
            }
            waits.append(mine)
        }
        #expect(waits[0] != waits[1])
    }

    @Test func `while nobody is there a response fails at once`() {
        let world = BackendWorld()
        world.isReachable = false
        world.settle()
        _ = world.takeEvents()
        world.perform(.startResponse(id: "a", parameters: [:]))
        #expect(messages(world.takeEvents()) == ["The backend is not there; it is being called again."])
        world.pass(.seconds(10))
        world.perform(.startResponse(id: "b", parameters: [:]))
        #expect(messages(world.takeEvents()).last?.contains("5 times in a row") == true)
        let dropped = world.counters.framesDropped
        world.hear(silence)
        #expect(world.counters.framesDropped == dropped + 1)
    }

    @Test(arguments: [(401, "it refuses our key"), (503, "it answers with HTTP status 503"), (200, "it answers with HTTP status 200")])
    func `a refused handshake says why`(status: Int, words: String) {
        let world = BackendWorld()
        world.status = status
        world.settle()
        #expect(messages(world.takeEvents()) == ["The backend is not there: \(words)."])
    }

    @Test func `a backend that accepts and says nothing is reported within a second, and given up after ten`() {
        let world = connected()
        world.perform(.startResponse(id: "a", parameters: [:]))
        world.pass(.seconds(1))
        let slow = world.takeEvents()
        guard case .passThrough(let event)? = slow.first else {
            Issue.record("\(slow)")
            return
        }
        #expect(slow.count == 1 && event["type"] == "error" && event["error"]?["code"] == "backend_slow")
        world.pass(.milliseconds(8_900))
        #expect(world.takeEvents().isEmpty)
        world.pass(.milliseconds(100))
        #expect(messages(world.takeEvents()) == ["The backend is not there: it said nothing for 10 s."])
        // Another connection may find one that does not hang; what this one still says is nobody's.
        #expect(world.counters.connections == 1 && world.counters.timeouts == 1)
        world.pass(.seconds(1))
        #expect(world.counters.connections == 2)
        #expect(world.frame() == nil)
    }

    @Test func `a stream that nobody opens is given up`() {
        let world = BackendWorld()
        world.backend.advance(to: world.now)
        let action = world.backend.nextStreamAction()
        world.backend.advance(to: world.now + .seconds(5))
        let close = world.backend.nextStreamAction()
        #expect(action == .open && close == .close)
    }

    @Test func `a backend that floods is not read until its answer was taken`() {
        let world = answering()
        for _ in 0..<70 { world.say(audio: [Int16](repeating: 1, count: 24_000)) }
        #expect(!world.wantsInput)
        // Being slowed down is no silence.
        world.pass(.seconds(15))
        #expect(messages(world.events).isEmpty)
        var frames = 0
        while world.frame() != nil { frames += 1 }
        #expect(frames == 70 * 50)
    }

    @Test func `a backend that does not read costs a bounded queue`() {
        let world = connected()
        world.isReading = false
        for _ in 0..<1_000 { world.hear(silence) }
        #expect(world.outputCount <= 320_000 + 100)
        #expect(world.counters.framesDropped > 700)
        world.perform(.startResponse(id: "a", parameters: [:]))
        world.pass(.seconds(1))
        #expect(world.events.count == 1, "the client was not told within a second")
        world.pass(.seconds(9))
        #expect(messages(world.events) == ["The backend is not there: it said nothing for 10 s."])
    }

    @Test func `an error about our request ends the response, another one is handed on`() {
        let world = connected()
        world.perform(.startResponse(id: "a", parameters: [:]))
        let id = world.received.last?["event_id"]?.string ?? ""
        world.say(#"{"type":"error","error":{"type":"invalid_request_error","code":"x","message":"odd","event_id":"other"}}"#)
        world.say(#"{"type":"error","error":{"message":"no model","event_id":"\#(id)"}}"#)
        let events = world.takeEvents()
        guard case .passThrough(let error)? = events.first else {
            Issue.record("\(events)")
            return
        }
        #expect(error["error"]?["message"] == "odd" && error["error"]?["event_id"] == nil)
        #expect(messages(events) == ["The backend refuses to answer: no model"])
    }

    @Test func `a failed response says why`() {
        let world = answering()
        world.say(
            #"{"type":"response.done","response":{"id":"r1","status":"failed","status_details":{"error":{"message":"out of tokens"}}}}"#)
        #expect(messages(world.takeEvents()) == ["The backend's response failed: out of tokens"])
    }

    @Test func `a closed session is made again, and a good one forgives earlier failures`() {
        let world = connected()
        world.pass(.seconds(11))
        world.closeByServer(code: 1001)
        #expect(messages(world.takeEvents()) == ["The backend is not there: it has ended the connection with code 1001."])
        world.pass(.milliseconds(250))
        #expect(world.isOpen)
    }

    @Test func `the end of the call closes the stream`() {
        let world = connected()
        world.backend.finish(at: world.now)
        world.settle()
        world.pass(.seconds(60))
        let deadline = world.backend.nextDeadline.instant
        #expect(!world.isOpen && world.streams == 1 && deadline == .never)
    }

    @Test(arguments: [
        "", "7", "[]", "{}", #"{"type":7}"#, #"{"type":"response.output_audio.delta","response_id":"r1","delta":"!!"}"#,
        #"{"type":"response.output_audio.delta","response_id":"r1","delta":7}"#, #"{"type":"response.done","response":7}"#,
        #"{"type":"response.created"}"#, #"{"type":"error"}"#, #"{"type":"error","error":7}"#,
        #"{"type":"response.output_item.done","response_id":"r1","item":{"type":"function_call"}}"#,
        #"{"type":"input_audio_buffer.speech_started","audio_start_ms":-1}"#, #"{"type":"response.created","response":{"id":{}}}"#,
    ]) func `strange events break nothing`(json: String) {
        let world = answering()
        world.say(json)
        world.sayRaw(binary: [1, 2, 3])
        world.say(audio: [Int16](repeating: 3, count: 480))
        #expect(world.frame()?.first == 3)
        #expect(world.isOpen && messages(world.events).isEmpty)
    }

    @Test func `mutated events keep it alive`() {
        let corpus = [
            #"{"type":"response.output_audio.delta","response_id":"r1","item_id":"i","delta":"AAECAwQF"}"#,
            #"{"type":"response.done","response":{"id":"r1","status":"completed","output":[]}}"#,
            #"{"type":"response.created","response":{"id":"r1"}}"#, #"{"type":"error","error":{"message":"m","event_id":"swiftlet_1"}}"#,
            #"{"type":"response.output_item.done","response_id":"r1","item":{"type":"function_call","name":"f","call_id":"c","arguments":""}}"#,
        ]
        let world = answering()
        var count = 0
        mutate(corpus.map { Array($0.utf8) }, count: min(mutationCount, 5_000)) { bytes in
            count += 1
            if count % 10 == 0 { world.perform(.startResponse(id: "x", parameters: [:])) }
            world.say(String(decoding: bytes.array, as: UTF8.self))
            while world.frame() != nil {}
            _ = world.takeEvents()
            world.received = []
        }
        #expect(world.isOpen)
    }
}

@Suite struct BackendURLs {
    @Test func `what is a Realtime URL, and where it leads`() throws {
        let endpoint = try #require(RealtimeEndpoint("wss://api.openai.com/v1/realtime?model=gpt-realtime"))
        #expect(endpoint.isSecure && endpoint.host == "api.openai.com" && endpoint.port == 443)
        #expect(endpoint.target == "/v1/realtime?model=gpt-realtime" && endpoint.hostField == "api.openai.com")
        let local = try #require(RealtimeEndpoint("ws://[::1]:8081"))
        #expect(!local.isSecure && local.host == "::1" && local.port == 8081 && local.hostField == "[::1]:8081")
        #expect(local.target == "/v1/realtime" && RealtimeEndpoint("ws://h?model=m")?.target == "/v1/realtime?model=m")
    }

    @Test(arguments: [
        "", "https://h/", "wss://", "wss:///x", "wss://u@h/", "wss://h:0/", "wss://h:70000/", "wss://h:x/", "wss://h/#a", "wss://h/ b",
        "wss://[::1/",
        "wss://[1.2.3.4]/", "wss://hö/", "wss://h:/",
    ]) func `what is none`(url: String) {
        #expect(RealtimeEndpoint(url) == nil)
    }
}
