// WHIP (RFC 9725): one resource a call, trickled candidates that change nothing, and ICE restarts that change everything but the keys.
import HTTP
import ICE
import Primitives
import RoutingHint
import Testing
import TransceiverCore

@Suite struct WHIPTests {
    static let candidates = "a=mid:0\r\na=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=end-of-candidates\r\n"
    static let renewed = "a=ice-ufrag:newU\r\na=ice-pwd:newnewnewnewnewnewnewnew\r\n"

    /// A desk with one call, its resource and its ETag.
    struct Opened: ~Copyable {
        var desk: SignalingDesk
        let location: String
        let etag: String
        let creation: SessionParameters
        let ufrag: String

        init(_ file: String = "chromium-156.sdp", to path: String = "/whip") {
            var made = Sample.desk()
            let response = made.answer(.offer(file, to: path), at: Sample.wall) ?? HTTPResponse(status: 0)
            let creations = made.creations()
            // Nothing throws after this: a value that cannot be copied cannot be half made.
            desk = made
            location = response.headers["Location"] ?? ""
            etag = response.headers["ETag"] ?? ""
            ufrag = response.attributes("ice-ufrag").first ?? ""
            creation = creations[0]
        }

        mutating func patch(_ body: String, match: String?) throws -> HTTPResponse {
            try desk.respond(.patch(location, body, match: match))
        }
    }

    @Test func `an offer makes a resource with an ETag that may be patched`() throws {
        var desk = Sample.desk()
        let response = try desk.respond(.offer(to: "/whip"))
        #expect(response.status == 201)
        #expect(response.headers["Location"]?.hasPrefix("/whip/rtc_") == true)
        #expect(response.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag")
        let etag = try #require(response.headers["ETag"])
        #expect(etag.count > 4 && etag.hasPrefix("\"") && etag.hasSuffix("\""))
        #expect(response.headers["Access-Control-Expose-Headers"]?.contains("ETag") == true)
    }

    @Test func `a call of the API is patched and deleted like one of WHIP`() throws {
        var opened = Opened(to: "/v1/realtime/calls")
        #expect(opened.location.hasPrefix("/v1/realtime/calls/rtc_") && !opened.etag.isEmpty)
        let restarted = try opened.patch(Self.renewed, match: "*")
        #expect(restarted.status == 200 && restarted.headers["ETag"] != opened.etag)
        guard
            case .restartICE(opened.creation.id, _, ICECredentials(ufrag: "newU", password: "newnewnewnewnewnewnewnew")) =
                opened.desk.nextCommand()?.command
        else {
            Issue.record("no restart")
            return
        }
        #expect(try opened.patch(Self.candidates, match: opened.etag).status == 412)
        let deletion = HTTPRequest(method: "DELETE", path: opened.location)
        let first = opened.desk.answer(deletion, at: Sample.wall)?.status
        let second = opened.desk.answer(deletion, at: Sample.wall)?.status
        #expect(first == 200 && second == 404)
        let wrong = opened.desk.answer(HTTPRequest(method: "POST", path: opened.location), at: Sample.wall)?.status
        #expect(wrong == 405)
    }

    @Test func `a deletion ends the session, once`() throws {
        var opened = Opened()
        let request = HTTPRequest(method: "DELETE", path: opened.location)
        let first = opened.desk.answer(request, at: Sample.wall)?.status
        let command = opened.desk.nextCommand()?.command
        let second = opened.desk.answer(request, at: Sample.wall)?.status
        #expect(first == 200 && second == 404)
        guard case .end(opened.creation.id, .hangup) = command else {
            Issue.record("\(String(describing: command))")
            return
        }
    }

    @Test func `trickled candidates are taken and nobody needs them`() throws {
        var opened = Opened()
        let etag = opened.etag
        let response = try opened.patch(Self.candidates, match: etag)
        #expect(response.status == 204)
        #expect(response.body.isEmpty)
        let hasCommand = opened.desk.nextCommand() != nil
        let fragments = opened.desk.counters.fragments
        #expect(!hasCommand && fragments == 1)
    }

    @Test func `candidates with the credentials of the offer are no restart`() throws {
        var opened = Opened()
        let remote = opened.creation.remote
        let response = try opened.patch("a=ice-ufrag:\(remote.ufrag)\r\na=ice-pwd:\(remote.password)\r\n" + Self.candidates, match: "*")
        let hasCommand = opened.desk.nextCommand() != nil
        #expect(response.status == 204 && !hasCommand)
    }

