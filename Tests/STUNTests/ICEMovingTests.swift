// Clients that move, and those who would like them to seem so.
import ICE
import Primitives
import STUN
import Testing
import TestSupport

@Suite struct MovingTheDownlink {
    /// On way 1, proved by its handshake, with media; checked from way 2 as well.
    func connected() -> ICESession {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.prove(way(1))
        session.media(on: way(1))
        session.check(way(2), nominates: true)
        _ = session.events()
        _ = session.packets()
        return session
    }

    @Test func `a recorded check is answered wherever it comes from, and moves nothing`() {
        let session = connected()
        let recorded = session.request(nominates: true)
        #expect(session.receive(recorded, on: way(1)) == nil)
        #expect(session.receive(recorded, on: way(7)) == nil)
        #expect(session.packets().map(\.path) == [way(1), way(7)])
        #expect(session.selected == way(1))
        #expect(session.events() == [.pathValidated(way(7))])
    }

    @Test func `a recording from the right address does not turn back what the client has done since`() {
        let session = connected()
        let recorded = session.request(nominates: true)
        #expect(session.receive(recorded, on: way(1)) == nil)
        session.media(on: way(2))
        #expect(session.receive(recorded, on: way(1)) == nil)
        #expect(session.selected == way(2))
    }

    @Test func `a repeated check is no consent`() {
        let session = connected()
        let recorded = session.request(nominates: true)
        #expect(session.receive(recorded, on: way(1)) == nil)
        var told: [ICEEvent] = []
        for _ in 0..<7 {
            told += session.pass(.seconds(10)).events.map(\.event)
            _ = session.receive(recorded, on: way(1))
        }
        #expect(told == [.consentLost, .silent])
    }

    @Test func `the newest media moves, media that was held back does not`() {
        let session = connected()
        session.media(on: way(2), isNewest: false)
        #expect(session.selected == way(1))
        session.media(on: way(2))
        #expect(session.selected == way(2))
        session.media(on: way(1), isNewest: false)
        #expect(session.selected == way(2))
        session.media(on: way(1))
        #expect(session.selected == way(1))
    }
}

/// A client whose answer names two ingresses checks both from one address.
@Suite struct TwoIngresses {
    let near = way(1, ingress: 2)
    let far = way(1, hop: 4003, ingress: 3)

    func connected() -> ICESession {
        let session = ICESession()
        session.check(near)
        session.check(near, nominates: true)
        session.check(far)
        session.prove(near)
        _ = session.events()
        _ = session.packets()
        return session
    }

    @Test func `a check by the other ingress is answered there and takes nothing with it`() {
        let session = ICESession()
        session.check(near, nominates: true)
        session.check(far)
        #expect(session.packets().map(\.path) == [near, far])
        #expect(session.selected == near)
        #expect(session.events() == [.pathValidated(near), .pathValidated(far), .selected(near)])
        session.media(on: near)
        session.check(far)
        #expect(session.selected == near)
        #expect(session.events().isEmpty)
    }

    @Test func `a recorded check by another ingress moves nothing`() {
        let session = connected()
        session.media(on: near)
        let recorded = session.request(nominates: true)
        #expect(session.receive(recorded, on: near) == nil)
        #expect(session.receive(recorded, on: far) == nil)
        #expect(session.selected == near)
    }

    @Test func `media by the other ingress takes the downlink there, and what was held back does not`() {
        let session = connected()
        session.media(on: near)
        session.media(on: far, isNewest: false)
        #expect(session.selected == near)
        session.media(on: far)
        #expect(session.selected == far)
        #expect(session.events() == [.selected(far)])
        session.media(on: near)
        #expect(session.selected == near)
    }

    @Test func `media by an ingress that no check came by, as when a network leads elsewhere, takes the downlink along`() {
        let session = connected()
        session.media(on: near)
        let other = way(1, hop: 4004, ingress: 4)
        session.media(on: other, isNewest: false)
        #expect(session.selected == near)
        session.media(on: other)
        #expect(session.selected == other)
        #expect(session.events() == [.selected(other)])
        // And by another relay of the cluster.
        session.media(on: way(1, hop: 4005, ingress: 4), isNewest: false)
        #expect(session.selected == way(1, hop: 4005, ingress: 4))
    }

