import Primitives

/// What turn detection heard, in milliseconds of audio since the session began.
public enum HeardEvent: Sendable, Equatable {
    case speechStarted(milliseconds: Int)
    case speechStopped(milliseconds: Int)
    case idleTimeout(startMilliseconds: Int, endMilliseconds: Int)
}

/// What a backend says besides audio. One response is open at a time; everything belongs to the one that was last asked for.
public enum BackendEvent: Sendable, Equatable {
    case audioStarted
    case transcriptDelta(String)
    case textDelta(String)
    case functionCall(name: String, callID: String, arguments: String)
    /// What the caller said, for the item that was committed last.
    case inputTranscript(String)
    /// The next piece of it, while it is still being made out.
    case inputTranscriptDelta(String)
    /// It could not be made out.
    case inputTranscriptFailed(message: String)
    /// The backend has noticed that the caller wants to speak: what is being said ends, as when the caller speaks over it.
    case interrupted
    case responseDone
    case failed(message: String)
    /// A server event that a backend made itself (`realtime:` backends): handed through.
    case passThrough(JSONValue)
}

/// What playout did.
public enum PlayoutEvent: Sendable, Equatable {
    /// The first packet of the open response left.
    case started
    /// Everything that was queued has left.
    case drained
    /// The queue was cleared after this much of the item's audio had really left.
    case cleared(playedMilliseconds: Int)
}

/// What the owner of audio and backend has to do.
public enum ConversationAction: Sendable, Equatable {
    /// `session` changed: take turn detection and formats from there.
    case sessionChanged
    case appendInput([UInt8])
    case clearInput
    /// The caller's turn ended: its audio is item `item`.
    case turnCommitted(item: String)
    case startResponse(id: String, parameters: JSONValue)
    case cancelResponse
    /// Stop playing within one packet, then say `cleared`.
    case clearOutput
    case itemCreated(JSONValue)
    case itemDeleted(id: String)
    case truncated(item: String, audioEndMilliseconds: Int)
}

/// One conversation's state: session, items, the open response and what is being played.
public struct Conversation: Sendable {
    /// Items kept; the oldest leave first. A voice call of an hour has a few hundred.
    public static let itemsMax = 512
    /// What all items may take together, in bytes of their JSON: some of them come from the client, as long as its messages may be.
    public static let itemBytesMax = 4 << 20
    /// Server events waiting for the transport, and their bytes. Beyond either the oldest are dropped, counted, and the client is told.
    public static let eventsMax = 512
    public static let eventBytesMax = 2 << 20

    /// What one response may bring: bytes of text and transcript together, and functions to call. A backend that says more has lost its way.
    public static let answerBytesMax = 1 << 20
    public static let functionCallsMax = 128

    public let id: String
    public let conversationID: String
    public private(set) var session: SessionObject
    public private(set) var eventsDropped = 0
    private let abilities: SessionObject.Abilities
    private let audio: AudioPath
    private var ids: IdentifierSource
    private var items = ItemList(capacity: Conversation.itemsMax, bytes: Conversation.itemBytesMax)
    /// As JSON text, and how much of it there is.
    private var events: [[UInt8]] = []
    private var eventBytes = 0
    /// Dropped events that the client was not told of.
    private var dropsUntold = 0
    private var actions: [ConversationAction] = []
    private var response: OpenResponse?
    /// The response whose audio is leaving, or waits to; outlives `response`, because playout takes real time.
    private var playing: (response: String, item: String)?
    /// The item that audio belongs to now.
    private var speaking: String?
    private var spoke = false
    /// The item that the caller's present turn will become.
    private var turnItem: String?
    private var lastCommitted: String?
    /// Audio heard since the last commit or clear.
    private var inputMilliseconds = 0

    /// Where the client's audio is.
    public enum AudioPath: Sendable {
        /// Beside the events, in real time: events tell when playout starts, stops and is cleared.
        case onTrack
        /// Inside them, as base64, as fast as it is made: the client plays, and says itself how far it came.
        case inEvents
    }

