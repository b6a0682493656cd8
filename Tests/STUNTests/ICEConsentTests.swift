import ICE
import Primitives
import STUN
import Testing
import TestSupport

@Suite struct RestartingICE {
    @Test func `both generations are valid until the new one is nominated`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.media(on: way(1))
        let early = session.request(
            receiver: ICESession.newLocal.ufrag, sender: ICESession.newRemote.ufrag, password: ICESession.newLocal.password)
        #expect(session.receive(early, on: way(2)) == .wrongUfrag)
        session.restart()
        session.check(way(1), nominates: true)
        session.newCheck(way(2))
        #expect(session.selected == way(1))
        session.check(way(3))
        _ = session.events()

        session.newCheck(way(2), nominates: true)
        #expect(session.selected == way(2))
        #expect(session.events() == [.selected(way(2))])
        #expect(session.receive(session.request(), on: way(1)) == .wrongUfrag)
        // The old paths are gone: late media does not lead back.
        #expect(!session.isValidated(way(1)))
        #expect(!session.isValidated(way(3)))
        session.media(on: way(1))
        #expect(session.selected == way(2))
    }

    @Test func `the generations are not mixed`() {
        let session = ICESession()
        session.restart()
        let (old, new) = (ICESession.local, ICESession.newLocal)
        #expect(
            session.receive(session.request(receiver: new.ufrag, sender: "frag", password: new.password), on: way(1)) == .wrongUfrag)
        #expect(
            session.receive(session.request(receiver: old.ufrag, sender: "gram", password: old.password), on: way(1)) == .wrongUfrag)
        #expect(
            session.receive(session.request(receiver: new.ufrag, sender: "gram", password: old.password), on: way(1)) == .badIntegrity)
    }

    @Test func `answers are signed with the password of the generation that asked`() throws {
        let session = ICESession()
        session.restart()
        session.check(way(1))
        session.newCheck(way(1))
        let verdicts = try zip(session.packets(), [ICESession.local, ICESession.newLocal]).map { sent, credentials in
            try message(sent.bytes) { $0.verifiesIntegrity(key: Array(credentials.password.utf8).bytes) }
        }
        #expect(verdicts == [true, true])
    }

    @Test func `after the restart the latest nomination counts again until media settles it`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.media(on: way(1))
        session.restart()
        session.newCheck(way(2), nominates: true)
        session.newCheck(way(3), nominates: true)
        #expect(session.selected == way(3))
        session.media(on: way(3))
        session.newCheck(way(2), nominates: true)
        #expect(session.selected == way(3))
    }

    @Test func `the same address may carry on under the new generation`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.restart()
        session.newCheck(way(1))
        session.check(way(1))
        _ = session.events()
        session.newCheck(way(1), nominates: true)
        #expect(session.selected == way(1))
        #expect(session.isValidated(way(1)))
        #expect(session.events().isEmpty)
    }

    @Test func `a late check of the old generation does not make a path old again`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.restart()
        session.newCheck(way(2))
        session.check(way(2))
        session.newCheck(way(3), nominates: true)
        #expect((1...3).map { session.isValidated(way($0)) } == [false, true, true])
    }

    @Test func `a second restart replaces one that was never nominated`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.restart()
        session.newCheck(way(2))
        session.restart(remote: ICECredentials(ufrag: "third", password: "theirs, third of them all"))
        #expect(!session.isValidated(way(2)))
        let second = session.request(
            receiver: ICESession.newLocal.ufrag, sender: ICESession.newRemote.ufrag, password: ICESession.newLocal.password)
        #expect(session.receive(second, on: way(2)) == .wrongUfrag)
        session.check(way(1))
        #expect(session.selected == way(1))
    }

    @Test func `media on the new generation is as good as its nomination when the next restart comes`() throws {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.restart()
        session.newCheck(way(2))
        session.media(on: way(2))
        #expect(session.selected == way(2))
        session.restart(remote: ICESession.remote)
        #expect(session.isValidated(way(2)))
        #expect(!session.isValidated(way(1)))
        // Our checks there go on under the credentials that the client knows.
        let asked = session.pass(.seconds(6)).packets
        let name = try message(#require(asked.last).sent.bytes) { text($0.username) }
        #expect(name == "gram:" + ICESession.newLocal.ufrag)
    }
}

@Suite struct KeepingConsent {
    func connected() -> ICESession {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.media(on: way(1))
        _ = session.events()
        _ = session.packets()
        return session
    }

    @Test func `consent is lost after 30 seconds, and the session is silent after 60, each told once`() {
        let session = connected()
        let told = session.pass(.seconds(300)).events
        #expect(told.map(\.event) == [.consentLost, .silent])
        #expect(told.map(\.at) == [.seconds(30), .seconds(60)])
        #expect(!session.hasConsent)
        #expect(session.selected == way(1))
        #expect(session.nextDeadline == .never)
    }

    @Test func `nobody who never came is silent too, and is not asked`() {
        let session = ICESession()
        let (packets, events) = session.pass(.seconds(100))
        #expect(events.map(\.event) == [.silent])
        #expect(packets.isEmpty)
    }

    @Test func `checks alone keep consent, at the pace of Chromium, and we do not ask`() {
        let session = connected()
        for _ in 0..<60 {
            let (packets, events) = session.pass(.milliseconds(3900))
            #expect(packets.isEmpty)
            #expect(events.isEmpty)
            session.check(way(1))
            #expect(session.packets().count == 1)
        }
    }

    @Test func `media alone keeps consent`() {
        let session = connected()
        for _ in 0..<100 {
            let (packets, events) = session.pass(.seconds(1))
            #expect(packets.isEmpty)
            #expect(events.isEmpty)
            session.media(on: way(1))
        }
    }

