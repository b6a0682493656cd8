// Signaling without a server: desks with well-known keys, requests as clients write them, and what an answer says.
import DTLS
import HTTP
import Primitives
import Realtime
import RoutingHint
import SDP
import TestSupport
import Testing
import TransceiverCore

enum Sample {
    static let cluster: UInt16 = 9
    static let transceiver: UInt32 = 0x0A01_0203
    static let wall = WallClock(secondsSince1970: 1_800_000_000)
    static let relays = ["198.51.100.1:3478", "[2001:db8::1]:3478"].map { SocketAddress($0)! }
    static let fingerprint = DTLSFingerprint(algorithm: .sha256, bytes: (0..<32).map { UInt8($0) })

    static func desk(
        workers: Int = 1, callsMax: Int = 8, keys: APIKeys? = nil, abilities: SessionObject.Abilities = .init(semanticVAD: false),
        seed: UInt64 = 1
    ) -> SignalingDesk {
        var settings = SignalingDesk.Settings(
            cluster: cluster, transceiver: transceiver, workers: workers, advertise: relays, fingerprint: fingerprint, callsMax: callsMax)
        settings.abilities = abilities
        return SignalingDesk(
            settings: settings, codec: HintCodec(wellKnownKeyRing()),
            access: AccessControl(keys: keys, secrets: ClientSecrets(wellKnownKeyRing())), random: SeededGenerator(seed: seed))
    }

    /// A file of the corpus.
    static func offer(_ name: String = "chromium-156.sdp") -> [UInt8] { Corpus.read("\(Corpus.testsFolder)/Corpus/sdp/\(name)") }

    static let callsPath = "/v1/realtime/calls"
}

extension HTTPRequest {
    static func post(_ path: String, _ body: [UInt8], type: String? = "application/sdp") -> HTTPRequest {
        HTTPRequest(method: "POST", path: path, headers: HTTPHeaders(type.map { [("Content-Type", $0)] } ?? []), body: body)
    }

    /// An offer with a query.
    static func asking(_ path: String, _ query: [(String, String)]) -> HTTPRequest {
        var request = offer(to: path)
        request.query = query.map { HTTPQueryItem(name: $0.0, value: $0.1) }
        return request
    }

    static func offer(_ file: String = "chromium-156.sdp", to path: String = Sample.callsPath) -> HTTPRequest {
        post(path, Sample.offer(file))
    }

    /// A form as a browser's `FormData` is sent.
    static func form(_ parts: [(name: String, body: [UInt8])]) -> HTTPRequest {
        var body: [UInt8] = []
        for part in parts {
            body += Array("--edge\r\nContent-Disposition: form-data; name=\"\(part.name)\"\r\n\r\n".utf8) + part.body + Array("\r\n".utf8)
        }
        return post(Sample.callsPath, body + Array("--edge--\r\n".utf8), type: "multipart/form-data; boundary=edge")
    }

    static func patch(_ path: String, _ body: String, match: String?) -> HTTPRequest {
        var headers = HTTPHeaders([("Content-Type", "application/trickle-ice-sdpfrag")])
        if let match { headers.set("If-Match", match) }
        return HTTPRequest(method: "PATCH", path: path, headers: headers, body: Array(body.utf8))
    }
}

extension HTTPResponse {
    var text: String { String(decoding: body, as: UTF8.self) }

    /// The lines of the body that begin with `a=name:`, without it.
    func attributes(_ name: String) -> [String] {
        text.split(whereSeparator: \.isNewline).filter { $0.hasPrefix("a=\(name):") }.map { String($0.dropFirst(name.count + 3)) }
    }

    var mediaLines: [String] { text.split(whereSeparator: \.isNewline).filter { $0.hasPrefix("m=") }.map(String.init) }

    /// The members of `{"error": {…}}`; fails the test when the body has another shape.
    func error(_ location: SourceLocation = #_sourceLocation) -> (code: String?, type: String?, message: String?, param: String?) {
        let value = try? JSONValue(parsing: body.span.bytes)
        let object = value?["error"]?.object
        #expect(Set(object?.members.map(\.name) ?? []) == ["type", "code", "message", "param"], "\(text)", sourceLocation: location)
        #expect(value?.object?.members.count == 1, sourceLocation: location)
        #expect(headers["Content-Type"] == "application/json", sourceLocation: location)
        #expect(headers["Access-Control-Allow-Origin"] == "*", sourceLocation: location)
        return (object?["code"]?.string, object?["type"]?.string, object?["message"]?.string, object?["param"]?.string)
    }
}

/// What `ufrag` says under the well-known keys.
func opened(_ ufrag: String) throws -> RoutingHint {
    var codec = HintCodec(wellKnownKeyRing())
    return try codec.open(Array(ufrag.utf8).span.bytes, at: Sample.wall).get()
}

func derivedPassword(_ ufrag: String) -> String {
    var codec = HintCodec(wellKnownKeyRing())
    return codec.icePassword(for: Array(ufrag.utf8).span.bytes).text
}

extension SignalingDesk {
    /// The answer to a request whose path is signaling's.
    mutating func respond(_ request: HTTPRequest) throws -> HTTPResponse {
        let response = answer(request, at: Sample.wall)
        return try #require(response)
    }

    /// Makes a call and tells its resource.
    mutating func open(at path: String = Sample.callsPath) throws -> String {
        let location = answer(.offer(to: path), at: Sample.wall)?.headers["Location"]
        return try #require(location)
    }

    /// Everything that workers are to do, in order.
    mutating func commands() -> [AddressedCommand] {
        var commands: [AddressedCommand] = []
        while let command = nextCommand() { commands.append(command) }
        return commands
    }

    /// The sessions to create among them.
    mutating func creations() -> [SessionParameters] {
        commands().compactMap { if case .create(let parameters) = $0.command { parameters } else { nil } }
    }

    /// The one session to create.
    mutating func onlyCreation() throws -> SessionParameters {
        let creations = creations()
        #expect(creations.count == 1)
        return try #require(creations.first)
    }
}
