import Configuration
import Primitives
import Testing

private let required = ["--trunk", "10.0.0.5:3480", "--advertise", "203.0.113.9:3478", "--key-file", "k.json"]

private func transceiver(_ arguments: [String], environment: [String: String] = [:], files: [String: String] = [:]) throws
    -> TransceiverOptions
{
    let invocation = try TransceiverOptions.parse(arguments, environment: environment) { files[$0].map { Array($0.utf8) } }
    guard case .run(let options) = invocation else { throw ConfigurationError("not a run") }
    return options
}

private func complaint(_ arguments: [String], environment: [String: String] = [:], files: [String: String] = [:]) -> String {
    do {
        _ = try transceiver(arguments, environment: environment, files: files)
        return "accepted"
    } catch { return "\(error)" }
}

@Suite struct FillingOptions {
    @Test func `what is not said has its default`() throws {
        let options = try transceiver(required)
        #expect(options.signaling == SocketAddress("127.0.0.1:8080"))
        #expect(options.echoDelay == .milliseconds(500))
        #expect(options.workers == nil)
        #expect(options.cluster == 0)
    }

    @Test func `a flag wins over the environment, the environment over the file`() throws {
        let files = ["c.json": #"{"cluster": 3, "workers": 2, "echo-delay": "100"}"#]
        let environment = ["SWIFTLET_CLUSTER": "2", "SWIFTLET_WORKERS": "4"]
        let options = try transceiver(required + ["--config", "c.json", "--cluster=1"], environment: environment, files: files)
        #expect(options.cluster == 1)
        #expect(options.workers == 4)
        #expect(options.echoDelay == .milliseconds(100))
    }

    @Test func `a repeatable option is repeated in each of the three ways`() throws {
        let base = ["--trunk", "10.0.0.5:3480", "--key-file", "k"]
        let wanted = [SocketAddress("192.0.2.1:1"), SocketAddress("[2001:db8::1]:2")]
        let flags = try transceiver(base + ["--advertise", "192.0.2.1:1", "--advertise=[2001:db8::1]:2"])
        let environment = try transceiver(base, environment: ["SWIFTLET_ADVERTISE": "192.0.2.1:1,[2001:db8::1]:2"])
        let file = try transceiver(base + ["--config", "c"], files: ["c": #"{"advertise": ["192.0.2.1:1", "[2001:db8::1]:2"]}"#])
        #expect(flags.advertise == wanted)
        #expect(environment.advertise == wanted)
        #expect(file.advertise == wanted)
    }

    @Test func `localhost is an address`() throws {
        #expect(try transceiver(required + ["--signaling", "localhost:81"]).signaling == SocketAddress("127.0.0.1:81"))
    }

    @Test func `the id is an address or a number`() throws {
        #expect(try transceiver(required + ["--id", "10.0.0.5"]).id == 0x0A00_0005)
        #expect(try transceiver(required + ["--id", "7"]).id == 7)
    }

    @Test func `help comes from the table and names every option`() throws {
        guard case .help(let text) = try TransceiverOptions.parse(["--help"], environment: [:], readFile: { _ in nil }) else {
            Issue.record("no help")
            return
        }
        for name in ["--signaling", "--trunk", "--advertise", "--key-file", "--cluster", "--id", "--workers", "--backend", "--config"] {
            #expect(text.contains(name + " "))
        }
    }
}

@Suite struct RefusingOptions {
    @Test(arguments: [
        (["--workers", "65"], "--workers: '65' is not allowed; it must be a whole number from 1 to 64"),
        (["--workers", "two"], "--workers: 'two' is not allowed; it must be a whole number from 1 to 64"),
        (["--srtp", "nss"], "--srtp: 'nss' is not allowed; it must be own or libsrtp"),
        (["--cluster", "-1"], "--cluster: '-1' is not allowed; it must be a whole number from 0 to 65535"),
        (["--worker", "1"], "--worker is not an option of swiftlet-transceiver; did you mean workers?"),
        (["--workers"], "--workers needs a value: N"), (["--workers", "1", "--workers", "2"], "--workers is given twice"),
        (["loud"], "'loud' is not an option; options begin with --"),
        (["--advertise", "0.0.0.0:3478"], "an address that clients can send to"),
    ])
    func `a wrong value is named with what was given and what is allowed`(arguments: [String], message: String) {
        let told = complaint(required + arguments)
        #expect(told.contains(message), "\(told)")
    }

    @Test func `what is missing is named`() {
        #expect(complaint(["--trunk", "10.0.0.5:3480"]) == "--advertise HOST:PORT is missing; it has no default")
        #expect(complaint(required + ["--trunk", "x"]) == "--trunk is given twice")
    }

    @Test func `the place of a wrong value is named`() {
        #expect(complaint(required, environment: ["SWIFTLET_WORKERS": "0"]).hasPrefix("SWIFTLET_WORKERS: '0' is not allowed"))
        let file = complaint(required + ["--config", "c.json"], files: ["c.json": #"{"workers": 0}"#])
        #expect(file.hasPrefix(#"c.json: "workers": '0' is not allowed"#))
        #expect(complaint(required + ["--config", "gone"]) == "--config: the file gone cannot be read")
        #expect(complaint(required + ["--config", "c"], files: ["c": "[]"]) == "c: the outermost value must be an object")
        #expect(complaint(required + ["--config", "c"], files: ["c": #"{"wrkers": 1}"#]).contains("did you mean workers?"))
    }

    @Test func `a relay's trunk must be one address`() {
        let arguments = ["--listen", "0.0.0.0:3478", "--trunk", "0.0.0.0:1", "--key-file", "k", "--transceivers", "table:t"]
        #expect(throws: ConfigurationError.self) { try RelayOptions.parse(arguments, environment: [:], readFile: { _ in nil }) }
    }
}
