// Up to two minutes of PCM that waits to be heard, in pieces of a second that come and go: an idle queue holds next to nothing.

/// First in, first out, of at most `capacity` samples. Positions count from the first sample ever.
struct SampleQueue: ~Copyable {
    private static let pieceSize = 24_000
    /// Pieces kept for the next second, so that a stream in steady state allocates nothing.
    private static let spareMax = 2

    let capacity: Int
    private(set) var readPosition = 0
    private(set) var writePosition = 0
    private var pieces: SampleBuffer<UnsafeMutablePointer<Int16>?>
    private var spare: SampleBuffer<UnsafeMutablePointer<Int16>?>
    private var spareCount = 0

    var count: Int { writePosition - readPosition }

    init(capacity: Int) {
        self.capacity = capacity
        // One more than fits: the queue begins and ends inside a piece.
        pieces = SampleBuffer(count: capacity / Self.pieceSize + 2, repeating: nil)
        spare = SampleBuffer(count: Self.spareMax, repeating: nil)
    }

    deinit {
        for index in 0..<pieces.count { pieces[index]?.deallocate() }
        for index in 0..<spareCount { spare[index]?.deallocate() }
    }

    /// Appends what fits and says how much that was.
    mutating func append(_ samples: Span<Int16>) -> Int {
        let accepted = min(samples.count, capacity - count)
        var done = 0
        while done < accepted {
            let offset = writePosition % Self.pieceSize
            let length = min(accepted - done, Self.pieceSize - offset)
            let piece = pieceForWriting()
            for index in 0..<length { piece[offset + index] = samples[done + index] }
            done += length
            writePosition += length
        }
        return accepted
    }

    /// Takes samples into the beginning of `output` and says how many there were.
    mutating func read(into output: inout MutableSpan<Int16>, atMost most: Int) -> Int {
        let taken = min(most, count, output.count)
        var done = 0
        while done < taken, let piece = pieces[slot(readPosition)] {
            let offset = readPosition % Self.pieceSize
            let length = min(taken - done, Self.pieceSize - offset)
            for index in 0..<length { output[done + index] = piece[offset + index] }
            done += length
            readPosition += length
            if offset + length == Self.pieceSize { release(slot(readPosition - 1)) }
        }
        return done
    }

    /// Forgets what is written beyond the next `kept` samples.
    mutating func truncate(to kept: Int) {
        guard kept < count else { return }
        let end = readPosition + kept
        // The first piece that holds nothing any more.
        var position = (end + Self.pieceSize - 1) / Self.pieceSize * Self.pieceSize
        while position < writePosition {
            release(slot(position))
            position += Self.pieceSize
        }
        writePosition = end
    }

    private func slot(_ position: Int) -> Int { position / Self.pieceSize % pieces.count }

    private mutating func pieceForWriting() -> UnsafeMutablePointer<Int16> {
        let index = slot(writePosition)
        if let piece = pieces[index] { return piece }
        var piece: UnsafeMutablePointer<Int16>?
        if spareCount > 0 {
            spareCount -= 1
            piece = spare[spareCount]
        }
        let fresh = piece ?? .allocate(capacity: Self.pieceSize)
        pieces[index] = fresh
        return fresh
    }

    private mutating func release(_ index: Int) {
        guard let piece = pieces[index] else { return }
        pieces[index] = nil
        if spareCount < Self.spareMax {
            spare[spareCount] = piece
            spareCount += 1
        } else {
            piece.deallocate()
        }
    }
}
