// Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01): when each packet came.

import Primitives

/// Collects arrivals by transport-wide sequence number and reports them.
public struct TransportFeedback: ~Copyable {
    /// Packets in one report.
    private static let window: Int64 = 256
    /// Browsers' own pace where they send no more than a voice: their reports take a twentieth of what they send, and wait 250 ms at most (libwebrtc,
    /// `TransportSequenceNumberFeedbackGenerator`). A report is a packet of its own, for us, for the relay and for the client.
    private static let interval = Interval.milliseconds(250)
    /// Of arrival deltas and of the reference time, in nanoseconds.
    private static let tick: Int64 = 250_000
    private static let referenceTick: Int64 = 64_000_000

    private var arrivals: Slab<Instant>
    /// What the next report begins with.
    private var first: Int64 = 0
    /// Everything before it has been in a report.
    private var reported: Int64 = 0
    private var highest: Int64 = -1
    private var pending = 0
    /// Says nothing while nothing is pending.
    private var nextReport = Instant.never
    private var reports: UInt8 = 0

    public init() { arrivals = Slab(count: Int(Self.window)) { _ in Instant.never } }

    /// Takes the transport-wide sequence number of a packet that came at `now`.
    public mutating func note(_ number: UInt16, at now: Instant) {
        let sequence =
            highest < 0 ? Int64(number) + 65_536 : highest + Int64(Int16(bitPattern: number &- UInt16(truncatingIfNeeded: highest)))
        if highest < 0 || sequence - first >= Self.window || first - sequence >= Self.window {
            // What does not fit any more is not reported: the sender takes it for lost.
            if highest < 0 || sequence - highest >= Self.window || sequence < highest - Self.window { clear(from: sequence) }
            while sequence - first >= Self.window { dropFirst() }
        }
        // Reported as lost already, or reordered beyond reason.
        guard sequence >= reported, highest - sequence < Self.window else { return }
        first = min(first, sequence)
        if arrivals[slot(sequence)] == .never {
            arrivals[slot(sequence)] = now
            pending += 1
        }
        highest = max(highest, sequence)
        if nextReport == .never { nextReport = now + Self.interval }
    }

    /// When `write` has something to report; `.never` when nothing has come.
    public var due: Instant { pending > 0 ? nextReport : .never }
    public var nextDeadline: Deadline { Deadline(due, "transport feedback") }

    /// Appends one RTCP packet (RTPFB, format 15) to `output` and forgets what it reports; false, and nothing written, when nothing is due or
    /// it does not fit. Call until false.
    public mutating func write(sender: UInt32, media: UInt32, into output: inout OutputRawSpan, at now: Instant) -> Bool {
        guard pending > 0, now >= due else { return false }
        var received = first
        while arrivals[slot(received)] == .never { received += 1 }
        let reference = Int64(truncatingIfNeeded: arrivals[slot(received)].nanoseconds) / Self.referenceTick
        let (count, deltaSize) = measure(from: reference)
        // Two-bit status vectors of seven packets: never the shortest, always simple.
        let chunks = (count + 6) / 7
        let unpadded = 20 + 2 * chunks + deltaSize
        let size = (unpadded + 3) / 4 * 4
        guard size <= output.freeCapacity else { return false }
        output.append(UInt8(size > unpadded ? 0xAF : 0x8F))
        output.append(UInt8(205))
        output.append(UInt16(truncatingIfNeeded: size / 4 - 1))
        output.append(sender)
        output.append(media)
        output.append(UInt16(truncatingIfNeeded: first))
        output.append(UInt16(truncatingIfNeeded: count))
        output.append(UInt32(truncatingIfNeeded: reference & 0xFF_FFFF) << 8 | UInt32(reports))
        writeStatuses(count, reference, into: &output)
        writeDeltas(count, reference, into: &output)
        for index in unpadded..<size { output.append(index == size - 1 ? UInt8(size - unpadded) : 0) }
        reports &+= 1
        for _ in 0..<count { dropFirst() }
        reported = first
        nextReport = pending > 0 ? now : .never
        return true
    }

    /// How many packets fit into one report, and the bytes of their deltas. A delta that 16 bits do not hold begins another report.
    private func measure(from reference: Int64) -> (count: Int, deltaSize: Int) {
        var (count, size) = (0, 0)
        var last = reference * (Self.referenceTick / Self.tick)
        for sequence in first...highest {
            let arrival = arrivals[slot(sequence)]
            if arrival != .never {
                let ticks = Self.ticks(arrival)
                let delta = ticks - last
                guard (Int64(Int16.min)...Int64(Int16.max)).contains(delta) else { break }
                size += Self.isSmall(delta) ? 1 : 2
                last = ticks
            }
            count = Int(sequence - first) + 1
        }
        return (count, size)
    }

    private func writeStatuses(_ count: Int, _ reference: Int64, into output: inout OutputRawSpan) {
        var last = reference * (Self.referenceTick / Self.tick)
        var chunk: UInt16 = 0
        for index in 0..<count {
            let arrival = arrivals[slot(first + Int64(index))]
            var status: UInt16 = 0
            if arrival != .never {
                status = Self.isSmall(Self.ticks(arrival) - last) ? 1 : 2
                last = Self.ticks(arrival)
            }
            chunk |= status << UInt16(12 - 2 * (index % 7))
            if index % 7 == 6 || index == count - 1 {
                output.append(0xC000 | chunk)
                chunk = 0
            }
        }
    }

    private func writeDeltas(_ count: Int, _ reference: Int64, into output: inout OutputRawSpan) {
        var last = reference * (Self.referenceTick / Self.tick)
        for index in 0..<count {
            let arrival = arrivals[slot(first + Int64(index))]
            guard arrival != .never else { continue }
            let delta = Self.ticks(arrival) - last
            last = Self.ticks(arrival)
            if Self.isSmall(delta) {
                output.append(UInt8(truncatingIfNeeded: delta))
            } else {
                output.append(UInt16(truncatingIfNeeded: delta))
            }
        }
    }

    private static func ticks(_ arrival: Instant) -> Int64 { Int64(truncatingIfNeeded: arrival.nanoseconds) / tick }
    private static func isSmall(_ delta: Int64) -> Bool { (0...255).contains(delta) }

    private mutating func dropFirst() {
        if arrivals[slot(first)] != .never {
            arrivals[slot(first)] = .never
            pending -= 1
        }
        first += 1
    }

    private mutating func clear(from sequence: Int64) {
        for index in 0..<Int(Self.window) { arrivals[index] = .never }
        pending = 0
        nextReport = .never
        first = sequence
        highest = sequence
        reported = sequence - Self.window
    }

    private func slot(_ sequence: Int64) -> Int { Int(sequence & (Self.window - 1)) }
}
