// The promises: what must be true of every run, whatever the seed, the network and the scenario. Each is one function of plan and report;
// what it returns are sentences for whoever reads a failed run. A property that must always hold belongs here.

import Primitives
import TransceiverCore

/// Every broken promise of a run, as a sentence each; none when all is well.
public func brokenPromises(of report: CallReport, _ plan: CallPlan) -> [String] {
    var broken = report.complaints
    for (number, client) in report.clients.enumerated() {
        let name = report.clients.count > 1 ? "client \(number + 1): " : ""
        for check in Invariants.ofClients { broken += check(client, plan).map { name + $0 } }
    }
    for check in Invariants.ofRuns { broken += check(report, plan) }
    return broken
}

public enum Invariants {
    public typealias ClientCheck = @Sendable (ClientReport, CallPlan) -> [String]
    public typealias RunCheck = @Sendable (CallReport, CallPlan) -> [String]

    static let ofClients: [ClientCheck] = [
        connects, serverFollows, saysEverything, hearsItselfOnly, hearsItselfOnce, losesLittle, recovers, isAsked, hearsGoodbye,
    ]
    static let ofRuns: [RunCheck] = [believesNobodyTwice, refusesNothing, leavesNothing]
}

// MARK: - Of each client

extension Invariants {
    /// Every call comes about, with one handshake for its whole life.
    @Sendable static func connects(_ client: ClientReport, _ plan: CallPlan) -> [String] {
        guard client.connectedAfter != nil else { return ["the call never connected"] }
        return client.handshakes == 1 ? [] : ["\(client.handshakes) handshakes for one call"]
    }

    /// The server has its keys soon after the client, even where the last message of the handshake is lost: the client speaks already.
    @Sendable static func serverFollows(_ client: ClientReport, _ plan: CallPlan) -> [String] {
        guard let theirs = client.connectedAfter else { return [] }
        guard let ours = client.serverReadyAfter else { return ["the server never got its keys"] }
        let bound = roundTrip(plan) + .milliseconds(50) + lossMargin(plan) / 2
        return ours - theirs <= bound ? [] : ["the server got its keys \((ours - theirs).milliseconds) ms after the client"]
    }

    @Sendable static func saysEverything(_ client: ClientReport, _ plan: CallPlan) -> [String] {
        client.framesSaid == plan.frames ? [] : ["the client said \(client.framesSaid) frames of \(plan.frames)"]
    }

    /// No frame of another call, none that nobody said.
    @Sendable static func hearsItselfOnly(_ client: ClientReport, _ plan: CallPlan) -> [String] {
        var broken: [String] = []
        if client.strangers > 0 { broken.append("\(client.strangers) frames of somebody else were heard") }
        if client.heard.contains(where: { $0 >= client.framesSaid }) { broken.append("a frame was heard that nobody said") }
        return broken
    }

    @Sendable static func hearsItselfOnce(_ client: ClientReport, _ plan: CallPlan) -> [String] {
        Set(client.heard).count == client.heard.count ? [] : ["a frame was heard twice"]
    }

    /// Nothing is lost but what the links lose, and what was on its way while the way was not there.
    @Sendable static func losesLittle(_ client: ClientReport, _ plan: CallPlan) -> [String] {
        let lost = Int(client.framesSaid) - Set(client.heard).count
        let allowed = lostByLink(plan) + framesBeforeKeys(client, plan) + client.recoveries.reduce(0) { $0 + framesAtRisk($1, plan) }
        return lost <= allowed ? [] : ["\(lost) frames of \(plan.frames) were lost, \(allowed) are allowed"]
    }

    /// The client is ready when it has sent the last message of the handshake, the server when it has it: what overtakes that is lost.
    private static func framesBeforeKeys(_ client: ClientReport, _ plan: CallPlan) -> Int {
        guard let ours = client.serverReadyAfter, let theirs = client.connectedAfter else { return 0 }
        let quickest = (plan.access.reorderPPM > 0 ? plan.access.delay / 4 : plan.access.delay) + plan.trunk.delay
        let ahead = ours - theirs - quickest
        return ahead > .zero ? Int(ahead.milliseconds / SimulatedClient.frameInterval.milliseconds) + 1 : 0
    }

    /// What two passes over the access link lose of `frames`, and six standard deviations more.
    private static func lostByLink(_ plan: CallPlan) -> Int {
        let link = plan.access
        guard link.lossPPM > 0 else { return 0 }
        let loss = Double(link.lossPPM) / 1e6
        // Gilbert's model: how often the link is in its bad state, and how much longer a row of losses is than one.
        let burst = link.burstPPM == 0 ? loss : Double(link.burstPPM) / 1e6
        let once = loss / (1 - burst + loss)
        let mean = Double(plan.frames) * (1 - (1 - once) * (1 - once))
        return Int(mean + 6 * (mean * (1 + burst) / (1 - burst)).squareRoot()) + 5
    }

    /// Frames said between its beginning and the first answered check after it, and the echoes that were on their way.
    private static func framesAtRisk(_ recovery: Recovery, _ plan: CallPlan) -> Int {
        switch recovery.cause {
        // The client says nothing meanwhile, and a restart must not cost a frame.
        case .silence, .restart: return 0
        case .rebind, .relay:
            guard let answered = recovery.answered else { return 0 }
            let span = answered - recovery.began + plan.echoDelay + roundTrip(plan) + .milliseconds(100)
            return Int(span.milliseconds / SimulatedClient.frameInterval.milliseconds)
        }
    }

