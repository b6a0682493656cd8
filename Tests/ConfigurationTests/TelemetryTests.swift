// Telemetry: the text Prometheus reads, histograms, publication between threads, and the kernel's counters.
import Glibc
import Primitives
import Synchronization
import Telemetry
import TestSupport
import Testing

@Suite struct PrometheusTexts {
    @Test func `families, labels and values are written as the format wants`() {
        var text = PrometheusText()
        text.family("swiftlet_test_dropped_total", "What went nowhere, by reason.", .counter)
        text.sample("swiftlet_test_dropped_total", [("reason", "not_stun"), ("worker", "0")], UInt64.max)
        text.sample("swiftlet_test_dropped_total", [], 0)
        text.gauge("swiftlet_test_uptime_seconds", "Since the start.", 1.5)
        text.gauge("swiftlet_test_delta", "May be negative.", -3)
        text.counter("swiftlet_test_cpu_seconds_total", "Processor time.", 0.00001)
        #expect(
            text.string == """
                # HELP swiftlet_test_dropped_total What went nowhere, by reason.
                # TYPE swiftlet_test_dropped_total counter
                swiftlet_test_dropped_total{reason="not_stun",worker="0"} 18446744073709551615
                swiftlet_test_dropped_total 0
                # HELP swiftlet_test_uptime_seconds Since the start.
                # TYPE swiftlet_test_uptime_seconds gauge
                swiftlet_test_uptime_seconds 1.5
                # HELP swiftlet_test_delta May be negative.
                # TYPE swiftlet_test_delta gauge
                swiftlet_test_delta -3
                # HELP swiftlet_test_cpu_seconds_total Processor time.
                # TYPE swiftlet_test_cpu_seconds_total counter
                swiftlet_test_cpu_seconds_total 1e-05

                """)
        #expect(text.bytes == Array(text.string.utf8))
    }

    /// A label may carry what an operator typed into a file: it must not be able to add a sample of its own.
    @Test func `label values and help cannot break out of their line`() {
        var text = PrometheusText()
        text.family("a", "back\\slash, line\nfeed and \"quotes\"", .gauge)
        text.sample("a", [("l", "\\ \n \" ü")], 1)
        #expect(
            text.string
                == "# HELP a back\\\\slash, line\\nfeed and \"quotes\"\n# TYPE a gauge\n" + "a{l=\"\\\\ \\n \\\" ü\"} 1\n")
    }

    @Test(arguments: [(Double.infinity, "+Inf"), (-.infinity, "-Inf"), (.nan, "NaN"), (0, "0.0"), (1e300, "1e+300")])
    func `numbers without digits have names`(value: Double, expected: String) {
        var text = PrometheusText()
        text.gauge("a", "", value)
        #expect(text.string.hasSuffix("\na \(expected)\n"))
    }

    @Test func `a histogram is cumulative, in base units, and ends at infinity`() {
        var histogram = Histogram()
        for value in [500_000, 1_048_576, 1_048_577, 3_000_000, 1 << 40] as [UInt64] { histogram.record(value) }
        var text = PrometheusText()
        text.histogram("turn_seconds", "How long a turn took.", histogram, unit: .nanoseconds, octaves: 20...21)
        #expect(
            text.string == """
                # HELP turn_seconds How long a turn took.
                # TYPE turn_seconds histogram
                turn_seconds_bucket{le="0.001048576"} 2
                turn_seconds_bucket{le="0.002097152"} 3
                turn_seconds_bucket{le="+Inf"} 5
                turn_seconds_sum 1099.517224929
                turn_seconds_count 5

                """)
    }

    @Test func `a histogram's labels stand before its bound, and octaves stay in range`() {
        var text = PrometheusText()
        text.family("bytes", "", .histogram)
        text.sample("bytes", [("worker", "1")], Histogram(), unit: .ones, octaves: 36...99)
        let lines = text.string.split(separator: "\n").dropFirst(2)
        #expect(
            Array(lines) == [
                "bytes_bucket{worker=\"1\",le=\"68719476736.0\"} 0", "bytes_bucket{worker=\"1\",le=\"137438953472.0\"} 0",
                "bytes_bucket{worker=\"1\",le=\"+Inf\"} 0", "bytes_sum{worker=\"1\"} 0.0", "bytes_count{worker=\"1\"} 0",
            ])
    }
}