    public init(session: SessionObject, abilities: SessionObject.Abilities, audio: AudioPath = .onTrack, seed: UInt64) {
        self.session = session
        self.abilities = abilities
        self.audio = audio
        ids = IdentifierSource(seed: seed)
        id = ids.make("sess")
        conversationID = ids.make("conv")
    }

    /// The client can hear events now: `session.created`, and the conversation that goes with it.
    public mutating func begin() {
        emit("session.created", ["session": session.json(id: id)])
        guard session.answers else { return }
        emit("conversation.created", ["conversation": ["id": .string(conversationID), "object": "realtime.conversation"]])
    }

    /// `session.created` as JSON text, for somebody who comes to listen in the middle.
    public mutating func greeting() -> [UInt8] {
        event("session.created", ["session": session.json(id: id)]).utf8
    }

    /// Audio of the open response, in the session's output format.
    public mutating func say(audio: [UInt8]) {
        guard let response else { return }
        emit("response.output_audio.delta", part(response, ["delta": .string(Base64.encode(audio))]))
    }

    public mutating func nextAction() -> ConversationAction? { actions.isEmpty ? nil : actions.removeFirst() }

    /// The next server event as JSON text.
    public mutating func nextEvent() -> [UInt8]? {
        guard !events.isEmpty else { return nil }
        guard dropsUntold == 0 else { return tellOfDrops() }
        let text = events.removeFirst()
        eventBytes -= text.count
        return text
    }

    private mutating func tellOfDrops() -> [UInt8] {
        let error = APIError(
            type: "server_error", code: "events_dropped",
            message: "\(dropsUntold) events were dropped before this one, because they were not read as fast as they were made.")
        dropsUntold = 0
        return event("error", ["error": error.json()]).utf8
    }

    public var hasEvents: Bool { !events.isEmpty }
    public var eventCount: Int { events.count }
    public var hasActions: Bool { !actions.isEmpty }

    /// Counts audio of the answer that goes to the caller, or waits to.
    public mutating func noteOutput(milliseconds: Int) {
        guard let speaking else { return }
        items.addAudio(milliseconds, to: speaking)
    }

    /// Counts audio that arrived for the input buffer.
    public mutating func noteInput(milliseconds: Int) { inputMilliseconds = min(inputMilliseconds + milliseconds, 86_400_000) }
}

/// A response between `response.created` and `response.done`.
struct OpenResponse: Sendable {
    var id: String
    var parameters: ResponseParameters
    var modalities: [String]
    /// Set with the first output.
    var item: String?
    var transcript = ""
    var text = ""
    var audioStarted = false
    var output: [JSONValue] = []
    private var bytes = 0

    /// Counts what an event adds; false when that is too much.
    mutating func hasRoom(for event: BackendEvent) -> Bool {
        switch event {
        case .transcriptDelta(let text), .textDelta(let text): bytes += text.utf8.count
        case .functionCall(let name, let callID, let arguments): bytes += name.utf8.count + callID.utf8.count + arguments.utf8.count
        default: break
        }
        return bytes <= Conversation.answerBytesMax && output.count < Conversation.functionCallsMax
    }

    init(id: String, parameters: ResponseParameters, modalities: [String]) {
        self.id = id
        self.parameters = parameters
        self.modalities = modalities
    }
}

// MARK: - From the client

extension Conversation {
    /// Takes one client event; a bad one becomes an `error` event that carries its `event_id`.
    public mutating func receive(clientEvent text: RawSpan) {
        switch ClientEvent.parse(text) {
        case .refused(let error, let id): refuse(error, id)
        case .event(let event, let id):
            do { try perform(event) } catch { refuse(error, id) }
        }
    }

    /// Applies the `session` object that came with signaling.
    public mutating func apply(session value: JSONValue) throws(APIError) {
        try session.apply(value, abilities: abilities)
        actions.append(.sessionChanged)
    }