    /// After each fault the next check is answered soon, and what is said after it comes back at once.
    @Sendable static func recovers(_ client: ClientReport, _ plan: CallPlan) -> [String] {
        var broken: [String] = []
        for recovery in client.recoveries {
            // A client at rest checks every 2.5 s; a lost check or answer costs half a second more, and 20 % loss some of those.
            let checkBound = SimulatedClient.checkInterval + roundTrip(plan) + lossMargin(plan)
            let answered = recovery.answered.map { $0 - recovery.ended }
            if answered.map({ $0 > checkBound }) ?? true {
                broken.append("after \(recovery.cause): no check was answered within \(checkBound.milliseconds) ms, \(told(answered))")
                continue
            }
            // Where the flow is still there media needs no check.
            let needsCheck = recovery.cause == .rebind || recovery.cause == .relay
            let from = needsCheck ? recovery.answered ?? recovery.ended : recovery.ended
            let heardBound = plan.echoDelay + roundTrip(plan) + .milliseconds(100) + lossMargin(plan) / 4
            let heard = recovery.heard.map { $0 - from }
            if heard.map({ $0 > heardBound }) ?? true {
                broken.append("after \(recovery.cause): no voice within \(heardBound.milliseconds) ms, \(told(heard))")
            }
        }
        return broken
    }

    /// A client that has fallen silent is asked by our own checks, once a second from the fifth on.
    @Sendable static func isAsked(_ client: ClientReport, _ plan: CallPlan) -> [String] {
        let silences = client.recoveries.filter { $0.cause == .silence }.map { $0.ended - $0.began }
        let expected = silences.reduce(0) { $0 + max(0, Int($1.milliseconds / 1000) - 6) }
        // Each of them may be late by a fifth, and be lost.
        let least = expected * 3 / 4 - expected * Int(plan.access.lossPPM) * 2 / 1_000_000
        return client.checksReceived >= least ? [] : ["a silent client was asked \(client.checksReceived) times, not \(least)"]
    }

    @Sendable static func hearsGoodbye(_ client: ClientReport, _ plan: CallPlan) -> [String] {
        // It is said once: a link that loses datagrams may lose it.
        client.heardGoodbye || plan.access.lossPPM > 0 || client.connectedAfter == nil ? [] : ["the client heard no goodbye"]
    }

    private static func roundTrip(_ plan: CallPlan) -> Interval { (plan.access.delay + plan.access.jitter + plan.trunk.delay) * 2 }
    private static func lossMargin(_ plan: CallPlan) -> Interval {
        plan.access.lossPPM == 0 ? .zero : .seconds(plan.access.lossPPM > 100_000 ? 8 : 4)
    }
    private static func told(_ interval: Interval?) -> String { interval.map { "it took \($0.milliseconds)" } ?? "there was none" }
}

// MARK: - Of a run

extension Invariants {
    /// No datagram counts twice, however often the network delivers it.
    @Sendable static func believesNobodyTwice(_ report: CallReport, _ plan: CallPlan) -> [String] {
        var broken: [String] = []
        if report.worker.audioPacketsReceived > UInt64(report.framesSaid) {
            broken.append("\(report.worker.audioPacketsReceived) frames were taken, \(report.framesSaid) were said")
        }
        if report.worker.audioPacketsSent > report.worker.audioPacketsReceived { broken.append("more came back than went in") }
        if report.framesHeard > Int(report.worker.audioPacketsSent) { broken.append("more was heard than came back") }
        return broken
    }

    /// Where the network does nothing wrong, nothing of a call is refused anywhere, and trunk frames never are.
    @Sendable static func refusesNothing(_ report: CallReport, _ plan: CallPlan) -> [String] {
        var broken: [String] = []
        let worker = report.worker
        for error in 0..<worker.framesRefused.count where worker.framesRefused[error] > 0 {
            broken.append("a frame of our own relay was refused: \(error)")
        }
        if worker.framesForOthers > 0 { broken.append("a frame went to the wrong worker") }
        if worker.recordsOversized + worker.recordsWithoutTrain > 0 { broken.append("a record found no room") }
        let isCalm = plan.access.lossPPM + plan.access.duplicatePPM + plan.access.reorderPPM + plan.access.corruptPPM == 0
        if isCalm, plan.scenario == .plain || plan.scenario == .pair, report.refusedWhileTalking > 0 {
            broken.append("\(report.refusedWhileTalking) datagrams were refused on a network without faults")
        }
        return broken
    }

    /// When everybody is gone nothing of them is left.
    @Sendable static func leavesNothing(_ report: CallReport, _ plan: CallPlan) -> [String] {
        var broken: [String] = []
        if report.sessionsAtEnd != 0 { broken.append("\(report.sessionsAtEnd) sessions outlived their calls") }
        if report.callsAtEnd != 0 { broken.append("signaling still knows \(report.callsAtEnd) calls") }
        if report.relayFlowsAtEnd != 0 { broken.append("the relay still has \(report.relayFlowsAtEnd) flows") }
        var ended: UInt64 = 0
        for reason in 0..<report.worker.sessionsEnded.count { ended += report.worker.sessionsEnded[reason] }
        if ended != report.worker.sessionsCreated { broken.append("\(report.worker.sessionsCreated) sessions began, \(ended) ended") }
        if report.worker.sessionsCreated != UInt64(plan.scenario.clients) { broken.append("one session per call, no more") }
        return broken
    }
}