@Suite struct Histograms {
    @Test func `powers of two are exact bounds`() {
        for octave in 0...Histogram.octaveMax {
            var histogram = Histogram()
            let bound = UInt64(1) << UInt64(octave)
            histogram.record(bound)
            histogram.record(bound + 1)
            #expect(histogram.count(upToOctave: octave) == 1)
            #expect(histogram.count == 2)
            #expect(octave == 0 || histogram.count(upToOctave: octave - 1) == 0)
        }
    }

    @Test func `anything can be recorded`() {
        var histogram = Histogram()
        histogram.record(0)
        histogram.record(.max)
        histogram.record(.max, times: .max)
        histogram.record(7, times: 0)
        #expect(histogram.maximum == .max && histogram.count(upToOctave: 0) == 1 && histogram.count(upToOctave: 99) == 1)
    }

    @Test func `an empty one has no quantile`() {
        #expect(Histogram().quantile(0.5) == nil)
        #expect(Histogram().count == 0)
    }

    /// Against the sorted values themselves: at most a quarter too large, never too small.
    @Test(arguments: UInt64(1)...10)
    func `quantiles are right within a bucket`(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var histogram = Histogram()
        var values: [UInt64] = []
        for _ in 0..<5_000 {
            let value = UInt64.random(in: 0...(1 << UInt64.random(in: 0...36, using: &random)), using: &random)
            values.append(value)
            histogram.record(value)
        }
        values.sort()
        for q in [0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1] {
            let exact = values[max(0, Int((q * 5_000).rounded(.up)) - 1)]
            let read = try #require(histogram.quantile(q))
            #expect(read >= exact && Double(read) <= Double(exact) * 1.25 + 1)
        }
        #expect(histogram.quantile(1) == values.last && histogram.quantile(.nan) == values.last)
        #expect(histogram.quantile(-5) == histogram.quantile(0) && histogram.quantile(5) == values.last)
        #expect(histogram.sum == values.reduce(0, &+))
    }

    @Test func `merging is recording into one`() {
        var random = SeededGenerator(seed: 5)
        var (a, b, both) = (Histogram(), Histogram(), Histogram())
        for _ in 0..<1_000 {
            let value = random.next() >> UInt64.random(in: 20...63, using: &random)
            if random.chance(1, in: 2) { a.record(value, times: 3) } else { b.record(value, times: 3) }
            both.record(value, times: 3)
        }
        a.merge(b)
        #expect(words(a) == words(both))
        #expect(a.count == 3_000)
    }

    @Test func `words carry all of it`() {
        var histogram = Histogram()
        for value in 0..<1_000 as Range<UInt64> { histogram.record(value * value) }
        let stored = words(histogram)
        let again = Histogram(words: stored.span, at: 1)
        #expect(words(again) == stored)
        #expect(again.maximum == 998_001 && again.sum == histogram.sum && stored.first == 0 && stored.last == 0)
    }

    /// The histogram's words with one untouched word on each side.
    private func words(_ histogram: Histogram) -> [UInt64] {
        var words = [UInt64](repeating: 0, count: Histogram.wordCount + 2)
        var span = words.mutableSpan
        histogram.store(into: &span, at: 1)
        return words
    }
}

@Suite struct CounterPages {
    @Test func `a snapshot is what was published last`() {
        let page = CounterPage(count: 3)
        #expect(page.snapshot() == [0, 0, 0] && page.generation == 0)
        page.publish(([1, 2, 3] as [UInt64]).span)
        page.publish(([4, 5, .max] as [UInt64]).span)
        #expect(page.snapshot() == [4, 5, .max] && page.generation == 2)
        #expect(CounterPage(count: 0).snapshot().isEmpty)
    }

