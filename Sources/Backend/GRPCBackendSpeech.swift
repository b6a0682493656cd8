import Primitives
import Realtime

// MARK: - To the backend

extension GRPCBackend {
    /// Takes 20 ms of the caller's audio, gapless, at 24 kHz.
    /// - Parameter isConcealed: part of it was made up in place of lost packets.
    public mutating func hear(_ frame: Span<Int16>, isConcealed: Bool) {
        heardSamples += frame.count
        switch phase {
        case .open: say(frame, isConcealed: isConcealed)
        case .opening, .greeting:
            guard !keep(.audio(Self.array(frame), position: 0, isConcealed: isConcealed), bytes: 2 * frame.count) else { return }
            counters.framesDropped += 1
            lost += UInt64(frame.count)
        case .waiting:
            counters.framesDropped += 1
            heardBefore = heardSamples
        }
    }

    /// The backend wants the caller's Opus as it came: `hear(packet:…)` takes the place of `hear` until this changes.
    public var wantsPackets: Bool { isOpen && takesOpus }

    /// Takes the next stretch of the caller's Opus, gapless.
    /// - Parameters:
    ///   - packet: empty where nothing came.
    ///   - samples: at 48 kHz.
    ///   - isLost: there was a packet, and it got lost.
    public mutating func hear(packet: RawSpan, samples: Int, isLost: Bool) {
        heardSamples += samples * Self.rate / 48_000
        guard wantsPackets else { return }
        let length = UInt64(samples * inputRate / 48_000)
        let waiting = http?.waitingCount ?? 0
        if waiting + packet.byteCount + 32 <= settings.outputBytes {
            if lost > 0 { transmit(.audioLost(position: position - lost, samples: lost)) }
            lost = 0
            let bytes = (0..<packet.byteCount).map { packet.byte($0) }
            transmit(.opus(bytes, position: position, samples: length, isLost: isLost))
        } else {
            counters.framesDropped += 1
            lost += length
        }
        position += length
    }

    /// The caller has begun to speak, so many milliseconds after the call's beginning.
    public mutating func speechStarted(milliseconds: Int) {
        let since = max(milliseconds * (Self.rate / 1000) - heardBefore, 0)
        switch phase {
        case .open: transmit(.turnStarted(position: UInt64(since * inputRate / Self.rate)))
        // At our own rate until the backend's is known.
        case .opening, .greeting, .waiting: send(.turnStarted(position: UInt64(since)))
        }
    }

    /// Does what the conversation asks. `appendInput` must be PCM of 24 kHz.
    public mutating func perform(_ action: ConversationAction, session: borrowing SessionObject, at now: Instant) {
        self.now = now
        switch action {
        case .sessionChanged:
            self.session = GRPCSession(session)
            send(.sessionUpdate(self.session))
        case .appendInput(let bytes):
            let samples = stride(from: 0, to: bytes.count - 1, by: 2).map {
                Int16(bitPattern: UInt16(bytes[$0 + 1]) << 8 | UInt16(bytes[$0]))
            }
            hear(samples.span, isConcealed: false)
        case .clearInput: send(.inputCleared)
        case .turnCommitted(let item): send(.turnCommitted(item: item))
        case .startResponse(_, let parameters): ask(parameters)
        case .cancelResponse: cancel()
        case .clearOutput:
            samples.removeAll()
            tellEnd()
        case .itemCreated(let item):
            let text = item["content"]?.array?.compactMap { $0["text"]?.string }.joined(separator: "\n") ?? ""
            send(.itemCreated(id: item["id"]?.string ?? "", role: item["role"]?.string ?? "", text: text, json: item.text))
        case .itemDeleted(let id): send(.itemDeleted(id: id))
        case .truncated(let item, let milliseconds):
            guard !spokenResponse.isEmpty else { return }
            let samples = UInt64(max(milliseconds, 0)) * UInt64(outputRate) / 1000
            send(.truncated(response: spokenResponse, item: item, samples: samples))
        }
    }

