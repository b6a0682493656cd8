import CBench
import EventLoop
import Glibc
import Primitives
import RoutingHint

/// Starts what is to be measured, each kind in its way.
struct LoadLauncher {
    let folder: RuntimeFolder
    let maker: FlowMaker
    /// The processor that contestants run on; nil where there is only one.
    let processor: Int?
    let program: String
    /// Flows that a contestant must have room for.
    let flows: Int
    private let tables = Tables()

    /// What `end` has to take away.
    private final class Tables { var paths: [String] = [] }

    init(flows: Int, transceivers: Int = 1, program: String?) throws(CommandError) {
        folder = try RuntimeFolder()
        maker = FlowMaker(transceivers: transceivers)
        processor = crowd_processors() > 1 ? 0 : nil
        self.program = program ?? Self.ownFolder() + "/swiftlet-relay"
        self.flows = flows
        try write(maker.ring.json + "\n", to: folder.keyFile)
    }

    /// Every name that `start` knows; a relay's may be followed by options: `relay+gather-us=500`.
    static let names = ["relay", "relay-uring", "second-hop", "bare", "plain", "nginx", "coturn"]

    /// Why a contestant cannot be had here; nil when it can.
    func absence(of name: String) -> String? {
        switch name {
        case "nginx":
            guard Self.find("nginx") != nil else { return "nginx is not installed (Debian: nginx-light)" }
            return access(Self.nginxModule, R_OK) == 0 ? nil : "nginx has no stream module (Debian: libnginx-mod-stream)"
        case "coturn": return Self.find("turnserver") == nil ? "turnserver is not installed (Debian: coturn)" : nil
        case "relay-uring": return EngineKind.ring.unavailability.map { "io_uring is not possible here: \($0)" }
        default: return nil
        }
    }

    /// - Parameter peer: the trunk socket of the world around the contestant.
    func start(_ name: String, peer: SocketAddress) throws(CommandError) -> LoadTarget {
        let parts = name.split(separator: "+").map(String.init)
        switch parts[0] {
        case "relay", "relay-uring":
            return try relay(name, io: parts[0] == "relay" ? "epoll" : "io_uring", Array(parts.dropFirst()), peer)
        case "second-hop": return try secondHop(name, Array(parts.dropFirst()), peer)
        case "bare", "plain": return try yardstick(name, peer)
        case "nginx": return try nginx(peer)
        case "coturn": return try coturn()
        default: throw CommandError("--against: '\(name)' is not known; there are \(Self.names.joined(separator: ", "))")
        }
    }

    func end() {
        for name in ["nginx.conf", "nginx.pid", "nginx.log", "turnserver.conf", "turn.pid", "turn.db"] { unlink(folder.path + "/" + name) }
        for path in tables.paths { unlink(path) }
        folder.remove()
    }
}

// MARK: - Kinds

extension LoadLauncher {
    private func relay(_ name: String, io: String, _ options: [String], _ peer: SocketAddress) throws(CommandError) -> LoadTarget {
        let arguments = [
            "--trunk", "127.0.0.1:0", "--transceivers", "table:\(try table(peer))", "--cluster", "\(FlowMaker.cluster)",
            "--relay-id", "\(FlowMaker.relayID)", "--io", io,
        ]
        return try relay(name, arguments, options)
    }

    /// A relay of the clients' cluster that another relay, of another one, sends frames to: all packets pass both, and this one is measured.
    private func secondHop(_ name: String, _ options: [String], _ peer: SocketAddress) throws(CommandError) -> LoadTarget {
        let (ingress, own) = (try Self.freeAddress(), try Self.freeAddress())
        let (ingressCluster, ownID) = (FlowMaker.cluster + 1, FlowMaker.relayID + 1)
        let relays = folder.path + "/relays-\(peer.port)"
        tables.paths.append(relays)
        try write("\(FlowMaker.relayID) \(ingressCluster) \(ingress)\n\(ownID) \(FlowMaker.cluster) \(own)\n", to: relays)
        let common = ["--relays", relays, "--transceivers", "table:\(try table(peer))"]
        let first = try relay(
            name, common + ["--trunk", "\(ingress)", "--cluster", "\(ingressCluster)", "--relay-id", "\(FlowMaker.relayID)"], options)
        do throws(CommandError) {
            let second = try relay(
                name, common + ["--trunk", "\(own)", "--cluster", "\(FlowMaker.cluster)", "--relay-id", "\(ownID)"], options)
            return LoadTarget(
                name: name, framing: .trunk, child: second.child, publicSide: first.publicSide, trunk: second.trunk,
                metrics: second.metrics, companion: first.child)
        } catch {
            first.end()
            throw error
        }
    }

