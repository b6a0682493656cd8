import HTTP
import Primitives
import TestSupport
import Testing

private let start = Instant.zero

/// A frame as a hostile or strange peer may write it.
private func frame(_ first: UInt8, _ payload: [UInt8], key: [UInt8]? = [0x37, 0xFA, 0x21, 0x3D]) -> [UInt8] {
    var bytes: [UInt8] = [first]
    let bit: UInt8 = key == nil ? 0 : 0x80
    if payload.count < 126 {
        bytes.append(bit | UInt8(payload.count))
    } else {
        bytes += [bit | 126, UInt8(payload.count >> 8), UInt8(payload.count & 0xFF)]
    }
    guard let key else { return bytes + payload }
    return bytes + key + payload.enumerated().map { $1 ^ key[$0 & 3] }
}

private func frame(_ first: UInt8, _ payload: String) -> [UInt8] { frame(first, Array(payload.utf8)) }

private func server(_ limits: WebSocketLimits = WebSocketLimits()) -> WebSocketConnection {
    WebSocketConnection(role: .server, limits: limits, random: SeededGenerator(seed: 1), at: start)
}

/// What a server makes of `bytes`.
private func events(_ bytes: [UInt8], limits: WebSocketLimits = WebSocketLimits()) -> [WebSocketEvent] {
    var socket = server(limits)
    socket.receive(bytes.span.bytes, at: start)
    return drain(&socket)
}

private func drain(_ socket: inout WebSocketConnection, at now: Instant = start) -> [WebSocketEvent] {
    var events: [WebSocketEvent] = []
    while let event = socket.nextEvent(at: now) { events.append(event) }
    return events
}

private func failure(_ bytes: [UInt8], limits: WebSocketLimits = WebSocketLimits()) -> WebSocketFailure? {
    guard case .ended(let end)? = events(bytes, limits: limits).last else { return nil }
    return end.failure
}

private func text(_ string: String) -> WebSocketEvent { .text(Array(string.utf8)) }

@Suite struct WebSocketMessages {
    /// RFC 6455 §5.7.
    @Test func `the RFC's own examples are read`() {
        #expect(events([0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]) == [text("Hello")])
        var client = WebSocketConnection(role: .client, random: SeededGenerator(seed: 1), at: start)
        client.receive(([0x01, 0x03, 0x48, 0x65, 0x6C, 0x80, 0x02, 0x6C, 0x6F] as [UInt8]).span.bytes, at: start)
        #expect(drain(&client) == [text("Hello")])
    }

    @Test func `control frames stand between the fragments of a message`() {
        var socket = server()
        let bytes = frame(0x01, "Hel") + frame(0x89, "there?") + frame(0x00, "l") + frame(0x8A, "") + frame(0x80, "o")
        socket.receive(bytes.span.bytes, at: start)
        #expect(drain(&socket) == [text("Hello")])
        #expect(socket.output.array == [0x8A, 6] + Array("there?".utf8))
    }

    @Test(arguments: [0, 1, 125, 126, 65_535, 65_536, 1 << 20]) func `any length arrives as it was sent, both ways`(count: Int) {
        var client = WebSocketConnection(role: .client, random: SeededGenerator(seed: 7), at: start)
        var peer = server()
        let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        _ = client.send(binary: payload)
        peer.receive(client.output, at: start)
        #expect(drain(&peer) == [.binary(payload)])
        client.outputSent(client.outputCount)
        _ = peer.send(binary: payload)
        // One byte at a time for short ones: no state may be lost between reads.
        let bytes = peer.output.array
        for place in stride(from: 0, to: bytes.count, by: count < 200 ? 1 : 60_000) {
            client.receive(Array(bytes[place..<min(bytes.count, place + (count < 200 ? 1 : 60_000))]).span.bytes, at: start)
            if place + 60_000 < bytes.count, count >= 200 { #expect(drain(&client).isEmpty) }
        }
        #expect(drain(&client) == [.binary(payload)])
    }

    @Test func `a client's payload is not readable on the wire, and never masked alike`() {
        var client = WebSocketConnection(role: .client, random: SeededGenerator(seed: 7), at: start)
        _ = client.send(text: "GET / HTTP/1.1".utf8) && client.send(text: "GET / HTTP/1.1".utf8)
        let bytes = client.output.array
        #expect(bytes.count == 40 && bytes[6..<20] != bytes[26..<40])
        #expect(!String(decoding: bytes, as: UTF8.self).contains("HTTP"))
    }
}

@Suite struct WebSocketRules {
    @Test func `what breaks the frame layer ends it with 1002`() {
        #expect(failure(frame(0xC1, "x")) == .reservedBits)
        #expect(failure(frame(0x83, "x")) == .unknownOpcode)
        #expect(failure(frame(0x09, "x")) == .fragmentedControl)
        #expect(failure(frame(0x89, [UInt8](repeating: 0, count: 126))) == .longControl)
        #expect(failure(frame(0x81, Array("x".utf8), key: nil)) == .wrongMasking)
        #expect(failure([0x81, 0xFE, 0, 5, 1, 2, 3, 4]) == .badLength)
        #expect(failure([0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]) == .badLength)
        #expect(failure(frame(0x80, "x")) == .badFragments)
        #expect(failure(frame(0x01, "x") + frame(0x81, "y")) == .badFragments)
        #expect(failure(frame(0x88, [3])) == .badClose)
        for code: UInt16 in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            #expect(failure(frame(0x88, [UInt8(code >> 8), UInt8(code & 0xFF)])) == .badClose, "code \(code)")
        }
        for failure in WebSocketFailure.allCases where failure.rawValue <= WebSocketFailure.badClose.rawValue {
            #expect(failure.code == 1002)
        }
    }

