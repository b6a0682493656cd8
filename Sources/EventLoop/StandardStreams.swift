// Words for the operator: whole lines, written at once, so that those of several threads or programs do not mix.

import Glibc

/// One line to standard output.
public func say(_ line: String) { writeLine(line, to: 1) }

/// One line to standard error, where the service manager collects it.
public func complain(_ line: String) { writeLine(line, to: 2) }

private func writeLine(_ line: String, to descriptor: CInt) {
    let bytes = Array((line + "\n").utf8)
    var written = 0
    while written < bytes.count {
        let count = bytes[written...].withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        guard count > 0 || errno == EINTR else { return }
        written += max(count, 0)
    }
}
