import Crypto
import DTLS
import HTTP
import ICE
import Primitives
import Realtime
import RTP
import RoutingHint
import SCTP
import SDP

/// Answers signaling: offers become sessions, and the answer leaves before any worker has heard of them. What the workers must do comes out
/// of `nextCommand`.
///
///     POST   /v1/realtime/calls               offer → 201 answer            (application/sdp, or multipart with `sdp` and `session`)
///     POST   /v1/realtime/calls/{id}/hangup   → 200
///     POST   /v1/realtime/calls/{id}/accept, reject, refer   → 400: a call of WebRTC is none of SIP
///     POST   /v1/realtime/client_secrets      → 200 `ek_…` for a browser
///     POST   /v1/realtime, …/sessions         offers and keys as before the API was final
///     GET    /v1/realtime                     WebSockets: SignalingSockets.swift
///     POST   /whip                            offer → 201 answer, ETag      (RFC 9725)
///     PATCH  /whip/{id}                       candidates → 204; new credentials → 200: ICE restart
///     DELETE /whip/{id}                       → 200
///     PATCH, DELETE /v1/realtime/calls/{id}   the same for calls of the API
///
/// ICE needs nothing of a client's candidates: our checks go to where its checks came from. So an answer never waits.
public struct SignalingDesk: ~Copyable {
    public struct Settings: Sendable {
        public var cluster: UInt16
        public var transceiver: UInt32
        public var workers: Int
        /// Where clients find the relays: candidates of every answer.
        public var advertise: [SocketAddress]
        public var fingerprint: DTLSFingerprint
        public var callsMax: Int
        /// What sessions may ask for, by what the backend can do.
        public var abilities = SessionObject.Abilities(semanticVAD: false)

        public init(
            cluster: UInt16, transceiver: UInt32, workers: Int, advertise: [SocketAddress], fingerprint: DTLSFingerprint, callsMax: Int
        ) {
            self.cluster = cluster
            self.transceiver = transceiver
            self.workers = workers
            self.advertise = advertise
            self.fingerprint = fingerprint
            self.callsMax = callsMax
        }
    }

    /// Bit of a hint's flags: it names a call and is no ufrag. The other bits count ICE restarts.
    static let callIDFlag: UInt8 = 0x80

    let settings: Settings
    private var codec: HintCodec
    private var access: AccessControl
    private var random: any RandomNumberGenerator & Sendable
    var calls: CallList
    private var commands: [AddressedCommand] = []
    private var isDraining = false
    public private(set) var counters = SignalingCounters()

    /// - Parameters:
    ///   - access: who may come in.
    ///   - random: where session numbers, stream ids, seeds and nonces come from; the system's entropy but for tests.
    public init(
        settings: Settings, codec: consuming HintCodec, access: AccessControl, random: any RandomNumberGenerator & Sendable
    ) {
        precondition(settings.workers > 0 && !settings.advertise.isEmpty)
        self.settings = settings
        self.codec = codec
        self.access = access
        self.random = random
        calls = CallList(workers: settings.workers)
    }

    /// Other project keys from now on. Calls that run stay, and client secrets stay valid until they expire.
    public mutating func replace(keys: APIKeys) { access.keys = keys }

    /// Mints with another ring of the same deployment from now on. Calls keep what they have.
    public mutating func replace(ring: KeyRing) { codec = HintCodec(ring) }

    /// Who sends `request`; for what is not answered here, such as WebSockets.
    public mutating func judge(_ request: HTTPRequest, at wall: WallClock) -> AccessControl.Verdict {
        let verdict = access.judge(request, at: wall)
        if case .refused = verdict { counters.unauthorized += 1 }
        return verdict
    }

    public var callCount: Int { calls.count }
    public var callsMax: Int { settings.callsMax }
    public var connectedCount: Int { calls.connectedCount }
    /// New offers get 503 from now on.
    public mutating func drain() { isDraining = true }
    public var acceptsCalls: Bool { !isDraining && calls.count < settings.callsMax }
}

extension AudioParameters {
    init(_ agreed: NegotiatedAudio, ssrc: UInt32, cname: RTCPCanonicalName) {
        self.init(
            opusPayloadType: agreed.opusPayloadType, ssrc: ssrc, cname: cname, maySend: agreed.maySend, mayReceive: agreed.mayReceive)
        redPayloadType = agreed.redPayloadType
        retransmits = agreed.retransmits
        transportSequenceExtension = agreed.transportSequenceExtension
        reducedSizeRTCP = agreed.reducedSizeRTCP
        opus = OpusWishes(parsing: agreed.opusParameters)
    }
}