    public mutating func report(_ error: APIError) { refuse(error, nil) }

    private mutating func refuse(_ error: APIError, _ id: String?) { emit("error", ["error": error.json(eventID: id)]) }

    private mutating func perform(_ event: ClientEvent) throws(APIError) {
        switch event {
        case .sessionUpdate(let value):
            try session.apply(value, abilities: abilities, voiceLocked: spoke)
            actions.append(.sessionChanged)
            emit("session.updated", ["session": session.json(id: id)])
        case .inputAudioAppend(let bytes): actions.append(.appendInput(bytes))
        case .inputAudioCommit:
            guard inputMilliseconds >= 100 else {
                throw APIError(
                    code: "input_audio_buffer_commit_empty",
                    message: "The input audio buffer has \(inputMilliseconds) ms of audio; at least 100 ms are needed to commit.")
            }
            commitTurn()
        case .inputAudioClear:
            inputMilliseconds = 0
            turnItem = nil
            actions.append(.clearInput)
            emit("input_audio_buffer.cleared", [:])
        case .outputAudioClear:
            guard audio == .onTrack else {
                throw APIError(
                    code: "invalid_value", message: "This session plays its audio itself; 'output_audio_buffer.clear' is for WebRTC.",
                    param: "type")
            }
            // What is cleared must not go on behind the gap.
            if let response, response.id == playing?.response { cancelResponse(reason: "client_cancelled") }
            if playing != nil { actions.append(.clearOutput) }
        case .itemCreate(let value, let after): try createItem(value, after: after)
        case .itemRetrieve(let id):
            guard let item = items[id] else { throw unknownItem(id) }
            emit("conversation.item.retrieved", ["item": item.json])
        case .itemDelete(let id):
            guard items.remove(id) else { throw unknownItem(id) }
            actions.append(.itemDeleted(id: id))
            emit("conversation.item.deleted", ["item_id": .string(id)])
        case .itemTruncate(let id, let index, let end):
            guard let item = items[id] else { throw unknownItem(id) }
            guard item.isAssistantMessage else {
                throw APIError(code: "invalid_value", message: "Only an assistant's message can be truncated.", param: "item_id")
            }
            if let length = item.audioMilliseconds, end > length {
                throw APIError(
                    code: "invalid_value", message: "Audio content of \(length)ms is already shorter than \(end)ms.", param: "audio_end_ms")
            }
            truncate(id, contentIndex: index, at: end)
        case .responseCreate(let parameters):
            if let response {
                throw APIError(
                    code: "conversation_already_has_active_response",
                    message: "Conversation already has an active response in progress: \(response.id). Wait until it is done, or cancel it."
                )
            }
            startResponse(try ResponseParameters(parameters ?? .null, session: session))
        case .responseCancel(let id):
            guard let response, id == nil || id == response.id else {
                throw APIError(code: "response_cancel_not_active", message: "Cancellation failed: no active response found.")
            }
            cancelResponse(reason: "client_cancelled")
        }
    }

    private func unknownItem(_ id: String, param: String = "item_id") -> APIError {
        APIError(code: "item_not_found", message: "There is no item '\(id.prefix(64))' in this conversation.", param: param)
    }

    private mutating func createItem(_ value: JSONValue, after: String?) throws(APIError) {
        let item = try ConversationItem(client: value, fallbackID: ids.make("item"))
        guard items[item.id] == nil else {
            throw APIError(code: "item_already_exists", message: "An item '\(item.id)' is already there.", param: "item.id")
        }
        if let after, after != "root", items[after] == nil { throw unknownItem(after, param: "previous_item_id") }
        let previous = items.insert(item, after: after)
        actions.append(.itemCreated(item.json))
        announce(item, previous: previous)
    }

    private mutating func announce(_ item: ConversationItem, previous: String?) {
        note("added", item, behind: previous)
        if item.status == "completed" { note("done", item, behind: previous) }
    }

