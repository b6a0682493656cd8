import Primitives

/// How turns are found.
public enum TurnDetection: Sendable, Equatable {
    /// `null`: the client says when its turn ends (push-to-talk).
    case none
    /// Voice activity at the server.
    case server(ServerVAD)
    /// A model's judgement: only a backend that offers it can do this.
    case semantic(eagerness: String, createResponse: Bool, interruptResponse: Bool)

    public var createsResponse: Bool {
        switch self {
        case .none: false
        case .server(let vad): vad.createResponse
        case .semantic(_, let create, _): create
        }
    }
    public var interruptsResponse: Bool {
        switch self {
        case .none: false
        case .server(let vad): vad.interruptResponse
        case .semantic(_, _, let interrupt): interrupt
        }
    }
}

/// `server_vad` and its parameters; the defaults are the API's.
public struct ServerVAD: Sendable, Equatable {
    /// 0…1: higher asks for louder speech.
    public var threshold = 0.5
    /// Audio kept from before the detected start, 0…5000 ms.
    public var prefixPaddingMilliseconds = 300
    /// Silence that ends a turn, 0…10,000 ms.
    public var silenceDurationMilliseconds = 500
    /// Silence after the last answer that makes the server speak up, 5000…30,000 ms; nil is never.
    public var idleTimeoutMilliseconds: Int?
    public var createResponse = true
    public var interruptResponse = true
    public init() {}
}

/// The audio formats of the API.
public enum RealtimeAudioFormat: String, Sendable, Equatable {
    /// 16-bit mono little-endian at 24 kHz.
    case pcm = "audio/pcm"
    case muLaw = "audio/pcmu"
    case aLaw = "audio/pcma"

    var json: JSONValue { self == .pcm ? ["type": .string(rawValue), "rate": 24_000] : ["type": .string(rawValue)] }
}

/// The session object (GA shape). Fields that this server acts on are typed; fields that only a backend's model reads are checked for their
/// JSON type, kept and handed on.
public struct SessionObject: Sendable, Equatable {
    public var kind = "realtime"
    public var model = "swiftlet"
    public var instructions = ""
    public var outputModalities = ["audio"]
    public var inputFormat = RealtimeAudioFormat.pcm
    public var outputFormat = RealtimeAudioFormat.pcm
    public var turnDetection = TurnDetection.server(ServerVAD())
    public var voice = Voice(name: "alloy")
    /// 0.25…1.5.
    public var speed = 1.0
    /// nil is the API's `"inf"`.
    public var maxOutputTokens: Int?
    /// `tools`, `tool_choice`, `noise_reduction`, `transcription`, `prompt`, …: by the API's own names.
    public var passedOn = JSONObject()
    /// Who the end user is, as a hash that the client's own server has made (`OpenAI-Safety-Identifier`). It comes with signaling, no event shows
    /// or changes it, and a backend of the API is told.
    public var safetyIdentifier: String?

    public init() {}

    /// Whether the model says anything: a transcription session only listens.
    public var answers: Bool { kind == "realtime" }

    /// What a backend can do beyond the minimum; decides what `session.update` may ask for.
    public struct Abilities: Sendable {
        public var semanticVAD: Bool
        public init(semanticVAD: Bool) { self.semanticVAD = semanticVAD }
    }

    /// Applies a `session` object field by field. Nothing changes when any field is refused.
    /// - Parameter voiceLocked: the voice cannot change once the model has spoken.
    public mutating func apply(_ value: JSONValue, abilities: Abilities, voiceLocked: Bool = false, path: String = "session")
        throws(APIError)
    {
        var next = self
        var fields = try FieldReader(value, path: path)
        if let kind = try fields.choice("type", ["realtime", "transcription"]) { next.kind = kind }
        if let model = try fields.string("model", maximum: 256) { next.model = model }
        if let instructions = try fields.string("instructions") { next.instructions = instructions }
        if let modalities = fields.value("output_modalities") {
            next.outputModalities = try SharedFields.outputModalities(modalities, fields.name("output_modalities"))
        }
        if var audio = try fields.object("audio") {
            if var input = try audio.object("input") {
                try next.applyInput(&input, abilities: abilities)
            }
            if var output = try audio.object("output") {
                try next.applyOutput(&output)
                if voiceLocked, next.voice != voice {
                    throw APIError(
                        code: "cannot_update_voice", message: "The voice cannot be changed once the assistant has produced audio.",
                        param: "\(path).audio.output.voice")
                }
            }
            try audio.finish()
        }
        if let tokens = fields.value("max_output_tokens"), !tokens.isNull {
            next.maxOutputTokens = try SharedFields.maxOutputTokens(tokens, fields.name("max_output_tokens"))
        }
        for (field, check) in HandedOnFields.ofSession {
            guard let given = fields.value(field) else { continue }
            if !given.isNull { try check(given, fields.name(field)) }
            next.passedOn[field] = given
        }
        _ = fields.value("id")
        _ = fields.value("object")
        _ = fields.value("expires_at")
        try fields.finish()
        self = next
    }