    @Test func `a peer that breaks a rule gets a Close, is heard out and cannot speak any more`() {
        var socket = server()
        socket.receive((frame(0x83, "x") + frame(0x81, "late")).span.bytes, at: start)
        #expect(drain(&socket).count == 1)
        #expect(socket.output.array.prefix(4) == [0x88, 15, 0x03, 0xEA])
        let early = (socket.isFinished, socket.wantsHalfClose)
        socket.outputSent(socket.outputCount)
        socket.receive(frame(0x81, "later").span.bytes, at: start)
        #expect(drain(&socket).isEmpty && early == (false, false))
        let flushed = (socket.isFinished, socket.wantsHalfClose, socket.wantsInput)
        #expect(flushed == (false, true, true))
        socket.receiveEnd(at: start)
        #expect(socket.isFinished)
    }

    @Test func `text that is not UTF-8 fails at the byte that shows it`() {
        #expect(failure(frame(0x81, [0xC3, 0x28])) == .notUTF8)
        #expect(failure(frame(0x81, [0xED, 0xA0, 0x80])) == .notUTF8)
        #expect(failure(frame(0x81, [0xF4, 0x90, 0x80, 0x80])) == .notUTF8)
        #expect(failure(frame(0x81, [0xC0, 0x80])) == .notUTF8)
        #expect(failure(frame(0x81, [0xE2, 0x82])) == .notUTF8)
        // A character in two fragments is fine; the bad second one is refused before the message is complete.
        #expect(events(frame(0x01, [0xE2, 0x82]) + frame(0x80, [0xAC])) == [text("€")])
        #expect(failure(frame(0x01, [0xE2, 0x82]) + frame(0x00, [0x41])) == .notUTF8)
        #expect(failure([0x81, 0xFE, 0x03, 0xE8, 0, 0, 0, 0, 0x41, 0xFF]) == .notUTF8)
        #expect(events(frame(0x82, [0xC3, 0x28])) == [.binary([0xC3, 0x28])])
        #expect(failure(frame(0x88, [0x03, 0xE8, 0xFF])) == .notUTF8)
    }

    @Test func `every valid scalar passes, and what the standard library refuses is refused`() {
        for scalar in stride(from: UInt32(0), through: 0x10FFFF, by: 173) {
            guard let scalar = Unicode.Scalar(scalar) else { continue }
            #expect(events(frame(0x81, Array(String(scalar).utf8))).count == 1)
        }
        let telling: [UInt8] = [0x41, 0x80, 0x9F, 0xBF, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xF5]
        var random = SeededGenerator(seed: 3)
        for _ in 0..<20_000 {
            let bytes = (0..<4).map { _ in telling[Int.random(in: 0..<telling.count, using: &random)] }
            let isText = String(validating: bytes, as: UTF8.self) != nil
            #expect((failure(frame(0x81, bytes)) == nil) == isText, "\(bytes)")
        }
    }

    @Test func `a message that is too long is refused by its header`() {
        var limits = WebSocketLimits()
        limits.messageBytes = 1000
        #expect(failure([0x81, 0xFE, 0x03, 0xE9, 0, 0, 0, 0], limits: limits) == .tooLarge)
        #expect(failure(frame(0x01, [UInt8](repeating: 65, count: 999)) + frame(0x00, "ab"), limits: limits) == .tooLarge)
        #expect(events(frame(0x81, [UInt8](repeating: 65, count: 1000)), limits: limits).count == 1)
        #expect(failure([0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]) == .tooLarge)
    }
}

@Suite struct WebSocketLife {
    @Test func `a client's Close is answered, and the server closes the stream`() {
        var socket = server()
        socket.receive(frame(0x88, [0x03, 0xE9] + Array("reload".utf8)).span.bytes, at: start)
        #expect(drain(&socket) == [.ended(WebSocketEnd(code: 1001, reason: "reload"))])
        #expect(socket.output.array == [0x88, 2, 0x03, 0xE9])
        let sends = socket.send(text: "late".utf8)
        #expect(!socket.isFinished && !sends)
        socket.outputSent(4)
        #expect(socket.isFinished)
    }

