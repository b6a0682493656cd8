// Hints that were found authentic a moment ago. Whoever has seen one on the wire can repeat it as often as he likes: from the second time on
// neither its tag nor its password is computed, so that a check with a wrong signature costs only the MAC that finds it out.

import Primitives
import RoutingHint

/// One of them. Not nested: importers need its metadata.
struct OpenedHint: Sendable {
    var ufrag = Ufrag.none
    var hint = AuthenticHint(RoutingHint(cluster: 0, transceiver: 0, worker: 0, mintedAt: 0, session: 0), until: 0)
    /// Nil until somebody asks for it: the first check may be refused before.
    var password: ICEPassword?
}

/// A fixed number of them, by ufrag. A new one takes the place of one of the four that it may lie beside.
struct OpenedHints: ~Copyable {
    private var places: Slab<OpenedHint>
    /// Which of four is the next to go.
    private var turn = 0

    /// A power of two. Somebody who has seen more hints than this costs what each of them costs the first time.
    private static let capacity = 512
    private static let ways = 4
    static var byteCount: Int { capacity * MemoryLayout<OpenedHint>.stride }

    init() { places = Slab(count: Self.capacity) { _ in OpenedHint() } }

    /// Where `ufrag` is.
    func find(_ ufrag: Ufrag) -> Int? {
        let first = Self.first(ufrag)
        for place in first..<first &+ Self.ways where places[place].ufrag == ufrag { return place }
        return nil
    }

    func hint(_ place: Int) -> AuthenticHint { places[place].hint }

    /// Keeps what came out of `ufrag`; where.
    mutating func keep(_ hint: AuthenticHint, of ufrag: Ufrag) -> Int {
        turn = (turn &+ 1) & (Self.ways &- 1)
        let place = Self.first(ufrag) &+ turn
        places[place] = OpenedHint(ufrag: ufrag, hint: hint)
        return place
    }

    /// The ice-pwd of the hint at `place`, which is that of `ufrag`.
    mutating func password(_ place: Int, _ ufrag: RawSpan, _ codec: inout HintCodec) -> ICEPassword {
        if let known = places[place].password { return known }
        let password = codec.icePassword(for: ufrag)
        places[place].password = password
        return password
    }

    /// After the keys have changed.
    mutating func forget() { for place in 0..<Self.capacity { places[place] = OpenedHint() } }

    private static func first(_ ufrag: Ufrag) -> Int { Int(truncatingIfNeeded: ufrag.mixed) & (capacity &- 1) & ~(ways &- 1) }
}
