import CLinux
import DTLS
import Glibc
import Primitives
import TestSupport
import Testing

@Suite struct Established {
    private func message(_ count: Int, _ first: UInt8) -> [UInt8] { (0..<count).map { first &+ UInt8(truncatingIfNeeded: $0) } }

    @Test func `messages go both ways, one record each, up to the limit`() {
        var call = Call()
        call.run()
        let sizes = [1, 2, 100, 1000, DTLSAssociation.applicationDataSizeMax]
        var results: [Bool] = []
        for size in sizes {
            results.append(call.client.send(message(size, 1)))
            results.append(call.server.send(message(size, 2)))
        }
        #expect(results == [Bool](repeating: true, count: 10))
        let refused = [
            call.client.send([]), call.client.send(message(DTLSAssociation.applicationDataSizeMax + 1, 0)),
            call.server.send(message(16_000, 0)),
        ]
        #expect(refused == [false, false, false])
        call.run()
        let (toServer, toClient, longest) = (call.toServer, call.toClient, call.longest)
        #expect(Set(toServer) == Set(sizes.map { message($0, 1) }))
        #expect(Set(toClient) == Set(sizes.map { message($0, 2) }))
        #expect(toServer.count == sizes.count && toClient.count == sizes.count)
        #expect(longest == DTLSAssociation.transmitSizeMax)
    }

    @Test func `nothing can be sent before the handshake is over or after the end`() {
        var call = Call()
        let early = call.client.send([1])
        #expect(!early)
        call.run()
        call.client.close()
        let late = call.client.send([1])
        let drop = call.client.receive([22, 254, 253], at: call.now)
        #expect(!late)
        #expect(drop == .closed)
    }

    /// Nothing comes or goes for a minute, again and again; what comes then is taken as ever.
    @Test func `buffers that nobody uses are given back, and are there again when they are needed`() {
        var call = Call()
        for round in 0..<4 {
            call.run()
            let (client, server) = (call.client.nextDeadline, call.server.nextDeadline)
            #expect(client == .never && server == .never)
            call.now = call.now + .seconds(60)
            let sent = round % 2 == 0 ? call.client.send(message(1000, 1)) : call.server.send(message(1000, 2))
            #expect(sent)
        }
        call.run()
        let (toServer, toClient) = (call.toServer, call.toClient)
        #expect(toServer == [message(1000, 1), message(1000, 1)] && toClient == [message(1000, 2), message(1000, 2)])
        call.client.close()
        call.run()
        let end = call.serverEvents.last
        #expect(end == .closed)
    }

    /// A call without channels: after the keys there is nothing left to say but goodbye.
    @Test func `what is released says goodbye all the same, and hears nothing but that`() {
        var call = Call()
        call.run()
        call.client.release()
        call.client.release()
        let sent = call.client.send([1])
        let drop = call.client.receive([22, 254, 253, 0, 1, 0, 0, 0, 0, 0, 9, 0, 1, 0], at: call.now)
        let (isEstablished, deadline, early) = (call.client.isEstablished, call.client.nextDeadline, call.client.flight())
        #expect(!sent && drop == .closed && isEstablished && deadline == .never && early.isEmpty)
        call.client.close()
        call.run()
        let (client, server) = (call.clientEvents.dropFirst(), call.serverEvents.dropFirst())
        #expect(client.isEmpty && Array(server) == [.closed])
    }

    /// Somebody who wants to end a call has to have its keys, also where nothing else of DTLS is left.
    @Test func `what is released hears a goodbye, and only the peer's`() {
        for clientLeaves in [true, false] {
            var call = Call()
            call.run()
            let data = clientLeaves ? call.client.send([1, 2, 3]) : call.server.send([1, 2, 3])
            let other = clientLeaves ? call.client.transmit() : call.server.transmit()
            if clientLeaves { call.server.release() } else { call.client.release() }
            if clientLeaves { call.client.close() } else { call.server.close() }
            guard let goodbye = clientLeaves ? call.client.transmit() : call.server.transmit(), data, let other else {
                Issue.record("nothing was said")
                return
            }
            let hear = { (call: inout Call, datagram: [UInt8]) in
                clientLeaves ? call.server.receive(datagram, at: call.now) : call.client.receive(datagram, at: call.now)
            }
            var forgeries = [other, [], Array(goodbye.dropLast()), goodbye + [0], Array(goodbye.prefix(13))]
            for index in goodbye.indices {
                var forged = goodbye
                forged[index] ^= 1
                forgeries.append(forged)
            }
            for forged in forgeries {
                // What lies behind a whole record changes nothing of it.
                if forged.count > goodbye.count, forged.starts(with: goodbye) { continue }
                let drop = hear(&call, forged)
                #expect(drop == .closed)
            }
            let drop = hear(&call, goodbye)
            call.collect()
            let events = clientLeaves ? call.serverEvents : call.clientEvents
            #expect(drop == nil && events.last == .closed && events.count == 2)
            let again = hear(&call, goodbye)
            #expect(again == .closed)
        }
    }

    @Test func `nothing is released before the handshake is over`() {
        var call = Call()
        call.client.release()
        call.server.release()
        call.run()
        let (client, server) = (call.clientEvents.count, call.serverEvents.count)
        #expect(client == 1 && server == 1)
    }

