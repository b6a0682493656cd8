// What waits to be sent, and what was sent and may be answered. Both are short and forget the oldest first. They lie on the heap: whoever
// only reads the agent would copy what lay in it.

import Primitives
import STUN

/// An answer to a request; its bytes are made when there is a place to write them.
struct PendingAnswer {
    enum Kind { case success, unknownAttributes, roleConflict }
    var kind = Kind.success
    var transactionID = STUNTransactionID(high: 0, low: 0)
    var path = ValidatedPath.none.path
    var slot: UInt8 = 0
    var unknown = STUNUnknownAttributes.none
}

struct AnswerQueue: ~Copyable {
    static let capacity = 4
    private var entries = Slab<PendingAnswer>(count: AnswerQueue.capacity) { _ in PendingAnswer() }
    private var first = 0
    private var count = 0

    /// Pushes the oldest out when full: a client that sends so fast asks again anyway.
    mutating func push(_ answer: PendingAnswer) {
        if count == Self.capacity { _ = pop() }
        entries[(first &+ count) % Self.capacity] = answer
        count &+= 1
    }

    mutating func pop() -> PendingAnswer? {
        guard count > 0 else { return nil }
        let answer = entries[first]
        first = (first &+ 1) % Self.capacity
        count &-= 1
        return answer
    }

    mutating func removeAll() { count = 0 }
}

/// The last checks that were accepted. One that comes again is a repetition, or a recording.
struct RecentChecks: ~Copyable {
    static let capacity = 16
    private var entries = Slab<STUNTransactionID>(count: RecentChecks.capacity) { _ in STUNTransactionID(high: 0, low: 0) }
    private var next = 0

    /// Whether `id` is new; it is remembered then.
    mutating func note(_ id: STUNTransactionID) -> Bool {
        for index in 0..<Self.capacity where entries[index] == id { return false }
        entries[next] = id
        next = (next &+ 1) % Self.capacity
        return true
    }
}

/// A check of ours that was not answered yet.
struct SentCheck {
    var transactionID = STUNTransactionID(high: 0, low: 0)
    var client = ValidatedPath.none.path.client
    var slot: UInt8 = 0
    var isOpen = false
}

struct SentChecks: ~Copyable {
    static let capacity = 4
    private var entries = Slab<SentCheck>(count: SentChecks.capacity) { _ in SentCheck() }
    private var next = 0

    mutating func note(_ id: STUNTransactionID, to client: SocketAddress, slot: UInt8) {
        entries[next] = SentCheck(transactionID: id, client: client, slot: slot, isOpen: true)
        next = (next &+ 1) % Self.capacity
    }

    /// The open check that an answer from `client` belongs to.
    func index(of id: STUNTransactionID, from client: SocketAddress) -> Int? {
        for index in 0..<Self.capacity where entries[index].isOpen && entries[index].transactionID == id {
            return entries[index].client == client ? index : nil
        }
        return nil
    }

    func slot(_ index: Int) -> Int { Int(entries[index].slot) }
    mutating func close(_ index: Int) { entries[index].isOpen = false }
}
