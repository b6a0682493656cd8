// A sender, a network with faults that a seed decides, and a jitter buffer, in virtual time.
import Audio
import Primitives

/// One frame as it came out.
struct Heard: Equatable {
    var frame: JitterFrame
    /// Which packet, for those that have one.
    var sequence: Int?
    var at: Instant
}

struct SentPacket {
    var sequence: Int
    var timestamp: UInt32
    var arrival: Instant
    var source: UInt32 = 1
    var fec = false
    var silence = false
    var redundant = false

    /// 20 ms of SILK: the first byte's second bit announces FEC, the sequence number is the sound.
    var payload: [UInt8] {
        if silence { return [0x08] }
        return [0x08, fec ? 0x40 : 0, 0] + (0..<4).map { UInt8(truncatingIfNeeded: sequence >> (8 * $0)) }
    }
}

/// The start of virtual time, late enough for "before".
let start = Instant.zero + .seconds(100)

func milliseconds(_ count: Double) -> Interval { .microseconds(Int64(count * 1_000)) }

/// `count` packets of 20 ms, one every 20 ms, each `delay(index)` on its way; nil is lost.
func stream(_ count: Int, first: Int = 0, timestamp: UInt32 = 0, fec: Bool = false, _ delay: (Int) -> Interval?) -> [SentPacket] {
    (0..<count).compactMap { index in
        guard let delay = delay(index) else { return nil }
        return SentPacket(
            sequence: first + index, timestamp: timestamp &+ UInt32(index * 960), arrival: start + milliseconds(Double(index) * 20) + delay,
            fec: fec)
    }
}

struct JitterRun {
    var heard: [Heard] = []
    var arrivals: [JitterArrival] = []
    var statistics = JitterStatistics()
    /// Of each frame.
    var delays: [Interval] = []

    var sequences: [Int] { heard.compactMap { $0.frame.kind == .packet ? $0.sequence : nil } }
    /// Played, or skipped to shorten the delay.
    var hadTheirTurn: Set<Int> { Set(heard.compactMap { $0.frame.kind == .fec ? nil : $0.sequence }) }
    func count(_ kind: JitterFrameKind) -> Int { heard.count { $0.frame.kind == kind } }
    /// The longest run of samples that were made up, in milliseconds.
    var longestGap: Int {
        var (run, longest) = (0, 0)
        for item in heard where item.frame.kind != .discard {
            run = item.frame.kind == .packet || item.frame.kind == .fec ? 0 : run + item.frame.samples
            longest = max(longest, run)
        }
        return longest / 48
    }
}

/// Hands the packets over in order of arrival, takes frames when they are due, until `end` after the last arrival.
func play(
    _ packets: [SentPacket], settings: JitterBuffer.Settings = .init(), tail: Interval = .milliseconds(300),
    quiet: (Instant) -> Bool = { _ in false }
) -> JitterRun {
    var buffer = JitterBuffer(settings)
    var run = JitterRun()
    let arriving = packets.enumerated().sorted { ($0.element.arrival, $0.offset) < ($1.element.arrival, $1.offset) }.map(\.element)
    let end = (arriving.last?.arrival ?? start) + tail
    var next = 0
    var bytes = [UInt8](repeating: 0, count: 1_500)
    while true {
        let due = buffer.nextDeadline.instant
        let arrival = next < arriving.count ? arriving[next].arrival : Instant.never
        guard min(due, arrival) < end else { break }
        if arrival <= due {
            let packet = arriving[next]
            let payload = packet.payload
            run.arrivals.append(
                buffer.receive(
                    payload.span.bytes, sequence: Int64(packet.sequence), timestamp: packet.timestamp, source: packet.source, at: arrival,
                    redundant: packet.redundant))
            next += 1
        }
        let now = min(due, arrival)
        while true {
            var count = 0
            let frame = bytes.withUnsafeMutableBytes { raw in
                var output = OutputRawSpan(buffer: raw, initializedCount: 0)
                let frame = buffer.nextFrame(into: &output, at: now, quiet: quiet(now))
                count = output.finalize(for: raw)
                return frame
            }
            guard let frame else { break }
            let sequence = count >= 7 ? (0..<4).reduce(0) { $0 | Int(bytes[3 + $1]) << (8 * $1) } : nil
            run.heard.append(Heard(frame: frame, sequence: sequence, at: now))
            run.delays.append(buffer.statistics.currentDelay)
        }
    }
    run.statistics = buffer.statistics
    return run
}
