// Between decoded stretches of any length and frames of 20 ms.

/// PCM that was decoded and not taken yet: less than a frame, and at most one packet of 120 ms on top.
struct FrameAssembler: ~Copyable {
    private let frameSamples: Int
    private var samples: SampleBuffer<Int16>
    private var count = 0
    private(set) var framesTaken = 0
    /// Samples since the stream began.
    private var written = 0
    /// Bit n: part of frame n (modulo 64) was made up.
    private var concealed: UInt64 = 0
    /// Bit n: part of frame n (modulo 64) is more than a place for what never came.
    private var present: UInt64 = 0

    init(rate: Int) {
        frameSamples = rate / 50
        samples = SampleBuffer(count: 8 * frameSamples, repeating: 0)
    }

    var hasFrame: Bool { count >= frameSamples }

    /// The caller takes frames before it appends more.
    mutating func append(_ pcm: Span<Int16>, isConcealed: Bool, isMissing: Bool) {
        let length = min(pcm.count, samples.count - count)
        assert(length == pcm.count)
        for index in 0..<length { samples[count + index] = pcm[index] }
        if length > 0 {
            for frame in (written / frameSamples)...((written + length - 1) / frameSamples) {
                if isConcealed { concealed |= 1 << UInt64(frame & 63) }
                if !isMissing { present |= 1 << UInt64(frame & 63) }
            }
        }
        count += length
        written += length
    }

    mutating func take(into frame: inout MutableSpan<Int16>) -> AudioFrame {
        assert(hasFrame)
        for index in 0..<frameSamples { frame[index] = samples[index] }
        samples.move(frameSamples..<count, to: 0)
        count -= frameSamples
        let bit: UInt64 = 1 << UInt64(framesTaken & 63)
        let taken = AudioFrame(
            milliseconds: framesTaken * 20, isConcealed: concealed & bit != 0, isMissing: present & bit == 0)
        concealed &= ~bit
        present &= ~bit
        framesTaken += 1
        return taken
    }
}

/// Joins the sound before a skipped stretch to the sound after it: over 5 ms, the beginning of what was skipped gives way to what follows.
struct Splice: ~Copyable {
    private var kept: SampleBuffer<Int16>
    private var isKept = false

    init(samples: Int) { kept = SampleBuffer(count: samples, repeating: 0) }

    /// Of several skipped in a row the first counts: it goes on where the listener is.
    mutating func keep(_ skipped: Span<Int16>) {
        guard !isKept, skipped.count >= kept.count else { return }
        for index in 0..<kept.count { kept[index] = skipped[index] }
        isKept = true
    }

    mutating func apply(to pcm: inout MutableSpan<Int16>) {
        guard isKept, pcm.count >= kept.count else { return }
        isKept = false
        for index in 0..<kept.count {
            let (old, new) = (Int(kept[index]) * (kept.count - index), Int(pcm[index]) * index)
            pcm[index] = Int16((old + new) / kept.count)
        }
    }
}
