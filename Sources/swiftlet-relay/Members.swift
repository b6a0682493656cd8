// Members of the registry, and how they outlive what they came from: a worker process reads them from Redis and tells its keeper, which hands
// them to every worker with all other settings, and writes them into the runtime folder for the next keeper. So none of Redis, worker and
// keeper has to be there for a relay to know where transceivers are.

import Configuration
import EventLoop
import Glibc
import Membership
import Primitives
import Registrar
import RelayCore

/// What of members a relay needs: those of its cluster, and where they are.
func relevant(_ members: [Member], to cluster: UInt16) -> [Member] {
    members.filter { $0.id.cluster == cluster && $0.trunk != nil }.map { Member(id: $0.id, trunk: $0.trunk, signaling: $0.signaling) }
}

func lines(of members: [Member]) -> [UInt8] { Array(members.map { $0.line + "\n" }.joined().utf8) }

/// The members that an earlier keeper left in its runtime folder.
struct KeptMembers {
    private let path: String?

    init(in folder: String?) { path = folder.map { $0 + "/members" } }

    func read() -> [UInt8]? { path.flatMap { readFile($0, limit: Limits.memberFileBytes) } }

    /// Whole or not at all. A folder that is full or gone costs the next keeper a wait for Redis, and us nothing.
    func write(_ bytes: [UInt8]) {
        guard let path else { return }
        let draft = path + ".new"
        let descriptor = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return }
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { break }
            rest = rest.dropFirst(count)
        }
        close(descriptor)
        if rest.isEmpty { rename(draft, path) } else { unlink(draft) }
    }
}

extension Keeper {
    /// A worker has news of the registry.
    mutating func takeMembers(_ descriptor: consuming FileDescriptor) {
        guard let memory = try? SharedMemory(adopting: descriptor), memory.byteCount <= Limits.memberFileBytes,
            let bytes = try? memory.head(memory.byteCount)
        else { return }
        do throws(ConfigurationError) {
            let fresh = try settings.replacing(members: bytes, arguments)
            guard fresh.members != settings.members else { return }
            storedSettings = try fresh.store()
            settings = fresh
        } catch { return log("members: \(error)") }
        KeptMembers(in: folder).write(bytes)
        useSettings()
    }
}

/// A worker process's side.
struct MemberReader {
    let board: RegistryBoard
    /// Rings when there is news.
    let waker: Waker
    private let cluster: UInt16
    private var readAt: Instant?
    private var members: [Member]

    /// Begins to read; nil when there is no registry.
    static func start(_ settings: RelaySettings) throws(ConfigurationError) -> MemberReader? {
        guard case .registry(let address) = settings.options.transceivers else { return nil }
        let waker = try orFail("members") { () throws(Errno) in try Waker() }
        let board = try orFail("members") { () throws(Errno) in try RegistryBoard(waking: waker) }
        let key = settings.keys.ring.passwordKey
        let start = RegistryStart(
            address, authorities: settings.redisAuthorities, passwordKey: key, own: nil, known: settings.members, board: board,
            log: { log($0) })
        _ = try orFail("members") { () throws(Errno) in try RegistryThread.start(start) }
        return MemberReader(board: board, waker: waker, cluster: settings.options.cluster, members: settings.members)
    }

    /// At every news, and once a second: tells the keeper until it has told us the same.
    mutating func tell(_ keeper: borrowing MessageSocket, who current: [Member]) {
        let view = board.current
        if let at = view.readAt, at != readAt {
            readAt = at
            members = relevant(view.book.all, to: cluster)
        }
        guard readAt != nil, members != current else { return }
        let bytes = lines(of: members) + [0x0A]
        guard let memory = try? SharedMemory(anonymous: "swiftlet-members", byteCount: bytes.count),
            (try? memory.setHead(bytes)) != nil
        else { return }
        try? keeper.send([RelayMessage.members.rawValue], descriptors: [memory.descriptor.rawValue])
    }

    private init(board: RegistryBoard, waker: Waker, cluster: UInt16, members: [Member]) {
        self.board = board
        self.waker = waker
        self.cluster = cluster
        self.members = members
    }
}