    @Test func `after a restart by the other ingress the first one is forgotten`() {
        let session = connected()
        session.media(on: near)
        session.restart()
        session.newCheck(far, nominates: true)
        #expect(session.selected == far)
        #expect(session.receive(session.request(nominates: true), on: near) == .wrongUfrag)
        session.media(on: near, isNewest: false)
        #expect(session.selected == far)
    }
}

@Suite struct ProvingAPath {
    func moved(received: Int = 100) -> ICESession {
        let session = MovingTheDownlink().connected()
        session.media(on: way(2), bytes: received)
        return session
    }

    @Test func `a new path is asked at once, and four times a second`() {
        let session = moved(received: 2000)
        #expect(session.packets().map(\.path) == [way(2)])
        let asked = session.pass(.milliseconds(1990)).packets
        #expect(asked.count == 7)
        #expect(asked.allSatisfy { $0.sent.path == way(2) })
    }

    @Test func `until it answers it gets three times what came from it, and the rest goes the old way`() throws {
        let session = moved(received: 1000)
        let check = session.request().count
        let own = session.packets().reduce(0) { $0 + $1.bytes.count }
        // The answer to its first check is part of what it got.
        let spent = own + 64
        var sent = 0
        while session.admit(100) == way(2) { sent += 100 }
        #expect(sent + spent <= 3 * (1000 + check + 8))
        #expect(sent + spent + 100 > 3 * (1000 + check))
        #expect(session.admit(100) == way(1))
        session.media(on: way(2), bytes: 200)
        #expect(session.admit(600) == way(2))
        #expect(session.admit(600) == way(1))
    }

    @Test func `its answer lifts the limit`() throws {
        let session = moved()
        let check = try #require(session.packets().last)
        while session.admit(100) == way(2) {}
        #expect(try session.answer(check) == nil)
        for _ in 0..<1000 { #expect(session.admit(1200) == way(2)) }
        let (packets, events) = session.pass(.milliseconds(3900))
        #expect(packets.isEmpty && events.map(\.event) == [.selected(way(2))])
        #expect(session.selected == way(2))
    }

    @Test func `without an answer the downlink goes back after two seconds, and fresh media takes it along again`() {
        let session = moved()
        _ = session.events()
        #expect(session.pass(.milliseconds(1990)).events.isEmpty)
        let back = session.pass(.milliseconds(20))
        #expect(back.events.map(\.event) == [.selected(way(1))])
        #expect(session.admit(5000) == way(1))
        session.media(on: way(2))
        #expect(session.selected == way(2))
    }

    @Test func `a second move before the proof does not forget the first way`() {
        let session = moved()
        session.check(way(3))
        _ = session.packets()
        session.media(on: way(3))
        while session.admit(100) == way(3) {}
        #expect(session.admit(100) == way(1))
    }

    @Test func `who was never elsewhere is not limited`() {
        let session = ICESession()
        session.check(way(1), nominates: true)
        session.media(on: way(1))
        for _ in 0..<100 { #expect(session.admit(1200) == way(1)) }
        session.prove(way(1))
        for _ in 0..<100 { #expect(session.admit(1200) == way(1)) }
    }

    @Test func `after an ICE restart the old way is used until the new one has answered, though checks from there are dead`() throws {
        let session = MovingTheDownlink().connected()
        session.restart()
        session.newCheck(way(4), nominates: true)
        #expect(session.selected == way(4))
        #expect(!session.isValidated(way(1)))
        let asked = session.packets()
        var sent = 0
        while session.admit(100) == way(4) { sent += 100 }
        #expect(sent <= 300)
        #expect(session.admit(100) == way(1))
        #expect(try session.answer(#require(asked.last), password: ICESession.newRemote.password) == nil)
        #expect(session.admit(5000) == way(4))
    }

    @Test func `the silence after which the session is over can be chosen`() {
        var agent = ICELiteAgent(
            local: ICESession.local, remote: ICESession.remote, tieBreaker: 1, entropy: 1, silence: .seconds(90), at: ICESession.start)
        agent.advance(to: ICESession.start + .milliseconds(89_999))
        let early = agent.nextEvent()
        agent.advance(to: ICESession.start + .seconds(90))
        let event = agent.nextEvent()
        #expect(early == nil && event == .silent)
    }
}
