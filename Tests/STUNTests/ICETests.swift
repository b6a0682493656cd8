import Crypto
import ICE
import Primitives
import STUN
import Testing
import TestSupport

/// An agent in virtual time, and what its client says to it.
final class ICESession {
    static let start = Instant(nanoseconds: 1_000_000_000_000)
    static let local = ICECredentials(ufrag: "AbCdEfGhIjKlMnOpQrStUvWxYz012345", password: "ours, all of 24 letters!")
    static let remote = ICECredentials(ufrag: "frag", password: "the password of theirs 24")
    static let newLocal = ICECredentials(ufrag: "012345AbCdEfGhIjKlMnOpQrStUvWxYz", password: "ours after the restart..")
    static let newRemote = ICECredentials(ufrag: "gram", password: "theirs after the restart")

    private var agent = ICELiteAgent(
        local: ICESession.local, remote: ICESession.remote, tieBreaker: 77, entropy: 5, at: ICESession.start)
    private(set) var now = ICESession.start
    private var transactions: UInt64 = 0

    struct Sent: Equatable {
        var bytes: [UInt8]
        var path: NetworkPath
    }

    var selected: NetworkPath? { agent.selectedPath }
    var hasConsent: Bool { agent.hasConsent }
    var nextDeadline: Instant { agent.nextDeadline }
    func isValidated(_ path: NetworkPath) -> Bool { agent.isValidated(path) }

    func receive(_ bytes: [UInt8], on path: NetworkPath) -> ICEDropReason? { agent.receive(bytes.bytes, on: path, at: now) }
    func media(on path: NetworkPath, isNewest: Bool = true, bytes: Int = 100) {
        agent.noteReceived(bytes, on: path)
        agent.noteAuthenticated(on: path, isNewest: isNewest, at: now)
    }
    func prove(_ path: NetworkPath) { agent.noteProved(path, at: now) }
    func admit(_ count: Int) -> NetworkPath? { agent.admit(count, to: agent.selectedPath ?? way(0)) }
    func restart() { agent.restart(local: Self.newLocal, remote: Self.newRemote, at: now) }
    func restart(remote: ICECredentials) { agent.restart(local: Self.newLocal, remote: remote, at: now) }

    func request(
        receiver: String = local.ufrag, sender: String = remote.ufrag, password: String = local.password, nominates: Bool = false,
        extra: (inout STUNWriter, inout OutputRawSpan) -> Void = { _, _ in }
    ) -> [UInt8] {
        transactions += 1
        return WritingSTUN.written(1000) { output in
            var writer = STUNWriter(.request, STUNTransactionID(high: 9, low: transactions), to: &output)
            writer.append(usernameFor: Array(receiver.utf8).bytes, from: Array(sender.utf8).bytes, to: &output)
            if nominates { writer.appendUseCandidate(to: &output) }
            writer.append(priority: 1, to: &output)
            writer.append(iceControlling: 3, to: &output)
            extra(&writer, &output)
            _ = writer.finish(key: Array(password.utf8).bytes, to: &output)
        }
    }

    /// A good check by `path`, of the first generation.
    func check(_ path: NetworkPath, nominates: Bool = false) {
        #expect(receive(request(nominates: nominates), on: path) == nil)
    }

    /// A good check of the second generation.
    func newCheck(_ path: NetworkPath, nominates: Bool = false) {
        let request = request(
            receiver: Self.newLocal.ufrag, sender: Self.newRemote.ufrag, password: Self.newLocal.password, nominates: nominates)
        #expect(receive(request, on: path) == nil)
    }

    /// The client's answer to a check of ours.
    func answer(
        _ check: Sent, _ messageClass: STUNClass = .success, password: String = remote.password, from path: NetworkPath? = nil
    ) throws -> ICEDropReason? {
        let id = try message(check.bytes) { $0.transactionID }
        let bytes = WritingSTUN.written(1000) { output in
            var writer = STUNWriter(messageClass, id, to: &output)
            if messageClass == .error { writer.append(errorCode: 401, to: &output) }
            _ = writer.finish(key: Array(password.utf8).bytes, to: &output)
        }
        return receive(bytes, on: path ?? check.path)
    }

