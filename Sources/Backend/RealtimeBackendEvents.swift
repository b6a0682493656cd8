import HTTP
import Primitives
import Realtime

// MARK: - To the conversation

extension RealtimeBackend {
    /// Overwrites `frame` with the next samples of the answer; false when there is nothing to say now. Take the events after each.
    public mutating func nextFrame(into frame: inout MutableSpan<Int16>) -> Bool {
        guard let answer, samples.count >= frame.count || (answer.isComplete && samples.count > 0) else {
            tellEnd()
            return false
        }
        if !hasRoom { self.answer?.sign = now }
        samples.take(into: &frame)
        tellEnd()
        proceed()
        return true
    }

    public mutating func nextEvent() -> BackendEvent? {
        if events.isEmpty { proceed() }
        return events.isEmpty ? nil : events.removeFirst()
    }

    /// What the backend's own turn detection has heard; only with `semantic_vad`.
    public mutating func nextHeard() -> HeardEvent? { heard.isEmpty ? nil : heard.removeFirst() }

    /// The response's end, once its last sample was taken.
    mutating func tellEnd() {
        guard let answer, answer.isComplete, samples.count == 0 else { return }
        self.answer = nil
        events.append(.responseDone)
    }

    /// Ends the open response, if there is one, and tells the client in any case.
    mutating func fail(_ message: String) {
        answer = nil
        samples.removeAll()
        oddByte = nil
        events.append(.failed(message: message))
    }
}

// MARK: - From the backend

extension RealtimeBackend {
    /// Takes one server event.
    mutating func hear(_ text: [UInt8]) {
        counters.messagesReceived += 1
        guard let event = try? JSONValue(parsing: text.span.bytes, limits: JSONLimits(bytes: 1 << 20, depth: 24, values: 20_000)),
            let type = event["type"]?.string
        else {
            counters.malformed += 1
            return
        }
        switch type {
        case "error": hearError(event)
        case "conversation.item.input_audio_transcription.completed":
            if let transcript = event["transcript"]?.string { events.append(.inputTranscript(transcript)) }
        case "conversation.item.input_audio_transcription.delta":
            if let delta = event["delta"]?.string { events.append(.inputTranscriptDelta(delta)) }
        case "conversation.item.input_audio_transcription.failed":
            events.append(.inputTranscriptFailed(message: String((event["error"]?["message"]?.string ?? "").prefix(500))))
        case "input_audio_buffer.speech_started":
            if leavesTurns, let time = milliseconds(event["audio_start_ms"]) { heard.append(.speechStarted(milliseconds: time)) }
        case "input_audio_buffer.speech_stopped":
            if leavesTurns, let time = milliseconds(event["audio_end_ms"]) { heard.append(.speechStopped(milliseconds: time)) }
        case "rate_limits.updated": events.append(.passThrough(event))
        case "response.created":
            if unwanted.isEmpty {
                guard answer?.id == nil else { return }
                answer?.id = event["response"]?["id"]?.string
                answer?.sign = now
            } else {
                unwanted.removeFirst()
            }
        case let type where type.hasPrefix("response."): hearAnswer(type, event)
        default: break
        }
    }

    /// In the call's own time: the backend counts what it got.
    private func milliseconds(_ value: JSONValue?) -> Int? {
        guard let time = value?.integer, (0...86_400_000).contains(time) else { return nil }
        return heardOffset + Int(time)
    }

    /// Events of a response; those of one that nobody waits for any more are dropped.
    private mutating func hearAnswer(_ type: String, _ event: JSONValue) {
        let id = event["response_id"]?.string ?? event["response"]?["id"]?.string
        guard var open = answer, !open.isComplete, let id, id == open.id else { return }
        open.sign = now
        answer = open
        // The older names are those of servers that have not followed yet.
        switch type {
        case "response.output_audio.delta", "response.audio.delta": hearAudio(event)
        case "response.output_audio_transcript.delta", "response.audio_transcript.delta":
            if let text = event["delta"]?.string { events.append(.transcriptDelta(text)) }
        case "response.output_text.delta", "response.text.delta":
            if let text = event["delta"]?.string { events.append(.textDelta(text)) }
        case "response.output_item.done":
            guard let item = event["item"], item["type"] == "function_call", let name = item["name"]?.string,
                let call = item["call_id"]?.string
            else { return }
            events.append(.functionCall(name: name, callID: call, arguments: item["arguments"]?.string ?? ""))
        case "response.done":
            if event["response"]?["status"] == "failed" {
                let message = event["response"]?["status_details"]?["error"]?["message"]?.string ?? "it gives no reason"
                return fail("The backend's response failed: \(message.prefix(500))")
            }
            answer?.isComplete = true
            tellEnd()
        default: break
        }
    }

    private mutating func hearAudio(_ event: JSONValue) {
        guard let text = event["delta"]?.string, let bytes = Base64.decode(text) else {
            counters.malformed += 1
            return
        }
        if let item = event["item_id"]?.string { spokenItem = item }
        guard !bytes.isEmpty else { return }
        if answer?.hasAudio == false {
            answer?.hasAudio = true
            events.append(.audioStarted)
        }
        for byte in bytes {
            if let low = oddByte {
                samples.append(Int16(truncatingIfNeeded: UInt16(byte) << 8 | UInt16(low)))
                oddByte = nil
            } else {
                oddByte = byte
            }
        }
    }

    private mutating func hearError(_ event: JSONValue) {
        let error = event["error"]
        let id = error?["event_id"]?.string ?? ""
        unwanted.removeAll { $0 == id }
        // Our cancel has crossed the response's end.
        if error?["code"] == "response_cancel_not_active" { return }
        let message = String((error?["message"]?.string ?? "it gives no reason").prefix(500))
        if let answer, answer.id == nil, answer.eventID == id { return fail("The backend refuses to answer: \(message)") }
        tell(APIError(type: error?["type"]?.string ?? "server_error", code: error?["code"]?.string, message: message))
    }

    /// An `error` event for the client that ends nothing.
    private mutating func tell(_ error: APIError) {
        eventNumber += 1
        events.append(
            .passThrough(["type": "error", "event_id": .string("event_backend_\(eventNumber)"), "error": error.json()]))
    }
}

// MARK: - Patience

extension RealtimeBackend {
    var answerDeadline: Deadline {
        guard let answer, !answer.isComplete else { return .none }
        if answer.id == nil, !answer.hasToldSlow { return Deadline(answer.sign + settings.acknowledgeTime, "backend acknowledgment") }
        // A backend that is not read because its answer waits to be taken is not silent.
        return hasRoom ? Deadline(answer.sign + settings.answerTime, "backend answer") : .none
    }

    mutating func watchAnswer() {
        // What is not read cannot be a sign of life.
        if !hasRoom { answer?.sign = now }
        guard let answer, answerDeadline.instant <= now else { return }
        if answer.id == nil, !answer.hasToldSlow {
            self.answer?.hasToldSlow = true
            return tell(
                APIError(
                    type: "server_error", code: "backend_slow",
                    message: "The backend has not answered for \(settings.acknowledgeTime.milliseconds) ms; still waiting."))
        }
        counters.timeouts += 1
        // A backend that has not even taken the request in all this time hangs. Another connection may reach one that does not, and nothing
        // that this one may still say can then be taken for the answer to a later request.
        guard answer.id != nil else {
            return lose("it said nothing for \(settings.answerTime.milliseconds / 1000) s", closes: true)
        }
        sendCancel(answer)
        fail("The backend said nothing for \(settings.answerTime.milliseconds / 1000) s.")
    }
}
