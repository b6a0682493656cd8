// What must hold for every input, called by the tests with mutations of a corpus, and by the fuzz targets.

import Crypto
import Primitives
import STUN

/// Gives `bytes` to an agent as a datagram, and then as a script of a session: authentic checks, media, time, restarts, answers.
public func fuzzICE(_ bytes: RawSpan) {
    guard bytes.byteCount <= 2048 else { return }
    var fuzzer = ICEFuzzer()
    fuzzer.datagram(bytes)
    for index in 0..<min(bytes.byteCount, 100) { fuzzer.step(bytes.byte(index), bytes) }
}

private struct ICEFuzzer: ~Copyable {
    private var agent: ICELiteAgent
    private var now = Instant(nanoseconds: 1_000_000_000_000)
    private var generation = 0
    private var transaction: UInt64 = 0
    /// The agent's last own check, and where it went.
    private var asked: (id: STUNTransactionID, path: NetworkPath, generation: Int)?
    private var consents = false
    /// What each client has sent, and got since some path was proved.
    private var received: [SocketAddress: Int] = [:]
    private var sent: [SocketAddress: Int] = [:]
    private var proved: Set<SocketAddress> = []
    private var hasProof = false

    init() {
        agent = ICELiteAgent(local: Self.local(0), remote: Self.remote(0), tieBreaker: 1, entropy: 2, at: now)
    }

    private static func local(_ generation: Int) -> ICECredentials {
        let digit = String(generation % 10)
        return ICECredentials(ufrag: String(repeating: digit, count: 32), password: "ours " + String(repeating: digit, count: 19))
    }

    private static func remote(_ generation: Int) -> ICECredentials {
        let digit = String(generation % 10)
        return ICECredentials(ufrag: String(repeating: digit, count: 4), password: "theirs " + String(repeating: digit, count: 17))
    }

    private static func path(_ number: UInt8) -> NetworkPath {
        NetworkPath(
            client: SocketAddress(IPAddress(v4: 0xC633_6400 | UInt32(number & 15)), port: 1000),
            hop: SocketAddress(.v4Loopback, port: UInt16(number)), ingressRelay: UInt16(number >> 4), ingressWorker: number & 1)
    }

    mutating func datagram(_ bytes: RawSpan) {
        _ = agent.receive(bytes, on: Self.path(0), at: now)
        settle()
    }

    mutating func step(_ byte: UInt8, _ bytes: RawSpan) {
        let argument = byte >> 3
        switch byte & 7 {
        case 0: check(from: argument, nominates: false, generation)
        case 1: check(from: argument, nominates: true, generation)
        case 2: check(from: argument, nominates: argument & 1 == 0, max(0, generation - 1))
        case 3: media(from: argument, bytes.byteCount)
        case 4: now = now + .milliseconds(Int64(argument) * Int64(argument) * 70)
        case 5: now = min(agent.nextDeadline, now + .seconds(600))
        case 6:
            guard argument < 4 else { return answer() }
            generation += 1
            agent.restart(local: Self.local(generation), remote: Self.remote(generation), at: now)
        default: _ = agent.receive(bytes.bytes(0..<min(bytes.byteCount, Int(argument) * 4)), on: Self.path(argument), at: now)
        }
        settle()
    }

    private mutating func check(from number: UInt8, nominates: Bool, _ generation: Int) {
        transaction &+= 1
        let id = STUNTransactionID(high: 0, low: transaction)
        let (ours, theirs) = (Array(Self.local(generation).ufrag.utf8), Array(Self.remote(generation).ufrag.utf8))
        let password = Array(Self.local(generation).password.utf8)
        let datagram = Self.write(.request, id, password) { writer, output in
            writer.append(usernameFor: ours.bytes, from: theirs.bytes, to: &output)
            if nominates { writer.appendUseCandidate(to: &output) }
        }
        if agent.receive(datagram.bytes, on: Self.path(number), at: now) == nil {
            received[Self.path(number).client, default: 0] += datagram.count
        }
        settle(answersMax: datagram.count)
    }