    func events() -> [ICEEvent] {
        var events: [ICEEvent] = []
        while let event = agent.nextEvent() { events.append(event) }
        return events
    }

    func packets() -> [Sent] {
        var packets: [Sent] = []
        while true {
            var path: NetworkPath?
            let bytes = WritingSTUN.written(ICELiteAgent.packetSizeMax) { path = agent.nextTransmit(into: &$0, at: now) }
            guard let path else { return packets }
            packets.append(Sent(bytes: bytes, path: path))
        }
    }

    /// Time passes while the owner is busy and takes nothing out.
    func passUndrained(_ span: Interval) {
        now = now + span
        agent.advance(to: now)
    }

    /// Time passes as an event loop would let it: from deadline to deadline. What was sent and told on the way, with its time.
    @discardableResult func pass(_ span: Interval) -> (packets: [(at: Interval, sent: Sent)], events: [(at: Interval, event: ICEEvent)]) {
        let end = now + span
        var result: (packets: [(at: Interval, sent: Sent)], events: [(at: Interval, event: ICEEvent)]) = ([], [])
        while now < end {
            now = max(now, min(end, agent.nextDeadline))
            agent.advance(to: now)
            result.packets += packets().map { (now - Self.start, $0) }
            result.events += events().map { (now - Self.start, $0) }
        }
        return result
    }
}

/// Ways by which a client may come; the number is in its address.
func way(_ number: Int, hop: UInt16 = 4000, ingress: UInt16 = 1) -> NetworkPath {
    NetworkPath(
        client: SocketAddress(IPAddress(v4: 0xC000_0200 | UInt32(number)), port: 5000), hop: SocketAddress(.v4Loopback, port: hop),
        ingressRelay: ingress, ingressWorker: 1)
}

@Suite struct AnsweringChecks {
    @Test func `a check is answered by the way it came, with the client's address, integrity and fingerprint`() throws {
        let session = ICESession()
        let request = session.request()
        #expect(session.receive(request, on: way(1)) == nil)
        let sent = session.packets()
        #expect(sent.map(\.path) == [way(1)])
        #expect(sent[0].bytes.count <= request.count)
        try message(sent[0].bytes) { answer in
            let key = Array(ICESession.local.password.utf8)
            let facts = (answer.messageClass == .success, answer.verifiesIntegrity(key: key.bytes), answer.verifiesFingerprint())
            #expect(facts == (true, true, true))
            #expect(answer.xorMappedAddress == way(1).client)
            #expect(answer.transactionID == STUNTransactionID(high: 9, low: 1))
        }
        #expect(session.events() == [.pathValidated(way(1))])
        #expect(session.isValidated(way(1)))
        #expect(session.selected == nil)
    }

