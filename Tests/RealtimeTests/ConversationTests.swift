import Primitives
import Realtime
import TestSupport
import Testing

/// One conversation with the little that tests need around it.
private struct Talk {
    var conversation: Conversation

    init(semantic: Bool = false) {
        conversation = Conversation(session: SessionObject(), abilities: .init(semanticVAD: semantic), seed: 7)
        conversation.begin()
        _ = drain()
    }

    mutating func say(_ text: String) {
        let bytes = Array(text.utf8)
        conversation.receive(clientEvent: bytes.span.bytes)
    }

    /// All waiting events.
    mutating func drain() -> [JSONValue] {
        var events: [JSONValue] = []
        while let text = conversation.nextEvent() { events.append(try! JSONValue(parsing: text.span.bytes)) }
        return events
    }

    mutating func types() -> [String] { drain().map { $0["type"]?.string ?? "?" } }

    mutating func actions() -> [ConversationAction] {
        var actions: [ConversationAction] = []
        while let action = conversation.nextAction() { actions.append(action) }
        return actions
    }

    /// The first `error` event's inner object.
    mutating func error() -> JSONValue? { drain().first { $0["type"] == "error" }?["error"] }
}

@Suite struct ConversationTests {
    /// A caller speaks, stops, is answered, and the answer plays to its end. The events are those of the API, in its order.
    @Test func `a spoken turn gives the documented events in the documented order`() {
        var talk = Talk()
        talk.conversation.hear(.speechStarted(milliseconds: 100))
        talk.conversation.hear(.speechStopped(milliseconds: 900))
        #expect(
            talk.types() == [
                "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed",
                "conversation.item.added", "conversation.item.done", "response.created",
            ])
        talk.conversation.receive(.audioStarted)
        talk.conversation.playout(.started)
        talk.conversation.receive(.transcriptDelta("hello"))
        talk.conversation.receive(.responseDone)
        talk.conversation.playout(.drained)
        #expect(
            talk.types() == [
                "response.output_item.added", "conversation.item.added", "response.content_part.added", "output_audio_buffer.started",
                "response.output_audio_transcript.delta", "response.output_audio.done", "response.output_audio_transcript.done",
                "response.content_part.done", "response.output_item.done", "conversation.item.done", "response.done",
                "output_audio_buffer.stopped",
            ])
    }

    /// The caller speaks over the answer: the response is cancelled, the buffer cleared, and the item cut where playout really was.
    @Test func `barge-in cancels, clears and truncates at what was really played`() {
        var talk = Talk()
        talk.say(#"{"type":"response.create"}"#)
        talk.conversation.receive(.audioStarted)
        talk.conversation.playout(.started)
        _ = talk.drain()
        _ = talk.actions()
        talk.conversation.hear(.speechStarted(milliseconds: 5000))
        #expect(talk.actions() == [.cancelResponse, .clearOutput])
        talk.conversation.playout(.cleared(playedMilliseconds: 1240))
        let events = talk.drain()
        let types = events.compactMap { $0["type"]?.string }
        #expect(types.first == "input_audio_buffer.speech_started")
        #expect(Array(types.suffix(3)) == ["response.done", "output_audio_buffer.cleared", "conversation.item.truncated"])
        #expect(events.last?["audio_end_ms"] == 1240)
        let done = events.first { $0["type"] == "response.done" }
        #expect(done?["response"]?["status"] == "cancelled" && done?["response"]?["status_details"]?["reason"] == "turn_detected")
        // What the backend still says of the cancelled response changes nothing.
        talk.conversation.receive(.transcriptDelta("late"))
        talk.conversation.receive(.responseDone)
        #expect(talk.drain().isEmpty)
    }

    @Test func `an answer may be spoken over when interruption is off`() {
        var talk = Talk()
        talk.say(
            #"{"type":"session.update","session":{"type":"realtime","audio":{"input":{"turn_detection":{"type":"server_vad","interrupt_response":false}}}}}"#
        )
        talk.say(#"{"type":"response.create"}"#)
        talk.conversation.receive(.audioStarted)
        _ = talk.actions()
        talk.conversation.hear(.speechStarted(milliseconds: 1))
        #expect(talk.actions().isEmpty)
    }

    /// With `turn_detection: null` the client commits and asks; an empty buffer cannot be committed.
    @Test func `push-to-talk commits what was heard and refuses to commit nothing`() {
        var talk = Talk()
        talk.say(#"{"type":"session.update","session":{"type":"realtime","audio":{"input":{"turn_detection":null}}}}"#)
        #expect(talk.types() == ["session.updated"])
        talk.say(#"{"type":"input_audio_buffer.commit","event_id":"mine"}"#)
        let error = talk.error()
        #expect(error?["code"] == "input_audio_buffer_commit_empty" && error?["event_id"] == "mine")
        talk.conversation.noteInput(milliseconds: 240)
        talk.say(#"{"type":"input_audio_buffer.commit"}"#)
        #expect(talk.types() == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"])
        talk.say(#"{"type":"response.create"}"#)
        #expect(talk.types() == ["response.created"])
        #expect(
            talk.actions().map { action in
                switch action {
                case .sessionChanged: "session"
                case .turnCommitted: "turn"
                case .startResponse: "start"
                default: "?"
                }
            } == ["session", "turn", "start"])
    }

    @Test func `a second response is refused while one is open, and cancelling none is an error`() {
        var talk = Talk()
        talk.say(#"{"type":"response.cancel"}"#)
        #expect(talk.error()?["code"] == "response_cancel_not_active")
        talk.say(#"{"type":"response.create"}"#)
        talk.say(#"{"type":"response.create","event_id":"two"}"#)
        #expect(talk.error()?["code"] == "conversation_already_has_active_response")
        talk.say(#"{"type":"response.cancel"}"#)
        #expect(talk.types().contains("response.done"))
    }

    /// Each of these is wrong in one place; the error names that place and the session stays as it was.
    @Test(arguments: [
        (
            #"{"type":"realtime","audio":{"input":{"turn_detection":{"type":"server_vad","threshold":1.5}}}}"#,
            "session.audio.input.turn_detection.threshold"
        ),
        (
            #"{"type":"realtime","audio":{"input":{"turn_detection":{"type":"server_vad","silence_duration_ms":-1}}}}"#,
            "session.audio.input.turn_detection.silence_duration_ms"
        ),
        (#"{"type":"realtime","audio":{"input":{"turn_detection":{"type":"semantic_vad"}}}}"#, "session.audio.input.turn_detection.type"),
        (#"{"type":"realtime","audio":{"input":{"turn_detection":{"type":"vad"}}}}"#, "session.audio.input.turn_detection.type"),
        (#"{"type":"realtime","audio":{"output":{"speed":9}}}"#, "session.audio.output.speed"),
        (#"{"type":"realtime","audio":{"output":{"format":{"type":"audio/pcm","rate":8000}}}}"#, "session.audio.output.format.rate"),
        (#"{"type":"realtime","output_modalities":["audio","text"]}"#, "session.output_modalities"),
        (#"{"type":"realtime","instructions":7}"#, "session.instructions"),
        (#"{"type":"realtime","max_output_tokens":0}"#, "session.max_output_tokens"),
        (#"{"type":"realtime","surprise":1}"#, "session.surprise"),
        (#"{"type":"batch"}"#, "session.type"),
        (#"[]"#, "session"),
    ])
    func `a wrong field is refused by its name`(session: String, param: String) {
        var talk = Talk()
        let before = talk.conversation.session
        talk.say(#"{"type":"session.update","event_id":"e1","session":\#(session)}"#)
        let error = talk.error()
        #expect(error?["param"]?.string == param)
        #expect(error?["event_id"] == "e1" && error?["type"] == "invalid_request_error")
        #expect(talk.conversation.session == before)
        #expect(talk.actions().isEmpty)
    }

    @Test func `every documented session field is taken and shown again`() {
        var talk = Talk(semantic: true)
        talk.say(
            #"{"type":"session.update","session":{"type":"realtime","model":"m","instructions":"be kind","output_modalities":["audio"],"audio":{"input":{"format":{"type":"audio/pcmu"},"noise_reduction":{"type":"near_field"},"transcription":{"model":"w"},"turn_detection":{"type":"semantic_vad","eagerness":"high"}},"output":{"format":{"type":"audio/pcm","rate":24000},"voice":"verse","speed":1.25}},"tools":[],"tool_choice":"auto","max_output_tokens":"inf","parallel_tool_calls":true,"tracing":"auto","truncation":"auto","include":[]}}"#
        )
        let session = talk.drain().first { $0["type"] == "session.updated" }?["session"]
        #expect(session?["audio"]?["input"]?["format"]?["type"] == "audio/pcmu")
        #expect(session?["audio"]?["input"]?["turn_detection"]?["eagerness"] == "high")
        #expect(session?["audio"]?["output"]?["speed"] == 1.25 && session?["instructions"] == "be kind")
        #expect(session?["audio"]?["input"]?["transcription"]?["model"] == "w" && session?["parallel_tool_calls"] == true)
    }

    @Test func `the voice is fixed once it has spoken`() {
        var talk = Talk()
        talk.say(#"{"type":"response.create"}"#)
        talk.conversation.receive(.audioStarted)
        _ = talk.drain()
        talk.say(#"{"type":"session.update","session":{"type":"realtime","audio":{"output":{"voice":"other"}}}}"#)
        #expect(talk.error()?["code"] == "cannot_update_voice")
    }

    @Test func `items are created, placed, retrieved, truncated and deleted`() {
        var talk = Talk()
        talk.say(
            #"{"type":"conversation.item.create","item":{"id":"a","type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}}"#
        )
        talk.say(
            #"{"type":"conversation.item.create","previous_item_id":"root","item":{"id":"b","type":"message","role":"system","content":[]}}"#
        )
        let events = talk.drain()
        #expect(
            events.map { $0["type"]?.string } == [
                "conversation.item.added", "conversation.item.done", "conversation.item.added", "conversation.item.done",
            ])
        #expect(events[2]["previous_item_id"] == JSONValue.null)
        talk.say(#"{"type":"conversation.item.retrieve","item_id":"a"}"#)
        #expect(talk.drain().first?["item"]?["content"]?.array?.first?["text"] == "hi")
        talk.say(#"{"type":"conversation.item.truncate","item_id":"a","content_index":0,"audio_end_ms":1}"#)
        #expect(talk.error()?["param"] == "item_id")
        talk.say(#"{"type":"conversation.item.delete","item_id":"a"}"#)
        #expect(talk.types() == ["conversation.item.deleted"])
        talk.say(#"{"type":"conversation.item.retrieve","item_id":"a"}"#)
        #expect(talk.error()?["code"] == "item_not_found")
        talk.say(#"{"type":"conversation.item.create","item":{"id":"b","type":"message","role":"user","content":[]}}"#)
        #expect(talk.error()?["code"] == "item_already_exists")
    }

    @Test func `a function call and its output make items`() {
        var talk = Talk()
        talk.say(#"{"type":"response.create"}"#)
        talk.conversation.receive(.functionCall(name: "weather", callID: "c1", arguments: #"{"city":"Oslo"}"#))
        talk.conversation.receive(.responseDone)
        let events = talk.drain()
        #expect(events.contains { $0["type"] == "response.function_call_arguments.done" && $0["call_id"] == "c1" })
        #expect(events.last?["response"]?["output"]?.array?.count == 1)
        talk.say(#"{"type":"conversation.item.create","item":{"type":"function_call_output","call_id":"c1","output":"rain"}}"#)
        #expect(talk.types() == ["conversation.item.added", "conversation.item.done"])
    }

    @Test func `a backend that fails ends the response with an error event`() {
        var talk = Talk()
        talk.say(#"{"type":"response.create"}"#)
        _ = talk.drain()
        talk.conversation.receive(.failed(message: "no answer within 1 s"))
        let events = talk.drain()
        #expect(events.first?["error"]?["type"] == "server_error")
        #expect(events.last?["response"]?["status"] == "failed")
        talk.say(#"{"type":"response.create"}"#)
        #expect(talk.types() == ["response.created"])
    }

    @Test func `memory stays bounded when nobody reads events and items pile up`() {
        var talk = Talk()
        for index in 0..<2_000 {
            talk.say(#"{"type":"conversation.item.create","item":{"id":"i\#(index)","type":"message","role":"user","content":[]}}"#)
        }
        #expect(talk.conversation.eventsDropped > 0)
        #expect(talk.drain().count == Conversation.eventsMax)
        talk.say(#"{"type":"conversation.item.retrieve","item_id":"i0"}"#)
        #expect(talk.error()?["code"] == "item_not_found")
        talk.say(#"{"type":"conversation.item.retrieve","item_id":"i1999"}"#)
        #expect(talk.types() == ["conversation.item.retrieved"])
    }

    @Test(arguments: Corpus.files(in: "events")) func `event corpus never traps and is answered`(file: CorpusFile) {
        fuzzClientEvent(file.bytes.span.bytes)
    }

    @Test func `mutated events never trap`() {
        mutate(Corpus.files(in: "events").map(\.bytes), count: mutationCount / 4) { fuzzClientEvent($0) }
    }
}
