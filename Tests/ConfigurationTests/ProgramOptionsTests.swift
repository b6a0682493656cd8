import Configuration
import Primitives
import Testing

private func help<Options: ProgramOptions>(_ type: Options.Type, _ arguments: [String] = ["--help"]) throws -> String {
    switch try Options.parse(arguments, environment: [:], readFile: { _ in nil }) {
    case .help(let text), .version(let text): return text
    case .run: return "a run"
    }
}

@Suite struct OptionsOfPrograms {
    @Test func `a transceiver's defaults`() throws {
        let options = try transceiver(required)
        #expect(options.signaling == SocketAddress("127.0.0.1:8080"))
        #expect(options.cluster == 0 && options.id == nil && options.workers == nil && options.sessions == 4096)
        #expect(options.backend == .parrot && options.echoDelay == .milliseconds(500) && options.srtp == .own)
        #expect(options.io == .epoll && options.trunkMTU == 1400 && options.drainTime == .seconds(600))
        #expect(options.admin == nil)
    }

    @Test func `a relay's defaults`() throws {
        let options = try read(RelayOptions.self, requiredOfRelay)
        #expect(options.cluster == 0 && options.relayID == 0 && options.workers == nil && options.flows == 262_144)
        #expect(options.metrics == nil && options.io == .epoll && options.trunkMTU == 1400)
        #expect(options.transceivers == .table(path: "t"))
    }

    @Test func `everything of up has a default`() throws {
        let options = try read(UpOptions.self, [])
        #expect(options.signaling == SocketAddress("127.0.0.1:8080") && options.metrics == SocketAddress("127.0.0.1:9090"))
        #expect(options.listen == [SocketAddress("0.0.0.0:3478")] && options.advertise.isEmpty)
        #expect(options.backend == .parrot && options.echoDelay == .milliseconds(500) && options.srtp == .own && options.workers == nil)
    }

    @Test func `up takes what it hands on`() throws {
        let options = try read(
            UpOptions.self,
            ["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--advertise", "192.0.2.1:1", "--workers=2", "--srtp=libsrtp", "--io=auto"],
            environment: ["SWIFTLET_ECHO_DELAY": "250"])
        #expect(options.listen.count == 2 && options.advertise.count == 1 && options.workers == 2)
        #expect(options.srtp == .libsrtp && options.io == .auto && options.echoDelay == .milliseconds(250))
    }

