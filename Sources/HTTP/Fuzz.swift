// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import Primitives

/// However the bytes are cut into reads, the same requests and refusals come out, and after a refusal nothing does.
public func fuzzHTTP(_ bytes: RawSpan) {
    guard bytes.byteCount <= 8192 else { return }
    let whole = conversation(bytes, cut: bytes.byteCount)
    // Two other ways to cut, decided by the input itself.
    let first = bytes.byteCount > 0 ? Int(bytes.byte(bytes.byteCount / 2)) % (bytes.byteCount + 1) : 0
    precondition(conversation(bytes, cut: first) == whole, "the place of a cut has changed what was read")
    precondition(conversation(bytes, cut: max(0, bytes.byteCount - 1)) == whole, "the last byte alone has changed what was read")
    for (index, event) in whole.enumerated() {
        guard case .request(let request) = event else {
            precondition(index == whole.count - 1, "something came after a refusal")
            return
        }
        precondition(
            request.target.utf8.count <= HTTPLimits().targetBytes && request.body.count <= HTTPLimits().bodyBytes, "a limit was passed")
    }
}

private func conversation(_ bytes: RawSpan, cut: Int) -> [HTTPServerEvent] {
    var connection = HTTPServerConnection(at: .zero)
    var events: [HTTPServerEvent] = []
    for part in [0..<cut, cut..<bytes.byteCount] {
        connection.receive(bytes.bytes(part), at: .zero)
        while let event = connection.nextEvent() {
            events.append(event)
            if case .request = event { connection.send(HTTPResponse(status: 204), at: .zero) }
        }
    }
    return events
}

/// However the bytes of a server are cut into reads, the same response or failure comes out, and nothing after it.
public func fuzzHTTPClient(_ bytes: RawSpan) {
    guard bytes.byteCount <= 8192 else { return }
    let cut = bytes.byteCount > 0 ? Int(bytes.byte(bytes.byteCount / 2)) % (bytes.byteCount + 1) : 0
    for method in ["GET", "HEAD"] {
        let whole = answer(to: method, bytes, cut: bytes.byteCount)
        precondition(answer(to: method, bytes, cut: cut) == whole, "the place of a cut has changed what was read")
        precondition(answer(to: method, bytes, cut: max(0, bytes.byteCount - 1)) == whole, "the last byte alone has changed what was read")
        precondition(whole.count <= 2, "one request has more than a response and a failure")
        if case .response(let response)? = whole.first { precondition(response.body.count <= bytes.byteCount) }
    }
}

/// All events of a client that has sent one request and gets `bytes` in two reads and then the end, with early bytes of an upgrade
/// put together with those that come behind it.
private func answer(to method: String, _ bytes: RawSpan, cut: Int) -> [HTTPClientEvent] {
    var connection = HTTPClientConnection(host: "h")
    connection.send(method, "/", at: .zero)
    var events: [HTTPClientEvent] = []
    for part in [0..<cut, cut..<bytes.byteCount] {
        if case .upgraded(let response, let early)? = events.last {
            events[events.count - 1] = .upgraded(response, early: early + bytes.bytes(part).array)
        } else {
            connection.receive(bytes.bytes(part), at: .zero)
        }
        while let event = connection.nextEvent() { events.append(event) }
    }
    connection.receiveEnd(at: .zero)
    while let event = connection.nextEvent() { events.append(event) }
    return events
}

