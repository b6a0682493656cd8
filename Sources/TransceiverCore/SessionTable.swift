import Primitives

/// All sessions of one worker: a fixed number of places, found by the session number that trunk records carry.
struct SessionTable: ~Copyable {
    private var places: Slab<Box<Session>>
    /// Open addressing over twice as many entries as places, a power of two. Linear probing, backward-shift deletion.
    private var index: Slab<IndexEntry>
    private var free: Slab<Int32>
    private var freeCount: Int

    struct IndexEntry {
        var session: UInt32
        /// −1: empty.
        var place: Int32
    }

    init(capacity: Int) {
        precondition((1...65_536).contains(capacity))
        places = Slab(count: capacity) { _ in Box() }
        var entries = 4
        while entries < capacity * 2 { entries *= 2 }
        index = Slab(count: entries) { _ in IndexEntry(session: 0, place: -1) }
        free = Slab(count: capacity) { Int32(capacity - 1 - $0) }
        freeCount = capacity
    }

    var capacity: Int { places.count }
    var count: Int { places.count - freeCount }

    /// The place of `session`; nil when it is not here.
    func place(of session: UInt32) -> Int? {
        var entry = home(session)
        while index[entry].place >= 0 {
            if index[entry].session == session { return Int(index[entry].place) }
            entry = (entry + 1) & (index.count - 1)
        }
        return nil
    }

    /// Puts `session` into a free place and tells which; nil when the table is full or the number is taken, and the session is gone.
    mutating func insert(_ session: consuming Session) -> Int? {
        let id = session.id
        guard freeCount > 0, place(of: id) == nil else { return nil }
        freeCount -= 1
        let place = Int(free[freeCount])
        places[place] = Box(session)
        var entry = home(id)
        while index[entry].place >= 0 { entry = (entry + 1) & (index.count - 1) }
        index[entry] = IndexEntry(session: id, place: Int32(place))
        return place
    }

    mutating func remove(at place: Int) {
        guard !places[place].isEmpty else { return }
        let id = places[place].value.id
        places[place] = Box()
        free[freeCount] = Int32(place)
        freeCount += 1
        var hole = home(id)
        while index[hole].session != id || index[hole].place < 0 { hole = (hole + 1) & (index.count - 1) }
        // Whatever probed past the hole moves back into it, so that a search may stop at the first empty entry.
        var entry = (hole + 1) & (index.count - 1)
        while index[entry].place >= 0 {
            let wanted = home(index[entry].session)
            if (entry &- wanted) & (index.count - 1) >= (entry &- hole) & (index.count - 1) {
                index[hole] = index[entry]
                hole = entry
            }
            entry = (entry + 1) & (index.count - 1)
        }
        index[hole] = IndexEntry(session: 0, place: -1)
    }

    /// Whether there is a session at `place`.
    func isTaken(_ place: Int) -> Bool { !places[place].isEmpty }

    /// The session at `place`, to use where it lies; traps when there is none.
    subscript(place: Int) -> Session {
        @inline(__always) _read { yield places[place].value }
        @inline(__always) _modify { yield &places[place].value }
    }

    private func home(_ session: UInt32) -> Int {
        // Session numbers are random already; the multiplication only spreads what an operator numbered by hand in a test.
        Int((session &* 0x9E37_79B1) >> 7) & (index.count - 1)
    }
}
