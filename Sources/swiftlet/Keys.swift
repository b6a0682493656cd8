import Crypto
import EventLoop
import Glibc
import Primitives
import RoutingHint

/// `swiftlet keys generate --out FILE`
enum Keys {
    static let help = """
        usage: swiftlet keys generate --out FILE

        Writes new keys, readable by their owner only. Every relay and transceiver of a cluster gets a copy. An existing file is not touched.
        """

    static func run(_ arguments: [String]) throws(CommandError) {
        guard let verb = arguments.first, verb == "generate" else {
            if arguments.first == "--help" || arguments.isEmpty { return say(help) }
            throw CommandError("there is no 'keys \(arguments[0])'; there is 'keys generate'")
        }
        guard let given = try Arguments(Array(arguments.dropFirst()), names: ["--out"], help: help) else { return }
        try generate(at: try given.required("--out"))
    }

    static func generate(at path: String) throws(CommandError) {
        var entropy = Crypto.SystemEntropy()
        let text = KeyRing.generate(random: &entropy).json
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw CommandError(
                "\(path): \(errno == EEXIST ? "exists already and is not touched" : String(cString: strerror(errno)))", status: 1)
        }
        defer { close(descriptor) }
        let bytes = Array((text + "\n").utf8)
        guard write(descriptor, bytes, bytes.count) == bytes.count, fsync(descriptor) == 0 else {
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
