// What is read from files, and may change while a relay runs: keys, the tables of transceivers and of other relays, and those options of the
// configuration file that need no new socket and no other memory; and whom the registry knows, which a worker tells. The keeper reads and checks all of it, and hands workers the bytes that it has checked. So a file that
// is bad later harms neither the worker that runs nor the one that takes its place.

import Configuration
import Crypto
import EventLoop
import Membership
import Primitives
import Registrar
import RelayCore
import RoutingHint

/// The keys, shared by reference until every worker has made its contexts.
final class KeyRingBox: Sendable {
    let ring: KeyRing
    init(_ ring: KeyRing) { self.ring = ring }
}

struct RelaySettings: Sendable {
    let options: RelayOptions
    let keys: KeyRingBox
    let directory: TransceiverDirectory
    let relays: RelayDirectory
    /// Of the tables' files when they were read: others mean that they have changed.
    let tableStamp: TableStamp
    /// Whom to trust about Redis' certificate: the content of `--redis-ca`; nil: the system's authorities.
    let redisAuthorities: [UInt8]?
    private let files: SettingsFiles

    /// Whom the registry of members knows; empty without one.
    let members: [Member]

    /// Reads every file anew.
    ///
    /// - Parameter members: lines of those who are known, where there is a registry.
    static func read(_ arguments: [String], members: [UInt8]? = nil) throws(ConfigurationError) -> RelaySettings {
        try RelaySettings(arguments) { file, path, limit in file == .members ? members : readFile(path, limit: limit) }
    }

    private init(_ arguments: [String], from source: (SettingsFile, String, Int) -> [UInt8]?) throws(ConfigurationError) {
        var configuration: [UInt8]?
        let invocation = try RelayOptions.parse(arguments, environment: environment()) { path in
            configuration = source(.configuration, path, Limits.configurationFileBytes)
            return configuration
        }
        guard case .run(let options) = invocation else { throw ConfigurationError("--help and --version are not for this") }
        guard let keys = source(.keys, options.keyFile, Limits.keyFileBytes) else {
            throw ConfigurationError("--key-file: cannot read \(options.keyFile)")
        }
        do throws(KeyFileError) { self.keys = KeyRingBox(try KeyRing(parsingJSON: keys.span.bytes)) } catch {
            throw ConfigurationError("--key-file: \(options.keyFile): \(error)")
        }
        var table: [UInt8]?
        var lines: [UInt8]?
        var members: [Member] = []
        tableStamp = Self.stamp(options)
        switch options.transceivers {
        case .direct(let prefix, let port): directory = .direct(prefix, port: port)
        case .table(let path):
            table = source(.table, path, Limits.tableFileBytes)
            guard let table else { throw ConfigurationError("--transceivers: cannot read \(path)") }
            do throws(TransceiverDirectoryError) {
                directory = try TransceiverDirectory(parsingTable: String(decoding: table, as: UTF8.self))
            } catch { throw ConfigurationError("--transceivers: \(path): \(error)") }
        case .registry:
            lines = source(.members, "", Limits.memberFileBytes)
            do throws(MemberError) { members = try Member.file(parsing: String(decoding: lines ?? [], as: UTF8.self)) } catch {
                log("the members of before: \(error); beginning with nobody")
                lines = nil
            }
            directory = Self.directory(of: members, in: options.cluster)
        }
        self.members = members
        var others: [UInt8]?
        if let path = options.relays {
            others = source(.relays, path, Limits.tableFileBytes)
            guard let others else { throw ConfigurationError("--relays: cannot read \(path)") }
            do throws(RelayDirectoryError) {
                relays = try RelayDirectory(parsing: String(decoding: others, as: UTF8.self))
            } catch { throw ConfigurationError("--relays: \(path): \(error)") }
        } else {
            relays = RelayDirectory()
        }
        redisAuthorities = try Self.authorities(options, from: source)
        self.options = options
        files = SettingsFiles(contents: [configuration, keys, table, others, lines, redisAuthorities])
    }

    /// Relays of other clusters find the rest.
    private static func directory(of members: [Member], in cluster: UInt16) -> TransceiverDirectory {
        .table(
            members.filter { $0.id.cluster == cluster }.compactMap { member in
                member.trunk.map { TransceiverEntry(id: member.id.transceiver, address: $0) }
            }.sorted { $0.id < $1.id })
    }

    private static func authorities(_ options: RelayOptions, from source: (SettingsFile, String, Int) -> [UInt8]?)
        throws(ConfigurationError) -> [UInt8]?
    {
        guard let path = options.redisAuthorities else { return nil }
        guard let content = source(.redisAuthorities, path, Limits.configurationFileBytes) else {
            throw ConfigurationError("--redis-ca: cannot read \(path)")
        }
        guard RedisSocket.isAuthority(content) else { throw ConfigurationError("--redis-ca: \(path) has no certificate in PEM") }
        return content
    }

    struct TableStamp: Equatable {
        var transceivers: FileStamp?
        var relays: FileStamp?
    }