/// A form that can be read lies within its body, and reads the same when it is written again.
public func fuzzMultipart(_ bytes: RawSpan) {
    guard bytes.byteCount <= 8192, let form = try? MultipartForm(parsing: bytes, contentType: "multipart/form-data; boundary=b") else {
        return
    }
    precondition(form.parts.count <= MultipartForm.partsMax)
    precondition(form.parts.reduce(0) { $0 + $1.body.count } <= bytes.byteCount)
    var written: [UInt8] = []
    for part in form.parts {
        // A name with quotes, controls or backslashes would need escaping, which is not what is tried here.
        guard !part.name.utf8.contains(where: { $0 == 0x22 || $0 == 0x5C || $0 < 0x20 }) else { return }
        written += Array("--b\r\nContent-Disposition: form-data; name=\"\(part.name)\"\r\n\r\n".utf8) + part.body + [0x0D, 0x0A]
    }
    written += Array("--b--".utf8)
    guard !form.parts.isEmpty else { return }
    unsafe written.withUnsafeBytes { buffer in
        let again = unsafe try? MultipartForm(parsing: RawSpan(_unsafeBytes: buffer), contentType: "multipart/form-data; boundary=b")
        precondition(again?.parts.map(\.body) == form.parts.map(\.body) && again?.parts.map(\.name) == form.parts.map(\.name))
    }
}

/// However the bytes of a peer are cut into reads, the same messages and the same end come out, in either role; what comes out can be
/// sent, and arrives the same; and what a server answers is never longer than what it got, but for one Close.
public func fuzzWebSocket(_ bytes: RawSpan) {
    guard bytes.byteCount <= 8192 else { return }
    let cut = bytes.byteCount > 0 ? Int(bytes.byte(bytes.byteCount / 2)) % (bytes.byteCount + 1) : 0
    for role in [WebSocketConnection.Role.server, .client] {
        let whole = messages(bytes, role, cut: bytes.byteCount)
        precondition(messages(bytes, role, cut: cut) == whole, "the place of a cut has changed what was read")
        precondition(messages(bytes, role, cut: max(0, bytes.byteCount - 1)) == whole, "the last byte alone has changed what was read")
        guard case .ended? = whole.last else { preconditionFailure("a stream ended without an event") }
        var sender = WebSocketConnection(role: .client, random: SeededGenerator(seed: 1), at: .zero)
        var receiver = WebSocketConnection(role: .server, random: SeededGenerator(seed: 1), at: .zero)
        for event in whole.dropLast() {
            switch event {
            case .text(let text):
                precondition(String(validating: text, as: UTF8.self) != nil && sender.send(text: text))
            case .binary(let bytes): precondition(sender.send(binary: bytes))
            case .ended: preconditionFailure("something came after the end")
            }
            receiver.receive(sender.output, at: .zero)
            sender.outputSent(sender.outputCount)
            precondition(receiver.nextEvent(at: .zero) == event, "a message has changed on its way")
        }
    }
}

private func messages(_ bytes: RawSpan, _ role: WebSocketConnection.Role, cut: Int) -> [WebSocketEvent] {
    var limits = WebSocketLimits()
    limits.messageBytes = 4_096
    var socket = WebSocketConnection(role: role, limits: limits, random: SeededGenerator(seed: 1), at: .zero)
    var events: [WebSocketEvent] = []
    for part in [0..<cut, cut..<bytes.byteCount] {
        socket.receive(bytes.bytes(part), at: .zero)
        while let event = socket.nextEvent(at: .zero) { events.append(event) }
    }
    precondition(socket.outputCount <= bytes.byteCount * 4 + 127, "an answer is larger than what it answers")
    socket.receiveEnd(at: .zero)
    while let event = socket.nextEvent(at: .zero) { events.append(event) }
    return events
}

/// A request for a WebSocket that is granted gets an answer that its client takes.
public func fuzzWebSocketUpgrade(_ bytes: RawSpan) {
    guard bytes.byteCount <= 8192 else { return }
    var connection = HTTPServerConnection(at: .zero)
    connection.receive(bytes, at: .zero)
    while let event = connection.nextEvent() {
        guard case .request(let request) = event, let upgrade = try? WebSocketUpgrade(request) else { return }
        precondition(upgrade.subprotocols.count <= 16)
        let headers = upgrade.headers(choosing: upgrade.subprotocols.first)
        precondition(headers.fields.count == (upgrade.subprotocols.isEmpty ? 1 : 2))
        precondition(connection.upgrade(to: "websocket", headers: headers) != nil)
    }
}
