import Configuration
import EventLoop
import Membership
import Primitives
import TransceiverCore

/// Where the signaling of other transceivers is.
struct OwnerDirectory {
    private let source: MembersSource
    private var book = MemberBook()
    private var stamp: FileStamp?
    private var nextLook = Instant(nanoseconds: 0)

    init(_ source: MembersSource, at now: Instant) throws(ConfigurationError) {
        self.source = source
        guard case .file(let path) = source else { return }
        stamp = FileStamp(path)
        do throws(MemberFileProblem) { book.read(try Self.members(path), at: now) } catch {
            throw ConfigurationError("--members: \(error.description)")
        }
    }

    func signaling(of owner: CallOwner) -> SocketAddress? {
        switch source {
        case .file: return book.signaling(of: MemberID(cluster: owner.cluster, transceiver: owner.transceiver))
        case .direct(let prefix, let port):
            let ip = IPAddress(v4: owner.transceiver)
            guard prefix.contains(ip), !ip.isAny, !ip.isMulticast, owner.transceiver != .max else { return nil }
            return SocketAddress(ip, port: port)
        }
    }

    /// Looks once a second whether the file has changed. One with a mistake changes nothing.
    mutating func advance(to now: Instant) {
        guard case .file(let path) = source, now >= nextLook else { return }
        nextLook = now + .seconds(1)
        guard let stamp = FileStamp(path), stamp != self.stamp else { return }
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