    static func stamp(_ options: RelayOptions) -> TableStamp {
        var stamp = TableStamp(relays: options.relays.flatMap { FileStamp($0) })
        if case .table(let path) = options.transceivers { stamp.transceivers = FileStamp(path) }
        return stamp
    }

    /// A line for the operator.
    var summary: String {
        let count = keys.ring.hintKeys.count
        var parts = ["\(count) hint key\(count == 1 ? "" : "s")"]
        if keys.ring.acceptedTrunkKey != nil { parts.append("2 trunk keys") }
        if case .table(let entries) = directory { parts.append("\(entries.count) transceiver\(entries.count == 1 ? "" : "s")") }
        if options.relays != nil {
            let others = relays.entries.count { $0.id != options.relayID }
            parts.append("\(others) other relay\(others == 1 ? "" : "s")")
        }
        return parts.joined(separator: ", ")
    }

    func warnAboutKeyFile() {
        if isReadableByOthers(options.keyFile) { log("warning: \(options.keyFile) is readable by everybody; chmod 600 it") }
    }
}

extension RelaySettings {
    /// Refuses what a running relay cannot become.
    func checkThatTheyCanFollow(_ old: RelaySettings) throws(ConfigurationError) {
        let new = options
        let fixed = [
            ("listen", new.listen == old.options.listen), ("listen-tcp", new.listenTCP == old.options.listenTCP),
            ("tcp-connections", new.tcpConnections == old.options.tcpConnections),
            ("tcp-per-address", new.tcpConnectionsPerAddress == old.options.tcpConnectionsPerAddress),
            ("trunk", new.trunk == old.options.trunk),
            ("cluster", new.cluster == old.options.cluster), ("relay-id", new.relayID == old.options.relayID),
            ("workers", new.workers == old.options.workers), ("flows", new.flows == old.options.flows),
            ("metrics", new.metrics == old.options.metrics), ("io", new.io == old.options.io),
            ("runtime-folder", new.runtimeFolder == old.options.runtimeFolder), ("redis", new.redis == old.options.redis),
            ("redis-ca", new.redisAuthorities == old.options.redisAuthorities),
        ]
        if let changed = fixed.first(where: { !$0.1 }) {
            throw ConfigurationError("the configuration file: \"\(changed.0)\" cannot change while the relay runs; restart it for that")
        }
        if new.transceivers != old.options.transceivers, new.transceivers.isRegistry || old.options.transceivers.isRegistry {
            throw ConfigurationError("the configuration file: a registry cannot come, go or move while the relay runs; restart it for that")
        }
        // Transceivers speak with these: they cannot change on one side alone.
        if let problem = keys.ring.problem(following: old.keys.ring) {
            throw ConfigurationError("--key-file: \(new.keyFile): \(problem)")
        }
    }
}

// MARK: - From keeper to worker

enum SettingsFile: Int, CaseIterable { case configuration, keys, table, relays, members, redisAuthorities }

/// Contents by `SettingsFile`; nil where there is no such file.
private struct SettingsFiles: Sendable { var contents: [[UInt8]?] }

extension RelaySettings {
    private static let absent = UInt32.max

    /// All bytes in memory without a name, for a worker.
    func store() throws(ConfigurationError) -> SharedMemory {
        var bytes: [UInt8] = []
        for content in files.contents { bytes.append(content.map { UInt32($0.count) } ?? Self.absent) }
        for content in files.contents { bytes += content ?? [] }
        return try orFail("settings") { () throws(Errno) in
            let memory = try SharedMemory(anonymous: "swiftlet-settings", byteCount: bytes.count)
            try memory.setHead(bytes)
            return memory
        }
    }

    /// The same with other members.
    func replacing(members: [UInt8], _ arguments: [String]) throws(ConfigurationError) -> RelaySettings {
        try RelaySettings(arguments) { file, _, _ in file == .members ? members : files.contents[file.rawValue] }
    }

    /// What `store` has stored.
    init(_ arguments: [String], from memory: borrowing SharedMemory) throws(ConfigurationError) {
        let byteCount = memory.byteCount
        let bytes = (try? memory.head(byteCount)) ?? []
        var contents: [[UInt8]?] = []
        let head = 4 * SettingsFile.allCases.count
        var offset = head
        for index in SettingsFile.allCases.indices {
            guard bytes.count >= head else { throw ConfigurationError("the keeper's settings are cut off") }
            let count = bytes.span.bytes.u32(4 * index)
            guard count != Self.absent else {
                contents.append(nil)
                continue
            }
            guard Int(count) <= bytes.count - offset else { throw ConfigurationError("the keeper's settings are cut off") }
            contents.append(Array(bytes[offset..<offset + Int(count)]))
            offset += Int(count)
        }
        try self.init(arguments) { file, _, _ in contents[file.rawValue] }
    }
}

extension TransceiverSource {
    var isRegistry: Bool {
        if case .registry = self { return true }
        return false
    }
}
