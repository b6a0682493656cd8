// The sources of one direction. All of them share the direction's keys, so a source is its indices and nothing else; the table
// has a fixed number of places, and a source stays until the call ends, for its indices must never start over under one key.

import Primitives

struct StreamTable: ~Copyable {
    struct Stream {
        var ssrc: UInt32 = 0
        var rtp = ReplayWindow()
        /// For a source of ours, `highest` is the index of the RTCP packet sent last.
        var rtcp = ReplayWindow()
    }

    /// On the heap: to read one of them in a value that lies elsewhere would be to copy all.
    private var streams: Slab<Stream>
    private(set) var count = 0
    private let limit: Int

    init(limit: Int) {
        streams = Slab(count: limit) { _ in Stream() }
        self.limit = limit
    }

    /// The place of `ssrc`: a taken one, or the next free one, whose windows are empty. Takes nothing.
    func place(for ssrc: UInt32) throws(SRTPError) -> Int {
        var place = 0
        while place < count {
            if streams[place].ssrc == ssrc { return place }
            place &+= 1
        }
        guard count < limit else { throw .tooManyStreams }
        return count
    }

    /// Gives `place`, as `place(for:)` told it, to `ssrc` if nobody has it yet.
    mutating func take(_ place: Int, for ssrc: UInt32) {
        guard place == count else { return }
        streams[place].ssrc = ssrc
        count &+= 1
    }

    subscript(place: Int) -> Stream {
        @inline(__always) _read { yield streams[place] }
        @inline(__always) _modify { yield &streams[place] }
    }
}