    /// Media from there, and as much back as may be, in packets of 100 bytes.
    private mutating func media(from number: UInt8, _ byteCount: Int) {
        let path = Self.path(number)
        if let selected = agent.selectedPath, number == 0 {
            agent.noteProved(selected, at: now)
            hasProof = true
            proved.insert(selected.client)
        }
        if agent.isValidated(path) { received[path.client, default: 0] += byteCount }
        agent.noteReceived(byteCount, on: path)
        agent.noteAuthenticated(on: path, isNewest: number % 3 != 0, at: now)
        for _ in 0..<number {
            guard let selected = agent.selectedPath, let taken = agent.admit(100, to: selected) else { break }
            note(sent: 100, to: taken.client)
        }
    }

    private mutating func note(sent byteCount: Int, to client: SocketAddress) {
        guard hasProof, !proved.contains(client) else { return }
        sent[client, default: 0] += byteCount
        precondition(sent[client, default: 0] <= 3 * received[client, default: 0], "more than three times as much to somebody unproved")
    }

    private mutating func answer() {
        guard let asked else { return }
        self.asked = nil
        let datagram = Self.write(.success, asked.id, Array(Self.remote(asked.generation).password.utf8)) { writer, output in
            writer.append(xorMappedAddress: SocketAddress(.v4Loopback, port: 1), to: &output)
        }
        if agent.receive(datagram.bytes, on: asked.path, at: now) == nil {
            proved.insert(asked.path.client)
            hasProof = true
        }
        let again = agent.receive(datagram.bytes, on: asked.path, at: now)
        precondition(again != nil, "an answer was taken twice")
        settle()
    }

    private static func write(
        _ messageClass: STUNClass, _ id: STUNTransactionID, _ key: [UInt8], _ body: (inout STUNWriter, inout OutputRawSpan) -> Void
    ) -> [UInt8] {
        var packet = ByteSlab(count: 1, slotSize: 1024)
        let count = packet.write(0, 0..<1024) { output in
            var writer = STUNWriter(messageClass, id, to: &output)
            body(&writer, &output)
            let fitted = writer.finish(key: key.bytes, to: &output)
            precondition(fitted, "1024 bytes are not enough")
        }
        return packet.bytes(0, count).array
    }

    /// Lets time be seen, takes everything out, and checks what must hold then.
    private mutating func settle(answersMax: Int = 1024) {
        agent.advance(to: now)
        precondition(agent.nextDeadline > now, "a deadline that has passed")
        var packets = 0
        while let path = transmit(answersMax) {
            packets += 1
            precondition(path.client.port == 1000 && packets <= 5, "more packets than places for them")
        }
        var events = 0
        while let event = agent.nextEvent() {
            events += 1
            note(event)
        }
        precondition(events <= 11, "more events than things to tell")
        precondition(agent.hasConsent == consents, "consent changed untold")
        if let selected = agent.selectedPath {
            precondition(agent.isValidated(selected), "the selected path is not valid")
        } else {
            precondition(!agent.hasConsent, "consent of nobody")
        }
    }

    private mutating func note(_ event: ICEEvent) {
        switch event {
        case .pathValidated(let path): precondition(agent.isValidated(path))
        case .selected(let path):
            precondition(agent.selectedPath == path)
            // The first selection is consent without a word.
            if agent.hasConsent { consents = true }
        case .consentLost:
            precondition(consents)
            consents = false
        case .consentRegained: consents = true
        case .silent: break
        }
    }

    private mutating func transmit(_ answersMax: Int) -> NetworkPath? {
        var path: NetworkPath?
        var packet = ByteSlab(count: 1, slotSize: 1024)
        let count = packet.write(0, 0..<1024) { output in path = agent.nextTransmit(into: &output, at: now) }
        guard let path else {
            precondition(count == 0, "bytes for nobody")
            return nil
        }
        guard let message = try? STUNMessage(parsing: packet.bytes(0, count)) else { fatalError("what we wrote is not STUN") }
        precondition(message.hasIntegrity && message.verifiesFingerprint())
        if message.messageClass == .request {
            precondition(path == agent.selectedPath, "a check to somewhere else")
            guard let sender = message.senderUfrag else { fatalError("a check without our ufrag") }
            asked = (message.transactionID, path, Int(sender.byte(0)) - 48)
        } else {
            precondition(count <= answersMax, "an answer longer than its request")
        }
        note(sent: count, to: path.client)
        return path
    }
}
