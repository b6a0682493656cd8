import EventLoop
import Primitives

/// `swiftlet bench hold`: whole calls that go on while something happens to what answers them. Who starts, drains and kills that is somebody
/// else.
enum HoldBench {
    static let help = """
        usage: swiftlet bench hold --relay HOST:PORT --signaling HOST:PORT [--calls N] [--seconds N] [--hang-up-at N]

        Whole calls (ICE, DTLS, SRTP, a data channel) of a transceiver with the embedded echo, through a relay: each says 50 packets a second.
        One line a second: how many calls stand, how many have ended, what the quietest of those that stand has heard in this second, the
        longest pause between two looks of ours, and how many events all have heard. It ends when all calls have.

          --calls N         1…1000 (50)
          --seconds N       1…3600 at most (10)
          --hang-up-at N    in this second half of them hang up; 0 for nobody (0)
        """

    static func run(_ arguments: [String]) throws {
        let names = ["--relay", "--signaling", "--calls", "--seconds", "--hang-up-at"]
        guard let given = try Arguments(arguments, names: names, help: help) else { return }
        guard let relay = SocketAddress(try given.required("--relay")), let signaling = SocketAddress(try given.required("--signaling"))
        else {
            throw CommandError("--relay and --signaling must be HOST:PORT")
        }
        let calls = try given.number("--calls", 1...1000, default: 50)
        let seconds = try given.number("--seconds", 1...3600, default: 10)
        let hangsUpAt = try given.number("--hang-up-at", 0...3600, default: 0)
        var rig = try CallRig(
            relay: relay, signaling: signaling, calls: calls, hasDataChannel: true, session: nil,
            voice: CallVoice(speechMilliseconds: 5000, pauseMilliseconds: 0))
        for number in 0..<calls {
            try rig.place(number, patience: patience)
            rig.run(.milliseconds(5))
        }
        rig.run(patience) { $0.ready == calls }
        guard rig.ready == calls else { throw CommandError("only \(rig.ready) of \(calls) calls were set up", status: 1) }
        rig.startSpeaking()
        for second in 1...seconds {
            if second == hangsUpAt { for number in 0..<calls / 2 { try rig.hangUp(number, patience: patience) } }
            let before = (0..<calls).map { rig.heard(by: $0) }
            rig.beginSecond()
            rig.run(.seconds(1))
            let quietest = (0..<calls).compactMap { number in rig.heard(by: number).map { $0 - (before[number] ?? 0) } }.min()
            say(
                "second \(second) standing \(rig.standing) ended \(rig.failed) quietest \(quietest ?? -1) "
                    + "late \(rig.latest.milliseconds) events \(rig.events)")
            if rig.standing == 0 { return }
        }
    }

    private static let patience = Interval.seconds(20)
}
