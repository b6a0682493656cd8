import Crypto
import HTTP
import Primitives
import Realtime
import RoutingHint
import TestSupport
import Testing
import TransceiverCore

private let projectKey = "sk-swiftlet-0123456789abcdef"

private func keys(_ text: String) throws -> APIKeys { try APIKeys(parsing: Array(text.utf8)) }

private func complaint(_ text: String) -> String {
    do {
        return "\(try keys(text).count) keys"
    } catch { return "\(error)" }
}

extension HTTPRequest {
    fileprivate func bearing(_ token: String) -> HTTPRequest {
        var request = self
        request.headers.set("Authorization", "Bearer \(token)")
        return request
    }

    fileprivate static func secret(_ json: String) -> HTTPRequest {
        post("/v1/realtime/client_secrets", Array(json.utf8), type: "application/json")
    }
}

private func closedDesk() throws -> SignalingDesk { Sample.desk(keys: try keys("\(projectKey) shop\n")) }

private func later(_ seconds: UInt64) -> WallClock { WallClock(secondsSince1970: Sample.wall.secondsSince1970 + seconds) }

/// A desk's answer, which must be one.
private func answer(_ desk: inout SignalingDesk, _ request: HTTPRequest, at wall: WallClock = Sample.wall) throws -> HTTPResponse {
    let answer = desk.answer(request, at: wall)
    return try #require(answer)
}

private func mint(_ desk: inout SignalingDesk, _ json: String, at wall: WallClock = Sample.wall) throws -> JSONValue {
    let response = try answer(&desk, .secret(json).bearing(projectKey), at: wall)
    #expect(response.status == 200, "\(response.text)")
    return try JSONValue(parsing: response.text)
}

private func createdSession(_ desk: inout SignalingDesk) -> SessionObject? {
    while let next = desk.nextCommand() { if case .create(let parameters) = next.command { return parameters.session } }
    return nil
}

@Suite struct KeyFiles {
    @Test func `one key a line, with names and comments`() throws {
        let keys = try keys(
            """
            # production
            sk-aaaaaaaaaaaaaaaaaaaa   web shop   # since May

            \t sk-bbbbbbbbbbbbbbbbbbbb\r
            sk-cccccccccccccccccccc #spare
            """)
        #expect(keys.count == 3)
        #expect(keys.name(of: "sk-aaaaaaaaaaaaaaaaaaaa") == "web shop")
        #expect(keys.name(of: "sk-bbbbbbbbbbbbbbbbbbbb") == "key of line 4")
        #expect(keys.name(of: "sk-cccccccccccccccccccc") == "key of line 5")
        for wrong in ["sk-aaaaaaaaaaaaaaaaaaab", "sk-aaaaaaaaaaaaaaaaaaa", "", "web shop", String(repeating: "a", count: 10_000)] {
            #expect(keys.name(of: wrong) == nil)
        }
    }

    @Test func `what cannot be used is told with its line, and never with the key`() {
        #expect(complaint("").hasPrefix("the file has no key"))
        #expect(complaint("# nothing\n").hasPrefix("the file has no key"))
        #expect(complaint("\nshort") == "line 2: a key is 16 to 512 visible ASCII characters")
        #expect(complaint("sk-ääääääääääääääää").hasPrefix("line 1: a key is"))
        #expect(complaint("ek_aaaaaaaaaaaaaaaaaaaa").hasPrefix("line 1: 'ek_' is how client secrets begin"))
        #expect(complaint("\(projectKey) a\n\(projectKey) b") == "line 2: this key is there twice")
    }
}

