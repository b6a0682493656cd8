// How late packets come, and so how long to wait for them.

import Primitives

/// Learns from each packet's transit (arrival less media time) the fastest path of the last seconds and how much later than that the others
/// come: a histogram of 5 ms steps that forgets, and its percentile.
struct DelayEstimator: ~Copyable {
    private static let step: Int64 = 5_000_000
    private static let stepCount = 64
    /// Each packet's share of the histogram: what was before 200 packets (4 s of speech) weighs a third.
    private static let weight: Float = 1.0 / 200
    /// The fastest packet of 5…10 s is the base, so that a clock's drift (100 ppm is 1 ms in 10 s) and a longer path are followed.
    private static let window = Interval.seconds(5)

    private let percentile: Float
    private var histogram: SampleBuffer<Float>
    /// What the histogram's first step stands for; follows `base` in whole steps.
    private var origin: Int64 = 0
    private var windowEnd = Instant.zero
    private var fastest: Int64 = 0
    private var fastestBefore: Int64 = 0

    /// - Parameter initial: the wait to begin with, before anything is known.
    init(percentile: Double, initial: Interval) {
        self.percentile = Float(percentile)
        histogram = SampleBuffer(count: Self.stepCount, repeating: 0)
        histogram[min(max(Int(initial.nanoseconds / Self.step) - 1, 0), Self.stepCount - 1)] = 1
    }

    /// The transit of the fastest packet lately, in nanoseconds of an arbitrary origin.
    var base: Int64 { min(fastest, fastestBefore) }

    /// Another stream, or another time line: its first packet is the base; what is known of jitter stays.
    mutating func restart(transit: Int64, at now: Instant) {
        fastest = transit
        fastestBefore = transit
        origin = transit
        windowEnd = now + Self.window
    }

    mutating func note(transit: Int64, at now: Instant) {
        if now >= windowEnd {
            fastestBefore = fastest
            fastest = transit
            windowEnd = now + Self.window
        }
        fastest = min(fastest, transit)
        follow()
        let late = (transit &- origin) / Self.step
        let index = Int(min(max(late, 0), Int64(Self.stepCount - 1)))
        for step in 0..<Self.stepCount { histogram[step] *= 1 - Self.weight }
        histogram[index] += Self.weight
    }

    /// The wait that `percentile` of packets keep.
    var wait: Interval {
        var sum: Float = 0
        for step in 0..<Self.stepCount {
            sum += histogram[step]
            if sum >= percentile { return .nanoseconds(Int64(step + 1) * Self.step) }
        }
        return .nanoseconds(Int64(Self.stepCount) * Self.step)
    }

    /// Keeps lateness relative to the base when the base has moved.
    private mutating func follow() {
        let steps = (base &- origin) / Self.step
        guard steps != 0 else { return }
        origin &+= steps &* Self.step
        let count = Self.stepCount
        let shift = Int(min(steps.magnitude, UInt64(count - 1)))
        if steps > 0 {
            for index in 1...shift { histogram[0] += histogram[index] }
            for index in 1..<count { histogram[index] = index + shift < count ? histogram[index + shift] : 0 }
        } else {
            for index in (count - 1 - shift)..<(count - 1) { histogram[count - 1] += histogram[index] }
            for index in stride(from: count - 2, through: 0, by: -1) { histogram[index] = index >= shift ? histogram[index - shift] : 0 }
        }
    }
}
