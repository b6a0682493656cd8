// How audio looks on the way to and from a backend.

import Primitives

/// Mono audio as bytes.
public enum AudioFormat: Sendable, Equatable {
    /// 16 bits, little-endian, at this many samples a second.
    case pcm(rate: Int)
    /// G.711 µ-law at 8 kHz.
    case muLaw
    /// G.711 A-law at 8 kHz.
    case aLaw

    public var rate: Int {
        switch self {
        case .pcm(let rate): rate
        case .muLaw, .aLaw: 8_000
        }
    }

    public var bytesPerSample: Int {
        switch self {
        case .pcm: 2
        case .muLaw, .aLaw: 1
        }
    }

    /// Appends `samples` to `output`; false, and nothing appended, when they do not fit.
    public func write(_ samples: Span<Int16>, into output: inout OutputRawSpan) -> Bool {
        guard samples.count * bytesPerSample <= output.freeCapacity else { return false }
        switch self {
        case .pcm: for index in samples.indices { output.append(samples[index].littleEndian, as: Int16.self) }
        case .muLaw: for index in samples.indices { output.append(MuLaw.encode(samples[index])) }
        case .aLaw: for index in samples.indices { output.append(ALaw.encode(samples[index])) }
        }
        return true
    }

    /// Overwrites the beginning of `samples` with what `bytes` hold and says how many there were; half a sample at the end is left out.
    public func read(_ bytes: RawSpan, into samples: inout MutableSpan<Int16>) -> Int {
        let count = min(bytes.byteCount / bytesPerSample, samples.count)
        switch self {
        case .pcm: for index in 0..<count { samples[index] = Int16(bitPattern: bytes.u16(2 * index).byteSwapped) }
        case .muLaw: for index in 0..<count { samples[index] = MuLaw.decode(bytes.byte(index)) }
        case .aLaw: for index in 0..<count { samples[index] = ALaw.decode(bytes.byte(index)) }
        }
        return count
    }
}

extension PlayoutQueue {
    /// Appends what the backend says in `format`, whose rate must be the queue's: how many of the bytes were taken, in whole samples.
    public mutating func append(_ bytes: RawSpan, as format: AudioFormat, item: UInt32) -> Int {
        precondition(format.rate == rate, "the queue takes \(rate) Hz")
        let size = format.bytesPerSample
        var done = 0
        var piece = InlineArray<480, Int16>(repeating: 0)
        while bytes.byteCount - done >= size {
            var room = piece.mutableSpan
            let count = format.read(bytes.bytes(done..<bytes.byteCount), into: &room)
            let taken = append(piece.span.extracting(first: count), item: item)
            done += taken * size
            guard taken == count else { break }
        }
        return done
    }
}

extension AudioPipe {
    /// Like `nextFrame(into:)`, as bytes: appends 20 ms to `output`, which must have room for them.
    public mutating func nextFrame(into output: inout OutputRawSpan, as format: AudioFormat) -> AudioFrame? {
        precondition(format.rate == rate, "the pipe makes \(rate) Hz")
        var piece = InlineArray<960, Int16>(repeating: 0)
        var room = piece.mutableSpan
        var frame = room._mutatingExtracting(first: frameSamples)
        guard let taken = nextFrame(into: &frame) else { return nil }
        return format.write(piece.span.extracting(first: frameSamples), into: &output) ? taken : nil
    }
}
