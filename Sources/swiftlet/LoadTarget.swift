import CBench
import EventLoop
import Glibc
import Primitives

/// A program that is measured: a process of its own on its own processor.
struct LoadTarget {
    /// How packets look on the trunk side.
    enum Framing {
        /// Trunk frames: a Swiftlet relay.
        case trunk
        /// As they came.
        case none
        /// As they came, while the client wraps them in a TURN channel.
        case turn
    }

    let name: String
    let framing: Framing
    let child: LoadChild
    var process: pid_t { child.process }
    /// The process that moves packets: a relay's keeper only waits for it.
    var worker: pid_t {
        let children = readFile("/proc/\(process)/task/\(process)/children", limit: 4096) ?? []
        let first = String(decoding: children, as: UTF8.self).split(separator: " ").first
        return first.flatMap { pid_t($0) } ?? process
    }
    /// The process that is measured, where it is not `process`: that one only speaks for it.
    var measured: pid_t?
    let publicSide: SocketAddress
    /// Where frames for its clients go, where all go to one place.
    let trunk: SocketAddress
    /// `http://HOST:PORT` of its counters, where it was asked for.
    var metrics: SocketAddress?
    /// Another process that packets also go through, which is not measured.
    var companion: LoadChild?

    var headroom: Int { framing == .turn ? 4 : 0 }
    var isRelay: Bool { framing == .trunk }

    func end() {
        Self.end(process)
        if let companion { Self.end(companion.process) }
    }

    private static func end(_ process: pid_t) {
        guard process > 0 else { return }
        kill(process, SIGTERM)
        var status: CInt = 0
        for _ in 0..<300 {
            if waitpid(process, &status, WNOHANG) == process { return }
            usleep(10_000)
        }
        kill(process, SIGKILL)
        waitpid(process, &status, 0)
    }
}

/// What a process has used since its start.
struct ProcessUsage {
    var time: Int64
    var voluntarySwitches: Int
    var involuntarySwitches: Int

    init(_ process: pid_t) {
        time = crowd_process_time(process)
        voluntarySwitches = 0
        involuntarySwitches = 0
        for thread in Self.threads(process) {
            let status = Self.status("/proc/\(process)/task/\(thread)/status")
            voluntarySwitches += status["voluntary_ctxt_switches"] ?? 0
            involuntarySwitches += status["nonvoluntary_ctxt_switches"] ?? 0
        }
    }

    /// Nanoseconds that each thread has run, by the thread's name.
    static func threadTimes(_ process: pid_t) -> [String: Int64] {
        var times: [String: Int64] = [:]
        for thread in threads(process) {
            let folder = "/proc/\(process)/task/\(thread)"
            guard let name = readFile(folder + "/comm", limit: 64), let text = readFile(folder + "/schedstat", limit: 128) else { continue }
            let time = String(decoding: text, as: UTF8.self).split(separator: " ").first.flatMap { Int64($0) } ?? 0
            times[String(decoding: name.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self), default: 0] += time
        }
        return times
    }

    /// Resident memory in KiB: now, and at most.
    static func memory(_ process: pid_t) -> (now: Int, peak: Int) {
        let status = status("/proc/\(process)/status")
        return (status["VmRSS"] ?? 0, status["VmHWM"] ?? 0)
    }

    /// Nanoseconds that all processors together were not idle since the machine started, in steps of 10 ms.
    static var machineTime: Int64 {
        guard let content = readFile("/proc/stat", limit: 65_536) else { return 0 }
        let words = String(decoding: content, as: UTF8.self).prefix { $0 != "\n" }.split(separator: " ").dropFirst().prefix(8).map(
            String.init)
        // user, nice, system, idle, iowait, irq, softirq, steal
        let numbers = words.map { Int64($0) ?? 0 }
        return numbers.count < 8 ? 0 : (numbers.reduce(0, +) - numbers[3] - numbers[4]) * 10_000_000
    }

    private static func threads(_ process: pid_t) -> [String] {
        guard let folder = opendir("/proc/\(process)/task") else { return [] }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if Int(name) != nil { names.append(name) }
        }
        return names
    }

    /// The numbers of a file of `NAME: NUMBER` lines.
    private static func status(_ path: String) -> [String: Int] {
        guard let content = readFile(path, limit: 16_384) else { return [:] }
        var numbers: [String: Int] = [:]
        for line in String(decoding: content, as: UTF8.self).split(separator: "\n") {
            let parts = line.split(whereSeparator: { $0 == ":" || $0 == "\t" || $0 == " " })
            if parts.count >= 2, let number = Int(parts[1]) { numbers[String(parts[0])] = number }
        }
        return numbers
    }
}

/// A child and what it says.
final class LoadChild {
    let process: pid_t
    private let output: CInt
    private(set) var said: [String] = []

    init(_ process: pid_t, _ output: CInt) {
        self.process = process
        self.output = output
    }

    deinit { close(output) }

    /// The line with `text` in it; what it has said, as an error, when it ends or takes too long.
    func waitFor(_ text: String, _ name: String) throws(CommandError) -> String {
        var partial: [UInt8] = []
        for _ in 0..<1000 {
            var chunk = [UInt8](repeating: 0, count: 4096)
            let count = read(output, &chunk, chunk.count)
            if count == 0 { break }
            if count < 0 {
                usleep(10_000)
                continue
            }
            for byte in chunk[..<count] {
                guard byte == UInt8(ascii: "\n") else {
                    partial.append(byte)
                    continue
                }
                said.append(String(decoding: partial, as: UTF8.self))
                partial = []
            }
            if let line = said.last(where: { $0.contains(text) }) { return line }
        }
        throw CommandError("\(name) did not start: \(said.joined(separator: " / "))", status: 1)
    }
}
