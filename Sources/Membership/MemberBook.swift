public import Primitives

/// Who is known now.
public struct MemberBook: Sendable {
    private struct Entry {
        var member: Member
        /// When it was in no reading any more; nil while it is.
        var lostAt: Instant?
    }
    private var entries: [MemberID: Entry] = [:]
    private let keptLost: Interval
    private let capacity: Int

    /// - Parameters:
    ///   - keptLost: how long a member is remembered that is in no reading any more: as long as a call may last.
    ///   - capacity: members at most, the lost ones among them.
    public init(keptLost: Interval = .seconds(86_400), capacity: Int = 16_384) {
        self.keptLost = keptLost
        self.capacity = capacity
    }

    /// In the last reading.
    public var presentCount: Int { entries.values.reduce(0) { $0 + ($1.lostAt == nil ? 1 : 0) } }
    /// Remembered from readings before.
    public var lostCount: Int { entries.count - presentCount }

    /// Everybody of the last reading, in a fixed order.
    public var present: [Member] {
        entries.values.filter { $0.lostAt == nil }.map(\.member).sorted {
            ($0.id.cluster, $0.id.transceiver) < ($1.id.cluster, $1.id.transceiver)
        }
    }

    /// Everybody who is known, the lost ones too, in a fixed order.
    public var all: [Member] {
        entries.values.map(\.member).sorted { ($0.id.cluster, $0.id.transceiver) < ($1.id.cluster, $1.id.transceiver) }
    }

    /// In the last reading, and in that state.
    public func count(in state: MemberState) -> Int {
        entries.values.reduce(0) { $0 + ($1.lostAt == nil && $1.member.state == state ? 1 : 0) }
    }

    /// Who has most room for a call, among those of the last reading that serve; the nearest of equals is the one with the lowest id.
    ///
    /// - Parameters:
    ///   - cluster: where to look first; elsewhere only when nobody there has room.
    ///   - given: calls that were sent there since the reading, which does not know them.
    public func leastLoaded(in cluster: UInt16, but own: MemberID, given: [MemberID: UInt32] = [:]) -> Member? {
        var best: (member: Member, isNear: Bool, fill: Double)?
        for entry in entries.values where entry.lostAt == nil && entry.member.state == .serving && entry.member.id != own {
            let member = entry.member
            let load = UInt64(member.load) + UInt64(given[member.id] ?? 0)
            guard load < UInt64(member.capacity) else { continue }
            let fill = Double(load) / Double(member.capacity)
            let isNear = member.id.cluster == cluster
            guard let known = best else {
                best = (member, isNear, fill)
                continue
            }
            let order = (member.id.cluster, member.id.transceiver) < (known.member.id.cluster, known.member.id.transceiver)
            let isBetter = isNear != known.isNear ? isNear : fill != known.fill ? fill < known.fill : order
            if isBetter { best = (member, isNear, fill) }
        }
        return best?.member
    }

    /// A whole reading: who is not in it is lost, not forgotten.
    public mutating func read(_ members: [Member], at now: Instant) {
        for id in Array(entries.keys) where entries[id]?.lostAt == nil { entries[id]?.lostAt = now }
        for member in members.prefix(capacity) { entries[member.id] = Entry(member: member, lostAt: nil) }
        entries = entries.filter { entry in entry.value.lostAt.map { now < $0 + keptLost } ?? true }
        guard entries.count > capacity else { return }
        let oldest = entries.filter { $0.value.lostAt != nil }.sorted { ($0.value.lostAt ?? now) < ($1.value.lostAt ?? now) }
        for (id, _) in oldest.prefix(entries.count - capacity) { entries[id] = nil }
    }

    /// Where a transceiver's signaling is, or was when it was last heard of.
    public func signaling(of id: MemberID) -> SocketAddress? { entries[id]?.member.signaling }

    public subscript(id: MemberID) -> Member? { entries[id]?.member }
}

/// Opening never traps; nothing but what was sealed opens, and that to the same member.
public func fuzzMemberRecords(_ bytes: RawSpan) {
    var codec = MemberRecordCodec(key: Array("a key that everybody may know 32b".utf8))
    let value = bytes.array
    let text = String(decoding: value.dropFirst(MemberRecordCodec.headBytes), as: UTF8.self)
    if let (member, beat) = codec.open(value, of: value) {
        precondition(codec.seal(member, beat: beat).count <= MemberRecordCodec.byteCountMax)
    }
    guard let member = try? Member(parsing: text) else { return }
    let field = Array(member.id.description.utf8)
    var sealed = codec.seal(member, beat: UInt64(value.count))
    let opened = codec.open(sealed, of: field)
    precondition(opened?.member == member && opened?.beat == UInt64(value.count), "a seal that opens to another")
    precondition(codec.open(sealed, of: field + [0]) == nil, "another field opens")
    let place = Int(value.first ?? 0) % sealed.count
    sealed[place] ^= 1
    precondition(codec.open(sealed, of: field) == nil, "a forged value opens")
}

/// Whatever Redis answers: a registry neither traps nor forgets whom it knew, nor grows beyond its bounds.
public func fuzzRegistry(_ bytes: RawSpan) {
    var settings = RegistrySettings()
    settings.membersMax = 8
    var member = Member(id: MemberID(cluster: 1, transceiver: 7), trunk: nil, signaling: SocketAddress(.v4Loopback, port: 1))
    member.capacity = 1
    let known = Member(id: MemberID(cluster: 1, transceiver: 8), trunk: nil, signaling: SocketAddress(.v4Loopback, port: 2))
    var now = Instant(nanoseconds: 1_000_000_000)
    var registry = Registry(
        settings: settings, key: Array("a key that everybody may know 32b".utf8), own: member, known: [known],
        wall: WallClock(secondsSince1970: 1), now: now)
    registry.advance(to: now)
    registry.connected(at: now)
    registry.receive(Array("+PONG\r\n".utf8).span.bytes, at: now)
    for start in stride(from: 0, to: bytes.byteCount, by: 64) {
        registry.receive(bytes.bytes(start..<min(start + 64, bytes.byteCount)), at: now)
        now = now + .milliseconds(700)
        registry.advance(to: now)
        registry.sent(registry.pendingOutput.count)
        while let order = registry.nextOrder() {
            guard order == .connect else { continue }
            registry.connected(at: now)
            registry.receive(Array("+PONG\r\n".utf8).span.bytes, at: now)
        }
    }
    precondition(registry.book[known.id] == known, "a member is forgotten")
    precondition(registry.book.presentCount <= 1, "somebody is there who never was")
}

/// Parsing never traps; what was parsed is written and parsed to the same.
public func fuzzMembers(_ bytes: RawSpan) {
    guard let members = try? Member.file(parsing: String(decoding: bytes.array, as: UTF8.self)) else { return }
    let again = try? Member.file(parsing: members.map(\.line).joined(separator: "\n"))
    precondition(again == members, "members change when they are written again")
    var book = MemberBook(keptLost: .seconds(10), capacity: 8)
    book.read(members, at: Instant(nanoseconds: 0))
    book.read([], at: Instant(nanoseconds: 1))
    precondition(book.presentCount == 0 && book.lostCount == min(8, members.count))
}
