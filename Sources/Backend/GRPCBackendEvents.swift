import Primitives
import Realtime

// MARK: - To the conversation

extension GRPCBackend {
    /// Overwrites `frame` with the next samples of the answer; false when there is nothing to say now. Take the events after each.
    public mutating func nextFrame(into frame: inout MutableSpan<Int16>) -> Bool {
        guard let answer, samples.count >= frame.count || (answer.isComplete && samples.count > 0) else {
            tellEnd()
            return false
        }
        if !hasRoom { self.answer?.sign = now }
        samples.take(into: &frame)
        spokenResponse = answer.id
        tellEnd()
        proceed()
        return true
    }

    public mutating func nextEvent() -> BackendEvent? {
        if events.isEmpty { proceed() }
        return events.isEmpty ? nil : events.removeFirst()
    }

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
        events.append(.failed(message: message))
    }

    /// An `error` event for the client that ends nothing.
    private mutating func tell(_ error: APIError) {
        eventNumber += 1
        events.append(
            .passThrough(["type": "error", "event_id": .string("event_backend_\(eventNumber)"), "error": error.json()]))
    }
}

// MARK: - From the backend

extension GRPCBackend {
    private enum Step {
        case took(GRPCServerMessage, bytes: Int)
        /// Not all of it is there.
        case incomplete
        case wrong(String)
    }

    /// Takes what has come, as far as there is room.
    mutating func proceed() {
        guard http != nil else { return }
        if let words = refusal() { return lose(words, closes: true) }
        var took = false
        while hasRoom, http?.hasAnswered == true {
            guard let step = http?.withInput({ Self.step($0) }) else { break }
            switch step {
            case .incomplete: break
            case .wrong(let words): return lose(words, closes: true)
            case .took(let message, let bytes):
                counters.messagesReceived += 1
                mayPing = true
                took = true
                hear(message)
                // What was heard may have been the last word of the stream.
                http?.take(bytes)
                continue
            }
            break
        }
        if took { http?.openWindow() }
        watchEnd()
    }

    /// Why the answer's headers are not those of a backend.
    private mutating func refusal() -> String? {
        guard http?.hasAnswered == true, let status = http?.status, let type = http?.contentType, let encoding = http?.encoding else {
            return nil
        }
        switch status {
        case 200: break
        case 401, 403: return "it refuses our key"
        default: return "it answers with HTTP status \(status)"
        }
        let grpc = "application/grpc"
        guard type.hasPrefix(grpc), [nil, "+", ";"].contains(type.dropFirst(grpc.count).first) else { return "it speaks no gRPC" }
        return ["", "identity"].contains(encoding) ? nil : "it compresses its messages, which nobody asked for"
    }

    /// The next message (gRPC over HTTP/2: a flag, four bytes of length, the message).
    private static func step(_ input: RawSpan) -> Step {
        guard input.byteCount >= 5 else { return .incomplete }
        switch input.byte(0) {
        case 0: break
        case 1: return .wrong("it compresses its messages, which nobody asked for")
        default: return .wrong("it breaks the gRPC protocol")
        }
        let length = Int(input.u32(1))
        guard length <= messageMax else { return .wrong("it sends a message of more than \(messageMax) bytes") }
        guard input.byteCount >= 5 + length else { return .incomplete }
        guard let message = GRPCServerMessage(parsing: input.bytes(5..<(5 + length))) else {
            return .wrong("it sends what is no message of swiftlet.v1")
        }
        return .took(message, bytes: 5 + length)
    }

    private mutating func hear(_ message: GRPCServerMessage) {
        switch message {
        case .ready(let inputRate, let outputRate, let opus): greet(inputRate: inputRate, outputRate: outputRate, takesOpus: opus)
        case .responseStarted(let response): _ = isAlive(response)
        case .audio(let response, let pcm): if isAlive(response) { hear(pcm) }
        case .transcriptDelta(let response, let text): if isAlive(response) { events.append(.transcriptDelta(text)) }
        case .textDelta(let response, let text): if isAlive(response) { events.append(.textDelta(text)) }
        case .functionCall(let response, let name, let call, let arguments):
            if isAlive(response) { events.append(.functionCall(name: name, callID: call, arguments: arguments)) }
        case .responseDone(let response, let error):
            guard isAlive(response) else { return }
            guard error.isEmpty else { return fail("The backend's response failed: \(error.prefix(500))") }
            answer?.isComplete = true
            tellEnd()
        case .interrupt: events.append(.interrupted)
        case .inputTranscript(let text): events.append(.inputTranscript(text))
        case .error(let code, let message):
            let words = message.isEmpty ? "The backend gives no reason." : String(message.prefix(500))
            tell(APIError(type: "server_error", code: code.isEmpty ? nil : String(code.prefix(64)), message: words))
        case .unknown: break
        }
    }

