// `swiftlet up`: one relay and one transceiver on this machine, with keys and addresses that fit together, under one supervisor.
//
// The relay starts first, because every answer of the transceiver names its port; it reads where the transceiver is from a table that is
// written when the transceiver has told its trunk port. When one of them dies it is started again; Ctrl-C ends both.

import Configuration
import EventLoop
import Glibc
import Primitives

enum Up {
    static func run(_ arguments: [String]) throws(CommandError) {
        let options: UpOptions
        do throws(ConfigurationError) {
            let invocation = try UpOptions.parse(arguments, environment: environment()) {
                readFile($0, limit: Limits.configurationFileBytes)
            }
            switch invocation {
            case .help(let text), .version(let text): return say(text)
            case .run(let parsed): options = parsed
            }
        } catch { throw CommandError(error.description) }
        // The file is ours; its keys are not those of the two programs, which would find it in the environment that they inherit.
        unsetenv("SWIFTLET_CONFIG")
        // When we are killed, they end too.
        Machine.becomeSupervisor()

        let folder = try RuntimeFolder()
        try Keys.generate(at: folder.keyFile)
        try folder.writeTable("")
        var supervisor: Supervisor
        do throws(Errno) { supervisor = try Supervisor() } catch { throw CommandError("signals: \(error)", status: 1) }
        defer { folder.remove() }

        try supervisor.start("swiftlet-relay", relayArguments(options, folder))
        guard let ready = supervisor.waitForReady(0) else { throw supervisor.failure(0) }
        let bound = addresses(after: "public ", in: ready)
        guard !bound.isEmpty else { throw supervisor.failure(0) }

        var advertise = options.advertise
        // Two wildcards of one port stand for the same address.
        if advertise.isEmpty { for address in bound.map(advertised) where !advertise.contains(address) { advertise.append(address) } }
        var advertiseTCP = options.advertiseTCP
        if advertiseTCP.isEmpty {
            for address in addresses(after: "tcp ", in: ready).map(advertised) where !advertiseTCP.contains(address) {
                advertiseTCP.append(address)
            }
        }
        try supervisor.start("swiftlet-transceiver", transceiverArguments(options, folder, advertise, advertiseTCP))
        guard let ready = supervisor.waitForReady(1), let trunk = addresses(after: "trunk ", in: ready).first,
            let signaling = addresses(after: "http://", in: ready).first
        else { throw supervisor.failure(1) }
        try folder.writeTable("1 \(trunk)\n")
        supervisor.signal(0, SIGHUP)

        let places = advertise.map { "\($0) (UDP)" } + advertiseTCP.map { "\($0) (TCP)" }
        say(
            """

            Swiftlet is up.
              page         http://\(signaling.ip.isAny ? SocketAddress(.v4Loopback, port: signaling.port) : signaling)/
              API          http://\(signaling)/v1/realtime/calls and http://\(signaling)/whip
              relay        \(places.joined(separator: ", "))
            Ctrl-C stops it.

            """)
        // A transceiver that came back has another trunk port; the relay must know.
        supervisor.run { index, ready in
            guard index == 1, let trunk = addresses(after: "trunk ", in: ready).first else { return nil }
            try? folder.writeTable("1 \(trunk)\n")
            return 0
        }
    }

    private static func relayArguments(_ options: UpOptions, _ folder: RuntimeFolder) -> [String] {
        var words: [String] = []
        for address in options.listen { words += ["--listen", "\(address)"] }
        for address in options.listenTCP { words += ["--listen-tcp", "\(address)"] }
        words += [
            "--trunk", "127.0.0.1:0", "--key-file", folder.keyFile, "--cluster", "1", "--relay-id", "1", "--transceivers",
            "table:" + folder.table, "--runtime-folder", folder.path, "--metrics", "\(options.metrics)", "--io", options.io.rawValue,
        ]
        if let workers = options.workers { words += ["--workers", "\(workers)"] }
        return words
    }

    private static func transceiverArguments(
        _ options: UpOptions, _ folder: RuntimeFolder, _ advertise: [SocketAddress], _ advertiseTCP: [SocketAddress]
    ) -> [String] {
        var words = ["--signaling", "\(options.signaling)", "--trunk", "127.0.0.1:0"]
        for address in advertise { words += ["--advertise", "\(address)"] }
        for address in advertiseTCP { words += ["--advertise-tcp", "\(address)"] }
        words += [
            "--key-file", folder.keyFile, "--cluster", "1", "--id", "1", "--backend", options.backend.text, "--echo-delay",
            "\(options.echoDelay.milliseconds)", "--srtp", options.srtp.rawValue, "--drain-time",
            "\(options.drainTime.milliseconds / 1000)", "--io", options.io.rawValue,
        ]
        if let keys = options.access.keyFile { words += ["--api-keys", keys] }
        if options.access.allowsAnonymous { words.append("--allow-anonymous") }
        if let file = options.backendKeyFile { words += ["--backend-key", file] }
        if let file = options.backendAuthorities { words += ["--backend-ca", file] }
        if let workers = options.workers { words += ["--workers", "\(workers)"] }
        return words
    }

    /// The addresses behind `label` in a ready line, separated by blanks.
    private static func addresses(after label: String, in line: String) -> [SocketAddress] {
        guard let start = find(label, in: line) else { return [] }
        let rest = line[start...].prefix { $0 != "," && $0 != "/" }
        return rest.split(separator: " ").compactMap { SocketAddress(String($0)) }
    }

    private static func find(_ label: String, in line: String) -> String.Index? {
        var start = line.startIndex
        while start < line.endIndex {
            if line[start...].hasPrefix(label) { return line.index(start, offsetBy: label.count) }
            start = line.index(after: start)
        }
        return nil
    }

    /// A wildcard cannot be told to clients: this machine's first address that is not loopback stands for it.
    private static func advertised(_ bound: SocketAddress) -> SocketAddress {
        guard bound.ip.isAny else { return bound }
        let own = interfaceAddresses().first { $0.isV4 && !$0.isLoopback && !$0.isLinkLocal }
        return SocketAddress(own ?? .v4Loopback, port: bound.port)
    }
}