/// A command and the worker it is for.
public struct AddressedCommand: Sendable {
    public var worker: Int
    public var command: WorkerCommand
}

/// What signaling has answered.
public struct SignalingCounters: Sendable {
    public var offersAccepted: UInt64 = 0
    public var offersRefused: UInt64 = 0
    public var hangups: UInt64 = 0
    public var iceRestarts: UInt64 = 0
    public var fragments: UInt64 = 0
    public var clientSecrets: UInt64 = 0
    /// Requests without a key, with a wrong one, or with one that is not enough.
    public var unauthorized: UInt64 = 0
    /// Offers while full or draining.
    public var offersTurnedAway: UInt64 = 0
    public init() {}
}

// MARK: - Requests

extension SignalingDesk {
    /// Whether the answer to `request` tells the client where to go: an offer, or an ICE restart.
    public static func tellsCandidates(_ request: HTTPRequest) -> Bool {
        switch Route(request.path) {
        case .calls, .olderCalls, .whip: request.method == "POST"
        case .resource: request.method == "PATCH"
        case .hangup, .telephony, .clientSecrets, .olderSessions, nil: false
        }
    }

    /// Answers one request; nil when its path is none of ours.
    ///
    /// - Parameter candidates: where this client shall find relays, the best first; nil for those of the settings.
    public mutating func answer(_ request: HTTPRequest, at wall: WallClock, candidates: [SocketAddress]? = nil) -> HTTPResponse? {
        guard let route = Route(request.path) else { return nil }
        // `openSocket` is for that.
        if route == .olderCalls, ["GET", "HEAD"].contains(request.method) { return nil }
        if request.method == "OPTIONS" { return .preflight(route) }
        guard route.methods.contains(request.method) else { return .methodNotAllowed(request.method, route) }
        var response: HTTPResponse
        do {
            response = try answer(request, route, at: wall, candidates ?? settings.advertise)
        } catch {
            response = .refusal(error)
        }
        response.headers.set("Access-Control-Allow-Origin", "*")
        response.headers.set("Access-Control-Expose-Headers", "Location, ETag, Link, Accept-Patch, Retry-After, Swiftlet-Ingress")
        return response
    }

    private mutating func answer(
        _ request: HTTPRequest, _ route: Route, at wall: WallClock, _ candidates: [SocketAddress]
    ) throws(Refusal) -> HTTPResponse {
        let caller = try admit(request, route, at: wall)
        switch route {
        case .calls, .olderCalls:
            return try accept(request, from: caller, resources: "/v1/realtime/calls/", isWHIP: false, at: wall, candidates)
        case .whip: return try accept(request, from: caller, resources: "/whip/", isWHIP: true, at: wall, candidates)
        case .clientSecrets:
            return try mintSecret(request, at: wall) { body, abilities throws(APIError) in
                let wanted = try ClientSecretRequest(parsing: body, abilities: abilities)
                return (wanted.sessionJSON, wanted.seconds, wanted.answer)
            }
        case .olderSessions(let isTranscription):
            return try mintSecret(request, at: wall) { body, abilities throws(APIError) in
                let wanted = try LegacySessionRequest(parsing: body, isTranscription: isTranscription, abilities: abilities)
                return (wanted.sessionJSON, wanted.seconds, wanted.answer)
            }
        case .telephony(let id):
            _ = try known(id)
            throw Refusal(
                400, "This is a call of WebRTC: it is answered already. accept, reject and refer are for calls by SIP.",
                code: "not_a_sip_call")
        case .hangup(let id): return try hangUp(id)
        case .resource(let id): return request.method == "DELETE" ? try hangUp(id) : try patch(id, request, at: wall, candidates)
        }
    }

    /// Before anything of the request is looked at.
    private mutating func admit(_ request: HTTPRequest, _ route: Route, at wall: WallClock) throws(Refusal) -> Caller {
        do throws(Refusal) {
            let caller = try access.caller(request, at: wall)
            guard caller.isTrusted || !route.needsTrust else {
                throw Refusal(403, "A client secret opens calls and nothing else; use a project key.", code: "insufficient_permissions")
            }
            return caller
        } catch {
            counters.unauthorized += 1
            throw error
        }
    }