    @Test func `a patch must say what it is about`() throws {
        var opened = Opened()
        let missing = try opened.patch(Self.candidates, match: nil)
        #expect(missing.status == 428)
        #expect(missing.error().code == "if_match_missing")
        let stale = try opened.patch(Self.candidates, match: "\"something-1\"")
        #expect(stale.status == 412)
        #expect(stale.error().code == "stale_etag")
        let request = HTTPRequest(
            method: "PATCH", path: opened.location, headers: HTTPHeaders([("Content-Type", "application/sdp"), ("If-Match", "*")]))
        let wrong = try opened.desk.respond(request)
        #expect(wrong.status == 415)
        #expect(wrong.error().message?.contains("application/trickle-ice-sdpfrag") == true)
    }

    @Test func `a fragment that cannot be read is refused`() throws {
        var opened = Opened()
        for body in ["", "a=ice-ufrag:abcd\r\n", "a=ice-ufrag:a b\r\na=ice-pwd:short\r\n"] {
            let response = try opened.patch(body, match: "*")
            #expect(response.status == 400)
            #expect(response.error().code == "invalid_fragment")
        }
        let hasCommand = opened.desk.nextCommand() != nil
        #expect(!hasCommand)
    }

    @Test func `new credentials under the old ETag are refused`() throws {
        var opened = Opened()
        let etag = opened.etag
        let response = try opened.patch(Self.renewed, match: etag)
        #expect(response.status == 412)
        #expect(response.error().code == "restart_needs_star")
    }

    @Test(arguments: ["*", "\"*\""])
    func `a restart gives new credentials of the same session and a new ETag`(_ star: String) throws {
        var opened = Opened()
        let etag = opened.etag
        let response = try opened.patch(Self.renewed, match: star)
        #expect(response.status == 200)
        #expect(response.headers["Content-Type"] == "application/trickle-ice-sdpfrag")
        let newTag = try #require(response.headers["ETag"])
        #expect(newTag != etag)
        let ufrag = try #require(response.attributes("ice-ufrag").first)
        #expect(ufrag != opened.ufrag)
        #expect(response.attributes("ice-pwd") == [derivedPassword(ufrag)])
        let hint = try TransceiverTests.opened(ufrag)
        #expect(hint.session == opened.creation.id && hint.worker == 0 && hint.cluster == Sample.cluster)
        #expect(response.attributes("candidate").count == 2)
        #expect(response.attributes("mid") == ["0"])

        let next = opened.desk.nextCommand()
        let command = try #require(next)
        guard case .restartICE(let session, let local, let remote) = command.command else {
            Issue.record("\(command)")
            return
        }
        #expect(session == opened.creation.id)
        #expect(local == ICECredentials(ufrag: ufrag, password: derivedPassword(ufrag)))
        #expect(remote == ICECredentials(ufrag: "newU", password: "newnewnewnewnewnewnewnew"))

        // The old ETag is over, the new one is not.
        let old = try opened.patch(Self.candidates, match: etag)
        let new = try opened.patch(Self.candidates, match: newTag)
        let restarts = opened.desk.counters.iceRestarts
        #expect(old.status == 412 && new.status == 204 && restarts == 1)
    }

    @Test func `every restart is another ICE session, within one second and for ever`() throws {
        var opened = Opened()
        var ufrags: Set<String> = [opened.ufrag]
        var tags: Set<String> = [opened.etag]
        for number in 0..<300 {
            let body = "a=ice-ufrag:u\(1000 + number)\r\na=ice-pwd:newnewnewnewnewnewnewnew\r\n"
            let response = try opened.patch(body, match: "*")
            #expect(response.status == 200)
            // The generation in a hint has seven bits: 128 restarts in one second would meet again, and nobody is that quick.
            if number < 120 { ufrags.insert(response.attributes("ice-ufrag").first ?? "") }
            tags.insert(response.headers["ETag"] ?? "")
        }
        #expect(ufrags.count == 121)
        #expect(tags.count == 301)
    }

    @Test func `a restart of a call without mids is answered without one`() throws {
        var desk = Sample.desk()
        let text = String(decoding: Sample.offer("chromium-156-recvonly.sdp"), as: UTF8.self)
        let offer =
            text.split(whereSeparator: \.isNewline).filter { !$0.hasPrefix("a=mid:") && !$0.hasPrefix("a=group:") }
            .joined(separator: "\r\n") + "\r\n"
        let response = try desk.respond(.post("/whip", Array(offer.utf8)))
        let location = try #require(response.headers["Location"])
        let restarted = try desk.respond(.patch(location, Self.renewed, match: "*"))
        #expect(restarted.status == 200)
        #expect(restarted.attributes("mid").isEmpty)
    }
}