    /// A file by which every transceiver lives at `peer`.
    private func table(_ peer: SocketAddress) throws(CommandError) -> String {
        let path = folder.path + "/table-\(peer.port)"
        tables.paths.append(path)
        try write((1...maker.transceivers).map { "\($0) \(peer)\n" }.joined(), to: path)
        return path
    }

    private func relay(_ name: String, _ own: [String], _ options: [String]) throws(CommandError) -> LoadTarget {
        var arguments = ["--listen", "127.0.0.1:0", "--key-file", folder.keyFile] + own
        for (option, value) in [("workers", "1"), ("flows", "\(max(262_144, flows))")]
        where !options.contains(where: { $0.hasPrefix(option + "=") }) {
            arguments += ["--\(option)", value]
        }
        for option in options {
            let parts = option.split(separator: "=", maxSplits: 1).map(String.init)
            arguments += ["--" + parts[0]] + parts.dropFirst()
        }
        let pinned = options.contains { $0.hasPrefix("workers=") && $0 != "workers=1" } ? nil : processor
        let child = try spawn(program, arguments, on: pinned)
        // It has read its table by the time it is ready.
        let ready = try child.waitFor("ready: public ", name)
        let metrics = child.said.compactMap { Self.address(in: $0, after: "metrics on http://") }.first
        guard let publicSide = Self.address(in: ready, after: "public "), let trunk = Self.address(in: ready, after: "trunk ") else {
            throw CommandError("\(name): cannot read '\(ready)'", status: 1)
        }
        return LoadTarget(
            name: name, framing: .trunk, child: child, publicSide: publicSide, trunk: trunk, metrics: metrics)
    }

    /// A transceiver for the relay at `relay`, on the address that a relay was told before.
    func transceiver(_ program: String?, backend: String, sessions: Int, trunk: SocketAddress, relay: SocketAddress, _ options: [String])
        throws(CommandError) -> LoadTarget
    {
        let name = "swiftlet-transceiver"
        var arguments = [
            "--signaling", "127.0.0.1:0", "--trunk", "\(trunk)", "--advertise", "\(relay)", "--key-file", folder.keyFile, "--cluster",
            "\(FlowMaker.cluster)", "--id", "1", "--backend", backend, "--sessions", "\(sessions)",
        ]
        if !options.contains(where: { $0.hasPrefix("workers=") }) { arguments += ["--workers", "1"] }
        for option in options {
            let parts = option.split(separator: "=", maxSplits: 1).map(String.init)
            arguments += ["--" + parts[0]] + parts.dropFirst()
        }
        let child = try spawn(program ?? Self.ownFolder() + "/" + name, arguments, on: processor)
        let ready = try child.waitFor("ready: ", name)
        guard let signaling = Self.address(in: ready, after: "http://") else {
            throw CommandError("\(name): cannot read '\(ready)'", status: 1)
        }
        return LoadTarget(name: name, framing: .none, child: child, publicSide: relay, trunk: trunk, metrics: signaling)
    }

    /// A server of somebody else, which says of itself where it is.
    func server(_ program: String) throws(CommandError) -> LoadTarget {
        let child = try spawn(program, [], on: processor)
        let ready = try child.waitFor("ready: ", program)
        guard let signaling = Self.address(in: ready, after: "http://"), let media = Self.address(in: ready, after: "media ") else {
            throw CommandError("\(program): cannot read '\(ready)'", status: 1)
        }
        let process = ready.split(separator: "process ", maxSplits: 1).dropFirst().first.flatMap { pid_t($0) }
        return LoadTarget(
            name: program, framing: .none, child: child, measured: process, publicSide: media, trunk: media, metrics: signaling)
    }

    private func yardstick(_ name: String, _ peer: SocketAddress) throws(CommandError) -> LoadTarget {
        let child = try spawn(Self.ownFolder() + "/swiftlet", ["bench", "yardstick", name, "\(peer)"], on: processor)
        let ready = try child.waitFor("ready: public ", name)
        guard let publicSide = Self.address(in: ready, after: "public "), let trunk = Self.address(in: ready, after: "trunk ") else {
            throw CommandError("\(name): cannot read '\(ready)'", status: 1)
        }
        return LoadTarget(name: name, framing: .none, child: child, publicSide: publicSide, trunk: trunk)
    }