    private mutating func note(_ what: String, _ item: ConversationItem, behind previous: String?) {
        emit("conversation.item.\(what)", ["previous_item_id": previous.map { .string($0) } ?? .null, "item": item.json])
    }
}

// MARK: - From turn detection

extension Conversation {
    public mutating func hear(_ event: HeardEvent) {
        switch event {
        case .speechStarted(let milliseconds):
            let item = turnItem ?? ids.make("item")
            turnItem = item
            emit("input_audio_buffer.speech_started", ["audio_start_ms": .integer(Int64(milliseconds)), "item_id": .string(item)])
            if session.turnDetection.interruptsResponse { interrupt() }
        case .speechStopped(let milliseconds):
            let item = turnItem ?? ids.make("item")
            turnItem = item
            emit("input_audio_buffer.speech_stopped", ["audio_end_ms": .integer(Int64(milliseconds)), "item_id": .string(item)])
            commitTurn()
            if session.turnDetection.createsResponse, session.answers, response == nil { startResponse(.none) }
        case .idleTimeout(let start, let end):
            let item = turnItem ?? ids.make("item")
            turnItem = item
            emit(
                "input_audio_buffer.timeout_triggered",
                ["audio_start_ms": .integer(Int64(start)), "audio_end_ms": .integer(Int64(end)), "item_id": .string(item)])
            commitTurn()
            if session.answers, response == nil { startResponse(.none) }
        }
    }

    /// The caller speaks over the answer: the answer ends, and what was said of it is what really left.
    private mutating func interrupt() {
        if response != nil { cancelResponse(reason: "turn_detected") }
        if playing != nil { actions.append(.clearOutput) }
    }

    private mutating func commitTurn() {
        let item = ConversationItem(userAudio: turnItem ?? ids.make("item"))
        turnItem = nil
        inputMilliseconds = 0
        let previous = items.insert(item, after: nil)
        lastCommitted = item.id
        emit(
            "input_audio_buffer.committed", ["previous_item_id": previous.map { .string($0) } ?? .null, "item_id": .string(item.id)])
        announce(item, previous: previous)
        actions.append(.turnCommitted(item: item.id))
    }
}

// MARK: - Responses

extension Conversation {
    private mutating func startResponse(_ parameters: ResponseParameters) {
        let modalities = parameters.modalities ?? session.outputModalities
        let open = OpenResponse(id: ids.make("resp"), parameters: parameters, modalities: modalities)
        response = open
        emit("response.created", ["response": json(of: open, status: "in_progress", details: .null)])
        actions.append(.startResponse(id: open.id, parameters: parameters.json))
    }

    private mutating func cancelResponse(reason: String) {
        guard let open = response else { return }
        actions.append(.cancelResponse)
        finish(open, status: "cancelled", details: ["type": "cancelled", "reason": .string(reason)])
    }

    public mutating func receive(_ event: BackendEvent) {
        if case .passThrough(let value) = event {
            push(value)
            return
        }
        if takeTranscription(event) { return }
        if case .interrupted = event { return interrupt() }
        if case .failed(let message) = event { return fail(message) }
        // What a backend still says after its response was cancelled is late, not wrong.
        guard var open = response else { return }
        guard open.hasRoom(for: event) else {
            actions.append(.cancelResponse)
            return fail("The backend says more in one response than this server keeps.")
        }
        switch event {
        case .audioStarted:
            openPart(&open, audio: true)
            open.audioStarted = true
            spoke = true
            speaking = open.item
            if audio == .onTrack { playing = (open.id, open.item ?? "") }
            response = open
        case .transcriptDelta(let text):
            openPart(&open, audio: true)
            open.transcript += text
            response = open
            emit("response.output_audio_transcript.delta", part(open, ["delta": .string(text)]))
        case .textDelta(let text):
            openPart(&open, audio: false)
            open.text += text
            response = open
            emit("response.output_text.delta", part(open, ["delta": .string(text)]))
        case .functionCall(let name, let callID, let arguments):
            callFunction(&open, name: name, callID: callID, arguments: arguments)
            response = open
        case .responseDone: finish(open, status: "completed", details: .null)
        case .inputTranscript, .inputTranscriptDelta, .inputTranscriptFailed, .interrupted, .failed, .passThrough: break
        }
    }

