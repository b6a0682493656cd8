import EventLoop
import Glibc
import Primitives

/// `swiftlet top`: what the dashboards show, in a terminal.
enum Top {
    static let help = """
        usage: swiftlet top [--relay URL] [--transceiver URL] [--once yes]

        The dashboards' numbers, once a second: traffic and batches of each worker, CPU, context switches, latency, flows and sessions, drops by
        reason. q or Ctrl-C ends it.

          --relay URL        the relay's --metrics address (http://127.0.0.1:9090)
          --transceiver URL  where the transceiver's signaling is (http://127.0.0.1:8080)
          --once yes         one picture, after two seconds, without colours; status 1 when a program could not be asked

        Without either URL both defaults are asked, and whoever does not answer is left out.
        """

    static func run(_ arguments: [String]) throws(CommandError) {
        // A flag without a value reads better here.
        let arguments = arguments.flatMap { $0 == "--once" ? ["--once=yes"] : [$0] }
        guard let given = try Arguments(arguments.filter { $0 != "yes" }, names: ["--relay", "--transceiver", "--once"], help: help) else {
            return
        }
        let isChosen = given["--relay"] != nil || given["--transceiver"] != nil
        var sources: [TopSource] = []
        for (name, fallback) in [("--relay", "127.0.0.1:9090"), ("--transceiver", "127.0.0.1:8080")] {
            guard let url = given[name] ?? (isChosen ? nil : fallback) else { continue }
            guard let address = Fetch.address(url) else { throw CommandError("\(name): '\(url)' is no http://ADDRESS:PORT") }
            sources.append(TopSource(String(name.dropFirst(2)), address))
        }
        if given["--once"] == nil { try show(&sources) } else { try showOnce(&sources, isChosen) }
    }

    private static func showOnce(_ sources: inout [TopSource], _ isChosen: Bool) throws(CommandError) {
        let end = MonotonicClock.now() + .seconds(8)
        while sources.contains(where: { !$0.isReady && $0.problem == nil }), MonotonicClock.now() < end { wait(&sources, keyboard: false) }
        for source in sources where source.isReady || isChosen {
            for line in TopFrame(width: 200, colours: false).lines(of: source) { say(line) }
        }
        let silent = sources.filter { !$0.isReady }
        if isChosen ? !silent.isEmpty : silent.count == sources.count {
            let reasons = silent.map { "\($0.name) at \($0.address): \($0.problem ?? "says nothing")" }
            throw CommandError(reasons.joined(separator: "; "), status: 1)
        }
    }

    /// Until the reader has enough.
    private static func show(_ sources: inout [TopSource]) throws(CommandError) {
        var terminal: Terminal
        do throws(CommandError) { terminal = try Terminal() } catch { throw error }
        while true {
            wait(&sources, keyboard: true)
            while let key = terminal.key() {
                // q, Ctrl-C, Ctrl-D, Escape.
                if [0x71, 0x51, 3, 4, 27].contains(key) { return }
            }
            let size = terminal.size
            var lines: [String] = []
            let frame = TopFrame(width: size.columns, colours: true)
            for source in sources { lines += frame.lines(of: source) + [""] }
            terminal.draw(lines, size)
        }
    }

    /// Until somebody says something, half a second at most.
    private static func wait(_ sources: inout [TopSource], keyboard: Bool) {
        var polls = sources.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
        if keyboard { polls.append(pollfd(fd: 0, events: Int16(POLLIN), revents: 0)) }
        _ = poll(&polls, nfds_t(polls.count), 500)
        let now = MonotonicClock.now()
        for index in sources.indices { sources[index].advance(to: now) }
    }
}

/// The terminal without line editing, on its other screen; as it was before, afterwards.
struct Terminal: ~Copyable {
    private var before = termios()

    init() throws(CommandError) {
        guard isatty(0) == 1, isatty(1) == 1, tcgetattr(0, &before) == 0 else {
            throw CommandError("this is no terminal; --once prints one picture")
        }
        var raw = before
        cfmakeraw(&raw)
        raw.c_oflag = before.c_oflag
        tcsetattr(0, TCSANOW, &raw)
        Self.write("\u{1B}[?1049h\u{1B}[?25l")
    }

    deinit {
        Self.write("\u{1B}[?25h\u{1B}[?1049l")
        var before = before
        tcsetattr(0, TCSANOW, &before)
    }

    struct Size {
        var columns: Int
        var rows: Int
    }

    /// Asked each time: windows change.
    var size: Size {
        var size = winsize()
        guard ioctl(1, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return Size(columns: 80, rows: 24) }
        return Size(columns: Int(size.ws_col), rows: Int(size.ws_row))
    }

    func key() -> UInt8? {
        var waiting = pollfd(fd: 0, events: Int16(POLLIN), revents: 0)
        guard poll(&waiting, 1, 0) == 1 else { return nil }
        var byte: UInt8 = 0
        // The terminal is gone when there is nothing to read: as good as a q.
        return read(0, &byte, 1) == 1 ? byte : 4
    }

    /// Over what was there, without a flash: each line is cleared behind its end.
    func draw(_ lines: [String], _ size: Size) {
        let visible = lines.prefix(size.rows - 1)
        Self.write("\u{1B}[H" + visible.map { $0 + "\u{1B}[K\n" }.joined() + "\u{1B}[J\u{1B}[2mq ends\u{1B}[0m\u{1B}[K")
    }

    private static func write(_ text: String) {
        let bytes = Array(text.utf8)
        var start = 0
        while start < bytes.count {
            let count = bytes[start...].withUnsafeBytes { Glibc.write(1, $0.baseAddress, $0.count) }
            if count <= 0 { return }
            start += count
        }
    }
}