    @Test func `a listener that others reach needs keys, or the word that it needs none`() throws {
        let open = required + ["--signaling", "0.0.0.0:8080"]
        #expect(
            complaint(open).hasPrefix(
                "--signaling: 0.0.0.0:8080 can be reached from other machines, so the API needs keys: give --api-keys"))
        #expect(complaint(required + ["--signaling", "[::]:8080"]).hasPrefix("--signaling: [::]:8080 can be reached"))
        #expect(complaint(open + ["--allow-anonymous=no"]).hasPrefix("--signaling: 0.0.0.0:8080"))
        #expect(try transceiver(open + ["--api-keys", "f"]).access.keyFile == "f")
        #expect(try transceiver(open + ["--allow-anonymous", "--workers=2"]).access.allowsAnonymous)
        #expect(try transceiver(required + ["--signaling", "[::1]:8080"]).access == AccessOptions(keyFile: nil, allowsAnonymous: false))
        #expect(complaint(UpOptions.self, ["--signaling", "10.0.0.1:1"]).hasPrefix("--signaling: 10.0.0.1:1 can be reached"))
        #expect(try read(UpOptions.self, ["--signaling", "10.0.0.1:1"], environment: ["SWIFTLET_API_KEYS": "k"]).access.keyFile == "k")
    }

    @Test func `what is taken without a key is taken on this machine only`() throws {
        #expect(try transceiver(required + ["--admin", "127.0.0.1:8081"]).admin == SocketAddress("127.0.0.1:8081"))
        #expect(try transceiver(required + ["--admin", "[::1]:0"]).admin == SocketAddress("[::1]:0"))
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            #expect(complaint(required + ["--admin", address]).hasPrefix("--admin: \(address) can be reached from other machines"))
        }
    }

    @Test func `a switch is given alone, with yes or no, or as true or false in a file`() throws {
        #expect(try transceiver(required, environment: ["SWIFTLET_ALLOW_ANONYMOUS": "yes"]).access.allowsAnonymous)
        let file = ["c": #"{"allow-anonymous": true}"#]
        #expect(try transceiver(required + ["--config", "c"], files: file).access.allowsAnonymous)
        #expect(try !transceiver(required + ["--config", "c", "--allow-anonymous=no"], files: file).access.allowsAnonymous)
        #expect(complaint(required + ["--allow-anonymous=maybe"]) == "--allow-anonymous: 'maybe' is not allowed; it must be yes or no")
        #expect(complaint(required + ["--config", "c"], files: ["c": #"{"allow-anonymous": []}"#]).hasSuffix("must be true or false"))
        #expect(try help(TransceiverOptions.self).contains("\n  --allow-anonymous  "))
    }

    @Test func `the id is an address or a number, and has a default only beside an IPv4 trunk`() throws {
        #expect(try transceiver(required + ["--id", "10.0.0.5"]).id == 0x0A00_0005)
        #expect(try transceiver(required + ["--id", "7"]).id == 7)
        for trunk in ["0.0.0.0:1", "[::1]:1"] {
            let arguments = ["--trunk", trunk, "--advertise", "203.0.113.9:3478", "--key-file", "k"]
            #expect(complaint(arguments).hasPrefix("--id is missing; it has a default only when --trunk is an IPv4 address"))
            #expect(complaint(arguments + ["--id", "1"]) == "accepted")
        }
    }

    @Test(arguments: [
        ("direct:10.0.0.0/8:4000", TransceiverSource.direct(IPPrefix("10.0.0.0/8")!, port: 4000)),
        ("direct:192.0.2.7:4000", .direct(IPPrefix("192.0.2.7/32")!, port: 4000)), ("table:/etc/t:1", .table(path: "/etc/t:1")),
    ])
    func `a relay finds transceivers by prefix or by table`(text: String, source: TransceiverSource) throws {
        #expect(try read(RelayOptions.self, Array(requiredOfRelay.dropLast()) + [text]).transceivers == source)
    }

    @Test func `a relay and a transceiver have a registry`() throws {
        let address = try RedisAddress(parsing: "redis://:secret@10.0.0.9/3")
        let text = "redis://:secret@10.0.0.9/3"
        #expect(try read(RelayOptions.self, Array(requiredOfRelay.dropLast()) + [text]).transceivers == .registry(address))
        let wrong = complaint(RelayOptions.self, Array(requiredOfRelay.dropLast()) + ["redis://s3cr3t@10.0.0.9/3"])
        #expect(wrong.contains("must be redis://") && !wrong.contains("s3cr3t"), "\(wrong)")
        let near = ["--trunk", "127.0.0.1:1", "--advertise", "203.0.113.9:3478", "--key-file", "k", "--members", text]
        #expect(try transceiver(near).members == .registry(address))
        // What is registered must be what others reach.
        let far = ["--trunk", "10.0.0.5:1"] + near.dropFirst(2)
        #expect(complaint(far).hasPrefix("--signaling: 127.0.0.1:8080 is for this machine alone"))
        #expect(complaint(far + ["--signaling", "0.0.0.0:8080", "--allow-anonymous"]) == "accepted")
        let everywhere = ["--trunk", "0.0.0.0:1", "--id", "1"] + near.dropFirst(2)
        #expect(complaint(everywhere).hasPrefix("--trunk: 0.0.0.0:1 is every address"))
    }

    @Test(arguments: [
        "10.0.0.0/8:4000", "direct:", "direct:10.0.0.0/8", "direct:10.0.0.0/33:1", "direct:10.0.0.0/8:0", "direct:10.0.0.0/8:65536",
        "direct:2001:db8::/32:1", "table:", "tables:x", "",
    ])
    func `other places of transceivers are refused`(text: String) {
        let told = complaint(RelayOptions.self, Array(requiredOfRelay.dropLast()) + [text])
        #expect(told.contains("'\(text)' is not allowed; it must be direct:PREFIX:PORT"), "\(told)")
    }

    @Test(arguments: [
        ("0.0.0.0:1", "0.0.0.0:3478", false), ("10.0.0.5:3478", "0.0.0.0:3478", false), ("10.0.0.5:3478", "10.0.0.5:3478", false),
        ("10.0.0.5:3478", "10.0.0.6:3478", true), ("10.0.0.5:3480", "10.0.0.5:3478", true), ("127.0.0.1:0", "127.0.0.1:0", true),
    ])
    func `a relay's trunk is one address, and no public one`(trunk: String, listen: String, accepted: Bool) {
        let told = complaint(RelayOptions.self, ["--listen", listen, "--trunk", trunk, "--key-file", "k", "--transceivers", "table:t"])
        #expect((told == "accepted") == accepted, "\(told)")
    }

    @Test func `TCP is off until it is asked for`() throws {
        let relay = try read(RelayOptions.self, requiredOfRelay)
        #expect(relay.listenTCP.isEmpty && relay.tcpConnections == 4096 && relay.tcpConnectionsPerAddress == 256)
        let more = try read(RelayOptions.self, requiredOfRelay + ["--listen-tcp", "0.0.0.0:443", "--listen-tcp", "[::1]:443"])
        #expect(more.listenTCP.count == 2)
        let told = complaint(RelayOptions.self, requiredOfRelay + ["--listen-tcp", "0.0.0.0:443", "--metrics", "127.0.0.1:443"])
        #expect(told.contains("they must differ"), "\(told)")
        let transceiver = try transceiver(required + ["--advertise-tcp", "192.0.2.1:443"])
        #expect(transceiver.candidates.last == SocketAddress("192.0.2.1:443")!.overTCP && transceiver.candidates.count > 1)
        let up = try read(UpOptions.self, ["--listen-tcp", "127.0.0.1:443", "--advertise-tcp", "192.0.2.1:443"])
        #expect(up.listenTCP == [SocketAddress("127.0.0.1:443")] && up.advertiseTCP == [SocketAddress("192.0.2.1:443")])
    }

    @Test func `versions name their program`() throws {
        #expect(try help(RelayOptions.self, ["--version"]) == "swiftlet-relay \(swiftletVersion)")
        #expect(try help(UpOptions.self, ["--version"]) == "swiftlet up \(swiftletVersion)")
    }

    @Test func `help is asked for before anything is looked at`() throws {
        #expect(try help(RelayOptions.self, ["--workers", "x", "-h"]).hasPrefix("swiftlet-relay: "))
    }
}