    @Test func `checks and media from elsewhere are no consent of the selected path, but they are no silence`() {
        let session = connected()
        session.check(way(2))
        var told: [ICEEvent] = []
        for _ in 0..<20 {
            told += session.pass(.seconds(4)).events.map(\.event)
            session.check(way(2), nominates: true)
            session.media(on: way(3))
        }
        #expect(told == [.pathValidated(way(2)), .consentLost])
        #expect(session.selected == way(1))
    }

    @Test(arguments: ["check", "media", "media from elsewhere"])
    func `consent comes back with a sign of life`(sign: String) {
        let session = connected()
        session.check(way(2))
        session.pass(.seconds(40))
        switch sign {
        case "check": session.check(way(1))
        case "media": session.media(on: way(1))
        default: session.media(on: way(2))
        }
        #expect(session.hasConsent)
        #expect(session.events() == (sign == "media from elsewhere" ? [.selected(way(2)), .consentRegained] : [.consentRegained]))
        #expect(session.pass(.seconds(29)).events.isEmpty)
        #expect(session.pass(.seconds(2)).events.map(\.event) == [.consentLost])
    }

    @Test func `a session that was silent can live again, and be silent again`() {
        let session = connected()
        session.pass(.seconds(61))
        session.check(way(1))
        #expect(session.events() == [.consentRegained])
        #expect(session.pass(.seconds(61)).events.map(\.event) == [.consentLost, .silent])
    }
}

@Suite struct AskingASilentClient {
    func connected() -> ICESession { KeepingConsent().connected() }

    @Test func `from 4 seconds of silence on it is asked about once a second, until the session is silent`() {
        let session = connected()
        let asked = session.pass(.seconds(300)).packets
        #expect(asked.first?.at == .seconds(4))
        #expect((46...70).contains(asked.count))
        #expect(asked.allSatisfy { $0.at < .seconds(60) && $0.sent.path == way(1) })
        for (a, b) in zip(asked, asked.dropFirst()) {
            #expect(b.at - a.at >= .milliseconds(800))
            #expect(b.at - a.at <= .milliseconds(1200))
        }
        #expect(Set(asked.map { hex($0.sent.bytes[8..<20]) }).count == asked.count)
    }

    @Test func `the check is one that a full agent accepts`() throws {
        let asked = connected().pass(.seconds(6)).packets
        try message(#require(asked.first).sent.bytes) { check in
            let key = Array(ICESession.remote.password.utf8)
            let facts = (check.isBindingRequest, check.verifiesIntegrity(key: key.bytes), check.verifiesFingerprint(), check.useCandidate)
            #expect(facts == (true, true, true, false))
            #expect(text(check.username) == "frag:" + ICESession.local.ufrag)
            #expect(check.iceControlled == 77)
            #expect(check.iceControlling == nil)
            #expect(check.priority == 0x6EFF_FFFF)
        }
    }

    @Test func `its answer is consent, once`() throws {
        let session = connected()
        let (packets, _) = session.pass(.seconds(40))
        let last = try #require(packets.last).sent
        #expect(try session.answer(last, from: way(1, hop: 4007)) == nil)
        #expect(session.events() == [.consentRegained])
        #expect(session.selected == way(1, hop: 4007))
        #expect(try session.answer(last) == .unknownResponse)
        // A replayed answer does not prolong it, and asking begins anew.
        let after = session.pass(.seconds(31))
        #expect(after.events.map(\.event) == [.consentLost])
        #expect((21...34).contains(after.packets.count))
    }

    @Test func `an answer may be four checks late, not five`() throws {
        let session = connected()
        let asked = session.pass(.seconds(20)).packets.map(\.sent)
        #expect(try session.answer(asked[asked.count - 5]) == .unknownResponse)
        #expect(try session.answer(asked[asked.count - 4]) == nil)
    }

    @Test func `an answer that is forged, from elsewhere, or a refusal is no consent`() throws {
        let session = connected()
        session.check(way(2))
        let (packets, _) = session.pass(.seconds(40))
        let last = try #require(packets.last).sent
        #expect(try session.answer(last, password: "a wrong password") == .badIntegrity)
        #expect(try session.answer(last, password: "") == .badIntegrity)
        #expect(try session.answer(last, from: way(2)) == .unknownResponse)
        #expect(try session.answer(last, .error, password: "") == .refused)
        #expect(!session.hasConsent)
        #expect(try session.answer(last, .error) == .refused)
        #expect(try session.answer(last) == .unknownResponse)
        #expect(!session.hasConsent)
        #expect(session.events().isEmpty)
    }

    @Test func `a client that is back is not asked any more`() throws {
        let session = connected()
        let (packets, _) = session.pass(.seconds(10))
        #expect(try session.answer(#require(packets.last).sent) == nil)
        #expect(session.pass(.milliseconds(3900)).packets.isEmpty)
    }

    @Test func `a check that was due but not yet sent is not sent after a sign of life`() {
        let session = connected()
        session.passUndrained(.seconds(7))
        session.media(on: way(1))
        #expect(session.packets().isEmpty)
    }

    @Test func `what was undone before the owner asked is not told`() {
        let session = connected()
        session.passUndrained(.seconds(61))
        session.check(way(1))
        #expect(session.events().isEmpty)
        session.passUndrained(.seconds(61))
        #expect(session.events() == [.consentLost, .silent])
    }
}

@Suite struct FuzzingICE {
    @Test func `mutations of datagrams and of scripts never break what must hold`() {
        var random = SeededGenerator(seed: 3)
        let scripts = (0..<20).map { _ in (0..<60).map { _ in UInt8.random(in: 0...255, using: &random) } }
        mutate(Corpus.files(in: "stun").map(\.bytes) + scripts, count: mutationCount / 10) { fuzzICE($0) }
    }
}
