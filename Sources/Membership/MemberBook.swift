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
