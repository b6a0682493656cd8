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
    public var voice = "alloy"
    /// 0.25…1.5.
    public var speed = 1.0
    /// nil is the API's `"inf"`.
    public var maxOutputTokens: Int?
    /// `tools`, `tool_choice`, `noise_reduction`, `transcription`, `prompt`, …: by the API's own names.
    public var passedOn = JSONObject()

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
            next.outputModalities = try Self.modalities(modalities, fields.name("output_modalities"))
        }
        if var audio = try fields.object("audio") {
            if var input = try audio.object("input") {
                try next.applyInput(&input, abilities: abilities)
            }
            if var output = try audio.object("output") {
                try next.applyOutput(&output, voiceLocked: voiceLocked && voice != "")
                if voiceLocked, next.voice != voice {
                    throw APIError(
                        code: "cannot_update_voice", message: "The voice cannot be changed once the assistant has produced audio.",
                        param: "\(path).audio.output.voice")
                }
            }
            try audio.finish()
        }
        if let tokens = fields.value("max_output_tokens"), !tokens.isNull {
            if tokens.string == "inf" {
                next.maxOutputTokens = nil
            } else if let count = tokens.integer, (1...4096).contains(count) {
                next.maxOutputTokens = Int(count)
            } else {
                throw .wrongValue(fields.name("max_output_tokens"), given: tokens, allowed: "1 to 4096, or 'inf'")
            }
        }
        for (field, expected) in Self.handedOn {
            guard let given = fields.value(field) else { continue }
            guard given.isNull || expected.allows(given) else { throw .wrongType(fields.name(field), expected: expected.rawValue) }
            next.passedOn[field] = given
        }
        _ = fields.value("id")
        _ = fields.value("object")
        _ = fields.value("expires_at")
        try fields.finish()
        self = next
    }

    private enum Kind: String {
        case array = "an array"
        case object = "an object"
        case objectOrText = "a string or an object"
        case bool = "a boolean"

        func allows(_ value: JSONValue) -> Bool {
            switch self {
            case .array: value.array != nil
            case .object: value.object != nil
            case .objectOrText: value.object != nil || value.string != nil
            case .bool: value.bool != nil
            }
        }
    }

    private static let handedOn: [(String, Kind)] = [
        ("tools", .array), ("tool_choice", .objectOrText), ("parallel_tool_calls", .bool), ("reasoning", .object), ("prompt", .object),
        ("tracing", .objectOrText), ("truncation", .objectOrText), ("include", .array),
    ]

    private static func modalities(_ value: JSONValue, _ name: String) throws(APIError) -> [String] {
        guard let list = value.array?.compactMap(\.string), list == ["audio"] || list == ["text"] else {
            throw .wrongValue(name, given: value, allowed: "['audio'] or ['text']")
        }
        return list
    }

    private mutating func applyInput(_ input: inout FieldReader, abilities: Abilities) throws(APIError) {
        if let format = try Self.format(&input) { inputFormat = format }
        for field in ["noise_reduction", "transcription"] {
            guard let value = input.value(field) else { continue }
            guard value.isNull || value.object != nil else { throw .wrongType(input.name(field), expected: "an object or null") }
            passedOn[field] = value
        }
        if input.isNull("turn_detection") {
            turnDetection = .none
        } else if var detection = try input.object("turn_detection") {
            turnDetection = try Self.turnDetection(&detection, before: turnDetection, abilities: abilities)
        }
        try input.finish()
    }

    private mutating func applyOutput(_ output: inout FieldReader, voiceLocked: Bool) throws(APIError) {
        if let format = try Self.format(&output) { outputFormat = format }
        if let value = output.value("voice"), !value.isNull {
            guard let name = value.string ?? value["id"]?.string, !name.isEmpty, name.utf8.count <= 128 else {
                throw .wrongType(output.name("voice"), expected: "a voice's name")
            }
            voice = name
        }
        if let speed = try output.number("speed", in: 0.25...1.5) { self.speed = speed }
        try output.finish()
    }

    private static func format(_ fields: inout FieldReader) throws(APIError) -> RealtimeAudioFormat? {
        guard var format = try fields.object("format") else { return nil }
        guard let type = try format.choice("type", ["audio/pcm", "audio/pcmu", "audio/pcma"]) else { throw .missing(format.name("type")) }
        if let rate = format.value("rate"), !rate.isNull, rate.integer != 24_000 || type != "audio/pcm" {
            throw .wrongValue(format.name("rate"), given: rate, allowed: "24000, with 'audio/pcm' only")
        }
        try format.finish()
        return RealtimeAudioFormat(rawValue: type)
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
        let output: JSONValue = ["format": outputFormat.json, "voice": .string(voice), "speed": .number(speed)]
        var object = JSONObject()
        object["type"] = .string(kind)
        object["object"] = "realtime.session"
        object["id"] = .string(id)
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

    private var turnDetectionJSON: JSONValue {
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
