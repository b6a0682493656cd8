import Crypto
import EventLoop
import Glibc
import Primitives
import RoutingHint

/// `swiftlet keys generate`, `add`, `promote`, `trunk`.
enum Keys {
    static let help = """
        usage: swiftlet keys generate --out FILE
               swiftlet keys add --key-file FILE
               swiftlet keys promote --key-file FILE [--retire-after SECONDS]
               swiftlet keys trunk add|promote|retire --key-file FILE

        generate writes new keys, readable by their owner only. Every relay and transceiver of a cluster gets a copy. An existing file is not
        touched. The next two rotate the key of routing hints while calls go on:

          add      puts a new key into the file, which opens hints and makes none yet. Copy the file everywhere, and send SIGHUP
          promote  has the last key make hints from now on; the old one retires after that time (86700: the longest call).
                   Copy the file everywhere, and send SIGHUP

        trunk rotates the key between relays and transceivers, and no packet is lost. After each step copy the file everywhere, send SIGHUP
        to all of them, and see that all have taken it before the next step:

          trunk add      puts a second trunk key into the file, whose frames are accepted
          trunk promote  has frames sent under it; those under the one of before are accepted. Once more takes it back
          trunk retire   drops the accepted one, when ..._trunk_frames_accepted_key_total grows nowhere any more
        """

    static func run(_ arguments: [String]) throws(CommandError) {
        let rest = Array(arguments.dropFirst())
        switch arguments.first {
        case nil, "--help": say(help)
        case "generate":
            guard let given = try Arguments(rest, names: ["--out"], help: help) else { return }
            try generate(at: try given.required("--out"))
        case "add":
            guard let given = try Arguments(rest, names: ["--key-file"], help: help) else { return }
            try change(try given.required("--key-file")) { ring throws(CommandError) in
                var entropy = Crypto.SystemEntropy()
                guard ring.add(random: &entropy) else { throw CommandError("there are 32 keys already; promote drops retired ones") }
            }
        case "promote":
            guard let given = try Arguments(rest, names: ["--key-file", "--retire-after"], help: help) else { return }
            let time = try given.number("--retire-after", 0...1_000_000_000, default: 86_700)
            try change(try given.required("--key-file")) { ring throws(CommandError) in
                let now = wallClock().secondsSince1970
                guard ring.promote(at: now, retiringTheOldAt: now + UInt64(time)) else {
                    throw CommandError("the last key is the one that makes hints already, or has retired; begin with 'keys add'")
                }
            }
        case "trunk": try rotateTrunkKey(rest)
        case .some(let verb): throw CommandError("there is no 'keys \(verb)'; there are generate, add, promote and trunk")
        }
    }

    private static func rotateTrunkKey(_ arguments: [String]) throws(CommandError) {
        let step = arguments.first ?? "--help"
        guard step != "--help" else { return say(help) }
        guard ["add", "promote", "retire"].contains(step) else {
            throw CommandError("there is no 'keys trunk \(step)'; there are add, promote and retire")
        }
        guard let given = try Arguments(Array(arguments.dropFirst()), names: ["--key-file"], help: help) else { return }
        try change(try given.required("--key-file")) { ring throws(CommandError) in
            var entropy = Crypto.SystemEntropy()
            switch step {
            case "add":
                guard ring.addTrunkKey(random: &entropy) else {
                    throw CommandError("there is an accepted trunk key already; 'keys trunk promote' or 'keys trunk retire' comes next")
                }
            case "promote":
                guard ring.promoteTrunkKey() else { throw CommandError("there is no accepted trunk key; begin with 'keys trunk add'") }
            default:
                guard ring.retireTrunkKey() else { throw CommandError("there is no accepted trunk key to retire") }
            }
        }
    }

    /// Replaces the file as a whole: whoever reads it meanwhile gets the old one or the new one.
    private static func change(_ path: String, _ body: (inout KeyRing) throws(CommandError) -> Void) throws(CommandError) {
        var ring = try read(path)
        try body(&ring)
        let fresh = path + ".new"
        unlink(fresh)
        try write(ring, at: fresh)
        guard rename(fresh, path) == 0 else {
            let reason = String(cString: strerror(errno))
            unlink(fresh)
            throw CommandError("\(path): \(reason)", status: 1)
        }
    }

    static func generate(at path: String) throws(CommandError) {
        var entropy = Crypto.SystemEntropy()
        try write(KeyRing.generate(random: &entropy), at: path)
    }

    private static func write(_ ring: KeyRing, at path: String) throws(CommandError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw CommandError(
                "\(path): \(errno == EEXIST ? "exists already and is not touched" : String(cString: strerror(errno)))", status: 1)
        }
        defer { close(descriptor) }
        let bytes = Array((ring.json + "\n").utf8)
        guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count, fsync(descriptor) == 0 else {
            unlink(path)
            throw CommandError("\(path): \(String(cString: strerror(errno)))", status: 1)
        }
    }

    static func read(_ path: String) throws(CommandError) -> KeyRing {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw CommandError("--key-file \(path): \(String(cString: strerror(errno)))", status: 1) }
        defer { close(descriptor) }
        var content = [UInt8](repeating: 0, count: 65_536)
        let count = Glibc.read(descriptor, &content, content.count)
        guard count >= 0 else { throw CommandError("--key-file \(path): \(String(cString: strerror(errno)))", status: 1) }
        do throws(KeyFileError) { return try KeyRing(parsingJSON: content.span.bytes.bytes(0..<count)) } catch {
            throw CommandError("--key-file \(path): \(error)", status: 1)
        }
    }
}
