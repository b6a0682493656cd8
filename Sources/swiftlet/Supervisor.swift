// Two children, their output, and their ends.

import EventLoop
import Glibc
import Primitives

struct Supervisor: ~Copyable {
    private struct Child {
        let name: String
        let arguments: [String]
        var process: pid_t
        /// The reading end of its standard output.
        var output: CInt
        var line: [UInt8] = []
        var hasBeenReady = false
        var restarts = 0
        var startAgainAt = Instant.never
    }

    private let signals: SignalSource
    private var children: [Child] = []
    private let folder: String

    /// How long a child may take to become ready, and to end.
    private static let patience = Interval.seconds(10)
    /// A child that has died this often is not started again.
    private static let restartsMax = 20

    /// Made before any thread: the operator's signals are read, not handled.
    init() throws(Errno) {
        signals = try SignalSource()
        folder = Self.programFolder()
    }

    /// Starts the program `name` that lies beside this one.
    mutating func start(_ name: String, _ arguments: [String]) throws(CommandError) {
        var child = Child(name: name, arguments: arguments, process: 0, output: -1)
        try Self.launch(&child, in: folder)
        children.append(child)
    }

    /// The line with which child `index` says that it is ready; nil when it ends, or says nothing in time.
    mutating func waitForReady(_ index: Int) -> String? {
        let deadline = MonotonicClock.now() + Self.patience
        while MonotonicClock.now() < deadline {
            if let line = readyLine(index) { return line }
            if hasEnded(index) { return nil }
            pause(milliseconds: 50)
        }
        return nil
    }

    /// What to tell the operator about a child that did not become ready. Ends all children.
    mutating func failure(_ index: Int) -> CommandError {
        let name = children[index].name
        endAll(SIGINT)
        return CommandError("\(name) did not start; what it said is above", status: 1)
    }

    func signal(_ index: Int, _ number: CInt) { if children[index].process > 0 { kill(children[index].process, number) } }

    /// Until the operator wants an end: passes output on and starts again what has died. `becameReady` hears of every new ready line and
    /// may name a child that must read its files again.
    mutating func run(_ becameReady: (Int, String) -> Int?) {
        while true {
            while let signal = signals.next() {
                switch signal {
                case .hangup: continue
                case .interrupt: return endAll(SIGINT)
                case .terminate: return endAll(SIGTERM)
                }
            }
            let now = MonotonicClock.now()
            for index in children.indices {
                if let line = readyLine(index), let reader = becameReady(index, line) { signal(reader, SIGHUP) }
                if children[index].process > 0, hasEnded(index) { noteDeath(index, now) }
                if children[index].process == 0, children[index].startAgainAt <= now {
                    children[index].startAgainAt = .never
                    do throws(CommandError) { try Self.launch(&children[index], in: folder) } catch {
                        complain("swiftlet: \(error.message)")
                    }
                }
            }
            pause(milliseconds: 100)
        }
    }
}

extension Supervisor {
    private static func launch(_ child: inout Child, in folder: String) throws(CommandError) {
        var ends: [CInt] = [0, 0]
        guard pipe2(&ends, O_CLOEXEC | O_NONBLOCK) == 0 else { throw CommandError("pipe: \(String(cString: strerror(errno)))", status: 1) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // The children get their signals from us, in our order: a group of their own keeps the terminal's Ctrl-C from them. They must not
        // inherit that we have blocked signals.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))
        let path = folder + "/" + child.name
        var words: [UnsafeMutablePointer<CChar>?] = ([path] + child.arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var process: pid_t = 0
        let result = posix_spawn(&process, path, &actions, &attributes, &words, environ)
        close(ends[1])
        guard result == 0 else {
            close(ends[0])
            throw CommandError("\(path): \(String(cString: strerror(result)))", status: 1)
        }
        if child.output >= 0 { close(child.output) }
        child.process = process
        child.output = ends[0]
        child.hasBeenReady = false
        child.line = []
    }

    /// Reads what a child has printed, passes it on, and returns its ready line when it has just come.
    private mutating func readyLine(_ index: Int) -> String? {
        var found: String?
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(children[index].output, &chunk, chunk.count)
            guard count > 0 else { return found }
            for byte in chunk[..<count] {
                guard byte == UInt8(ascii: "\n") else {
                    if children[index].line.count < 4096 { children[index].line.append(byte) }
                    continue
                }
                let text = String(decoding: children[index].line, as: UTF8.self)
                children[index].line = []
                say(text)
                if !children[index].hasBeenReady, text.hasPrefix("\(children[index].name) ready") {
                    children[index].hasBeenReady = true
                    found = text
                }
            }
        }
    }

    private mutating func hasEnded(_ index: Int) -> Bool {
        guard children[index].process > 0 else { return true }
        var status: CInt = 0
        guard waitpid(children[index].process, &status, WNOHANG) == children[index].process else { return false }
        children[index].process = 0
        return true
    }

    private mutating func noteDeath(_ index: Int, _ now: Instant) {
        children[index].restarts += 1
        let restarts = children[index].restarts
        guard restarts <= Self.restartsMax else { return complain("swiftlet: \(children[index].name) keeps dying and is left alone") }
        // 0.1 s at first, doubling to 5 s: a port that is still taken, or a wrong flag, must not make a storm.
        let wait = min(Interval.milliseconds(100 << Int64(min(restarts - 1, 6))), .seconds(5))
        complain("swiftlet: \(children[index].name) has ended; starting it again in \(wait.milliseconds) ms")
        children[index].startAgainAt = now + wait
    }

    /// Hands our own signal on, to the transceiver first, so that its goodbyes still find a relay; SIGKILL to who does not listen. With
    /// SIGTERM the transceiver drains, and takes its time.
    private mutating func endAll(_ number: CInt) {
        for index in children.indices.reversed() {
            signal(index, number)
            let deadline = number == SIGTERM ? Instant.never : MonotonicClock.now() + Self.patience
            while children[index].process > 0, !hasEnded(index) {
                _ = readyLine(index)
                if MonotonicClock.now() > deadline { signal(index, SIGKILL) }
                pause(milliseconds: 10)
            }
            _ = readyLine(index)
        }
    }

    private func pause(milliseconds: Int) {
        var time = timespec(tv_sec: 0, tv_nsec: milliseconds * 1_000_000)
        nanosleep(&time, nil)
    }

    /// Where this program lies: its siblings lie beside it.
    private static func programFolder() -> String {
        var path = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &path, path.count - 1)
        guard count > 0 else { return "." }
        let text = String(decoding: path[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return text.lastIndex(of: "/").map { String(text[..<$0]) } ?? "."
    }
}
