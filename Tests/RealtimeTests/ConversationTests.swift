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

    @Test func `a turn may end without an answer`() {
        var talk = Talk()
        talk.say(
            #"{"type":"session.update","session":{"audio":{"input":{"turn_detection":{"type":"server_vad","create_response":false}}}}}"#)
        _ = talk.drain()
        talk.conversation.hear(.speechStarted(milliseconds: 100))
        talk.conversation.hear(.speechStopped(milliseconds: 900))
        #expect(talk.types().last == "conversation.item.done")
        talk.say(#"{"type":"response.create"}"#)
        #expect(talk.types() == ["response.created"])
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
        (#"{"audio":{"input":{"noise_reduction":{"type":"mid_field"}}}}"#, "session.audio.input.noise_reduction.type"),
        (#"{"audio":{"input":{"noise_reduction":{}}}}"#, "session.audio.input.noise_reduction.type"),
        (#"{"audio":{"input":{"noise_reduction":"near_field"}}}"#, "session.audio.input.noise_reduction"),
        (#"{"audio":{"input":{"transcription":{"model":7}}}}"#, "session.audio.input.transcription.model"),
        (#"{"audio":{"input":{"transcription":{"keywords":["a",1]}}}}"#, "session.audio.input.transcription.keywords[1]"),
        (#"{"audio":{"input":{"transcription":{"speed":1}}}}"#, "session.audio.input.transcription.speed"),
        (#"{"audio":{"input":{"format":{"type":"audio/opus"}}}}"#, "session.audio.input.format.type"),
        (#"{"audio":{"input":{"format":{"type":"audio/pcmu","rate":24000}}}}"#, "session.audio.input.format.rate"),
        (
            #"{"audio":{"input":{"turn_detection":{"type":"server_vad","prefix_padding_ms":5001}}}}"#,
            "session.audio.input.turn_detection.prefix_padding_ms"
        ),
        (
            #"{"audio":{"input":{"turn_detection":{"type":"server_vad","idle_timeout_ms":4999}}}}"#,
            "session.audio.input.turn_detection.idle_timeout_ms"
        ),
        (
            #"{"audio":{"input":{"turn_detection":{"type":"server_vad","eagerness":"low"}}}}"#,
            "session.audio.input.turn_detection.eagerness"
        ),
        (#"{"audio":{"output":{"voice":7}}}"#, "session.audio.output.voice"),
        (#"{"audio":{"output":{"speed":0.2}}}"#, "session.audio.output.speed"),
        (#"{"audio":{"output":{"pitch":1}}}"#, "session.audio.output.pitch"),
        (#"{"tools":[{"type":"function"}]}"#, "session.tools[0].name"),
        (#"{"tools":[{"type":"function","name":"f","parameters":"x"}]}"#, "session.tools[0].parameters"),
        (#"{"tools":[{"type":"mcp"}]}"#, "session.tools[0].server_label"),
        (#"{"tools":[{"name":"f"}]}"#, "session.tools[0].type"),
        (#"{"tools":[{"type":"shell"}]}"#, "session.tools[0].type"),
        (#"{"tools":["f"]}"#, "session.tools[0]"),
        (#"{"tools":{}}"#, "session.tools"),
        (#"{"tool_choice":"maybe"}"#, "session.tool_choice"),
        (#"{"tool_choice":{"type":"function"}}"#, "session.tool_choice.name"),
        (#"{"tool_choice":7}"#, "session.tool_choice"),
        (#"{"max_output_tokens":4097}"#, "session.max_output_tokens"),
        (#"{"max_output_tokens":"many"}"#, "session.max_output_tokens"),
        (#"{"parallel_tool_calls":"yes"}"#, "session.parallel_tool_calls"),
        (#"{"reasoning":{"effort":"huge"}}"#, "session.reasoning.effort"),
        (#"{"prompt":{"version":"1"}}"#, "session.prompt.id"),
        (#"{"tracing":"on"}"#, "session.tracing"),
        (#"{"tracing":{"group_id":7}}"#, "session.tracing.group_id"),
        (#"{"truncation":"some"}"#, "session.truncation"),
        (#"{"truncation":{"type":"retention_ratio","retention_ratio":1.1}}"#, "session.truncation.retention_ratio"),
        (#"{"truncation":{"type":"retention_ratio"}}"#, "session.truncation.retention_ratio"),
        (#"{"include":["everything"]}"#, "session.include[0]"),
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
            #"{"type":"session.update","session":{"type":"realtime","model":"m","instructions":"be kind","output_modalities":["audio"],"audio":{"input":{"format":{"type":"audio/pcmu"},"noise_reduction":{"type":"near_field"},"transcription":{"model":"w"},"turn_detection":{"type":"semantic_vad","eagerness":"high"}},"output":{"format":{"type":"audio/pcm","rate":24000},"voice":"verse","speed":1.25}},"tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"}},{"type":"mcp","server_label":"s","server_url":"https://a"}],"tool_choice":{"type":"function","name":"f"},"max_output_tokens":4096,"parallel_tool_calls":true,"reasoning":{"effort":"low"},"prompt":{"id":"p","version":"2","variables":{"a":"b"}},"tracing":{"workflow_name":"w","group_id":"g","metadata":{}},"truncation":{"type":"retention_ratio","retention_ratio":0.8,"token_limits":{"post_instructions":8000}},"include":["item.input_audio_transcription.logprobs"]}}"#
        )
        let session = talk.drain().first { $0["type"] == "session.updated" }?["session"]
        #expect(session?["audio"]?["input"]?["format"]?["type"] == "audio/pcmu")
        #expect(session?["audio"]?["input"]?["turn_detection"]?["eagerness"] == "high")
        #expect(session?["audio"]?["output"]?["speed"] == 1.25 && session?["instructions"] == "be kind")
        #expect(session?["audio"]?["input"]?["transcription"]?["model"] == "w" && session?["parallel_tool_calls"] == true)
        #expect(session?["tools"]?.array?.count == 2 && session?["tool_choice"]?["name"] == "f" && session?["max_output_tokens"] == 4096)
        #expect(session?["reasoning"]?["effort"] == "low" && session?["prompt"]?["variables"]?["a"] == "b")
        #expect(session?["tracing"]?["group_id"] == "g" && session?["truncation"]?["retention_ratio"] == 0.8)
        #expect(session?["include"]?.array == ["item.input_audio_transcription.logprobs"])
        // What may be taken back is taken back by null.
        talk.say(
            #"{"type":"session.update","session":{"audio":{"input":{"noise_reduction":null,"transcription":null,"turn_detection":null}},"tracing":null,"prompt":null,"tool_choice":"none","max_output_tokens":"inf","truncation":"disabled"}}"#
        )
        let later = talk.drain().first { $0["type"] == "session.updated" }?["session"]
        for field in ["noise_reduction", "transcription", "turn_detection"] { #expect(later?["audio"]?["input"]?[field] == JSONValue.null) }
        #expect(later?["tracing"] == JSONValue.null && later?["tool_choice"] == "none" && later?["max_output_tokens"] == "inf")
        #expect(later?["instructions"] == "be kind")
    }

    @Test func `a voice of one's own is known by its id`() {
        var talk = Talk()
        talk.say(#"{"type":"session.update","session":{"audio":{"output":{"voice":{"id":"voice_1"}}}}}"#)
        #expect(talk.drain().first?["session"]?["audio"]?["output"]?["voice"]?["id"] == "voice_1")
    }

    @Test func `a session begins with its session and its conversation, and one that only listens with its session`() {
        for kind in ["realtime", "transcription"] {
            var session = SessionObject()
            session.kind = kind
            var talk = Talk()
            talk.conversation = Conversation(session: session, abilities: .init(semanticVAD: false), seed: 7)
            talk.conversation.begin()
            let events = talk.drain()
            let ids = Set(events.compactMap { $0["event_id"]?.string })
            #expect(events.first?["type"] == "session.created" && ids.count == events.count)
            let shown = Set(events.first?["session"]?.object?.members.map(\.name) ?? [])
            guard kind == "realtime" else {
                #expect(events.count == 1 && shown == ["type", "object", "id", "audio"])
                #expect(events.first?["session"]?["object"] == "realtime.transcription_session")
                #expect(events.first?["session"]?["audio"]?["output"] == nil)
                continue
            }
            #expect(events.last?["type"] == "conversation.created" && events.last?["conversation"]?["object"] == "realtime.conversation")
            #expect(events.last?["conversation"]?["id"]?.string == talk.conversation.conversationID)
        }
    }

    /// The API's eleven client events: what each is answered with, and that an error names the event that caused it.
    @Test(
        arguments: [
            (#""session.update","session":{"instructions":"x"}"#, ["session.updated"], #""session.update""#),
            (#""input_audio_buffer.append","audio":"AAAA""#, [], #""input_audio_buffer.append","audio":7"#),
            (
                #""input_audio_buffer.commit""#,
                ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"],
                #""input_audio_buffer.commit","extra":1"#
            ),
            (#""input_audio_buffer.clear""#, ["input_audio_buffer.cleared"], #""input_audio_buffer.clear","extra":1"#),
            (#""output_audio_buffer.clear""#, ["response.done", "output_audio_buffer.cleared"], #""output_audio_buffer.clear","extra":1"#),
            (
                #""conversation.item.create","item":{"type":"function_call_output","call_id":"c","output":"o"}"#,
                ["conversation.item.added", "conversation.item.done"], #""conversation.item.create","item":{"type":"picture"}"#
            ),
            (
                #""conversation.item.retrieve","item_id":"a""#, ["conversation.item.retrieved"],
                #""conversation.item.retrieve","item_id":"b""#
            ),
            (
                #""conversation.item.truncate","item_id":"said","content_index":0,"audio_end_ms":0"#, ["conversation.item.truncated"],
                #""conversation.item.truncate","item_id":"said","content_index":0"#
            ),
            (#""conversation.item.delete","item_id":"a""#, ["conversation.item.deleted"], #""conversation.item.delete""#),
            (#""response.create""#, ["response.created"], #""response.create","response":{"conversation":"other"}"#),
            (#""response.cancel""#, ["response.done"], #""response.cancel","response_id":"resp_other""#),
        ] as [(String, [String], String)]) func `every client event has its answer`(good: String, answers: [String], bad: String)
    {
        var talk = Talk()
        talk.say(
            #"{"type":"conversation.item.create","item":{"id":"a","type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}}"#
        )
        talk.say(
            #"{"type":"conversation.item.create","item":{"id":"said","type":"message","role":"assistant","content":[{"type":"output_text","text":"hi"}]}}"#
        )
        talk.conversation.noteInput(milliseconds: 500)
        let isOpen = good.contains("cancel") || good.contains("output_audio_buffer.clear")
        if isOpen { talk.say(#"{"type":"response.create"}"#) }
        if good.contains("output_audio_buffer.clear") { talk.conversation.receive(.audioStarted) }
        _ = talk.drain()
        _ = talk.actions()
        talk.say(#"{"event_id":"bad","type":\#(bad)}"#)
        let refused = talk.drain()
        #expect(refused.count == 1 && refused.first?["type"] == "error" && refused.first?["error"]?["event_id"] == "bad")
        #expect(refused.first?["error"]?["type"] == "invalid_request_error" && refused.first?["error"]?["message"]?.string != nil)
        talk.say(#"{"event_id":"good","type":\#(good)}"#)
        if talk.actions().contains(.clearOutput) { talk.conversation.playout(.cleared(playedMilliseconds: 0)) }
        let types = talk.types()
        #expect(types.filter { answers.contains($0) } == answers && !types.contains("error"), "\(types)")
    }

    /// What is cleared while it is still being said does not go on behind the gap.
    @Test func `clearing the output ends the response that is being said`() {
        var talk = Talk()
        talk.say(#"{"type":"response.create"}"#)
        talk.conversation.receive(.audioStarted)
        _ = talk.actions()
        talk.say(#"{"type":"output_audio_buffer.clear"}"#)
        #expect(talk.actions() == [.cancelResponse, .clearOutput])
        talk.conversation.playout(.cleared(playedMilliseconds: 300))
        let types = talk.types()
        #expect(Array(types.suffix(3)) == ["response.done", "output_audio_buffer.cleared", "conversation.item.truncated"])
        _ = talk.actions()
        // Nothing plays any more, and there is nothing to clear.
        talk.say(#"{"type":"output_audio_buffer.clear"}"#)
        #expect(talk.actions().isEmpty && talk.types().isEmpty)
    }

    @Test func `a session that plays its audio itself has no output buffer to clear`() {
        var talk = Talk()
        talk.conversation = Conversation(session: SessionObject(), abilities: .init(semanticVAD: false), audio: .inEvents, seed: 7)
        talk.say(#"{"type":"output_audio_buffer.clear","event_id":"e"}"#)
        #expect(talk.error()?["event_id"] == "e")
    }

    @Test func `a response apart from the conversation leaves nothing in it`() {
        var talk = Talk()
        talk.say(
            #"{"type":"response.create","response":{"conversation":"none","metadata":{"topic":"weather"},"output_modalities":["text"],"max_output_tokens":7,"audio":{"output":{"voice":"cedar"}}}}"#
        )
        let response = talk.drain().first?["response"]
        #expect(response?["conversation_id"] == JSONValue.null && response?["metadata"]?["topic"] == "weather")
        #expect(response?["max_output_tokens"] == 7 && response?["audio"]?["output"]?["voice"] == "cedar")
        talk.conversation.receive(.textDelta("rain"))
        talk.conversation.receive(.functionCall(name: "f", callID: "c", arguments: "{}"))
        talk.conversation.receive(.responseDone)
        let events = talk.drain()
        let types = events.compactMap { $0["type"]?.string }
        #expect(!types.contains { $0.hasPrefix("conversation.item") } && types.last == "response.done")
        #expect(events.last?["response"]?["output"]?.array?.count == 2)
        guard let item = events.last?["response"]?["output"]?.array?.first?["id"]?.string else {
            Issue.record("no item")
            return
        }
        talk.say(#"{"type":"conversation.item.retrieve","item_id":"\#(item)"}"#)
        #expect(talk.error()?["code"] == "item_not_found")
    }

    /// The backend talks to us in our own format, whatever a client wants to hear.
    @Test func `a backend hears nothing of a response's audio format`() {
        var talk = Talk()
        talk.say(
            #"{"type":"response.create","response":{"audio":{"output":{"format":{"type":"audio/pcm","rate":24000},"voice":"cedar"}}}}"#)
        guard case .startResponse(_, let parameters)? = talk.actions().last else {
            Issue.record("no response")
            return
        }
        #expect(parameters["audio"]?["output"]?["voice"] == "cedar" && parameters["audio"]?["output"]?["format"] == nil)
        talk.say(#"{"type":"response.cancel"}"#)
        _ = talk.drain()
        talk.say(#"{"type":"response.create","response":{"audio":{"output":{"format":{"type":"audio/pcmu"}}}}}"#)
        #expect(talk.error()?["param"] == "response.audio.output.format")
    }

    @Test(arguments: [
        (#"{"type":"message","role":"user","content":[{"type":"output_text","text":"x"}]}"#, "item.content[0].type"),
        (#"{"type":"message","role":"system","content":[{"type":"input_audio","audio":"AAAA"}]}"#, "item.content[0].type"),
        (#"{"type":"message","role":"user","content":[{"type":"input_audio","audio":"%"}]}"#, "item.content[0].audio"),
        (#"{"type":"message","role":"user","content":[{"type":"input_image"}]}"#, "item.content[0].image_url"),
        (#"{"type":"message","role":"user","content":"hi"}"#, "item.content"),
        (#"{"type":"message","role":"robot","content":[]}"#, "item.role"),
        (#"{"type":"function_call_output","call_id":"c"}"#, "item.output"),
        (#"{"type":"mcp_approval_response","approval_request_id":"r"}"#, "item.approve"),
        (#"{"type":"message","role":"user","content":[],"object":"thing"}"#, "item.object"),
    ]) func `an item that is wrong is refused by the name of its field`(item: String, param: String) {
        var talk = Talk()
        talk.say(#"{"type":"conversation.item.create","event_id":"i","item":\#(item)}"#)
        let error = talk.error()
        #expect(error?["param"]?.string == param && error?["event_id"] == "i")
        #expect(talk.actions().isEmpty)
    }

    @Test func `an approval of a remote tool is an item`() {
        var talk = Talk()
        talk.say(
            #"{"type":"conversation.item.create","item":{"type":"mcp_approval_response","approval_request_id":"r","approve":true,"reason":"fine"}}"#
        )
        #expect(talk.drain().first?["item"]?["approve"] == true)
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
        (#"{"surprise":1}"#, "response.surprise"), ("7", "response"), (#"{"metadata":{"a":1}}"#, "response.metadata.a"),
        (#"{"tools":[{"type":"function"}]}"#, "response.tools[0].name"), (#"{"include":[]}"#, "response.include"),
        (#"{"input":[{"type":"item_reference"}]}"#, "response.input[0].id"),
        (#"{"input":[{"type":"message","role":"user"}]}"#, "response.input[0].content"),
        (#"{"audio":{"output":{"voice":1}}}"#, "response.audio.output.voice"), (#"{"audio":{"input":{}}}"#, "response.audio.input"),
    ])
    func `a wrong field of a request for a response is refused by its name`(response: String, param: String) {
        var talk = Talk()
        talk.say(#"{"type":"response.create","event_id":"r","response":\#(response)}"#)
        let error = talk.error()
        #expect(error?["param"]?.string == param && error?["event_id"] == "r")
        #expect(talk.actions().isEmpty)
        talk.say(
            #"{"type":"response.create","response":{"instructions":"now","metadata":{"a":"b"},"conversation":"none","input":[{"type":"item_reference","id":"a"},{"type":"message","role":"user","content":[{"type":"input_text","text":"x"}]}]}}"#
        )
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
