import HTTP
import Primitives
import RoutingHint
import TestSupport
import Testing
import TransceiverCore

/// Two transceivers with the same keys; a call lives at the first.
@Suite struct OwnerTests {
    private static let other = CallOwner(cluster: Sample.cluster, transceiver: Sample.transceiver)

    private func owner() -> SignalingDesk { Sample.desk() }

    private func door(keys: APIKeys? = nil) -> SignalingDesk {
        SignalingDesk(
            settings: SignalingDesk.Settings(
                cluster: Sample.cluster, transceiver: 77, workers: 1, advertise: Sample.relays, fingerprint: Sample.fingerprint, callsMax: 8
            ),
            codec: HintCodec(wellKnownKeyRing()), access: AccessControl(keys: keys, secrets: ClientSecrets(wellKnownKeyRing())),
            random: SeededGenerator(seed: 9))
    }

    private func call(at path: String = Sample.callsPath) throws -> String {
        var desk = owner()
        let answer = desk.answer(.offer(to: path), at: Sample.wall)
        return try #require(answer?.headers["Location"])
    }

    @Test func `a call of another transceiver has its owner sealed in its id`() throws {
        let location = try call()
        var door = door()
        let found = door.owner(of: .post(location + "/hangup", [], type: nil), at: Sample.wall)
        #expect(found == Self.other)
    }

    @Test(arguments: ["DELETE", "PATCH"])
    func `so has a WHIP resource`(method: String) throws {
        let location = try call(at: "/whip")
        var door = door()
        let found = door.owner(of: HTTPRequest(method: method, path: location), at: Sample.wall)
        #expect(found == Self.other)
    }

    @Test func `a call of ours is answered here`() throws {
        var desk = owner()
        let answer = desk.answer(.offer(), at: Sample.wall)
        let location = try #require(answer?.headers["Location"])
        let hangup = HTTPRequest.post(location + "/hangup", [], type: nil)
        let found = desk.owner(of: hangup, at: Sample.wall)
        #expect(found == nil)
        _ = desk.answer(hangup, at: Sample.wall)
        let over = desk.owner(of: hangup, at: Sample.wall)
        #expect(over == nil, "also when it is over")
    }

    @Test func `what was sent on once is answered where it has come to`() throws {
        var request = HTTPRequest.post(try call() + "/hangup", [], type: nil)
        request.headers.set(SignalingDesk.forwardedHeader, "1")
        var door = door()
        let found = door.owner(of: request, at: Sample.wall)
        #expect(found == nil)
    }

    @Test func `an id that is older than any call may be has no owner`() throws {
        let request = HTTPRequest.post(try call() + "/hangup", [], type: nil)
        var door = door()
        let found = door.owner(of: request, at: WallClock(secondsSince1970: Sample.wall.secondsSince1970 + 180_000))
        #expect(found == nil)
    }

    @Test func `an id that is changed by one character, or that is a ufrag, has no owner`() throws {
        let location = try call()
        var codec = HintCodec(wellKnownKeyRing())
        let ufrag = codec.mint(
            RoutingHint(cluster: 1, transceiver: 2, worker: 0, mintedAt: UInt32(Sample.wall.secondsSince1970), session: 3))
        let last: Character = location.last == "A" ? "B" : "A"
        var door = door()
        for id in [
            String(location.dropLast()) + String(last), "\(Sample.callsPath)/rtc_\(ufrag)", "\(Sample.callsPath)/rtc_", Sample.callsPath,
        ] {
            let found = door.owner(of: .post(id + "/hangup", [], type: nil), at: Sample.wall)
            #expect(found == nil, "\(id)")
        }
    }

    @Test func `who may not ask here is refused here`() throws {
        let keys = try APIKeys(parsing: Array("sk-0123456789abcdef test\n".utf8))
        var request = HTTPRequest.post(try call() + "/hangup", [], type: nil)
        var door = door(keys: keys)
        let stranger = door.owner(of: request, at: Sample.wall)
        #expect(stranger == nil)
        let answer = door.answer(request, at: Sample.wall)
        #expect(answer?.status == 401)
        request.headers.set("Authorization", "Bearer sk-0123456789abcdef")
        let found = door.owner(of: request, at: Sample.wall)
        #expect(found == Self.other)
    }

    @Test func `candidates of an answer are those that were chosen for its client`() throws {
        var desk = owner()
        let answer = desk.answer(.offer(), at: Sample.wall, candidates: [SocketAddress("203.0.113.1:3478")!])
        let text = String(decoding: try #require(answer).body, as: UTF8.self)
        #expect(
            text.split(separator: "\r\n").filter { $0.hasPrefix("a=candidate:") }.map { $0.split(separator: " ")[4] } == ["203.0.113.1"])
        #expect(SignalingDesk.tellsCandidates(.offer()))
        #expect(!SignalingDesk.tellsCandidates(.post(Sample.callsPath + "/x/hangup", [])))
    }
}