@Suite struct Doors {
    @Test(arguments: [Sample.callsPath, "/whip", "/v1/realtime/client_secrets", "/v1/realtime/calls/x/hangup"])
    func `without a key, and with a wrong one, nothing is answered but 401`(path: String) throws {
        var desk = try closedDesk()
        let missing = try answer(&desk, .offer(to: path))
        #expect(missing.status == 401 && missing.headers["WWW-Authenticate"] == "Bearer")
        #expect(missing.error().code == "missing_api_key" && missing.error().type == "invalid_request_error")
        for token in ["sk-wrong-0123456789abcdef", "x", "ek_x", String(repeating: "k", count: 5_000)] {
            let wrong = try answer(&desk, .offer(to: path).bearing(token))
            #expect(wrong.status == 401 && wrong.error().code == "invalid_api_key")
        }
        let told = try answer(&desk, .offer(to: path).bearing("sk-wrong-0123456789abcdef")).error().message
        #expect(told == "Incorrect API key provided: sk-wro***cdef.")
        let (unauthorized, calls) = (desk.counters.unauthorized, desk.callCount)
        #expect(unauthorized == 6 && calls == 0)
    }

    @Test func `a project key opens everything`() throws {
        var desk = try closedDesk()
        let response = try answer(&desk, .offer().bearing(projectKey))
        #expect(response.status == 201)
        let call = try #require(response.headers["Location"])
        #expect(try answer(&desk, .post(call + "/hangup", []).bearing(projectKey)).status == 200)
    }

    @Test func `a browser asks without a key whether it may ask`() throws {
        var desk = try closedDesk()
        #expect(try answer(&desk, HTTPRequest(method: "OPTIONS", path: "/v1/realtime/client_secrets")).status == 204)
    }

    @Test func `an open desk takes any key and none`() throws {
        var desk = Sample.desk()
        #expect(try answer(&desk, .offer()).status == 201)
        #expect(try answer(&desk, .offer().bearing("sk-whatever")).status == 201)
        #expect(try answer(&desk, .offer().bearing("ek_whatever")).status == 201)
    }

    @Test func `a key in a WebSocket's subprotocols counts only in a WebSocket`() throws {
        var desk = try closedDesk()
        var headers = HTTPHeaders([
            ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.\(projectKey)"),
        ])
        let plain = desk.judge(HTTPRequest(method: "GET", path: "/v1/realtime", headers: headers), at: Sample.wall)
        headers.set("Upgrade", "websocket")
        headers.set("Connection", "Upgrade")
        let socket = desk.judge(HTTPRequest(method: "GET", path: "/v1/realtime", headers: headers), at: Sample.wall)
        #expect(socket == .granted(.project(name: "shop")) && plain != socket)
    }

    @Test func `keys are replaced while calls run`() throws {
        var desk = try closedDesk()
        #expect(try answer(&desk, .offer().bearing(projectKey)).status == 201)
        desk.replace(keys: try keys("sk-another-0123456789abcdef"))
        #expect(try answer(&desk, .offer().bearing(projectKey)).status == 401)
        #expect(try answer(&desk, .offer().bearing("sk-another-0123456789abcdef")).status == 201)
    }
}

@Suite struct ClientSecretsOfTheAPI {
    @Test func `a secret opens calls with its session until it expires`() throws {
        var desk = try closedDesk()
        let json =
            #"{"expires_after":{"anchor":"created_at","seconds":10},"session":{"type":"realtime","instructions":"Sag <ja>.","audio":{"output":{"voice":"marin"}}}}"#
        let minted = try mint(&desk, json)
        let secret = try #require(minted["value"]?.string)
        #expect(secret.hasPrefix("ek_") && minted["expires_at"]?.integer == Int64(Sample.wall.secondsSince1970 + 10))
        #expect(minted["session"]?["audio"]?["output"]?["voice"] == "marin" && minted["session"]?["object"] == "realtime.session")
        #expect(minted["session"]?["id"]?.string?.hasPrefix("sess_") == true && minted.object?.members.count == 3)
        // Another transceiver of the cluster: the same keys, nothing else in common. And more than once.
        var other = Sample.desk(keys: try keys("sk-another-0123456789abcdef"), seed: 99)
        for _ in 0..<2 {
            let response = try answer(&other, .offer().bearing(secret), at: later(9))
            #expect(response.status == 201, "\(response.text)")
            let session = createdSession(&other)
            #expect(session?.instructions == "Sag <ja>." && session?.voice.name == "marin")
        }
        let late = try answer(&other, .offer().bearing(secret), at: later(10))
        #expect(late.status == 401 && late.error().code == "client_secret_expired")
    }

