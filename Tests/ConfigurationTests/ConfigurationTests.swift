import Configuration
import Primitives
import Testing

let required = ["--trunk", "10.0.0.5:3480", "--advertise", "203.0.113.9:3478", "--key-file", "k.json"]
let requiredOfRelay = ["--listen", "0.0.0.0:3478", "--trunk", "10.0.0.5:3480", "--key-file", "k", "--transceivers", "table:t"]

/// What `arguments` come to for a program.
func read<Options: ProgramOptions>(
    _ type: Options.Type, _ arguments: [String], environment: [String: String] = [:], files: [String: String] = [:]
) throws -> Options {
    guard case .run(let options) = try Options.parse(arguments, environment: environment, readFile: { files[$0].map { Array($0.utf8) } })
    else { throw ConfigurationError("not a run") }
    return options
}

func transceiver(_ arguments: [String], environment: [String: String] = [:], files: [String: String] = [:]) throws -> TransceiverOptions {
    try read(TransceiverOptions.self, arguments, environment: environment, files: files)
}

/// What an operator is told.
func complaint<Options: ProgramOptions>(
    _ type: Options.Type, _ arguments: [String], environment: [String: String] = [:], files: [String: String] = [:]
) -> String {
    do {
        _ = try read(type, arguments, environment: environment, files: files)
        return "accepted"
    } catch { return "\(error)" }
}

func complaint(_ arguments: [String], environment: [String: String] = [:], files: [String: String] = [:]) -> String {
    complaint(TransceiverOptions.self, arguments, environment: environment, files: files)
}

