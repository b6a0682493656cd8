// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import COpus
import Primitives

/// Our parser says the same of a packet as libopus's: what it accepts, and how long it lasts. What it accepts, the decoder survives.
public func fuzzOpusPacket(_ bytes: RawSpan) {
    guard bytes.byteCount <= 2048 else { return }
    let theirs = bytes.withUnsafeBytes { buffer -> CInt in
        guard let base = buffer.baseAddress?.assumingMemoryBound(to: UInt8.self), buffer.count > 0 else { return -1 }
        return copus_count_frames(base, opus_int32(buffer.count))
    }
    guard let packet = try? OpusPacket(parsing: bytes) else {
        precondition(theirs < 0, "libopus accepts what we refuse")
        return
    }
    precondition(theirs == packet.frameCount, "libopus counts \(theirs) frames, we \(packet.frameCount)")
    precondition((120...MediaClock.longestPacket).contains(packet.sampleCount))

    var decoder = OpusDecoder(rate: 16_000)
    var pcm = SampleBuffer<Int16>(count: decoder.scaled(MediaClock.longestPacket), repeating: 0)
    var output = pcm.mutableSpan(0..<pcm.count)
    if let count = try? decoder.decode(bytes, into: &output) {
        precondition(count == decoder.scaled(packet.sampleCount), "a packet lasts another time than it says")
    }
    var frame = pcm.mutableSpan(0..<decoder.scaled(packet.frameSamples))
    try? decoder.recover(from: bytes, into: &frame)
    try? decoder.conceal(into: &frame)
}
