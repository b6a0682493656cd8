// What a jitter buffer tells of itself.

import Primitives

/// What became of a packet that came to the jitter buffer.
public enum JitterArrival: UInt8, Sendable, CaseIterable {
    case accepted
    /// Accepted, and everything before it forgotten: another source, or a time line that jumped.
    case restarted
    /// Waiting already, or played.
    case duplicate
    /// Its time has passed and waiting for such packets would exceed the longest delay.
    case late
    /// Not an Opus packet.
    case malformed
    /// No room: the caller does not take frames, or the peer floods.
    case overflow
}

/// What the caller does to get the next stretch of audio.
public enum JitterFrameKind: UInt8, Sendable {
    /// Decode the packet that was appended.
    case packet
    /// A packet was lost: decode it from the copy inside the appended packet, which comes itself next.
    case fec
    /// A packet was lost or has not come in time: conceal.
    case conceal
    /// The sender is silent, or has been gone for so long that there is nothing left to conceal with.
    case silence
    /// Decode the appended packet for the decoder's sake, and throw its sound away: the delay gets shorter by it.
    case discard
}

/// One stretch of audio on the stream's clock.
public struct JitterFrame: Sendable, Equatable {
    public var kind: JitterFrameKind
    /// At 48 kHz; a multiple of 120 (2.5 ms), at most 5,760.
    public var samples: Int
    /// The sender was not silent and nothing came, for longer than concealment can bridge.
    public var isOutage = false
}

/// Counters since the buffer was made; sample counts at 48 kHz.
public struct JitterStatistics: Sendable, Equatable {
    public var received = 0
    public var duplicates = 0
    public var late = 0
    public var malformed = 0
    public var overflows = 0
    /// Changes of source and jumps of the time line.
    public var restarts = 0
    public var playedSamples = 0
    /// Made up by the decoder.
    public var concealedSamples = 0
    /// Recovered by in-band FEC.
    public var recoveredSamples = 0
    public var silenceSamples = 0
    /// Part of `concealedSamples` and `silenceSamples` that made the delay longer: the packets came after all.
    public var insertedSamples = 0
    /// Thrown away to make the delay shorter.
    public var discardedSamples = 0
    /// Never handed out because the caller did not ask for more than a second.
    public var skippedSamples = 0
    /// From the arrival of a packet on the fastest path to its turn.
    public var currentDelay = Interval.zero
    public var targetDelay = Interval.zero
    public init() {}
}
