import Primitives

/// `embedded:echo`: the caller's own Opus packets come back after a set delay, not decoded. What got lost on the way stays lost, with the
/// timestamps' gap in its place.
public struct EchoBackend: ~Copyable {
    public static let format = BackendAudioFormat.opus

    private let delay: Interval
    private var frames: FrameRing

    /// - Parameter delay: 0…10 s.
    public init(delay: Interval) {
        self.delay = min(max(delay, .zero), .seconds(10))
        // 128 kbit/s is four times what browsers send; a packet costs its own header besides. A burst that exceeds it loses its end.
        frames = FrameRing(byteCapacity: 4096 + Int(self.delay.milliseconds) * 18)
    }

    /// Takes one Opus packet of the caller; false when the queue is full and the packet was dropped.
    public mutating func receive(_ packet: RawSpan, timestamp: UInt32, startsTalkspurt: Bool, at now: Instant) -> Bool {
        frames.append(packet, stamp: now + delay, tag: UInt64(timestamp) << 1 | (startsTalkspurt ? 1 : 0))
    }

    /// Appends the next packet that is due to `output`; nil when none is.
    public mutating func nextFrame(into output: inout OutputRawSpan, at now: Instant) -> BackendFrame? {
        guard frames.nextStamp <= now, let first = frames.removeFirst(into: &output) else { return nil }
        return BackendFrame(timestamp: UInt32(truncatingIfNeeded: first.tag >> 1), startsTalkspurt: first.tag & 1 == 1)
    }

    /// When `nextFrame` has something; `.never` while nothing waits.
    public var nextStamp: Instant { frames.nextStamp }
}
