// Words for the operator: whole lines, written at once, so that those of several threads or programs do not mix. A line that nobody can take,
// because a disk is full or whoever reads the pipe has gone or hangs, is lost: nothing waits for it.

import Glibc

/// One line to standard output.
public func say(_ line: String) { writeLine(line, to: 1) }

/// One line to standard error, where the service manager collects it.
public func complain(_ line: String) { writeLine(line, to: 2) }

/// How long a reader that is behind may take, in milliseconds.
private let patience: CInt = 100

private func writeLine(_ line: String, to descriptor: CInt) {
    var state = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    guard poll(&state, 1, patience) != 0 else { return }
    let bytes = Array((line + "\n").utf8)
    var written = 0
    while written < bytes.count {
        let count = bytes[written...].withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        guard count > 0 || errno == EINTR else { return }
        written += max(count, 0)
    }
}
