// Audio: between RTP packets and plain PCM, in both directions, as machines without I/O.
//
//   up    packet → JitterBuffer → OpusDecoder → Resampler → VoiceActivity     all of it: AudioPipe
//   down  PCM of a backend that talks faster than real time → PlayoutQueue → OpusEncoder → one packet every 20 ms
//
// Time is a parameter of every verb. What a stream needs is allocated when it is made; nothing is allocated per frame. Media time is
// counted in samples at 48 kHz, the clock of Opus in RTP whatever the codec's own rate (RFC 7587 §4.1).

import Primitives

/// The clock of Opus in RTP: 48,000 ticks a second.
public enum MediaClock {
    public static let rate = 48_000
    /// 20 ms, the frame of everything here.
    public static let frame = 960
    /// 120 ms, the longest Opus packet.
    public static let longestPacket = 5_760

    /// How long `samples` at 48 kHz last.
    @inlinable public static func interval(_ samples: Int) -> Interval { .nanoseconds(Int64(samples) &* 62_500 / 3) }
    /// How many samples at 48 kHz `interval` is, rounded down.
    @inlinable public static func samples(_ interval: Interval) -> Int { Int(interval.nanoseconds / 1_000 &* 48 / 1_000) }
}