    private mutating func applyInput(_ input: inout FieldReader, abilities: Abilities) throws(APIError) {
        if let format = try SharedFields.format(&input) { inputFormat = format }
        for (field, check) in HandedOnFields.ofInput {
            guard let value = input.value(field) else { continue }
            if !value.isNull { try check(value, input.name(field)) }
            passedOn[field] = value
        }
        if input.isNull("turn_detection") {
            turnDetection = .none
        } else if var detection = try input.object("turn_detection") {
            turnDetection = try Self.turnDetection(&detection, before: turnDetection, abilities: abilities)
        }
        try input.finish()
    }

    private mutating func applyOutput(_ output: inout FieldReader) throws(APIError) {
        if let format = try SharedFields.format(&output) { outputFormat = format }
        if let voice = try SharedFields.voice(&output) { self.voice = voice }
        if let speed = try output.number("speed", in: 0.25...1.5) { self.speed = speed }
        try output.finish()
    }

    private static func turnDetection(
        _ fields: inout FieldReader, before: TurnDetection, abilities: Abilities
    ) throws(APIError) -> TurnDetection {
        guard let type = try fields.choice("type", ["server_vad", "semantic_vad"]) else { throw .missing(fields.name("type")) }
        if type == "semantic_vad" {
            guard abilities.semanticVAD else {
                throw APIError(
                    code: "unsupported_value",
                    message: "This server's backend has no 'semantic_vad'. Use 'server_vad', or null to end turns yourself.",
                    param: fields.name("type"))
            }
            let eagerness = try fields.choice("eagerness", ["low", "medium", "high", "auto"]) ?? "auto"
            let create = try fields.bool("create_response") ?? true
            let interrupt = try fields.bool("interrupt_response") ?? true
            try fields.finish()
            return .semantic(eagerness: eagerness, createResponse: create, interruptResponse: interrupt)
        }
        var vad = ServerVAD()
        if case .server(let current) = before { vad = current }
        if let threshold = try fields.number("threshold", in: 0...1) { vad.threshold = threshold }
        if let padding = try fields.integer("prefix_padding_ms", in: 0...5_000) { vad.prefixPaddingMilliseconds = padding }
        if let silence = try fields.integer("silence_duration_ms", in: 0...10_000) { vad.silenceDurationMilliseconds = silence }
        if fields.isNull("idle_timeout_ms") { vad.idleTimeoutMilliseconds = nil }
        if let idle = try fields.integer("idle_timeout_ms", in: 5_000...30_000) { vad.idleTimeoutMilliseconds = idle }
        if let create = try fields.bool("create_response") { vad.createResponse = create }
        if let interrupt = try fields.bool("interrupt_response") { vad.interruptResponse = interrupt }
        try fields.finish()
        return .server(vad)
    }

    /// The object as the API shows it.
    public func json(id: String) -> JSONValue {
        var input = JSONObject()
        input["format"] = inputFormat.json
        input["transcription"] = passedOn["transcription"] ?? .null
        input["noise_reduction"] = passedOn["noise_reduction"] ?? .null
        input["turn_detection"] = turnDetectionJSON
        let output: JSONValue = ["format": outputFormat.json, "voice": voice.json, "speed": .number(speed)]
        var object = JSONObject()
        object["type"] = .string(kind)
        object["object"] = answers ? "realtime.session" : "realtime.transcription_session"
        object["id"] = .string(id)
        guard answers else {
            // Nobody speaks: there is nothing of who, how and with which tools.
            object["audio"] = ["input": .object(input)]
            if let include = passedOn["include"] { object["include"] = include }
            return .object(object)
        }
        object["model"] = .string(model)
        object["output_modalities"] = .array(outputModalities.map { .string($0) })
        object["instructions"] = .string(instructions)
        object["audio"] = ["input": .object(input), "output": output]
        object["max_output_tokens"] = maxOutputTokens.map { .integer(Int64($0)) } ?? "inf"
        object["tools"] = passedOn["tools"] ?? []
        object["tool_choice"] = passedOn["tool_choice"] ?? "auto"
        for field in ["parallel_tool_calls", "reasoning", "prompt", "tracing", "truncation", "include"] {
            if let value = passedOn[field] { object[field] = value }
        }
        return .object(object)
    }

    var turnDetectionJSON: JSONValue {
        switch turnDetection {
        case .none: return .null
        case .server(let vad):
            return [
                "type": "server_vad", "threshold": .number(vad.threshold),
                "prefix_padding_ms": .integer(Int64(vad.prefixPaddingMilliseconds)),
                "silence_duration_ms": .integer(Int64(vad.silenceDurationMilliseconds)),
                "idle_timeout_ms": vad.idleTimeoutMilliseconds.map { .integer(Int64($0)) } ?? .null,
                "create_response": .bool(vad.createResponse), "interrupt_response": .bool(vad.interruptResponse),
            ]
        case .semantic(let eagerness, let create, let interrupt):
            return [
                "type": "semantic_vad", "eagerness": .string(eagerness), "create_response": .bool(create),
                "interrupt_response": .bool(interrupt),
            ]
        }
    }
}
