// How much may be under way, and how long an answer may take (RFC 9260 sections 6.3 and 7.2).

import Primitives

/// The smoothed round trip and the retransmission timeout.
struct RoundTrip: BitwiseCopyable {
    /// DTLS has just crossed the same path, so the RFC's first second is more patience than a lost INIT deserves.
    static let initialTimeout = Interval.milliseconds(500)
    /// The RFC asks for one second so that a peer's delayed acknowledgement never looks like a loss. The last chunk of a burst carries
    /// the I bit, which asks for an acknowledgement at once, and a lost event of a conversation should not cost an audible second.
    static let leastTimeout = Interval.milliseconds(200)
    static let mostTimeout = Interval.seconds(10)
    /// Somebody waits for the channel to open, and one packet costs nothing: nine INITs take 21 seconds in all.
    static let mostHandshakeTimeout = Interval.seconds(3)

    private(set) var smoothed = Interval.zero
    private var variation = Interval.zero
    private(set) var timeout = Self.initialTimeout
    private var hasSample = false

    mutating func sample(_ measured: Interval) {
        let measured = max(min(measured, .seconds(60)), .zero)
        if hasSample {
            let error = Interval(nanoseconds: abs(smoothed.nanoseconds &- measured.nanoseconds))
            variation = (variation * 3 + error) / 4
            smoothed = (smoothed * 7 + measured) / 8
        } else {
            hasSample = true
            smoothed = measured
            variation = measured / 2
        }
        timeout = min(max(smoothed + variation * 4, Self.leastTimeout), Self.mostTimeout)
    }

    mutating func backOff() { timeout = min(timeout * 2, Self.mostTimeout) }
}

/// Slow start, congestion avoidance, fast recovery. All in bytes of user data.
struct Congestion: BitwiseCopyable {
    private let mtu: Int
    private(set) var window: Int
    private var threshold: Int
    private var partial = 0
    /// The highest TSN under way when fast recovery began; it ends when that one is acknowledged.
    private(set) var recoveryExit: UInt32?

    init(mtu: Int, peerWindow: Int) {
        self.mtu = mtu
        window = min(4 * mtu, max(2 * mtu, 4404))
        threshold = max(peerWindow, 4 * mtu)
    }

    var inRecovery: Bool { recoveryExit != nil }

    /// The cumulative acknowledgement has moved to `cumulative`.
    /// - Parameters:
    ///   - acknowledged: bytes newly acknowledged, in gaps too.
    ///   - wasFull: whether the window was used up before.
    mutating func acknowledged(_ acknowledged: Int, to cumulative: UInt32, wasFull: Bool, nothingLeft: Bool) {
        if let exit = recoveryExit {
            if isBefore(cumulative, exit) { return }
            recoveryExit = nil
        }
        // No window can matter that is larger than the send buffer.
        guard window < sendBufferLimit else { return }
        if window <= threshold {
            if wasFull { window &+= min(acknowledged, mtu) }
        } else {
            partial &+= acknowledged
            if partial >= window {
                partial &-= window
                if wasFull { window &+= mtu }
            }
        }
        if nothingLeft { partial = 0 }
    }

    /// Three reports said that something is missing.
    mutating func fastRetransmit(highestSent: UInt32) {
        guard recoveryExit == nil else { return }
        threshold = max(window / 2, 4 * mtu)
        window = threshold
        partial = 0
        recoveryExit = highestSent
    }

    /// The retransmission timer ran out.
    mutating func timedOut() {
        threshold = max(window / 2, 4 * mtu)
        window = mtu
        partial = 0
        recoveryExit = nil
    }

    /// Nothing was sent for a timeout: what the path could carry then, it may not carry now.
    mutating func idled() { window = min(window, max(window / 2, 4 * mtu)) }
}
