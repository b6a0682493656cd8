import HTTP
import Primitives
import Realtime

// MARK: - To the backend

extension RealtimeBackend {
    /// Frames of 20 ms in one append.
    private static let framesPerAppend = 2

    /// Takes the caller's audio, gapless, at 24 kHz.
    public mutating func hear(_ frame: Span<Int16>) {
        heardSamples += frame.count
        switch phase {
        case .open, .opening, .handshake: break
        case .waiting, .over:
            counters.framesDropped += 1
            heardOffset = heardSamples / (Self.rate / 1000)
            return
        }
        for index in frame.indices {
            batch.append(UInt8(truncatingIfNeeded: frame[index]))
            batch.append(UInt8(truncatingIfNeeded: frame[index] >> 8))
        }
        if batch.count >= Self.framesPerAppend * 2 * Self.rate / 50 { flush() }
    }

    private mutating func flush() {
        guard !batch.isEmpty else { return }
        scratch.removeAll(keepingCapacity: true)
        scratch += #"{"type":"input_audio_buffer.append","audio":""#.utf8
        appendBase64(batch, to: &scratch)
        scratch += #""}"#.utf8
        batch.removeAll(keepingCapacity: true)
        let message = scratch
        if !send(message) { counters.framesDropped += UInt64(Self.framesPerAppend) }
    }

    /// Does what the conversation asks. `appendInput` must be PCM of 24 kHz.
    public mutating func perform(_ action: ConversationAction, session: borrowing SessionObject, at now: Instant) {
        self.now = now
        switch action {
        case .sessionChanged:
            if case .semantic = session.turnDetection { leavesTurns = true } else { leavesTurns = false }
            safetyIdentifier = session.safetyIdentifier
            let update = Self.update(session).utf8
            sessionUpdate = update
            if isOpen { send(update) }
        case .appendInput(let bytes):
            batch += bytes
            flush()
        case .clearInput:
            batch.removeAll(keepingCapacity: true)
            send("input_audio_buffer.clear", [])
        case .turnCommitted:
            flush()
            if !leavesTurns { send("input_audio_buffer.commit", []) }
        case .startResponse(_, let parameters): ask(parameters)
        case .cancelResponse: cancel()
        case .clearOutput:
            samples.removeAll()
            tellEnd()
        case .itemCreated(let item):
            var body = JSONObject()
            for member in item.object?.members ?? [] where !["object", "status"].contains(member.name) { body[member.name] = member.value }
            if let id = item["id"]?.string {
                sharedItems.append(id)
                if sharedItems.count > 256 { sharedItems.removeFirst() }
            }
            send("conversation.item.create", [("item", .object(body))])
        case .itemDeleted(let id):
            if sharedItems.contains(id) { send("conversation.item.delete", [("item_id", .string(id))]) }
        case .truncated(let item, let milliseconds):
            guard let id = sharedItems.contains(item) ? item : spokenItem else { return }
            send(
                "conversation.item.truncate",
                [("item_id", .string(id)), ("content_index", 0), ("audio_end_ms", .integer(Int64(milliseconds)))])
        }
    }

    private mutating func ask(_ parameters: JSONValue) {
        samples.removeAll()
        oddByte = nil
        if case .waiting = phase {
            answer = RealtimeAnswer(eventID: "", sign: now)
            return fail(
                reconnection.isBroken
                    ? "The backend is not there; it has failed \(reconnection.failures) times in a row."
                    : "The backend is not there; it is being called again.")
        }
        var fields: [(String, JSONValue)] = []
        if let object = parameters.object, !object.members.isEmpty { fields.append(("response", parameters)) }
        let id = send("response.create", fields)
        answer = RealtimeAnswer(eventID: id ?? "", sign: now)
        if id == nil { fail("The backend does not read what it is sent.") }
    }

    private mutating func cancel() {
        samples.removeAll()
        oddByte = nil
        guard let answer else { return }
        self.answer = nil
        // A backend that has said everything knows of nothing to cancel.
        guard !answer.isComplete else { return }
        sendCancel(answer)
    }

    /// Tells the backend that nobody waits for this response. One that it has not named yet must not be taken for the next one.
    mutating func sendCancel(_ answer: RealtimeAnswer) {
        if answer.id == nil { unwanted.append(answer.eventID) }
        send("response.cancel", answer.id.map { [("response_id", .string($0))] } ?? [])
    }

    /// The session as the backend shall have it: PCM both ways, and turns found here. What is our own default is left to its defaults.
    static func update(_ session: borrowing SessionObject) -> JSONValue {
        let standard = SessionObject()
        let shown = session.json(id: "")
        let pcm: JSONValue = ["type": "audio/pcm", "rate": 24_000]
        var input = JSONObject()
        input["format"] = pcm
        input["turn_detection"] = .null
        if case .semantic(let eagerness, _, _) = session.turnDetection {
            input["turn_detection"] = [
                "type": "semantic_vad", "eagerness": .string(eagerness), "create_response": false, "interrupt_response": false,
            ]
        }
        for field in ["transcription", "noise_reduction"] { if let value = session.passedOn[field] { input[field] = value } }
        var output = JSONObject()
        output["format"] = pcm
        if session.voice != standard.voice { output["voice"] = session.voice.json }
        if session.speed != standard.speed { output["speed"] = .number(session.speed) }
        var object = JSONObject()
        object["type"] = .string(session.kind)
        object["output_modalities"] = shown["output_modalities"]
        object["audio"] = ["input": .object(input), "output": .object(output)]
        if !session.instructions.isEmpty { object["instructions"] = .string(session.instructions) }
        if session.maxOutputTokens != nil { object["max_output_tokens"] = shown["max_output_tokens"] }
        for member in session.passedOn.members where input[member.name] == nil { object[member.name] = member.value }
        return ["type": "session.update", "session": .object(object)]
    }

    /// Sends an event; its `event_id`, or nil when nobody takes it.
    @discardableResult private mutating func send(_ type: String, _ fields: [(String, JSONValue)]) -> String? {
        eventNumber += 1
        let id = "swiftlet_\(eventNumber)"
        var event = JSONObject()
        event["type"] = .string(type)
        event["event_id"] = .string(id)
        for (name, value) in fields { event[name] = value }
        return send(JSONValue.object(event).utf8) ? id : nil
    }

    /// Sends a message, or keeps it for a stream that is being opened. False when there is no room or no stream.
    @discardableResult mutating func send(_ message: [UInt8]) -> Bool {
        switch phase {
        case .open: return socket?.send(text: message) ?? false
        case .opening, .handshake:
            guard pendingBytes + message.count <= settings.outputBytes else { return false }
            pending.append(message)
            pendingBytes += message.count
            return true
        case .waiting, .over: return false
        }
    }
}

/// Standard base64 without a text in between.
private func appendBase64(_ bytes: [UInt8], to output: inout [UInt8]) {
    var index = 0
    while index < bytes.count {
        let a = bytes[index]
        let b = index + 1 < bytes.count ? bytes[index + 1] : 0
        let c = index + 2 < bytes.count ? bytes[index + 2] : 0
        output.append(Base64.character(of: a >> 2))
        output.append(Base64.character(of: a << 4 | b >> 4))
        output.append(index + 1 < bytes.count ? Base64.character(of: b << 2 | c >> 6) : UInt8(ascii: "="))
        output.append(index + 2 < bytes.count ? Base64.character(of: c) : UInt8(ascii: "="))
        index += 3
    }
}