    /// Whether anybody waits for this response. If so, it has given a sign of life.
    private mutating func isAlive(_ response: String) -> Bool {
        guard let open = answer, !open.isComplete, open.id == response else { return false }
        answer?.sign = now
        answer?.isAcknowledged = true
        return true
    }

    private mutating func hear(_ pcm: Range<Int>) {
        guard !pcm.isEmpty else { return }
        if answer?.hasAudio == false {
            answer?.hasAudio = true
            events.append(.audioStarted)
        }
        let place = (5 + pcm.lowerBound)..<(5 + pcm.upperBound)
        let given = http?.withInput { Self.samples($0.bytes(place)) } ?? []
        guard fromBackend != nil else { return samples.append(given) }
        var converted = [Int16](repeating: 0, count: fromBackend?.outputCount(for: given.count) ?? 0)
        var room = converted.mutableSpan
        let written = fromBackend?.process(given.span, into: &room).written ?? 0
        samples.append(converted[..<written])
    }

    private static func samples(_ bytes: RawSpan) -> [Int16] {
        [Int16](unsafeUninitializedCapacity: bytes.byteCount / 2) { buffer, count in
            count = bytes.byteCount / 2
            for index in 0..<count {
                buffer[index] = Int16(bitPattern: UInt16(bytes.byte(2 * index + 1)) << 8 | UInt16(bytes.byte(2 * index)))
            }
        }
    }
}

// MARK: - The stream's end

extension GRPCBackend {
    private mutating func watchEnd() {
        guard let end = http?.end else {
            if http?.isLeaving == true, isOpen, answer == nil { depart() }
            return
        }
        // What was said to the end may still be heard to the end.
        if http?.grpcStatus == 0, let answer, answer.isComplete || !hasRoom { return }
        lose(words(end), closes: true)
    }

    private mutating func words(_ end: HTTP2Stream.End) -> String {
        if let status = http?.grpcStatus { return Self.words(status: status, message: http?.grpcMessage ?? "") }
        switch end {
        case .brokenProtocol: return "it speaks no HTTP/2, or breaks its rules"
        case .closed(0): return "it has ended the stream without a status"
        case .closed(let code): return "it has reset the stream with code \(code)"
        }
    }

    /// gRPC's status codes, as far as they tell what to do.
    private static func words(status: Int, message: String) -> String {
        switch status {
        case 0: return "it has ended the stream"
        case 7, 16: return "it refuses our key"
        case 12: return "it offers no swiftlet.v1.VoiceBackend"
        default: break
        }
        let reason =
            switch status {
            case 1: "it has cancelled the stream"
            case 4: "it was too slow for itself"
            case 8: "it is full"
            case 14: "it is not available"
            default: "it has failed with gRPC status \(status)"
            }
        let said = percentDecoded(message)
        return said.isEmpty ? reason : "\(reason): \(said)"
    }

    /// `grpc-message`: at most 200 characters of text, without control characters.
    private static func percentDecoded(_ text: String) -> String {
        let bytes = Array(text.utf8.prefix(600))
        var decoded: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "%"), index + 2 < bytes.count,
                let value = UInt8(String(decoding: bytes[(index + 1)...(index + 2)], as: UTF8.self), radix: 16)
            {
                decoded.append(value)
                index += 3
            } else {
                decoded.append(bytes[index])
                index += 1
            }
        }
        return String(String(decoding: decoded.filter { $0 >= 0x20 && $0 != 0x7F }, as: UTF8.self).prefix(200))
    }
}

// MARK: - Patience

extension GRPCBackend {
    var answerDeadline: Deadline {
        guard let answer, !answer.isComplete else { return .none }
        if !answer.isAcknowledged, !answer.hasToldSlow { return Deadline(answer.sign + settings.acknowledgeTime, "backend acknowledgment") }
        // A backend that is not heard because its answer waits to be taken is not silent.
        return hasRoom ? Deadline(answer.sign + settings.answerTime, "backend answer") : .none
    }

    mutating func watchAnswer() {
        // What is not taken cannot be a sign of life.
        if !hasRoom { answer?.sign = now }
        guard let answer, answerDeadline.instant <= now else { return }
        if !answer.isAcknowledged, !answer.hasToldSlow {
            self.answer?.hasToldSlow = true
            return tell(
                APIError(
                    type: "server_error", code: "backend_slow",
                    message: "The backend has not answered for \(settings.acknowledgeTime.milliseconds) ms; still waiting."))
        }
        counters.timeouts += 1
        // A backend that has not even taken the request in all this time hangs. Another connection may reach one that does not.
        guard answer.isAcknowledged else {
            return lose("it said nothing for \(settings.answerTime.milliseconds / 1000) s", closes: true)
        }
        send(.responseCancel(id: answer.id))
        fail("The backend said nothing for \(settings.answerTime.milliseconds / 1000) s.")
    }
}