    /// A writer that never pauses sets every word to the same number until two readers have seen a hundred different ones each;
    /// neither may see two numbers at once, nor an older one after a newer one.
    @Test func `no reader sees half of a publication`() {
        let page = CounterPage(count: 100)
        let tally = Tally()
        withThreads([
            {
                var values = [UInt64](repeating: 0, count: 100)
                var round: UInt64 = 0
                while tally.finished.load(ordering: .relaxed) < 2 {
                    round += 1
                    for index in values.indices { values[index] = round }
                    page.publish(values.span)
                }
            }, { tally.read(page) }, { tally.read(page) },
        ])
        #expect(tally.torn.load(ordering: .relaxed) == 0)
        #expect(page.generation >= 100)
    }
}

private final class Tally: Sendable {
    let finished = Atomic<Int>(0)
    let torn = Atomic<Int>(0)

    func read(_ page: CounterPage) {
        var newest: UInt64 = 0
        var changes = 0
        while changes < 100 {
            let values = page.snapshot()
            if values.contains(where: { $0 != values[0] }) || values[0] < newest { torn.wrappingAdd(1, ordering: .relaxed) }
            if values[0] != newest { changes += 1 }
            newest = values[0]
        }
        finished.wrappingAdd(1, ordering: .releasing)
    }
}

/// Runs every body on a thread of its own and waits for all: unlike tasks, threads make progress side by side for certain.
private func withThreads(_ bodies: [() -> Void]) {
    let threads = bodies.map { body in
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
                return nil
            }, Unmanaged.passRetained(Box(body)).toOpaque())
        precondition(result == 0)
        return thread
    }
    for thread in threads { pthread_join(thread, nil) }
}

private final class Box {
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
}

@Suite struct PerfCounting {
    /// Whatever this machine allows: a number that grows with work, or a reason; never a zero in between.
    @Test func `a thread's counters count or say why not`() {
        let counters = PerfCounters()
        let before = counters.read()
        var sum: UInt64 = 1
        for index in 0..<3_000_000 as Range<UInt64> { sum = sum &* 31 &+ index }
        #expect(sum != 0)
        let after = counters.read()
        for event in [PerfEvent.taskClock, .cycles, .instructions] {
            switch (before[event], after[event]) {
            case (.value(let a), .value(let b)), (.userSpaceOnly(let a), .userSpaceOnly(let b)): #expect(b > a)
            case (.unavailable(let a), .unavailable(let b)):
                #expect(a == b && !a.description.isEmpty)
            default: Issue.record("\(event) changed its kind: \(before[event]), \(after[event])")
            }
        }
    }

    @Test func `a thread that is not there is no zero`() {
        let snapshot = PerfCounters(thread: pid_t.max).read()
        for event in PerfEvent.allCases {
            guard case .unavailable = snapshot[event] else {
                Issue.record("\(event) is \(snapshot[event])")
                continue
            }
        }
    }

    @Test func `what cannot be read is named in the metrics and has no sample`() {
        let missing = PerfCounters(thread: pid_t.max).read()
        var text = PrometheusText()
        text.threads([("worker-0", missing)], prefix: "swiftlet_test")
        #expect(!text.string.contains("_total"))
        for counter in ["cpu_seconds", "context_switches", "migrations", "page_faults", "cycles", "instructions"] {
            #expect(text.string.contains("swiftlet_test_thread_counter_unavailable{thread=\"worker-0\",counter=\"\(counter)\",reason=\""))
        }
        text = PrometheusText()
        let own = PerfCounters().read()
        text.threads([("worker-0", own), ("worker-1", missing)], prefix: "swiftlet_test")
        if case .value = own[.taskClock] {
            #expect(text.string.contains("swiftlet_test_thread_cpu_seconds_total{thread=\"worker-0\",space=\"all\"} "))
            #expect(!text.string.contains("swiftlet_test_thread_cpu_seconds_total{thread=\"worker-1\""))
        }
    }
}
