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

/// A peer that says anything of sequence numbers, timestamps and sources, at any time, cannot make the jitter buffer trap, grow, or fall
/// silent. Each step of the script is eight bytes: what, sequence (2), timestamp (3), time, payload.
public func fuzzJitterBuffer(_ bytes: RawSpan) {
    var buffer = JitterBuffer()
    var now = Instant.zero + .seconds(1_000)
    var sequence: Int64 = 1 << 20
    var timestamp: UInt32 = 0
    let payload = SampleBuffer<UInt8>(count: 1_300, repeating: 0x08)
    var packet = InlineArray<1_500, UInt8>(repeating: 0)
    var at = 0
    while at + 8 <= bytes.byteCount {
        let what = bytes.byte(at)
        sequence += what & 1 == 0 ? 1 : Int64(Int16(bitPattern: bytes.u16(at + 1)))
        timestamp &+= what & 2 == 0 ? 960 : bytes.u32(at + 2) << (what >> 4)
        let length = what & 4 == 0 ? Int(bytes.byte(at + 7)) : Int(bytes.byte(at + 7)) * 5
        _ = buffer.receive(
            payload.span(0..<length).bytes, sequence: sequence, timestamp: timestamp, source: what & 0xF8 == 0xF8 ? 2 : 1, at: now,
            redundant: what & 8 != 0)
        now = now + .milliseconds(Int64(bytes.byte(at + 6)) << (what & 0x80 == 0 ? 0 : 4))
        var frames = 0
        var span = packet.mutableSpan
        while true {
            let frame = span.withUnsafeMutableBytes { raw in
                var output = OutputRawSpan(buffer: raw, initializedCount: 0)
                return buffer.nextFrame(into: &output, at: now)
            }
            guard let frame else { break }
            precondition(frame.samples > 0 && frame.samples <= MediaClock.longestPacket && frame.samples % 120 == 0)
            frames += 1
            // A second of lag in the shortest packets, and whatever waited.
            precondition(frames < 1_000, "the jitter buffer never stops")
        }
        precondition(buffer.nextDeadline.instant > now)
        at += 8
    }
}

/// What a reader of redundant audio makes of any bytes lies within them, and the pipe survives it; what our own writer makes of them as packets,
/// the reader takes apart again.
public func fuzzRED(_ bytes: RawSpan) {
    guard bytes.byteCount <= 2_048 else { return }
    if let packet = try? REDPacket(parsing: bytes) {
        precondition(packet.copyCount <= REDPacket.copiesMax)
        var at = packet.primary.bytes.upperBound
        precondition(at == bytes.byteCount)
        at = packet.primary.bytes.lowerBound
        for distance in 1..<(packet.copyCount + 1) {
            let copy = packet.copy(distance: distance)
            precondition(copy.bytes.upperBound == at && copy.bytes.count < 1_024 && copy.timestampOffset < 16_384)
            at = copy.bytes.lowerBound
        }
        precondition(at == 1 + 4 * packet.copyCount)
        var settings = AudioPipe.Settings()
        settings.voiceActivity = nil
        settings.rate = 8_000
        var pipe = AudioPipe(settings)
        let type = packet.primary.payloadType
        let start = Instant.zero + .seconds(100)
        pipe.setRoundTrip(.milliseconds(10))
        for index in 0..<10 as Range<Int64> where index < 2 || index % 4 == 1 {
            _ = pipe.receive(
                red: bytes, opusType: type, sequence: index, timestamp: UInt32(index * 960), source: 1,
                at: start + .milliseconds(20 * index))
            while pipe.nextRequest() != nil {}
        }
        pipe.advance(to: start + .milliseconds(300))
        var frame = InlineArray<160, Int16>(repeating: 0)
        var span = frame.mutableSpan
        while pipe.nextFrame(into: &span) != nil {}
    }
    fuzzREDWriter(bytes)
}

/// Cuts the input into packets; each but the last copies comes back as it was.
private func fuzzREDWriter(_ bytes: RawSpan) {
    guard bytes.byteCount > 2 else { return }
    var writer = REDWriter(payloadType: bytes.byte(0), distance: Int(bytes.byte(1) & 7))
    var timestamp: UInt32 = 0
    var at = 2
    while at < bytes.byteCount {
        let length = min(Int(bytes.byte(at)) * 5, bytes.byteCount - at)
        let packet = bytes.bytes(at..<(at + length))
        timestamp &+= 120 * UInt32(bytes.byte(at) & 0x1F)
        var room = InlineArray<1_500, UInt8>(repeating: 0)
        var span = room.mutableSpan
        let size = span.withUnsafeMutableBytes { raw in
            var output = OutputRawSpan(buffer: raw, initializedCount: 0)
            let written = writer.write(packet, timestamp: timestamp, into: &output)
            precondition(written || length >= 1_500)
            return output.finalize(for: raw)
        }
        let payload = room.span.bytes.bytes(0..<size)
        guard let back = try? REDPacket(parsing: payload) else { preconditionFailure("we do not understand what we write") }
        precondition(payload.bytes(back.primary.bytes).elementsEqual(packet))
        precondition(back.copyCount <= 4 && (back.copyCount == 0 || size <= REDWriter.sizeMax))
        at += max(1, length)
    }
}