    @Test func `without a body there are defaults`() throws {
        var desk = try closedDesk()
        for json in ["", "{}", #"{"session":null}"#] {
            #expect(try mint(&desk, json)["expires_at"]?.integer == Int64(Sample.wall.secondsSince1970 + 600))
        }
    }

    @Test(arguments: [
        (#"{"expires_after":{"seconds":9}}"#, "invalid_value", "expires_after.seconds"),
        (#"{"expires_after":{"seconds":7201}}"#, "invalid_value", "expires_after.seconds"),
        (#"{"expires_after":{"anchor":"now"}}"#, "invalid_value", "expires_after.anchor"),
        (#"{"expires_after":7}"#, "invalid_type", "expires_after"), (#"{"extra":1}"#, "unknown_parameter", "extra"),
        (#"{"session":{"audio":{"output":{"speed":9}}}}"#, "invalid_value", "session.audio.output.speed"),
        (#"{"session":"x"}"#, "invalid_type", "session"), ("[", "invalid_json", nil), ("7", "invalid_type", ""),
    ]) func `a request that is wrong names its field`(json: String, code: String, param: String?) throws {
        var desk = try closedDesk()
        let response = try answer(&desk, .secret(json).bearing(projectKey))
        #expect(response.status == 400 && response.error().code == code && response.error().param == param, "\(response.text)")
    }

    @Test func `a session that fits in no header is refused`() throws {
        var desk = try closedDesk()
        let response = try answer(
            &desk, .secret(#"{"session":{"instructions":"\#(String(repeating: "a", count: 25_000))"}}"#).bearing(projectKey))
        #expect(response.status == 400 && response.error().code == "session_too_large")
        let long = try mint(&desk, #"{"session":{"instructions":"\#(String(repeating: "a", count: 24_000))"}}"#)["value"]?.string ?? ""
        #expect(try answer(&desk, .offer().bearing(long)).status == 201)
        #expect(createdSession(&desk)?.instructions.utf8.count == 24_000)
    }

    @Test func `the holder of a secret makes calls and nothing else`() throws {
        var desk = try closedDesk()
        let secret = try mint(&desk, #"{"session":{"instructions":"bound"}}"#)["value"]?.string ?? ""
        for path in ["/v1/realtime/client_secrets", "/v1/realtime/calls/x/hangup"] {
            let response = try answer(&desk, .post(path, [], type: nil).bearing(secret))
            #expect(response.status == 403 && response.error().code == "insufficient_permissions")
        }
        let form = HTTPRequest.form([("sdp", Sample.offer()), ("session", Array(#"{"instructions":"free"}"#.utf8))])
        let chosen = try answer(&desk, form.bearing(secret))
        #expect(chosen.status == 403 && chosen.error().code == "session_is_bound")
        #expect(try answer(&desk, HTTPRequest.form([("sdp", Sample.offer())]).bearing(secret)).status == 201)
        #expect(createdSession(&desk)?.instructions == "bound")
        // WHIP's resource is the caller's own.
        let whip = try #require(try answer(&desk, .offer(to: "/whip").bearing(secret)).headers["Location"])
        #expect(try answer(&desk, HTTPRequest(method: "DELETE", path: whip).bearing(secret)).status == 200)
    }

    /// Who the end user is comes with the secret, or with the call; a browser cannot change what its own server has said.
    @Test func `the safety identifier goes with the session`() throws {
        var desk = try closedDesk()
        let naming = { (request: HTTPRequest, user: String) in
            var request = request
            request.headers.set("OpenAI-Safety-Identifier", user)
            return request
        }
        let response = try answer(&desk, naming(.secret(#"{"session":{"instructions":"x"}}"#).bearing(projectKey), "hash-of-somebody"))
        let secret = try #require(try JSONValue(parsing: response.body.span.bytes)["value"]?.string)
        #expect(!response.text.contains("hash-of-somebody"))
        #expect(try answer(&desk, naming(.offer().bearing(secret), "hash-of-another")).status == 201)
        var session = createdSession(&desk)
        #expect(session?.safetyIdentifier == "hash-of-somebody" && session?.instructions == "x")
        #expect(session?.json(id: "s").text.contains("hash-of") == false)
        let unnamed = try mint(&desk, "")["value"]?.string ?? ""
        #expect(try answer(&desk, naming(.offer().bearing(unnamed), "hash-of-another")).status == 201)
        session = createdSession(&desk)
        #expect(session?.safetyIdentifier == "hash-of-another")
        #expect(try answer(&desk, naming(.offer().bearing(projectKey), "direct")).status == 201)
        session = createdSession(&desk)
        #expect(session?.safetyIdentifier == "direct")
    }

    @Test func `the model of a query is the session's, unless its form or its secret says another`() throws {
        var desk = try closedDesk()
        for path in ["/v1/realtime/calls", "/v1/realtime"] {
            let response = try answer(&desk, HTTPRequest.asking(path, [("model", "gpt-realtime")]).bearing(projectKey))
            #expect(response.status == 201 && response.headers["Location"]?.hasPrefix("/v1/realtime/calls/rtc_") == true)
            #expect(createdSession(&desk)?.model == "gpt-realtime")
        }
        var form = HTTPRequest.form([("session", Array(#"{"model":"of the form"}"#.utf8)), ("sdp", Sample.offer())]).bearing(projectKey)
        form.query = [HTTPQueryItem(name: "model", value: "of the query")]
        #expect(try answer(&desk, form).status == 201)
        #expect(createdSession(&desk)?.model == "of the form")
        let secret = try mint(&desk, #"{"session":{"model":"bound"}}"#)["value"]?.string ?? ""
        #expect(try answer(&desk, HTTPRequest.asking("/v1/realtime", [("model", "other")]).bearing(secret)).status == 201)
        #expect(createdSession(&desk)?.model == "bound")
    }

    /// Only a backend that finds turns itself can be asked to.
    @Test func `signaling takes what the backend can do`() throws {
        let session = #"{"audio":{"input":{"turn_detection":{"type":"semantic_vad","eagerness":"low"}}}}"#
        var able = Sample.desk(abilities: SessionObject.Abilities(semanticVAD: true))
        let secret = try answer(&able, .secret(#"{"session":\#(session)}"#))
        #expect(secret.status == 200)
        #expect(try answer(&able, HTTPRequest.form([("sdp", Sample.offer()), ("session", Array(session.utf8))])).status == 201)
        #expect(createdSession(&able)?.turnDetection == .semantic(eagerness: "low", createResponse: true, interruptResponse: true))
        var unable = Sample.desk()
        #expect(try answer(&unable, .secret(#"{"session":\#(session)}"#)).error().code == "unsupported_value")
    }

    @Test func `a key of the older kind brings its session along`() throws {
        var desk = try closedDesk()
        let json =
            #"{"model":"m","modalities":["text","audio"],"voice":"verse","input_audio_format":"g711_alaw","turn_detection":null,"max_response_output_tokens":"inf","client_secret":{"expires_after":{"anchor":"created_at","seconds":20}}}"#
        let response = try answer(&desk, .post("/v1/realtime/sessions", Array(json.utf8), type: "application/json").bearing(projectKey))
        let shown = try JSONValue(parsing: response.body.span.bytes)
        #expect(response.status == 200 && shown["modalities"]?.array == ["text", "audio"] && shown["voice"] == "verse")
        #expect(shown["client_secret"]?["expires_at"]?.integer == Int64(Sample.wall.secondsSince1970 + 20))
        let secret = shown["client_secret"]?["value"]?.string ?? ""
        #expect(try answer(&desk, .offer(to: "/v1/realtime").bearing(secret)).status == 201)
        let session = createdSession(&desk)
        #expect(session?.model == "m" && session?.inputFormat == .aLaw && session?.turnDetection == TurnDetection.none)
        #expect(session?.outputModalities == ["audio"] && session?.voice.name == "verse" && session?.maxOutputTokens == nil)
        let listening = try answer(
            &desk,
            .post(
                "/v1/realtime/transcription_sessions", Array(#"{"input_audio_transcription":{"model":"whisper-1"}}"#.utf8),
                type: "application/json"
            ).bearing(projectKey))
        let heard = try JSONValue(parsing: listening.body.span.bytes)
        #expect(listening.status == 200 && heard["object"] == "realtime.transcription_session")
        #expect(heard["client_secret"]?["expires_at"]?.integer == Int64(Sample.wall.secondsSince1970 + 60))
    }

    @Test(arguments: [
        (#"{"voice":7}"#, "voice"), (#"{"turn_detection":{"type":"server_vad","threshold":7}}"#, "turn_detection.threshold"),
        (#"{"input_audio_format":"mp3"}"#, "input_audio_format"), (#"{"modalities":["video"]}"#, "modalities"), (#"{"extra":1}"#, "extra"),
        (#"{"input_audio_transcription":{"model":7}}"#, "input_audio_transcription.model"), (#"{"tools":[7]}"#, "tools[0]"),
        (#"{"max_response_output_tokens":0}"#, "max_response_output_tokens"), (#"{"speed":2}"#, "speed"),
        (#"{"client_secret":{"expires_after":{"seconds":9}}}"#, "client_secret.expires_after.seconds"),
    ]) func `a session of the older kind that is wrong is told so in its own words`(json: String, param: String) throws {
        var desk = try closedDesk()
        let response = try answer(&desk, .post("/v1/realtime/sessions", Array(json.utf8), type: "application/json").bearing(projectKey))
        #expect(response.status == 400 && response.error().param == param, "\(response.text)")
        #expect(response.error().message?.contains("session.") == false)
    }

    @Test func `no byte of a secret can be changed, and no other cluster opens it`() throws {
        let ring = wellKnownKeyRing()
        let secrets = ClientSecrets(ring)
        var random = SeededGenerator(seed: 4)
        let session: JSONValue = ["instructions": "x"]
        let minted = try secrets.mint(session: session, expiresAt: 1_000, random: &random)
        guard case .valid(let opened, 1_000) = secrets.open(minted, at: WallClock(secondsSince1970: 999)) else {
            Issue.record("not opened")
            return
        }
        #expect(opened.instructions == "x")
        let characters = Array(minted.utf8)
        for index in 3..<characters.count {
            var changed = characters
            changed[index] = changed[index] == UInt8(ascii: "A") ? UInt8(ascii: "B") : UInt8(ascii: "A")
            #expect(secrets.open(String(decoding: changed, as: UTF8.self), at: WallClock(secondsSince1970: 0)) == .unknown)
        }
        #expect(ClientSecrets(KeyRing.generate(random: &random)).open(minted, at: WallClock(secondsSince1970: 0)) == .unknown)
        let again = try secrets.mint(session: session, expiresAt: 1_000, random: &random)
        #expect(again != minted)
        mutate([characters, Array(again.utf8)], count: min(mutationCount, 5_000)) {
            if !$0.elementsEqual(again.utf8Span.span.bytes) { fuzzClientSecret($0, minted: minted, secrets) }
        }
    }

    @Test func `mutated requests keep their property`() {
        let corpus = [
            #"{"expires_after":{"anchor":"created_at","seconds":600},"session":{"type":"realtime","model":"m","audio":{"input":{"turn_detection":null}}}}"#,
            #"{"session":{"tools":[{"type":"function","name":"f"}],"max_output_tokens":"inf"}}"#,
        ]
        mutate(corpus.map { Array($0.utf8) }) { fuzzClientSecretRequest($0) }
        let older = [
            #"{"model":"m","modalities":["audio","text"],"voice":"v","input_audio_format":"g711_ulaw","turn_detection":{"type":"server_vad"}}"#,
            #"{"tools":[{"type":"function","name":"f"}],"temperature":0.8,"client_secret":{"expires_after":{"seconds":600}}}"#,
        ]
        mutate(older.map { Array($0.utf8) }, count: mutationCount / 4) { fuzzLegacySessionRequest($0) }
    }
}