@Suite struct FillingOptions {
    @Test func `a flag wins over the environment, the environment over the file, the file over the default`() throws {
        let files = ["c.json": #"{"cluster": 3, "workers": 2, "echo-delay": "100"}"#]
        let environment = ["SWIFTLET_CLUSTER": "2", "SWIFTLET_WORKERS": "4"]
        let options = try transceiver(required + ["--config", "c.json", "--cluster=1"], environment: environment, files: files)
        #expect(options.cluster == 1)
        #expect(options.workers == 4)
        #expect(options.echoDelay == .milliseconds(100))
        #expect(options.sessions == 4096)
    }

    @Test func `a repeatable option is repeated in each of the three ways`() throws {
        let base = ["--trunk", "10.0.0.5:3480", "--key-file", "k"]
        let wanted = [SocketAddress("192.0.2.1:1"), SocketAddress("[2001:db8::1]:2")]
        let flags = try transceiver(base + ["--advertise", "192.0.2.1:1", "--advertise=[2001:db8::1]:2"])
        let environment = try transceiver(base, environment: ["SWIFTLET_ADVERTISE": "192.0.2.1:1, [2001:db8::1]:2"])
        let file = try transceiver(base + ["--config", "c"], files: ["c": #"{"advertise": ["192.0.2.1:1", "[2001:db8::1]:2"]}"#])
        let single = try transceiver(base + ["--config", "c"], files: ["c": #"{"advertise": "192.0.2.1:1"}"#])
        #expect(flags.advertise == wanted)
        #expect(environment.advertise == wanted)
        #expect(file.advertise == wanted)
        #expect(single.advertise == [SocketAddress("192.0.2.1:1")])
    }

    @Test func `values of a repeatable option are not mixed from two places`() throws {
        let options = try transceiver(required, environment: ["SWIFTLET_ADVERTISE": "192.0.2.1:1"])
        #expect(options.advertise == [SocketAddress("203.0.113.9:3478")])
    }

    @Test func `the environment names the file too`() throws {
        #expect(try transceiver(required, environment: ["SWIFTLET_CONFIG": "c"], files: ["c": #"{"cluster": 9}"#]).cluster == 9)
    }

    @Test func `an empty variable is as good as none`() throws {
        let options = try transceiver(required, environment: ["SWIFTLET_CLUSTER": "", "SWIFTLET_ADVERTISE": "", "SWIFTLET_CONFIG": ""])
        #expect(options.cluster == 0)
    }

    @Test func `dashes of a flag are underscores of its variable`() throws {
        #expect(try transceiver(required, environment: ["SWIFTLET_ECHO_DELAY": "0"]).echoDelay == .zero)
    }

    @Test func `a value may begin with dashes or have an equals sign`() throws {
        #expect(try transceiver(Array(required.dropLast(2)) + ["--key-file=a=b"]).keyFile == "a=b")
        #expect(try transceiver(Array(required.dropLast(2)) + ["--key-file", "--odd"]).keyFile == "--odd")
    }

    @Test(arguments: [("epoll", IOChoice.epoll), ("io_uring", .ring), ("uring", .ring), ("auto", .auto)])
    func `an engine has its names`(text: String, choice: IOChoice) throws {
        #expect(try transceiver(required + ["--io", text]).io == choice)
    }

    @Test func `localhost is an address`() throws {
        #expect(try transceiver(required + ["--signaling", "localhost:81"]).signaling == SocketAddress("127.0.0.1:81"))
    }
}

@Suite struct RefusingOptions {
    @Test(arguments: [
        (["--workers", "65"], "--workers: '65' is not allowed; it must be a whole number from 1 to 64"),
        (["--workers", "two"], "--workers: 'two' is not allowed; it must be a whole number from 1 to 64"),
        (["--workers="], "--workers: '' is not allowed; it must be a whole number from 1 to 64"),
        (["--srtp", "nss"], "--srtp: 'nss' is not allowed; it must be own or libsrtp"),
        (["--io", "kqueue"], "--io: 'kqueue' is not allowed; it must be epoll or io_uring or auto"),
        (
            ["--backend", "echo"],
            "--backend: 'echo' is not allowed; it must be embedded:parrot, embedded:echo, realtime:wss://HOST[:PORT]/PATH or grpcs://HOST[:PORT]"
        ),
        (["--cluster", "-1"], "--cluster: '-1' is not allowed; it must be a whole number from 0 to 65535"),
        (["--cluster", "65536"], "--cluster: '65536' is not allowed; it must be a whole number from 0 to 65535"),
        (["--cluster", "99999999999999999999"], "it must be a whole number from 0 to 65535"),
        (["--echo-delay", "5001"], "--echo-delay: '5001' is not allowed; it must be a whole number from 0 to 5000"),
        (["--drain-time", "86401"], "--drain-time: '86401' is not allowed; it must be a whole number from 0 to 86400"),
        (["--trunk-mtu", "255"], "--trunk-mtu: '255' is not allowed; it must be a whole number from 256 to 9000"),
        (["--sessions", "0"], "--sessions: '0' is not allowed; it must be a whole number from 1 to 65536"),
        (["--id", "10.0.0"], "--id: '10.0.0' is not allowed; it must be an IPv4 address, or a whole number from 0 to 4294967295"),
        (["--id", "::1"], "--id: '::1' is not allowed"), (["--signaling", "8080"], "--signaling: '8080' is not allowed"),
        (["--signaling", "::1:80"], "it must be an IP address and a port, such as 192.0.2.1:3478 or [2001:db8::1]:3478"),
        (["--signaling", "127.0.0.1:65536"], "--signaling: '127.0.0.1:65536' is not allowed"),
        (["--signaling", "224.0.0.1:80"], "--signaling: '224.0.0.1:80' is not allowed"),
        (["--worker", "1"], "--worker is not an option of swiftlet-transceiver; did you mean --workers?"),
        (["--something-else", "1"], "--something-else is not an option of swiftlet-transceiver; --help lists the options"),
        (["--workers"], "--workers needs a value: N"), (["--workers", "1", "--workers=2"], "--workers is given twice"),
        (["loud"], "'loud' is not an option; options begin with --"),
        (["--advertise", "0.0.0.0:3478"], "an address that clients can send to"), (["--advertise", "192.0.2.1:0"], "no port 0"),
        (["--advertise", "203.0.113.9:3478"], "--advertise: '203.0.113.9:3478' is not allowed; it must be given once"),
    ])
    func `a wrong value is named with what was given and what is allowed`(arguments: [String], message: String) {
        let told = complaint(required + arguments)
        #expect(told.contains(message), "\(told)")
    }

    @Test func `what is missing is named`() {
        #expect(complaint(["--trunk", "10.0.0.5:3480"]) == "--advertise HOST:PORT is missing; it has no default")
        #expect(complaint(Array(required.dropLast(2))) == "--key-file FILE is missing; it has no default")
        #expect(complaint(Array(required.dropLast(2)) + ["--key-file="]).contains("it must be a text that is not empty"))
    }

    @Test func `there are at most eight addresses`() {
        let nine = (1...9).flatMap { ["--advertise", "192.0.2.1:\($0)"] }
        #expect(complaint(["--trunk", "10.0.0.5:3480", "--key-file", "k"] + nine) == "--advertise is given 9 times; 8 are allowed")
    }

    @Test func `the place of a wrong value is named`() {
        #expect(complaint(required, environment: ["SWIFTLET_WORKERS": "0"]).hasPrefix("SWIFTLET_WORKERS: '0' is not allowed"))
        let file = complaint(required + ["--config", "c.json"], files: ["c.json": #"{"workers": 0}"#])
        #expect(file.hasPrefix(#"c.json: "workers": '0' is not allowed"#))
    }

    @Test(arguments: [
        ("[]", "c: the outermost value must be an object"), ("{", "c is not JSON: line 1: it ends too early"),
        ("{\n\"cluster\": x}", "c is not JSON: line 2: "),
        (#"{"wrkers": 1}"#, #"c: "wrkers" is not an option of swiftlet-transceiver; did you mean workers?"#),
        (#"{"workers": true}"#, #"c: "workers": must be text or a number"#),
        (#"{"workers": [1]}"#, #"c: "workers": must be text or a number"#),
        (#"{"workers": null}"#, #"c: "workers": must be text or a number"#), (#"{"workers": 1.5}"#, "'1.5' is not allowed"),
        (#"{"advertise": [{}]}"#, #"c: "advertise": must be text or a number, or an array of them"#),
        (#"{"config": "d"}"#, #"c: "config" cannot stand in a file"#),
    ])
    func `a wrong file is refused, even where a flag wins over it`(text: String, message: String) {
        let told = complaint(required + ["--config", "c"], files: ["c": text])
        #expect(told.contains(message), "\(told)")
        guard !text.contains("1.5") else { return }
        #expect(complaint(required + ["--config", "c", "--workers", "1"], files: ["c": text]) == told)
    }

    @Test func `a file that cannot be read is named with who asked for it`() {
        #expect(complaint(required + ["--config", "gone"]) == "--config: the file gone cannot be read")
        #expect(complaint(required, environment: ["SWIFTLET_CONFIG": "gone"]) == "SWIFTLET_CONFIG: the file gone cannot be read")
    }
}
