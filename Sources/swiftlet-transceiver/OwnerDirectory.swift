import Configuration
import EventLoop
import Membership
import Primitives
import Registrar
import TransceiverCore

/// What a registry needs of this transceiver.
struct Registration {
    /// As others reach it.
    let own: Member
    let passwordKey: [UInt8]
    /// Whom to trust about its certificate, in PEM; nil: the system's authorities.
    let authorities: [UInt8]?

    /// The content of `--redis-ca`.
    static func authorities(_ path: String?) throws(ConfigurationError) -> [UInt8]? {
        guard let path else { return nil }
        guard let content = readFile(path, limit: Limits.configurationFileBytes) else {
            throw ConfigurationError("--redis-ca: cannot read \(path)")
        }
        guard RedisSocket.isAuthority(content) else { throw ConfigurationError("--redis-ca: \(path) has no certificate in PEM") }
        return content
    }
}

/// Where the signaling of other transceivers is.
struct OwnerDirectory {
    private let source: MembersSource
    private let own: MemberID
    private var board: RegistryBoard?
    private var readAt: Instant?
    /// Calls given to others since the last reading, which does not know them.
    private var given: [MemberID: UInt32] = [:]
    private var book = MemberBook()
    private var stamp: FileStamp?
    private var nextLook = Instant(nanoseconds: 0)

    init(_ source: MembersSource, _ registration: Registration, at now: Instant) throws(ConfigurationError) {
        self.source = source
        own = registration.own.id
        if case .registry(let address) = source {
            do throws(Errno) {
                let board = try RegistryBoard(waking: nil)
                let log: @Sendable (String) -> Void = { complain("swiftlet-transceiver: \($0)") }
                _ = try RegistryThread.start(
                    RegistryStart(
                        address, authorities: registration.authorities, passwordKey: registration.passwordKey, own: registration.own,
                        board: board, log: log))
                self.board = board
            } catch { throw ConfigurationError("--members: \(error)") }
        }
        guard case .file(let path) = source else { return }
        stamp = FileStamp(path)
        do throws(MemberFileProblem) { book.read(try Self.members(path), at: now) } catch {
            throw ConfigurationError("--members: \(error.description)")
        }
    }

    func signaling(of owner: CallOwner) -> SocketAddress? {
        switch source {
        case .file, .registry: return book.signaling(of: MemberID(cluster: owner.cluster, transceiver: owner.transceiver))
        case .direct(let prefix, let port):
            let ip = IPAddress(v4: owner.transceiver)
            guard prefix.contains(ip), !ip.isAny, !ip.isMulticast, owner.transceiver != .max else { return nil }
            return SocketAddress(ip, port: port)
        }
    }

    /// Who shall have a call that has no place here; nil: nobody has.
    mutating func place() -> SocketAddress? {
        guard let member = book.leastLoaded(in: own.cluster, but: own, given: given) else { return nil }
        given[member.id, default: 0] += 1
        return member.signaling
    }

    /// What the registry says, or has said; nil without one.
    var registry: RegistryBoard.View? { board?.current }

    /// How this transceiver is, for the others.
    func describe(load: Int, isDraining: Bool) { board?.describe(load: UInt32(clamping: load), isDraining ? .draining : .serving) }

    /// Takes what the registry has read since the last look.
    mutating func lookAtBoard() {
        guard let view = board?.current, view.readAt != readAt else { return }
        readAt = view.readAt
        book = view.book
        given = [:]
    }

    /// Looks once a second whether the file has changed. One with a mistake changes nothing.
    mutating func advance(to now: Instant) {
        guard now >= nextLook else { return }
        nextLook = now + .seconds(1)
        lookAtBoard()
        guard case .file(let path) = source, let stamp = FileStamp(path), stamp != self.stamp else { return }
        self.stamp = stamp
        do throws(MemberFileProblem) {
            book.read(try Self.members(path), at: now)
            say("swiftlet-transceiver: \(book.presentCount) members read from \(path)")
        } catch {
            complain("swiftlet-transceiver: \(error.description); the members of before stay")
        }
    }

    private static func members(_ path: String) throws(MemberFileProblem) -> [Member] {
        guard let content = readFile(path, limit: Limits.memberFileBytes) else {
            throw MemberFileProblem(description: "cannot read \(path)")
        }
        do throws(MemberError) { return try Member.file(parsing: String(decoding: content, as: UTF8.self)) } catch {
            throw MemberFileProblem(description: "\(path): \(error)")
        }
    }
}

private struct MemberFileProblem: Error {
    let description: String
}