    @Test(arguments: ["192.0.2.1:40000", "[2001:db8::1]:40000"])
    func `a client over TCP is told its address as if it came over UDP`(text: String) throws {
        let session = ICESession()
        var path = way(1)
        let address = try #require(SocketAddress(text))
        path.client = address.overTCP
        #expect(session.receive(session.request(), on: path) == nil)
        let sent = session.packets()
        #expect(sent.map(\.path) == [path])
        try message(sent[0].bytes) { #expect($0.xorMappedAddress == address) }
    }

    @Test func `an IPv6 client is told its address too, in no more bytes than it sent`() throws {
        let session = ICESession()
        var path = way(1)
        path.client = try #require(SocketAddress("[2001:db8::1]:40000"))
        let request = session.request()
        #expect(session.receive(request, on: path) == nil)
        let sent = session.packets()
        #expect(sent[0].bytes.count <= request.count)
        try message(sent[0].bytes) { #expect($0.xorMappedAddress == path.client) }
    }

    @Test(arguments: ClientCheck.all) func `the first checks of every client are answered`(check: ClientCheck) throws {
        let bytes = stun(check.file)
        let sender = try message(bytes) { text($0.senderUfrag) ?? "" }
        var agent = ICELiteAgent(
            local: ICECredentials(ufrag: check.serverUfrag, password: check.password),
            remote: ICECredentials(ufrag: sender, password: "unknown"), tieBreaker: 0, entropy: 0, at: ICESession.start)
        let dropped = agent.receive(bytes.bytes, on: way(1), at: ICESession.start)
        #expect(dropped == nil)
        let selected = agent.selectedPath
        #expect(selected == (check.nominates ? way(1) : nil))
    }

    @Test func `a check without FINGERPRINT is as good`() throws {
        let session = ICESession()
        var bytes = session.request()
        bytes.removeLast(8)
        bytes[3] -= 8
        #expect(session.receive(bytes, on: way(1)) == nil)
        #expect(session.packets().count == 1)
    }

    @Test func `what is not authentic changes nothing and is not answered`() throws {
        let session = ICESession()
        func drop(_ bytes: [UInt8]) -> ICEDropReason? { session.receive(bytes, on: way(1)) }
        #expect(drop([0, 1, 0]) == .malformed)
        #expect(drop(stun("libnice-indication.hex")) == .notForUs)
        #expect(drop(session.request(receiver: "nobody")) == .wrongUfrag)
        #expect(drop(session.request(receiver: ICESession.local.ufrag + "x")) == .wrongUfrag)
        #expect(drop(session.request(sender: "fra")) == .wrongUfrag)
        #expect(drop(session.request(sender: "frag:frag")) == .wrongUfrag)
        #expect(drop(session.request(sender: "")) == .wrongUfrag)
        #expect(drop(session.request(password: "another")) == .badIntegrity)
        #expect(drop(session.request(password: "")) == .badIntegrity)
        var flipped = session.request()
        flipped[flipped.count - 1] ^= 1
        #expect(drop(flipped) == .badFingerprint)
        let nameless = WritingSTUN.written(100) { output in
            let writer = STUNWriter(.request, STUNTransactionID(high: 0, low: 0), to: &output)
            _ = writer.finish(key: Array(ICESession.local.password.utf8).bytes, to: &output)
        }
        #expect(drop(nameless) == .noUsername)
        var other = session.request()
        other[1] = 3
        #expect(drop(other) == .notForUs)
        #expect(session.packets().isEmpty)
        #expect(session.events().isEmpty)
        #expect(!session.isValidated(way(1)))
    }

    @Test func `an attribute that must be understood and is not gets 420, and the path is not valid`() throws {
        let session = ICESession()
        let request = session.request(nominates: true) { writer, output in writer.append(0x0777, [UInt8]().bytes, to: &output) }
        #expect(session.receive(request, on: way(1)) == nil)
        let sent = session.packets()
        #expect(sent[0].bytes.count <= request.count)
        try message(sent[0].bytes) { answer in
            #expect(answer.errorCode == 420)
            let verified = answer.verifiesIntegrity(key: Array(ICESession.local.password.utf8).bytes)
            #expect(verified)
        }
        #expect(hex(sent[0].bytes).contains("000a000207770000"))
        #expect(!session.isValidated(way(1)))
        #expect(session.selected == nil)
    }

    @Test func `a client that wants to be controlled too gets 487`() throws {
        let session = ICESession()
        let request = session.request(nominates: true) { writer, output in writer.append(iceControlled: 5, to: &output) }
        #expect(session.receive(request, on: way(1)) == nil)
        let sent = session.packets()
        try message(sent[0].bytes) { #expect($0.errorCode == 487) }
        #expect(session.selected == nil)
    }

    @Test func `of more checks than places the last four are answered`() throws {
        let session = ICESession()
        for number in 1...6 { session.check(way(number)) }
        #expect(session.packets().map(\.path) == (3...6).map { way($0) })
        #expect(session.packets().isEmpty)
    }

    @Test func `an answer that does not fit is lost and leaves nothing behind`() {
        var agent = ICELiteAgent(
            local: ICESession.local, remote: ICESession.remote, tieBreaker: 0, entropy: 0, at: ICESession.start)
        _ = agent.receive(ICESession().request().bytes, on: way(1), at: ICESession.start)
        var path: NetworkPath?
        let bytes = WritingSTUN.written(40) { path = agent.nextTransmit(into: &$0, at: ICESession.start) }
        #expect(path == nil)
        #expect(bytes.isEmpty)
    }

    @Test(arguments: ["", String(repeating: "x", count: 257)])
    func `a peer without usable credentials is nobody's peer`(ufrag: String) {
        let session = ICESession()
        session.restart(remote: ICECredentials(ufrag: ufrag, password: "whatever"))
        let request = session.request(receiver: ICESession.newLocal.ufrag, sender: ufrag, password: ICESession.newLocal.password)
        #expect(session.receive(request, on: way(1)) == .wrongUfrag)
    }

    @Test func `credentials of 256 letters work, and our checks with them fit`() {
        let session = ICESession()
        let long = ICECredentials(ufrag: String(repeating: "r", count: 256), password: String(repeating: "s", count: 256))
        var agent = ICELiteAgent(local: long, remote: long, tieBreaker: 0, entropy: 0, at: ICESession.start)
        let request = session.request(receiver: long.ufrag, sender: long.ufrag, password: long.password, nominates: true)
        let dropped = agent.receive(request.bytes, on: way(1), at: ICESession.start)
        #expect(dropped == nil)
        agent.advance(to: ICESession.start + .seconds(6))
        var sizes: [Int] = []
        for _ in 0..<2 {
            let bytes = WritingSTUN.written(ICELiteAgent.packetSizeMax) { _ = agent.nextTransmit(into: &$0, at: ICESession.start) }
            sizes.append(bytes.count)
        }
        #expect(sizes == [64, ICELiteAgent.packetSizeMax])
    }
}

@Suite struct ChoosingThePath {
    @Test func `the first nomination selects`() {
        let session = ICESession()
        session.check(way(1))
        session.check(way(2), nominates: true)
        #expect(session.selected == way(2))
        #expect(session.hasConsent)
        #expect(session.events() == [.pathValidated(way(1)), .pathValidated(way(2)), .selected(way(2))])
        session.check(way(2), nominates: true)
        #expect(session.events().isEmpty)
    }

    @Test func `before any media the latest nomination wins`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.check(way(2), nominates: true)
        #expect(session.selected == way(2))
        session.check(way(1))
        #expect(session.selected == way(2))
    }

    @Test func `after media a nomination from elsewhere does not move the downlink, only media from there does`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.media(on: way(1))
        session.check(way(2), nominates: true)
        #expect(session.selected == way(1))
        #expect(session.isValidated(way(2)))
        _ = session.events()
        session.media(on: way(2))
        #expect(session.selected == way(2))
        #expect(session.events() == [.selected(way(2))])
        session.check(way(1), nominates: true)
        #expect(session.selected == way(2))
    }

    @Test func `media from a path without a check moves nothing`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.media(on: way(2))
        #expect(session.selected == way(1))
        #expect(!session.isValidated(way(2)))
        // Nor does it settle the path: nominations still count.
        session.check(way(3), nominates: true)
        #expect(session.selected == way(3))
    }

