// Backend: what stands behind a call. A backend hears plain audio frames and events and says plain audio frames and events; it never
// sees WebRTC. Each backend is a machine without I/O, owned by the session it serves, with the verbs of every core.

import Primitives

/// How a backend wants its audio.
public enum BackendAudioFormat: Sendable, Equatable {
    /// Opus packets as the client sent them, not decoded.
    case opus
    /// 16-bit mono little-endian PCM at this many samples a second.
    case pcm(rate: Int)
}

/// One frame that a backend says.
public struct BackendFrame: Sendable {
    /// Media time in samples of the frame's own clock (48 kHz for Opus); only differences matter.
    public var timestamp: UInt32
    /// The first frame after a silence (RFC 3551 §4.1).
    public var startsTalkspurt: Bool

    public init(timestamp: UInt32, startsTalkspurt: Bool) {
        self.timestamp = timestamp
        self.startsTalkspurt = startsTalkspurt
    }
}
