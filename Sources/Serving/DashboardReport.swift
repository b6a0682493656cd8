// What a dashboard is told once a second: sums since the start. Rates are the reader's affair, so that a message that was
// missed falsifies nothing.

import Primitives
public import Telemetry

/// One direction of a worker's traffic.
public struct TrafficReport: Sendable {
    var name: String
    var packets: UInt64
    var bytes: UInt64?
    /// Receives (or sends) that the packets came in.
    var batches: UInt64?

    public init(_ name: String, packets: UInt64, bytes: UInt64? = nil, batches: UInt64? = nil) {
        self.name = name
        self.packets = packets
        self.bytes = bytes
        self.batches = batches
    }
}

/// One worker.
public struct WorkerReport: Sendable {
    var name: String
    var traffic: [TrafficReport]
    var vitals: PublishedVitals
    var perf: PerfSnapshot?

    public init(_ name: String, traffic: [TrafficReport], vitals: PublishedVitals, perf: PerfSnapshot?) {
        self.name = name
        self.traffic = traffic
        self.vitals = vitals
        self.perf = perf
    }
}

/// Something that was dropped, by reason.
public struct DropReport: Sendable {
    var reason: String
    var count: UInt64

    public init(_ reason: String, _ count: UInt64) {
        self.reason = reason
        self.count = count
    }
}

/// A table with a capacity.
public struct FillReport: Sendable {
    var name: String
    var used: UInt64
    /// Of those, how many are confirmed (or connected).
    var confirmed: UInt64
    var capacity: UInt64

    public init(_ name: String, used: UInt64, confirmed: UInt64, capacity: UInt64) {
        self.name = name
        self.used = used
        self.confirmed = confirmed
        self.capacity = capacity
    }
}

/// Somebody at the other end of the trunk, as pings see it.
public struct TrunkReport: Sendable {
    public var name: String
    /// It answers.
    public var isAlive: Bool
    /// It takes no new calls.
    public var isDraining: Bool
    /// There and back, smoothed; nil before the first answer.
    public var roundTrip: Interval?
    /// How often it was asked, and answered; nil where nobody counts.
    public var pings: UInt64?
    public var pongs: UInt64?

    public init(
        _ name: String, isAlive: Bool, isDraining: Bool = false, roundTrip: Interval?, pings: UInt64? = nil, pongs: UInt64? = nil
    ) {
        self.name = name
        self.isAlive = isAlive
        self.isDraining = isDraining
        self.roundTrip = roundTrip
        self.pings = pings
        self.pongs = pongs
    }
}

public struct DashboardReport: Sendable {
    var program: String
    var fill: FillReport
    var workers: [WorkerReport]
    var trunk: [TrunkReport]
    var drops: [DropReport]

    /// - Parameter trunk: in the order in which it is shown; empty when nobody is asked.
    public init(program: String, fill: FillReport, workers: [WorkerReport], trunk: [TrunkReport] = [], drops: [DropReport]) {
        self.program = program
        self.fill = fill
        self.workers = workers
        self.trunk = trunk
        self.drops = drops
    }
}

// MARK: - JSON

extension DashboardReport {
    func json(marks: [Mark], uptime: Interval, at wall: WallClock) -> JSONValue {
        [
            "program": .string(program), "time": wall.json, "uptime": .number(uptime.seconds),
            "fill": [
                "name": .string(fill.name), "used": fill.used.json, "confirmed": fill.confirmed.json, "capacity": fill.capacity.json,
            ],
            "workers": .array(workers.map(\.json)),
            "trunk": .array(trunk.map(\.json)),
            // What never happened is not worth a line.
            "drops": .array(drops.filter { $0.count > 0 }.map { ["reason": .string($0.reason), "count": $0.count.json] }),
            "marks": .array(marks.map { ["time": $0.time.json, "text": .string($0.text)] }),
        ]
    }
}

extension WorkerReport {
    fileprivate var json: JSONValue {
        let usage = vitals.usage
        return [
            "name": .string(name),
            "traffic": .array(
                traffic.map {
                    [
                        "name": .string($0.name), "packets": $0.packets.json, "bytes": $0.bytes?.json ?? .null,
                        "batches": $0.batches?.json ?? .null,
                    ]
                }),
            "cpu": ["total": usage.processorTime.json, "kernel": usage.kernelTime.json],
            "switches": ["voluntary": usage.voluntarySwitches.json, "involuntary": usage.involuntarySwitches.json],
            "perf": .array(PerfEvent.allCases.map { $0.json(perf) }),
            "batch": vitals.batches.json, "latency": vitals.latency.json,
        ]
    }
}

extension TrunkReport {
    fileprivate var json: JSONValue {
        [
            "name": .string(name), "alive": .bool(isAlive), "draining": .bool(isDraining),
            "roundTrip": roundTrip.map { .integer($0.nanoseconds) } ?? .null,
            "pings": pings?.json ?? .null, "pongs": pongs?.json ?? .null,
        ]
    }
}

extension PerfEvent {
    fileprivate func json(_ snapshot: PerfSnapshot?) -> JSONValue {
        let name = JSONValue.string(metric)
        switch snapshot?[self] {
        case .value(let value): return ["name": name, "value": value.json, "space": "all"]
        case .userSpaceOnly(let value): return ["name": name, "value": value.json, "space": "user"]
        case .unavailable(let refusal): return ["name": name, "unavailable": .string(refusal.description)]
        case nil: return ["name": name, "unavailable": "the worker has not begun"]
        }
    }
}

extension Histogram {
    /// Only buckets with something in them: `[bucket, count, bucket, count, …]`.
    fileprivate var json: JSONValue {
        var pairs: [JSONValue] = []
        for index in 0..<Self.bucketCount where count(inBucket: index) > 0 {
            pairs += [.integer(Int64(index)), count(inBucket: index).json]
        }
        return .array(pairs)
    }
}

extension UInt64 {
    fileprivate var json: JSONValue { .integer(Int64(clamping: self)) }
}

extension WallClock {
    /// Milliseconds since 1970, as JavaScript counts.
    fileprivate var json: JSONValue { .integer(Int64(clamping: secondsSince1970) &* 1000 &+ Int64(nanoseconds / 1_000_000)) }
}
