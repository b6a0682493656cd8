// From the options' words to what the core takes.

import Configuration
import EventLoop
import Primitives
import RelayCore

extension TransceiverDirectory {
    /// `stamp` of a table tells whether its file has changed.
    static func load(_ source: TransceiverSource) throws(ConfigurationError) -> (directory: TransceiverDirectory, stamp: FileStamp?) {
        switch source {
        case .direct(let prefix, let port): return (.direct(prefix, port: port), nil)
        case .table(let path):
            let stamp = FileStamp(path)
            guard let content = readFile(path, limit: Limits.tableFileBytes) else {
                throw ConfigurationError("--transceivers: cannot read \(path)")
            }
            do throws(TransceiverDirectoryError) {
                return (try TransceiverDirectory(parsingTable: String(decoding: content, as: UTF8.self)), stamp)
            } catch { throw ConfigurationError("--transceivers: \(path): \(error)") }
        }
    }
}
