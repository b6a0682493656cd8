// `swiftlet up`: one relay and one transceiver on this machine, with keys and addresses that fit together, under one supervisor.
//
// The relay starts first, because every answer of the transceiver names its port; it reads where the transceiver is from a table that is
// written when the transceiver has told its trunk port. When one of them dies it is started again; Ctrl-C ends both.

import EventLoop
import Glibc
import Primitives

enum Up {
    static let help = """
        usage: swiftlet up [options]

          --signaling HOST:PORT    where the page and the API are served, TCP (127.0.0.1:8080)
          --listen HOST:PORT       the relay's public port, UDP (0.0.0.0:3478)
          --advertise HOST:PORT    what answers tell clients (the listen address, or this machine's first one)
          --metrics HOST:PORT      the relay's dashboard and counters (127.0.0.1:9090)
          --workers N              threads of each program, 1…64 (one per processor)
          --backend NAME           embedded:echo
          --echo-delay MS          0…5000 (500)
          --srtp ENGINE            own or libsrtp (own)
        """

    private static let names = [
        "--signaling", "--listen", "--advertise", "--metrics", "--workers", "--backend", "--echo-delay", "--srtp",
    ]

    static func run(_ arguments: [String]) throws(CommandError) {
        guard let given = try Arguments(arguments, names: names, help: help) else { return }
        let listen = given["--listen"] ?? "0.0.0.0:3478"
        let folder = try RuntimeFolder()
        try Keys.generate(at: folder.keyFile)
        try folder.writeTable("")
        var supervisor: Supervisor
        do throws(Errno) { supervisor = try Supervisor() } catch { throw CommandError("signals: \(error)", status: 1) }
        defer { folder.remove() }

        var relay = [
            "--listen", listen, "--trunk", "127.0.0.1:0", "--key-file", folder.keyFile, "--cluster", "1", "--relay-id", "1",
            "--transceivers", "table:" + folder.table, "--metrics", given["--metrics"] ?? "127.0.0.1:9090",
        ]
        if let workers = given["--workers"] { relay += ["--workers", workers] }
        try supervisor.start("swiftlet-relay", relay)
        guard let ready = supervisor.waitForReady(0), let bound = address(after: "public ", in: ready) else {
            throw supervisor.failure(0)
        }

        let advertise = given["--advertise"] ?? advertised(bound).description
        var transceiver = [
            "--signaling", given["--signaling"] ?? "127.0.0.1:8080", "--trunk", "127.0.0.1:0", "--advertise", advertise, "--key-file",
            folder.keyFile, "--cluster", "1", "--id", "1", "--backend", given["--backend"] ?? "embedded:echo",
        ]
        for name in ["--workers", "--echo-delay", "--srtp"] { if let value = given[name] { transceiver += [name, value] } }
        try supervisor.start("swiftlet-transceiver", transceiver)
        guard let ready = supervisor.waitForReady(1), let trunk = address(after: "trunk ", in: ready),
            let signaling = address(after: "http://", in: ready)
        else { throw supervisor.failure(1) }
        try folder.writeTable("1 \(trunk)\n")
        supervisor.signal(0, SIGHUP)

        say(
            """

            Swiftlet is up.
              page         http://\(signaling.ip.isAny ? SocketAddress(.v4Loopback, port: signaling.port) : signaling)/
              API          http://\(signaling)/v1/realtime/calls and http://\(signaling)/whip
              relay        \(advertise) (UDP)
            Ctrl-C stops it.

            """)
        // A transceiver that came back has another trunk port; the relay must know.
        supervisor.run { index, ready in
            guard index == 1, let trunk = address(after: "trunk ", in: ready) else { return nil }
            try? folder.writeTable("1 \(trunk)\n")
            return 0
        }
    }

    /// The address behind `label` in a ready line.
    private static func address(after label: String, in line: String) -> SocketAddress? {
        guard let range = find(label, in: line) else { return nil }
        let rest = line[range...]
        return SocketAddress(String(rest.prefix { $0 != "," && $0 != " " && $0 != "/" }))
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