    private static let nginxModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

    private func nginx(_ peer: SocketAddress) throws(CommandError) -> LoadTarget {
        let address = try Self.freeAddress()
        let path = folder.path
        let configuration = """
            load_module \(Self.nginxModule);
            daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 65536;
            pid \(path)/nginx.pid; error_log \(path)/nginx.log error;
            events { worker_connections 65536; multi_accept on; }
            stream { server { listen \(address) udp rcvbuf=4m sndbuf=4m; proxy_pass \(peer); proxy_timeout 300s; } }
            """
        try write(configuration + "\n", to: path + "/nginx.conf")
        let child = try spawn(
            Self.find("nginx") ?? "nginx", ["-p", path, "-e", path + "/nginx.log", "-c", path + "/nginx.conf"], on: processor)
        usleep(500_000)
        return LoadTarget(name: "nginx", framing: .none, child: child, publicSide: address, trunk: peer)
    }

    private func coturn() throws(CommandError) -> LoadTarget {
        let address = try Self.freeAddress()
        let path = folder.path
        try write("", to: path + "/turnserver.conf")
        let child = try spawn(
            Self.find("turnserver") ?? "turnserver",
            [
                "-c", path + "/turnserver.conf", "--no-auth", "--no-tls", "--no-dtls", "--no-cli", "--no-tcp", "--no-tcp-relay",
                "--no-software-attribute", "--listening-ip", "127.0.0.1", "--listening-port", "\(address.port)", "--relay-ip", "127.0.0.1",
                "--allow-loopback-peers", "--relay-threads", "1", "--min-port", "20000", "--max-port", "32000", "--no-rfc5780",
                "--log-file", "/dev/null", "--pidfile", path + "/turn.pid", "--db", path + "/turn.db",
                "--realm", "bench",
            ], on: processor)
        usleep(1_500_000)
        return LoadTarget(name: "coturn", framing: .turn, child: child, publicSide: address, trunk: address)
    }
}

// MARK: - Processes

extension LoadLauncher {
    private func spawn(_ path: String, _ arguments: [String], on processor: Int?) throws(CommandError) -> LoadChild {
        var ends: [CInt] = [0, 0]
        guard pipe2(&ends, O_CLOEXEC | O_NONBLOCK) == 0 else { throw CommandError("pipe: \(String(cString: strerror(errno)))", status: 1) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        posix_spawn_file_actions_adddup2(&actions, ends[1], 2)
        var words: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var process: pid_t = 0
        // A child inherits where its parent may run at its birth.
        if let processor { _ = crowd_pin(Int32(processor)) } else { _ = crowd_pin(-1) }
        let result = posix_spawn(&process, path, &actions, nil, &words, environ)
        if self.processor != nil { _ = crowd_pin(1) }
        close(ends[1])
        guard result == 0 else {
            close(ends[0])
            throw CommandError("\(path): \(String(cString: strerror(result)))", status: 1)
        }
        return LoadChild(process, ends[0])
    }

    private func write(_ text: String, to path: String) throws(CommandError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        let bytes = Array(text.utf8)
        guard descriptor >= 0, Glibc.write(descriptor, bytes, bytes.count) == bytes.count, close(descriptor) == 0 else {
            throw CommandError("\(path): \(String(cString: strerror(errno)))", status: 1)
        }
    }

    private static func address(in line: String, after word: String) -> SocketAddress? {
        let parts = line.split(separator: word, maxSplits: 1)
        guard parts.count == 2 else { return nil }
        return SocketAddress(String(parts[1].prefix { $0 != "," && $0 != " " && $0 != "/" }))
    }

    /// An address that nobody had a moment ago, for programs that cannot choose one themselves.
    static func freeAddress() throws(CommandError) -> SocketAddress {
        do throws(Errno) { return try DatagramSocket(boundTo: SocketAddress(.v4Loopback, port: 0)).localAddress } catch {
            throw CommandError("a free port: \(error)", status: 1)
        }
    }

    private static func find(_ name: String) -> String? {
        ["/usr/sbin/", "/usr/bin/", "/usr/local/sbin/", "/usr/local/bin/"].map { $0 + name }.first { access($0, X_OK) == 0 }
    }

    /// Where this program lies: its siblings lie beside it.
    static func ownFolder() -> String {
        var path = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &path, path.count - 1)
        guard count > 0 else { return "." }
        let text = String(decoding: path[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return text.lastIndex(of: "/").map { String(text[..<$0]) } ?? "."
    }
}