    /// What a request for a client secret wants: the session to seal, how many seconds it lives, and how to tell of it.
    private typealias Wanted = (session: JSONValue?, seconds: Int, answer: (String, UInt64, String) -> JSONValue)

    private mutating func mintSecret(
        _ request: HTTPRequest, at wall: WallClock, _ read: (RawSpan, SessionObject.Abilities) throws(APIError) -> Wanted
    ) throws(Refusal) -> HTTPResponse {
        guard request.body.isEmpty || request.mediaType == "application/json" else {
            throw Refusal(
                415, "Content-Type must be application/json, not \(request.mediaType ?? "missing").", code: "unsupported_media_type")
        }
        let user = try request.safetyIdentifier()
        do throws(APIError) {
            let wanted = try read(request.body.span.bytes, settings.abilities)
            let expiresAt = wall.secondsSince1970 + UInt64(wanted.seconds)
            let value = try access.secrets.mint(session: wanted.session, safetyIdentifier: user, expiresAt: expiresAt, random: &random)
            var ids = IdentifierSource(seed: random.next())
            counters.clientSecrets += 1
            return .json(200, wanted.answer(value, expiresAt, ids.make("sess")))
        } catch {
            throw Refusal(400, error)
        }
    }

    private mutating func hangUp(_ id: String) throws(Refusal) -> HTTPResponse {
        let call = try known(id)
        commands.append(AddressedCommand(worker: call.worker, command: .end(session: call.session, reason: .hangup)))
        // Gone at once for signaling: a second hangup finds nothing. The worker's report of the end finds nothing either.
        calls.remove(session: call.session, worker: call.worker)
        counters.hangups += 1
        return HTTPResponse(status: 200)
    }

    func known(_ id: String) throws(Refusal) -> Call {
        guard let call = calls[id] else {
            throw Refusal(404, "No call with this id is running here. It may have ended; make a new one.", code: "call_not_found")
        }
        return call
    }
}

// MARK: - Offers

extension SignalingDesk {
    private mutating func accept(
        _ request: HTTPRequest, from caller: Caller, resources: String, isWHIP: Bool, at wall: WallClock,
        _ candidates: [SocketAddress]
    ) throws(Refusal) -> HTTPResponse {
        try checkRoom()
        do {
            let body = try OfferBody(request, allowsMultipart: !isWHIP, from: caller, settings.abilities)
            let (call, answer) = try open(body, at: wall, candidates)
            counters.offersAccepted += 1
            var response = HTTPResponse(status: 201, type: "application/sdp", body: Array(answer.utf8))
            response.headers.set("Location", resources + call.id)
            response.headers.set("ETag", call.etag)
            response.headers.set("Accept-Patch", "application/trickle-ice-sdpfrag")
            return response
        } catch {
            counters.offersRefused += 1
            throw error
        }
    }

    mutating func checkRoom() throws(Refusal) {
        guard !acceptsCalls else { return }
        counters.offersTurnedAway += 1
        throw Refusal(
            503,
            isDraining ? "This server is about to stop. Try again." : "All \(settings.callsMax) places are taken. Try again later.",
            code: isDraining ? "draining" : "at_capacity", retryAfter: 1)
    }

    /// A session that is reached by a WebSocket only.
    mutating func newCall(worker: Int, at wall: WallClock) -> Call {
        let session = freshSession(worker)
        return Call(id: callID(worker, session, at: wall), worker: worker, session: session, remoteUfrag: "", remotePassword: "", mid: nil)
    }

    mutating func command(_ worker: Int, _ command: WorkerCommand) {
        commands.append(AddressedCommand(worker: worker, command: command))
    }
    mutating func nextSeed() -> UInt64 { random.next() }

