import Glibc

/// What `up` hands to its two programs in files: a folder of its own that only this user may read, gone with the end.
struct RuntimeFolder {
    let path: String
    var keyFile: String { path + "/keys.json" }
    var table: String { path + "/transceivers" }

    init() throws(CommandError) {
        let base = getenv("XDG_RUNTIME_DIR").map { String(cString: $0) } ?? "/tmp"
        var template = Array((base + "/swiftlet-XXXXXX").utf8CString)
        guard template.withUnsafeMutableBufferPointer({ mkdtemp($0.baseAddress!) != nil }) else {
            throw CommandError("\(base): \(String(cString: strerror(errno)))", status: 1)
        }
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    /// Replaces the table in one step, so that a reader never sees half of it.
    func writeTable(_ text: String) throws(CommandError) {
        let fresh = table + ".new"
        let descriptor = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        let bytes = Array(text.utf8)
        guard descriptor >= 0, write(descriptor, bytes, bytes.count) == bytes.count, close(descriptor) == 0, rename(fresh, table) == 0
        else {
            throw CommandError("\(table): \(String(cString: strerror(errno)))", status: 1)
        }
    }

    func remove() {
        for name in [keyFile, table, table + ".new", path + "/flows", path + "/takeover"] { unlink(name) }
        rmdir(path)
    }
}