    private mutating func fail(_ message: String) {
        let error = APIError(type: "server_error", code: "backend_failed", message: message)
        emit("error", ["error": error.json()])
        if let open = response { finish(open, status: "failed", details: ["type": "failed", "error": error.json()]) }
    }

    /// What is said of the caller's words; false when the event is about something else.
    private mutating func takeTranscription(_ event: BackendEvent) -> Bool {
        let name: String
        let body: (String, JSONValue)
        switch event {
        case .inputTranscript(let text): (name, body) = ("completed", ("transcript", .string(text)))
        case .inputTranscriptDelta(let text): (name, body) = ("delta", ("delta", .string(text)))
        case .inputTranscriptFailed(let message):
            let error = APIError(type: "transcription_error", code: "audio_unintelligible", message: message)
            (name, body) = ("failed", ("error", error.json()))
        default: return false
        }
        guard let item = lastCommitted else { return true }
        if case .inputTranscript(let text) = event { items.setTranscript(text, of: item) }
        var object = JSONObject()
        object["item_id"] = .string(item)
        object["content_index"] = 0
        object[body.0] = body.1
        emit("conversation.item.input_audio_transcription.\(name)", .object(object))
        return true
    }

    /// The item and its content part, once, with the first output.
    private mutating func openPart(_ open: inout OpenResponse, audio: Bool) {
        guard open.item == nil else { return }
        let item = ConversationItem(assistant: ids.make("item"))
        open.item = item.id
        // Of a response apart the items are kept, too, for as long as it lasts: what is said belongs to one.
        let previous = items.insert(item, after: nil)
        emit("response.output_item.added", ["response_id": .string(open.id), "output_index": 0, "item": item.json])
        if !open.parameters.isApart { note("added", item, behind: previous) }
        let content: JSONValue = audio ? ["type": "audio", "transcript": ""] : ["type": "text", "text": ""]
        emit("response.content_part.added", part(open, ["part": content]))
    }

    private func part(_ open: OpenResponse, _ extra: JSONValue) -> JSONValue {
        var body = JSONObject()
        body["response_id"] = .string(open.id)
        body["item_id"] = .string(open.item ?? "")
        body["output_index"] = 0
        body["content_index"] = 0
        for member in extra.object?.members ?? [] { body[member.name] = member.value }
        return .object(body)
    }

    private mutating func callFunction(_ open: inout OpenResponse, name: String, callID: String, arguments: String) {
        var item = ConversationItem(functionCall: ids.make("item"), name: name, callID: callID)
        let index = JSONValue.integer(Int64(open.output.count + (open.item == nil ? 0 : 1)))
        let isApart = open.parameters.isApart
        let previous = isApart ? nil : items.insert(item, after: nil)
        emit("response.output_item.added", ["response_id": .string(open.id), "output_index": index, "item": item.json])
        if !isApart { note("added", item, behind: previous) }
        let call: JSONValue = [
            "response_id": .string(open.id), "item_id": .string(item.id), "output_index": index, "call_id": .string(callID),
            "name": .string(name), "arguments": .string(arguments),
        ]
        let delta: JSONValue = [
            "response_id": .string(open.id), "item_id": .string(item.id), "output_index": index, "call_id": .string(callID),
            "delta": .string(arguments),
        ]
        // Backends say the arguments in one piece.
        emit("response.function_call_arguments.delta", delta)
        emit("response.function_call_arguments.done", call)
        item.complete(arguments: arguments)
        items.replace(item)
        emit("response.output_item.done", ["response_id": .string(open.id), "output_index": index, "item": item.json])
        if !isApart { note("done", item, behind: previous) }
        open.output.append(item.json)
    }