    @Test func `our Close waits for the peer's, and messages that cross it arrive`() {
        var client = WebSocketConnection(role: .client, random: SeededGenerator(seed: 1), at: start)
        var peer = server()
        client.close(code: 1000, reason: String(repeating: "ä", count: 100), at: start)
        _ = peer.send(text: "crossing".utf8)
        client.receive(peer.output, at: start)
        #expect(drain(&client) == [text("crossing")])
        peer.outputSent(peer.outputCount)
        peer.receive(client.output, at: start)
        #expect(drain(&peer) == [.ended(WebSocketEnd(code: 1000, reason: String(repeating: "ä", count: 61)))])
        client.outputSent(client.outputCount)
        client.receive(peer.output, at: start)
        #expect(drain(&client) == [.ended(WebSocketEnd(code: 1000))])
        // RFC 6455 §7.1.1: the server closes the stream first.
        #expect(!client.isFinished)
        client.receiveEnd(at: start)
        #expect(client.isFinished)
    }

    @Test func `a Close that nobody answers ends by the clock`() {
        var socket = server()
        socket.close(code: 1001, at: start)
        socket.outputSent(socket.outputCount)
        socket.advance(to: start + .seconds(4))
        #expect(drain(&socket).isEmpty)
        socket.advance(to: start + .seconds(5))
        #expect(drain(&socket) == [.ended(WebSocketEnd(code: 1006, failure: .closeTimeout))])
        #expect(socket.isFinished)
    }

    @Test func `a silent peer is asked, and then given up`() {
        var socket = server()
        socket.advance(to: start + .seconds(20))
        #expect(socket.output.array == [0x89, 0])
        socket.outputSent(2)
        socket.receive(frame(0x8A, "").span.bytes, at: start + .seconds(30))
        #expect(drain(&socket).isEmpty)
        socket.advance(to: start + .seconds(49))
        #expect(socket.outputCount == 0)
        socket.advance(to: start + .seconds(50))
        socket.advance(to: start + .seconds(70))
        #expect(drain(&socket) == [.ended(WebSocketEnd(code: 1006, failure: .silent))])
        let deadline = socket.nextDeadline.instant
        #expect(socket.isFinished && deadline == .never)
    }

    @Test func `a stream that ends without a Close is lost, after its last message`() {
        var socket = server()
        socket.receive((frame(0x81, "last") + frame(0x01, "cut")).span.bytes, at: start)
        socket.receiveEnd(at: start)
        #expect(drain(&socket) == [text("last"), .ended(WebSocketEnd(code: 1006, failure: .lost))])
        #expect(socket.isFinished)
    }

    @Test func `a peer that pings and never reads keeps one pong waiting`() {
        var socket = server()
        var pings: [UInt8] = []
        for number in 0..<500 { pings += frame(0x89, [UInt8](repeating: UInt8(number & 0xFF), count: 125)) }
        for _ in 0..<20 {
            socket.receive(pings.span.bytes, at: start)
            #expect(drain(&socket).isEmpty)
        }
        #expect(socket.outputCount < 17_000)
        socket.outputSent(socket.outputCount)
        // The last of all pings is answered once there is room.
        #expect(socket.output.array == [0x8A, 125] + [UInt8](repeating: UInt8(499 & 0xFF), count: 125))
    }

    @Test func `a peer that does not read is told to its caller, not stored`() {
        var limits = WebSocketLimits()
        limits.outputBytes = 10_000
        var socket = server(limits)
        var sent = 0
        while socket.send(binary: [UInt8](repeating: 0, count: 900)) { sent += 1 }
        #expect(sent == 11)
        socket.outputSent(5_000)
        let hasRoom = socket.send(binary: [UInt8](repeating: 0, count: 900))
        #expect(hasRoom)
    }

    @Test func `thousands of tiny messages in one read cost no memory of their own`() {
        var socket = server()
        var bytes: [UInt8] = []
        for _ in 0..<10_000 { bytes += frame(0x82, [], key: [1, 2, 3, 4]) }
        socket.receive(bytes.span.bytes, at: start)
        #expect(!socket.wantsInput || bytes.count < 65_536)
        #expect(drain(&socket).count == 10_000)
        #expect(socket.wantsInput)
        // Whoever reads on without taking events is stopped.
        for _ in 0..<30 { socket.receive(bytes.span.bytes, at: start) }
        #expect(drain(&socket).last == .ended(WebSocketEnd(code: 1008, reason: "tooMuchInput", failure: .tooMuchInput)))
    }
}

@Suite struct WebSocketBytes {
    @Test(arguments: Corpus.files(in: "websocket")) func `the corpus keeps its property`(file: CorpusFile) {
        fuzzWebSocket(file.bytes.span.bytes)
    }

    @Test func `mutated streams keep it too`() {
        mutate(Corpus.files(in: "websocket").map(\.bytes)) { fuzzWebSocket($0) }
    }

    @Test(arguments: Corpus.files(in: "websocket-upgrade")) func `requests keep theirs`(file: CorpusFile) {
        fuzzWebSocketUpgrade(file.bytes.span.bytes)
    }

    @Test func `mutated requests keep it too`() {
        mutate(Corpus.files(in: "websocket-upgrade").map(\.bytes)) { fuzzWebSocketUpgrade($0) }
    }
}
