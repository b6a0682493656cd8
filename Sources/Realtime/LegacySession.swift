import Primitives

/// The body of `POST /v1/realtime/sessions` (and `…/transcription_sessions`), with which clients got an ephemeral key before the API was final: a flat
/// session object. It is read into the session object of today, and shown again as its client wrote it.
public struct LegacySessionRequest: Sendable, Equatable {
    /// 10…7200; a minute, as it was then.
    public private(set) var seconds = 60
    public private(set) var session = SessionObject()
    /// The session as one of today: what is sealed into the key.
    public private(set) var sessionJSON: JSONValue
    private var shown = JSONObject()
    private let isTranscription: Bool

    private static let formats = ["pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"]
    /// The older name of a field, by the newer one.
    private static let renamed = [
        ("session.audio.input.turn_detection", "turn_detection"), ("session.audio.input.transcription", "input_audio_transcription"),
        ("session.audio.input.noise_reduction", "input_audio_noise_reduction"), ("session.audio.output.voice", "voice"),
        ("session.audio.output.speed", "speed"), ("session.max_output_tokens", "max_response_output_tokens"), ("session.", ""),
    ]

    public init(parsing body: RawSpan, isTranscription: Bool, abilities: SessionObject.Abilities) throws(APIError) {
        self.isTranscription = isTranscription
        sessionJSON = [:]
        let value: JSONValue = body.byteCount > 0 ? try JSONValue(requestBody: body) : [:]
        var fields = try FieldReader(value, path: "")
        if var secret = try fields.object("client_secret") {
            for name in ["expires_after", "expires_at"] {
                if let given = try secret.secretLifetime(name) { seconds = given }
            }
            try secret.finish()
        }
        sessionJSON = try Self.modern(&fields, isTranscription: isTranscription)
        try fields.finish()
        for member in value.object?.members ?? [] where member.name != "client_secret" { shown[member.name] = member.value }
        do {
            try session.apply(sessionJSON, abilities: abilities)
        } catch {
            throw Self.inOlderWords(error)
        }
    }

    private static func modern(_ fields: inout FieldReader, isTranscription: Bool) throws(APIError) -> JSONValue {
        var (input, output, object) = (JSONObject(), JSONObject(), JSONObject())
        object["type"] = isTranscription ? "transcription" : "realtime"
        for (name, place) in [
            ("turn_detection", "turn_detection"), ("input_audio_transcription", "transcription"),
            ("input_audio_noise_reduction", "noise_reduction"),
        ] {
            input[place] = fields.value(name)
        }
        if let format = try fields.choice("input_audio_format", formats.keys.sorted()) { input["format"] = ["type": json(formats[format])] }
        if let format = try fields.choice("output_audio_format", formats.keys.sorted()) {
            output["format"] = ["type": json(formats[format])]
        }
        for name in ["voice", "speed"] { output[name] = fields.value(name) }
        if let modalities = fields.value("modalities"), !modalities.isNull {
            let list = modalities.array?.compactMap(\.string) ?? []
            guard !list.isEmpty, list.count == modalities.array?.count, list.allSatisfy({ ["audio", "text"].contains($0) }) else {
                throw .wrongValue("modalities", given: modalities, allowed: "['text'] or ['audio', 'text']")
            }
            // Audio always came with its text.
            object["output_modalities"] = list.contains("audio") ? ["audio"] : ["text"]
        }
        object["max_output_tokens"] = fields.value("max_response_output_tokens")
        // Models of today have none.
        _ = try fields.number("temperature", in: 0...2)
        for name in ["model", "instructions", "tools", "tool_choice", "tracing", "prompt", "include"] { object[name] = fields.value(name) }
        object["audio"] = ["input": .object(input), "output": .object(output)]
        return .object(object)
    }

    private static func json(_ text: String?) -> JSONValue { text.map { .string($0) } ?? .null }

    private static func inOlderWords(_ error: APIError) -> APIError {
        guard let param = error.param, let (new, old) = renamed.first(where: { param.hasPrefix($0.0) }) else { return error }
        var error = error
        error.param = old + param.dropFirst(new.count)
        error.message = error.message.replacing(param, with: error.param ?? "")
        return error
    }

    /// The response's body.
    ///
    /// - Parameters:
    ///   - value: the secret, `ek_…`.
    ///   - expiresAt: seconds since 1970.
    public func answer(value: String, expiresAt: UInt64, sessionID: String) -> JSONValue {
        var object = JSONObject()
        object["id"] = .string(sessionID)
        object["object"] = isTranscription ? "realtime.transcription_session" : "realtime.session"
        if !isTranscription {
            object["model"] = .string(session.model)
            object["modalities"] = session.outputModalities == ["audio"] ? ["audio", "text"] : ["text"]
            object["instructions"] = .string(session.instructions)
            object["voice"] = session.voice.json
            object["output_audio_format"] = .string(Self.older(session.outputFormat))
            object["tools"] = []
            object["tool_choice"] = "auto"
            object["temperature"] = .number(0.8)
            object["max_response_output_tokens"] = session.maxOutputTokens.map { .integer(Int64($0)) } ?? "inf"
        }
        object["input_audio_format"] = .string(Self.older(session.inputFormat))
        object["input_audio_transcription"] = .null
        object["turn_detection"] = session.turnDetectionJSON
        for member in shown.members where member.name != "turn_detection" { object[member.name] = member.value }
        object["client_secret"] = ["value": .string(value), "expires_at": .integer(Int64(clamping: expiresAt))]
        return .object(object)
    }

    private static func older(_ format: RealtimeAudioFormat) -> String {
        formats.first { $0.value == format.rawValue }?.key ?? "pcm16"
    }
}

/// What is read gives a session whose JSON gives the same session again.
public func fuzzLegacySessionRequest(_ bytes: RawSpan) {
    for isTranscription in [false, true] {
        let abilities = SessionObject.Abilities(semanticVAD: false)
        guard let request = try? LegacySessionRequest(parsing: bytes, isTranscription: isTranscription, abilities: abilities) else {
            continue
        }
        precondition((10...7_200).contains(request.seconds))
        var again = SessionObject()
        let isAccepted = (try? again.apply(request.sessionJSON, abilities: abilities)) != nil
        precondition(isAccepted && again == request.session, "a session that was accepted is refused")
    }
}