    @Test func `a quiet association holds 60 KB, a released one hardly any`() async {
        await #expect(processExitsWith: .success) {
            let count = 40
            var calls = Slab<Call>(count: count) { Call(seed: UInt64($0)) }
            for index in 0..<count { calls[index].run() }
            let quiet = Int(mallinfo2().uordblks)
            for index in 0..<count { calls[index].client.release() }
            let released = Int(mallinfo2().uordblks)
            for index in 0..<count { calls[index].server.release() }
            let both = Int(mallinfo2().uordblks)
            let each = (quiet - released) / count
            // Buffers of 34 kB would be 86.
            precondition((30_000...60_000).contains(each), "a quiet client holds \(each) bytes")
            precondition((30_000...60_000).contains((released - both) / count), "a quiet server holds \((released - both) / count) bytes")
        }
    }

    @Test func `closing is seen by the other side, once, and by our own session not at all`() {
        var call = Call()
        call.run()
        call.client.close()
        call.client.close()
        call.run()
        let (client, server) = (call.clientEvents.dropFirst(), call.serverEvents.dropFirst())
        #expect(client.isEmpty)
        #expect(Array(server) == [.closed])
        let (clientIs, serverIs, deadline) = (call.client.isEstablished, call.server.isEstablished, call.server.nextDeadline)
        #expect(!clientIs && !serverIs)
        #expect(deadline == .never)
    }

    @Test func `a repeated datagram is delivered once, and a reordered one still`() {
        var call = Call()
        call.run()
        let sent = [call.client.send([1]), call.client.send([2]), call.client.send([3])]
        let flight = call.client.flight()
        #expect(sent == [true, true, true])
        for index in [2, 0, 1, 0, 2, 1] { _ = call.server.receive(flight[index], at: call.now) }
        call.collect()
        let got = call.toServer
        #expect(got == [[3], [1], [2]])
    }

    @Test func `plaintext records have no effect on an established association`() {
        var call = Call()
        call.run()
        var drops: [DTLSDropReason?] = []
        for type in UInt8(20)...23 {
            // A fatal alert (handshake_failure), or the beginning of a hello: whatever it is, it is not from the peer.
            drops.append(call.server.receive([type, 254, 253, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 2, 40], at: call.now))
            drops.append(call.server.receive([type, 254, 253, 0, 2, 0, 0, 0, 0, 0, 99, 0, 2, 2, 40], at: call.now))
        }
        #expect(drops == [DTLSDropReason?](repeating: .wrongEpoch, count: 8))
        stillWorks(&call)
    }

    @Test func `garbage, mutated and truncated datagrams change nothing`() {
        var call = Call()
        call.run()
        let sent = [call.client.send(message(100, 7)), call.client.send(message(1000, 9))]
        #expect(sent == [true, true])
        // Never delivered unmutated: what is captured is the model for what an attacker on the path would send.
        let models = call.client.flight() + Corpus.files(in: "dtls").map(\.bytes)
        let genuine = Set(models)
        var forged: [[UInt8]] = []
        mutate(models) { if !genuine.contains($0.array) { forged.append($0.array) } }
        for datagram in forged {
            // A splice may hold a whole genuine record; the message in it is then delivered, as it should be.
            _ = call.server.receive(datagram, at: call.now)
            _ = call.client.receive(datagram, at: call.now)
        }
        call.collect()
        let known = Set([message(100, 7), message(1000, 9)])
        let (got, toClient) = (call.toServer, call.toClient)
        #expect(got.allSatisfy(known.contains))
        #expect(toClient.isEmpty)
        call.toServer = []
        stillWorks(&call)
    }

    /// OpenSSL takes a ciphertext that is shorter than nonce and tag for a fault of its own and ends the association. Anybody who knows the
    /// addresses could send one.
    @Test(arguments: UInt8(20)...23) func `a ciphertext too short for its tag does not end the association`(type: UInt8) {
        var call = Call()
        call.run()
        for length in 0...40 {
            let header: [UInt8] = [type, 254, 253, 0, 1, 0, 0, 0, 0, 1, UInt8(length), 0, UInt8(length)]
            let record = header + [UInt8](repeating: 7, count: length)
            let drops = [call.server.receive(record, at: call.now), call.client.receive(record, at: call.now)]
            if length < 24 { #expect(drops == [.wrongEpoch, .wrongEpoch], "\(length) bytes") }
        }
        stillWorks(&call)
    }

    @Test func `a datagram without a record, and one too long, are told apart`() {
        var call = Call()
        call.run()
        let drops = [
            call.server.receive([], at: call.now), call.server.receive([22, 254], at: call.now),
            call.server.receive([UInt8](repeating: 0x2E, count: 100), at: call.now),
            call.server.receive([22, 254, 253, 0, 1, 0, 0, 0, 0, 0, 9, 0, 5, 1, 2, 3, 4], at: call.now),
            call.server.receive([UInt8](repeating: 22, count: 2049), at: call.now),
        ]
        #expect(drops == [.malformed, .malformed, .malformed, .malformed, .tooLarge])
        stillWorks(&call)
    }

    private func stillWorks(_ call: inout Call) {
        let events = call.clientEvents.count + call.serverEvents.count
        #expect(events == 2)
        let sent = [call.client.send([42]), call.server.send([43])]
        call.run()
        let (toServer, toClient) = (call.toServer, call.toClient)
        #expect(sent == [true, true])
        #expect(toServer == [[42]])
        #expect(toClient == [[43]])
    }
}