    @Test func `DTLS on a valid path before the nomination selects nothing`() {
        let session = ICESession()
        session.check(way(1))
        session.media(on: way(1))
        #expect(session.selected == nil)
        session.check(way(2), nominates: true)
        #expect(session.selected == way(2))
    }

    @Test func `the hop follows the client's packets without an event`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        _ = session.events()
        session.media(on: way(1, hop: 4001))
        #expect(session.selected == way(1, hop: 4001))
        session.check(way(1, hop: 4002))
        #expect(session.selected == way(1, hop: 4002))
        #expect(session.packets().map(\.path) == [way(1), way(1, hop: 4002)])
        #expect(session.isValidated(way(1, hop: 9)))
        #expect(session.events().isEmpty)
    }

    @Test func `eight paths are remembered, the selected one whatever comes`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        for number in 2...8 {
            session.pass(.milliseconds(1))
            session.check(way(number))
        }
        session.pass(.milliseconds(1))
        // Heard again, so the next oldest goes.
        session.check(way(2))
        session.pass(.milliseconds(1))
        session.check(way(9))
        #expect((1...9).map { session.isValidated(way($0)) } == [true, true, false, true, true, true, true, true, true])
        for number in 10...200 { session.check(way(number)) }
        #expect(session.selected == way(1))
        #expect(session.isValidated(way(1)))
        #expect((1...200).filter { session.isValidated(way($0)) }.count == 8)
    }
}