    private mutating func ask(_ parameters: JSONValue) {
        samples.removeAll()
        fromBackend?.reset()
        responses += 1
        let id = "response_\(responses)"
        answer = GRPCAnswer(id: id, sign: now)
        if case .waiting = phase {
            return fail(
                reconnection.isBroken
                    ? "The backend is not there; it has failed \(reconnection.failures) times in a row."
                    : "The backend is not there; it is being called again.")
        }
        var json = ""
        if let object = parameters.object, !object.members.isEmpty { json = parameters.text }
        let deadline = UInt64(max(settings.answerTime.milliseconds, 0))
        let isTaken = send(.responseCreate(id: id, json: json, deadlineMilliseconds: deadline))
        if !isTaken { fail("The backend does not read what it is sent.") }
    }

    private mutating func cancel() {
        samples.removeAll()
        guard let answer else { return }
        self.answer = nil
        // A backend that has said everything knows of nothing to cancel.
        if !answer.isComplete { send(.responseCancel(id: answer.id)) }
    }
}

// MARK: - Queues

extension GRPCBackend {
    /// Bytes beyond `outputBytes`, which bounds audio, for everything else that is said.
    private static let headroom = 65_536

    /// Sends a message, or keeps it for a backend that is not ready. False when there is no room or no stream.
    @discardableResult mutating func send(_ message: GRPCClientMessage) -> Bool {
        switch phase {
        case .open: return transmit(message)
        case .opening, .greeting:
            // The start of the stream brings the session as it is then.
            if case .opening = phase, case .sessionUpdate = message { return true }
            return keep(message, bytes: message.encoded.count)
        case .waiting: return false
        }
    }

    private mutating func keep(_ message: GRPCClientMessage, bytes: Int) -> Bool {
        guard pendingBytes + bytes <= settings.outputBytes else { return false }
        pending.append(message)
        pendingBytes += bytes
        return true
    }

    /// Says what was kept, now that the backend's rate is known.
    mutating func sendPending() {
        let missing = lost * UInt64(inputRate) / UInt64(Self.rate)
        lost = 0
        let waiting = pending
        pending = []
        pendingBytes = 0
        for message in waiting {
            switch message {
            case .audio(let samples, _, let isConcealed): say(samples.span, isConcealed: isConcealed)
            case .turnStarted(let position): transmit(.turnStarted(position: position * UInt64(inputRate) / UInt64(Self.rate)))
            default: transmit(message)
            }
        }
        position += missing
        lost += missing
    }

    /// Audio, at the backend's rate; what it does not read is lost, and it will be told.
    private mutating func say(_ frame: Span<Int16>, isConcealed: Bool) {
        guard toBackend != nil else { return say(converted: Self.array(frame), isConcealed: isConcealed) }
        var converted = [Int16](repeating: 0, count: toBackend?.outputCount(for: frame.count) ?? 0)
        var room = converted.mutableSpan
        let written = toBackend?.process(frame, into: &room).written ?? 0
        converted.removeLast(converted.count - written)
        say(converted: converted, isConcealed: isConcealed)
    }

    private mutating func say(converted samples: [Int16], isConcealed: Bool) {
        let waiting = http?.waitingCount ?? 0
        if waiting + 2 * samples.count <= settings.outputBytes {
            if lost > 0 { transmit(.audioLost(position: position - lost, samples: lost)) }
            lost = 0
            transmit(.audio(samples, position: position, isConcealed: isConcealed))
        } else {
            counters.framesDropped += 1
            lost += UInt64(samples.count)
        }
        position += UInt64(samples.count)
    }

    /// Puts a message onto the stream, behind gRPC's prefix. False when too much waits already.
    @discardableResult mutating func transmit(_ message: GRPCClientMessage) -> Bool {
        let bytes = message.encoded
        guard let waiting = http?.waitingCount, waiting + bytes.count + 5 <= settings.outputBytes + Self.headroom else { return false }
        let length = UInt32(bytes.count)
        let prefix = [0, UInt8(length >> 24), UInt8(length >> 16 & 0xFF), UInt8(length >> 8 & 0xFF), UInt8(length & 0xFF)]
        http?.send(prefix + bytes)
        return true
    }
}

extension GRPCBackend {
    private static func array(_ samples: Span<Int16>) -> [Int16] {
        [Int16](unsafeUninitializedCapacity: samples.count) { buffer, count in
            for index in samples.indices { buffer[index] = samples[index] }
            count = samples.count
        }
    }
}

extension GRPCSession {
    init(_ session: borrowing SessionObject) {
        model = session.model
        instructions = session.instructions
        voice = session.voice.name
        isTextOnly = session.outputModalities == ["text"]
        json = session.json(id: "").text
    }
}
