// The memory of all workers' flows: one page that says what it is, then one section per worker. Whoever finds such memory believes nothing
// of it before this page fits; what is in the sections is looked at flow by flow (RelayCore/FlowAdoption.swift).

import Configuration
import Crypto
import EventLoop
import Primitives
import RelayCore
import RoutingHint

struct FlowTableShape: Equatable {
    var workers: Int
    var flowsPerWorker: Int
    var steeringKey: UInt32
    /// Of the deployment: rotation of hint keys does not change it.
    var deployment: UInt64

    private static let page = 4096
    private var sectionBytes: Int {
        (FlowMemory.byteCount(capacity: flowsPerWorker) + Self.page - 1) / Self.page * Self.page
    }
    var byteCount: Int { Self.page + workers * sectionBytes }
    func section(_ worker: Int) -> Range<Int> {
        let start = Self.page + worker * sectionBytes
        return start..<start + sectionBytes
    }
}

extension FlowTableShape {
    private static let magic = Array("SWIFTLET FLOWS\r\n".utf8)
    static let version: UInt32 = 1
    static let headBytes = 80

    var head: [UInt8] {
        var bytes = Self.magic
        bytes.append(Self.version)
        bytes.append(UInt32(workers))
        bytes.append(FlowMemory.layout)
        bytes.append(UInt64(flowsPerWorker))
        bytes += bootIdentity()
        bytes.append(deployment)
        bytes.append(steeringKey)
        bytes.append(UInt32(0))
        bytes.append(Self.sum(bytes))
        return bytes
    }

    /// Why memory of `byteCount` bytes that begins with `head` is no table of this shape, as words for the operator; nil when it is one.
    /// The steering key is taken over from it.
    mutating func adopt(_ head: [UInt8], byteCount: Int) -> String? {
        guard head.count >= Self.magic.count, Array(head[..<Self.magic.count]) == Self.magic else { return "it is no flow table" }
        guard head.count >= Self.headBytes else { return "it is cut off after \(head.count) bytes" }
        let span = head.span.bytes
        guard span.u32(16) == Self.version, span.u64(24) == FlowMemory.layout else { return "it was written by another version" }
        guard Self.sum(Array(head[..<72])) == span.u64(72) else { return "its first page is damaged" }
        guard Array(head[40..<56]) == bootIdentity() else { return "it is from another machine, or from before the machine was started" }
        guard span.u64(56) == deployment else { return "it belongs to a deployment with other keys" }
        guard span.u32(20) == UInt32(workers), span.u64(32) == UInt64(flowsPerWorker) else {
            return "it has \(span.u32(20)) workers of \(span.u64(32)) flows, not \(workers) of \(flowsPerWorker)"
        }
        guard byteCount == self.byteCount else { return "it has \(byteCount) bytes, not \(self.byteCount)" }
        steeringKey = span.u32(64)
        return nil
    }

    private static func sum(_ bytes: [UInt8]) -> UInt64 {
        var hash = SipHash(key: SipKey(k0: 0x666C_6F77, k1: 0x7461_626C))
        hash.update(bytes.span.bytes)
        return hash.finalize()
    }
}

extension FlowTableShape {
    /// Which deployment a ring belongs to, without telling anything about its keys.
    static func deployment(of ring: KeyRing) -> UInt64 {
        let label = Array("swiftlet flow table".utf8)
        return HMACSHA256.tag(key: ring.passwordKey.span.bytes, label.span.bytes).bytes.u64(0)
    }

    /// Memory that dies with the last process that has it.
    func makeAnonymous() throws(Errno) -> SharedMemory {
        let memory = try SharedMemory(anonymous: "swiftlet-flows", byteCount: byteCount)
        try memory.setHead(head)
        return memory
    }

    /// Empties `memory`, which nobody has mapped, and gives it this shape.
    func remake(_ memory: consuming SharedMemory) throws(Errno) -> SharedMemory {
        let fresh = try memory.replaced(byteCount: byteCount)
        try fresh.setHead(head)
        return fresh
    }
}
