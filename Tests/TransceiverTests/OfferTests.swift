// Offers: what a good one gets, and what it makes the workers do.
import DTLS
import HTTP
import ICE
import Primitives
import RoutingHint
import TestSupport
import Testing
import TransceiverCore

@Suite struct OfferTests {
    @Test func `an offer is answered with a place to hang up and credentials that say where the call lives`() throws {
        var desk = Sample.desk()
        let response = try desk.respond(.offer())
        #expect(response.status == 201)
        #expect(response.headers["Content-Type"] == "application/sdp")
        #expect(response.headers["Location"]?.hasPrefix("/v1/realtime/calls/rtc_") == true)
        #expect(response.headers["ETag"] != nil)
        #expect(response.headers["Access-Control-Allow-Origin"] == "*")
        #expect(response.headers["Access-Control-Expose-Headers"]?.contains("Location") == true)

        let ufrag = try #require(response.attributes("ice-ufrag").first)
        let creation = try desk.onlyCreation()
        let hint = try opened(ufrag)
        #expect(hint.cluster == Sample.cluster)
        #expect(hint.transceiver == Sample.transceiver)
        #expect(hint.worker == 0)
        #expect(hint.session == creation.id)
        #expect(hint.mintedAt == 1_800_000_000)
        let password = derivedPassword(ufrag)
        #expect(Set(response.attributes("ice-pwd")) == [password])
        #expect(creation.local == ICECredentials(ufrag: ufrag, password: password))
        #expect(creation.remote.ufrag.count == 4)
        #expect(response.headers["Location"] == "/v1/realtime/calls/" + creation.callID)
        #expect(response.attributes("fingerprint").first == Sample.fingerprint.sdpText)
        let candidates = response.attributes("candidate")
        #expect(candidates.contains { $0.contains(" 198.51.100.1 3478 typ host") })
        #expect(candidates.contains { $0.contains(" 2001:db8::1 3478 typ host") })
        let accepted = desk.counters.offersAccepted
        #expect(accepted == 1)
    }

    @Test func `the id of a call names it and is no ufrag that a client could use`() throws {
        var desk = Sample.desk()
        _ = desk.answer(.offer(), at: Sample.wall)
        let creation = try desk.onlyCreation()
        let id = creation.callID.dropFirst(4).map { $0 == "-" ? "+" : $0 == "_" ? "/" : $0 }
        let hint = try opened(String(id))
        #expect(hint.session == creation.id)
        #expect(hint.flags & 0x80 != 0)
        #expect(String(id) != creation.local.ufrag)
        // Its password exists, since passwords are derived, but nobody is told it.
        #expect(derivedPassword(String(id)) != creation.local.password)
    }

    @Test(arguments: Corpus.files(in: "sdp").filter { $0.name.hasSuffix(".sdp") })
    func `offers of every client and kind are answered section by section`(_ file: CorpusFile) throws {
        var desk = Sample.desk()
        let response = try desk.respond(.post(Sample.callsPath, file.bytes))
        #expect(response.status == 201, "\(response.text)")
        let offered = String(decoding: file.bytes, as: UTF8.self).split(whereSeparator: \.isNewline).filter { $0.hasPrefix("m=") }
        #expect(response.mediaLines.count == offered.count)
        for (answer, offer) in zip(response.mediaLines, offered) {
            #expect(answer.prefix { $0 != " " } == offer.prefix { $0 != " " })
        }
        let creation = try desk.onlyCreation()
        #expect(!creation.fingerprints.isEmpty)
        let hasAudio = offered.contains { $0.hasPrefix("m=audio") }
        #expect((creation.audio != nil) == hasAudio)
        if let audio = creation.audio {
            #expect(audio.maySend != file.name.contains("sendonly"))
            #expect(audio.mayReceive != file.name.contains("recvonly"))
        }
    }

    @Test func `of audio and video the video is kept, and not used`() throws {
        var desk = Sample.desk()
        let response = try desk.respond(.offer("aiortc-1.16-audio-video.sdp"))
        #expect(response.mediaLines.map { $0.hasPrefix("m=video 9 ") } == [false, true])
        #expect(response.text.split(separator: "a=inactive").count == 2)
        let audio = desk.creations().first?.audio
        #expect(audio?.opusPayloadType == 96)
    }

    @Test func `a fingerprint of any hash that we know is handed on`() throws {
        var desk = Sample.desk()
        _ = desk.answer(.offer("aiortc-1.16.sdp"), at: Sample.wall)
        let algorithms = desk.creations().first?.fingerprints.map(\.algorithm) ?? []
        #expect(Set(algorithms) == [.sha256, .sha384, .sha512])
    }

    @Test func `a form brings the offer and a session object`() throws {
        var desk = Sample.desk()
        let session = #"{"type":"realtime","audio":{"input":{"turn_detection":{"type":"server_vad","threshold":0.7}}}}"#
        let request = HTTPRequest.form([("sdp", Sample.offer("firefox-153.sdp")), ("session", Array(session.utf8))])
        let response = try desk.respond(request)
        #expect(response.status == 201, "\(response.text)")
        let count = desk.creations().count
        #expect(count == 1)
    }

