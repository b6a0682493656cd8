// Memory that outlives the process that maps it: an anonymous file that is handed on as a descriptor, or a file in a folder.
import CLinux
import Glibc
import Primitives

/// A file in memory, or on a file system, as something to map.
public struct SharedMemory: ~Copyable, Sendable {
    public let descriptor: FileDescriptor
    /// Its length now.
    public let byteCount: Int

    /// A memory file without a name in any folder (`memfd_create`), all zeros. Nobody can make it shorter.
    public init(anonymous name: String, byteCount: Int) throws(Errno) {
        let descriptor = FileDescriptor(owning: try Syscall.memoryFile(name))
        try Syscall.resize(descriptor.rawValue, byteCount)
        try Syscall.forbidShrinking(descriptor.rawValue)
        self.init(descriptor, byteCount: byteCount)
    }

    /// Opens the file at `path`, or makes an empty one that only this user may read. A symbolic link is refused. Throws `.wouldBlock` when
    /// another process that is not ours by inheritance holds it: the lock lives as long as any copy of the descriptor.
    public init(lockedFile path: String) throws(Errno) {
        let descriptor = FileDescriptor(owning: try Syscall.openPrivately(path))
        try Syscall.lockWhole(descriptor.rawValue)
        try self.init(adopting: descriptor)
    }

    /// Takes over a descriptor made elsewhere. Throws `.invalidArgument` when it is nothing that can be mapped safely.
    public init(adopting descriptor: consuming FileDescriptor) throws(Errno) {
        let length = try Syscall.regularFileLength(descriptor.rawValue)
        self.init(descriptor, byteCount: length)
    }

    private init(_ descriptor: consuming FileDescriptor, byteCount: Int) {
        self.descriptor = descriptor
        self.byteCount = byteCount
    }

    /// The same file, empty first and then `byteCount` zeros. Nobody may have it mapped.
    public consuming func replaced(byteCount: Int) throws(Errno) -> SharedMemory {
        try Syscall.resize(descriptor.rawValue, 0)
        try Syscall.resize(descriptor.rawValue, byteCount)
        return SharedMemory(descriptor, byteCount: byteCount)
    }

    /// Has the file system set aside all of it, so that no page is missing when it is written. Throws `.noSpace` when there is no room;
    /// without this, a process that writes to a page for which there is none is killed (SIGBUS).
    public func reserve() throws(Errno) {
        let error = posix_fallocate(descriptor.rawValue, 0, byteCount)
        guard error == 0 else { throw Errno(rawValue: error) }
    }

    /// The first bytes, as many as there are, without mapping them.
    public func head(_ count: Int) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let read = try Syscall.read(descriptor.rawValue, at: 0, &bytes)
        return Array(bytes[..<read])
    }

    /// Replaces the first bytes.
    public func setHead(_ bytes: [UInt8]) throws(Errno) { try Syscall.write(descriptor.rawValue, at: 0, bytes) }

    /// Maps bytes `range`, whose bounds are multiples of 4096 inside the file, to read and write, for the rest of the process's life.
    @unsafe public func map(_ range: Range<Int>) throws(Errno) -> UnsafeMutableRawPointer {
        precondition(range.lowerBound >= 0 && range.upperBound <= byteCount && !range.isEmpty)
        return try Syscall.mapShared(descriptor.rawValue, range)
    }
}

/// Tells one start of one machine from every other (`boot_id`): 16 bytes.
public func bootIdentity() -> [UInt8] {
    let text = readFile("/proc/sys/kernel/random/boot_id", limit: 64) ?? []
    var digits: [UInt8] = []
    for byte in text { if let digit = Character(UnicodeScalar(byte)).hexDigitValue { digits.append(UInt8(digit)) } }
    guard digits.count == 32 else { return [UInt8](repeating: 0, count: 16) }
    return (0..<16).map { digits[2 * $0] << 4 | digits[2 * $0 + 1] }
}

extension Syscall {
    fileprivate static func memoryFile(_ name: String) throws(Errno) -> CInt {
        try retrying { memfd_create(name, CUnsignedInt(MFD_CLOEXEC | MFD_ALLOW_SEALING)) }
    }
    fileprivate static func resize(_ descriptor: CInt, _ byteCount: Int) throws(Errno) {
        _ = try retrying { ftruncate(descriptor, byteCount) }
    }
    fileprivate static func forbidShrinking(_ descriptor: CInt) throws(Errno) {
        _ = try retrying { fcntl(descriptor, CInt(clinux_add_seals), CInt(clinux_seal_shrink)) }
    }
    fileprivate static func openPrivately(_ path: String) throws(Errno) -> CInt {
        try retrying { clinux_open_privately(path) }
    }
    fileprivate static func lockWhole(_ descriptor: CInt) throws(Errno) { _ = try retrying { flock(descriptor, LOCK_EX | LOCK_NB) } }

    fileprivate static func regularFileLength(_ descriptor: CInt) throws(Errno) -> Int {
        var status = stat()
        _ = try retrying { fstat(descriptor, &status) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .invalidArgument }
        return Int(status.st_size)
    }
    fileprivate static func read(_ descriptor: CInt, at offset: Int, _ bytes: inout [UInt8]) throws(Errno) -> Int {
        let count = bytes.count
        return try retrying { pread(descriptor, &bytes, count, offset) }
    }
    fileprivate static func write(_ descriptor: CInt, at offset: Int, _ bytes: [UInt8]) throws(Errno) {
        let written = try retrying { pwrite(descriptor, bytes, bytes.count, offset) }
        guard written == bytes.count else { throw .noBufferSpace }
    }
    fileprivate static func mapShared(_ descriptor: CInt, _ range: Range<Int>) throws(Errno) -> UnsafeMutableRawPointer {
        let address = mmap(nil, range.count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, range.lowerBound)
        let number = errno
        guard let address, address != MAP_FAILED else { throw Errno(rawValue: number) }
        return address
    }
}
