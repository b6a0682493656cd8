// What an offer's data channel section agrees on before any packet: each side's INIT chunk, and a channel that nobody has to open.
import HTTP
import Primitives
import SCTP
import Testing
import TransceiverCore

@Suite struct DataChannelOfferTests {
    @Test func `an INIT chunk in the offer is answered with ours, which is the one the association will have`() throws {
        var desk = Sample.desk()
        let response = try desk.respond(.offer("chromium-156-warp.sdp"))
        let said = try #require(response.attributes("sctp-init").first.flatMap { Base64.decode($0) })
        let channel = try #require(try desk.onlyCreation().dataChannel)
        #expect(said == SCTPAssociation.initChunk(seed: channel.seed))
        #expect(said.first == 1)
        let theirs = Self.offered("chromium-156-warp.sdp")
        #expect(channel.peerInit == theirs)
        var association = SCTPAssociation(peerMaxMessageSize: 0, isClientOfDTLS: true, seed: channel.seed, at: .zero)
        let isUp = association.establish(withPeerInit: theirs.span.bytes, at: .zero)
        #expect(isUp)
    }

    @Test func `without one in the offer there is none in the answer`() throws {
        var desk = Sample.desk()
        let response = try desk.respond(.offer())
        #expect(response.attributes("sctp-init").isEmpty)
        let channel = try #require(try desk.onlyCreation().dataChannel)
        #expect(channel.peerInit == nil)
    }

    @Test(arguments: ["", "?", "AQAA", "AgAAHqj5rMoAUAAA//////////8Alk0fwAAABIAIAAaC", "AAAA" + String(repeating: "A", count: 400)])
    func `one that is not an INIT chunk is passed over, and SCTP shakes hands by itself`(_ value: String) throws {
        var desk = Sample.desk()
        let lines = String(decoding: Sample.offer("chromium-156-warp.sdp"), as: UTF8.self).split(separator: "\r\n").map {
            $0.hasPrefix("a=sctp-init:") ? "a=sctp-init:" + value : String($0)
        }
        let response = try desk.respond(.post(Sample.callsPath, Array((lines.joined(separator: "\r\n") + "\r\n").utf8)))
        #expect(response.status == 201)
        #expect(response.attributes("sctp-init").isEmpty)
        let channel = try #require(try desk.onlyCreation().dataChannel)
        #expect(channel.peerInit == nil)
    }

    @Test func `dcid names the channel of events`() throws {
        var desk = Sample.desk()
        let response = try desk.respond(Self.offer(dcid: "7"))
        #expect(response.status == 201)
        let channel = try #require(try desk.onlyCreation().dataChannel)
        #expect(channel.agreedChannel == 7)
    }

    @Test(arguments: ["65535", "65536", "-1", "seven", "", "7.0"])
    func `a dcid that is no id of a channel is refused`(_ value: String) throws {
        var desk = Sample.desk()
        let response = try desk.respond(Self.offer(dcid: value))
        #expect(response.status == 400)
        #expect(response.error().param == "dcid")
        let calls = desk.callCount
        #expect(calls == 0)
    }

    @Test func `a dcid without a data channel in the offer is refused`() throws {
        var desk = Sample.desk()
        let response = try desk.respond(Self.offer("chromium-156-recvonly.sdp", dcid: "7"))
        #expect(response.status == 400)
        #expect(response.error().param == "dcid")
        let calls = desk.callCount
        #expect(calls == 0)
    }

    static func offer(_ file: String = "chromium-156.sdp", dcid: String) -> HTTPRequest {
        var request = HTTPRequest.offer(file)
        request.query = [HTTPQueryItem(name: "dcid", value: dcid)]
        return request
    }

    static func offered(_ file: String) -> [UInt8] {
        let line = String(decoding: Sample.offer(file), as: UTF8.self).split(separator: "\r\n").first { $0.hasPrefix("a=sctp-init:") }
        return line.flatMap { Base64.decode($0.dropFirst("a=sctp-init:".count)) } ?? []
    }
}