    @Test(
        arguments: [
            ("", false, false, nil), ("minptime=10;useinbandfec=1", true, false, nil), ("usedtx=1; useinbandfec=0", false, true, nil),
            ("UseDTX=1;maxaveragebitrate=16000", false, true, 16_000), ("maxaveragebitrate=1", false, false, 6_000),
            ("maxaveragebitrate=99999999999;usedtx=2;useinbandfec;=;;usedtx=x", false, false, nil),
        ] as [(String, Bool, Bool, Int?)])
    func `what a client likes of Opus is heard`(parameters: String, fec: Bool, dtx: Bool, bitrate: Int?) {
        let wishes = OpusWishes(parsing: parameters)
        #expect(wishes.usesFEC == fec && wishes.usesDTX == dtx && wishes.bitrateMax == bitrate)
    }

    @Test func `a client's wishes for its Opus reach the session`() throws {
        var desk = Sample.desk()
        let offer = String(decoding: Sample.offer(), as: UTF8.self).replacing(
            "minptime=10;useinbandfec=1", with: "minptime=10;usedtx=1;maxaveragebitrate=20000")
        for body in [Sample.offer(), Array(offer.utf8)] { _ = try desk.respond(.post(Sample.callsPath, body)) }
        let wishes = desk.creations().compactMap { $0.audio?.opus }
        #expect(wishes == [OpusWishes(parsing: "useinbandfec=1"), OpusWishes(parsing: "usedtx=1;maxaveragebitrate=20000")])
    }

    @Test func `a media type may have parameters and any case`() throws {
        var desk = Sample.desk()
        let request = HTTPRequest.post(Sample.callsPath, Sample.offer(), type: "Application/SDP; charset=utf-8")
        let status = desk.answer(request, at: Sample.wall)?.status
        #expect(status == 201)
    }

    @Test func `two calls share nothing`() throws {
        var desk = Sample.desk()
        let first = try desk.respond(.offer())
        let second = try desk.respond(.offer())
        #expect(first.attributes("ice-ufrag").first != second.attributes("ice-ufrag").first)
        #expect(first.attributes("ice-pwd").first != second.attributes("ice-pwd").first)
        #expect(first.headers["Location"] != second.headers["Location"])
        let creations = desk.creations()
        #expect(Set(creations.map(\.id)).count == 2)
        #expect(Set(creations.map(\.seed)).count == 2)
        #expect(Set(creations.compactMap(\.audio?.ssrc)).count == 2)
        #expect(Set(creations.compactMap(\.audio?.cname.text)).count == 2)
    }

    @Test func `calls are spread over the workers, and a place that is free again is taken first`() throws {
        var desk = Sample.desk(workers: 3, callsMax: 16)
        for _ in 0..<6 { _ = desk.answer(.offer(), at: Sample.wall) }
        let creations = desk.commands()
        let byWorker = Dictionary(grouping: creations, by: \.worker).mapValues(\.count)
        #expect(byWorker == [0: 2, 1: 2, 2: 2])
        for creation in creations {
            guard case .create(let parameters) = creation.command else { continue }
            let worker = try opened(parameters.local.ufrag).worker
            #expect(Int(worker) == creation.worker)
        }
        guard let gone = creations.first(where: { $0.worker == 1 }), case .create(let parameters) = gone.command else {
            Issue.record("nobody is at worker 1")
            return
        }
        desk.receive(.ended(session: parameters.id, reason: .consentLost), from: 1)
        _ = desk.answer(.offer(), at: Sample.wall)
        let next = desk.nextCommand()?.worker
        #expect(next == 1)
    }

    @Test func `a call is counted until its worker says that it ended`() throws {
        var desk = Sample.desk(workers: 2)
        let location = try desk.open()
        let creation = try desk.onlyCreation()
        var counts = [desk.callCount, desk.connectedCount]
        #expect(counts == [1, 0])
        desk.receive(.connected(session: creation.id), from: 0)
        counts = [desk.callCount, desk.connectedCount]
        #expect(counts == [1, 1])
        // A session of the same number at another worker is somebody else.
        desk.receive(.ended(session: creation.id, reason: .consentLost), from: 1)
        counts = [desk.callCount, desk.connectedCount]
        #expect(counts == [1, 1])
        desk.receive(.ended(session: creation.id, reason: .consentLost), from: 0)
        desk.receive(.ended(session: creation.id, reason: .consentLost), from: 0)
        desk.receive(.connected(session: creation.id), from: 0)
        counts = [desk.callCount, desk.connectedCount]
        #expect(counts == [0, 0])
        let response = try desk.respond(.post(location + "/hangup", [], type: nil))
        #expect(response.status == 404)
    }

    @Test func `a hangup ends the session at its worker, once`() throws {
        var desk = Sample.desk(workers: 2)
        _ = desk.answer(.offer(), at: Sample.wall)
        let location = try desk.open()
        let creation = desk.commands()[1]
        guard case .create(let parameters) = creation.command else { return }
        let status = desk.answer(.post(location + "/hangup", [], type: nil), at: Sample.wall)?.status
        #expect(status == 200)
        let next = desk.nextCommand()
        let command = try #require(next)
        #expect(command.worker == creation.worker)
        guard case .end(parameters.id, .hangup) = command.command else {
            Issue.record("\(command)")
            return
        }
        let again = desk.answer(.post(location + "/hangup", [], type: nil), at: Sample.wall)?.status
        let further = desk.nextCommand() == nil
        let left = desk.callCount
        #expect(again == 404 && further && left == 1)
        // The worker's report comes later and finds nothing.
        desk.receive(.ended(session: parameters.id, reason: .hangup), from: creation.worker)
        let still = desk.callCount
        #expect(still == 1)
    }
}
