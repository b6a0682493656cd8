import Crypto
import EventLoop
import Primitives
import RoutingHint

/// `swiftlet hint mint` and `swiftlet hint read`.
enum Hint {
    static let help = """
        usage: swiftlet hint mint --key-file F --cluster C --transceiver A.B.C.D|N [--worker W]
               swiftlet hint read --key-file F UFRAG

        mint prints a ufrag and its pwd, one per line, as signaling makes them. read says what a ufrag means, or why a relay would refuse it.
        """

    static func run(_ arguments: [String]) throws(CommandError) {
        var rest = arguments
        let verb = rest.isEmpty ? "--help" : rest.removeFirst()
        switch verb {
        case "mint": try mint(rest)
        case "read": try read(rest)
        case "--help", "-h": say(help)
        default: throw CommandError("there is no 'hint \(verb)'; there are 'hint mint' and 'hint read'")
        }
    }

    private static func mint(_ arguments: [String]) throws(CommandError) {
        let names = ["--key-file", "--cluster", "--transceiver", "--worker"]
        guard let given = try Arguments(arguments, names: names, help: help) else { return }
        var codec = HintCodec(try Keys.read(try given.required("--key-file")))
        let transceiver = try given.required("--transceiver")
        guard let number = UInt32(transceiver) ?? IPAddress(transceiver).flatMap({ $0.isV4 ? $0.v4Bits : nil }) else {
            throw CommandError("--transceiver: '\(transceiver)' is neither an IPv4 address nor a number from 0 to 4294967295")
        }
        var entropy = Crypto.SystemEntropy()
        let hint = RoutingHint(
            cluster: try given.number("--cluster", 0...UInt16.max, default: nil), transceiver: number,
            worker: try given.number("--worker", 0...UInt8.max, default: 0),
            mintedAt: UInt32(truncatingIfNeeded: wallClock().secondsSince1970), session: UInt32(truncatingIfNeeded: entropy.next()))
        let ufrag = codec.mint(hint)
        say(ufrag.description)
        say(codec.icePassword(for: ufrag).text)
    }

    private static func read(_ arguments: [String]) throws(CommandError) {
        var flags = arguments
        // The ufrag is the one argument that is neither a flag nor a flag's value.
        guard let position = flags.indices.first(where: { !flags[$0].hasPrefix("--") && ($0 == 0 || flags[$0 - 1] != "--key-file") }) else {
            _ = try Arguments(flags, names: ["--key-file"], help: help)
            if flags.contains("--help") || flags.contains("-h") { return }
            throw CommandError("UFRAG is missing")
        }
        let text = flags.remove(at: position)
        guard let given = try Arguments(flags, names: ["--key-file"], help: help) else { return }
        var codec = HintCodec(try Keys.read(try given.required("--key-file")))
        guard let ufrag = Ufrag(text) else { throw CommandError("'\(text)' is not 32 ice-chars", status: 1) }
        switch codec.open(ufrag.characters.bytes, at: wallClock()) {
        case .failure(let error): throw CommandError("a relay refuses this ufrag: \(error)", status: 1)
        case .success(let hint):
            say("cluster \(hint.cluster)")
            say("transceiver \(hint.transceiver) (\(IPAddress(v4: hint.transceiver)))")
            say("worker \(hint.worker)")
            say("session \(hint.session)")
            say("minted-at \(hint.mintedAt)")
        }
    }
}
