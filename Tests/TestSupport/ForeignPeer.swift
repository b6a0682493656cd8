// A program that is not ours, at the other end of a stream: its standard input is one end of a socket pair.

import Glibc
import Primitives

/// A Python script of `Tests/Peers` that speaks some protocol over file descriptor 0.
public final class ForeignPeer {
    private var pid: pid_t = 0
    private let socket: CInt

    /// The Python of the end-to-end tests' environment, if there is one: `SWIFTLET_TEST_VENV`, or `.build/venv`, which `make e2e` makes.
    public static let python: String? = {
        let given = getenv("SWIFTLET_TEST_VENV").map { String(cString: $0) }
        let candidates = [given, "\(Corpus.testsFolder)/../.build/venv"].compactMap { $0.map { "\($0)/bin/python" } }
        return candidates.first { access($0, X_OK) == 0 }
    }()

    /// - Parameter arguments: behind the script's name; a failure to start fails the test run.
    public init(_ script: String, _ arguments: [String]) {
        guard let python = Self.python else { fatalError("no Python: ask ForeignPeer.python before") }
        var ends: [CInt] = [0, 0]
        guard socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &ends) == 0 else { fatalError("socketpair: errno \(errno)") }
        socket = ends[0]
        _ = fcntl(ends[0], F_SETFD, FD_CLOEXEC)
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, ends[1], 0)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let words = [python, "\(Corpus.testsFolder)/Peers/\(script)"] + arguments
        var strings: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for string in strings { free(string) } }
        let result = posix_spawn(&pid, python, &actions, nil, &strings, environ)
        guard result == 0 else { fatalError("cannot start \(python): errno \(result)") }
        close(ends[1])
    }

    deinit {
        close(socket)
        kill(pid, SIGKILL)
        var status: CInt = 0
        waitpid(pid, &status, 0)
    }

    /// Writes as many of `bytes` as there is room for, and tells how many.
    public func write(_ bytes: RawSpan) -> Int {
        guard bytes.byteCount > 0 else { return 0 }
        return max(0, bytes.withUnsafeBytes { send(socket, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL)) })
    }

    /// What has come; empty at the end of the stream, nil when nothing came for 20 ms.
    public func read() -> [UInt8]? {
        var entry = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, 20) > 0 else { return nil }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = recv(socket, &buffer, buffer.count, 0)
        return Array(buffer.prefix(max(0, count)))
    }

    /// The peer sees the end of our stream.
    public func finish() { shutdown(socket, CInt(SHUT_WR)) }
}
