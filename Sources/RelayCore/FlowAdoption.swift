// A worker that starts reads what the last one left.

import Primitives

/// What became of the flows that lay in a worker's memory when it started.
@frozen public struct FlowAdoption: Hashable, Sendable {
    /// They go on as if nothing had happened.
    public var adopted = 0
    /// Their time was over.
    public var expired = 0
    /// Half written, or never a flow: dropped.
    public var torn = 0
    public init() {}
}

extension FlowTable {
    /// Builds index, wheel, caps and free list anew from the flows themselves; nothing else in the memory is believed.
    mutating func adopt(at now: Instant) {
        for number in stride(from: flows.used - 1, through: 0, by: -1) {
            if flows[number].check != 0, take(number, now) { continue }
            flows[number] = Flow(next: free)
            free = UInt32(truncatingIfNeeded: number)
        }
        guard count == 0 else { return }
        flows.used = 0
        free = Self.none
    }

    /// False when the place has no flow that may live on.
    private mutating func take(_ number: Int, _ now: Instant) -> Bool {
        let flow = flows[number]
        guard flow.check == flow.checksum, flow.port != 0, find(flow.source) == nil else {
            adoption.torn += 1
            return false
        }
        let remaining = remainingMilliseconds(number, now)
        let place = hintPlace(of: flow.ufrag)
        // A connection over TCP ends with the process that had it.
        guard !flow.source.isOverTCP, remaining > 0, flow.isConfirmed || Int(unconfirmedByHint[place]) < limits.unconfirmedPerHint else {
            adoption.expired += 1
            return false
        }
        if flow.isConfirmed {
            confirmedCount += 1
        } else {
            unconfirmedByHint[place] &+= 1
            unconfirmedBySession[Int(flow.session & 1023)] &+= 1
        }
        index.add(hash(of: flow.source), number)
        wheel.add(number, at: Self.milliseconds(now) &+ UInt64(remaining), in: &flows)
        count += 1
        adoption.adopted += 1
        return true
    }
}
