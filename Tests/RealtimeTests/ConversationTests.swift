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
        while let text = conversation.nextEvent() {
            events.append(try! JSONValue(parsing: text.span.bytes, limits: JSONLimits(bytes: 4 << 20)))
        }
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

    /// Only what was heard stays of an answer: no longer than it is, and no text, of which nobody knows how much was heard.
    @Test func `an answer is truncated no later than its end, and loses its text`() {
        var talk = Talk()
        talk.say(#"{"type":"response.create"}"#)
        talk.conversation.receive(.audioStarted)
        talk.conversation.receive(.transcriptDelta("one two three"))
        talk.conversation.noteOutput(milliseconds: 900)
        talk.conversation.receive(.responseDone)
        guard let id = talk.drain().first(where: { $0["type"] == "response.output_item.added" })?["item"]?["id"]?.string else {
            Issue.record("no item")
            return
        }
        let truncate = { (end: Int) in
            #"{"type":"conversation.item.truncate","event_id":"t","item_id":"\#(id)","content_index":0,"audio_end_ms":\#(end)}"#
        }
        talk.say(truncate(901))
        let error = talk.error()
        #expect(error?["param"] == "audio_end_ms" && error?["event_id"] == "t")
        talk.say(#"{"type":"conversation.item.retrieve","item_id":"\#(id)"}"#)
        #expect(talk.drain().first?["item"]?["content"]?.array?.first?["transcript"] == "one two three")
        talk.say(truncate(400))
        #expect(talk.types() == ["conversation.item.truncated"])
        talk.say(#"{"type":"conversation.item.retrieve","item_id":"\#(id)"}"#)
        #expect(talk.drain().first?["item"]?["content"]?.array?.first?["transcript"] == JSONValue.null)
        talk.say(truncate(401))
        #expect(talk.error()?["param"] == "audio_end_ms")
    }

    @Test func `what is made out of the caller's words is told as it comes`() {
        var talk = Talk()
        talk.conversation.receive(.inputTranscriptDelta("before any turn"))
        #expect(talk.types().isEmpty)
        talk.conversation.hear(.speechStarted(milliseconds: 100))
        talk.conversation.hear(.speechStopped(milliseconds: 900))
        let item = talk.drain().first { $0["type"] == "input_audio_buffer.committed" }?["item_id"]
        talk.conversation.receive(.inputTranscriptDelta("hel"))
        talk.conversation.receive(.inputTranscriptFailed(message: "noise"))
        let events = talk.drain()
        #expect(events.map { $0["item_id"] } == [item, item])
        #expect(events.first?["type"] == "conversation.item.input_audio_transcription.delta" && events.first?["delta"] == "hel")
        #expect(events.last?["type"] == "conversation.item.input_audio_transcription.failed")
        #expect(events.last?["error"]?["message"] == "noise")
    }

    /// A backend that never stops talking takes no memory with it: its response fails, and it is told to stop.
    @Test func `a response that brings too much is ended`() {
        for event in [
            BackendEvent.transcriptDelta(String(repeating: "x", count: 65_536)),
            .functionCall(name: "f", callID: "c", arguments: String(repeating: "x", count: 65_536)),
            .functionCall(name: "f", callID: "c", arguments: ""),
        ] {
            var talk = Talk()
            talk.say(#"{"type":"response.create"}"#)
            _ = talk.actions()
            var events: [JSONValue] = []
            for _ in 0..<300 {
                talk.conversation.receive(event)
                events += talk.drain()
            }
            #expect(events.last?["type"] == "response.done" && events.last?["response"]?["status"] == "failed")
            #expect(events.filter { $0["type"] == "error" }.count == 1)
            #expect(talk.actions() == [.cancelResponse])
        }
    }

    @Test func `a place behind an item that is not there is refused by its own name`() {
        var talk = Talk()
        talk.say(
            #"{"type":"conversation.item.create","previous_item_id":"x","item":{"type":"message","role":"user","content":[]}}"#)
        #expect(talk.error()?["param"] == "previous_item_id")
    }

    @Test(arguments: [
        (#"{"output_modalities":["video"]}"#, "response.output_modalities"), (#"{"instructions":7}"#, "response.instructions"),
        (#"{"conversation":"other"}"#, "response.conversation"), (#"{"max_output_tokens":9999}"#, "response.max_output_tokens"),
        (#"{"tools":{}}"#, "response.tools"), (#"{"tool_choice":1}"#, "response.tool_choice"), (#"{"metadata":1}"#, "response.metadata"),
        (#"{"surprise":1}"#, "response.surprise"), ("7", "response"),
    ])
    func `a wrong field of a request for a response is refused by its name`(response: String, param: String) {
        var talk = Talk()
        talk.say(#"{"type":"response.create","event_id":"r","response":\#(response)}"#)
        let error = talk.error()
        #expect(error?["param"]?.string == param && error?["event_id"] == "r")
        #expect(talk.actions().isEmpty)
        talk.say(#"{"type":"response.create","response":{"instructions":"now","metadata":{"a":"b"},"conversation":"none","input":[]}}"#)
        #expect(talk.types() == ["response.created"])
    }

    /// A transcription session listens and says nothing, whatever turn detection finds.
    @Test func `a transcription session makes no responses by itself`() {
        var talk = Talk()
        talk.say(#"{"type":"session.update","session":{"type":"transcription"}}"#)
        _ = talk.drain()
        talk.conversation.hear(.speechStarted(milliseconds: 100))
        talk.conversation.hear(.speechStopped(milliseconds: 900))
        #expect(!talk.types().contains("response.created"))
        talk.conversation.receive(.inputTranscript("hello"))
        #expect(talk.types() == ["conversation.item.input_audio_transcription.completed"])
    }

    @Test func `large items push old ones out, and large events too, of which the client is told`() {
        var talk = Talk()
        let text = String(repeating: "x", count: 250_000)
        for index in 0..<40 {
            talk.say(
                #"{"type":"conversation.item.create","item":{"id":"i\#(index)","type":"message","role":"user","content":[{"type":"input_text","text":"\#(text)"}]}}"#
            )
        }
        let events = talk.drain()
        let bytes = events.reduce(0) { $0 + $1.utf8.count }
        #expect(bytes < Conversation.eventBytesMax + 2_000 && events.count > 4)
        #expect(events.first?["error"]?["code"] == "events_dropped")
        #expect(!events.dropFirst().contains { $0["type"] == "error" })
        let kept = (0..<40).filter { index in
            talk.say(#"{"type":"conversation.item.retrieve","item_id":"i\#(index)"}"#)
            return talk.drain().first?["type"] == "conversation.item.retrieved"
        }
        #expect(kept == Array((40 - Conversation.itemBytesMax / 250_200)..<40))
    }

    @Test func `a function call and its output make items`() {
        var talk = Talk()
        talk.say(#"{"type":"response.create"}"#)
        _ = talk.drain()
        talk.conversation.receive(.functionCall(name: "weather", callID: "c1", arguments: #"{"city":"Oslo"}"#))
        #expect(
            talk.types() == [
                "response.output_item.added", "conversation.item.added", "response.function_call_arguments.delta",
                "response.function_call_arguments.done", "response.output_item.done", "conversation.item.done",
            ])
        talk.conversation.receive(.functionCall(name: "weather", callID: "c1", arguments: #"{"city":"Oslo"}"#))
        talk.conversation.receive(.responseDone)
        let events = talk.drain()
        #expect(events.contains { $0["type"] == "response.function_call_arguments.done" && $0["call_id"] == "c1" })
        #expect(events.first?["item"]?["status"] == "in_progress" && events.last?["response"]?["output"]?.array?.count == 2)
        #expect(events.last?["response"]?["output"]?.array?.last?["arguments"] == #"{"city":"Oslo"}"#)
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
        let events = talk.drain()
        #expect(events.count == Conversation.eventsMax + 1 && events.first?["error"]?["code"] == "events_dropped")
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