    private mutating func finish(_ open: OpenResponse, status: String, details: JSONValue) {
        var open = open
        response = nil
        if let id = open.item {
            items.complete(
                id, transcript: open.audioStarted || !open.transcript.isEmpty ? open.transcript : nil, text: open.text, status: status)
            if open.audioStarted || !open.transcript.isEmpty {
                emit("response.output_audio.done", part(open, [:]))
                emit("response.output_audio_transcript.done", part(open, ["transcript": .string(open.transcript)]))
                emit("response.content_part.done", part(open, ["part": ["type": "audio", "transcript": .string(open.transcript)]]))
            } else {
                emit("response.output_text.done", part(open, ["text": .string(open.text)]))
                emit("response.content_part.done", part(open, ["part": ["type": "text", "text": .string(open.text)]]))
            }
            if let item = items[id] {
                emit("response.output_item.done", ["response_id": .string(open.id), "output_index": 0, "item": item.json])
                if open.parameters.isApart { _ = items.remove(id) } else { note("done", item, behind: items.previous(of: id)) }
                open.output.insert(item.json, at: 0)
            }
        }
        emit("response.done", ["response": json(of: open, status: status, details: details)])
    }

    private func json(of open: OpenResponse, status: String, details: JSONValue) -> JSONValue {
        let tokens = open.parameters.maxOutputTokens ?? session.maxOutputTokens
        let output: JSONValue = ["format": session.outputFormat.json, "voice": (open.parameters.voice ?? session.voice).json]
        return [
            "object": "realtime.response", "id": .string(open.id), "status": .string(status), "status_details": details,
            "output": .array(open.output), "conversation_id": open.parameters.isApart ? .null : .string(conversationID),
            "output_modalities": .array(open.modalities.map { .string($0) }), "audio": ["output": output],
            "max_output_tokens": tokens.map { .integer(Int64($0)) } ?? "inf", "usage": .null, "metadata": open.parameters.metadata,
        ]
    }
}

// MARK: - From playout

extension Conversation {
    public mutating func playout(_ event: PlayoutEvent) {
        guard let playing else { return }
        let body: JSONValue = ["response_id": .string(playing.response)]
        switch event {
        case .started: emit("output_audio_buffer.started", body)
        case .drained:
            // An answer may stall in the middle: it has stopped only when it was said in full.
            guard response?.id != playing.response else { return }
            self.playing = nil
            emit("output_audio_buffer.stopped", body)
        case .cleared(let milliseconds):
            self.playing = nil
            emit("output_audio_buffer.cleared", body)
            if items[playing.item] != nil { truncate(playing.item, contentIndex: 0, at: milliseconds) }
        }
    }

    /// The text goes, too: nobody knows how much of it was heard, and nothing may stay that was not.
    private mutating func truncate(_ item: String, contentIndex: Int, at milliseconds: Int) {
        items.truncate(item, at: milliseconds)
        actions.append(.truncated(item: item, audioEndMilliseconds: milliseconds))
        emit(
            "conversation.item.truncated",
            ["item_id": .string(item), "content_index": .integer(Int64(contentIndex)), "audio_end_ms": .integer(Int64(milliseconds))])
    }
}

// MARK: - Out

extension Conversation {
    private mutating func emit(_ type: String, _ body: JSONValue) { push(event(type, body)) }

    private mutating func event(_ type: String, _ body: JSONValue) -> JSONValue {
        var event = JSONObject()
        event["type"] = .string(type)
        event["event_id"] = .string(ids.make("event"))
        for member in body.object?.members ?? [] { event[member.name] = member.value }
        return .object(event)
    }

    private mutating func push(_ event: JSONValue) {
        let text = event.utf8
        while !events.isEmpty, events.count >= Self.eventsMax || eventBytes + text.count > Self.eventBytesMax {
            eventBytes -= events.removeFirst().count
            eventsDropped += 1
            dropsUntold += 1
        }
        eventBytes += text.count
        events.append(text)
    }
}
