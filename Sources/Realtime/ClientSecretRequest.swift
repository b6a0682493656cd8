import Primitives

/// The body of `POST /v1/realtime/client_secrets`, read and checked. Every member may be left out, and so may the body.
public struct ClientSecretRequest: Sendable, Equatable {
    /// 10…7200: from now to when the secret opens no more sessions. A session outlives its secret.
    public private(set) var seconds = 600
    /// What sessions opened with the secret begin with.
    public private(set) var session = SessionObject()
    /// The same as the client wrote it: what is sealed into the secret.
    public private(set) var sessionJSON: JSONValue?

    public init(parsing body: RawSpan, abilities: SessionObject.Abilities) throws(APIError) {
        guard body.byteCount > 0 else { return }
        var fields = try FieldReader(JSONValue(requestBody: body), path: "")
        if let given = try fields.secretLifetime("expires_after") { seconds = given }
        if let given = fields.value("session"), !given.isNull {
            try session.apply(given, abilities: abilities)
            sessionJSON = given
        }
        try fields.finish()
    }

    /// The response's body.
    ///
    /// - Parameters:
    ///   - value: the secret, `ek_…`.
    ///   - expiresAt: seconds since 1970.
    public func answer(value: String, expiresAt: UInt64, sessionID: String) -> JSONValue {
        ["value": .string(value), "expires_at": .integer(Int64(clamping: expiresAt)), "session": session.json(id: sessionID)]
    }
}

/// What is read has a lifetime that the API allows, and a session whose JSON gives the same session again.
public func fuzzClientSecretRequest(_ bytes: RawSpan) {
    let abilities = SessionObject.Abilities(semanticVAD: false)
    guard let request = try? ClientSecretRequest(parsing: bytes, abilities: abilities) else { return }
    precondition((10...7_200).contains(request.seconds))
    var again = SessionObject()
    if let json = request.sessionJSON {
        let isAccepted = (try? again.apply(json, abilities: abilities)) != nil
        precondition(isAccepted, "a session that was accepted is refused")
    }
    precondition(again == request.session)
}
