// Where flows lie. Their memory may be a worker's own, or a mapping that outlives it: then the next worker finds every flow as it was at
// the instruction at which the last one died.
//
// Nothing here is locked or journalled. A flow carries a check word over everything that says who it is and where it goes. Whoever was
// killed between two stores leaves a flow whose check does not fit, and the next worker drops it; the client's next STUN check makes it
// again. A check of zero is an empty place.

import Primitives
import RoutingHint
import Trunk

/// The flows of one worker in equal places, after a header of 64 bytes. Memory that was never written is all zeros and costs nothing.
@safe public struct FlowMemory: ~Copyable, @unchecked Sendable {
    private let base: UnsafeMutableRawPointer
    private let places: UnsafeMutablePointer<Flow>
    let capacity: Int
    private let wordCount: UInt64
    private let isOwned: Bool

    /// Fresh memory of this process, which ends with the value.
    public init(capacity: Int) {
        let count = Self.byteCount(capacity: capacity)
        unsafe self.init(UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 64), capacity: capacity, isOwned: true)
        unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
    }

    /// Takes a mapping of `byteCount(capacity:)` bytes, aligned to 64, which must stay mapped and be nobody else's. Any content will do.
    @unsafe public init(mapped base: UnsafeMutableRawPointer, capacity: Int) {
        unsafe self.init(base, capacity: capacity, isOwned: false)
    }

    private init(_ base: UnsafeMutableRawPointer, capacity: Int, isOwned: Bool) {
        precondition((1...1 << 24).contains(capacity))
        precondition(UInt(bitPattern: base) & 63 == 0)
        unsafe self.base = base
        unsafe places = (base + 64).bindMemory(to: Flow.self, capacity: capacity)
        self.capacity = capacity
        wordCount = Self.end(of: capacity &- 1)
        self.isOwned = isOwned
    }

    deinit { if isOwned { unsafe base.deallocate() } }

    /// Bytes of `capacity` flows with their header.
    public static func byteCount(capacity: Int) -> Int { 64 + capacity * MemoryLayout<Flow>.stride }

    /// Different for every way in which flows were ever laid out. Change the text with the meaning of a field.
    public static var layout: UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in "address ufrag lane session since seen check next previous port state socket".utf8 {
            hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3
        }
        return hash &+ UInt64(MemoryLayout<Flow>.stride)
    }

    subscript(number: Int) -> Flow {
        unsafeAddress {
            precondition(UInt(bitPattern: number) < UInt(bitPattern: capacity))
            return unsafe UnsafePointer(places + number)
        }
        unsafeMutableAddress {
            precondition(UInt(bitPattern: number) < UInt(bitPattern: capacity))
            return unsafe places + number
        }
    }

    /// Where flow `number` ends, in words of eight bytes from the first one's beginning: never 0, and found again without a multiplication.
    static func end(of number: Int) -> UInt64 { UInt64(truncatingIfNeeded: number &+ 1) &* words }
    static func number(end: UInt64) -> Int { Int(truncatingIfNeeded: end / words) &- 1 }
    private static var words: UInt64 { UInt64(MemoryLayout<Flow>.stride / 8) }

    /// Whether some flow can end there; false for 0.
    @inline(__always) func contains(end: UInt64) -> Bool { end &- 1 < wordCount }

    /// The flow that ends there: an `end` that `contains` has agreed to, and that `end(of:)` has made.
    @unsafe @inline(__always) func flow(end: UInt64) -> UnsafeMutablePointer<Flow> {
        let place = unsafe UnsafeMutableRawPointer(places) + (Int(truncatingIfNeeded: end &* 8) &- MemoryLayout<Flow>.stride)
        return unsafe place.assumingMemoryBound(to: Flow.self)
    }

    /// No place from here on was ever used. It grows before the place is written, so a death in between leaves only an empty place.
    var used: Int {
        get {
            let stored = unsafe base.load(as: UInt64.self)
            return stored <= UInt64(capacity) ? Int(stored) : capacity
        }
        set { unsafe base.storeBytes(of: UInt64(newValue), as: UInt64.self) }
    }
}

/// One client address and its route: 80 bytes, all of them plain numbers, so that any content of a mapping is a value.
struct Flow: Sendable {
    var address = IPAddress.v6Any
    var ufrag = PackedUfrag()
    /// The first word of its frames' headers, which is its route but for the session.
    var lane: UInt64 = 0
    var session: UInt32 = 0
    /// Milliseconds, modulo 2^32: when it was made or moved.
    var since: UInt32 = 0
    /// 2^20 nanoseconds, modulo 2^32: when its client last sent something.
    var seen: UInt32 = 0
    /// `checksum` of a whole flow, 0 of an empty place; anything else was being written when somebody died.
    var check: UInt32 = 0
    /// Neighbours in the wheel's slot, or the free list.
    var next: UInt32
    var previous: UInt32 = FlowTable.none
    var port: UInt16 = 0
    /// The slot of the wheel, and in the highest bit whether the flow is confirmed.
    private var state: UInt8 = 0
    /// Which public socket its client last sent to.
    var socket: UInt8 = 0

    init(next: UInt32) { self.next = next }

    var wheelSlot: Int {
        get { Int(state & 127) }
        set { state = state & 128 | UInt8(truncatingIfNeeded: newValue & 127) }
    }
    var isConfirmed: Bool {
        get { state & 128 != 0 }
        set { state = state & 127 | (newValue ? 128 : 0) }
    }
    var route: Route {
        get {
            Route(
                cluster: UInt16(truncatingIfNeeded: lane >> 32), transceiver: UInt32(truncatingIfNeeded: lane),
                worker: UInt8(truncatingIfNeeded: lane >> 48), session: session)
        }
        set {
            lane =
                TrunkLane(
                    TrunkHeader(
                        kind: .clientData, worker: newValue.worker, cluster: newValue.cluster, transceiver: newValue.transceiver,
                        ingressRelay: 0, ingressWorker: 0)
                ).first
            session = newValue.session
        }
    }
    var source: SocketAddress { SocketAddress(address, port: port) }

    /// Over who it is and where it goes. What traffic changes (times, socket, confirmation) is one store each and cannot be torn.
    var checksum: UInt32 {
        var hash = Self.mix(0x5357_464C_4F57_5331, address.high)
        hash = Self.mix(hash, address.low)
        for index in 0..<3 { hash = Self.mix(hash, ufrag.words[index]) }
        hash = Self.mix(hash, lane)
        hash = Self.mix(hash, UInt64(session) << 32 | UInt64(port))
        return UInt32(truncatingIfNeeded: hash >> 32) | 1
    }

    private static func mix(_ hash: UInt64, _ word: UInt64) -> UInt64 {
        let product = (hash ^ word) &* 0x9E37_79B9_7F4A_7C15
        return product ^ product >> 29
    }
}