    private mutating func open(_ body: OfferBody, at wall: WallClock, _ candidates: [SocketAddress]) throws(Refusal) -> (Call, String) {
        let worker = calls.idlestWorker
        let session = freshSession(worker)
        let local = credentials(worker, session, generation: 1, at: wall)
        let seed = random.next()
        let channelSeed = random.next()
        let ssrc = UInt32(truncatingIfNeeded: random.next())
        var names = SeededGenerator(seed: random.next())
        let cname = RTCPCanonicalName(random: &names)
        var answer = AnswerSettings(
            ufrag: local.ufrag, password: local.password, fingerprint: settings.fingerprint.sdpText, candidates: candidates,
            ssrc: ssrc, cname: cname.text, sessionID: random.next() >> 1)
        let agreed: Negotiation
        do {
            let offer = try SDPOffer(parsing: body.sdp.span.bytes)
            if let chunk = offer.sctpInit, SCTPAssociation.isInitChunk(chunk.span.bytes) {
                answer.sctpInit = SCTPAssociation.initChunk(seed: channelSeed)
            }
            agreed = try negotiate(offer, answer)
        } catch {
            throw Refusal(400, "The offer cannot be answered: \(error.message)", code: "invalid_offer", param: "sdp")
        }
        // Before the call is in the list: an offer that is refused must not keep a place.
        let dataChannel = try dataChannel(agreed, agreedChannel: body.dataChannel, seed: channelSeed)
        let fingerprints = try fingerprints(agreed)
        let call = Call(
            id: callID(worker, session, at: wall), worker: worker, session: session, remoteUfrag: agreed.iceUfrag,
            remotePassword: agreed.icePassword, mid: agreed.audio?.mid)
        calls.insert(call)
        let parameters = SessionParameters(
            id: session, callID: call.id, local: local, remote: ICECredentials(ufrag: agreed.iceUfrag, password: agreed.icePassword),
            dtlsRole: agreed.weAreDTLSClient ? .client : .server, fingerprints: fingerprints,
            audio: agreed.audio.map { AudioParameters($0, ssrc: ssrc, cname: cname) },
            dataChannel: dataChannel, session: body.session, seed: seed)
        commands.append(AddressedCommand(worker: worker, command: .create(parameters)))
        return (call, agreed.answer)
    }

    private func dataChannel(_ agreed: Negotiation, agreedChannel: UInt16?, seed: UInt64) throws(Refusal) -> DataChannelParameters? {
        guard let section = agreed.dataChannel else {
            guard agreedChannel == nil else {
                throw Refusal(
                    400, "dcid names a data channel, but the offer has none that can be taken.", code: "invalid_value", param: "dcid")
            }
            return nil
        }
        var parameters = DataChannelParameters(
            peerPort: section.peerSCTPPort, peerMaxMessageSize: section.peerMaxMessageSize, seed: seed)
        parameters.peerInit = section.peerInit
        parameters.agreedChannel = agreedChannel
        return parameters
    }

    /// Those whose hash we can compute; the client's certificate must match among them.
    private func fingerprints(_ agreed: Negotiation) throws(Refusal) -> [DTLSFingerprint] {
        let known = agreed.fingerprints.compactMap { print in
            DTLSHash(name: print.algorithm).map { DTLSFingerprint(algorithm: $0, bytes: print.bytes) }
        }
        guard !known.isEmpty else {
            throw Refusal(400, "The offer has no a=fingerprint with sha-256, sha-384 or sha-512.", code: "invalid_offer", param: "sdp")
        }
        return known
    }

    private mutating func freshSession(_ worker: Int) -> UInt32 {
        while true {
            let session = UInt32(truncatingIfNeeded: random.next())
            if session != 0, !calls.contains(session: session, worker: worker) { return session }
        }
    }

    /// - Parameter generation: makes the ufrag of a restart another one, also within the second of the first.
    private mutating func credentials(_ worker: Int, _ session: UInt32, generation: Int, at wall: WallClock) -> ICECredentials {
        let ufrag = codec.mint(hint(worker, session, flags: UInt8(truncatingIfNeeded: generation & 0x7F), at: wall))
        return ICECredentials(ufrag: ufrag.description, password: codec.icePassword(for: ufrag).text)
    }

    /// A hint of its own: it says where the call lives. Nobody is told the password that belongs to it, so it opens no flow.
    private mutating func callID(_ worker: Int, _ session: UInt32, at wall: WallClock) -> String {
        let text = codec.mint(hint(worker, session, flags: Self.callIDFlag, at: wall)).description
        let characters = text.utf8.map {
            $0 == UInt8(ascii: "+") ? UInt8(ascii: "-") : $0 == UInt8(ascii: "/") ? UInt8(ascii: "_") : $0
        }
        return "rtc_" + String(decoding: characters, as: UTF8.self)
    }