@Suite struct HelpFromTables {
    private let tables = [RelayOptions.table, TransceiverOptions.table, UpOptions.table]

    @Test func `every option is there with its argument and its default`() {
        for table in tables {
            for option in table.definitions {
                guard let line = table.help.split(separator: "\n").first(where: { $0.hasPrefix("  --\(option.name) \(option.argument) ") })
                else {
                    Issue.record("\(table.program) does not explain --\(option.name)")
                    continue
                }
                switch option.fallback {
                case .none: #expect(line.contains("(required"))
                case .text(let text): #expect(line.contains("(default \(text)"))
                case .decided(let words): #expect(line.contains("(default: \(words)"))
                }
                #expect(line.hasSuffix("repeatable)") == option.isRepeatable)
            }
        }
    }

    @Test func `columns line up and lines fit a wide terminal`() {
        for table in tables {
            let lines = table.help.split(separator: "\n").filter { $0.hasPrefix("  --") }
            #expect(lines.allSatisfy { $0.count <= 150 })
        }
    }

    @Test func `every text that is a default is accepted`() {
        // A default goes through the same checks as a given value, so a program with only its required options must start.
        #expect(complaint(RelayOptions.self, requiredOfRelay) == "accepted")
        #expect(complaint(required) == "accepted")
        #expect(complaint(UpOptions.self, []) == "accepted")
    }
}

@Suite struct AddingUpMemory {
    @Test func `the sum stands before its items, the largest first`() {
        var budget = MemoryBudget()
        budget.add(2, "packets in flight", bytesEach: 512 << 10)
        budget.add(4, "65536 flows", bytesEach: 40 << 20)
        budget.add("transceiver table", bytes: 1_000)
        #expect(budget.bytes == (1 << 20) + (160 << 20) + 1_000)
        #expect(
            budget.description == """
                memory: 161 MiB
                   160 MiB  4 × 65536 flows
                  1024 KiB  2 × packets in flight
                     1 KiB  transceiver table
                """)
    }

    @Test func `a sum that does not fit stays at the end`() {
        var budget = MemoryBudget()
        budget.add(.max, "flows", bytesEach: 2)
        budget.add(1, "more", bytesEach: 1)
        budget.add(-1, "less", bytesEach: 5)
        #expect(budget.bytes == .max)
    }
}