    /// Who minted this id; nil when it is none, or none any more.
    mutating func owner(ofCall id: String, at wall: WallClock) -> CallOwner? {
        guard id.hasPrefix("rtc_"), id.utf8.count == 4 + Ufrag.length else { return nil }
        let characters = id.utf8.dropFirst(4).map {
            $0 == UInt8(ascii: "-") ? UInt8(ascii: "+") : $0 == UInt8(ascii: "_") ? UInt8(ascii: "/") : $0
        }
        guard case .success(let hint) = codec.open(characters.span.bytes, at: wall), hint.flags & Self.callIDFlag != 0 else { return nil }
        return CallOwner(cluster: hint.cluster, transceiver: hint.transceiver)
    }

    func holdsCall(_ id: String) -> Bool { calls[id] != nil }

    func mayAsk(_ request: HTTPRequest, at wall: WallClock) -> Caller? { try? access.caller(request, at: wall) }

    private func hint(_ worker: Int, _ session: UInt32, flags: UInt8 = 0, at wall: WallClock) -> RoutingHint {
        RoutingHint(
            cluster: settings.cluster, transceiver: settings.transceiver, worker: UInt8(truncatingIfNeeded: worker), flags: flags,
            mintedAt: UInt32(truncatingIfNeeded: wall.secondsSince1970), session: session)
    }
}

// MARK: - Trickled candidates and ICE restart (RFC 9725 §4.3)

extension SignalingDesk {
    private mutating func patch(
        _ id: String, _ request: HTTPRequest, at wall: WallClock, _ candidates: [SocketAddress]
    ) throws(Refusal) -> HTTPResponse {
        let call = try known(id)
        guard request.mediaType == "application/trickle-ice-sdpfrag" else {
            throw Refusal(
                415, "PATCH takes Content-Type: application/trickle-ice-sdpfrag, not \(request.mediaType ?? "none").",
                code: "unsupported_media_type")
        }
        guard let match = request.headers["If-Match"] else {
            throw Refusal(428, "PATCH needs If-Match: the ETag of the answer, or \"*\" for an ICE restart.", code: "if_match_missing")
        }
        let fragment: TrickleFragment
        do {
            fragment = try TrickleFragment(parsing: request.body.span.bytes)
        } catch {
            throw Refusal(400, "The fragment cannot be read: \(error.message)", code: "invalid_fragment")
        }
        let isNew = fragment.ufrag != nil && fragment.ufrag != call.remoteUfrag
        if isNew, match == "*" || match == "\"*\"" { return try restart(call, fragment, at: wall, candidates) }
        guard match == call.etag || match == "*" else {
            throw Refusal(412, "If-Match names an ICE session that is over; the current one is \(call.etag).", code: "stale_etag")
        }
        guard !isNew else {
            throw Refusal(412, "New ICE credentials are a restart and need If-Match: \"*\".", code: "restart_needs_star")
        }
        // Nothing to do: the client's checks tell where it is.
        counters.fragments += 1
        return HTTPResponse(status: 204)
    }

    private mutating func restart(
        _ call: Call, _ fragment: TrickleFragment, at wall: WallClock, _ candidates: [SocketAddress]
    ) throws(Refusal) -> HTTPResponse {
        guard let ufrag = fragment.ufrag, let password = fragment.password else {
            throw Refusal(400, "An ICE restart needs both a=ice-ufrag and a=ice-pwd.", code: "invalid_fragment")
        }
        let local = credentials(call.worker, call.session, generation: call.generation + 1, at: wall)
        let remote = ICECredentials(ufrag: ufrag, password: password)
        commands.append(
            AddressedCommand(worker: call.worker, command: .restartICE(session: call.session, local: local, remote: remote)))
        var renewed = call
        renewed.generation += 1
        renewed.remoteUfrag = ufrag
        renewed.remotePassword = password
        calls.update(call.id) { $0 = renewed }
        counters.iceRestarts += 1
        let text = TrickleFragment.answer(
            ufrag: local.ufrag, password: local.password, candidates: candidates, mid: call.mid)
        var response = HTTPResponse(status: 200, type: "application/trickle-ice-sdpfrag", body: Array(text.utf8))
        response.headers.set("ETag", renewed.etag)
        return response
    }
}

// MARK: - Workers

extension SignalingDesk {
    public mutating func nextCommand() -> AddressedCommand? { commands.isEmpty ? nil : commands.removeFirst() }

    public mutating func receive(_ event: WorkerEvent, from worker: Int) {
        switch event {
        case .connected(let session): calls.noteConnected(session: session, worker: worker)
        case .ended(let session, _): calls.remove(session: session, worker: worker)
        // For the sockets of that session, and for who keeps numbers.
        case .serverEvent, .path: break
        }
    }
}
